/*
 * Unit tests of the file system channel: both directions full at once, several passes over one channel, helpers that die, cancel,
 * peers that break off or send something else. Each side is a pump, a writer and a reader, in threads of their own.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "migration/stream.h"
#include "wire/frame.h"

#define PATIENCE_MS 20000 /* two pumps that wait for each other end with -ETIMEDOUT */
#define CHUNK_MAX (1U << 16)

struct side {
	struct channel *channel; /* not owned */
	int pump_fd, local_fd;
	int cancel_fd;
	int64_t silence_ms;
	size_t send_bytes, chunk; /* written in pieces of up to that many bytes */
	uint32_t seed;
	pthread_t pump, writer, reader;
	int result;
	struct error err;
	/* read: how many, and the first byte that was not the peer's (SIZE_MAX: none) */
	size_t received, wrong;
	uint32_t peer_seed;
};

static uint8_t byte_at(uint32_t seed, size_t i)
{
	return (uint8_t)(((uint32_t)i * 0x9e3779b1U + seed) >> 23);
}

static void *writer_main(void *arg)
{
	struct side *s = arg;
	uint8_t data[CHUNK_MAX];

	for (size_t at = 0; at < s->send_bytes;) {
		size_t n = MIN(s->chunk, s->send_bytes - at);
		ssize_t sent;

		for (size_t i = 0; i < n; i++)
			data[i] = byte_at(s->seed, at + i);
		sent = send(s->local_fd, data, n, MSG_NOSIGNAL);
		if (sent <= 0)
			break;
		at += (size_t)sent;
	}
	shutdown(s->local_fd, SHUT_WR);
	return NULL;
}

static void *reader_main(void *arg)
{
	struct side *s = arg;
	uint8_t data[CHUNK_MAX];
	ssize_t n;

	s->wrong = SIZE_MAX;
	while ((n = recv(s->local_fd, data, sizeof(data), 0)) > 0)
		for (ssize_t i = 0; i < n; i++, s->received++)
			if (data[i] != byte_at(s->peer_seed, s->received) && s->wrong == SIZE_MAX)
				s->wrong = s->received;
	return NULL;
}

static void *pump_main(void *arg)
{
	struct side *s = arg;

	s->result = stream_pump(s->channel, s->pump_fd, s->cancel_fd, s->silence_ms, &s->err);
	if (s->result < 0)
		channel_shutdown(s->channel);
	close_fd(&s->pump_fd);
	return NULL;
}

static void side_open(struct side *s, struct channel *channel, size_t send_bytes, size_t chunk, uint32_t seed)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	*s = (struct side){ .channel = channel,
			    .pump_fd = fds[0],
			    .local_fd = fds[1],
			    .cancel_fd = -1,
			    .silence_ms = -1,
			    .send_bytes = send_bytes,
			    .chunk = chunk,
			    .seed = seed };
}

static void pump_start(struct side *s)
{
	assert_int_equal(pthread_create(&s->pump, NULL, pump_main, s), 0);
}

static void local_start(struct side *s)
{
	assert_int_equal(pthread_create(&s->writer, NULL, writer_main, s), 0);
	assert_int_equal(pthread_create(&s->reader, NULL, reader_main, s), 0);
}

static void local_join(struct side *s)
{
	pthread_join(s->writer, NULL);
	pthread_join(s->reader, NULL);
	close_fd(&s->local_fd);
}

struct pair {
	struct channel *a, *b;
};

static int pair_setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(channel_new_plain(fds[0], fds[0], "beta", &p->a, NULL), 0);
	assert_int_equal(channel_new_plain(fds[1], fds[1], "alpha", &p->b, NULL), 0);
	channel_set_timeout(p->a, PATIENCE_MS);
	channel_set_timeout(p->b, PATIENCE_MS);
	*state = p;
	return 0;
}

static int pair_teardown(void **state)
{
	struct pair *p = *state;

	channel_free(p->a);
	channel_free(p->b);
	free(p);
	return 0;
}

static void check_side(const struct side *s, const struct side *peer)
{
	if (s->result < 0)
		fail_msg("%s", s->err.text);
	assert_int_equal(s->received, peer->send_bytes);
	assert_int_equal(s->wrong, SIZE_MAX);
}

