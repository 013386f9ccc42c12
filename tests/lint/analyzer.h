/*
 * What the static analyzer must know of functions whose bodies it does not see; tests/lint/tidy puts this before each file of src/.
 *
 * It follows `if (r < 0) return r;` and takes any int for possible: without this it goes on with 0 from error_set() or from -errno, as if
 * all had gone well, and then finds outputs that nobody set.
 */
#pragma once

#include <errno.h>

#include "base/error.h"

static inline int model_negative(int r)
{
	return r < 0 ? r : -EIO;
}

static inline int *model_errno(void)
{
	int *number = __errno_location();

	if (*number <= 0)
		__builtin_unreachable();
	return number;
}

#define error_set(...) model_negative(error_set(__VA_ARGS__))
#define error_errno(...) model_negative(error_errno(__VA_ARGS__))
#define error_wrap(...) model_negative(error_wrap(__VA_ARGS__))
#undef errno
#define errno (*model_errno())
