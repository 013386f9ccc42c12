/*
 * The part of test-endpoint.c about ssh: an sshd of our own on loopback, with keys and configuration in a temporary directory.
 */
#pragma once

struct sshd {
	struct process process;
	char directory[64];
	uint16_t port;
	bool made_run_sshd;
};

/* What runs at the far end: sends its route, echoes on its own channel, then on one further channel. */
static int helper_main(int argc, char **argv)
{
	const char *run = getenv("PHAUL_TEST_RUN");
	struct channel *c = NULL, *further = NULL;
	struct route *route = NULL;
	struct error err = { 0 };
	uint8_t id[ROUTE_BYTES];
	int r;

	if (argc == 4 && !strcmp(argv[2], "--join")) {
		r = route_join_stdio(run, argv[3], &err);
	} else if (getenv("PHAUL_TEST_FAIL")) {
		r = error_set(&err, EIO, "the helper fails as it was told");
	} else {
		fill(id, sizeof(id), (uint64_t)getpid());
		r = route_open_ssh(run, id, &route, &err);
		if (!r)
			r = channel_accept_stdio(&c, &err);
		printf("noise that must not get into the stream\n");
		fflush(stdout);
		if (!r)
			r = channel_write(c, id, sizeof(id), &err);
		if (!r)
			r = echo(c, &err);
		if (!r)
			r = route_receive(route, -1, deadline_in_ms(PATIENCE_MS), &further, &err);
		if (!r)
			r = echo(further, &err);
	}
	channel_free(further);
	channel_free(c);
	route_free(route);
	if (r < 0)
		fprintf(stderr, "%s\n", err.text);
	return r < 0 ? 3 : 0;
}

static void write_text(const struct sshd *s, const char *name, const char *fmt, ...) _printf_(3, 4);

static void write_text(const struct sshd *s, const char *name, const char *fmt, ...)
{
	char path[160], text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", s->directory, name);
	assert_int_equal(fd_write_file(AT_FDCWD, path, text, strlen(text), 0600), 0);
}

