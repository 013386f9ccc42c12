/*
 * The index of page contents: see dedup.h. Thread-safe: one lock around everything, held for two hash look-ups.
 *
 * Two tables. `places` finds a page by (space, address); `contents` finds a distinct hash, whose places
 * hang in a doubly linked list. So a million places with the same bytes cost one step to enter or leave, and never
 * lengthen the chain of another hash. Invariant: a place is in the list of exactly the content it was last noted with;
 * a content without places is gone.
 *
 * XXH3-128 is not a cryptographic hash. The bytes it covers come from the workload itself, and a reference is
 * checked at the target against the page it names; the residual risk is written in docs/memory-store.md.
 */
#include "memory/dedup.h"

#include <errno.h>
#include <pthread.h>
#include <xxhash.h>

#define TABLE_FIRST 1024

struct content;

struct place {
	struct place *next;		      /* in its bucket */
	struct place *list_next, **list_link; /* in its content */
	struct content *content;
	uint64_t address;
	uint32_t space;
};

struct content {
	struct content *next;
	struct place *places;
	struct page_hash hash;
};

struct dedup_index {
	pthread_mutex_t lock;
	struct place **places;
	struct content **contents;
	size_t n_places, n_contents;
	size_t places_size, contents_size; /* powers of two */
};

struct page_hash page_hash_of(const void *page)
{
	XXH128_hash_t h = XXH3_128bits(page, PAGE_BYTES);

	return (struct page_hash){ .low = h.low64, .high = h.high64 };
}

static size_t place_bucket(uint32_t space, uint64_t address, size_t size)
{
	uint64_t x = (address >> PAGE_SHIFT) ^ ((uint64_t)space << 44);

	x *= 0x9e3779b97f4a7c15ULL;
	return (size_t)(x >> 20) & (size - 1);
}

static size_t content_bucket(const struct page_hash *h, size_t size)
{
	return (size_t)h->low & (size - 1);
}

int dedup_new(struct dedup_index **ret, struct error *err)
{
	struct dedup_index *d = calloc(1, sizeof(*d));

	if (d) {
		d->places_size = d->contents_size = TABLE_FIRST;
		d->places = calloc(d->places_size, sizeof(*d->places));
		d->contents = calloc(d->contents_size, sizeof(*d->contents));
		pthread_mutex_init(&d->lock, NULL);
	}
	if (!d || !d->places || !d->contents) {
		dedup_free(d);
		return error_set(err, ENOMEM, "no memory for the index of page contents");
	}
	*ret = d;
	return 0;
}

