/* pagetouch: P.Haul's own test as a program: maps memory, touches a part of it, then rewrites one page at a time, slowly.
 *
 * Each page that it touched is verified before it is rewritten, all of them at SIGUSR1 (full_passes in the beat), and the rest of
 * the mapping must still read as zeros then. The first wrong page ends it with status 1, after beats that carry the error.
 * Invariants: generation[i] is what page i holds; 0 for the pages never touched.
 * Threads: one.
 */
#include "common.h"
#include "page.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FAREWELL_BEATS 50

struct options {
	struct beat_options beats;
	uint64_t mapped;
	uint64_t touched;
	uint64_t period_ms;
};

struct memory {
	uint8_t *base;
	size_t pages;
	size_t touched;
	uint32_t *generation;
	uint64_t seed;
};

static volatile sig_atomic_t verify_asked;

static void on_verify(int number)
{
	(void)number;
	verify_asked = 1;
}

static void usage(void)
{
	puts("usage: pagetouch [options]\n"
	     "Maps memory, touches a part of it, then rewrites one page of that part every period.\n\n"
	     "  --mapped BYTES          (default 256M)\n"
	     "  --touched BYTES         (default 64M)\n"
	     "  --period-ms N           (default 100)\n" BEAT_HELP "SIGUSR1 verifies everything once.");
}

static int memory_init(const struct options *options, struct memory *ret_memory)
{
	struct memory memory = { .pages = options->mapped / PAGE_BYTES,
				 .touched = options->touched / PAGE_BYTES,
				 .seed = mix64(now_ns()) };
	if (!memory.touched || memory.touched > memory.pages) {
		complain("--touched must be at least a page, and no more than --mapped");
		return -EINVAL;
	}
	memory.generation = calloc(memory.pages, sizeof(*memory.generation));
	memory.base = mmap(NULL, memory.pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!memory.generation || memory.base == MAP_FAILED) {
		complain("cannot map %zu pages: %s", memory.pages, strerror(errno));
		free(memory.generation);
		return -ENOMEM;
	}
	for (size_t i = 0; i < memory.touched; i++)
		page_fill(memory.base + i * PAGE_BYTES, PAGE_CONTENT_RANDOM, memory.seed, i, ++memory.generation[i]);
	*ret_memory = memory;
	return 0;
}

static bool memory_page_right(const struct memory *memory, size_t i)
{
	const uint8_t *page = memory->base + i * PAGE_BYTES;
	if (memory->generation[i] == 0)
		return page_is_zero(page);
	return page_matches(page, PAGE_CONTENT_RANDOM, memory->seed, i, memory->generation[i]);
}

/* Says which page is wrong, and lets the observer know, for it may be the only one who sees it. */
static int complain_page(const struct memory *memory, size_t i, struct beater *beater, struct beat *beat)
{
	struct ticker ticker;
	complain("page %zu is not as it was left (generation %u)", i, memory->generation[i]);
	beat->errors++;
	ticker_start(&ticker, NS_PER_MS);
	for (int n = 0; n < FAREWELL_BEATS; n++) {
		beater_send(beater, beat);
		ticker_wait(&ticker);
	}
	return -EBADMSG;
}

static int memory_verify(const struct memory *memory, struct beater *beater, struct beat *beat)
{
	for (size_t i = 0; i < memory->pages; i++)
		if (!memory_page_right(memory, i))
			return complain_page(memory, i, beater, beat);
	beat->verified += memory->pages;
	beat->full_passes++;
	return 0;
}

static int work(const struct options *options, struct memory *memory, struct beater *beater)
{
	struct beat beat = { 0 };
	struct ticker ticker;
	uint64_t due_ns = now_ns();
	ticker_start(&ticker, options->beats.period_us * 1000);
	for (;;) {
		int r = 0;
		if (verify_asked) {
			verify_asked = 0;
			r = memory_verify(memory, beater, &beat);
		}
		if (r == 0 && now_ns() >= due_ns) {
			size_t i = beat.work % memory->touched;
			due_ns += options->period_ms * NS_PER_MS;
			if (!memory_page_right(memory, i))
				return complain_page(memory, i, beater, &beat);
			page_fill(memory->base + i * PAGE_BYTES, PAGE_CONTENT_RANDOM, memory->seed, i,
				  ++memory->generation[i]);
			beat.work++;
		}
		if (r < 0)
			return r;
		if (ticker_wait(&ticker) == 0)
			beater_send(beater, &beat);
	}
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = { BEAT_LONG_OPTIONS,
						      { "mapped", required_argument, NULL, 'm' },
						      { "touched", required_argument, NULL, 't' },
						      { "period-ms", required_argument, NULL, 'p' },
						      { "help", no_argument, NULL, 'h' },
						      { NULL, 0, NULL, 0 } };
	struct options options = {
		.beats = { .period_us = 1000 }, .mapped = 256 << 20, .touched = 64 << 20, .period_ms = 100
	};
	int key;
	program_name("pagetouch");
	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		int r = 0;
		if (key == 'h') {
			usage();
			return EXIT_SUCCESS;
		}
		if (key == 'm')
			r = parse_size("--mapped", optarg, &options.mapped);
		else if (key == 't')
			r = parse_size("--touched", optarg, &options.touched);
		else if (key == 'p')
			r = parse_number("--period-ms", optarg, 1, 3600000, &options.period_ms);
		else if (key == '?' || beat_options_take(&options.beats, key, optarg) < 0)
			return EXIT_USAGE;
		if (r < 0)
			return EXIT_USAGE;
	}
	struct memory memory;
	struct beater beater;
	if (optind != argc || memory_init(&options, &memory) < 0)
		return EXIT_USAGE;
	if (beater_open(&options.beats, &beater) < 0) {
		free(memory.generation);
		return EXIT_FAILURE;
	}
	struct sigaction action = { .sa_handler = on_verify };
	sigaction(SIGUSR1, &action, NULL);
	int r = work(&options, &memory, &beater);
	free(memory.generation);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
