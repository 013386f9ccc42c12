/* redisload run: connections that read and write all the time, and check every reply.
 *
 * Each connection has a thread and RUN_KEYS keys of its own; in turn it writes one of them, reads one of them (must
 * hold what was written last), and reads a filled key. One request at a time: the wait is from send to reply.
 * A connection that ends is counted as an error and made again (a reconnect): the work goes on, the result shows it.
 * A write whose reply never came leaves two possible generations; both are accepted then.
 * Threads: one per connection; the main thread waits for signals and composes results under each one's lock.
 */
#include "redisload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FINISH_NS (5 * NS_PER_S) /* patience for outstanding replies when told to stop */

struct window {
	uint64_t ops, reads, writes, errors, reconnects, sum_ns, longest_ns, longest_at_ns, over_20ms;
};

struct run {
	const struct load_options *options;
	_Atomic bool stop;
	uint64_t started_ns;
};

struct client {
	struct run *run;
	uint64_t number;
	uint64_t random;
	pthread_t thread;
	struct resp resp;
	bool connected;
	uint64_t generation[RUN_KEYS]; /* 0: not written yet */
	bool unsure[RUN_KEYS];	       /* the reply to the last write was lost: it may hold the next one */
	char *value;
	pthread_mutex_t lock; /* guards the rest */
	struct window window; /* since the mark */
	struct window total;
	uint64_t waiting_since_ns; /* 0: nothing outstanding */
	char error[224];
};

static void client_error(struct client *client, const char *what, const char *detail, int length)
{
	pthread_mutex_lock(&client->lock);
	client->window.errors++;
	client->total.errors++;
	if (!client->error[0])
		snprintf(client->error, sizeof(client->error), "connection %" PRIu64 ": %s: %.*s", client->number, what,
			 length < 150 ? length : 150, detail);
	pthread_mutex_unlock(&client->lock);
}

static void window_add(struct window *window, bool write, uint64_t at, uint64_t wait)
{
	window->ops++;
	window->writes += write;
	window->reads += !write;
	window->sum_ns += wait;
	window->over_20ms += wait > 20 * NS_PER_MS;
	if (wait > window->longest_ns) {
		window->longest_ns = wait;
		window->longest_at_ns = at;
	}
}

/* One request and its reply. */
static int client_exchange(struct client *client, size_t count, const char *const *parts, const size_t *lengths,
			   struct resp_reply *reply)
{
	uint64_t sent = now_ns(), told = 0;
	pthread_mutex_lock(&client->lock);
	client->waiting_since_ns = sent;
	pthread_mutex_unlock(&client->lock);
	int r = resp_add(&client->resp, count, parts, lengths);
	if (r == 0)
		r = resp_flush(&client->resp);
	while (r == 0 && (r = resp_read(&client->resp, reply)) == -EAGAIN) {
		if (atomic_load(&client->run->stop)) {
			if (!told)
				told = now_ns();
			if (now_ns() - told > FINISH_NS)
				break;
		}
		r = 0;
	}
	uint64_t done = now_ns();
	pthread_mutex_lock(&client->lock);
	client->waiting_since_ns = 0;
	if (r == 0) {
		window_add(&client->window, count == 3, sent, done - sent);
		window_add(&client->total, count == 3, sent, done - sent);
	}
	pthread_mutex_unlock(&client->lock);
	if (r < 0)
		client_error(client, "no reply", strerror(-r), 100);
	return r;
}

static int client_write(struct client *client, uint64_t index)
{
	const struct load_options *options = client->run->options;
	char key[KEY_BYTES];
	struct resp_reply reply;
	uint64_t next = client->generation[index] + 1 + client->unsure[index];
	const char *parts[3] = { "SET", key, client->value };
	size_t lengths[3] = { 3, run_key(key, client->number, index), options->value_bytes };
	value_make(client->value, options->value_bytes, options->content, key, next);
	client->generation[index] = next - 1;
	client->unsure[index] = true;
	int r = client_exchange(client, 3, parts, lengths, &reply);
	if (r < 0)
		return r;
	if (reply.kind != RESP_STATUS) {
		client_error(client, "SET", reply.bytes, (int)reply.length);
		return 0;
	}
	client->generation[index] = next;
	client->unsure[index] = false;
	return 0;
}

static int client_get(struct client *client, const char *key, size_t key_bytes, uint64_t expected, bool unsure)
{
	const struct load_options *options = client->run->options;
	struct resp_reply reply;
	uint64_t generation = 0;
	const char *parts[2] = { "GET", key };
	size_t lengths[2] = { 3, key_bytes };
	int r = client_exchange(client, 2, parts, lengths, &reply);
	if (r < 0)
		return r;
	if (reply.kind == RESP_ERROR)
		client_error(client, "GET", reply.bytes, (int)reply.length);
	else if (reply.kind != RESP_BULK)
		client_error(client, "missing key", key, (int)key_bytes);
	else if (value_check(reply.bytes, reply.length, options->content, key, &generation) < 0)
		client_error(client, "wrong value", key, (int)key_bytes);
	else if (generation != expected && !unsure)
		client_error(client, "value of another generation", key, (int)key_bytes);
	return 0;
}

