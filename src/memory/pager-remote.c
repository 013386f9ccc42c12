/*
 * The client's side of post-copy: requests out, pages in. See pager.h.
 *
 * A page is written into its store first and said to be there then (pager-missing.c). A page that comes twice, after a link broke, is
 * dropped: the process may have changed it since, and the store's hole behind it is punched already.
 *
 * Threads: any; what is shared is atomic, and two threads never bring the same page over one link.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "memory/pager-internal.h"
#include "memory/pager.h"

int pager_remote_open(struct pager *p, const struct pager_space *spaces, size_t n_spaces, struct error *err)
{
	p->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->arrival_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->store_fds = malloc((n_spaces + 1) * sizeof(*p->store_fds));
	if (p->request_fd < 0 || p->arrival_fd < 0 || !p->store_fds)
		return error_errno(err, p->store_fds ? errno : ENOMEM, "cannot prepare for pages that come later");
	for (size_t i = 0; i < n_spaces; i++)
		p->store_fds[i] = -1;
	for (size_t i = 0; i < n_spaces; i++) {
		if (!spaces[i].missing || !spaces[i].missing->n_ranges)
			continue;
		p->store_fds[i] = fcntl(spaces[i].store_fd, F_DUPFD_CLOEXEC, 3);
		if (p->store_fds[i] < 0)
			return error_errno(err, errno, "there is no store for pages of space %u that come later",
					   spaces[i].space);
	}
	return 0;
}

void pager_remote_close(struct pager *p)
{
	for (uint32_t i = 0; p->store_fds && p->state && i < p->state->n_spaces; i++)
		close_fd(&p->store_fds[i]);
	free(p->store_fds);
	close_fd(&p->request_fd);
	close_fd(&p->arrival_fd);
}

int pager_request_fd(const struct pager *p)
{
	return p->request_fd;
}

size_t pager_requests(struct pager *p, struct pager_place *ret, size_t max)
{
	struct pager_request request;
	eventfd_t ignored;
	size_t n = 0;

	eventfd_read(p->request_fd, &ignored);
	while (n < max && pager_request_take(p->state, &request))
		if (request.space < p->state->n_spaces)
			ret[n++] =
				(struct pager_place){ state_space(p->state, request.space)->space, request.source, 1 };
	if (n == max)
		eventfd_write(p->request_fd, 1);
	return n;
}

void pager_relink(struct pager *p)
{
	p->state->link++;
	eventfd_write(p->arrival_fd, 1);
}

static bool find_space(const struct pager *p, uint32_t space, uint32_t *ret)
{
	for (*ret = 0; *ret < p->state->n_spaces; (*ret)++)
		if (state_space(p->state, *ret)->space == space)
			return true;
	return false;
}

static int write_full(int fd, const uint8_t *data, size_t length, uint64_t at)
{
	while (length) {
		ssize_t n = pwrite(fd, data, length, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		at += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

/* data: of the pages; NULL: they are zeros, and stay a hole, for nothing else was ever written there. */
static int put_missing(struct pager *p, uint32_t i, const struct pager_place *place, const uint8_t *data)
{
	struct pager_space_state *sp = state_space(p->state, i);
	int r = 0;

	for (uint64_t done = 0, n; done < place->pages && !r; done += n) {
		uint64_t at = place->address + done * PAGE_BYTES;
		bool missing;

		n = pager_missing_part(p->state, sp, at, place->pages - done, &missing);
		if (missing && data)
			r = write_full(p->store_fds[i], data + done * PAGE_BYTES, n * PAGE_BYTES, at);
		if (missing && !r)
			pager_missing_arrived(p->state, sp, at, n);
	}
	return r;
}

int pager_put(struct pager *p, const struct pager_pages *pages, uint8_t *scratch, struct error *err)
{
	const struct pager_place *place = &pages->place;
	const uint8_t *data = pages->encoding == ENCODING_ZERO ? NULL : pages->payload;
	uint32_t i;
	int r;

	if (!find_space(p, place->space, &i) || p->store_fds[i] < 0)
		return error_set(err, EPROTO, "the source sent pages of space %u, of which none are missing",
				 place->space);
	if (data && pages->encoding != ENCODING_RAW) {
		r = codec_decode(pages->encoding, pages->payload, pages->payload_bytes, (uint32_t)place->pages,
				 scratch);
		if (r < 0)
			return error_set(err, EBADMSG, "the source sent pages of space %u that do not unpack",
					 place->space);
		data = scratch;
	}
	r = put_missing(p, i, place, data);
	if (r < 0)
		return error_errno(err, -r, "cannot store pages of space %u", place->space);
	eventfd_write(p->arrival_fd, 1);
	return 0;
}

uint64_t pager_missing(const struct pager *p)
{
	uint64_t sum = 0;

	if (p->state->finished)
		return 0; /* whoever needed them is gone */
	for (uint32_t i = 0; i < p->state->n_spaces; i++)
		sum += state_space(p->state, i)->n_away;
	return sum;
}

/* The first missing pages of a space at or after an address. */
static bool missing_in(const struct pager *p, const struct pager_space_state *sp, uint64_t at, struct pager_place *ret)
{
	struct range range;

	while (sp->n_away && pager_missing_next(p->state, sp, at, &range)) {
		bool missing;
		uint64_t n =
			pager_missing_part(p->state, sp, range.start, (range.end - range.start) / PAGE_BYTES, &missing);

		if (missing) {
			*ret = (struct pager_place){ sp->space, range.start, n };
			return true;
		}
		at = range.start + n * PAGE_BYTES;
	}
	return false;
}

bool pager_missing_from(const struct pager *p, const struct pager_place *at, struct pager_place *ret)
{
	uint64_t address = at->address + at->pages * PAGE_BYTES;
	bool reached = !at->space;

	for (uint32_t i = 0; i < p->state->n_spaces; i++) {
		const struct pager_space_state *sp = state_space(p->state, i);
		bool here = sp->space == at->space;

		if ((reached || here) && missing_in(p, sp, here ? address : 0, ret))
			return true;
		reached = reached || here;
	}
	return false;
}
