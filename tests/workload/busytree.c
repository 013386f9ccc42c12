/* busytree: a parent and N children that talk over pipes and socketpairs and check each other all the time.
 *
 * The parent also appends numbered lines to a file, keeps a file open that is deleted, may keep a zombie, a listening
 * TCP socket and an inotify watch, and beats. Children: busychild.c.
 * Anything wrong, and anything that stands still for STALL_TICKS of the parent's own ticks, ends it with status 1,
 * after beats that carry the error. Ticks, not time: a freeze stops parent and children alike.
 * Invariants: a token is sent only after the answer to the one before.
 * Threads: one in the parent.
 */
#include "busytree.h"
#include "page.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STALL_TICKS 3000
#define FAREWELL_BEATS 50
#define GHOST_PAGES 16
#define ZOMBIE_STATUS 7

struct tree_options {
	struct beat_options beats;
	union tcp_address listen_at;
	uint64_t children;
	uint64_t round_ticks;
	struct child_wants child;
	const char *append;
	const char *ghost_dir;
	bool zombie;
	bool inotify;
};

struct kid {
	pid_t pid;
	int pipe_out, pipe_in, socket;
	uint64_t token[2]; /* last sent over pipe, socket */
	bool outstanding[2];
	uint64_t seen[ACTIVITY_MAX];
	uint64_t seen_tick[ACTIVITY_MAX];
};

struct tree {
	const struct tree_options *options;
	struct tree_state *state;
	struct beater beater;
	struct kid kids[CHILDREN_MAX];
	int append_fd, ghost_fd, listen_fd, inotify_fd;
	pid_t zombie;
	uint64_t appended, rounds, ghost_seed;
	uint64_t ghost_generation[GHOST_PAGES];
};

static volatile sig_atomic_t stop_asked;

static void on_stop(int number)
{
	(void)number;
	stop_asked = 1;
}

void tree_report(struct tree_state *state, const char *format, ...)
{
	va_list arguments;
	atomic_fetch_add(&state->errors, 1);
	if (atomic_exchange(&state->first_claimed, 1))
		return;
	va_start(arguments, format);
	vsnprintf(state->first, sizeof(state->first), format, arguments);
	va_end(arguments);
	atomic_store(&state->first_ready, 1);
}

uint64_t token_answer(uint64_t token)
{
	return mix64(token);
}

/* ---- setting up ---- */

