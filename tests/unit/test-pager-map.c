/*
 * Unit tests of the pager's tables and log: random unmaps, moves and forks against a plain array of pages, and what a
 * successor makes of a state that a killed pager left at the worst moments.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/pager-server.h"

#define BASE 0x10000000ULL
#define PAGES 600

struct model {
	int source[PAGES]; /* page of the store at this address, or -1 */
};

static uint64_t address_of(uint64_t page)
{
	return BASE + page * PAGE_BYTES;
}

/* A space whose store has bytes in two pages of three. */
static struct pager_state *make_state(int *ret_fd, struct model *m)
{
	struct pager_segment *runs;
	struct pager_state *s;
	struct pager_space_state *sp;

	assert_int_equal(pager_state_new(ret_fd, &s, NULL), 0);
	s->n_spaces = 1;
	s->spaces_offset = pager_state_alloc(s, sizeof(*sp));
	sp = state_space(s, 0);
	*sp = (struct pager_space_state){ .runs_offset = pager_state_alloc(s, PAGES * sizeof(*runs)) };
	runs = state_at(s, sp->runs_offset);
	for (int i = 0; i < PAGES; i++) {
		m->source[i] = i % 30 < 20 ? i : -1;
		if (m->source[i] < 0)
			continue;
		if (i % 30 == 0)
			runs[sp->n_runs++] = (struct pager_segment){ address_of((uint64_t)i), address_of((uint64_t)i),
								     0, sp->pages };
		runs[sp->n_runs - 1].pages++;
		sp->pages++;
	}
	return s;
}

static void check(struct pager_state *s, struct pager_member *m, const struct model *model)
{
	uint64_t needed = 0, cursor = 0, seen = 0;
	struct pager_segment piece;
	struct pager_table t = *member_table(m);
	static uint64_t hit[PAGES];

	for (uint64_t i = 0; i < PAGES; i++) {
		const struct pager_segment *seg = pager_map_find(s, m, address_of(i));
		uint64_t skip = seg ? (address_of(i) - seg->address) : 0;

		assert_int_equal(seg != NULL, model->source[i] >= 0);
		if (!seg)
			continue;
		assert_int_equal(seg->source + skip, address_of((uint64_t)model->source[i]));
		needed += !pager_member_marked(s, m, seg->index + skip / PAGE_BYTES, 1);
	}
	/* Every bit that is not set belongs to a page in the table, and the fill finds each exactly once. */
	assert_int_equal(m->left, needed);
	memset(hit, 0, sizeof(hit));
	while (seen < needed) {
		assert_true(pager_map_next(s, m, &cursor, 7, &piece));
		for (uint64_t k = 0; k < piece.pages; k++) {
			uint64_t page = (piece.address - BASE) / PAGE_BYTES + k;

			assert_int_equal(hit[page]++, 0);
			assert_int_equal(piece.source + k * PAGE_BYTES, address_of((uint64_t)model->source[page]));
		}
		seen += piece.pages;
	}
	assert_int_equal(pager_map_next(s, m, &cursor, 7, &piece), needed > 0);
	for (uint64_t i = 1; i < t.n; i++)
		assert_true(member_segments(s, m)[i - 1].address + member_segments(s, m)[i - 1].pages * PAGE_BYTES <=
			    member_segments(s, m)[i].address);
}

static void random_event(struct pager_state *s, struct pager_member *m, struct model *model, unsigned int *seed)
{
	uint64_t from = (uint64_t)rand_r(seed) % PAGES, length = 1 + (uint64_t)rand_r(seed) % 40, to;
	int moved[40];

	length = MIN(length, PAGES - from);
	to = (uint64_t)rand_r(seed) % (PAGES - length + 1);
	switch (rand_r(seed) % 3) {
	case 0:
		assert_int_equal(pager_map_forget(s, m, address_of(from), address_of(from + length), 3), 0);
		for (uint64_t i = 0; i < length; i++)
			model->source[from + i] = -1;
		break;
	case 1:
		if (to < from + length && from < to + length)
			return; /* mremap(2) refuses it */
		assert_int_equal(pager_map_move(s, m, address_of(from), address_of(to), length * PAGE_BYTES, 5), 0);
		for (uint64_t i = 0; i < length; i++) {
			moved[i] = model->source[from + i];
			model->source[from + i] = -1;
		}
		memcpy(&model->source[to], moved, length * sizeof(int));
		break;
	default: {
		const struct pager_segment *seg = pager_map_find(s, m, address_of(from));

		if (seg)
			pager_member_mark(s, m, seg->index, MIN(seg->pages, length));
	}
	}
}

