/*
 * Scope-bound release of resources, and the few macros every file wants.
 *
 * A variable marked _cleanup_close_ etc. is released when it leaves its scope; TAKE_FD and TAKE_PTR
 * hand it over to somebody else instead.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))

/* Closes *fd unless it is negative, and leaves -1 there. errno is kept. */
void close_fd(int *fd);

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define _cleanup_close_ _cleanup_(close_fd)
#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose)
#define _cleanup_closedir_ _cleanup_(cleanup_closedir)

/* The value of a variable, which is left empty: ownership moves to the reader. */
#define TAKE_PTR(p)                                                                                                    \
	({                                                                                                             \
		__typeof__(p) taken_ = (p);                                                                            \
		(p) = NULL;                                                                                            \
		taken_;                                                                                                \
	})

#define TAKE_FD(fd)                                                                                                    \
	({                                                                                                             \
		int taken_ = (fd);                                                                                     \
		(fd) = -1;                                                                                             \
		taken_;                                                                                                \
	})
