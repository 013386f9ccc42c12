/*
 * Pages that are said in terms of others, over real channels from a sender to a receiver: rounds of duplicates, changes in place, zeros and noise,
 * with links that break in the middle; the store must hold what the source has. And frames of a hostile source.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <xxhash.h>

#include "base/clock.h"
#include "migration/receiver.h"
#include "migration/sender.h"
#include "migration/sent.h"
#include "transport/pacer.h"
#include "wire/frame.h"

#define CHANNELS 3
#define PAGES 2048U
#define SPACES 2U
#define BASE 0x7f0000000000ULL /* of space 2: addresses are not offsets */

struct world {
	uint8_t *memory; /* the workload is this process */
	bool dirty[PAGES];
	struct pacer pacer;
	struct dedup_index *dedup;
	struct sender *sender;
	struct store *store;
	struct receiver *receiver;
	struct page_runs list;
	uint32_t round;
	unsigned int seed;
};

static uint32_t pick(struct world *w, uint32_t below)
{
	return (uint32_t)rand_r(&w->seed) % below;
}

static uint32_t space_of(uint32_t page)
{
	return 1 + page / (PAGES / SPACES);
}

static uint64_t address_of(uint32_t page)
{
	return (space_of(page) - 1) * BASE + (((uint64_t)page % (PAGES / SPACES)) << PAGE_SHIFT);
}

static void pair(struct channel **a, struct channel **b)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(channel_new_plain(fds[0], fds[0], "beta", a, NULL), 0);
	assert_int_equal(channel_new_plain(fds[1], fds[1], "alpha", b, NULL), 0);
}

/* New channels, the first ones or others. */
static void join(struct world *w)
{
	struct channel *ours[CHANNELS];

	for (uint32_t i = 0; i < CHANNELS; i++) {
		struct channel *theirs;

		pair(&ours[i], &theirs);
		assert_int_equal(receiver_add(w->receiver, i, theirs, NULL), 0);
	}
	if (w->sender)
		assert_int_equal(sender_rejoin(w->sender, ours, NULL), 0);
	else
		assert_int_equal(sender_new(ours, CHANNELS, w->dedup, ENCODINGS_ALL, &w->sender, NULL), 0);
	sender_set_pacer(w->sender, &w->pacer);
}

static void begin(struct world *w)
{
	*w = (struct world){ .seed = 4 };
	w->memory = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(w->memory, MAP_FAILED);
	pacer_init(&w->pacer, 15000000); /* narrow, so that it pays */
	assert_int_equal(dedup_new(&w->dedup, NULL), 0);
	assert_int_equal(store_new(0, &w->store, NULL), 0);
	assert_int_equal(receiver_new(w->store, &w->receiver, NULL), 0);
	join(w);
}

static void end(struct world *w)
{
	sender_free(w->sender);
	receiver_free(w->receiver);
	store_free(w->store);
	dedup_free(w->dedup);
	page_runs_free(&w->list);
	pacer_destroy(&w->pacer);
	munmap(w->memory, PAGES * PAGE_BYTES);
}

/* The workload writes a page: noise, few bytes of it, what another page has, zeros. */
static void touch(struct world *w, uint32_t page)
{
	uint8_t *at = w->memory + page * PAGE_BYTES;

	w->dirty[page] = true;
	switch (pick(w, 8)) {
	case 0:
		memset(at, 0, PAGE_BYTES);
		break;
	case 1:
	case 2:
		memmove(at, w->memory + pick(w, PAGES) * PAGE_BYTES, PAGE_BYTES);
		break;
	case 3:
		for (size_t i = 0; i < PAGE_BYTES; i++)
			at[i] = (uint8_t)rand_r(&w->seed);
		break;
	default:
		at[pick(w, PAGE_BYTES)]++;
		break;
	}
}

