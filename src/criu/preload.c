/*
 * Starting CRIU with libphaul-criu.so in front of libc, where that helps. It is never needed for correctness: without it the
 * freeze is longer, and tasks of other users cannot be dumped where CAP_SYS_RESOURCE is missing.
 *
 * The library is looked for at PHAUL_CRIU_PRELOAD, beside the running program, where an installation has it and where the
 * build tree has it. No state; any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/syscall.h>

#include "criu/job.h"
#include "criu/preload/protocol.h"

#ifndef PHAUL_LIBRARY_DIRECTORY
#define PHAUL_LIBRARY_DIRECTORY "/usr/local/lib/phaul"
#endif

static bool have_sys_resource(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective & CAP_TO_MASK(CAP_SYS_RESOURCE);
}

static bool library_usable(const char *path)
{
	/* ld.so splits LD_PRELOAD at both. */
	return !strpbrk(path, " :") && access(path, R_OK) == 0;
}

bool installed_find(const char *name, char *ret, size_t size)
{
	static const char *const beside[] = { "", "/../lib/phaul", "/../src/criu/preload", "/../../src/criu/preload",
					      "/src/criu/preload" };
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = 0;
		*strrchr(self, '/') = 0;
		for (size_t i = 0; i < ARRAY_SIZE(beside); i++) {
			_cleanup_free_ char *real = NULL;

			snprintf(path, sizeof(path), "%s%s/%s", self, beside[i], name);
			real = realpath(path, NULL);
			if (!real || !library_usable(real))
				continue;
			snprintf(ret, size, "%s", real);
			return true;
		}
	}
	snprintf(ret, size, "%s/%s", PHAUL_LIBRARY_DIRECTORY, name);
	return library_usable(ret);
}

static bool library_find(char *ret, size_t size)
{
	const char *named = getenv("PHAUL_CRIU_PRELOAD");

	if (!named)
		return installed_find(PRELOAD_LIBRARY, ret, size);
	snprintf(ret, size, "%s", named);
	return named[0] && library_usable(ret);
}

bool preload_wanted(const struct criu_options *options, bool *ret_want_limits)
{
	*ret_want_limits = !have_sys_resource();
	return options->hidden_ranges || *ret_want_limits;
}

void preload_environment(const char *hidden_ranges, const char *status_path, int version, bool want_limits,
			 struct preload *ret)
{
	char library[PATH_MAX];
	size_t n = 0;

#define ADD(...)                                                                                                       \
	do {                                                                                                           \
		snprintf(ret->strings[n], sizeof(ret->strings[n]), __VA_ARGS__);                                       \
		ret->environment[n] = ret->strings[n];                                                                 \
		n++;                                                                                                   \
	} while (0)
	ADD("CRIU_CONFIG_FILE="); /* nobody else's options */
	if ((hidden_ranges || want_limits) && library_find(library, sizeof(library))) {
		ADD("LD_PRELOAD=%s", library);
		ADD(PRELOAD_VERSION "=%d", version);
		ADD(PRELOAD_STATUS "=%s", status_path ? status_path : "");
		ADD(PRELOAD_HIDE "=%s", hidden_ranges ? hidden_ranges : "");
		ADD(PRELOAD_LIMITS "=%d", want_limits);
	}
	ret->environment[n] = NULL;
#undef ADD
}

size_t preload_held(const char *status_path, char strings[PRELOAD_HELD_MAX][PATH_MAX + 64])
{
	char library[PATH_MAX];

	if (!library_find(library, sizeof(library)))
		return 0;
	snprintf(strings[0], sizeof(strings[0]), "LD_PRELOAD=%s", library);
	snprintf(strings[1], sizeof(strings[1]), PRELOAD_STATUS "=%s", status_path);
	return 2;
}

void preload_actions(const char *status_path, char *ret, size_t size)
{
	_cleanup_buffer_ struct buffer text = { 0 };

	ret[0] = 0;
	if (fd_read_file(AT_FDCWD, status_path, 4096, &text) < 0 || !text.length)
		return;
	text.data[text.length - 1] = 0;
	for (char *line = (char *)text.data, *save = NULL; (line = strtok_r(line, "\n", &save)); line = NULL)
		snprintf(ret + strlen(ret), size - strlen(ret), "%s%s", ret[0] ? "; " : "", line);
}
