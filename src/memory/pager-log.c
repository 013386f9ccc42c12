/*
 * The log of one member: messages are read from its userfaultfd into slots that outlive this process, and applied.
 *
 * Order matters. When read(2) has handed out an event, the change behind it goes ahead; a page copied after
 * that by the old table could be wrong for good (old bytes where madvise(MADV_DONTNEED) promised zeros, or bytes in the
 * parent that the forked child was never given). So all events in the slots are applied before any fault is answered or any
 * page poured in, also by a successor, who starts with what stands in the slots. Faults may be answered twice.
 *
 * Slots are emptied all at once, when every fault in them is answered; `done` of the table says which events
 * are in it already.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "memory/pager-server.h"

static uint32_t slots_used(const struct pager_member *m)
{
	uint32_t n = PAGER_SLOTS;

	while (n && !m->slots[n - 1].event)
		n--;
	return n;
}

/* Empties the slots. `done` must not fall before the last event is gone. */
static void slots_clear(struct pager_member *m)
{
	memset(m->slots, 0, slots_used(m) * sizeof(m->slots[0]));
	atomic_thread_fence(memory_order_seq_cst);
	member_table(m)->done = 0;
}

static int apply_fork(struct pager_server *srv, struct pager_member *m, int uffd, uint64_t done)
{
	/* Already there when a predecessor ended just after it had made it. */
	if (!pager_member_find(srv->state, uffd) && !pager_member_new(srv->state, m->space, uffd, m))
		return pager_state_fail(srv->state, ENOMEM, "the pager has no room left for a forked process");
	member_table(m)->done = done;
	return 0;
}

/* The events, in order. */
static int apply_events(struct pager_server *srv, struct pager_member *m, uint32_t used)
{
	int r = 0;

	for (uint32_t i = (uint32_t)member_table(m)->done; i < used && !r; i++) {
		const struct uffd_msg *msg = &m->slots[i];

		switch (msg->event) {
		case UFFD_EVENT_FORK:
			r = apply_fork(srv, m, (int)msg->arg.fork.ufd, i + 1);
			break;
		case UFFD_EVENT_REMAP:
			r = pager_map_move(srv->state, m, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len,
					   i + 1);
			break;
		case UFFD_EVENT_REMOVE:
		case UFFD_EVENT_UNMAP:
			r = pager_map_forget(srv->state, m, msg->arg.remove.start, msg->arg.remove.end, i + 1);
			break;
		default:
			continue;
		}
		srv->state->events++;
	}
	return r;
}

static enum put_result answer_fault(struct pager_server *srv, struct pager_member *m, uint64_t address)
{
	const struct pager_segment *seg = pager_map_find(srv->state, m, address);
	struct pager_segment page;
	uint64_t skip;

	if (!seg)
		return pager_put_zero(srv, m, address);
	skip = address - seg->address;
	page = (struct pager_segment){
		.address = address, .source = seg->source + skip, .pages = 1, .index = seg->index + skip / PAGE_BYTES
	};
	/* Marked: it was put there before this fault was read, and is there; or it had no place in a mapping, and then
	 * whatever mapping is there now is a new one. */
	if (pager_member_marked(srv->state, m, page.index, 1))
		return pager_put_zero(srv, m, address);
	return pager_put_pages(srv, m, &page);
}

static void set_cursor(struct pager_server *srv, struct pager_member *m, uint64_t address)
{
	uint32_t i = (uint32_t)(m - state_member(srv->state, 0));

	/* What follows a fault is likely to be wanted next. */
	if (i < srv->n_cursors)
		srv->cursors[i] = address;
}

/* Answers what can be; *ret_left: how many could not. */
static int answer_faults(struct pager_server *srv, struct pager_member *m, uint32_t used, uint64_t since_ns,
			 uint32_t *ret_left)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < used; i++) {
		struct uffd_msg *msg = &m->slots[i];
		uint64_t address = msg->arg.pagefault.address & PAGE_MASK, took;

		/* A flag of the message itself would be lost in a re-read; `reserved1` marks it as answered. */
		if (msg->event != UFFD_EVENT_PAGEFAULT || msg->reserved1)
			continue;
		switch (answer_fault(srv, m, address)) {
		case PUT_DONE:
			msg->reserved1 = 1;
			srv->state->faults++;
			took = clock_now_ns() - since_ns;
			if (took > srv->state->fault_ns_max)
				srv->state->fault_ns_max = took;
			set_cursor(srv, m, address + PAGE_BYTES);
			break;
		case PUT_NO_MEMORY:
			srv->memory_short = true;
			left++;
			break;
		case PUT_AGAIN:
			left++;
			break;
		case PUT_GONE:
			pager_member_close(srv, m);
			*ret_left = 0;
			return 0;
		case PUT_FAILED:
			return -EIO;
		}
	}
	srv->busy_until_ns = clock_now_ns() + NS_PER_MS;
	*ret_left = left;
	return 0;
}

/* No slot is free and some faults still wait: let those tasks fault again, later. */
static void drop_faults(struct pager_member *m, uint32_t used)
{
	for (uint32_t i = 0; i < used; i++)
		if (m->slots[i].event == UFFD_EVENT_PAGEFAULT && !m->slots[i].reserved1)
			pager_wake(m, m->slots[i].arg.pagefault.address & PAGE_MASK);
	slots_clear(m);
}

int pager_log_serve(struct pager_server *srv, struct pager_member *m, bool readable)
{
	uint32_t used = slots_used(m), left = 0;
	uint64_t since_ns;
	int r;

	if (used == PAGER_SLOTS) {
		r = apply_events(srv, m, used);
		if (r < 0)
			return r;
		drop_faults(m, used);
		used = 0;
	}
	if (readable) {
		ssize_t n = read(m->uffd, &m->slots[used], (PAGER_SLOTS - used) * sizeof(m->slots[0]));

		/* What was read stands in the slots, whatever n says. */
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return pager_state_fail(srv->state, errno, "the pager cannot read from a userfaultfd");
		used = slots_used(m);
	}
	if (!used) {
		member_table(m)->done = 0;
		return 0;
	}
	since_ns = clock_now_ns();
	r = apply_events(srv, m, used);
	if (!r)
		r = answer_faults(srv, m, used, since_ns, &left);
	if (r < 0 || m->state != MEMBER_LIVE)
		return r;
	if (left)
		srv->deferred = true;
	else
		slots_clear(m);
	return 0;
}
