/*
 * Unit tests of endpoints: spelling, dialling, the listener against hostile and slow peers, routes, and ssh through a
 * real sshd on loopback. `test-endpoint receive [--join ROUTE]` is what that sshd runs in place of phaul.
 */
#include "transport-fixture.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "base/process.h"

static const size_t sizes[] = { 1, 4097, 1048577, 16384 };

static const struct dial_options *dialling(struct tls_identity *identity, int64_t timeout_ms)
{
	static struct dial_options o;

	o = (struct dial_options){ .identity = identity, .timeout_ms = timeout_ms, .cancel_fd = -1 };
	return &o;
}

static struct endpoint local(uint16_t port)
{
	return (struct endpoint){ .kind = ENDPOINT_TLS, .host = "127.0.0.1", .port = port };
}

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		enum endpoint_kind kind; /* invalid: refused */
		const char *user, *host;
		uint16_t port;
	} cases[] = {
		{ "beta", ENDPOINT_TLS, "", "beta", 7433 },
		{ "beta:99", ENDPOINT_TLS, "", "beta", 99 },
		{ "10.0.0.1:65535", ENDPOINT_TLS, "", "10.0.0.1", 65535 },
		{ "[::1]:5", ENDPOINT_TLS, "", "::1", 5 },
		{ "[fe80::1%eth0]", ENDPOINT_TLS, "", "fe80::1%eth0", 7433 },
		{ "fe80::1", ENDPOINT_TLS, "", "fe80::1", 7433 },
		{ "ssh://beta", ENDPOINT_SSH, "", "beta", 0 },
		{ "ssh://root@beta:2222", ENDPOINT_SSH, "root", "beta", 2222 },
		{ "ssh://root@[::1]:22", ENDPOINT_SSH, "root", "::1", 22 },
		{ "", 0, 0, 0, 0 },
		{ ":7433", 0, 0, 0, 0 },
		{ "beta:", 0, 0, 0, 0 },
		{ "beta:0", 0, 0, 0, 0 },
		{ "beta:65536", 0, 0, 0, 0 },
		{ "beta:+9", 0, 0, 0, 0 },
		{ "beta:9x", 0, 0, 0, 0 },
		{ "[::1", 0, 0, 0, 0 },
		{ "[::1]9", 0, 0, 0, 0 },
		{ "http://beta", 0, 0, 0, 0 },
		{ "be ta", 0, 0, 0, 0 },
		{ "beta;id", 0, 0, 0, 0 },
		{ "ssh://-oProxyCommand=id", 0, 0, 0, 0 },
		{ "ssh://-l@beta", 0, 0, 0, 0 },
		{ "ssh://a b@beta", 0, 0, 0, 0 },
		{ "ssh://@beta", 0, 0, 0, 0 },
		{ "ssh://root@", 0, 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct endpoint e = { .kind = ENDPOINT_INVALID };
		struct error err = { 0 };
		int r = endpoint_parse(cases[i].text, &e, &err);

		if (r != (cases[i].kind ? 0 : -EINVAL))
			fail_msg("'%s': %d %s", cases[i].text, r, err.text);
		assert_int_equal(e.kind, cases[i].kind);
		if (!cases[i].kind)
			continue;
		assert_string_equal(e.host, cases[i].host);
		assert_string_equal(e.user, cases[i].user);
		assert_int_equal(e.port, cases[i].port);
	}
}

static void dial_and_exchange(const struct endpoint *e, struct tls_identity *identity)
{
	_cleanup_channel_ struct channel *c = NULL;
	struct error err = { 0 };

	if (endpoint_dial(e, dialling(identity, PATIENCE_MS), NULL, &c, &err) < 0)
		fail_msg("%s", err.text);
	channel_set_timeout(c, PATIENCE_MS);
	exchange(c, sizes, ARRAY_SIZE(sizes));
	assert_int_equal(channel_finish(c, &err), 0);
}