static int client_operate(struct client *client, uint64_t turn)
{
	const struct load_options *options = client->run->options;
	uint64_t index = random_next(&client->random) % RUN_KEYS;
	char key[KEY_BYTES];
	if (turn % 3 == 2 && options->keys)
		return client_get(client, key, fill_key(key, random_next(&client->random) % options->keys), 0, false);
	if (turn % 3 == 1 && client->generation[index])
		return client_get(client, key, run_key(key, client->number, index), client->generation[index],
				  client->unsure[index]);
	return client_write(client, index);
}

static void client_reconnect(struct client *client, struct ticker *ticker)
{
	resp_close(&client->resp);
	client->connected = resp_open(&client->run->options->server, &client->resp) == 0;
	pthread_mutex_lock(&client->lock);
	client->window.reconnects++;
	client->total.reconnects++;
	pthread_mutex_unlock(&client->lock);
	ticker_wait(ticker); /* a server that is gone is not asked without a pause */
}

static void *client_main(void *argument)
{
	struct client *client = argument;
	struct run *run = client->run;
	uint64_t interval_ms = run->options->interval_ms;
	struct ticker ticker, pause;
	ticker_start(&ticker, (interval_ms ? interval_ms : 1) * NS_PER_MS);
	ticker_start(&pause, 10 * NS_PER_MS);
	for (uint64_t turn = client->number; !atomic_load(&run->stop); turn++) {
		if (interval_ms)
			ticker_wait(&ticker);
		if (!client->connected || client_operate(client, turn) < 0) {
			if (!atomic_load(&run->stop))
				client_reconnect(client, &pause);
		}
	}
	return NULL;
}

/* ---- results ---- */

static void window_merge(struct window *sum, const struct window *part)
{
	sum->ops += part->ops;
	sum->reads += part->reads;
	sum->writes += part->writes;
	sum->errors += part->errors;
	sum->reconnects += part->reconnects;
	sum->sum_ns += part->sum_ns;
	sum->over_20ms += part->over_20ms;
	if (part->longest_ns > sum->longest_ns) {
		sum->longest_ns = part->longest_ns;
		sum->longest_at_ns = part->longest_at_ns;
	}
}

static void add_window(struct text *text, const struct run *run, const char *name, const struct window *window)
{
	text_add(text, "\"%s\":{\"ops\":%" PRIu64 ",\"reads\":%" PRIu64 ",\"writes\":%" PRIu64 ",\"errors\":%" PRIu64,
		 name, window->ops, window->reads, window->writes, window->errors);
	text_add(text, ",\"reconnects\":%" PRIu64 ",\"mean_wait_ms\":%.4f,\"longest_wait_ms\":%.3f", window->reconnects,
		 window->ops ? (double)window->sum_ns / (double)window->ops / 1e6 : 0.0,
		 (double)window->longest_ns / 1e6);
	text_add(text, ",\"longest_wait_at_ms\":%.3f,\"waits_over_20ms\":%" PRIu64 "}",
		 window->longest_ns ? (double)(window->longest_at_ns - run->started_ns) / 1e6 : 0.0, window->over_20ms);
}

static void result_compose(const struct run *run, struct client *clients, uint64_t snapshot, bool begin_anew,
			   struct text *text)
{
	uint64_t count = run->options->connections;
	struct window window = { 0 }, total = { 0 };
	char error[sizeof(clients->error)] = "";
	uint64_t now = now_ns(), outstanding = 0;
	text_add(text,
		 "{\"snapshot\":%" PRIu64 ",\"at_ms\":%.3f,\"connections\":%" PRIu64
		 ",\"longest_wait_ms_by_connection\":[",
		 snapshot, (double)(now - run->started_ns) / 1e6, count);
	for (uint64_t i = 0; i < count; i++) {
		struct client *client = &clients[i];
		pthread_mutex_lock(&client->lock);
		text_add(text, "%s%.3f", i ? "," : "", (double)client->window.longest_ns / 1e6);
		window_merge(&window, &client->window);
		window_merge(&total, &client->total);
		if (client->error[0] && !error[0])
			memcpy(error, client->error, sizeof(error));
		if (client->waiting_since_ns && now > client->waiting_since_ns &&
		    now - client->waiting_since_ns > outstanding)
			outstanding = now - client->waiting_since_ns;
		if (begin_anew)
			client->window = (struct window){ 0 };
		pthread_mutex_unlock(&client->lock);
	}
	text_add(text, "],\"outstanding_ms\":%.3f,\"first_error\":", (double)outstanding / 1e6);
	text_add_json_string(text, error);
	text_add(text, ",");
	add_window(text, run, "window", &window);
	text_add(text, ",");
	add_window(text, run, "total", &total);
	text_add(text, "}\n");
}