static void touch_some(struct world *w, uint32_t n)
{
	/* Some of them again and again. */
	for (uint32_t i = 0; i < n; i++)
		touch(w, pick(w, 2) ? pick(w, PAGES) : pick(w, 64));
}

static void make_list(struct world *w)
{
	page_runs_free(&w->list);
	for (uint32_t i = 0; i < PAGES; i++) {
		struct page_run run = { .space = space_of(i),
					.address = address_of(i),
					.pages = 1,
					.pid = getpid(),
					.pid_address = (uint64_t)(uintptr_t)w->memory + i * PAGE_BYTES,
					.in_images = i % 512 > 500 };

		if (w->dirty[i])
			assert_int_equal(page_runs_add(&w->list, &run), 0);
		w->dirty[i] = false;
	}
}

/* Breaks all channels, writes on, and goes on with what did not come. */
static void break_links(struct world *w)
{
	struct receiver_arrived arrived[CHANNELS];
	struct sent sent[CHANNELS] = { 0 };
	struct page_runs rest = { 0 };

	usleep(pick(w, 30000));
	sender_stop(w->sender);
	receiver_stop(w->receiver);
	assert_int_equal(receiver_arrived(w->receiver, arrived, CHANNELS), CHANNELS);
	for (uint32_t i = 0; i < CHANNELS; i++) {
		uint32_t channel = arrived[i].index;

		sent[channel].log = sender_sent(w->sender, channel);
		sent[channel].arrived = arrived[i].round >= w->round ? UINT64_MAX : arrived[i].pages;
	}
	assert_int_equal(sent_remaining(&w->list, sent, CHANNELS, &rest, NULL), 0);
	page_runs_free(&w->list);
	w->list = rest;
	receiver_reset(w->receiver);
	touch_some(w, 200);
	join(w);
	assert_int_equal(sender_start(w->sender, w->round, &w->list, SENDER_AGAIN, NULL), 0);
}

static void run_round(struct world *w, enum sender_turn turn, bool breaks)
{
	struct error err = { 0 };
	int r;

	make_list(w);
	w->round++;
	assert_int_equal(sender_start(w->sender, w->round, &w->list, turn, NULL), 0);
	for (uint32_t i = 0; breaks && i < 1 + pick(w, 3); i++)
		break_links(w);
	r = sender_wait(w->sender, deadline_in_ms(60000), &err);
	if (r == 1)
		r = receiver_wait(w->receiver, w->round, deadline_in_ms(60000), &err);
	if (r != 1)
		receiver_failure(w->receiver, &err);
	if (r != 1)
		fail_msg("round %u: %s", w->round, err.text);
}

/* What is not on the list of the next round is the same on both sides. */
static void check(struct world *w)
{
	uint8_t page[PAGE_BYTES];

	for (uint32_t i = 0; i < PAGES; i++) {
		if (w->dirty[i])
			continue;
		assert_int_equal(store_get(w->store, space_of(i), address_of(i), 1, page, NULL), 0);
		if (memcmp(page, w->memory + i * PAGE_BYTES, PAGE_BYTES) != 0)
			fail_msg("page %u differs after round %u", i, w->round);
	}
}

static void test_rounds(void **state)
{
	struct sender_counters round, all;
	struct world w;

	(void)state;
	begin(&w);
	for (uint32_t i = 0; i < PAGES; i++)
		do
			touch(&w, i);
		while (i % 4 == 0 && pick(&w, 3));
	for (uint32_t i = 0; i < 60; i++) {
		run_round(&w, SENDER_ROUND, i % 6 == 5);
		check(&w);
		touch_some(&w, i % 7 ? 300 : 2000);
	}
	run_round(&w, SENDER_LAST, false);
	check(&w);
	sender_progress(w.sender, &round, &all);
	assert_true(all.by[ENCODING_DUPLICATE].pages > 500);
	assert_true(all.by[ENCODING_DELTA].pages > 200);
	assert_true(all.by[ENCODING_DELTA].bytes < all.by[ENCODING_DELTA].pages * 200);
	assert_true(all.by[ENCODING_ZERO].pages > 100);
	end(&w);
}