static void test_dial(void **state)
{
	struct world *w = *state;
	struct dial_options o = { .identity = w->alpha, .timeout_ms = PATIENCE_MS, .cancel_fd = -1 };
	static const char *const addresses[] = { "127.0.0.1:0", "[::1]:0" };

	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		struct endpoint e = { .kind = ENDPOINT_TLS };
		struct channel *c = NULL;
		struct error err = { 0 };
		struct server s;

		server_start(&s, addresses[i], w->beta);
		strcpy(e.host, i ? "::1" : "127.0.0.1");
		e.port = listener_port(s.listener);
		dial_and_exchange(&e, w->alpha);
		o.expected_name = "beta";
		assert_int_equal(endpoint_dial(&e, &o, NULL, &c, &err), 0);
		channel_free(c);
		o.expected_name = "gamma";
		assert_int_equal(endpoint_dial(&e, &o, NULL, &c, &err), -EACCES);
		assert_non_null(strstr(err.text, "is the host 'beta', not 'gamma'"));
		assert_int_equal(endpoint_dial(&e, dialling(w->expired, PATIENCE_MS), NULL, &c, &err), -EACCES);
		assert_non_null(strstr(err.text, "does not accept our certificate: it has expired"));
		server_stop(&s);
	}
}

static void *answer_main(void *arg)
{
	const char *const *answer = ((void **)arg)[0];
	int l = *(int *)((void **)arg)[1];
	int fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	char text[1024];

	if (*answer) {
		fd_write_full(fd, *answer, strlen(*answer));
		shutdown(fd, SHUT_WR);
		while (read(fd, text, sizeof(text)) > 0)
			;
	}
	close(fd);
	return NULL;
}

/* Targets that are not phaul, or not there. */
static void test_wrong_targets(void **state)
{
	struct world *w = *state;
	static const char *const answers[] = { "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", NULL };
	struct channel *c = NULL;
	struct error err = { 0 };
	struct endpoint e;
	uint16_t port;
	int l = raw_listener(&port), cancel = eventfd(1, EFD_CLOEXEC);
	struct dial_options o = { .identity = w->alpha, .timeout_ms = PATIENCE_MS, .cancel_fd = cancel };

	e = local(port);
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		void *arg[2] = { (void *)&answers[i], &l };
		pthread_t thread;

		assert_int_equal(pthread_create(&thread, NULL, answer_main, arg), 0);
		assert_int_equal(endpoint_dial(&e, dialling(w->alpha, PATIENCE_MS), NULL, &c, &err),
				 answers[i] ? -EPROTO : -ECONNRESET);
		if (answers[i])
			assert_non_null(strstr(err.text, "is it `phaul serve` that listens there?"));
		pthread_join(thread, NULL);
	}
	/* One that takes the connection and says nothing; then one that is canceled. */
	assert_int_equal(endpoint_dial(&e, dialling(w->alpha, 150), NULL, &c, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "did not finish the handshake"));
	assert_int_equal(endpoint_dial(&e, &o, NULL, &c, &err), -ECANCELED);
	close(l);
	assert_int_equal(endpoint_dial(&e, dialling(w->alpha, 1000), NULL, &c, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "is `phaul serve` running there?"));
	strcpy(e.host, "no-such-host.invalid");
	assert_int_equal(endpoint_dial(&e, dialling(w->alpha, 1000), NULL, &c, &err), -EHOSTUNREACH);
	assert_int_equal(endpoint_dial(&e, dialling(NULL, 1000), NULL, &c, &err), -EINVAL);
	close(cancel);
}

static void test_bad_listeners(void **state)
{
	static const char *const bad[] = { "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", ":80",
					   "::1:80",	"[::1]",      "127.0.0.1:x" };
	struct listener *l = NULL, *m = NULL;
	struct error err = { 0 };
	char address[40];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(listener_open(bad[i], &l, &err), -EINVAL);
	assert_int_equal(listener_open("203.0.113.77:0", &l, &err), -EADDRNOTAVAIL);
	assert_int_equal(listener_open("127.0.0.1:0", &l, &err), 0);
	snprintf(address, sizeof(address), "127.0.0.1:%u", listener_port(l));
	assert_int_equal(listener_open(address, &m, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "another program"));
	listener_free(l);
}

