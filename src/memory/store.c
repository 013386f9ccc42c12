/*
 * The store: see store.h and docs/memory-store.md.
 *
 * One memfd per space, as long as the address space, so that the file offset is the address; what holds no
 * bytes is a hole. Beside it, per GiB that was touched, two bitmaps: received, and received with bytes.
 *
 * First bytes of a page go in by pwrite(2): the kernel then takes a fresh page and fills it in one step, where a
 * mapping would fault and clear it first (measured: 1.4-1.8 against 0.3-1.0 GB/s). No whole-space mapping exists.
 *
 * Threads: any number, on different pages. Spaces and windows are looked up without a lock: they are published by
 * one atomic store and live until store_drop() or store_free(), which nothing may race.
 */
#include "memory/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "memory/store-internal.h"

int store_new(uint64_t limit_bytes, struct store **ret, struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, ENOMEM, "no memory for the page store");
	s->limit_bytes = limit_bytes;
	pthread_mutex_init(&s->lock, NULL);
	*ret = s;
	return 0;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	for (uint32_t i = 1; i <= SPACES_MAX; i++)
		store_drop(s, i);
	for (struct store_scratch *b = s->scratch, *next; b; b = next) {
		next = b->next;
		free(b);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}

struct store_space *store_find_space(struct store *s, uint32_t space)
{
	return space && space <= SPACES_MAX ? s->spaces[space] : NULL;
}

static size_t window_bucket(uint64_t address)
{
	return (address >> WINDOW_SHIFT) % WINDOW_BUCKETS;
}

struct store_window *store_find_window(struct store_space *sp, uint64_t address)
{
	uint64_t start = address & ~(WINDOW_BYTES - 1);
	struct store_window *w = sp->buckets[window_bucket(address)];

	while (w && w->start != start)
		w = w->next;
	return w;
}

/* Under the lock. */
static int make_space(struct store *s, uint32_t space, struct store_space **ret, struct error *err)
{
	struct store_space *sp = calloc(1, sizeof(*sp));
	char name[32];
	int r;

	if (!sp)
		return error_set(err, ENOMEM, "no memory for space %u of the page store", space);
	snprintf(name, sizeof(name), "phaul-space-%u", space);
	sp->id = space;
	sp->fd = memfd_create(name, MFD_CLOEXEC);
	if (sp->fd < 0 || ftruncate(sp->fd, (off_t)SPACE_ADDRESS_MAX) < 0) {
		r = error_errno(err, errno, "cannot make the memory file of space %u", space);
		close_fd(&sp->fd);
		free(sp);
		return r;
	}
	s->spaces[space] = *ret = sp;
	return 0;
}

static int over_limit(const struct store *s, struct error *err)
{
	return error_set(err, ENOSPC, "the memory received exceeds the limit of %llu MiB set for it; raise it",
			 (unsigned long long)(s->limit_bytes >> 20));
}

/* Under the lock. */
static int make_window(struct store *s, struct store_space *sp, uint64_t address, struct store_window **ret,
		       struct error *err)
{
	struct store_window *_Atomic *bucket = &sp->buckets[window_bucket(address)];
	struct store_window *w;

	/* A window costs as much as 17 pages, even if the page in it is one of zeros, which costs nothing. */
	if (s->limit_bytes && (s->n_windows + 1) * sizeof(*w) + s->data_pages * PAGE_BYTES > s->limit_bytes)
		return over_limit(s, err);
	if (s->n_windows >= WINDOWS_MAX)
		return error_set(err, ENOSPC, "the pages received are spread over more than %d GiB of addresses",
				 WINDOWS_MAX);
	w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(err, ENOMEM, "no memory for the map of space %u", sp->id);
	w->start = address & ~(WINDOW_BYTES - 1);
	w->next = *bucket;
	s->n_windows++;
	*bucket = *ret = w;
	return 0;
}

static int open_window(struct store *s, uint32_t space, uint64_t address, struct store_space **ret_space,
		       struct store_window **ret, struct error *err)
{
	struct store_space *sp = store_find_space(s, space);
	struct store_window *w = sp ? store_find_window(sp, address) : NULL;
	int r = 0;

	if (!w) {
		pthread_mutex_lock(&s->lock);
		sp = store_find_space(s, space);
		if (!sp)
			r = make_space(s, space, &sp, err);
		if (!r)
			w = store_find_window(sp, address);
		if (!r && !w)
			r = make_window(s, sp, address, &w, err);
		pthread_mutex_unlock(&s->lock);
	}
	if (r < 0)
		return r;
	*ret_space = sp;
	*ret = w;
	return 0;
}

