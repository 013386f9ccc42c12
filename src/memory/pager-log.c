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
#include <sys/eventfd.h>

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

/* What reserved1 of a fault's message says: not looked at yet, answered, or asked for over a link of that number. */
#define FAULT_ANSWERED 1

static uint8_t asked_mark(const struct pager_state *s)
{
	return (uint8_t)(2 + s->link % 200);
}

/* The page is still at the source: asked for once per link. */
static enum put_result ask(struct pager_server *srv, struct pager_member *m, struct uffd_msg *msg, uint64_t source)
{
	struct pager_state *s = srv->state;
	uint8_t mark = asked_mark(s);

	if (msg->reserved1 == mark)
		return PUT_ASKED;
	if (!pager_request_add(s, &(struct pager_request){ m->space, source }))
		return PUT_AGAIN;
	eventfd_write(s->request_fd, 1);
	msg->reserved1 = mark;
	return PUT_ASKED;
}

static enum put_result answer_fault(struct pager_server *srv, struct pager_member *m, struct uffd_msg *msg)
{
	uint64_t address = msg->arg.pagefault.address & PAGE_MASK;
	const struct pager_segment *seg = pager_map_find(srv->state, m, address);
	struct pager_segment page;
	uint64_t skip;
	bool missing;

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
	pager_missing_part(srv->state, state_space(srv->state, m->space), page.source, 1, &missing);
	return missing ? ask(srv, m, msg, page.source) : pager_put_pages(srv, m, &page);
}

/* Times in a message: units of 1024 ns, which go around after 73 minutes; 0: none. */
static uint32_t time_mark(uint64_t ns)
{
	return MAX((uint32_t)(ns >> 10), 1U);
}

static void count_fault(struct pager_server *srv, const struct uffd_msg *msg, uint64_t since_ns)
{
	struct pager_state *s = srv->state;
	uint64_t now = clock_now_ns(), took = now - since_ns;
	bool remote = msg->reserved1 > FAULT_ANSWERED;

	/* It may have waited since an earlier look. */
	if (remote && msg->reserved3)
		took = (uint64_t)(time_mark(now) - msg->reserved3) << 10;
	s->faults++;
	s->faults_remote += remote;
	pager_latency_count(s->latencies[remote], took);
	if (took > s->fault_ns_max)
		s->fault_ns_max = took;
}

static void set_cursor(struct pager_server *srv, struct pager_member *m, uint64_t address)
{
	uint32_t i = (uint32_t)(m - state_member(srv->state, 0));

	/* What follows a fault is likely to be wanted next. */
	if (i < srv->n_cursors)
		srv->cursors[i] = address;
}

/* Answers what can be; *ret_again: how many must be tried again soon, *ret_asked: how many wait for the source. */
static int answer_faults(struct pager_server *srv, struct pager_member *m, uint32_t used, uint64_t since_ns,
			 uint32_t *ret_again, uint32_t *ret_asked)
{
	*ret_again = *ret_asked = 0;
	for (uint32_t i = 0; i < used; i++) {
		struct uffd_msg *msg = &m->slots[i];

		/* A flag of the message itself would be lost in a re-read; the reserved members are ours. */
		if (msg->event != UFFD_EVENT_PAGEFAULT || msg->reserved1 == FAULT_ANSWERED)
			continue;
		if (!msg->reserved3)
			msg->reserved3 = time_mark(since_ns);
		switch (answer_fault(srv, m, msg)) {
		case PUT_DONE:
			count_fault(srv, msg, since_ns);
			msg->reserved1 = FAULT_ANSWERED;
			set_cursor(srv, m, (msg->arg.pagefault.address & PAGE_MASK) + PAGE_BYTES);
			break;
		case PUT_NO_MEMORY:
			srv->memory_short = true;
			(*ret_again)++;
			break;
		case PUT_AGAIN:
			(*ret_again)++;
			break;
		case PUT_ASKED:
			(*ret_asked)++;
			break;
		case PUT_GONE:
			pager_member_close(srv, m);
			*ret_again = *ret_asked = 0;
			return 0;
		case PUT_FAILED:
			return -EIO;
		}
	}
	srv->busy_until_ns = clock_now_ns() + NS_PER_MS;
	return 0;
}

/* No slot is free and some faults still wait: let those tasks fault again, later. */
static void drop_faults(struct pager_member *m, uint32_t used)
{
	for (uint32_t i = 0; i < used; i++)
		if (m->slots[i].event == UFFD_EVENT_PAGEFAULT && m->slots[i].reserved1 != FAULT_ANSWERED)
			pager_wake(m, m->slots[i].arg.pagefault.address & PAGE_MASK);
	slots_clear(m);
}

/* Room in the slots of a full log. False: it stays full for now; tasks that wait for the source are woken to fault again once a
 * millisecond only. */
static bool make_room(struct pager_server *srv, struct pager_member *m)
{
	uint64_t now = clock_now_ns();

	if (now < srv->drop_ns) {
		srv->deferred = true;
		return false;
	}
	srv->drop_ns = now + RETRY_MS * NS_PER_MS;
	drop_faults(m, PAGER_SLOTS);
	return true;
}

/* Applies and answers what stands in the slots. */
static int serve_slots(struct pager_server *srv, struct pager_member *m, uint32_t used)
{
	uint64_t since_ns = clock_now_ns();
	uint32_t again = 0, asked = 0;
	int r = apply_events(srv, m, used);

	if (!r)
		r = answer_faults(srv, m, used, since_ns, &again, &asked);
	if (r < 0 || m->state != MEMBER_LIVE)
		return r;
	if (again)
		srv->deferred = true;
	if (!again && !asked)
		slots_clear(m);
	return 0;
}

int pager_log_serve(struct pager_server *srv, struct pager_member *m, bool readable)
{
	uint32_t used = slots_used(m);
	int r;

	if (used == PAGER_SLOTS) {
		r = serve_slots(srv, m, used);
		if (r < 0 || m->state != MEMBER_LIVE)
			return r;
		used = slots_used(m);
		if (used == PAGER_SLOTS && !make_room(srv, m))
			return 0;
		used = slots_used(m);
		readable = true; /* it was not polled */
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
	return serve_slots(srv, m, used);
}
