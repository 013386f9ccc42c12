/*
 * The pager proper: one loop. Faults and events first, then a small piece of the fill, and again.
 *
 * Whoever waits for a page waits for nobody else: faults come before all others who want a processor. The fill, were it as urgent, would
 * keep a processor from the workload just when its clients have waited for all of the freeze, and is nice to everybody instead.
 *
 * It may be killed anywhere and started again (pager-main.c). Ends when every member is done, or when the client went
 * away before the tasks were released. Single-threaded; the state is shared with nobody who writes.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "memory/pager-server.h"

#define FAULT_NICE (-10)
#define FILL_NICE 10 /* a tenth of the weight of the workload: it gets to its end on a full machine, too */

struct poll_set {
	struct pollfd *fds;
	uint32_t *members; /* of fds[i] */
	uint32_t n, allocated;
};

static int poll_add(struct poll_set *set, int fd, uint32_t member)
{
	if (set->n == set->allocated) {
		uint32_t n = set->allocated ? set->allocated * 2 : 64;
		struct pollfd *fds = reallocarray(set->fds, n, sizeof(*fds));
		uint32_t *members;

		if (!fds)
			return -ENOMEM;
		set->fds = fds;
		members = reallocarray(set->members, n, sizeof(*members));
		if (!members)
			return -ENOMEM;
		set->members = members;
		set->allocated = n;
	}
	set->fds[set->n] = (struct pollfd){ .fd = fd, .events = POLLIN };
	set->members[set->n++] = member;
	return 0;
}

#define FIRST_MEMBER 3 /* in the set: the client, the listening socket or CRIU, arrivals; then all members */

/* A log without room is not read from: it is looked at again when a page arrives, or by time. */
static short member_events(const struct pager_member *m)
{
	return m->slots[PAGER_SLOTS - 1].event ? 0 : POLLIN;
}

static int collect(struct pager_server *srv, struct poll_set *set)
{
	struct pager_state *s = srv->state;
	int r;

	set->n = 0;
	r = poll_add(set, s->released ? -1 : s->control_fd, UINT32_MAX);
	if (!r)
		r = poll_add(set, s->criu_fd > 0 ? s->criu_fd : s->listen_fd, UINT32_MAX);
	if (!r)
		r = poll_add(set, s->arrival_fd, UINT32_MAX);
	for (uint32_t i = 0; i < s->n_members && !r; i++)
		if (state_member(s, i)->state == MEMBER_LIVE) {
			r = poll_add(set, state_member(s, i)->uffd, i);
			set->fds[set->n - 1].events = member_events(state_member(s, i));
		}
	if (r < 0)
		pager_state_fail(s, ENOMEM, "no memory for the pager");
	return r;
}

static int grow_cursors(struct pager_server *srv)
{
	uint32_t n = srv->state->n_members;
	uint64_t *cursors;

	if (n <= srv->n_cursors)
		return 0;
	n += n / 2 + 16;
	cursors = reallocarray(srv->cursors, n, sizeof(*cursors));
	if (!cursors)
		return pager_state_fail(srv->state, ENOMEM, "no memory for the pager");
	memset(cursors + srv->n_cursors, 0, (n - srv->n_cursors) * sizeof(*cursors));
	srv->cursors = cursors;
	srv->n_cursors = n;
	return 0;
}

/* A byte wakes us to see `filling` and `released`; the end of the stream before that is the end of the restore. */
static void hear_client(struct pager_state *s)
{
	char byte;
	ssize_t n = recv(s->control_fd, &byte, 1, MSG_DONTWAIT);

	if (!n && s->kept)
		s->released = 1; /* whoever was about to release the tasks died while doing so */
	else if (!n && !s->released)
		s->aborted = 1;
}

static int hear_all(struct pager_server *srv, const struct poll_set *set)
{
	struct pager_state *s = srv->state;
	int r = 0;

	srv->deferred = srv->memory_short = false;
	if (set->fds[0].revents)
		hear_client(s);
	if (set->fds[1].revents && s->criu_fd > 0)
		r = pager_connect_receive(srv);
	else if (set->fds[1].revents && s->criu_fd < 0)
		pager_adopt_offer(s);
	else if (set->fds[1].revents)
		r = pager_connect_accept(srv);
	if (set->fds[2].revents) {
		eventfd_t ignored;

		eventfd_read(s->arrival_fd, &ignored);
		srv->arrived = true;
	}
	for (uint32_t i = FIRST_MEMBER; i < set->n && !r; i++) {
		struct pager_member *m = state_member(s, set->members[i]);

		/* Slots may hold something that could not be answered before. */
		if (m->state == MEMBER_LIVE && m->uffd == set->fds[i].fd && (set->fds[i].revents || m->slots[0].event))
			r = pager_log_serve(srv, m, set->fds[i].revents != 0);
	}
	return r;
}