/* The connection is ended without a single byte. */
static void assert_ended_silently(int fd)
{
	uint8_t byte;
	ssize_t n;

	assert_int_equal(fd_wait(fd, POLLIN, deadline_in_ms(PATIENCE_MS)), 1);
	n = recv(fd, &byte, 1, 0);
	assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
	close(fd);
}

static void test_garbage(void **state)
{
	struct world *w = *state;
	uint8_t preamble[PREAMBLE_BYTES], route[ROUTE_BYTES];
	struct server s;
	uint16_t port;
	int fd;

	server_start(&s, "127.0.0.1:0", w->beta);
	port = listener_port(s.listener);
	fd = raw_connect(port);
	assert_int_equal(fd_write_full(fd, "GET / HTTP/1.1\r\n\r\n", 18), 0);
	assert_ended_silently(fd);
	/* Another version; reserved bytes that are not zero; a session that nobody knows; a half preamble and an end. */
	preamble_encode(NULL, preamble);
	preamble[6] = '2';
	fd = raw_connect(port);
	assert_int_equal(fd_write_full(fd, preamble, sizeof(preamble)), 0);
	assert_ended_silently(fd);
	preamble_encode(NULL, preamble);
	preamble[31] = 1;
	fd = raw_connect(port);
	assert_int_equal(fd_write_full(fd, preamble, sizeof(preamble)), 0);
	assert_ended_silently(fd);
	memset(route, 0x5a, sizeof(route));
	preamble_encode(route, preamble);
	fd = raw_connect(port);
	assert_int_equal(fd_write_full(fd, preamble, sizeof(preamble)), 0);
	assert_ended_silently(fd);
	fd = raw_connect(port);
	assert_int_equal(fd_write_full(fd, preamble, 20), 0);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_ended_silently(fd);
	assert_int_equal(s.n_peers, 0);
	struct endpoint e = local(port);
	dial_and_exchange(&e, w->alpha);
	server_stop(&s);
}

/* 100 silent connections: a good one gets through at once, and the last 64 of them are ended in time. */
static void test_slow_peers(void **state)
{
	struct world *w = *state;
	uint8_t preamble[PREAMBLE_BYTES];
	struct endpoint e;
	struct server s;
	uint64_t begin;
	int silent[100], half;

	server_start(&s, "127.0.0.1:0", w->beta);
	e = local(listener_port(s.listener));
	for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
		silent[i] = raw_connect(e.port);
	half = raw_connect(e.port);
	preamble_encode(NULL, preamble);
	assert_int_equal(fd_write_full(half, preamble, 17), 0);
	begin = clock_now_ns();
	dial_and_exchange(&e, w->alpha);
	assert_true(clock_now_ns() - begin < 4 * NS_PER_S);
	for (size_t i = 0; i < ARRAY_SIZE(silent); i++)
		assert_ended_silently(silent[i]);
	assert_ended_silently(half);
	assert_true(clock_now_ns() - begin < 15 * NS_PER_S);
	server_stop(&s);
}

/* A preamble that comes byte by byte is as good as any. */
static void test_trickled_preamble(void **state)
{
	struct listener *l;
	struct listener_event event;
	uint8_t preamble[PREAMBLE_BYTES];
	int fd;

	(void)state;
	assert_int_equal(listener_open("127.0.0.1:0", &l, NULL), 0);
	fd = raw_connect(listener_port(l));
	preamble_encode(NULL, preamble);
	for (size_t i = 0; i < PREAMBLE_BYTES - 1; i++) {
		assert_int_equal(fd_write_full(fd, preamble + i, 1), 0);
		assert_int_equal(listener_step(l, -1, deadline_in_ms(2), &event, NULL), 0);
		assert_int_equal(event.kind, LISTENER_NONE);
	}
	/* What follows the preamble is TLS's: not a byte more may be read. */
	assert_int_equal(fd_write_full(fd, (uint8_t[]){ preamble[31], 'X' }, 2), 0);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(PATIENCE_MS), &event, NULL), 0);
	assert_int_equal(event.kind, LISTENER_NEW_SESSION);
	assert_non_null(strstr(event.peer, "127.0.0.1:"));
	assert_false(route_is_new(event.route));
	assert_int_equal(fd_wait(event.fd, POLLIN, deadline_in_ms(PATIENCE_MS)), 1);
	assert_int_equal(recv(event.fd, preamble, 8, MSG_DONTWAIT), 1);
	assert_int_equal(preamble[0], 'X');
	close(event.fd);
	close(fd);
	listener_free(l);
}

