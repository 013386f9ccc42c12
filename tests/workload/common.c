/* Arguments, clocks, sockets and the beat, for all workload programs.
 *
 * Invariants: nothing here allocates, so all of it may run in a forked child of a threaded program.
 * Threads: a beater and a ticker belong to one thread each.
 */
#include "common.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static const char *program = "workload";

void program_name(const char *name)
{
	program = name;
}

void complain(const char *format, ...)
{
	/* One write, so that lines of several processes do not mix. */
	char line[1024];
	int head = snprintf(line, sizeof(line), "%s: ", program);
	va_list arguments;
	va_start(arguments, format);
	int tail = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, arguments);
	va_end(arguments);
	size_t length = (size_t)head + (tail > 0 ? (size_t)tail : 0);
	if (length > sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	if (write(STDERR_FILENO, line, length) < 0)
		return; /* nowhere left to say it */
}

void text_add(struct text *text, const char *format, ...)
{
	va_list arguments;
	size_t room = text->capacity - text->length;
	va_start(arguments, format);
	int written = vsnprintf(text->bytes + text->length, room, format, arguments);
	va_end(arguments);
	if (written < 0 || (size_t)written >= room) {
		text->length = text->capacity - 1;
		text->cut = true;
	} else {
		text->length += (size_t)written;
	}
}

void text_add_json_string(struct text *text, const char *string)
{
	text_add(text, "\"");
	for (const char *c = string; *c; c++) {
		if (*c == '"' || *c == '\\')
			text_add(text, "\\%c", *c);
		else
			text_add(text, "%c", *c < 32 || *c > 126 ? '?' : *c);
	}
	text_add(text, "\"");
}

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t mix64(uint64_t value)
{
	/* The finisher of splitmix64: every input bit reaches every output bit. */
	value ^= value >> 30;
	value *= 0xbf58476d1ce4e5b9ull;
	value ^= value >> 27;
	value *= 0x94d049bb133111ebull;
	return value ^ (value >> 31);
}

uint64_t random_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return mix64(*state);
}

/* ---- arguments ---- */

int parse_number(const char *what, const char *text, uint64_t low, uint64_t high, uint64_t *ret_number)
{
	char *end = NULL;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] < '0' || text[0] > '9' || value < low || value > high) {
		complain("%s needs a number from %llu to %llu, not '%s'", what, (unsigned long long)low,
			 (unsigned long long)high, text);
		return -EINVAL;
	}
	*ret_number = value;
	return 0;
}

int parse_size(const char *what, const char *text, uint64_t *ret_bytes)
{
	char *end = NULL;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	unsigned shift = 0;
	bool bad = errno || end == text || text[0] < '0' || text[0] > '9';
	if (!bad && *end) {
		static const char units[] = "KMGT";
		const char *unit = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);
		bad = !unit || !*unit || end[1];
		if (!bad)
			shift = 10 * (unsigned)(unit - units + 1);
	}
	if (bad || (shift && value >> (63 - shift))) {
		complain("%s needs a size such as 65536, 64K, 512M or 1G, not '%s'", what, text);
		return -EINVAL;
	}
	*ret_bytes = (uint64_t)value << shift;
	return 0;
}

int parse_address(const char *what, const char *text, bool need_port, struct sockaddr_in *ret_address)
{
	char host[INET_ADDRSTRLEN];
	const char *colon = strchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : strlen(text);
	struct sockaddr_in address = { .sin_family = AF_INET };
	uint64_t port = 0;
	if (length >= sizeof(host) || (need_port && !colon))
		goto bad;
	memcpy(host, text, length);
	host[length] = 0;
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
		goto bad;
	if (colon) {
		int r = parse_number(what, colon + 1, 0, 65535, &port);
		if (r < 0)
			return r;
	}
	address.sin_port = htons((uint16_t)port);
	*ret_address = address;
	return 0;
bad:
	complain("%s needs %s, not '%s'", what, need_port ? "an IPv4 ADDR:PORT" : "an IPv4 address", text);
	return -EINVAL;
}

