/*
 * A measurement, not a test: how fast one TLS channel is between two processes on loopback.
 */
#pragma once

#include <sys/wait.h>

#include "transport-fixture.h"

/* `test-transport throughput [MIB]`: one TLS stream between two processes, a thread on each side. */
static inline int throughput(size_t mib)
{
	struct world *w;
	void *state;
	struct channel *c = NULL;
	_cleanup_free_ uint8_t *data = malloc(1 << 20);
	struct error err = { 0 };
	uint8_t header[48] = { 0 };
	struct iovec iov[2] = { { header, sizeof(header) }, { data, 1 << 20 } };
	uint64_t begin;
	pid_t pid;
	int fds[2], r = 0;

	world_setup(&state);
	w = state;
	tcp_pair(fds);
	pid = fork();
	if (!pid) {
		close(fds[0]);
		r = channel_accept_tls(fds[1], w->beta, PATIENCE_MS, &c, &err);
		for (size_t i = 0; i < mib && !r; i++) {
			r = channel_read(c, header, sizeof(header), &err);
			if (!r)
				r = channel_read(c, data, 1 << 20, &err);
		}
		_exit(r || channel_write(c, "d", 1, &err) ? 1 : 0);
	}
	close(fds[1]);
	fill(data, 1 << 20, 1);
	r = channel_new_plain(fds[0], fds[0], "bench", &c, &err);
	if (!r)
		r = channel_start_tls(c, w->alpha, false, NULL, &err);
	begin = clock_now_ns();
	for (size_t i = 0; i < mib && !r; i++)
		r = channel_writev(c, iov, 2, &err);
	if (!r)
		r = channel_read(c, header, 1, &err);
	if (r < 0)
		fprintf(stderr, "%s\n", err.text);
	else
		printf("%s: %.2f GB/s\n", SSL_get_cipher(c->tls->ssl),
		       (double)(mib << 20) / (double)(clock_now_ns() - begin));
	channel_free(c);
	waitpid(pid, NULL, 0);
	world_teardown(&state);
	return r < 0;
}