static void test_against_model(void **state)
{
	unsigned int seed = 21;

	(void)state;
	for (int round = 0; round < 20; round++) {
		struct model model, forked_model;
		struct pager_member *m, *forked = NULL;
		_cleanup_close_ int fd = -1;
		struct pager_state *s = make_state(&fd, &model);

		m = pager_member_new(s, 0, 1000, NULL);
		assert_non_null(m);
		for (int step = 0; step < 60; step++) {
			random_event(s, m, &model, &seed);
			if (step == 30) {
				forked = pager_member_new(s, 0, 1001, m);
				forked_model = model;
				assert_ptr_equal(pager_member_find(s, 1001), forked);
			}
			if (forked)
				random_event(s, forked, &forked_model, &seed);
			check(s, m, &model);
			if (forked)
				check(s, forked, &forked_model);
		}
		pager_state_unmap(s);
	}
}

/* An event that was applied is counted with the table, in one step. */
static void test_done_with_table(void **state)
{
	_cleanup_close_ int fd = -1;
	struct model model;
	struct pager_state *s = make_state(&fd, &model);
	struct pager_member *m = pager_member_new(s, 0, 1000, NULL);
	uint32_t active = m->active;

	(void)state;
	assert_int_equal(pager_map_forget(s, m, BASE, BASE + PAGE_BYTES, 9), 0);
	assert_int_not_equal(m->active, active);
	assert_int_equal(member_table(m)->done, 9);
	assert_int_equal(m->tables[active].done, 0);
	pager_state_unmap(s);
}

/* A count that was not written and an entry half made are put right. */
static void test_recover(void **state)
{
	_cleanup_close_ int fd = -1;
	struct model model;
	struct pager_state *s = make_state(&fd, &model);
	struct pager_member *m = pager_member_new(s, 0, 1000, NULL), *other;

	(void)state;
	pager_member_mark(s, m, 3, 10);
	assert_int_equal(m->left, 390);
	m->left = 400;
	other = pager_member_new(s, 0, 1001, m);
	other->state = MEMBER_CLOSING;
	other->uffd = fd; /* reused by somebody else: must not be closed */
	pager_members_recover(s);
	assert_int_equal(m->left, 390);
	assert_int_equal(other->state, MEMBER_FREE);
	assert_ptr_equal(pager_member_new(s, 0, 1002, NULL), other);
	assert_int_equal(other->left, 400);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
	pager_state_unmap(s);
}

/* A log that a killed pager left: three events in the slots, `done` of them in the table, `cleared` of them already
 * wiped. Whatever these are, the page ends where all three together put it, once. */
static void test_successor_applies_once(void **state)
{
	const struct uffd_msg events[3] = {
		{ .event = UFFD_EVENT_REMAP,
		  .arg.remap = { .from = BASE, .to = BASE + 100 * PAGE_BYTES, .len = 10 * PAGE_BYTES } },
		{ .event = UFFD_EVENT_REMAP,
		  .arg.remap = { .from = BASE + 100 * PAGE_BYTES,
				 .to = BASE + 200 * PAGE_BYTES,
				 .len = 10 * PAGE_BYTES } },
		{ .event = UFFD_EVENT_REMAP,
		  .arg.remap = { .from = BASE + 40 * PAGE_BYTES,
				 .to = BASE + 100 * PAGE_BYTES,
				 .len = 10 * PAGE_BYTES } },
	};

	(void)state;
	for (uint64_t done = 0; done <= 3; done++)
		for (uint64_t cleared = 0; cleared <= (done == 3 ? 3 : 0); cleared++) {
			_cleanup_close_ int fd = -1;
			struct model model;
			struct pager_state *s = make_state(&fd, &model);
			struct pager_member *m = pager_member_new(s, 0, 1000, NULL);
			struct pager_server srv = { .state = s };

			memcpy(m->slots, events, sizeof(events));
			for (uint64_t i = 0; i < done; i++)
				assert_int_equal(pager_map_move(s, m, events[i].arg.remap.from, events[i].arg.remap.to,
								events[i].arg.remap.len, i + 1),
						 0);
			memset(m->slots, 0, cleared * sizeof(events[0]));
			assert_int_equal(pager_log_serve(&srv, m, false), 0);
			for (uint64_t i = 0; i < 10; i++) {
				const struct pager_segment *seg;

				seg = pager_map_find(s, m, address_of(200 + i));
				assert_non_null(seg);
				assert_int_equal(seg->source + (address_of(200 + i) - seg->address), address_of(i));
				seg = pager_map_find(s, m, address_of(100 + i));
				assert_non_null(seg);
				assert_int_equal(seg->source + (address_of(100 + i) - seg->address),
						 address_of(40 + i));
				assert_null(pager_map_find(s, m, address_of(i)));
			}
			assert_int_equal(m->slots[0].event | m->slots[1].event | m->slots[2].event, 0);
			assert_int_equal(member_table(m)->done, 0);
			pager_state_unmap(s);
		}
}

