/* redisload: fills a Redis with values that can be checked, works on it over established connections, verifies it.
 *
 * Values follow from key and generation, so that nothing need be remembered to check one; what `run` wrote last is
 * remembered as well, and a value that fell back is found. fill and verify are here, run is in redisrun.c.
 * Threads: fill and verify have one.
 */
#include "redisload.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIPELINE 64
#define REPLY_DEADLINE_NS (30 * NS_PER_S)

size_t fill_key(char ret_key[KEY_BYTES], uint64_t number)
{
	return (size_t)snprintf(ret_key, KEY_BYTES, "phaul:fill:%010" PRIu64, number);
}

size_t run_key(char ret_key[KEY_BYTES], uint64_t connection, uint64_t number)
{
	return (size_t)snprintf(ret_key, KEY_BYTES, "phaul:run:%03" PRIu64 ":%06" PRIu64, connection, number);
}

void value_make(char *ret_value, size_t length, enum page_content content, const char *key, uint64_t generation)
{
	uint64_t seed = generation;
	char head[24];
	int head_bytes = snprintf(head, sizeof(head), "%020" PRIu64 " ", generation);
	for (const char *c = key; *c; c++)
		seed = mix64(seed ^ (uint8_t)*c) + (uint8_t)*c;
	memcpy(ret_value, head, (size_t)head_bytes);
	body_fill(ret_value + head_bytes, length - (size_t)head_bytes, content, seed);
}

int value_check(const char *value, size_t length, enum page_content content, const char *key, uint64_t *ret_generation)
{
	static _Thread_local char right[VALUE_BYTES_MAX];
	char head[21];
	char *end;
	if (length < VALUE_BYTES_MIN || length > VALUE_BYTES_MAX)
		return -EBADMSG;
	memcpy(head, value, 20);
	head[20] = 0;
	uint64_t generation = strtoull(head, &end, 10);
	if (end != head + 20)
		return -EBADMSG;
	value_make(right, length, content, key, generation);
	if (memcmp(right, value, length) != 0)
		return -EBADMSG;
	*ret_generation = generation;
	return 0;
}

static int reply_wait(struct resp *resp, struct resp_reply *reply)
{
	uint64_t deadline = now_ns() + REPLY_DEADLINE_NS;
	int r;
	do
		r = resp_read(resp, reply);
	while (r == -EAGAIN && now_ns() < deadline);
	return r;
}

static int fill_some(struct resp *resp, const struct load_options *options, uint64_t first, uint64_t count)
{
	static char value[VALUE_BYTES_MAX];
	struct resp_reply reply;
	for (uint64_t i = 0; i < count; i++) {
		char key[KEY_BYTES];
		const char *parts[3] = { "SET", key, value };
		size_t lengths[3] = { 3, fill_key(key, first + i), options->value_bytes };
		value_make(value, options->value_bytes, options->content, key, 0);
		int r = resp_add(resp, 3, parts, lengths);
		if (r < 0)
			return r;
	}
	int r = resp_flush(resp);
	for (uint64_t i = 0; r == 0 && i < count; i++) {
		r = reply_wait(resp, &reply);
		if (r == 0 && (reply.kind != RESP_STATUS || reply.length != 2)) {
			complain("SET was answered with '%.*s'", (int)reply.length, reply.bytes);
			return -EBADMSG;
		}
	}
	return r;
}

/* How many requests fit into the output buffer at once. */
static uint64_t pipeline_for(uint64_t value_bytes)
{
	uint64_t fit = RESP_BUFFER_BYTES / (value_bytes + 200);
	return fit < 1 ? 1 : fit < PIPELINE ? fit : PIPELINE;
}

int load_fill(const struct load_options *options)
{
	struct resp resp;
	uint64_t keys = options->bytes / options->value_bytes;
	uint64_t batch = pipeline_for(options->value_bytes);
	uint64_t start = now_ns();
	int r = resp_open(&options->server, &resp);
	if (r < 0) {
		complain("cannot connect: %s", strerror(-r));
		return r;
	}
	for (uint64_t done = 0; r == 0 && done < keys; done += batch)
		r = fill_some(&resp, options, done, keys - done < batch ? keys - done : batch);
	resp_close(&resp);
	if (r < 0)
		complain("filling failed: %s", strerror(-r));
	else
		printf("{\"keys\":%" PRIu64 ",\"value_bytes\":%" PRIu64 ",\"ms\":%" PRIu64 "}\n", keys,
		       options->value_bytes, (now_ns() - start) / (uint64_t)NS_PER_MS);
	return r;
}