/* One pass with so many bytes in each direction. */
static void pass(struct pair *p, size_t a_bytes, size_t a_chunk, size_t b_bytes, size_t b_chunk, uint32_t seed)
{
	struct side a, b;

	side_open(&a, p->a, a_bytes, a_chunk, seed);
	side_open(&b, p->b, b_bytes, b_chunk, seed + 1);
	a.peer_seed = b.seed;
	b.peer_seed = a.seed;
	pump_start(&a);
	pump_start(&b);
	local_start(&a);
	local_start(&b);
	pthread_join(a.pump, NULL);
	pthread_join(b.pump, NULL);
	local_join(&a);
	local_join(&b);
	check_side(&a, &b);
	check_side(&b, &a);
}

static void test_bulk_both_ways(void **state)
{
	pass(*state, 50 << 20, CHUNK_MAX, 50 << 20, CHUNK_MAX, 1);
}

/* As rsync does: many small pieces one way, bulk the other; and the other way round on the same channel. */
static void test_uneven(void **state)
{
	pass(*state, 10 << 20, 1000, 50 << 20, CHUNK_MAX, 2);
	pass(*state, 50 << 20, CHUNK_MAX, 2 << 20, 100, 3);
}

static void test_passes(void **state)
{
	static const size_t sizes[][2] = { { 0, 0 }, { 1, 0 }, { 0, 1 }, { 65536, 65537 }, { 0, 0 }, { 3000000, 17 } };

	for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++)
		pass(*state, sizes[i][0], 4096, sizes[i][1], 4096, 10 + 2 * i);
}

/* rsync killed in the middle: its side's stream ends, what the peer still sends is swallowed, and the channel can be used again. */
static void test_killed_helper(void **state)
{
	struct pair *p = *state;
	struct side a, b;
	uint8_t one;
	int status;
	pid_t child;

	side_open(&a, p->a, SIZE_MAX, CHUNK_MAX, 1);
	side_open(&b, p->b, 20 << 20, CHUNK_MAX, 2);
	b.peer_seed = a.seed;
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		writer_main(&a);
		_exit(0);
	}
	close_fd(&a.local_fd);
	pump_start(&a);
	pump_start(&b);
	/* Its bytes arrive: it is in the middle of it. */
	assert_int_equal(recv(b.local_fd, &one, 1, MSG_PEEK), 1);
	local_start(&b);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	pthread_join(a.pump, NULL);
	pthread_join(b.pump, NULL);
	local_join(&b);
	if (a.result < 0 || b.result < 0)
		fail_msg("%s %s", a.err.text, b.err.text);
	assert_true(b.received >= 1);
	assert_int_equal(b.wrong, SIZE_MAX);
	pass(p, 100000, 4096, 100000, 4096, 5);
}

static void test_cancel(void **state)
{
	struct pair *p = *state;
	struct side a, b;
	int cancel = eventfd(0, EFD_CLOEXEC);

	side_open(&a, p->a, 0, 1, 1);
	side_open(&b, p->b, 0, 1, 2);
	a.cancel_fd = cancel;
	pump_start(&a);
	pump_start(&b);
	/* Nobody says anything: both wait, until one is told to stop and breaks the link. */
	assert_int_equal(eventfd_write(cancel, 1), 0);
	pthread_join(a.pump, NULL);
	pthread_join(b.pump, NULL);
	assert_int_equal(a.result, -ECANCELED);
	assert_int_equal(b.result, -ECONNRESET);
	assert_non_null(strstr(b.err.text, "alpha"));
	close(a.local_fd);
	close(b.local_fd);
	close(cancel);
}

/* rsync says nothing for longer than the silence that is allowed: the pumps are there, and the pass goes on. */
static void test_quiet_is_not_gone(void **state)
{
	struct pair *p = *state;
	struct side a, b;

	side_open(&a, p->a, 100000, 4096, 1);
	side_open(&b, p->b, 100000, 4096, 2);
	a.peer_seed = b.seed;
	b.peer_seed = a.seed;
	a.silence_ms = b.silence_ms = 1000;
	pump_start(&a);
	pump_start(&b);
	assert_int_equal(fd_wait(a.local_fd, POLLIN, deadline_in_ms(2500)), 0);
	local_start(&a);
	local_start(&b);
	pthread_join(a.pump, NULL);
	pthread_join(b.pump, NULL);
	local_join(&a);
	local_join(&b);
	check_side(&a, &b);
	check_side(&b, &a);
}