/* A fault and, read behind it, the event that the page was discarded: by then the change goes ahead, and the page
 * must read as zeros. A fork read behind a fault: the child still needs the page that the parent is given. */
static void test_events_before_faults(void **state)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { BASE, 20 * PAGE_BYTES }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	_cleanup_close_ int fd = -1, store = memfd_create("store", MFD_CLOEXEC);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct model model;
	struct pager_state *s = make_state(&fd, &model);
	struct pager_server srv = { .state = s };
	struct pager_member *m, *child;
	uint8_t *at;

	(void)state;
	at = mmap((void *)BASE, 20 * PAGE_BYTES, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	assert_ptr_equal(at, (void *)BASE);
	assert_int_equal(ioctl(uffd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
	srv.buffer = aligned_alloc(PAGE_BYTES, PIECE_PAGES * PAGE_BYTES);
	memset(srv.buffer, 'x', 20 * PAGE_BYTES);
	assert_int_equal(pwrite(store, srv.buffer, 20 * PAGE_BYTES, BASE), 20 * PAGE_BYTES);
	state_space(s, 0)->store_fd = store;
	m = pager_member_new(s, 0, uffd, NULL);

	m->slots[0] = (struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT, .arg.pagefault.address = BASE + 8 };
	m->slots[1] = (struct uffd_msg){ .event = UFFD_EVENT_REMOVE, .arg.remove = { BASE, BASE + PAGE_BYTES } };
	m->slots[2] =
		(struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT, .arg.pagefault.address = BASE + 5 * PAGE_BYTES };
	m->slots[3] = (struct uffd_msg){ .event = UFFD_EVENT_FORK, .arg.fork.ufd = 1001 };
	assert_int_equal(pager_log_serve(&srv, m, false), 0);
	assert_int_equal(at[0], 0);
	assert_int_equal(at[5 * PAGE_BYTES], 'x');
	child = pager_member_find(s, 1001);
	assert_non_null(child);
	assert_int_equal(m->left, 398);
	assert_int_equal(child->left, 399);
	assert_false(pager_member_marked(s, child, 5, 1));
	child->state = MEMBER_FREE;
	munmap(at, 20 * PAGE_BYTES);
	close(uffd);
	free(srv.buffer);
	pager_state_unmap(s);
}

/* Killed between accept(2) and writing the descriptor down; and with a pid and a userfaultfd received but not taken up. */
static void test_recover_handshake(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
					      UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP };
	struct cmsghdr c = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	_cleanup_close_ int fd = -1, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), accepted = -1;
	_cleanup_close_ int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_close_ int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct model model;
	struct pager_state *s = make_state(&fd, &model);
	struct pager_server srv = { .state = s };

	(void)state;
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "phaul-test-%d", (int)getpid());
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	s->listen_fd = listener;
	assert_int_equal(pager_connect_recover(&srv), 0);
	assert_int_equal(s->criu_fd, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
	accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_int_equal(pager_connect_recover(&srv), 0);
	assert_int_equal(s->criu_fd, accepted);

	assert_int_equal(ioctl(uffd, UFFDIO_API, &api), 0);
	state_space(s, 0)->image_pid = 77;
	s->handshake.pid = 77;
	memcpy(s->handshake.control, &c, sizeof(c));
	memcpy(CMSG_DATA((struct cmsghdr *)(void *)s->handshake.control), &uffd, sizeof(uffd));
	assert_int_equal(pager_connect_recover(&srv), 0);
	assert_non_null(pager_member_find(s, uffd));
	assert_int_equal(s->n_members, 1);
	assert_int_equal(s->connected, 1);
	/* Taken up, but killed before the buffer was wiped: not a second time. */
	memcpy(s->handshake.control, &c, sizeof(c));
	memcpy(CMSG_DATA((struct cmsghdr *)(void *)s->handshake.control), &uffd, sizeof(uffd));
	s->handshake.pid = 77;
	assert_int_equal(pager_connect_recover(&srv), 0);
	assert_int_equal(s->n_members, 1);
	assert_int_equal(s->handshake.pid, 0);
	pager_state_unmap(s);
}

