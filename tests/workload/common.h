/* What every workload and observation program shares: arguments, clocks, and the beat.
 *
 * The beat is one UDP datagram of BEAT_BYTES, little-endian, sent about every millisecond:
 *   0 u32 magic   4 u16 version   6 u16 zero   8 u64 workload   16 u64 sequence
 *   24 u64 work   32 u64 verified   40 u32 full_passes   44 u32 errors   48 char host[48]
 * `sequence` counts from 1 without holes, so that a hole at the observer is a lost datagram, and the
 * same number from two hosts means that two copies run.
 *
 * Functions return 0 or a negative errno; those that take user input print one line saying what is
 * wrong with it before they fail.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BEAT_MAGIC 0x54424850u /* "PHBT" */
#define BEAT_VERSION 1
#define BEAT_BYTES 96
#define BEAT_HOST_BYTES 48

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

#define EXIT_USAGE 2

struct beat {
	uint64_t workload;	    /* which workload; chosen with --id */
	uint64_t sequence;	    /* from 1, no holes */
	uint64_t work;		    /* what the workload has done: pages written, rounds made */
	uint64_t verified;	    /* what it has checked: pages, replies */
	uint32_t full_passes;	    /* complete verifications so far */
	uint32_t errors;	    /* wrong things found; anything but 0 is a failed test */
	char host[BEAT_HOST_BYTES]; /* where it ran when it sent this; always ends with NUL */
};

void beat_encode(const struct beat *beat, uint8_t ret_bytes[BEAT_BYTES]);
int beat_decode(const uint8_t *bytes, size_t length, struct beat *ret_beat);

/* Options common to all programs that beat; see BEAT_LONG_OPTIONS and BEAT_HELP. */
struct beat_options {
	const char *observer;
	const char *source;
	const char *host_file;
	uint64_t id;
	uint64_t period_us;
};

enum { OPT_OBSERVER = 1000, OPT_SOURCE, OPT_HOST_FILE, OPT_ID, OPT_PERIOD, OPT_BEAT_END };

/* clang-format off */
#define BEAT_LONG_OPTIONS                                    \
    {"observer", required_argument, NULL, OPT_OBSERVER},     \
    {"source-address", required_argument, NULL, OPT_SOURCE}, \
    {"bind", required_argument, NULL, OPT_SOURCE},           \
    {"host-file", required_argument, NULL, OPT_HOST_FILE},   \
    {"id", required_argument, NULL, OPT_ID},                 \
    {"period-us", required_argument, NULL, OPT_PERIOD}
/* clang-format on */

#define BEAT_HELP                                                                                                      \
	"  --observer ADDR:PORT    send a beat there every period (default: send none)\n"                              \
	"  --source-address ADDR   send from this address; --bind is the same\n"                                       \
	"  --host-file FILE        take the host's name in beats from FILE's first line, read anew for\n"              \
	"                          every beat (default: uname's nodename at that moment)\n"                            \
	"  --id N                  workload number in beats (default: made from pid and time)\n"                       \
	"  --period-us N           time between beats (default 1000)\n"

/* Takes one of the options above. `key` is what getopt_long returned. Returns -ENOENT if it is not one of them. */
int beat_options_take(struct beat_options *options, int key, const char *argument);

struct beater {
	int fd; /* -1: no observer, sending does nothing */
	struct sockaddr_in to;
	const char *host_file;
	uint64_t id;
	uint64_t sequence;
	uint64_t unsent; /* datagrams that the kernel refused, for example while the network was away */
};

int beater_open(const struct beat_options *options, struct beater *ret_beater);
/* Fills workload, sequence and host of `beat` and sends it. Never blocks; a refusal is counted. */
void beater_send(struct beater *beater, struct beat *beat);

/* A steady tick on CLOCK_MONOTONIC. Behind schedule it skips ticks, it never bursts. */
struct ticker {
	uint64_t period_ns;
	uint64_t next_ns;
};

void ticker_start(struct ticker *ticker, uint64_t period_ns);
/* Returns at the next tick, or earlier when a signal comes (-EINTR). */
int ticker_wait(struct ticker *ticker);

uint64_t now_ns(void); /* CLOCK_MONOTONIC */
uint64_t random_next(uint64_t *state);
uint64_t mix64(uint64_t value);

void program_name(const char *name);
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "4096", "64K", "512M", "1G" (powers of 1024). */
int parse_size(const char *what, const char *text, uint64_t *ret_bytes);
int parse_number(const char *what, const char *text, uint64_t low, uint64_t high, uint64_t *ret_number);
/* "ADDR:PORT"; or "ADDR" alone when `need_port` is false (port 0 then). IPv4. */
int parse_address(const char *what, const char *text, bool need_port, struct sockaddr_in *ret_address);

/* For TCP, IPv6 too. Family 0: none given. */
union tcp_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* "ADDR:PORT" or "[ADDR6]:PORT". */
int parse_tcp_address(const char *what, const char *text, union tcp_address *ret_address);

/* Text that grows within a given array; what does not fit is cut and `cut` says so. */
struct text {
	char *bytes; /* ends with NUL */
	size_t capacity;
	size_t length;
	bool cut;
};

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* With quotes; control characters and bytes beyond ASCII become '?'. */
void text_add_json_string(struct text *text, const char *string);

int udp_socket(const struct sockaddr_in *local);
int tcp_listen(const union tcp_address *local);
/* Connected, TCP_NODELAY. Blocking connect. */
int tcp_connect(const union tcp_address *remote);

void close_fd(int *fd);
#define _cleanup_close_ __attribute__((cleanup(close_fd)))
