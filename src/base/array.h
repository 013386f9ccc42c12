/*
 * Arrays that grow at their end: the owner keeps a pointer, a count and how many have room.
 */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

/*
 * Makes room for one element behind the n there are. list: the address of the pointer; first: how many have room at first,
 * doubled from then on; size: of an element. 0, or -ENOMEM with everything as it was.
 */
static inline int array_grow(void *list, size_t n, size_t *n_allocated, size_t first, size_t size)
{
	size_t wanted = *n_allocated ? 2 * *n_allocated : first, unused;
	void *grown;

	if (n < *n_allocated)
		return 0;
	/* Checked here, because the sanitizers take an overflow inside of reallocarray(3) for a mistake of the program. */
	if (__builtin_mul_overflow(wanted, size, &unused))
		return -ENOMEM;
	grown = reallocarray(*(void **)list, wanted, size);
	if (!grown)
		return -ENOMEM;
	*(void **)list = grown;
	*n_allocated = wanted;
	return 0;
}
