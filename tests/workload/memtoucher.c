/* memtoucher: writes and verifies its own memory all the time, in every kind of memory that a migration may get wrong.
 *
 * Every page carries its place, its generation and a checksum (page.h); what each page must hold is kept in tables
 * (region.h). Private memory belongs to the touchers (touch.c), special kinds to one keeper (kinds.c), shared
 * memory to that keeper and to a second process (sharing.c). The main thread beats and answers (control.c).
 * Anything wrong ends the program with status 1, after beats that carry the error and a line that names the page.
 * Invariants: the second process is forked before any thread exists. Nothing is opened after the start, so that
 * there are few descriptors to move: beats, commands, the status file, a memfd.
 * Threads: main, N touchers, keeper, churner; in the second process one.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct options {
	struct settings settings;
	struct beat_options beats;
	uint64_t command_port;
	const char *status_path;
	const char *corrupt_kind;
	uint64_t corrupt_after_ms;
	enum page_spoil corrupt_how;
};

enum {
	OPT_SIZE = OPT_BEAT_END,
	OPT_RATE,
	OPT_VERIFY_RATE,
	OPT_CONTENT,
	OPT_THREADS,
	OPT_SHARED,
	OPT_FORK,
	OPT_MAP,
	OPT_ALL,
	OPT_WITH,
	OPT_WITHOUT,
	OPT_COMMAND_PORT,
	OPT_STATUS,
	OPT_CORRUPT,
	OPT_CORRUPT_AFTER,
	OPT_CORRUPT_HOW,
	OPT_HELP,
};

static const struct option long_options[] = {
	BEAT_LONG_OPTIONS,
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "verify-rate", required_argument, NULL, OPT_VERIFY_RATE },
	{ "content", required_argument, NULL, OPT_CONTENT },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "shared", required_argument, NULL, OPT_SHARED },
	{ "fork-every-ms", required_argument, NULL, OPT_FORK },
	{ "map-every-ms", required_argument, NULL, OPT_MAP },
	{ "all", no_argument, NULL, OPT_ALL },
	{ "with", required_argument, NULL, OPT_WITH },
	{ "without", required_argument, NULL, OPT_WITHOUT },
	{ "command-port", required_argument, NULL, OPT_COMMAND_PORT },
	{ "status", required_argument, NULL, OPT_STATUS },
	{ "corrupt", required_argument, NULL, OPT_CORRUPT },
	{ "corrupt-after-ms", required_argument, NULL, OPT_CORRUPT_AFTER },
	{ "corrupt-how", required_argument, NULL, OPT_CORRUPT_HOW },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

static void usage(void)
{
	puts("usage: memtoucher [options]\n"
	     "Writes and verifies its own memory; ends with status 1 at the first wrong byte.\n\n"
	     "  --size BYTES            private memory, such as 256M or 1G (default 64M)\n"
	     "  --rate N                MB (10^6 bytes) rewritten per second in it (default 0)\n"
	     "  --verify-rate N         MB verified per second in it, besides what is rewritten (default 100)\n"
	     "  --content KIND          zero, text, random (default), copies or edited (page.h)\n"
	     "  --threads N             threads that share the private memory (default 1)\n"
	     "  --shared BYTES          memory shared with a second process: this much anonymous, this much memfd\n"
	     "  --fork-every-ms N       fork a child that verifies a part and ends\n"
	     "  --map-every-ms N        map, fill, verify and unmap memory\n"
	     "  --with LIST             more kinds of memory, of: dontneed,remap,relro,hidden,guard,mlock,hugetlb,\n"
	     "                          thp,exe,heap,stack,cow (cow has a second process)\n"
	     "  --all                   all of them, --shared 16M --fork-every-ms 1000 --map-every-ms 10 --threads 4\n"
	     "  --without LIST          not these; options count in the order given\n"
	     "  --command-port PORT     answer the datagrams verify, stat, quit there, on --source-address or "
	     "127.0.0.1\n"
	     "  --status FILE           keep a JSON status there, always 4096 bytes long\n"
	     "  --corrupt KIND          with --corrupt-after-ms N: spoil a page of this kind, to see it found. Kinds: "
	     "those\n"
	     "                          of --with, and private, shared-anon, shared-memfd, fork, churn, thread-stack, "
	     "cow-child\n"
	     "  --corrupt-how HOW       flip (one bit, default), zero, stale or swap\n" BEAT_HELP
	     "SIGUSR1 verifies everything once; SIGTERM ends with status 0.");
}

static int features_set(const char *what, const char *list, bool on, struct settings *settings)
{
	char copy[256];
	if (strlen(list) >= sizeof(copy)) {
		complain("%s: the list is too long", what);
		return -EINVAL;
	}
	strcpy(copy, list);
	char *rest = NULL;
	for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
		enum feature f = 0;
		while (f < FEATURE_MAX && strcmp(word, feature_names[f]) != 0)
			f++;
		if (f == FEATURE_MAX) {
			complain("%s: there is no kind '%s'; see --help", what, word);
			return -EINVAL;
		}
		settings->feature[f] = on;
	}
	return 0;
}

static int memory_option_take(struct settings *settings, int key, const char *argument)
{
	int r;
	switch (key) {
	case OPT_SIZE:
		return parse_size("--size", argument, &settings->bytes);
	case OPT_SHARED:
		return parse_size("--shared", argument, &settings->shared_bytes);
	case OPT_RATE:
		r = parse_number("--rate", argument, 0, 100000, &settings->rate);
		settings->rate *= 1000000;
		return r;
	case OPT_VERIFY_RATE:
		r = parse_number("--verify-rate", argument, 0, 100000, &settings->verify_rate);
		settings->verify_rate *= 1000000;
		return r;
	case OPT_CONTENT:
		settings->content = page_content_from_name(argument);
		if (settings->content == PAGE_CONTENT_INVALID) {
			complain("--content is zero, text or random, not '%s'", argument);
			return -EINVAL;
		}
		return 0;
	case OPT_THREADS:
		return parse_number("--threads", argument, 1, THREADS_MAX, &settings->threads);
	case OPT_FORK:
		return parse_number("--fork-every-ms", argument, 0, 3600000, &settings->fork_every_ms);
	case OPT_MAP:
		return parse_number("--map-every-ms", argument, 0, 3600000, &settings->map_every_ms);
	case OPT_ALL:
		for (enum feature f = 0; f < FEATURE_MAX; f++)
			settings->feature[f] = true;
		settings->shared_bytes = 16 << 20;
		settings->fork_every_ms = 1000;
		settings->map_every_ms = 10;
		settings->threads = 4;
		return 0;
	case OPT_WITH:
	case OPT_WITHOUT:
		return features_set(key == OPT_WITH ? "--with" : "--without", argument, key == OPT_WITH, settings);
	default:
		return -ENOENT;
	}
}

static int corrupt_kind_check(const char *kind)
{
	static const char *const others[] = { "private", "shared-anon",	 "shared-memfd", "fork",
					      "churn",	 "thread-stack", "cow-child" };
	for (enum feature f = 0; f < FEATURE_MAX; f++)
		if (strcmp(kind, feature_names[f]) == 0)
			return 0;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(kind, others[i]) == 0)
			return 0;
	complain("--corrupt: there is no kind '%s'; see --help", kind);
	return -EINVAL;
}

static int option_take(struct options *options, int key, const char *argument)
{
	int r = beat_options_take(&options->beats, key, argument);
	if (r == -ENOENT)
		r = memory_option_take(&options->settings, key, argument);
	if (r != -ENOENT)
		return r;
	switch (key) {
	case OPT_COMMAND_PORT:
		return parse_number("--command-port", argument, 1, 65535, &options->command_port);
	case OPT_STATUS:
		options->status_path = argument;
		return 0;
	case OPT_CORRUPT:
		options->corrupt_kind = argument;
		return corrupt_kind_check(argument);
	case OPT_CORRUPT_AFTER:
		return parse_number("--corrupt-after-ms", argument, 1, 3600000, &options->corrupt_after_ms);
	case OPT_CORRUPT_HOW:
		options->corrupt_how = page_spoil_from_name(argument);
		if (options->corrupt_how != PAGE_SPOIL_INVALID)
			return 0;
		complain("--corrupt-how is flip, zero, stale or swap, not '%s'", argument);
		return -EINVAL;
	default:
		return -EINVAL;
	}
}

static int options_check(const struct options *options)
{
	const struct settings *settings = &options->settings;
	if (settings->bytes < settings->threads * 16 * PAGE_BYTES)
		complain("--size is too small: each thread needs 64K");
	else if (settings->shared_bytes && settings->shared_bytes < 16ul * PAGE_BYTES)
		complain("--shared is too small: 64K at least");
	else if (!options->corrupt_kind != !options->corrupt_after_ms)
		complain("--corrupt and --corrupt-after-ms go together");
	else
		return 0;
	return -EINVAL;
}

/* ---- starting ---- */