/* ---- verify ---- */

struct wanted {
	char key[KEY_BYTES];
	uint64_t generation;
};

struct verification {
	uint64_t expected, verified, missing, wrong;
	char first_bad[KEY_BYTES];
};

static void verify_one(struct verification *verification, const struct load_options *options,
		       const struct wanted *wanted, const struct resp_reply *reply)
{
	uint64_t generation;
	bool right = reply->kind == RESP_BULK &&
		     value_check(reply->bytes, reply->length, options->content, wanted->key, &generation) == 0 &&
		     generation == wanted->generation && (wanted->generation || reply->length == options->value_bytes);
	verification->expected++;
	if (right)
		verification->verified++;
	else if (reply->kind == RESP_NIL)
		verification->missing++;
	else
		verification->wrong++;
	if (!right && !verification->first_bad[0])
		memcpy(verification->first_bad, wanted->key, KEY_BYTES);
}

static int verify_some(struct resp *resp, struct verification *verification, const struct load_options *options,
		       const struct wanted *wanted, size_t count)
{
	struct resp_reply reply;
	int r = 0;
	for (size_t i = 0; i < count && r == 0; i++) {
		const char *parts[2] = { "GET", wanted[i].key };
		size_t lengths[2] = { 3, strlen(wanted[i].key) };
		r = resp_add(resp, 2, parts, lengths);
	}
	if (r == 0)
		r = resp_flush(resp);
	for (size_t i = 0; i < count && r == 0; i++) {
		r = reply_wait(resp, &reply);
		if (r == 0)
			verify_one(verification, options, &wanted[i], &reply);
	}
	return r;
}

/* Takes the next key of the fill or of the state file of a run. Returns false at the end. */
static bool wanted_next(const struct load_options *options, FILE *state, uint64_t *number, struct wanted *ret_wanted)
{
	if (*number < options->keys) {
		fill_key(ret_wanted->key, (*number)++);
		ret_wanted->generation = 0;
		return true;
	}
	return state && fscanf(state, "%39s %" SCNu64, ret_wanted->key, &ret_wanted->generation) == 2;
}

static int verify_all(struct resp *resp, struct verification *verification, const struct load_options *options,
		      FILE *state)
{
	struct wanted wanted[PIPELINE];
	uint64_t number = 0;
	size_t count;
	int r = 0;
	do {
		count = 0;
		while (count < PIPELINE && wanted_next(options, state, &number, &wanted[count]))
			count++;
		r = verify_some(resp, verification, options, wanted, count);
	} while (r == 0 && count == PIPELINE);
	return r;
}

int load_verify(const struct load_options *options)
{
	struct verification verification = { 0 };
	struct resp resp;
	FILE *state = NULL;
	if (options->state && !(state = fopen(options->state, "re"))) {
		complain("cannot read %s: %s", options->state, strerror(errno));
		return -errno;
	}
	int r = resp_open(&options->server, &resp);
	if (r == 0) {
		r = verify_all(&resp, &verification, options, state);
		resp_close(&resp);
	}
	if (state)
		fclose(state);
	if (r < 0)
		complain("verifying failed: %s", strerror(-r));
	printf("{\"keys_expected\":%" PRIu64 ",\"keys_verified\":%" PRIu64 ",\"missing\":%" PRIu64
	       ",\"wrong\":%" PRIu64,
	       verification.expected, verification.verified, verification.missing, verification.wrong);
	printf(",\"first_bad\":\"%s\",\"complete\":%s}\n", verification.first_bad, r < 0 ? "false" : "true");
	return r < 0 ? r : verification.verified == verification.expected ? 0 : -EBADMSG;
}

/* ---- arguments ---- */