struct dialler {
	pthread_t thread;
	struct endpoint e;
	struct tls_identity *identity;
	uint8_t route[ROUTE_BYTES];
	struct channel *channel;
	int result;
	struct error err;
};

static void *dialler_main(void *arg)
{
	struct dialler *d = arg;
	struct dial_options o = { .identity = d->identity, .timeout_ms = PATIENCE_MS, .cancel_fd = -1 };

	d->result = endpoint_dial(&d->e, &o, d->route, &d->channel, &d->err);
	return NULL;
}

/* A further connection reaches the worker of its session; a stranger with the right route does not get in. */
static void test_route_hand_over(void **state)
{
	struct world *w = *state;
	struct dialler good = { .identity = w->alpha, .route = { 1, 2, 3 } };
	struct dialler bad = { .identity = w->naked, .route = { 1, 2, 3 } };
	struct listener *l;
	struct listener_event event;
	struct route *route;
	struct channel *c = NULL;
	struct error err = { 0 };
	struct peer p = { 0 };
	int sockets[2];

	assert_int_equal(listener_open("127.0.0.1:0", &l, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	assert_int_equal(listener_add_worker(l, good.route, sockets[0], NULL), 0);
	assert_int_equal(route_open_tls(sockets[1], w->beta, &route, NULL), 0);
	assert_int_equal(route_receive(route, -1, deadline_in_ms(20), &c, &err), -ETIMEDOUT);
	good.e = bad.e = local(listener_port(l));
	assert_int_equal(pthread_create(&bad.thread, NULL, dialler_main, &bad), 0);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(100), &event, NULL), 0);
	assert_int_equal(pthread_create(&good.thread, NULL, dialler_main, &good), 0);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(300), &event, NULL), 0);
	assert_int_equal(event.kind, LISTENER_NONE);
	if (route_receive(route, -1, deadline_in_ms(PATIENCE_MS), &p.channel, &err) < 0)
		fail_msg("%s", err.text);
	pthread_join(good.thread, NULL);
	pthread_join(bad.thread, NULL);
	assert_int_equal(bad.result, -EACCES);
	assert_int_equal(good.result, 0);
	peer_start(&p);
	exchange(good.channel, sizes, ARRAY_SIZE(sizes));
	assert_int_equal(channel_finish(good.channel, NULL), 0);
	peer_join(&p);
	channel_free(good.channel);
	channel_free(p.channel);
	route_free(route);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(PATIENCE_MS), &event, NULL), 0);
	assert_int_equal(event.kind, LISTENER_WORKER_DONE);
	assert_memory_equal(event.route, good.route, ROUTE_BYTES);
	listener_free(l);
}

struct receiver {
	pthread_t thread;
	atomic_int tid;
	struct route *route;
	int cancel_fd;
	int result;
};

static void *receiver_main(void *arg)
{
	struct receiver *v = arg;
	struct channel *c = NULL;

	atomic_store(&v->tid, gettid());
	v->result = route_receive(v->route, v->cancel_fd, DEADLINE_NEVER, &c, NULL);
	return NULL;
}

