/*
 * The bundle of a Docker container: see docker-bundle.h.
 *
 * containerd writes config.json, then starts the shim (which takes tens of milliseconds), and only that starts the runtime. Who
 * looks every millisecond, and is not kept waiting for a processor, is there in between; that it was so is checked afterwards. No
 * state; any thread.
 */
#include "driver/docker-bundle.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "driver/docker.h"

#define CONFIG_MAX (8U << 20)
#define NEW_NETWORK "{\"type\":\"network\"}"
#define HOOK_MARK "\"libnetwork-setkey\""
#define STATE_USUAL "/run/containerd"
#define LOOK_NS 1000000

/* The object around the mark, and the comma that goes with it. */
static int find_hook(const char *text, const char **ret_begin, const char **ret_end, json_t **ret_object)
{
	const char *mark = strstr(text, HOOK_MARK), *begin = mark, *end = mark ? strchr(mark, '}') : NULL;

	while (begin && begin > text && *begin != '{')
		begin--;
	if (!begin || !end || *begin != '{')
		return -ENOENT;
	end++;
	*ret_object = json_loadb(begin, (size_t)(end - begin), 0, NULL);
	if (!json_is_array(json_object_get(*ret_object, "args")) || !*docker_json_text(*ret_object, "path"))
		return -ENOENT;
	if (begin > text && begin[-1] == ',')
		begin--;
	else if (*end == ',')
		end++;
	*ret_begin = begin;
	*ret_end = end;
	return 0;
}

int docker_bundle_edit(const char *text, size_t length, const char *netns, struct buffer *ret, json_t **ret_hook,
		       struct error *err)
{
	_cleanup_json_ json_t *hook = NULL, *path = json_string(netns);
	_cleanup_free_ char *quoted = json_dumps(path, JSON_ENCODE_ANY);
	const char *network = memmem(text, length, NEW_NETWORK, strlen(NEW_NETWORK)), *begin, *end;
	json_t *words;
	int r;

	if (!network || find_hook(text, &begin, &end, &hook) < 0)
		return error_set(err, ENOENT,
				 "Docker makes this container's network in a way that phaul does not know (no "
				 "libnetwork-setkey in "
				 "its config.json)");
	r = quoted ? 0 : -ENOMEM;
	/* Which of the two comes first is containerd's to say. */
	for (const char *at = text; !r && at < text + length;) {
		const char *next = network >= at && (begin < at || network < begin) ? network
				   : begin >= at				    ? begin
										    : text + length;

		r = buffer_append(ret, at, (size_t)(next - at));
		if (!r && next == network)
			r = buffer_printf(ret, "{\"type\":\"network\",\"path\":%s}", quoted);
		at = next == network ? network + strlen(NEW_NETWORK) : next == begin ? end : next;
	}
	words = json_copy(json_object_get(hook, "args"));
	if (r < 0 || !words || json_array_insert(words, 0, json_object_get(hook, "path")) < 0) {
		json_decref(words);
		return error_set(err, ENOMEM, "no memory for the container's bundle");
	}
	*ret_hook = words;
	return 0;
}

/* An argument of a process: the word behind `name`, or what follows "name=". */
static bool read_argument(int pid, const char *name, char *ret, size_t size)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	char path[64];
	size_t n = strlen(name);
	bool next = false;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	if (fd_read_file(AT_FDCWD, path, 1U << 20, &text) < 0 || buffer_append(&text, "", 1) < 0)
		return false;
	for (size_t i = 0; i + 1 < text.length; i += strlen((char *)text.data + i) + 1) {
		const char *word = (char *)text.data + i;

		if (next || (!strncmp(word, name, n) && word[n] == '=')) {
			snprintf(ret, size, "%s", next ? word : word + n + 1);
			return true;
		}
		next = !strcmp(word, name);
	}
	return false;
}

/* `state = "..."` of containerd's configuration, before its first section. */
static bool read_state(const char *config, char *ret, size_t size)
{
	_cleanup_fclose_ FILE *f = fopen(config, "re");
	char line[4096];

	while (f && fgets(line, sizeof(line), f) && line[0] != '[') {
		const char *open = strchr(line, '"'), *close = open ? strchr(open + 1, '"') : NULL;

		if (strncmp(line, "state", 5) != 0 || (line[5] != ' ' && line[5] != '=') || !close)
			continue;
		snprintf(ret, size, "%.*s", (int)(close - open - 1), open + 1);
		return ret[0] == '/';
	}
	return false;
}

