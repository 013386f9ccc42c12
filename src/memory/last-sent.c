/*
 * The last versions of pages: see last-sent.h.
 *
 * Sets of eight slots, and a lock for every so many of them. A new page takes a slot that is empty, or of the oldest round; never one of
 * this round, because its page may come again just as well.
 */
#include "memory/last-sent.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"

#define WAYS 8U
#define PAGES_MIN 1024U
#define LOCKS 64U

struct slot {
	uint64_t address;
	uint32_t space; /* 0: empty */
	uint32_t round;
};

struct last_sent {
	pthread_mutex_t locks[LOCKS];
	struct slot *slots;
	uint8_t *bytes; /* of slot i: page i */
	uint32_t n_slots;
	_Atomic uint64_t looked, found;
};

int last_sent_new(uint64_t pages, struct last_sent **ret)
{
	struct last_sent *l = calloc(1, sizeof(*l));
	void *bytes = MAP_FAILED;

	if (!l)
		return -ENOMEM;
	l->n_slots = PAGES_MIN;
	while (l->n_slots < pages && l->n_slots < LAST_SENT_PAGES_MAX)
		l->n_slots *= 2;
	l->slots = calloc(l->n_slots, sizeof(*l->slots));
	if (l->slots)
		bytes = mmap(NULL, l->n_slots * PAGE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (bytes == MAP_FAILED) {
		free(l->slots);
		free(l);
		return -ENOMEM;
	}
	l->bytes = bytes;
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_init(&l->locks[i], NULL);
	*ret = l;
	return 0;
}

void last_sent_free(struct last_sent *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&l->locks[i]);
	munmap(l->bytes, l->n_slots * PAGE_BYTES);
	free(l->slots);
	free(l);
}

static uint32_t set_of(const struct last_sent *l, uint32_t space, uint64_t address)
{
	uint64_t x = ((address >> PAGE_SHIFT) ^ ((uint64_t)space << 44)) * 0x9e3779b97f4a7c15ULL;

	return (uint32_t)(x >> 32) & (l->n_slots / WAYS - 1);
}

/* The page's slot, or one for it to take (*ret_held: false), or NULL. Under the lock. */
static struct slot *find_slot(struct last_sent *l, uint32_t set, uint32_t space, uint64_t address, uint32_t round,
			      bool *ret_held)
{
	struct slot *slots = &l->slots[(size_t)set * WAYS], *take = NULL;

	*ret_held = false;
	for (uint32_t i = 0; i < WAYS; i++) {
		struct slot *s = &slots[i];

		if (s->space == space && s->address == address) {
			*ret_held = true;
			return s;
		}
		if ((!s->space || s->round < round) &&
		    (!take || (take->space && (!s->space || s->round < take->round))))
			take = s;
	}
	return take;
}

int last_sent_exchange(struct last_sent *l, uint32_t space, uint64_t address, uint32_t round, const uint8_t *now,
		       uint8_t delta[DELTA_PAGE_MAX])
{
	uint32_t set = set_of(l, space, address);
	struct slot *s;
	bool held;
	int n = -1;

	pthread_mutex_lock(&l->locks[set % LOCKS]);
	s = find_slot(l, set, space, address, round, &held);
	if (s) {
		uint8_t *bytes = l->bytes + (size_t)(s - l->slots) * PAGE_BYTES;

		if (held && s->round < round)
			n = delta_encode(bytes, now, delta);
		memcpy(bytes, now, PAGE_BYTES);
		*s = (struct slot){ address, space, round };
	}
	pthread_mutex_unlock(&l->locks[set % LOCKS]);
	l->looked++;
	l->found += n >= 0;
	return n;
}

void last_sent_forget(struct last_sent *l, uint32_t space, uint64_t address)
{
	uint32_t set = set_of(l, space, address);
	struct slot *s;
	bool held;

	pthread_mutex_lock(&l->locks[set % LOCKS]);
	s = find_slot(l, set, space, address, 0, &held);
	if (held)
		s->space = 0;
	pthread_mutex_unlock(&l->locks[set % LOCKS]);
}

void last_sent_count(struct last_sent *l, uint64_t *ret_looked, uint64_t *ret_found)
{
	*ret_looked = atomic_exchange(&l->looked, 0);
	*ret_found = atomic_exchange(&l->found, 0);
}