static int kid_start(struct tree *tree, unsigned number)
{
	struct kid *kid = &tree->kids[number];
	int down[2], up[2], pair[2];
	if (pipe2(down, O_CLOEXEC) < 0 || pipe2(up, O_CLOEXEC) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		/* Other children's ends too: only their owners may keep them open, or no end is ever seen. */
		for (unsigned i = 0; i < number; i++) {
			close(tree->kids[i].pipe_out);
			close(tree->kids[i].pipe_in);
			close(tree->kids[i].socket);
		}
		close(down[1]);
		close(up[0]);
		close(pair[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_IGN);
		signal(SIGPIPE, SIG_IGN);
		signal(SIGTERM, SIG_DFL);
		struct child_ends ends = { .pipe_in = down[0], .pipe_out = up[1], .socket = pair[1] };
		int r = busy_child(tree->state, number, ends, &tree->options->child);
		if (r < 0)
			tree_report(tree->state, "child %u: %s", number, strerror(-r));
		_exit(r < 0 ? 1 : 0);
	}
	close(down[0]);
	close(up[1]);
	close(pair[1]);
	*kid = (struct kid){ .pid = pid, .pipe_out = down[1], .pipe_in = up[0], .socket = pair[0] };
	return fcntl(kid->pipe_in, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int ghost_open(struct tree *tree)
{
	char path[4096];
	uint8_t page[PAGE_BYTES];
	if (snprintf(path, sizeof(path), "%s/busytree-ghost-XXXXXX", tree->options->ghost_dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	tree->ghost_fd = mkostemp(path, O_CLOEXEC);
	if (tree->ghost_fd < 0 || unlink(path) < 0)
		return -errno;
	tree->ghost_seed = mix64((uint64_t)getpid());
	for (size_t i = 0; i < GHOST_PAGES; i++) {
		tree->ghost_generation[i] = 1;
		page_fill(page, PAGE_CONTENT_RANDOM, tree->ghost_seed, i, 1);
		if (pwrite(tree->ghost_fd, page, PAGE_BYTES, (off_t)(i * PAGE_BYTES)) != (ssize_t)PAGE_BYTES)
			return -errno;
	}
	return 0;
}

static int zombie_start(struct tree *tree)
{
	siginfo_t info;
	tree->zombie = fork();
	if (tree->zombie == 0)
		_exit(ZOMBIE_STATUS);
	/* Until it has ended, without taking it off. */
	return tree->zombie < 0 || waitid(P_PID, (id_t)tree->zombie, &info, WEXITED | WNOWAIT) < 0 ? -errno : 0;
}

/* Before they are, they answer nothing. */
static void kids_await(struct tree *tree)
{
	struct ticker ticker;
	ticker_start(&ticker, NS_PER_MS);
	while (atomic_load(&tree->state->children_ready) < tree->options->children &&
	       !atomic_load(&tree->state->errors))
		ticker_wait(&ticker);
}

static int tree_open(struct tree *tree)
{
	const struct tree_options *options = tree->options;
	int r = 0;
	for (unsigned i = 0; i < options->children && r == 0; i++)
		r = kid_start(tree, i);
	if (r == 0)
		kids_await(tree);
	if (r == 0 && options->append) {
		tree->append_fd = open(options->append, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		r = tree->append_fd < 0 ? -errno : 0;
	}
	if (r == 0 && options->inotify) {
		tree->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		r = tree->inotify_fd < 0 || inotify_add_watch(tree->inotify_fd, options->append, IN_MODIFY) < 0 ? -errno
														: 0;
	}
	if (r == 0 && options->ghost_dir)
		r = ghost_open(tree);
	if (r == 0 && options->listen_at.any.sa_family) {
		tree->listen_fd = tcp_listen(&options->listen_at);
		r = tree->listen_fd < 0 ? tree->listen_fd : 0;
	}
	if (r == 0 && options->zombie)
		r = zombie_start(tree);
	return r;
}

/* ---- rounds ---- */

/* `way` 0: the pipe, 1: the socket. */
static void kid_talk(struct tree *tree, unsigned number, int way)
{
	struct kid *kid = &tree->kids[number];
	uint64_t token;
	if (kid->outstanding[way]) {
		ssize_t got = way ? recv(kid->socket, &token, sizeof(token), MSG_DONTWAIT)
				  : read(kid->pipe_in, &token, sizeof(token));
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got != (ssize_t)sizeof(token) || token != token_answer(kid->token[way]))
			tree_report(tree->state, "child %u answers wrong over its %s", number, way ? "socket" : "pipe");
		kid->outstanding[way] = false;
	}
	token = ++kid->token[way];
	ssize_t sent = way ? send(kid->socket, &token, sizeof(token), MSG_NOSIGNAL | MSG_DONTWAIT)
			   : write(kid->pipe_out, &token, sizeof(token));
	if (sent != (ssize_t)sizeof(token))
		tree_report(tree->state, "cannot send to child %u over its %s: %s", number, way ? "socket" : "pipe",
			    strerror(errno));
	kid->outstanding[way] = true;
}

static void kid_watch(struct tree *tree, unsigned number, uint64_t tick)
{
	static const char *const names[ACTIVITY_MAX] = { "pipe", "socket", "timer", "eventfd", "signalfd", "threads" };
	struct kid *kid = &tree->kids[number];
	int status;
	if (waitpid(kid->pid, &status, WNOHANG) == kid->pid)
		tree_report(tree->state, "child %u has ended with wait status 0x%x", number, (unsigned)status);
	for (int a = 0; a < ACTIVITY_MAX; a++) {
		uint64_t now = atomic_load_explicit(&tree->state->activity[number][a], memory_order_relaxed);
		if (now != kid->seen[a]) {
			kid->seen[a] = now;
			kid->seen_tick[a] = tick;
		} else if (tick - kid->seen_tick[a] > STALL_TICKS) {
			tree_report(tree->state, "child %u: its %s stands still after %" PRIu64, number, names[a], now);
			kid->seen_tick[a] = tick;
		}
	}
}

static void line_append(struct tree *tree)
{
	char line[64], events[1024];
	if (tree->append_fd < 0)
		return;
	int length = snprintf(line, sizeof(line), "%010" PRIu64 " %d\n", ++tree->appended, getpid());
	if (write(tree->append_fd, line, (size_t)length) != length)
		tree_report(tree->state, "cannot append line %" PRIu64 ": %s", tree->appended, strerror(errno));
	/* The kernel queues the event within the write. */
	if (tree->inotify_fd >= 0 && read(tree->inotify_fd, events, sizeof(events)) <= 0)
		tree_report(tree->state, "line %" PRIu64 " gave no inotify event", tree->appended);
}

static void ghost_check(struct tree *tree)
{
	uint8_t page[PAGE_BYTES];
	struct stat status;
	size_t index = tree->rounds % GHOST_PAGES;
	off_t offset = (off_t)(index * PAGE_BYTES);
	if (tree->ghost_fd < 0)
		return;
	if (fstat(tree->ghost_fd, &status) < 0 || status.st_size != (off_t)GHOST_PAGES * (off_t)PAGE_BYTES)
		tree_report(tree->state, "the deleted file has another size");
	if (pread(tree->ghost_fd, page, PAGE_BYTES, offset) != (ssize_t)PAGE_BYTES ||
	    !page_matches(page, PAGE_CONTENT_RANDOM, tree->ghost_seed, index, tree->ghost_generation[index]))
		tree_report(tree->state, "page %zu of the deleted file is wrong", index);
	page_fill(page, PAGE_CONTENT_RANDOM, tree->ghost_seed, index, ++tree->ghost_generation[index]);
	if (pwrite(tree->ghost_fd, page, PAGE_BYTES, offset) != (ssize_t)PAGE_BYTES)
		tree_report(tree->state, "cannot write the deleted file: %s", strerror(errno));
}

static uint64_t activity_sum(const struct tree *tree)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < tree->options->children; i++)
		for (int a = 0; a < ACTIVITY_MAX; a++)
			sum += atomic_load_explicit(&tree->state->activity[i][a], memory_order_relaxed);
	return sum;
}

/* Whoever connects gets one line, and the connection ends. */
static void visitor_answer(struct tree *tree)
{
	char line[160];
	if (tree->listen_fd < 0)
		return;
	_cleanup_close_ int fd = accept4(tree->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	int length =
		snprintf(line, sizeof(line),
			 "{\"rounds\":%" PRIu64 ",\"appended\":%" PRIu64 ",\"activity\":%" PRIu64 ",\"errors\":%u}\n",
			 tree->rounds, tree->appended, activity_sum(tree), atomic_load(&tree->state->errors));
	(void)!send(fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void tree_round(struct tree *tree, uint64_t tick)
{
	for (unsigned i = 0; i < tree->options->children; i++) {
		kid_talk(tree, i, 0);
		kid_talk(tree, i, 1);
		if (tree->rounds % 16 == i % 16)
			kid_watch(tree, i, tick);
	}
	line_append(tree);
	ghost_check(tree);
	tree->rounds++;
}

static void tree_run(struct tree *tree)
{
	struct ticker ticker;
	unsigned farewell = 0;
	ticker_start(&ticker, tree->options->beats.period_us * 1000);
	for (uint64_t tick = 1; !stop_asked && farewell < FAREWELL_BEATS; tick++) {
		ticker_wait(&ticker);
		struct beat beat = { .work = tree->rounds,
				     .verified = activity_sum(tree),
				     .errors = atomic_load(&tree->state->errors) };
		beater_send(&tree->beater, &beat);
		if (tick % tree->options->round_ticks == 0 && !beat.errors)
			tree_round(tree, tick);
		visitor_answer(tree);
		farewell += beat.errors != 0;
	}
}

static void tree_close(struct tree *tree)
{
	int status = 0;
	for (unsigned i = 0; i < tree->options->children; i++) {
		struct kid *kid = &tree->kids[i];
		if (kid->pid <= 0)
			continue;
		kill(kid->pid, SIGKILL); /* not TERM: it may be stopped, which would leave TERM waiting */
		waitpid(kid->pid, NULL, 0);
	}
	if (tree->zombie > 0 && (waitpid(tree->zombie, &status, 0) != tree->zombie || !WIFEXITED(status) ||
				 WEXITSTATUS(status) != ZOMBIE_STATUS))
		tree_report(tree->state, "the zombie is lost or has another status");
}

/* ---- arguments ---- */

static void usage(void)
{
	puts("usage: busytree [options]\n"
	     "A process tree that checks itself; ends with status 1 when anything is wrong or stands still.\n\n"
	     "  --children N         (default 3, at most 128)\n"
	     "  --round-ticks N      beats from one round of tokens to the next (default 5)\n"
	     "  --tick-ms N          period of the children's timerfd, in half of which their threads take turns "
	     "(default 10)\n"
	     "  --memory BYTES       filled in each child, and looked at (default 0)\n"
	     "  --threads N          of each child that only wait (default 0)\n"
	     "  --append FILE        append a line \"NUMBER PID\" each round: numbers from 1, ten digits, no holes\n"
	     "  --inotify            watch that file; each line must give an event\n"
	     "  --ghost-dir DIR      keep a deleted file of 64 KiB open there, and check and write it\n"
	     "  --listen ADDR:PORT   listen there; whoever connects gets one line of JSON\n"
	     "  --zombie             keep a zombie child until the end\n" BEAT_HELP
	     "SIGTERM ends it with status 0 when all was right.");
}

static int option_take(struct tree_options *options, int key, const char *argument)
{
	switch (key) {
	case 'n':
		return parse_number("--children", argument, 1, CHILDREN_MAX, &options->children);
	case 'r':
		return parse_number("--round-ticks", argument, 1, 1000, &options->round_ticks);
	case 't':
		return parse_number("--tick-ms", argument, 1, 1000, &options->child.tick_ms);
	case 'm':
		return parse_size("--memory", argument, &options->child.memory_bytes);
	case 'T':
		return parse_number("--threads", argument, 0, 4096, &options->child.threads);
	case 'a':
		options->append = argument;
		return 0;
	case 'g':
		options->ghost_dir = argument;
		return 0;
	case 'l':
		return parse_tcp_address("--listen", argument, &options->listen_at);
	case 'z':
		options->zombie = true;
		return 0;
	case 'i':
		options->inotify = true;
		return 0;
	default:
		return beat_options_take(&options->beats, key, argument);
	}
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = { BEAT_LONG_OPTIONS,
						      { "children", required_argument, NULL, 'n' },
						      { "round-ticks", required_argument, NULL, 'r' },
						      { "tick-ms", required_argument, NULL, 't' },
						      { "memory", required_argument, NULL, 'm' },
						      { "threads", required_argument, NULL, 'T' },
						      { "append", required_argument, NULL, 'a' },
						      { "ghost-dir", required_argument, NULL, 'g' },
						      { "listen", required_argument, NULL, 'l' },
						      { "zombie", no_argument, NULL, 'z' },
						      { "inotify", no_argument, NULL, 'i' },
						      { "help", no_argument, NULL, 'h' },
						      { NULL, 0, NULL, 0 } };
	struct tree_options options = {
		.children = 3, .round_ticks = 5, .child.tick_ms = 10, .beats = { .period_us = 1000 }
	};
	int key;
	program_name("busytree");
	while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (key == 'h') {
			usage();
			return EXIT_SUCCESS;
		}
		if (key == '?' || option_take(&options, key, optarg) < 0)
			return EXIT_USAGE;
	}
	if (optind != argc || (options.inotify && !options.append)) {
		complain("%s", optind != argc ? "takes no arguments, only options; see --help"
					      : "--inotify needs --append FILE");
		return EXIT_USAGE;
	}
	static struct tree tree = { .append_fd = -1, .ghost_fd = -1, .listen_fd = -1, .inotify_fd = -1 };
	tree.options = &options;
	tree.state = mmap(NULL, sizeof(struct tree_state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (tree.state == MAP_FAILED)
		return EXIT_FAILURE;
	struct sigaction action = { .sa_handler = on_stop };
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	int r = tree_open(&tree);
	if (r < 0)
		complain("cannot set up the tree: %s", strerror(-r));
	else if (beater_open(&options.beats, &tree.beater) < 0)
		r = -EINVAL;
	else
		tree_run(&tree);
	tree_close(&tree);
	if (atomic_load(&tree.state->first_ready))
		complain("%s (%u errors)", tree.state->first, atomic_load(&tree.state->errors));
	return r < 0 || atomic_load(&tree.state->errors) ? EXIT_FAILURE : EXIT_SUCCESS;
}