int parse_tcp_address(const char *what, const char *text, union tcp_address *ret_address)
{
	char host[INET6_ADDRSTRLEN];
	const char *end = text[0] == '[' ? strstr(text, "]:") : NULL;
	size_t length = end ? (size_t)(end - text) - 1 : 0;
	union tcp_address address = { .in6 = { .sin6_family = AF_INET6 } };
	uint64_t port;
	if (text[0] != '[')
		return parse_address(what, text, true, &ret_address->in);
	if (!end || length >= sizeof(host))
		goto bad;
	memcpy(host, text + 1, length);
	host[length] = 0;
	if (inet_pton(AF_INET6, host, &address.in6.sin6_addr) != 1)
		goto bad;
	int r = parse_number(what, end + 2, 0, 65535, &port);
	if (r < 0)
		return r;
	address.in6.sin6_port = htons((uint16_t)port);
	*ret_address = address;
	return 0;
bad:
	complain("%s needs an IPv6 [ADDR]:PORT, not '%s'", what, text);
	return -EINVAL;
}

/* ---- sockets ---- */

static socklen_t tcp_length(const union tcp_address *address)
{
	return address->any.sa_family == AF_INET6 ? sizeof(address->in6) : sizeof(address->in);
}

int udp_socket(const struct sockaddr_in *local)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The address may not have arrived yet when a restored copy binds again. */
	if (setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &(int){ 1 }, sizeof(int)) < 0)
		return -errno;
	if (local && bind(fd, (const struct sockaddr *)local, sizeof(*local)) < 0)
		return -errno;
	int taken = fd;
	fd = -1;
	return taken;
}

int tcp_listen(const union tcp_address *local)
{
	_cleanup_close_ int fd = socket(local->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &(int){ 1 }, sizeof(int)) < 0)
		return -errno;
	if (bind(fd, &local->any, tcp_length(local)) < 0 || listen(fd, 128) < 0)
		return -errno;
	int taken = fd;
	fd = -1;
	return taken;
}

int tcp_connect(const union tcp_address *remote)
{
	_cleanup_close_ int fd = socket(remote->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) < 0)
		return -errno;
	if (connect(fd, &remote->any, tcp_length(remote)) < 0)
		return -errno;
	int taken = fd;
	fd = -1;
	return taken;
}

/* ---- ticks ---- */

void ticker_start(struct ticker *ticker, uint64_t period_ns)
{
	ticker->period_ns = period_ns;
	ticker->next_ns = now_ns() + period_ns;
}

int ticker_wait(struct ticker *ticker)
{
	struct timespec until = { .tv_sec = (time_t)(ticker->next_ns / NS_PER_S),
				  .tv_nsec = (long)(ticker->next_ns % NS_PER_S) };
	int r = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	if (r)
		return -r;
	uint64_t now = now_ns();
	ticker->next_ns += ticker->period_ns;
	if (ticker->next_ns <= now) /* late by a period or more: leave those ticks out */
		ticker->next_ns += (now - ticker->next_ns) / ticker->period_ns * ticker->period_ns + ticker->period_ns;
	return 0;
}

/* ---- beats ---- */