/* Everything that names pages comes from the peer. */
static int check_pages(uint32_t space, uint64_t address, uint64_t pages, struct error *err)
{
	if (!space || space > SPACES_MAX)
		return error_set(err, EINVAL, "the peer names space %u, which cannot exist", space);
	if ((address & ~PAGE_MASK) || !pages || address >= SPACE_ADDRESS_MAX ||
	    pages > (SPACE_ADDRESS_MAX - address) / PAGE_BYTES)
		return error_set(err, EINVAL, "the peer names %llu pages at %#llx, which cannot exist",
				 (unsigned long long)pages, (unsigned long long)address);
	return 0;
}

static uint32_t window_page(uint64_t address)
{
	return (uint32_t)((address & (WINDOW_BYTES - 1)) >> PAGE_SHIFT);
}

/* Pages from address on that lie in the same window. */
static uint32_t pages_in_window(uint64_t address, uint32_t pages)
{
	return (uint32_t)MIN((uint64_t)pages, WINDOW_PAGES - window_page(address));
}

static int check_limit(struct store *s, struct store_window *w, uint32_t first, uint32_t n, struct error *err)
{
	uint64_t more = n - bitmap_count(w->data, first, n);

	if (!s->limit_bytes || !more ||
	    (s->data_pages + more) * PAGE_BYTES + s->n_windows * sizeof(*w) <= s->limit_bytes)
		return 0;
	return over_limit(s, err);
}

static void mark_data(struct store *s, struct store_window *w, uint32_t first, uint32_t n)
{
	atomic_fetch_add(&s->data_pages, bitmap_set(w->data, first, n));
	bitmap_set(w->have, first, n);
}

int store_window(struct store *s, uint32_t space, uint64_t address, uint32_t pages, uint8_t **ret, uint32_t *ret_pages,
		 struct error *err)
{
	struct store_space *sp;
	struct store_window *w;
	int r = check_pages(space, address, pages, err);

	if (!r)
		r = open_window(s, space, address, &sp, &w, err);
	if (r < 0)
		return r;
	pages = pages_in_window(address, pages);
	r = check_limit(s, w, window_page(address), pages, err);
	if (r < 0)
		return r;
	if (!w->mapping) {
		pthread_mutex_lock(&s->lock);
		if (!w->mapping) {
			void *m = mmap(NULL, WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, sp->fd,
				       (off_t)w->start);

			if (m == MAP_FAILED)
				r = error_errno(err, errno, "cannot map the memory file of space %u", space);
			else
				w->mapping = m;
		}
		pthread_mutex_unlock(&s->lock);
	}
	if (r < 0)
		return r;
	*ret = w->mapping + (address - w->start);
	*ret_pages = pages;
	return 0;
}

int store_commit(struct store *s, uint32_t space, uint64_t address, uint32_t pages, struct error *err)
{
	int r = check_pages(space, address, pages, err);

	while (!r && pages) {
		struct store_space *sp;
		struct store_window *w;
		uint32_t n = pages_in_window(address, pages);

		r = open_window(s, space, address, &sp, &w, err);
		if (r < 0)
			return r;
		mark_data(s, w, window_page(address), n);
		address += n * PAGE_BYTES;
		pages -= n;
	}
	return r;
}

int store_punch(struct store *s, struct store_space *sp, struct store_window *w, uint32_t first, uint32_t n)
{
	uint32_t end = first + n, at = bitmap_find(w->data, first, end, true);

	while (at < end) {
		uint32_t stop = bitmap_find(w->data, at, end, false);

		if (fallocate(sp->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(w->start + at * PAGE_BYTES),
			      (off_t)((stop - at) * PAGE_BYTES)) < 0)
			return -errno;
		atomic_fetch_sub(&s->data_pages, bitmap_clear(w->data, at, stop - at));
		at = bitmap_find(w->data, stop, end, true);
	}
	return 0;
}

int store_put_zero(struct store *s, uint32_t space, uint64_t address, uint32_t pages, struct error *err)
{
	int r = check_pages(space, address, pages, err);

	while (!r && pages) {
		struct store_space *sp;
		struct store_window *w;
		uint32_t n = pages_in_window(address, pages);

		r = open_window(s, space, address, &sp, &w, err);
		if (r < 0)
			return r;
		r = store_punch(s, sp, w, window_page(address), n);
		if (r < 0)
			return error_errno(err, -r, "cannot free pages of space %u", space);
		bitmap_set(w->have, window_page(address), n);
		address += n * PAGE_BYTES;
		pages -= n;
	}
	return r;
}

static int write_pages(struct store *s, uint32_t space, uint64_t address, uint32_t pages, const uint8_t *data,
		       struct error *err)
{
	while (pages) {
		struct store_space *sp;
		struct store_window *w;
		uint32_t n = pages_in_window(address, pages);
		size_t length = n * PAGE_BYTES, done = 0;
		int r = open_window(s, space, address, &sp, &w, err);

		if (!r)
			r = check_limit(s, w, window_page(address), n, err);
		if (r < 0)
			return r;
		while (done < length) {
			ssize_t k = pwrite(sp->fd, data + done, length - done, (off_t)(address + done));

			if (k < 0 && errno == EINTR)
				continue;
			if (k <= 0)
				return error_errno(err, k < 0 ? errno : EIO, "cannot store %u pages of space %u", n,
						   space);
			done += (size_t)k;
		}
		mark_data(s, w, window_page(address), n);
		data += length;
		address += length;
		pages -= n;
	}
	return 0;
}