static void make_key(const struct sshd *s, const char *name)
{
	struct error err = { 0 };
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", s->directory, name);
	if (process_run((const char *[]){ "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path, NULL }, NULL,
			deadline_in_ms(PATIENCE_MS), &err) != 0)
		fail_msg("%s", err.text);
}

static void read_text(const struct sshd *s, const char *name, char text[1024])
{
	_cleanup_buffer_ struct buffer b = { 0 };
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", s->directory, name);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 1000, &b), 0);
	snprintf(text, 1024, "%.*s", (int)b.length, (char *)b.data);
}

static void sshd_start(struct sshd *s)
{
	char config[160], text[1024];
	struct process_options o = { .stdin_fd = -1, .stdout_fd = -1 };
	struct error err = { 0 };
	uint64_t deadline = deadline_in_ms(PATIENCE_MS);
	int l = raw_listener(&s->port), log;

	close(l);
	strcpy(s->directory, "/tmp/phaul-sshd.XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	s->made_run_sshd = !mkdir("/run/sshd", 0755); /* sshd wants it for its unprivileged half */
	make_key(s, "host");
	make_key(s, "client");
	make_key(s, "wrong");
	read_text(s, "client.pub", text);
	write_text(s, "authorized", "%s", text);
	read_text(s, "host.pub", text);
	write_text(s, "known", "[127.0.0.1]:%u %s", s->port, text);
	write_text(s, "sshd.conf",
		   "ListenAddress 127.0.0.1:%u\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\n"
		   "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n"
		   "KbdInteractiveAuthentication no\nAcceptEnv PHAUL_TEST_FAIL\nSetEnv PHAUL_TEST_RUN=%s\n",
		   s->port, s->directory, s->directory, s->directory);
	write_text(s, "good.conf", "IdentityFile %s/client\nIdentitiesOnly yes\nUserKnownHostsFile %s/known\n",
		   s->directory, s->directory);
	write_text(s, "wrong.conf", "IdentityFile %s/wrong\nIdentitiesOnly yes\nUserKnownHostsFile %s/known\n",
		   s->directory, s->directory);
	write_text(s, "unknown.conf", "IdentityFile %s/client\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\n",
		   s->directory);
	write_text(s, "fail.conf",
		   "IdentityFile %s/client\nIdentitiesOnly yes\nUserKnownHostsFile %s/known\n"
		   "SetEnv PHAUL_TEST_FAIL=1\n",
		   s->directory, s->directory);
	snprintf(config, sizeof(config), "%s/sshd.log", s->directory);
	log = open(config, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	snprintf(config, sizeof(config), "%s/sshd.conf", s->directory);
	o.argv = (const char *[]){ "/usr/sbin/sshd", "-D", "-e", "-f", config, NULL };
	o.stderr_fd = log;
	if (process_start(&o, &s->process, &err) < 0)
		fail_msg("%s", err.text);
	close(log);
	for (;;) {
		struct sockaddr_in a = { .sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					 .sin_port = htons(s->port) };
		_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
			break;
		if (process_wait(&s->process, deadline_in_ms(10)) == 1 || clock_now_ns() > deadline)
			fail_msg("sshd does not listen; see %s/sshd.log", s->directory);
	}
}

static void sshd_stop(struct sshd *s)
{
	process_free(&s->process);
	if (s->made_run_sshd)
		rmdir("/run/sshd");
	dir_remove(s->directory);
	unsetenv("PHAUL_SSH");
}

static void use_config(const struct sshd *s, const char *name)
{
	char text[160];

	snprintf(text, sizeof(text), "ssh -F %s/%s", s->directory, name);
	setenv("PHAUL_SSH", text, 1);
}

static bool have_sshd(void)
{
	return !access("/usr/sbin/sshd", X_OK) && !geteuid();
}

static int dial_helper(const struct sshd *s, const char *program, const uint8_t *route, struct channel **ret,
		       struct error *err)
{
	struct endpoint e = { .kind = ENDPOINT_SSH, .host = "127.0.0.1", .user = "root", .port = s->port };
	struct dial_options o = { .remote_phaul = program, .timeout_ms = PATIENCE_MS, .cancel_fd = -1 };
	char self[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[MAX(n, 0)] = 0;
	if (!program)
		o.remote_phaul = self;
	return endpoint_dial(&e, &o, route, ret, err);
}

/* A session of two channels over a real sshd, to the last byte; then an ssh that is killed in the middle. */
static void test_ssh(void **state)
{
	static const size_t big[] = { 1, 65537, 8388608, 3145735, 2 };
	struct sshd s = { .process = PROCESS_NONE };
	struct channel *c = NULL, *further = NULL;
	struct error err = { 0 };
	uint8_t route[ROUTE_BYTES], byte;

	(void)state;
	if (!have_sshd()) {
		print_message("skipped: there is no /usr/sbin/sshd, or we are not root\n");
		skip();
	}
	sshd_start(&s);
	use_config(&s, "good.conf");
	if (dial_helper(&s, NULL, NULL, &c, &err) < 0)
		fail_msg("%s", err.text);
	channel_set_timeout(c, PATIENCE_MS);
	assert_int_equal(channel_read(c, route, sizeof(route), &err), 0);
	exchange(c, big, ARRAY_SIZE(big));
	assert_int_equal(channel_finish(c, &err), 0);
	if (dial_helper(&s, NULL, route, &further, &err) < 0)
		fail_msg("%s", err.text);
	channel_set_timeout(further, PATIENCE_MS);
	exchange(further, big, ARRAY_SIZE(big));
	assert_int_equal(channel_finish(further, &err), 0);
	assert_int_equal(channel_read_some(further, &byte, 1, &err), 0);
	assert_int_equal(channel_read_some(c, &byte, 1, &err), 0);
	channel_free(further);
	channel_free(c);
	/* The session has ended: nobody takes a further connection. */
	assert_true(dial_helper(&s, NULL, route, &further, &err) < 0);
	assert_non_null(strstr(err.text, "no session waits"));
	assert_int_equal(dial_helper(&s, NULL, NULL, &c, &err), 0);
	kill(c->ssh->process.pid, SIGKILL);
	/* Its route may have come before that; nothing else, and no clean end. */
	if (!channel_read(c, route, sizeof(route), &err))
		assert_int_equal(channel_read_some(c, route, 1, &err), -ECONNRESET);
	assert_int_equal(err.number, ECONNRESET);
	assert_non_null(strstr(err.text, "ended by signal 9"));
	channel_free(c);
	sshd_stop(&s);
}

static void test_ssh_errors(void **state)
{
	static const struct {
		const char *config, *program;
		int number;
		const char *text;
	} cases[] = {
		{ "wrong.conf", NULL, -EACCES, "Permission denied (publickey)" },
		{ "unknown.conf", NULL, -EACCES, "Host key verification failed" },
		{ "good.conf", "/nonexistent/phaul", -ENOENT, "install it there" },
		{ "good.conf", "/bin/echo", -EPROTO, "in place of phaul's greeting" },
		{ "good.conf", "/bin/true", -EPROTO, "ended without a word" },
		{ "good.conf", "a'b; touch /tmp/phaul-owned", -ENOENT, "install it there" },
		{ "fail.conf", NULL, -ECONNRESET, "ended with status 3: the helper fails as it was told" },
	};
	struct sshd s = { .process = PROCESS_NONE };
	struct channel *c = NULL;
	struct error err = { 0 };

	(void)state;
	if (!have_sshd()) {
		print_message("skipped: there is no /usr/sbin/sshd, or we are not root\n");
		skip();
	}
	sshd_start(&s);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r;

		use_config(&s, cases[i].config);
		r = dial_helper(&s, cases[i].program, NULL, &c, &err);
		if (r != cases[i].number || !strstr(err.text, cases[i].text))
			fail_msg("%s %s: %d %s", cases[i].config, cases[i].program ? cases[i].program : "", r,
				 err.text);
	}
	assert_true(access("/tmp/phaul-owned", F_OK) < 0);
	process_kill(&s.process);
	use_config(&s, "good.conf");
	assert_int_equal(dial_helper(&s, NULL, NULL, &c, &err), -ECONNREFUSED);
	setenv("PHAUL_SSH", "/nonexistent/ssh", 1);
	assert_int_equal(dial_helper(&s, NULL, NULL, &c, &err), -ENOENT);
	sshd_stop(&s);
}

static void test_joiner_errors(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };

	assert_int_equal(route_join_stdio(w->directory, "../../etc/passwd", &err), -EINVAL);
	assert_int_equal(route_join_stdio(w->directory, "0123456789abcdef0123456789ABCDEF", &err), -EINVAL);
	assert_int_equal(route_join_stdio(w->directory, "0123456789abcdef0123456789abcdef", &err), -ENOENT);
	assert_int_equal(route_join_stdio("/nonexistent", "0123456789abcdef0123456789abcdef", &err), -ENOENT);
}