/*
 * One piece of one member's fill. *ret_more: it went well and there may be more to do.
 *
 * A process that changes its mappings without pause leaves only moments in which a copy is let in; the time to read
 * the piece counts, so pieces get smaller until they fit.
 */
static int fill_piece(struct pager_server *srv, uint32_t i, bool *ret_more)
{
	struct pager_member *m = state_member(srv->state, i);
	uint64_t most = clock_now_ns() < srv->busy_until_ns ? PIECE_PAGES_BUSY : PIECE_PAGES;
	/* Asked before the search: the last pages may come between it and the verdict, and would be found by nobody. */
	bool may_come = state_space(srv->state, m->space)->n_away;
	struct pager_segment piece;

	/* Events that stand in the slots were applied; a fault that could not be answered shows that more are due. */
	most = MIN(most, srv->piece_pages);
	if (!pager_urgent_next(srv->state, m, most, &piece) &&
	    !pager_map_next(srv->state, m, &srv->cursors[i], most, &piece)) {
		if (m->left && may_come)
			return 0;
		pager_member_close(srv, m);
		*ret_more = true;
		return 0;
	}
	switch (pager_put_pages(srv, m, &piece)) {
	case PUT_DONE:
		srv->piece_pages = MIN(srv->piece_pages * 2, (uint64_t)PIECE_PAGES);
		*ret_more = true;
		return 0;
	case PUT_AGAIN:
		srv->piece_pages = MAX(srv->piece_pages / 4, 1ULL);
		srv->cursors[i] = piece.address;
		srv->deferred = true;
		return 0;
	case PUT_NO_MEMORY:
		srv->cursors[i] = piece.address;
		srv->memory_short = true;
		return 0;
	case PUT_GONE:
		pager_member_close(srv, m);
		*ret_more = true;
		return 0;
	case PUT_ASKED:
	case PUT_FAILED:
	default:
		return -EIO;
	}
}

static bool any_away(struct pager_state *s)
{
	for (uint32_t i = 0; i < s->n_spaces; i++)
		if (state_space(s, i)->n_away)
			return true;
	return false;
}

static bool has_urgent(struct pager_state *s, const struct pager_member *m)
{
	const struct pager_space_state *sp = state_space(s, m->space);

	return sp->urgent_done < sp->n_urgent;
}

/* A piece for one member after the other, or only for those that have something urgent. */
static int fill_round(struct pager_server *srv, bool urgent, uint32_t *next, bool *ret_more)
{
	uint32_t n = srv->state->n_members, start = *next;

	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = (start + k) % n;
		struct pager_member *m = state_member(srv->state, i);
		int r;

		if (m->state != MEMBER_LIVE || (urgent && !has_urgent(srv->state, m)))
			continue;
		*next = i + 1;
		r = fill_piece(srv, i, ret_more);
		if (r < 0 || *ret_more || srv->deferred || srv->memory_short)
			return r;
	}
	return 0;
}

/* Those that wait for pages from the source are passed over. When all do, looking for what has come since costs as much as their tables
 * are long, so it gets an eighth of the time. */
static int fill(struct pager_server *srv, uint32_t *next, bool *ret_more)
{
	uint64_t began = clock_now_ns(), now;
	int r;

	*ret_more = false;
	if (began < srv->look_ns && any_away(srv->state))
		return 0;
	srv->arrived = false;
	r = fill_round(srv, true, next, ret_more);
	if (!r && !*ret_more && !srv->deferred && !srv->memory_short)
		r = fill_round(srv, false, next, ret_more);
	if (r < 0 || *ret_more || srv->deferred || srv->memory_short)
		return r;
	now = clock_now_ns();
	srv->look_ns = now + 8 * (now - began);
	return 0;
}

