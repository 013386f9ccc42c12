/*
 * Feeds files to a fuzz target without a fuzzer: replay FILE|DIRECTORY... prints TAP, one test per file. What once was found stays
 * found, with any compiler. A broken promise aborts, which ends the TAP early: a failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/buffer.h"
#include "base/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_BYTES_MAX (32U << 20)

static int count, failed;

static void replay(int dir_fd, const char *name)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	int r = fd_read_file(dir_fd, name, INPUT_BYTES_MAX, &b);

	count++;
	if (r < 0) {
		printf("not ok %d - %s\n# cannot read it: %s\n", count, name, strerror(-r));
		failed++;
		return;
	}
	(void)LLVMFuzzerTestOneInput(b.data, b.length);
	printf("ok %d - %s\n", count, name);
	fflush(stdout);
}

static int replay_all(const char *path)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir && errno == ENOTDIR) {
		replay(AT_FDCWD, path);
		return 0;
	}
	if (!dir) {
		fprintf(stderr, "replay: cannot open %s: %s\n", path, strerror(errno));
		return -1;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			replay(dirfd(dir), entry->d_name);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: replay FILE|DIRECTORY...\n");
		return 2;
	}
	for (int i = 1; i < argc; i++)
		if (replay_all(argv[i]) < 0)
			return 1;
	if (!count) {
		fprintf(stderr, "replay: there is no input at all\n");
		return 1;
	}
	printf("1..%d\n", count);
	return failed ? 1 : 0;
}