/* One page of noise everywhere: over several channels it goes once, and the others wait for it. */
static void test_one_content(void **state)
{
	struct sender_counters round, all;
	struct world w;

	(void)state;
	begin(&w);
	for (size_t i = 0; i < PAGE_BYTES; i++)
		w.memory[i] = (uint8_t)rand_r(&w.seed);
	for (uint32_t i = 0; i < PAGES; i++) {
		memcpy(w.memory + i * PAGE_BYTES, w.memory, PAGE_BYTES);
		w.dirty[i] = true;
	}
	run_round(&w, SENDER_ROUND, false);
	check(&w);
	sender_progress(w.sender, &round, &all);
	assert_in_range(all.by[ENCODING_DUPLICATE].pages, PAGES - 20, PAGES - 1);
	assert_true(all.bytes < 40000);
	end(&w);
}

/* A hostile frame of duplicates or deltas onto one page that is there, and what becomes of the channel. */
static int hostile(const struct frame_pages *pages, const void *payload, uint32_t bytes, struct error *err)
{
	uint8_t head[FRAME_PAGES_HEAD_BYTES], page[PAGE_BYTES];
	struct iovec iov[2] = { { head, sizeof(head) }, { (void *)payload, bytes } };
	struct channel *ours, *theirs;
	struct receiver *receiver;
	struct store *store;
	int r;

	memset(page, 0x77, sizeof(page));
	assert_int_equal(store_new(0, &store, NULL), 0);
	assert_int_equal(store_put(store, 1, 0x1000, 1, ENCODING_RAW, page, PAGE_BYTES, NULL), 0);
	assert_int_equal(receiver_new(store, &receiver, NULL), 0);
	pair(&ours, &theirs);
	assert_int_equal(receiver_add(receiver, 0, theirs, NULL), 0);
	frame_encode_pages(head, pages, bytes);
	assert_int_equal(channel_writev(ours, iov, 2, NULL), 0);
	r = receiver_wait(receiver, 1, deadline_in_ms(5000), err);
	/* What was there is as it was. */
	memset(page, 0, sizeof(page));
	assert_int_equal(store_get(store, 1, 0x1000, 1, page, NULL), 0);
	for (size_t i = 0; i < sizeof(page); i++)
		assert_int_equal(page[i], 0x77);
	receiver_free(receiver);
	channel_free(ours);
	store_free(store);
	return r;
}

static void put_digest(uint8_t *payload, int byte)
{
	uint8_t page[PAGE_BYTES];
	XXH128_hash_t hash;

	memset(page, byte, sizeof(page));
	hash = XXH3_128bits(page, sizeof(page));
	frame_encode_digest(payload, &(struct frame_digest){ hash.low64, hash.high64 });
}

static void test_hostile_copies(void **state)
{
	static const struct {
		struct frame_copy copy;
		int digest;
		const char *says;
	} cases[] = {
		{ { 0x1000, 0, 1, 1, 0, false }, 0x78, "did not become" },
		{ { 0x2000, 0, 1, 1, 0, false }, 0x77, "never received" },
		{ { 0x1000, 0, 2, 1, 0, false }, 0x77, "never received" },
		{ { 0x1000, 0, 1, 2, 0, false }, 0x77, "more pages than it says" },
		{ { 0x1000, 1, 1, 1, 0, false }, 0x77, "comes after it" },
		{ { 0x1001, 0, 1, 1, 0, false }, 0x77, "impossible place" },
		{ { 0x1000, 0, 0, 1, 0, false }, 0x77, "impossible place" },
		{ { 0x1000, 0, 1, 0, 0, false }, 0x77, "impossible place" },
		{ { 0x1000, 0, 1, 1, 5, false }, 0x77, "impossible place" },
	};
	struct frame_pages pages = { 1, 1, 0x5000, ENCODING_DUPLICATE, 1 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t payload[FRAME_DIGEST_BYTES + FRAME_COPY_BYTES];
		struct error err = { 0 };
		int r;

		put_digest(payload, cases[i].digest);
		frame_encode_copy(payload + FRAME_DIGEST_BYTES, &cases[i].copy);
		r = hostile(&pages, payload, sizeof(payload), &err);
		assert_true(r < 0);
		if (!strstr(err.text, cases[i].says))
			fail_msg("case %zu: %s", i, err.text);
	}
}