/* A peer that was stopped: its connection lives, but nobody speaks. Whoever runs rsync on our side sees the end of the socket. */
static void test_stopped_peer(void **state)
{
	struct pair *p = *state;
	struct stream_thread *t;
	struct error err = { 0 };
	uint64_t before = clock_now_ns();
	int fds[2];
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(stream_thread_start(p->a, fds[0], -1, 700, &t, &err), 0);
	assert_int_equal(fd_wait(fds[1], POLLIN, deadline_in_ms(PATIENCE_MS)), 1);
	assert_int_equal(recv(fds[1], &byte, 1, 0), 0);
	assert_true(clock_now_ns() - before >= 700 * NS_PER_MS);
	assert_int_equal(stream_thread_join(t, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "beta was silent for 0.7 s"));
	close(fds[0]);
	close(fds[1]);
}

/* The same when the link breaks. */
static void test_broken_link_ends_rsync(void **state)
{
	struct pair *p = *state;
	struct stream_thread *t;
	struct error err = { 0 };
	int fds[2];
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(stream_thread_start(p->a, fds[0], -1, -1, &t, &err), 0);
	channel_shutdown(p->b);
	assert_int_equal(fd_wait(fds[1], POLLIN, deadline_in_ms(PATIENCE_MS)), 1);
	assert_int_equal(recv(fds[1], &byte, 1, 0), 0);
	assert_int_equal(stream_thread_join(t, &err), -ECONNRESET);
	close(fds[0]);
	close(fds[1]);
}

/* What a peer may do wrong: hang up, send another kind of frame, send what is no frame, or half of one. */
static void test_bad_peers(void **state)
{
	uint8_t barrier[FRAME_HEADER_BYTES + FRAME_BARRIER_BYTES], stream[FRAME_HEADER_BYTES + 3] = { 0 };
	uint8_t garbage[FRAME_HEADER_BYTES] = "HTTP/1.1 200 OK", large[FRAME_HEADER_BYTES];
	const struct {
		const uint8_t *bytes;
		size_t length;
		int number;
		const char *words;
	} rows[] = {
		{ barrier, 0, ECONNRESET, "closed the connection" },
		{ barrier, sizeof(barrier), EPROTO, "type 4 on the file channel" },
		{ garbage, sizeof(garbage), EPROTO, "magic" },
		{ large, sizeof(large), EPROTO, "outside its limits" },
		{ stream, sizeof(stream), ECONNRESET, "closed the connection" },
		{ stream, 7, ECONNRESET, "closed the connection" },
	};

	(void)state;
	frame_encode_barrier(barrier, 1);
	frame_encode_header(stream, FRAME_STREAM, 4);
	frame_encode_header(large, FRAME_STREAM, FRAME_STREAM_MAX + 1);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_channel_ struct channel *c = NULL;
		struct side s;
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		assert_int_equal(channel_new_plain(fds[0], fds[0], "beta", &c, NULL), 0);
		side_open(&s, c, 0, 1, 0);
		pump_start(&s);
		if (rows[i].length)
			assert_int_equal(fd_write_full(fds[1], rows[i].bytes, rows[i].length), 0);
		assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
		pthread_join(s.pump, NULL);
		if (s.result != -rows[i].number || !strstr(s.err.text, rows[i].words))
			fail_msg("row %zu: %d %s", i, s.result, s.err.text);
		close(fds[1]);
		close(s.local_fd);
	}
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, pair_setup, pair_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bulk_both_ways),    TEST(test_uneven),       TEST(test_passes),
		TEST(test_quiet_is_not_gone), TEST(test_stopped_peer), TEST(test_broken_link_ends_rsync),
		TEST(test_killed_helper),     TEST(test_cancel),       cmocka_unit_test(test_bad_peers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
