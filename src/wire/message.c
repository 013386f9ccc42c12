/*
 * Control messages: see message.h. Pure functions; any thread.
 *
 * One check function per message that carries anything; message_check() dispatches. A new field needs its line here
 * before anybody may read it.
 */
#include "wire/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/range.h"
#include "wire/frame.h"

#define KIND(name) PHAUL__WIRE__CONTROL__KIND_##name

static int bad(struct error *err, const char *field)
{
	return error_set(err, EPROTO, "the peer sent a message whose field %s is not allowed", field);
}

static int check_text(const char *text, size_t max, const char *field, struct error *err)
{
	if (strlen(text) > max)
		return bad(err, field);
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		/* C2 80 .. C2 9F: in UTF-8 control characters too, which terminals obey. */
		if (*p < ' ' || *p == 127 || (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
			return bad(err, field);
	return 0;
}

/* Absolute, normalised: nothing that could lead out of where it says. */
static bool path_normal(const char *path)
{
	if (path[0] != '/' || strlen(path) >= MESSAGE_PATH_MAX)
		return false;
	for (const char *p = path; *p;) {
		const char *part = p + 1, *end = strchrnul(part, '/');
		size_t n = (size_t)(end - part);

		if ((n == 0 && (*end || p != path)) || (n == 1 && part[0] == '.') ||
		    (n == 2 && part[0] == '.' && part[1] == '.'))
			return false;
		p = end;
	}
	return true;
}

static int check_bytes(const ProtobufCBinaryData *b, size_t length, const char *field, struct error *err)
{
	return b->len == length ? 0 : bad(err, field);
}

static int check_hello(const Phaul__Wire__Hello *m, struct error *err)
{
	int r;

	if (m->version < m->lowest_version || !m->lowest_version)
		return bad(err, "hello.version");
	if (m->purpose <= PHAUL__WIRE__PURPOSE__PURPOSE_INVALID || m->purpose > PHAUL__WIRE__PURPOSE__PURPOSE_RESUME)
		return bad(err, "hello.purpose");
	r = check_bytes(&m->migration_id, 16, "hello.migration_id", err);
	if (!r)
		r = check_text(m->software, 64, "hello.software", err);
	return r ? r : check_text(m->host, 256, "hello.host", err);
}

static int check_hello_reply(const Phaul__Wire__HelloReply *m, struct error *err)
{
	int r = check_bytes(&m->route, 16, "hello_reply.route", err);

	if (!r)
		r = check_text(m->software, 64, "hello_reply.software", err);
	if (!r)
		r = check_text(m->host, 256, "hello_reply.host", err);
	if (!r)
		r = check_text(m->criu_problem, MESSAGE_TEXT_MAX, "hello_reply.criu_problem", err);
	if (!r)
		r = check_text(m->kernel, 256, "hello_reply.kernel", err);
	return r ? r : check_text(m->machine, 64, "hello_reply.machine", err);
}

static int check_workload(const Phaul__Wire__Workload *w, struct error *err)
{
	int r = check_text(w->type, 15, "workload.type", err);

	if (!r)
		r = check_text(w->id, 255, "workload.id", err);
	if (r)
		return r;
	if (w->root_pid < 1 || w->n_files > MESSAGE_FILES_MAX || w->n_pids > MESSAGE_PIDS_MAX)
		return bad(err, "workload.root_pid, files or pids");
	for (size_t i = 0; i < w->n_pids; i++)
		if (w->pids[i] < 1)
			return bad(err, "workload.pids");
	for (size_t i = 0; i < w->n_files; i++)
		if (!path_normal(w->files[i]->path))
			return bad(err, "workload.files.path");
	if (strlen(w->spec) > MESSAGE_SPEC_MAX || w->n_trees > MESSAGE_TREES_MAX)
		return bad(err, "workload.spec or trees");
	for (size_t i = 0; i < w->n_trees; i++) {
		r = check_text(w->trees[i]->name, 255, "workload.trees.name", err);
		if (r)
			return r;
		if (!w->trees[i]->name[0] || !path_normal(w->trees[i]->path))
			return bad(err, "workload.trees");
	}
	return 0;
}

static int check_engine(const Phaul__Wire__EngineOptions *m, struct error *err)
{
	int r = check_text(m->runtime, MESSAGE_PATH_MAX, "plan.engine.runtime", err);

	if (!r)
		r = check_text(m->engine, MESSAGE_PATH_MAX, "plan.engine.engine", err);
	if (!r)
		r = check_text(m->id, 255, "plan.engine.id", err);
	if (!r && m->bundle[0] && !path_normal(m->bundle))
		r = bad(err, "plan.engine.bundle");
	return r;
}

static int check_address(const Phaul__Wire__Address *a, struct error *err)
{
	size_t length = a->family == 4 ? 4 : 16;

	if ((a->family != 4 && a->family != 6) || a->bytes.len != length || a->prefix_length > length * 8)
		return bad(err, "plan.addresses");
	if (!a->device[0] || strlen(a->device) > 15 || strchr(a->device, '/'))
		return bad(err, "plan.addresses.device");
	return check_text(a->device, 15, "plan.addresses.device", err);
}

static int check_neighbour(const Phaul__Wire__Neighbour *n, struct error *err)
{
	size_t length = n->family == 4 ? 4 : n->family == 6 ? 16 : 0;

	if (n->mac.len != 6 || (n->family && n->family != 4 && n->family != 6) || n->bytes.len != length)
		return bad(err, "plan.neighbours");
	/* Of everybody, or of nobody: what is for those does not belong to one container. */
	return n->mac.data[0] & 1 || !memcmp(n->mac.data, "\0\0\0\0\0", 6) ? bad(err, "plan.neighbours.mac") : 0;
}

/* Lines of DIRECTORY/NAME=VALUE: what the target writes into files below /proc/sys/net. */
static bool settings_valid(const ProtobufCBinaryData *b)
{
	static const char *const directories[] = { "core/", "ipv4/", "ipv6/" };
	const char *at = (const char *)b->data, *end = at + b->len;

	while (at < end) {
		const char *line = at, *newline = memchr(at, '\n', (size_t)(end - at)), *name = NULL, *equal;

		if (!newline)
			return false;
		for (size_t i = 0; i < ARRAY_SIZE(directories) && newline - line > 5; i++)
			if (!memcmp(line, directories[i], 5))
				name = line + 5;
		equal = name ? memchr(name, '=', (size_t)(newline - name)) : NULL;
		if (!equal || equal == name)
			return false;
		for (const char *p = name; p < equal; p++)
			if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_", *p) || !*p)
				return false;
		for (const char *p = equal; p < newline; p++)
			if (*p < ' ' || *p > '~')
				return false;
		at = newline + 1;
	}
	return true;
}

static int check_settings(const ProtobufCBinaryData *b, const char *what, struct error *err)
{
	return b->len <= MESSAGE_NET_SETTINGS_MAX && settings_valid(b) ? 0 : bad(err, what);
}

static int check_plan(const Phaul__Wire__Plan *m, struct error *err)
{
	int r;

	if (!m->workload)
		return bad(err, "plan.workload");
	r = check_workload(m->workload, err);
	if (r)
		return r;
	if (m->cpuinfo.len > MESSAGE_CPUINFO_MAX || m->n_addresses > MESSAGE_ADDRESSES_MAX ||
	    m->n_sync_paths > MESSAGE_SYNC_PATHS_MAX)
		return bad(err, "plan.cpuinfo, addresses or sync_paths");
	if (m->n_neighbours > MESSAGE_NEIGHBOURS_MAX)
		return bad(err, "plan.neighbours");
	for (size_t i = 0; i < m->n_neighbours && !r; i++)
		r = check_neighbour(m->neighbours[i], err);
	for (size_t i = 0; i < m->n_addresses && !r; i++)
		r = check_address(m->addresses[i], err);
	for (size_t i = 0; i < m->n_sync_paths && !r; i++)
		r = path_normal(m->sync_paths[i]) ? 0 : bad(err, "plan.sync_paths");
	if (!r && m->engine)
		r = check_engine(m->engine, err);
	return r ? r : check_settings(&m->net_settings, "plan.net_settings", err);
}

static int check_plan_reply(const Phaul__Wire__PlanReply *m, struct error *err)
{
	if (m->n_obstacles > MESSAGE_OBSTACLES_MAX)
		return bad(err, "plan_reply.obstacles");
	for (size_t i = 0; i < m->n_obstacles; i++) {
		int r = check_text(m->obstacles[i]->what, MESSAGE_TEXT_MAX, "obstacle.what", err);

		if (!r)
			r = check_text(m->obstacles[i]->cure, MESSAGE_TEXT_MAX, "obstacle.cure", err);
		if (r)
			return r;
	}
	return 0;
}

/* A range is two numbers in a row, in memory as on the wire. */
static bool bounds_valid(const uint64_t *bounds, size_t n)
{
	return n % 2 == 0 && range_array_valid((const struct range *)bounds, n / 2, PAGE_BYTES) &&
	       (!n || bounds[n - 1] <= FRAME_ADDRESS_MAX);
}

static int check_present(const Phaul__Wire__SpacePresent *p, struct error *err)
{
	if (p->space < 1 || p->space > FRAME_SPACE_MAX || p->image_pid < 1 || p->n_bounds % 2)
		return bad(err, "finish.present");
	if (!bounds_valid(p->bounds, p->n_bounds))
		return bad(err, "finish.present.bounds");
	if (!bounds_valid(p->missing, p->n_missing))
		return bad(err, "finish.present.missing");
	if (!bounds_valid(p->busy, p->n_busy))
		return bad(err, "finish.present.busy");
	return 0;
}

static int check_arm(const Phaul__Wire__Arm *m, struct error *err)
{
	int r = check_settings(&m->net_settings, "arm.net_settings", err);

	if (r)
		return r;
	if (m->page_channels != 0 && m->page_channels != 2)
		return bad(err, "arm.page_channels");
	if (!m->way || m->way->n_external > MESSAGE_EXTERNAL_MAX)
		return bad(err, "arm.way");
	for (size_t i = 0; i < m->way->n_external && !r; i++)
		r = check_text(m->way->external[i], MESSAGE_PATH_MAX, "arm.way.external", err);
	return r;
}

static int check_finish(const Phaul__Wire__Finish *m, struct error *err)
{
	int r = 0;

	if (m->n_present > FRAME_SPACE_MAX)
		return bad(err, "finish.present");
	for (size_t i = 0; i < m->n_present && !r; i++)
		r = check_present(m->present[i], err);
	return r;
}

static int check_begin(const Phaul__Wire__Begin *m, struct error *err)
{
	if (m->data_channels < 1 || m->data_channels > MESSAGE_CHANNELS_MAX)
		return bad(err, "begin.data_channels");
	return m->fs_channels <= MESSAGE_PASSES_MAX ? 0 : bad(err, "begin.fs_channels");
}

static int check_probe(const Phaul__Wire__Probe *m, struct error *err)
{
	int r = check_bytes(&m->name, 16, "probe.name", err);

	if (!r)
		r = check_bytes(&m->content, 16, "probe.content", err);
	return r || m->path < MESSAGE_PASSES_MAX ? r : bad(err, "probe.path");
}

/* Relative and normalised, any bytes: nothing that could lead out of where it begins. */
static bool name_below(const ProtobufCBinaryData *name)
{
	_cleanup_free_ char *path = NULL;

	return name->len && name->len < MESSAGE_PATH_MAX && !memchr(name->data, 0, name->len) &&
	       asprintf(&path, "/%.*s", (int)name->len, (const char *)name->data) > 0 && path[1] && path_normal(path);
}

static int check_sums(const Phaul__Wire__Sums *m, struct error *err)
{
	if (m->path >= MESSAGE_PASSES_MAX || !name_below(&m->name))
		return bad(err, "sums.path or name");
	if (m->offset % MESSAGE_BLOCK_BYTES || m->offset > MESSAGE_FILE_MAX || m->length % MESSAGE_BLOCK_BYTES ||
	    m->length > MESSAGE_SPAN_MAX)
		return bad(err, "sums.offset or length");
	return 0;
}

static int check_sums_reply(const Phaul__Wire__SumsReply *m, struct error *err)
{
	if (m->size > MESSAGE_FILE_MAX || m->mtime_ns >= NS_PER_S)
		return bad(err, "sums_reply.size or mtime");
	return m->sums.len % 16 || m->sums.len > MESSAGE_SPAN_MAX / MESSAGE_BLOCK_BYTES * 16
		       ? bad(err, "sums_reply.sums")
		       : 0;
}

static int check_patch(const Phaul__Wire__Patch *m, struct error *err)
{
	if (m->path >= MESSAGE_PASSES_MAX || !name_below(&m->name))
		return bad(err, "patch.path or name");
	return m->offset > MESSAGE_FILE_MAX ? bad(err, "patch.offset") : 0;
}

static int check_patch_end(const Phaul__Wire__PatchEnd *m, struct error *err)
{
	if (m->path >= MESSAGE_PASSES_MAX || !name_below(&m->name))
		return bad(err, "patch_end.path or name");
	return m->size > MESSAGE_FILE_MAX || m->mtime_ns >= NS_PER_S ? bad(err, "patch_end.size or mtime") : 0;
}

static int check_failure(const Phaul__Wire__Failure *m, struct error *err)
{
	int r;

	if (!m->number || m->number > 4095)
		return bad(err, "failure.number");
	r = check_text(m->step, 64, "failure.step", err);
	return r ? r : check_text(m->text, MESSAGE_TEXT_MAX, "failure.text", err);
}

static int check_state(const Phaul__Wire__State *m, struct error *err)
{
	if (m->state <= PHAUL__WIRE__TARGET_STATE__TARGET_STATE_INVALID ||
	    m->state > PHAUL__WIRE__TARGET_STATE__TARGET_STATE_ABORTED)
		return bad(err, "state.state");
	if (m->n_arrived > MESSAGE_CHANNELS_MAX)
		return bad(err, "state.arrived");
	for (size_t i = 0; i < m->n_arrived; i++)
		if (m->arrived[i]->channel >= MESSAGE_CHANNELS_MAX)
			return bad(err, "state.arrived.channel");
	return check_text(m->reason, MESSAGE_TEXT_MAX, "state.reason", err);
}

static int message_check(const Phaul__Wire__Control *m, struct error *err)
{
	switch (m->kind_case) {
	case KIND(HELLO):
		return check_hello(m->hello, err);
	case KIND(HELLO_REPLY):
		return check_hello_reply(m->hello_reply, err);
	case KIND(PLAN):
		return check_plan(m->plan, err);
	case KIND(PLAN_REPLY):
		return check_plan_reply(m->plan_reply, err);
	case KIND(BEGIN):
		return check_begin(m->begin, err);
	case KIND(SYNC):
		return m->sync->path < MESSAGE_PASSES_MAX ? 0 : bad(err, "sync.path");
	case KIND(SYNC_END):
		return m->sync_end->path < MESSAGE_PASSES_MAX ? 0 : bad(err, "sync_end.path");
	case KIND(PROBE):
		return check_probe(m->probe, err);
	case KIND(SUMS):
		return check_sums(m->sums, err);
	case KIND(SUMS_REPLY):
		return check_sums_reply(m->sums_reply, err);
	case KIND(PATCH):
		return check_patch(m->patch, err);
	case KIND(PATCH_END):
		return check_patch_end(m->patch_end, err);
	case KIND(LACKS):
		return check_text(m->lacks->words, MESSAGE_PATH_MAX, "lacks.words", err);
	case KIND(ARM):
		return check_arm(m->arm, err);
	case KIND(FINISH):
		return check_finish(m->finish, err);
	case KIND(ABORT):
		return check_text(m->abort->reason, MESSAGE_TEXT_MAX, "abort.reason", err);
	case KIND(FAILURE):
		return check_failure(m->failure, err);
	case KIND(RESUME):
		return check_bytes(&m->resume->migration_id, 16, "resume.migration_id", err);
	case KIND(STATE):
		return check_state(m->state, err);
	case KIND(READY):
	case KIND(ROUND):
	case KIND(ROUND_DONE):
	case KIND(SYNC_DONE):
	case KIND(PROBE_REPLY):
	case KIND(PREPARED):
	case KIND(COMMIT):
	case KIND(RUNNING):
	case KIND(TAKE):
	case KIND(DONE):
	case KIND(FILLED):
	case KIND(PING):
	case KIND(MISSING):
	case KIND(MISSING_REPLY):
	case KIND(BLOCKS):
		return 0; /* numbers that are only shown or compared */
	case KIND(_NOT_SET):
	case _PHAUL__WIRE__CONTROL__KIND__CASE_IS_INT_SIZE:
		break;
	}
	return error_set(err, EPROTO, "the peer sent a message of a kind this phaul does not know");
}

int message_encode(const Phaul__Wire__Control *message, struct buffer *out, struct error *err)
{
	size_t length = phaul__wire__control__get_packed_size(message);
	int r;

	if (length > FRAME_CONTROL_MAX)
		return error_set(err, EMSGSIZE, "the %s message is too long (%zu bytes)",
				 message_name(message->kind_case), length);
	r = buffer_reserve(out, length);
	if (r < 0)
		return error_errno(err, -r, "cannot build the %s message", message_name(message->kind_case));
	out->length += phaul__wire__control__pack(message, out->data + out->length);
	return 0;
}

/* An empty part takes two bytes of a message but fifty times that once it is unpacked, and counts are only checked then: what
 * unpacking may allocate is bounded on its own. */
struct budget {
	size_t left;
	bool exceeded;
};

static void *budget_alloc(void *data, size_t size)
{
	struct budget *b = data;

	if (size > b->left) {
		b->exceeded = true;
		return NULL;
	}
	b->left -= size;
	return malloc(size);
}

static void budget_free(void *data, void *p)
{
	(void)data;
	free(p);
}

int message_decode(const uint8_t *data, size_t length, Phaul__Wire__Control **ret, struct error *err)
{
	struct budget budget = { .left = MESSAGE_MEMORY_MAX };
	ProtobufCAllocator allocator = { budget_alloc, budget_free, &budget };
	/* message_free() uses free() as well. */
	_cleanup_message_ Phaul__Wire__Control *m = phaul__wire__control__unpack(&allocator, length, data);
	int r;

	if (!m && budget.exceeded)
		return error_set(err, EPROTO, "the peer sent a message that takes more than %u MiB of memory",
				 MESSAGE_MEMORY_MAX >> 20);
	if (!m)
		return error_set(err, EPROTO, "the peer sent a message that cannot be parsed");
	r = message_check(m, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(m);
	return 0;
}

void message_free(Phaul__Wire__Control *message)
{
	if (message)
		phaul__wire__control__free_unpacked(message, NULL);
}

const char *message_name(Phaul__Wire__Control__KindCase kind)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field(&phaul__wire__control__descriptor, (unsigned int)kind);

	return field ? field->name : "empty";
}