/* A buffer for one decoded piece: from the list of those not in use, or a new one. */
static struct store_scratch *take_scratch(struct store *s)
{
	struct store_scratch *b;

	pthread_mutex_lock(&s->lock);
	b = s->scratch;
	if (b)
		s->scratch = b->next;
	pthread_mutex_unlock(&s->lock);
	return b ? b : malloc(sizeof(*b) + CODEC_PIECE_PAGES * PAGE_BYTES);
}

static void give_scratch(struct store *s, struct store_scratch *b)
{
	pthread_mutex_lock(&s->lock);
	b->next = s->scratch;
	s->scratch = b;
	pthread_mutex_unlock(&s->lock);
}

int store_put(struct store *s, uint32_t space, uint64_t address, uint32_t pages, enum page_encoding encoding,
	      const uint8_t *payload, size_t payload_bytes, struct error *err)
{
	struct store_scratch *b;
	int r = check_pages(space, address, pages, err);

	if (r < 0)
		return r;
	if (encoding == ENCODING_RAW) {
		if (payload_bytes != pages * PAGE_BYTES)
			return error_set(err, EBADMSG, "the peer sent %zu bytes for %u pages", payload_bytes, pages);
		return write_pages(s, space, address, pages, payload, err);
	}
	if (pages > CODEC_PIECE_PAGES)
		return error_set(err, EBADMSG, "the peer sent a piece of %u pages; %d is the most", pages,
				 CODEC_PIECE_PAGES);
	b = take_scratch(s);
	if (!b)
		return error_set(err, ENOMEM, "no memory to unpack pages");
	r = codec_decode(encoding, payload, payload_bytes, pages, b->bytes);
	if (r < 0)
		r = error_set(err, -r, "the peer sent %u pages of space %u that do not unpack", pages, space);
	else
		r = write_pages(s, space, address, pages, b->bytes, err);
	give_scratch(s, b);
	return r;
}

/* One run of pages in one window that all hold bytes, or all read as zeros. */
static int read_run(struct store_space *sp, struct store_window *w, uint32_t first, uint32_t n, uint8_t *out)
{
	return fd_pread_full(sp->fd, out, n * PAGE_BYTES, w->start + first * PAGE_BYTES);
}

int store_get(struct store *s, uint32_t space, uint64_t address, uint32_t pages, uint8_t *out, struct error *err)
{
	struct store_space *sp = store_find_space(s, space);
	int r = check_pages(space, address, pages, err);

	while (!r && pages) {
		struct store_window *w = sp ? store_find_window(sp, address) : NULL;
		uint32_t first = window_page(address), n = pages_in_window(address, pages);

		if (!w || bitmap_find(w->have, first, first + n, false) < first + n)
			return error_set(err, ENOENT, "a page at %#llx of space %u was never received",
					 (unsigned long long)address, space);
		/* A hole reads as zeros and stays one. */
		r = read_run(sp, w, first, n, out);
		if (r < 0)
			return error_errno(err, -r, "cannot read pages of space %u back", space);
		out += n * PAGE_BYTES;
		address += n * PAGE_BYTES;
		pages -= n;
	}
	return r;
}

void store_drop(struct store *s, uint32_t space)
{
	struct store_space *sp = store_find_space(s, space);

	if (!sp)
		return;
	s->spaces[space] = NULL;
	for (size_t i = 0; i < WINDOW_BUCKETS; i++)
		for (struct store_window *w = sp->buckets[i], *next; w; w = next) {
			next = w->next;
			atomic_fetch_sub(&s->data_pages, bitmap_count(w->data, 0, WINDOW_PAGES));
			s->n_windows--;
			if (w->mapping)
				munmap(w->mapping, WINDOW_BYTES);
			free(w);
		}
	close_fd(&sp->fd);
	free(sp);
}

int store_open_space(struct store *s, uint32_t space, struct error *err)
{
	struct store_space *sp;
	int r = check_pages(space, 0, 1, err);

	pthread_mutex_lock(&s->lock);
	if (!r && !store_find_space(s, space))
		r = make_space(s, space, &sp, err);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int store_fd(struct store *s, uint32_t space)
{
	struct store_space *sp = store_find_space(s, space);

	return sp ? sp->fd : -1;
}

uint64_t store_bytes(const struct store *s)
{
	return s->data_pages * PAGE_BYTES;
}