/* What is urgent, page by page in the order in which it comes; returns how many. */
static size_t drain_urgent(struct pager_state *s, struct pager_member *m, uint64_t *order)
{
	struct pager_segment piece;
	size_t n = 0;

	while (pager_urgent_next(s, m, 7, &piece)) {
		assert_in_range(piece.pages, 1, 7);
		for (uint64_t i = 0; i < piece.pages; i++)
			order[n++] = (piece.address - BASE) / PAGE_BYTES + i;
		pager_member_mark(s, m, piece.index, piece.pages);
	}
	return n;
}

/* The busy pages, by address; then all others of the blocks of 128 that have some: that with seven, of the two with as many that of which less is
 * present, and that with two. */
static void test_urgent_order(void **state)
{
	static struct range ranges[] = { { BASE + 5 * PAGE_BYTES, BASE + 6 * PAGE_BYTES },
					 { BASE + 126 * PAGE_BYTES, BASE + 130 * PAGE_BYTES },
					 { BASE + 255 * PAGE_BYTES, BASE + 257 * PAGE_BYTES },
					 { BASE + 300 * PAGE_BYTES, BASE + 304 * PAGE_BYTES },
					 { BASE + 310 * PAGE_BYTES, BASE + 312 * PAGE_BYTES },
					 { BASE + 520 * PAGE_BYTES, BASE + 522 * PAGE_BYTES } };
	static struct range all[] = { { BASE, BASE + 20 * PAGE_BYTES },
				      { BASE + 60 * PAGE_BYTES, BASE + PAGES * PAGE_BYTES } };
	const struct range_set busy = { .ranges = ranges, .n_ranges = 6 }, present = { .ranges = all, .n_ranges = 2 };
	static const uint64_t first[] = { 5, 126, 127, 128, 129, 255, 256, 300, 301, 302, 303, 310, 311, 520, 521 };
	static const uint64_t blocks[][2] = { { 256, 384 }, { 0, 128 }, { 128, 256 }, { 512, 640 } };
	static uint64_t order[PAGES];
	struct model model;
	int fd;
	struct pager_state *s = make_state(&fd, &model);
	struct pager_member *m;
	size_t n, at = ARRAY_SIZE(first);

	(void)state;
	pager_urgent_describe(s, state_space(s, 0), &present, &busy);
	m = pager_member_new(s, 0, -1, NULL);
	assert_non_null(m);
	m->state = MEMBER_LIVE;
	n = drain_urgent(s, m, order);
	assert_memory_equal(order, first, sizeof(first));
	for (size_t b = 0; b < ARRAY_SIZE(blocks); b++)
		for (uint64_t page = blocks[b][0]; page < MIN(blocks[b][1], (uint64_t)PAGES); page++) {
			bool was_first = false;

			for (size_t i = 0; i < ARRAY_SIZE(first); i++)
				was_first |= page == first[i];
			if (model.source[page] >= 0 && !was_first)
				assert_int_equal(order[at++], page);
		}
	assert_int_equal(at, n);
	/* The block without a busy page is left. */
	assert_in_range(m->left, 1, 128);
	pager_state_unmap(s);
	close(fd);
}

/* Nothing is urgent, and nothing breaks, where no page was busy. */
static void test_nothing_urgent(void **state)
{
	struct range all = { 0, 1ULL << 55 };
	const struct range_set busy = { 0 };
	struct pager_segment piece;
	struct model model;
	int fd;
	struct pager_state *s = make_state(&fd, &model);
	struct pager_member *m;

	(void)state;
	pager_urgent_describe(s, state_space(s, 0), &busy, &busy);
	m = pager_member_new(s, 0, -1, NULL);
	assert_non_null(m);
	assert_false(pager_urgent_next(s, m, 7, &piece));
	/* A peer that says that everything is: the ranges are as good as none, and cost nothing. */
	pager_urgent_describe(s, state_space(s, 0), &busy, &(const struct range_set){ .ranges = &all, .n_ranges = 1 });
	assert_int_equal(state_space(s, 0)->n_urgent, 1);
	pager_state_unmap(s);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_done_with_table),
		cmocka_unit_test(test_recover),
		cmocka_unit_test(test_successor_applies_once),
		cmocka_unit_test(test_events_before_faults),
		cmocka_unit_test(test_recover_handshake),
		cmocka_unit_test(test_urgent_order),
		cmocka_unit_test(test_nothing_urgent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
