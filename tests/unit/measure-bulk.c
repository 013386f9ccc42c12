/*
 * A measurement, not a test: what each stage of the bulk copy does per second of one processor. `measure-bulk [MIB]`.
 *
 * One line per stage: GB/s of processor time, of the clock, and the median of the runs. TLS is measured by
 * `test-transport throughput MIB`. Memory is fresh for the store in each run; the process that is read lives on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/range.h"
#include "child.h"
#include "memory/dedup.h"
#include "memory/store.h"
#include "memory/tracker.h"

#define RUNS 5
#define PIECE ((size_t)CODEC_PIECE_PAGES * PAGE_BYTES)
#define TARGET 0x7f0000000000ULL

enum content { RANDOM, TEXT, ZERO };

struct subject {
	size_t bytes;
	enum content content;
	uint64_t address; /* in the child */
	struct child child;
	uint8_t *piece;
};

static void fill(uint8_t *data, size_t bytes, enum content content)
{
	static const char words[] =
		"the quick brown fox jumps over the lazy dog and writes down what it saw on the way 0123456789 ";
	uint64_t x = 88172645463325252ULL;

	for (size_t i = 0; content == RANDOM && i < bytes / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		((uint64_t *)(void *)data)[i] = x;
	}
	for (size_t i = 0, at = 0; content == TEXT && i < bytes; i += 8, at += 8) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		if (x >> 62 == 0)
			at = (x >> 33) % 64;
		memcpy(data + i, words + at % (sizeof(words) - 9), 8);
	}
}

static int owner(int fd, void *argument)
{
	const struct subject *s = argument;
	uint8_t *p = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; s->content != ZERO && i < s->bytes; i += PIECE)
		fill(p + i, PIECE, s->content);
	if (s->content == ZERO)
		memset(p, 0, s->bytes);
	child_send(fd, (uintptr_t)p);
	child_receive(fd);
	return 0;
}

static uint64_t cpu_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* stage(s, state, i): one piece. begin/end may be NULL and are not measured. */
struct stage {
	const char *name;
	void *(*begin)(struct subject *s);
	void (*run)(struct subject *s, void *state, size_t at);
	void (*end)(void *state);
};

static void measure(struct subject *s, const struct stage *stage)
{
	double cpu[RUNS], wall[RUNS];

	for (int i = 0; i < RUNS; i++) {
		void *state = stage->begin ? stage->begin(s) : NULL;
		uint64_t c = cpu_now_ns(), w = clock_now_ns();

		for (size_t at = 0; at < s->bytes; at += PIECE)
			stage->run(s, state, at);
		cpu[i] = (double)s->bytes / (double)(cpu_now_ns() - c);
		wall[i] = (double)s->bytes / (double)(clock_now_ns() - w);
		if (stage->end)
			stage->end(state);
	}
	qsort(cpu, RUNS, sizeof(cpu[0]), compare);
	qsort(wall, RUNS, sizeof(wall[0]), compare);
	printf("%-34s %6.2f GB/s processor (%.2f-%.2f), %6.2f clock\n", stage->name, cpu[RUNS / 2], cpu[0],
	       cpu[RUNS - 1], wall[RUNS / 2]);
}

static void read_piece(struct subject *s, void *state, size_t at)
{
	struct range range = { s->address + at, s->address + at + PIECE };

	(void)state;
	if (reader_read(s->child.pid, &range, 1, s->piece, NULL, NULL) < 0)
		abort();
}

static void *codec_begin(uint32_t encodings)
{
	struct codec *c = NULL;

	if (codec_new(encodings, &c, NULL) < 0)
		abort();
	return c;
}

static void *raw_begin(struct subject *s)
{
	(void)s;
	return codec_begin(0);
}

static void *packing_begin(struct subject *s)
{
	(void)s;
	return codec_begin(ENCODING_BIT(ENCODING_LZ4));
}

static void encode_piece(struct subject *s, void *state, size_t at)
{
	struct page_segment segments[CODEC_PIECE_PAGES];

	(void)at;
	codec_set_link_rate(state, 1000000); /* slow: packing pays */
	if (codec_encode(state, s->piece, CODEC_PIECE_PAGES, segments) < 0)
		abort();
}

static void codec_end(void *state)
{
	codec_free(state);
}

static void hash_piece(struct subject *s, void *state, size_t at)
{
	(void)state;
	(void)at;
	for (size_t i = 0; i < PIECE; i += PAGE_BYTES)
		if (!page_hash_of(s->piece + i).low)
			abort(); /* never: only so that it is not left out */
}

static void *store_begin(struct subject *s)
{
	struct store *store = NULL;

	(void)s;
	if (store_new(0, &store, NULL) < 0)
		abort();
	return store;
}

static void put_piece(struct subject *s, void *state, size_t at)
{
	if (store_put(state, 1, TARGET + at, CODEC_PIECE_PAGES, ENCODING_RAW, s->piece, PIECE, NULL) < 0)
		abort();
}

static void *full_begin(struct subject *s)
{
	struct store *store = store_begin(s);

	for (size_t at = 0; at < s->bytes; at += PIECE)
		put_piece(s, store, at);
	return store;
}

static void get_piece(struct subject *s, void *state, size_t at)
{
	for (size_t i = 0; i < PIECE; i += PIECE / 4)
		if (pread(store_fd(state, 1), s->piece, PIECE / 4, (off_t)(TARGET + at + i)) < 0)
			abort();
}

static void store_end(void *state)
{
	store_free(state);
}

static const struct stage stages[] = {
	{ "read from the process", NULL, read_piece, NULL },
	{ "look for zero pages", raw_begin, encode_piece, codec_end },
	{ "pack with lz4", packing_begin, encode_piece, codec_end },
	{ "hash pages (XXH3-128)", NULL, hash_piece, NULL },
	{ "store, fresh", store_begin, put_piece, store_end },
	{ "store, over older versions", full_begin, put_piece, store_end },
	{ "read from the store, 256 KiB", full_begin, get_piece, store_end },
};

int main(int argc, char **argv)
{
	static const char *const names[] = { "random", "text", "zero" };
	struct subject s = { .bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 1024) << 20 };

	s.piece = aligned_alloc(PAGE_BYTES, PIECE);
	if (!s.piece || !s.bytes)
		return 2;
	for (s.content = RANDOM; s.content <= ZERO; s.content++) {
		printf("-- %zu MiB, %s\n", s.bytes >> 20, names[s.content]);
		s.child = child_start(owner, &s);
		s.address = child_receive(s.child.fd);
		for (size_t i = 0; i < ARRAY_SIZE(stages); i++)
			if (s.content == RANDOM || i < 3)
				measure(&s, &stages[i]);
		child_end(&s.child);
	}
	free(s.piece);
	return 0;
}