static int files_open(const struct options *options, struct control *control)
{
	struct sockaddr_in local = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (options->command_port) {
		if (options->beats.source)
			parse_address("--source-address", options->beats.source, false, &local);
		local.sin_port = htons((uint16_t)options->command_port);
		control->command_fd = udp_socket(&local);
		if (control->command_fd < 0) {
			complain("cannot listen for commands on port %u: %s", ntohs(local.sin_port),
				 strerror(-control->command_fd));
			return control->command_fd;
		}
	}
	if (options->status_path) {
		control->status_fd = open(options->status_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (control->status_fd < 0) {
			complain("cannot write the status file %s: %s", options->status_path, strerror(errno));
			return -errno;
		}
	}
	return beater_open(&options->beats, &control->beater);
}

static int child_start(struct control *control)
{
	if (!control->kinds->sharing && !control->settings->feature[FEATURE_COW])
		return 0;
	struct owner owner = owner_new(control->state, control->settings->seed);
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid == 0)
		kinds_child(control->kinds, owner, parent);
	if (pid < 0)
		return -errno;
	control->child = pid;
	return 0;
}

/* Maps the private memory and starts all threads; returns when it has been filled. */
static int threads_start(struct control *control, struct toucher *touchers, struct churner *churner)
{
	const struct settings *settings = control->settings;
	static pthread_barrier_t filled;
	size_t pages = settings->bytes / settings->threads / PAGE_BYTES;
	pthread_barrier_init(&filled, NULL, (unsigned)settings->threads + 1);
	for (unsigned i = 0; i < settings->threads; i++) {
		struct toucher *toucher = &touchers[i];
		*toucher = (struct toucher){ .settings = settings,
					     .owner = owner_new(control->state, settings->seed),
					     .number = i,
					     .filled = &filled };
		void *base = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (base == MAP_FAILED)
			return -errno;
		int r = region_init(&toucher->region, "private", base, pages, pages, toucher->owner.random,
				    settings->content);
		if (r == 0)
			r = -pthread_create(&toucher->thread, NULL, toucher_main, toucher);
		if (r < 0)
			return r;
	}
	pthread_barrier_wait(&filled);
	*churner = (struct churner){ .settings = settings };
	if (settings->map_every_ms) {
		churner->owner = owner_new(control->state, settings->seed);
		int r = pthread_create(&churner->thread, NULL, churner_main, churner);
		if (r)
			return -r;
	}
	return -pthread_create(&control->kinds->thread, NULL, kinds_main, control->kinds);
}