static void put16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *at)
{
	uint16_t value;
	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;
	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;
	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

void beat_encode(const struct beat *beat, uint8_t ret_bytes[BEAT_BYTES])
{
	memset(ret_bytes, 0, BEAT_BYTES);
	put32(ret_bytes, BEAT_MAGIC);
	put16(ret_bytes + 4, BEAT_VERSION);
	put64(ret_bytes + 8, beat->workload);
	put64(ret_bytes + 16, beat->sequence);
	put64(ret_bytes + 24, beat->work);
	put64(ret_bytes + 32, beat->verified);
	put32(ret_bytes + 40, beat->full_passes);
	put32(ret_bytes + 44, beat->errors);
	memcpy(ret_bytes + 48, beat->host, strnlen(beat->host, BEAT_HOST_BYTES - 1));
}

int beat_decode(const uint8_t *bytes, size_t length, struct beat *ret_beat)
{
	if (length != BEAT_BYTES || get32(bytes) != BEAT_MAGIC || get16(bytes + 4) != BEAT_VERSION ||
	    bytes[BEAT_BYTES - 1] != 0)
		return -EBADMSG;
	*ret_beat = (struct beat){
		.workload = get64(bytes + 8),
		.sequence = get64(bytes + 16),
		.work = get64(bytes + 24),
		.verified = get64(bytes + 32),
		.full_passes = get32(bytes + 40),
		.errors = get32(bytes + 44),
	};
	memcpy(ret_beat->host, bytes + 48, BEAT_HOST_BYTES);
	return 0;
}

int beat_options_take(struct beat_options *options, int key, const char *argument)
{
	struct sockaddr_in ignored;
	switch (key) {
	case OPT_OBSERVER:
		options->observer = argument;
		return parse_address("--observer", argument, true, &ignored);
	case OPT_SOURCE:
		options->source = argument;
		return parse_address("--source-address", argument, false, &ignored);
	case OPT_HOST_FILE:
		options->host_file = argument;
		return 0;
	case OPT_ID:
		return parse_number("--id", argument, 1, UINT64_MAX, &options->id);
	case OPT_PERIOD:
		return parse_number("--period-us", argument, 100, 60000000, &options->period_us);
	default:
		return -ENOENT;
	}
}

int beater_open(const struct beat_options *options, struct beater *ret_beater)
{
	struct beater beater = { .fd = -1, .host_file = options->host_file, .id = options->id };
	if (!beater.id)
		beater.id = mix64(now_ns() ^ ((uint64_t)getpid() << 40)) | 1;
	if (options->observer) {
		struct sockaddr_in local = { .sin_family = AF_INET };
		int r = parse_address("--observer", options->observer, true, &beater.to);
		if (r == 0 && options->source)
			r = parse_address("--source-address", options->source, false, &local);
		if (r < 0)
			return r;
		local.sin_port = 0;
		beater.fd = udp_socket(options->source ? &local : NULL);
		if (beater.fd < 0) {
			complain("cannot open the socket for beats from %s: %s",
				 options->source ? options->source : "any address", strerror(-beater.fd));
			return beater.fd;
		}
	}
	*ret_beater = beater;
	return 0;
}

static void host_now(const char *host_file, char ret_host[BEAT_HOST_BYTES])
{
	struct utsname names;
	memset(ret_host, 0, BEAT_HOST_BYTES);
	if (!host_file) {
		if (uname(&names) == 0)
			memcpy(ret_host, names.nodename, strnlen(names.nodename, BEAT_HOST_BYTES - 1));
		return;
	}
	_cleanup_close_ int fd = open(host_file, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, ret_host, BEAT_HOST_BYTES - 1);
	if (length <= 0) {
		memcpy(ret_host, "?", 2);
		return;
	}
	char *end = memchr(ret_host, '\n', (size_t)length);
	if (end)
		memset(end, 0, (size_t)(ret_host + BEAT_HOST_BYTES - end));
}

void beater_send(struct beater *beater, struct beat *beat)
{
	uint8_t bytes[BEAT_BYTES];
	if (beater->fd < 0)
		return;
	beat->workload = beater->id;
	beat->sequence = beater->sequence + 1;
	host_now(beater->host_file, beat->host);
	beat_encode(beat, bytes);
	ssize_t sent = sendto(beater->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL,
			      (const struct sockaddr *)&beater->to, sizeof(beater->to));
	if (sent == (ssize_t)sizeof(bytes))
		beater->sequence++;
	else
		beater->unsent++; /* the number is used again, so that it is not taken for a lost datagram */
}