static void test_hostile_deltas(void **state)
{
	uint8_t payload[FRAME_DIGEST_BYTES + 64] = { 0 };
	struct frame_pages pages = { 1, 1, 0x1000, ENCODING_DELTA, 1 };
	struct error err = { 0 };

	(void)state;
	put_digest(payload, 0x77);
	frame_encode_delta_length(payload + FRAME_DIGEST_BYTES, 9); /* longer than what follows */
	assert_int_equal(hostile(&pages, payload, FRAME_DIGEST_BYTES + 2 + 8, &err), -EBADMSG);
	frame_encode_delta_length(payload + FRAME_DIGEST_BYTES, 0); /* something behind it */
	assert_int_equal(hostile(&pages, payload, FRAME_DIGEST_BYTES + 2 + 1, &err), -EBADMSG);
	frame_encode_delta_length(payload + FRAME_DIGEST_BYTES, 4); /* malformed itself */
	assert_int_equal(hostile(&pages, payload, FRAME_DIGEST_BYTES + 2 + 4, &err), -EBADMSG);
	put_digest(payload, 0x78); /* against another version */
	frame_encode_delta_length(payload + FRAME_DIGEST_BYTES, 0);
	assert_int_equal(hostile(&pages, payload, FRAME_DIGEST_BYTES + 2, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "did not become"));
	pages.address = 0x3000; /* against none */
	assert_int_equal(hostile(&pages, payload, FRAME_DIGEST_BYTES + 2, &err), -ENOENT);
}

/* A copy of what another channel never brings: whoever stops the receiver does not wait for it. */
static void test_never_comes(void **state)
{
	uint8_t frame[FRAME_PAGES_HEAD_BYTES + FRAME_DIGEST_BYTES + FRAME_COPY_BYTES];
	struct frame_pages pages = { 1, 1, 0x5000, ENCODING_DUPLICATE, 1 };
	struct frame_copy copy = { 0x1000, 1, 1, 1, 1, false };
	struct channel *ours[2], *theirs;
	struct receiver *receiver;
	struct store *store;

	(void)state;
	assert_int_equal(store_new(0, &store, NULL), 0);
	assert_int_equal(receiver_new(store, &receiver, NULL), 0);
	for (uint32_t i = 0; i < 2; i++) {
		pair(&ours[i], &theirs);
		assert_int_equal(receiver_add(receiver, i, theirs, NULL), 0);
	}
	frame_encode_pages(frame, &pages, FRAME_DIGEST_BYTES + FRAME_COPY_BYTES);
	put_digest(frame + FRAME_PAGES_HEAD_BYTES, 0x77);
	frame_encode_copy(frame + FRAME_PAGES_HEAD_BYTES + FRAME_DIGEST_BYTES, &copy);
	assert_int_equal(channel_write(ours[0], frame, sizeof(frame), NULL), 0);
	assert_int_equal(receiver_wait(receiver, 1, deadline_in_ms(200), NULL), 0);
	receiver_free(receiver);
	channel_free(ours[0]);
	channel_free(ours[1]);
	store_free(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rounds),	       cmocka_unit_test(test_one_content),
		cmocka_unit_test(test_hostile_copies), cmocka_unit_test(test_hostile_deltas),
		cmocka_unit_test(test_never_comes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
