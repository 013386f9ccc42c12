/* memtoucher's main thread: sends beats, answers commands, writes the status file, and looks after the second process.
 *
 * Commands come as datagrams: "verify" (answered after a full verification that began after the command),
 * "stat" (JSON), "quit". SIGUSR1 starts a full verification too; SIGTERM and SIGINT end the program.
 * The status file has a fixed length and is written in one piece at offset 0, so that a copy of it made while
 * everything stands still has the size that CRIU expects.
 * Invariants: a finding ends the run; before that the beats carry it for a while, because nobody else may see it.
 * Threads: the main thread only; the counters of others are read as atomics.
 */
#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAREWELL_BEATS 50
#define STATUS_EVERY_BEATS 1000
#define CHILD_EVERY_BEATS 50

static volatile sig_atomic_t verify_asked;
static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		verify_asked = 1;
	else
		stop_asked = 1;
}

void control_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

struct totals {
	uint64_t written;
	uint64_t verified;
	bool full_complete; /* nobody has still to do the last one asked for */
};

static struct totals totals_now(const struct state *state)
{
	struct totals totals = { .full_complete = true };
	uint32_t request = atomic_load(&state->full_request);
	for (uint32_t i = 0; i < atomic_load(&state->owners); i++) {
		totals.written += atomic_load_explicit(&state->counters[i].written, memory_order_relaxed);
		totals.verified += atomic_load_explicit(&state->counters[i].verified, memory_order_relaxed);
		if (atomic_load(&state->counters[i].full_done) != request)
			totals.full_complete = false;
	}
	return totals;
}

/* ---- status ---- */

static void add_features(struct text *text, const struct control *control)
{
	for (enum feature f = 0; f < FEATURE_MAX; f++) {
		const char *skipped = control->kinds->skipped[f];
		text_add(text, "%s\"%s\":", f ? "," : "", feature_names[f]);
		if (skipped[0]) {
			char words[128];
			snprintf(words, sizeof(words), "skipped: %s", skipped);
			text_add_json_string(text, words);
		} else {
			text_add(text, control->settings->feature[f] ? "\"on\"" : "\"off\"");
		}
	}
}

static void add_finding(struct text *text, const struct finding *finding)
{
	const struct page_diagnosis *diagnosis = &finding->diagnosis;
	text_add(text,
		 ",\"finding\":{\"region\":\"%s\",\"what\":\"%s\",\"address\":\"0x%" PRIx64 "\",\"page\":%" PRIu64,
		 finding->region, finding->what, finding->address, finding->page);
	text_add(text, ",\"expected_generation\":%" PRIu64 ",\"found_generation\":%" PRIu64 ",\"found_page\":%" PRIu64,
		 finding->expected_generation, diagnosis->found_generation, diagnosis->found_index);
	text_add(text, ",\"same_region\":%s,\"offset\":%u,\"expected_byte\":%u,\"found_byte\":%u,\"pid\":%d}",
		 diagnosis->found_seed == finding->own_seed ? "true" : "false", diagnosis->offset,
		 diagnosis->expected_byte, diagnosis->found_byte, finding->pid);
}

static void status_compose(const struct control *control, const char *word, struct text *text)
{
	struct utsname names = { 0 };
	struct totals totals = totals_now(control->state);
	uname(&names);
	text_add(text, "{\"program\":\"memtoucher\",\"state\":\"%s\",\"pid\":%d,\"host\":", word, getpid());
	text_add_json_string(text, names.nodename);
	text_add(text, ",\"errors\":%u,\"full_passes\":%u,\"pages_written\":%" PRIu64 ",\"pages_verified\":%" PRIu64,
		 atomic_load(&control->state->errors), control->full_passes, totals.written, totals.verified);
	text_add(text, ",\"beats\":%" PRIu64 ",\"beats_unsent\":%" PRIu64 ",\"features\":{", control->beater.sequence,
		 control->beater.unsent);
	add_features(text, control);
	text_add(text, "}");
	if (atomic_load(&control->state->finding_ready))
		add_finding(text, &control->state->finding);
	text_add(text, "}\n");
}