/* A connection that never shakes hands does not keep a worker from being canceled. */
static void test_route_cancel(void **state)
{
	struct world *w = *state;
	struct receiver v = { .cancel_fd = eventfd(0, EFD_CLOEXEC) };
	uint64_t one = 1, begin = clock_now_ns();
	uint8_t byte = 0;
	int sockets[2], fds[2], queued;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	assert_int_equal(route_open_tls(sockets[1], w->beta, &v.route, NULL), 0);
	tcp_pair(fds);
	assert_int_equal(fd_send_fds(sockets[0], &byte, 1, &fds[1], 1), 0);
	close(fds[1]);
	assert_int_equal(pthread_create(&v.thread, NULL, receiver_main, &v), 0);
	do {
		assert_int_equal(ioctl(sockets[0], SIOCOUTQ, &queued), 0);
	} while (queued);
	wait_until_blocked(&v.tid); /* in the handshake: the connection has been taken */
	assert_int_equal(write(v.cancel_fd, &one, sizeof(one)), sizeof(one));
	pthread_join(v.thread, NULL);
	assert_int_equal(v.result, -ECANCELED);
	assert_true(clock_now_ns() - begin < 9 * NS_PER_S);
	close(sockets[0]);
	close(fds[0]);
	close(v.cancel_fd);
	route_free(v.route);
}

/* A worker that takes nothing does not hold up the listener. */
static void test_stuck_worker(void **state)
{
	uint8_t route[ROUTE_BYTES] = { 9 }, preamble[PREAMBLE_BYTES];
	struct listener_event event;
	struct listener *l;
	int sockets[2], fds[400];
	uint64_t begin = clock_now_ns();

	(void)state;
	assert_int_equal(listener_open("127.0.0.1:0", &l, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	assert_int_equal(listener_add_worker(l, route, sockets[0], NULL), 0);
	preamble_encode(route, preamble);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = raw_connect(listener_port(l));
		assert_int_equal(fd_write_full(fds[i], preamble, sizeof(preamble)), 0);
		assert_int_equal(listener_step(l, -1, clock_now_ns(), &event, NULL), 0);
	}
	preamble_encode(NULL, preamble);
	fds[0] = (close(fds[0]), raw_connect(listener_port(l)));
	assert_int_equal(fd_write_full(fds[0], preamble, sizeof(preamble)), 0);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(PATIENCE_MS), &event, NULL), 0);
	assert_int_equal(event.kind, LISTENER_NEW_SESSION);
	assert_true(clock_now_ns() - begin < 15 * NS_PER_S);
	close(event.fd);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(sockets[1]);
	listener_free(l);
}

/* A forked worker forgets the listener; the server goes on, and so do connections that had not spoken yet. */
static void test_forget(void **state)
{
	struct listener *l;
	struct listener_event event;
	uint8_t preamble[PREAMBLE_BYTES];
	int fd, status;
	pid_t pid;

	(void)state;
	assert_int_equal(listener_open("127.0.0.1:0", &l, NULL), 0);
	fd = raw_connect(listener_port(l));
	preamble_encode(NULL, preamble);
	assert_int_equal(fd_write_full(fd, preamble, 10), 0);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(50), &event, NULL), 0);
	pid = fork();
	if (!pid) {
		listener_forget(l);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(fd_write_full(fd, preamble + 10, sizeof(preamble) - 10), 0);
	assert_int_equal(listener_step(l, -1, deadline_in_ms(PATIENCE_MS), &event, NULL), 0);
	assert_int_equal(event.kind, LISTENER_NEW_SESSION);
	close(event.fd);
	close(fd);
	listener_free(l);
}

#include "endpoint-ssh.h"

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_dial),
		cmocka_unit_test(test_wrong_targets),
		cmocka_unit_test(test_bad_listeners),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_slow_peers),
		cmocka_unit_test(test_trickled_preamble),
		cmocka_unit_test(test_route_hand_over),
		cmocka_unit_test(test_stuck_worker),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_joiner_errors),
		cmocka_unit_test(test_route_cancel),
		cmocka_unit_test(test_ssh),
		cmocka_unit_test(test_ssh_errors),
	};

	if (argc > 1 && !strcmp(argv[1], "receive"))
		return helper_main(argc, argv);
	signal(SIGPIPE, SIG_IGN); /* our own raw sockets; channels are tested with the default elsewhere */
	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
