/*
 * The index of what was sent: see duplicates.h.
 *
 * Buckets of four places, and a lock for every so many of them. A page whose bucket is full takes the place of one that its hash names.
 * Invariant: a place is known when it has the index's generation; so all of them are forgotten by counting on.
 */
#include "memory/duplicates.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <xxhash.h>

#include "base/cleanup.h"
#include "memory/codec.h"
#include "memory/page-bits.h"

#define WAYS 4U
#define PLACES_MIN (1U << 12)
#define PLACES_MAX (1U << 20) /* 48 MiB */
#define LOCKS 64U
#define SECRET_BYTES 192 /* at least XXH3_SECRET_SIZE_MIN */

/* What looking at a page costs, hash and memory. Not measured on the way: a thread that loses the processor in the middle would tell
 * nonsense. */
#define LOOK_NS 800
#define CHEAP 40 /* sending takes so many times longer: 128 MB/s */
#define SEARCH_PAGES_MAX 16384

struct place {
	uint64_t low, high; /* the hash */
	uint64_t address, position;
	uint32_t space, channel, generation, unused;
};

struct duplicates {
	pthread_mutex_t locks[LOCKS];
	struct place *places;
	uint32_t n_places; /* a power of two; 0: none yet */
	uint32_t generation;
	uint8_t secret[SECRET_BYTES];
};

int duplicates_new(struct duplicates **ret)
{
	struct duplicates *d = calloc(1, sizeof(*d));

	if (!d || getrandom(d->secret, sizeof(d->secret), 0) != sizeof(d->secret)) {
		free(d);
		return -ENOMEM;
	}
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_init(&d->locks[i], NULL);
	d->generation = 1;
	*ret = d;
	return 0;
}

void duplicates_free(struct duplicates *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&d->locks[i]);
	free(d->places);
	free(d);
}

void duplicates_clear(struct duplicates *d)
{
	if (++d->generation)
		return;
	/* After 2^32 rounds. */
	memset(d->places, 0, d->n_places * sizeof(*d->places));
	d->generation = 1;
}

/* Room for that many pages; what was known is forgotten when it takes more than there was. */
static int make_room(struct duplicates *d, uint64_t pages)
{
	uint32_t n = PLACES_MIN;
	struct place *places;

	while (n < pages && n < PLACES_MAX)
		n *= 2;
	if (n <= d->n_places)
		return 0;
	places = calloc(n, sizeof(*places));
	if (!places)
		return -ENOMEM;
	free(d->places);
	d->places = places;
	d->n_places = n;
	return 0;
}

/* Forgets the pages that are about to be sent anew. */
static int forget_listed(struct duplicates *d, const struct page_runs *runs)
{
	_cleanup_page_bits_ struct page_bits *listed = NULL;
	int r = d->n_places ? page_bits_new(&listed) : 0;

	if (!r && d->n_places)
		r = page_bits_set_runs(listed, runs);
	for (uint32_t i = 0; i < d->n_places && !r; i++) {
		struct place *p = &d->places[i];
		bool inside = false;

		if (p->generation != d->generation)
			continue;
		page_bits_part(listed, p->space, p->address, 1, &inside);
		if (inside)
			p->generation = 0;
		p->position = p->channel = 0;
	}
	return r;
}

int duplicates_begin(struct duplicates *d, const struct page_runs *runs, bool last)
{
	if (last)
		duplicates_clear(d);
	else if (forget_listed(d, runs) < 0)
		return -ENOMEM;
	return make_room(d, runs->pages);
}

bool duplicates_look(struct duplicates *d, const uint8_t *page, const struct page_copy *self, struct page_copy *ret)
{
	XXH128_hash_t hash = XXH3_128bits_withSecret(page, PAGE_BYTES, d->secret, sizeof(d->secret));
	uint32_t bucket = (uint32_t)hash.low64 & (d->n_places / WAYS - 1);
	struct place *places = &d->places[(size_t)bucket * WAYS], *take = &places[hash.high64 % WAYS];
	pthread_mutex_t *lock = &d->locks[bucket % LOCKS];
	bool found = false;

	pthread_mutex_lock(lock);
	/* Written before it is read: memory that was only read so far is mapped a second time by the write, and every processor is told. */
	*(volatile uint32_t *)&places->unused = 0;
	for (uint32_t i = 0; i < WAYS && !found; i++) {
		struct place *p = &places[i];

		if (p->generation != d->generation) {
			take = p;
		} else if (p->low == hash.low64 && p->high == hash.high64) {
			*ret = (struct page_copy){ p->address, p->position, p->space, p->channel };
			found = true;
		}
	}
	if (!found)
		*take = (struct place){ hash.low64,  hash.high64,   self->address, self->position,
					self->space, self->channel, d->generation, 0 };
	pthread_mutex_unlock(lock);
	return found;
}

bool duplicates_sampled(const uint8_t *page)
{
	static const size_t at[] = { 0, 88, 2056, 4088 };
	uint64_t mixed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		uint64_t word;

		memcpy(&word, page + at[i], sizeof(word));
		mixed = (mixed ^ word) * 0x9e3779b97f4a7c15ULL;
		mixed ^= mixed >> 32;
	}
	return mixed >> 60 == 15;
}

void duplicates_search_add(struct duplicates_search *s, uint64_t looked, uint64_t found)
{
	s->looked += looked;
	s->found += found;
	if (s->looked > SEARCH_PAGES_MAX) {
		s->looked /= 2;
		s->found /= 2;
	}
}

bool duplicates_search_pays(const struct duplicates_search *s, uint64_t link_rate)
{
	double page_ns = (double)PAGE_BYTES * 1e9 / (double)(link_rate ? link_rate : CODEC_RATE_ASSUMED);
	double found = s->looked ? (double)s->found / (double)s->looked : 0;

	return page_ns >= CHEAP * LOOK_NS || found * page_ns > LOOK_NS;
}