static void usage(void)
{
	puts("usage: redisload fill   --bytes 512M [options]     write keys whose values follow from the key\n"
	     "       redisload verify --keys N [--state FILE]    read and check them; with FILE also what run wrote\n"
	     "       redisload run    [options]                  work over established connections until SIGTERM\n\n"
	     "  --host ADDR         IPv4 address of the server (default 127.0.0.1)\n"
	     "  --port N            (default 6379)\n"
	     "  --value-size N      bytes of a value, 32 to 65536 (default 1024)\n"
	     "  --content KIND      zero, text or random (default text); the same for fill, verify and run\n"
	     "  --keys N            how many filled keys there are (fill prints it); run reads them too\n"
	     "  --connections N     run: connections, a thread each (default 8)\n"
	     "  --interval-ms N     run: from one request to the next on a connection (default 1; 0: at once)\n"
	     "  --duration S        run: end after so many seconds (default 0: SIGTERM or SIGINT)\n"
	     "  --json FILE         run: result there at the end; also at SIGUSR1, which begins a new window\n"
	     "  --state FILE        run: write there at the end what each key must hold; verify: read it\n"
	     "  --help              print this\n"
	     "Exit status: 0 all is right; 1 something was wrong, missing, or cut; 2 wrong usage.");
}

static int option_take(struct load_options *options, int key, const char *argument)
{
	uint64_t port;
	int r;
	switch (key) {
	case 'H':
		port = options->server.sin_port;
		r = parse_address("--host", argument, false, &options->server);
		options->server.sin_port = (in_port_t)port;
		return r;
	case 'p':
		r = parse_number("--port", argument, 1, 65535, &port);
		if (r == 0)
			options->server.sin_port = htons((uint16_t)port);
		return r;
	case 'b':
		return parse_size("--bytes", argument, &options->bytes);
	case 'v':
		return parse_number("--value-size", argument, VALUE_BYTES_MIN, VALUE_BYTES_MAX, &options->value_bytes);
	case 'k':
		return parse_number("--keys", argument, 0, 9999999999, &options->keys);
	case 'c':
		return parse_number("--connections", argument, 1, RUN_CONNECTIONS_MAX, &options->connections);
	case 'i':
		return parse_number("--interval-ms", argument, 0, 60000, &options->interval_ms);
	case 'd':
		return parse_number("--duration", argument, 0, 1000000, &options->duration_s);
	case 'j':
		options->json = argument;
		return 0;
	case 's':
		options->state = argument;
		return 0;
	case 'C':
		options->content = page_content_from_name(argument);
		if (options->content != PAGE_CONTENT_INVALID)
			return 0;
		complain("--content is zero, text or random, not '%s'", argument);
		return -EINVAL;
	default:
		return -EINVAL;
	}
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = { { "host", required_argument, NULL, 'H' },
						      { "port", required_argument, NULL, 'p' },
						      { "bytes", required_argument, NULL, 'b' },
						      { "value-size", required_argument, NULL, 'v' },
						      { "keys", required_argument, NULL, 'k' },
						      { "connections", required_argument, NULL, 'c' },
						      { "interval-ms", required_argument, NULL, 'i' },
						      { "duration", required_argument, NULL, 'd' },
						      { "json", required_argument, NULL, 'j' },
						      { "state", required_argument, NULL, 's' },
						      { "content", required_argument, NULL, 'C' },
						      { "help", no_argument, NULL, 'h' },
						      { NULL, 0, NULL, 0 } };
	struct load_options options = {
		.value_bytes = 1024,
		.connections = 8,
		.interval_ms = 1,
		.content = PAGE_CONTENT_TEXT,
		.server = { .sin_family = AF_INET, .sin_port = htons(6379), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }
	};
	int key;
	program_name("redisload");
	while ((key = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (key == 'h') {
			usage();
			return EXIT_SUCCESS;
		}
		if (option_take(&options, key, optarg) < 0)
			return EXIT_USAGE;
	}
	const char *verb = optind == argc - 1 ? argv[optind] : "";
	int r;
	if (strcmp(verb, "fill") == 0 && options.bytes >= options.value_bytes) {
		r = load_fill(&options);
	} else if (strcmp(verb, "verify") == 0 && (options.keys || options.state)) {
		r = load_verify(&options);
	} else if (strcmp(verb, "run") == 0) {
		r = load_run(&options);
	} else {
		complain("needs one of: fill --bytes N, verify --keys N or --state FILE, run; see --help");
		return EXIT_USAGE;
	}
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
