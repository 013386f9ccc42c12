/*
 * The helpers of all drivers: see helper.h. One thread each.
 */
#include "driver/helper.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "base/fd.h"
#include "driver/lxc.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} helpers[] = {
	{ "drain-pipe", drain_main },	     { LXC_RESTORE_HELPER, lxc_restore_main },
	{ DOCKER_START, docker_start_main }, { DOCKER_GIVE, docker_give_main },
	{ DOCKER_TAKE, docker_take_main },
};

int driver_helper_main(int argc, char **argv)
{
	for (size_t i = 0; argc > 0 && i < ARRAY_SIZE(helpers); i++)
		if (!strcmp(argv[0], helpers[i].name))
			return helpers[i].run(argc, argv);
	return 2;
}

/* Everything that can be read is read, whatever becomes of the file: who writes must not be stopped by a full disk. */
static void drain(const char *path)
{
	char block[65536], older[PATH_MAX];
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	ssize_t n;

	snprintf(older, sizeof(older), "%s.1", path);
	while ((n = read(STDIN_FILENO, block, sizeof(block))) > 0) {
		if (fd >= 0 && fd_write_full(fd, block, (size_t)n) == 0)
			size += n;
		if (size < (off_t)DRAIN_BYTES_MAX)
			continue;
		(void)rename(path, older);
		close_fd(&fd);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640);
		size = 0;
	}
}

int drain_main(int argc, char **argv)
{
	pid_t pid;

	if (argc != 2)
		return 2;
	pid = fork();
	if (pid)
		return pid < 0;
	drain(argv[1]);
	return 0;
}
