/*
 * Putting pages in place: UFFDIO_COPY and UFFDIO_ZEROPAGE with all their answers, and freeing the store behind.
 *
 * Bytes are read from the store with pread(2) into one small buffer that stays in the cache, not through a mapping: the
 * store needs no page tables here, a hole stays a hole, and nothing of it gets locked.
 *
 * The kernel's answers (fs/userfaultfd.c, mm/userfaultfd.c): EEXIST: the page is there. EAGAIN: a mapping is being changed
 * and its event waits to be read; or, with a count, only a part was done. ENOENT: not within one registered mapping.
 * ESRCH (ENOSPC on old kernels): the process is gone.
 *
 * ENOENT needs care: it is also what a copy sees that loses a race against mremap(2), and to give up the page then
 * would lose it. But the kernel counts a change as under way before it starts, and until its event is read: so if a
 * second try, with no event read in between, says ENOENT again and not EAGAIN, no such change was behind the first.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "memory/pager-server.h"

void pager_wake(struct pager_member *m, uint64_t address)
{
	struct uffdio_range range = { .start = address, .len = PAGE_BYTES };

	ioctl(m->uffd, UFFDIO_WAKE, &range);
}

/* 0 and the number of pages done, or a negative errno. */
static int copy_some(struct pager_member *m, const struct pager_segment *piece, const uint8_t *data,
		     uint64_t *ret_pages)
{
	struct uffdio_copy copy = { .dst = piece->address, .src = (uintptr_t)data, .len = piece->pages * PAGE_BYTES };

	if (!ioctl(m->uffd, UFFDIO_COPY, &copy)) {
		*ret_pages = piece->pages;
		return 0;
	}
	if (copy.copy > 0) {
		*ret_pages = (uint64_t)copy.copy / PAGE_BYTES;
		return 0;
	}
	return -errno;
}

static void advance(struct pager_segment *piece, const uint8_t **data, uint64_t pages)
{
	piece->address += pages * PAGE_BYTES;
	piece->source += pages * PAGE_BYTES;
	piece->index += pages;
	piece->pages -= pages;
	*data += pages * PAGE_BYTES;
}

/* One page is not needed: it is there, or has no place. */
static void settle_page(struct pager_server *srv, struct pager_member *m, struct pager_segment *piece,
			const uint8_t **data)
{
	pager_member_mark(srv->state, m, piece->index, 1);
	advance(piece, data, 1);
}

static enum put_result copy_pieces(struct pager_server *srv, struct pager_member *m, struct pager_segment piece,
				   const uint8_t *data)
{
	uint64_t step = piece.pages, done = 0;
	bool again = false; /* ENOENT was just seen for this one page */

	while (piece.pages) {
		struct pager_segment part = piece;
		int r;

		part.pages = MIN(step, piece.pages);
		r = copy_some(m, &part, data, &done);
		switch (-r) {
		case 0:
			pager_member_mark(srv->state, m, piece.index, done);
			srv->state->pages_copied += done;
			advance(&piece, &data, done);
			step = MIN(step * 2, (uint64_t)PIECE_PAGES);
			again = false;
			break;
		case EEXIST:
			pager_wake(m, piece.address);
			settle_page(srv, m, &piece, &data);
			again = false;
			break;
		case ENOENT:
		case EINVAL:
			/* Not in one mapping: find the border by halves. A single page is out when it is so twice. */
			if (part.pages > 1) {
				step = part.pages / 2;
			} else if (!again) {
				again = true;
			} else {
				pager_wake(m, piece.address);
				settle_page(srv, m, &piece, &data);
				srv->state->pages_skipped++;
				again = false;
			}
			break;
		case EAGAIN:
			return PUT_AGAIN;
		case ESRCH:
		case ENOSPC:
			return PUT_GONE;
		case ENOMEM:
			return PUT_NO_MEMORY;
		default:
			pager_state_fail(srv->state, -r, "the pager cannot copy a page to %#llx of a process",
					 (unsigned long long)piece.address);
			return PUT_FAILED;
		}
	}
	return PUT_DONE;
}