int docker_bundle_path(const struct docker_daemon *daemon, const char *id, char *ret, size_t size, struct error *err)
{
	int pid = docker_find_containerd(daemon);
	char config[PATH_MAX] = "/etc/containerd/config.toml", state[PATH_MAX] = STATE_USUAL;

	if (pid && !read_argument(pid, "--config", config, sizeof(config)))
		(void)read_argument(pid, "-c", config, sizeof(config));
	(void)read_state(config, state, sizeof(state));
	if (pid)
		(void)read_argument(pid, "--state", state, sizeof(state));
	if (!docker_id_valid(id) ||
	    snprintf(ret, size, "%s/io.containerd.runtime.v2.task/moby/%s/config.json", state, id) >= (int)size)
		return error_set(err, EPROTO, "cannot name the bundle of the container %.64s", id);
	return 0;
}

/* Numbers that are too large for an integer are no reason to take it for incomplete. */
static bool is_whole(const struct buffer *text)
{
	json_t *whole = json_loadb((const char *)text->data, text->length, JSON_DECODE_INT_AS_REAL, NULL);
	bool is = json_is_object(whole);

	json_decref(whole);
	return is;
}

/* The whole file: the last of its braces is there. */
static int await_file(const char *path, uint64_t deadline_ns, struct buffer *ret, struct error *err)
{
	const struct timespec pause = { .tv_nsec = LOOK_NS };

	for (;;) {
		ret->length = 0;
		if (fd_read_file(AT_FDCWD, path, CONFIG_MAX, ret) == 0 && is_whole(ret))
			return buffer_append(ret, "", 1) < 0 ? error_set(err, ENOMEM, "no memory for %s", path) : 0;
		if (clock_now_ns() >= deadline_ns)
			return error_set(err, ETIMEDOUT, "containerd did not write %s", path);
		nanosleep(&pause, NULL);
	}
}

/* Ticks since boot, as process_start_ticks() counts. */
static uint64_t ticks_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * (uint64_t)sysconf(_SC_CLK_TCK) +
	       (uint64_t)now.tv_nsec * (uint64_t)sysconf(_SC_CLK_TCK) / NS_PER_S;
}

/* Whether a runtime had been started for the container by then: it is named on its command line. The shim is, too. */
static bool started_before(const char *id, uint64_t ticks)
{
	_cleanup_closedir_ DIR *d = opendir("/proc");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		_cleanup_buffer_ struct buffer line = { 0 };
		char path[300];

		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", e->d_name);
		/* In the same tick is late enough: it takes longer to come to its configuration. */
		if (fd_read_file(AT_FDCWD, path, 1U << 20, &line) == 0 &&
		    memmem(line.data, line.length, id, strlen(id)) &&
		    memmem(line.data, line.length, "\0restore\0", sizeof("\0restore\0") - 1) &&
		    process_start_ticks(atoi(e->d_name)) < ticks)
			return true;
	}
	return false;
}

/* Before everybody else who wants a processor, or not any more; only where we may. */
static void be_first(bool first)
{
	struct sched_param param = { .sched_priority = first };

	(void)sched_setscheduler(0, first ? SCHED_FIFO : SCHED_OTHER, &param);
}

static int take(const char *path, const char *netns, uint64_t deadline_ns, json_t **ret_hook, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 }, edited = { 0 };
	int r = await_file(path, deadline_ns, &text, err);

	if (!r)
		r = docker_bundle_edit((const char *)text.data, text.length - 1, netns, &edited, ret_hook, err);
	if (r < 0)
		return r;
	r = fd_write_file(AT_FDCWD, path, edited.data, edited.length, 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

int docker_bundle_take(const char *path, const char *id, const char *netns, uint64_t deadline_ns, json_t **ret_hook,
		       struct error *err)
{
	uint64_t ticks;
	int r;

	be_first(true);
	r = take(path, netns, deadline_ns, ret_hook, err);
	ticks = ticks_now();
	be_first(false);
	if (r < 0 || !started_before(id, ticks))
		return r;
	return error_set(err, EAGAIN,
			 "containerd started the container's runtime before its network could be prepared; try again");
}
