/*
 * Helpers of the injection tests: see inject-helpers.h.
 */
#include "inject-helpers.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"

int inject_once(pid_t pid, struct error *err)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), fd = -1;
	_cleanup_maps_ struct maps maps = { 0 };
	int r = maps_read(pid, &maps, err);

	return r < 0 ? r : inject_userfaultfd(pid, pid, pidfd, &maps, &fd, err);
}

int inject_many(pid_t pid, int times)
{
	uint64_t enough = deadline_in_ms(WAIT_MS / 2); /* on a loaded machine fewer must do */

	int i;

	for (i = 0; i < times && (i < 10 || clock_now_ns() < enough); i++) {
		struct error err = { 0 };

		if (inject_once(pid, &err) < 0) {
			int status = 0;

			waitpid(pid, &status, WNOHANG);
			fail_msg("injection %d: %s (its status: %x)", i, err.text, (unsigned int)status);
		}
	}
	return i;
}

void wait_for_state(pid_t pid, char state)
{
	uint64_t deadline = deadline_in_ms(5000);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	while (clock_now_ns() < deadline) {
		_cleanup_buffer_ struct buffer text = { 0 };

		assert_int_equal(fd_read_file(AT_FDCWD, path, 65536, &text), 0);
		if (strrchr((char *)text.data, ')')[2] == state)
			return;
	}
	fail_msg("process %d never came into state %c", (int)pid, state);
}

int open_descriptors(pid_t pid)
{
	_cleanup_closedir_ DIR *dir = NULL;
	char path[64];
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	return n;
}

int ready(int fd)
{
	child_send(fd, 1);
	return fd;
}