void control_status(struct control *control, const char *word)
{
	char bytes[STATUS_BYTES];
	if (control->status_fd < 0)
		return;
	struct text text = { .bytes = bytes, .capacity = sizeof(bytes) };
	status_compose(control, word, &text);
	memset(bytes + text.length, ' ', sizeof(bytes) - text.length);
	bytes[sizeof(bytes) - 1] = '\n';
	if (pwrite(control->status_fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		complain("cannot write the status file: %s", strerror(errno));
}

/* ---- commands ---- */

static void reply(const struct control *control, const struct sockaddr_in *to, const char *bytes, size_t length)
{
	/* Lost when the network is away: whoever asked asks again. */
	(void)!sendto(control->command_fd, bytes, length, MSG_DONTWAIT, (const struct sockaddr *)to, sizeof(*to));
}

static void verify_begin(struct control *control)
{
	control->verified_before = totals_now(control->state).verified;
	atomic_fetch_add(&control->state->full_request, 1);
}

static void command_take(struct control *control, const char *command, const struct sockaddr_in *from)
{
	char bytes[STATUS_BYTES];
	struct text text = { .bytes = bytes, .capacity = sizeof(bytes) };
	if (strcmp(command, "verify") == 0) {
		if (control->askers_count == ASKERS_MAX) {
			text_add(&text, "busy\n");
		} else {
			control->askers[control->askers_count++] = *from;
			verify_begin(control);
			return;
		}
	} else if (strcmp(command, "stat") == 0) {
		status_compose(control, "running", &text);
	} else if (strcmp(command, "quit") == 0) {
		control->quit = true;
		text_add(&text, "ok\n");
	} else {
		text_add(&text, "error: commands are verify, stat, quit\n");
	}
	reply(control, from, text.bytes, text.length);
}

static void commands_receive(struct control *control)
{
	char command[64];
	struct sockaddr_in from;
	socklen_t from_bytes = sizeof(from);
	if (control->command_fd < 0)
		return;
	ssize_t length = recvfrom(control->command_fd, command, sizeof(command) - 1, MSG_DONTWAIT,
				  (struct sockaddr *)&from, &from_bytes);
	if (length < 0)
		return;
	while (length > 0 && command[length - 1] == '\n')
		length--;
	command[length] = 0;
	command_take(control, command, &from);
}

static void verify_end(struct control *control, const struct totals *totals)
{
	uint32_t errors = atomic_load(&control->state->errors);
	char bytes[96];
	struct text text = { .bytes = bytes, .capacity = sizeof(bytes) };
	control->full_passes = atomic_load(&control->state->full_request);
	text_add(&text, "%s %" PRIu64 " pages %u errors\n", errors ? "bad" : "ok",
		 totals->verified - control->verified_before, errors);
	for (size_t i = 0; i < control->askers_count; i++)
		reply(control, &control->askers[i], text.bytes, text.length);
	control->askers_count = 0;
	control_status(control, errors ? "failed" : "running");
}

/* ---- the loop ---- */

static void child_look(struct control *control)
{
	int status;
	if (control->child <= 0 || waitpid(control->child, &status, WNOHANG) == 0)
		return;
	control->child = 0;
	if (!atomic_load(&control->state->stop))
		state_report_words(control->state, "child", "the second process has ended", NULL);
}

static void beat_send(struct control *control, const struct totals *totals)
{
	struct beat beat = { .work = totals->written,
			     .verified = totals->verified,
			     .full_passes = control->full_passes,
			     .errors = atomic_load(&control->state->errors) };
	beater_send(&control->beater, &beat);
}

static void finding_tell(const struct control *control)
{
	const struct finding *finding = &control->state->finding;
	complain("MEMORY IS WRONG: %s in region %s, page %" PRIu64 " at 0x%" PRIx64 ": generation %" PRIu64
		 " expected, %" PRIu64 " found, first wrong byte at %u (pid %d, %u errors)",
		 finding->what, finding->region, finding->page, finding->address, finding->expected_generation,
		 finding->diagnosis.found_generation, finding->diagnosis.offset, finding->pid,
		 atomic_load(&control->state->errors));
}

static void control_step(struct control *control, uint64_t beat_number)
{
	struct totals totals = totals_now(control->state);
	if (totals.full_complete && control->full_passes != atomic_load(&control->state->full_request))
		verify_end(control, &totals);
	beat_send(control, &totals);
	commands_receive(control);
	if (verify_asked) {
		verify_asked = 0;
		verify_begin(control);
	}
	if (control->corrupt_at_ns && now_ns() >= control->corrupt_at_ns) {
		control->corrupt_at_ns = 0;
		atomic_store(&control->state->corrupt_armed, 1);
	}
	if (beat_number % CHILD_EVERY_BEATS == 0)
		child_look(control);
	if (beat_number % STATUS_EVERY_BEATS == 0)
		control_status(control, "running");
}

int control_run(struct control *control)
{
	struct ticker ticker;
	unsigned farewell = 0;
	ticker_start(&ticker, control->period_us * 1000);
	control_status(control, "running");
	for (uint64_t beat = 1; !control->quit && !stop_asked && farewell < FAREWELL_BEATS; beat++) {
		ticker_wait(&ticker);
		control_step(control, beat);
		/* The finder may be about to write down what it found. */
		if (atomic_load(&control->state->errors) && farewell++ == 1 &&
		    atomic_load(&control->state->finding_ready))
			finding_tell(control);
	}
	return atomic_load(&control->state->errors) ? -EBADMSG : 0;
}