/* Written beside and renamed, so that a reader never sees half of it. */
static int file_replace(const char *path, const struct text *text)
{
	char beside[4096];
	if (snprintf(beside, sizeof(beside), "%s.new", path) >= (int)sizeof(beside))
		return -ENAMETOOLONG;
	FILE *file = fopen(beside, "we");
	if (!file)
		return -errno;
	bool whole = fwrite(text->bytes, 1, text->length, file) == text->length;
	if (fclose(file) != 0 || !whole || rename(beside, path) < 0)
		return -errno;
	return 0;
}

static int result_write(const struct run *run, struct client *clients, uint64_t snapshot)
{
	char bytes[8192];
	struct text text = { .bytes = bytes, .capacity = sizeof(bytes) };
	result_compose(run, clients, snapshot, true, &text);
	if (!run->options->json) {
		fwrite(text.bytes, 1, text.length, stdout);
		return fflush(stdout) ? -errno : 0;
	}
	int r = file_replace(run->options->json, &text);
	if (r < 0)
		complain("cannot write %s: %s", run->options->json, strerror(-r));
	return r;
}

static int state_write(const struct run *run, const struct client *clients)
{
	if (!run->options->state)
		return 0;
	FILE *file = fopen(run->options->state, "we");
	if (!file) {
		complain("cannot write %s: %s", run->options->state, strerror(errno));
		return -errno;
	}
	for (uint64_t c = 0; c < run->options->connections; c++)
		for (uint64_t k = 0; k < RUN_KEYS; k++) {
			char key[KEY_BYTES];
			run_key(key, c, k);
			if (clients[c].generation[k] && !clients[c].unsure[k])
				fprintf(file, "%s %" PRIu64 "\n", key, clients[c].generation[k]);
		}
	return fclose(file) ? -errno : 0;
}

/* ---- the run ---- */

static int clients_open(struct run *run, struct client *clients)
{
	for (uint64_t i = 0; i < run->options->connections; i++) {
		struct client *client = &clients[i];
		client->run = run;
		client->number = i;
		client->random = mix64(i + 1);
		client->value = malloc(VALUE_BYTES_MAX);
		pthread_mutex_init(&client->lock, NULL);
		int r = client->value ? resp_open(&run->options->server, &client->resp) : -ENOMEM;
		if (r < 0) {
			complain("cannot connect: %s", strerror(-r));
			return r;
		}
		client->connected = true;
	}
	return 0;
}

/* Waits for signals until it is time to end; each SIGUSR1 gives a result. */
static int signals_serve(struct run *run, struct client *clients, const sigset_t *signals, uint64_t *snapshot)
{
	uint64_t end = run->started_ns + run->options->duration_s * NS_PER_S;
	for (;;) {
		uint64_t now = now_ns();
		uint64_t left = run->options->duration_s ? (end > now ? end - now : 0) : 3600 * NS_PER_S;
		struct timespec timeout = { .tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S) };
		int number = sigtimedwait(signals, NULL, &timeout);
		if (number == SIGUSR1) {
			int r = result_write(run, clients, ++*snapshot);
			if (r < 0)
				return r;
		} else if (number > 0 || (run->options->duration_s && now_ns() >= end)) {
			return 0;
		}
	}
}

int load_run(const struct load_options *options)
{
	struct run run = { .options = options };
	struct client *clients = calloc(options->connections, sizeof(*clients));
	uint64_t snapshot = 0, started = 0, errors = 0;
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	if (!clients)
		return -ENOMEM;
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	int r = clients_open(&run, clients);
	run.started_ns = now_ns();
	while (r == 0 && started < options->connections) {
		r = -pthread_create(&clients[started].thread, NULL, client_main, &clients[started]);
		started += r == 0;
	}
	if (r == 0)
		r = signals_serve(&run, clients, &signals, &snapshot);
	atomic_store(&run.stop, true);
	for (uint64_t i = 0; i < started; i++)
		pthread_join(clients[i].thread, NULL);
	if (r == 0)
		r = result_write(&run, clients, ++snapshot);
	if (r == 0)
		r = state_write(&run, clients);
	for (uint64_t i = 0; i < options->connections; i++) {
		errors += clients[i].total.errors + clients[i].total.reconnects;
		if (clients[i].resp.in)
			resp_close(&clients[i].resp);
		free(clients[i].value);
	}
	free(clients);
	return r < 0 ? r : errors ? -EBADMSG : 0;
}