enum put_result pager_put_pages(struct pager_server *srv, struct pager_member *m, const struct pager_segment *piece)
{
	struct pager_space_state *sp = state_space(srv->state, m->space);
	int r = fd_pread_full(sp->store_fd, srv->buffer, piece->pages * PAGE_BYTES, piece->source);
	enum put_result result;

	if (r < 0) {
		pager_state_fail(srv->state, -r, "the pager cannot read the store of space %u", sp->space);
		return PUT_FAILED;
	}
	result = copy_pieces(srv, m, *piece, srv->buffer);
	if (result == PUT_DONE)
		pager_punch(srv, m->space, piece->index, piece->pages);
	return result;
}

enum put_result pager_put_zero(struct pager_server *srv, struct pager_member *m, uint64_t address)
{
	struct uffdio_zeropage zero = { .range = { .start = address, .len = PAGE_BYTES } };

	if (!ioctl(m->uffd, UFFDIO_ZEROPAGE, &zero)) {
		srv->state->pages_zero++;
		return PUT_DONE;
	}
	switch (errno) {
	case EEXIST:
	case ENOENT:
	case EINVAL:
		/* There, or no place for it: let the task try again, and fail by itself if it must. */
		pager_wake(m, address);
		return PUT_DONE;
	case EAGAIN:
		return PUT_AGAIN;
	case ESRCH:
	case ENOSPC:
		return PUT_GONE;
	case ENOMEM:
		return PUT_NO_MEMORY;
	default:
		pager_state_fail(srv->state, errno, "the pager cannot put a zero page at %#llx of a process",
				 (unsigned long long)address);
		return PUT_FAILED;
	}
}

static bool needed_by_any(struct pager_state *s, uint32_t space, uint64_t index, uint64_t pages)
{
	for (uint32_t i = 0; i < s->n_members; i++) {
		struct pager_member *m = state_member(s, i);

		if (m->state == MEMBER_LIVE && m->space == space && !pager_member_marked(s, m, index, pages))
			return true;
	}
	return false;
}

/* Frees the pages with the numbers [index, end) of a space. Memory is all that is at stake: errors do no harm. */
static void punch_group(struct pager_state *s, struct pager_space_state *sp, uint64_t index, uint64_t end)
{
	const struct pager_segment *runs = state_at(s, sp->runs_offset);
	uint64_t low = 0, high = sp->n_runs;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (runs[middle].index + runs[middle].pages > index)
			high = middle;
		else
			low = middle + 1;
	}
	for (; low < sp->n_runs && runs[low].index < end; low++) {
		uint64_t from = MAX(index, runs[low].index), to = MIN(end, runs[low].index + runs[low].pages);

		fallocate(sp->store_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)(runs[low].source + (from - runs[low].index) * PAGE_BYTES),
			  (off_t)((to - from) * PAGE_BYTES));
	}
}

/* Frees the groups that [index, index + pages) touches, where no member needs a page of them any more. */
void pager_punch(struct pager_server *srv, uint32_t space, uint64_t index, uint64_t pages)
{
	struct pager_space_state *sp = state_space(srv->state, space);
	uint64_t end = MIN(index + pages, sp->pages);

	for (uint64_t at = index / PUNCH_PAGES * PUNCH_PAGES; at < end; at += PUNCH_PAGES) {
		uint64_t stop = MIN(at + PUNCH_PAGES, sp->pages);

		if (!needed_by_any(srv->state, space, at, stop - at))
			punch_group(srv->state, sp, at, stop);
	}
}

void pager_member_close(struct pager_server *srv, struct pager_member *m)
{
	uint32_t space = m->space;

	m->state = MEMBER_CLOSING;
	close(m->uffd);
	m->state = MEMBER_FREE;
	/* It may have been the last that needed some pages. */
	pager_punch(srv, space, 0, state_space(srv->state, space)->pages);
}
