/*
 * libphaul-criu.so, syscall(prlimit64) of another process, refused with EPERM: answered from /proc/PID/limits. The kernel wants
 * CAP_SYS_RESOURCE for tasks of other users even to read; the file says the same to everybody who may ptrace.
 *
 * Source: criu/cr-dump.c (get_task_rlimits), proc(5).
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "library.h"

static long (*real_syscall)(long, ...);

/* The names of /proc/PID/limits by resource number. */
static const char *const limit_names[RLIM_NLIMITS] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};

static bool parse_limit(const char *text, rlim_t *ret)
{
	char *end;

	if (strcmp(text, "unlimited") == 0) {
		*ret = RLIM_INFINITY;
		return true;
	}
	*ret = strtoul(text, &end, 10);
	return end != text && !*end;
}

static bool limits_from_proc(int pid, unsigned int resource, struct rlimit *ret)
{
	char path[64], line[256], soft[32], hard[32];
	const char *name = resource < RLIM_NLIMITS ? limit_names[resource] : NULL;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	f = name ? fopen(path, "re") : NULL;
	while (f && !found && fgets(line, sizeof(line), f))
		found = strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ' ' &&
			sscanf(line + strlen(name), "%31s %31s", soft, hard) == 2 &&
			parse_limit(soft, &ret->rlim_cur) && parse_limit(hard, &ret->rlim_max);
	if (f)
		fclose(f);
	return found;
}

EXPORTED long syscall(long number, ...)
{
	static bool said;
	long a[6], r;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (!real_syscall)
		*(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
	r = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (r < 0 && errno == EPERM && library.limits && number == SYS_prlimit64 && (int)a[0] > 0 && !a[2] && a[3] &&
	    limits_from_proc((int)a[0], (unsigned int)a[1], (struct rlimit *)a[3])) {
		library_say(&said, "limits of another user's task");
		return 0;
	}
	return r;
}