/* As much as a fault may wait behind: where there are many processes most pieces are small, and looking for faults takes as long as they do. */
static int fill_some(struct pager_server *srv, uint32_t *next, bool *ret_more)
{
	const struct pager_state *s = srv->state;
	uint64_t before = s->pages_copied + s->pages_zero, most = srv->piece_pages;
	int r;

	do {
		r = fill(srv, next, ret_more);
	} while (!r && *ret_more && !srv->deferred && !srv->memory_short && clock_now_ns() >= srv->busy_until_ns &&
		 s->pages_copied + s->pages_zero - before < most);
	return r;
}

static int fill_nicely(struct pager_server *srv, uint32_t *next, bool *ret_more)
{
	int r;

	if (srv->urgent)
		setpriority(PRIO_PROCESS, 0, FILL_NICE);
	r = fill_some(srv, next, ret_more);
	if (srv->urgent)
		setpriority(PRIO_PROCESS, 0, FAULT_NICE);
	return r;
}

static void count_left(struct pager_state *s)
{
	uint64_t left = 0;

	for (uint32_t i = 0; i < s->n_members; i++)
		if (state_member(s, i)->state == MEMBER_LIVE)
			left += state_member(s, i)->left;
	for (uint32_t i = 0; i < s->n_spaces; i++)
		if (!state_space(s, i)->connected)
			left += state_space(s, i)->pages;
	s->pages_left = left;
}

static bool any_live(struct pager_state *s)
{
	for (uint32_t i = 0; i < s->n_members; i++)
		if (state_member(s, i)->state == MEMBER_LIVE)
			return true;
	return false;
}

/* How long to wait for news: not at all while there is something to pour in. */
static int wait_ms(const struct pager_server *srv, bool more)
{
	if (more)
		return 0;
	if (srv->deferred)
		return RETRY_MS;
	if (srv->memory_short)
		return RETRY_MEMORY_MS;
	return srv->arrived ? MAX(deadline_poll_ms(srv->look_ns), RETRY_MS) : -1;
}

static int serve_loop(struct pager_server *srv)
{
	struct pager_state *s = srv->state;
	struct poll_set set = { 0 };
	bool more = true;
	uint32_t next = 0;
	int r = 0;

	while (!r && !s->aborted) {
		r = collect(srv, &set);
		if (r < 0)
			break;
		if (poll(set.fds, set.n, wait_ms(srv, more)) < 0 && errno != EINTR)
			r = pager_state_fail(s, errno, "the pager cannot wait for page faults");
		if (!r)
			r = hear_all(srv, &set);
		more = false;
		if (!r)
			r = grow_cursors(srv);
		if (!r && s->filling)
			r = fill_nicely(srv, &next, &more);
		count_left(s);
		/* Whoever has not connected when the tasks run and nobody is left has nothing to be served. */
		if (s->released && !any_live(s) && (s->connected || s->criu_fd < 0))
			break;
	}
	free(set.fds);
	free(set.members);
	return r;
}

int pager_serve(struct pager_state *s)
{
	struct pager_server srv = { .state = s, .piece_pages = PIECE_PAGES };
	int r;

	/* A clone has no locks of its own. The supervisor's hold what both share; this is for what gets touched here. */
	mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	/* Without the privilege there is no way back from being nice, either. */
	srv.urgent = setpriority(PRIO_PROCESS, 0, FAULT_NICE) == 0;
	srv.buffer = mmap(NULL, PIECE_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (srv.buffer == MAP_FAILED) {
		pager_state_fail(s, ENOMEM, "no memory for the pager");
		return EXIT_FAILURE;
	}
	r = pager_runs_build(s);
	pager_members_recover(s);
	if (!r)
		r = pager_connect_recover(&srv);
	if (!r)
		r = grow_cursors(&srv);
	for (uint32_t i = 0; i < s->n_members && !r; i++)
		if (state_member(s, i)->state == MEMBER_LIVE)
			r = pager_log_serve(&srv, state_member(s, i), false);
	if (!r)
		r = serve_loop(&srv);
	free(srv.cursors);
	if (r < 0) {
		log_error("%s", s->failure);
		return EXIT_FAILURE;
	}
	if (!s->aborted) {
		s->finished = 1;
		log_info("finished: %llu pages copied, %llu faults", (unsigned long long)s->pages_copied,
			 (unsigned long long)s->faults);
	}
	return EXIT_SUCCESS;
}
