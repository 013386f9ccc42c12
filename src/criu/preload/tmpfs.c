/*
 * libphaul-criu.so, execvp() of tar: CRIU keeps the content of a tmpfs in an archive, for which it starts tar at the dump and at the restore,
 * which starts a shell and gzip. A small one is made and unpacked here, in the child that CRIU forked, in a tenth of the time. The image is one that tar takes.
 *
 * Whatever is unusual goes to tar after all: nothing was read from or written to CRIU's image by then.
 * Threads: that child's only one. Source: criu/filesystems.c (tmpfs_dump, tmpfs_restore), criu/util.c (cr_system_userns).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "library.h"

#define DIRECTORY "" /* any word */

/* Whether these are CRIU's arguments; *ret_directory: the one that is the directory. */
static bool is_command(char *const argv[], const char *const *words, const char **ret_directory)
{
	size_t i = 0;

	for (; argv[i] && words[i]; i++) {
		if (!words[i][0])
			*ret_directory = argv[i];
		else if (strcmp(argv[i], words[i]) != 0)
			return false;
	}
	return !argv[i] && !words[i];
}

/* From the directory to the standard output. */
static int dump(const char *path)
{
	struct archive a = { 0 };
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = archive_make(fd, &a);
	close(fd);
	if (r < 0)
		return r;
	r = archive_write(&a, STDOUT_FILENO);
	archive_free(&a);
	/* A full disk, which tar would not find emptier; and behind half an archive nothing of it would be read. */
	if (r < 0) {
		dprintf(STDERR_FILENO, "Error (libphaul-criu): cannot write the archive of a tmpfs: %s\n",
			strerror(-r));
		_exit(1);
	}
	return 0;
}

/* From the standard input into the directory. */
static int restore(const char *path)
{
	struct archive a = { 0 };
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = archive_read(STDIN_FILENO, &a);
	if (!r)
		r = archive_extract(&a, fd);
	close(fd);
	archive_free(&a);
	return r;
}

EXPORTED int execvp(const char *file, char *const argv[])
{
	static const char *const create[] = { "tar",
					      "--create",
					      "--gzip",
					      "--no-unquote",
					      "--no-wildcards",
					      "--one-file-system",
					      "--check-links",
					      "--preserve-permissions",
					      "--sparse",
					      "--numeric-owner",
					      "--directory",
					      DIRECTORY,
					      ".",
					      NULL };
	static const char *const extract[] = { "tar",	      "--extract", "--gzip", "--no-unquote", "--no-wildcards",
					       "--directory", DIRECTORY,   NULL };
	static bool packed, unpacked;
	const char *directory = NULL;
	int (*real)(const char *, char *const[]);

	*(void **)&real = dlsym(RTLD_NEXT, "execvp");
	if (library.active && strcmp(file, "tar") == 0) {
		if (is_command(argv, create, &directory) && dump(directory) == 0) {
			library_say(&packed, "file systems in memory packed without tar");
			_exit(0);
		}
		if (is_command(argv, extract, &directory) && restore(directory) == 0) {
			library_say(&unpacked, "file systems in memory unpacked without tar");
			_exit(0);
		}
	}
	return real(file, argv);
}