void dedup_free(struct dedup_index *d)
{
	if (!d)
		return;
	for (size_t i = 0; d->places && i < d->places_size; i++)
		for (struct place *p = d->places[i], *next; p; p = next) {
			next = p->next;
			free(p);
		}
	for (size_t i = 0; d->contents && i < d->contents_size; i++)
		for (struct content *c = d->contents[i], *next; c; c = next) {
			next = c->next;
			free(c);
		}
	free(d->places);
	free(d->contents);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

/* Larger tables, when there is memory for them; chains only grow longer otherwise. */
static void grow_places(struct dedup_index *d)
{
	size_t size = d->places_size * 2;
	struct place **table = d->n_places < d->places_size ? NULL : calloc(size, sizeof(*table));

	if (!table)
		return;
	for (size_t i = 0; i < d->places_size; i++)
		for (struct place *p = d->places[i], *next; p; p = next) {
			size_t b = place_bucket(p->space, p->address, size);

			next = p->next;
			p->next = table[b];
			table[b] = p;
		}
	free(d->places);
	d->places = table;
	d->places_size = size;
}

static void grow_contents(struct dedup_index *d)
{
	size_t size = d->contents_size * 2;
	struct content **table = d->n_contents < d->contents_size ? NULL : calloc(size, sizeof(*table));

	if (!table)
		return;
	for (size_t i = 0; i < d->contents_size; i++)
		for (struct content *c = d->contents[i], *next; c; c = next) {
			size_t b = content_bucket(&c->hash, size);

			next = c->next;
			c->next = table[b];
			table[b] = c;
		}
	free(d->contents);
	d->contents = table;
	d->contents_size = size;
}

static struct place *find_place(const struct dedup_index *d, uint32_t space, uint64_t address)
{
	struct place *p = d->places[place_bucket(space, address, d->places_size)];

	while (p && (p->address != address || p->space != space))
		p = p->next;
	return p;
}

static struct content *find_content(const struct dedup_index *d, const struct page_hash *hash)
{
	struct content *c = d->contents[content_bucket(hash, d->contents_size)];

	while (c && (c->hash.low != hash->low || c->hash.high != hash->high))
		c = c->next;
	return c;
}

static struct place *make_place(struct dedup_index *d, uint32_t space, uint64_t address)
{
	struct place *p = calloc(1, sizeof(*p));
	size_t b;

	if (!p)
		return NULL;
	grow_places(d);
	b = place_bucket(space, address, d->places_size);
	*p = (struct place){ .next = d->places[b], .space = space, .address = address };
	d->places[b] = p;
	d->n_places++;
	return p;
}

static struct content *make_content(struct dedup_index *d, const struct page_hash *hash)
{
	struct content *c = calloc(1, sizeof(*c));
	size_t b;

	if (!c)
		return NULL;
	grow_contents(d);
	b = content_bucket(hash, d->contents_size);
	*c = (struct content){ .next = d->contents[b], .hash = *hash };
	d->contents[b] = c;
	d->n_contents++;
	return c;
}

/* Takes a place out of its content, which goes when it was the last. */
static void place_leave(struct dedup_index *d, struct place *p)
{
	struct content *c = p->content, **link;

	if (!c)
		return;
	*p->list_link = p->list_next;
	if (p->list_next)
		p->list_next->list_link = p->list_link;
	p->content = NULL;
	if (c->places)
		return;
	for (link = &d->contents[content_bucket(&c->hash, d->contents_size)]; *link != c;)
		link = &(*link)->next;
	*link = c->next;
	d->n_contents--;
	free(c);
}

static void place_enter(struct place *p, struct content *c)
{
	p->content = c;
	p->list_next = c->places;
	p->list_link = &c->places;
	if (c->places)
		c->places->list_link = &p->list_next;
	c->places = p;
}

int dedup_note(struct dedup_index *d, uint32_t space, uint64_t address, const struct page_hash *hash)
{
	struct content *c;
	struct place *p;
	int r = 0;

	pthread_mutex_lock(&d->lock);
	p = find_place(d, space, address);
	/* Whatever happens next, the old bytes are not there any more. */
	if (p)
		place_leave(d, p);
	else
		p = make_place(d, space, address);
	c = find_content(d, hash);
	if (p && !c)
		c = make_content(d, hash);
	if (p && c)
		place_enter(p, c);
	else
		r = -ENOMEM;
	pthread_mutex_unlock(&d->lock);
	return r;
}

void dedup_forget(struct dedup_index *d, uint32_t space, uint64_t address, uint64_t pages)
{
	pthread_mutex_lock(&d->lock);
	for (uint64_t i = 0; i < pages && d->n_contents; i++) {
		struct place *p = find_place(d, space, address + (i << PAGE_SHIFT));

		/* The place itself stays, empty: it may well be noted again. */
		if (p)
			place_leave(d, p);
	}
	pthread_mutex_unlock(&d->lock);
}

bool dedup_find(struct dedup_index *d, const struct page_hash *hash, struct page_reference *ret)
{
	const struct content *c;

	pthread_mutex_lock(&d->lock);
	c = find_content(d, hash);
	if (c)
		*ret = (struct page_reference){ .space = c->places->space,
						.address = c->places->address,
						.hash = *hash };
	pthread_mutex_unlock(&d->lock);
	return c != NULL;
}

bool dedup_is_current(struct dedup_index *d, uint32_t space, uint64_t address, const struct page_hash *hash)
{
	const struct place *p;
	bool same;

	pthread_mutex_lock(&d->lock);
	p = find_place(d, space, address);
	same = p && p->content && p->content->hash.low == hash->low && p->content->hash.high == hash->high;
	pthread_mutex_unlock(&d->lock);
	return same;
}