static void everything_stop(struct control *control, struct toucher *touchers, struct churner *churner)
{
	atomic_store(&control->state->stop, 1);
	for (unsigned i = 0; i < control->settings->threads; i++)
		pthread_join(touchers[i].thread, NULL);
	if (control->settings->map_every_ms)
		pthread_join(churner->thread, NULL);
	pthread_join(control->kinds->thread, NULL);
	if (control->child > 0)
		waitpid(control->child, NULL, 0);
}

/* From the parsed options to the end; `main_stack` lies in main's frame. */
static int work(const struct options *options, void *main_stack)
{
	static struct toucher touchers[THREADS_MAX];
	static struct churner churner;
	static struct kinds kinds;
	struct control control = { .settings = &options->settings,
				   .kinds = &kinds,
				   .command_fd = -1,
				   .status_fd = -1,
				   .period_us = options->beats.period_us };
	control.state = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (control.state == MAP_FAILED)
		return -errno;
	int r = files_open(options, &control);
	if (r < 0)
		return r;
	control_signals();
	if (options->corrupt_kind)
		strcpy(control.state->corrupt_kind, options->corrupt_kind);
	control.state->corrupt_how = options->corrupt_how;
	r = kinds_init(&kinds, &options->settings, control.state, main_stack);
	if (r == 0)
		r = child_start(&control);
	if (r == 0)
		r = threads_start(&control, touchers, &churner);
	if (r < 0) {
		complain("cannot set up the memory: %s", strerror(-r));
		atomic_store(&control.state->stop, 1); /* for the second process */
		return r;
	}
	if (options->corrupt_after_ms)
		control.corrupt_at_ns = now_ns() + options->corrupt_after_ms * NS_PER_MS;
	r = control_run(&control);
	everything_stop(&control, touchers, &churner);
	if (r == 0 && atomic_load(&control.state->errors)) /* found while stopping */
		r = -EBADMSG;
	control_status(&control, r < 0 ? "failed" : "ended");
	return r;
}

int main(int argc, char **argv)
{
	/* Page aligned memory on the main stack, for the kind "stack". */
	_Alignas(4096) unsigned char main_stack[MAIN_STACK_PAGES * PAGE_BYTES];
	struct options options = { .settings = { .bytes = 64 << 20,
						 .verify_rate = 100000000,
						 .threads = 1,
						 .content = PAGE_CONTENT_RANDOM },
				   .beats = { .period_us = 1000 } };
	int key;
	program_name("memtoucher");
	options.settings.seed = mix64(now_ns() ^ (uint64_t)getpid());
	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (key == OPT_HELP) {
			usage();
			return EXIT_SUCCESS;
		}
		if (key == '?' || option_take(&options, key, optarg) < 0)
			return EXIT_USAGE;
	}
	if (optind != argc) {
		complain("takes no arguments, only options; see --help");
		return EXIT_USAGE;
	}
	if (options_check(&options) < 0)
		return EXIT_USAGE;
	return work(&options, main_stack) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
