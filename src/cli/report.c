/*
 * What --json prints: see report.h.
 *
 * Times are milliseconds with fractions, sizes bytes or pages. Invariant: every line is valid UTF-8, whatever a peer or a
 * program said. Pure; any thread.
 */
#include "cli/report.h"

#include <errno.h>
#include <jansson.h>

#include "base/clock.h"
#include "cli/text.h"

#define JSON_FORMAT (JSON_COMPACT | JSON_REAL_PRECISION(15))

static void set_text(json_t *object, const char *key, const char *text)
{
	char clean[ERROR_TEXT_MAX * 3]; /* a byte that is no UTF-8 becomes three */

	json_object_set_new(object, key, json_string(text_clean(text, clean, sizeof(clean))));
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void set_bool(json_t *object, const char *key, bool value)
{
	json_object_set_new(object, key, json_boolean(value));
}

/* To the microsecond: what is behind it is noise. */
static void set_ms(json_t *object, const char *key, uint64_t ns)
{
	uint64_t us = ns / 1000;

	json_object_set_new(object, key, json_real((double)us / 1000));
}

/* Takes the object over. */
static int append(json_t *object, struct buffer *out)
{
	_cleanup_free_ char *text = object ? json_dumps(object, JSON_FORMAT) : NULL;

	json_decref(object);
	return text ? buffer_printf(out, "%s\n", text) : -ENOMEM;
}

static void set_iteration(json_t *object, uint32_t round, const struct migration_iteration *it)
{
	set_number(object, "round", round);
	set_number(object, "pages", it->pages);
	set_number(object, "pages_zero", it->pages_zero);
	set_number(object, "bytes", it->bytes);
	set_ms(object, "ms", it->ns);
	set_number(object, "dirty_pages", it->dirty_pages);
	set_number(object, "dirty_pages_per_second",
		   it->ns ? (uint64_t)((double)it->written_pages * (double)NS_PER_S / (double)it->ns) : 0);
	set_number(object, "pages_left_out", it->pages_left_out);
	set_number(object, "throttle_percent", it->throttle);
}

static void set_progress(json_t *object, const struct migration_progress *p)
{
	set_number(object, "round", p->round);
	set_number(object, "pages_done", p->pages_done);
	set_number(object, "pages_round", p->pages_round);
	set_number(object, "bytes_per_second", p->bytes_per_second);
	set_number(object, "dirty_pages_per_second", p->dirty_pages_per_second);
	set_ms(object, "estimate_ms", p->estimate_ns);
}

int report_event(const struct migration_event *event, struct buffer *out)
{
	json_t *object;

	if (event->kind == EVENT_NONE)
		return 0;
	object = json_object();
	switch (event->kind) {
	case EVENT_PHASE:
		set_text(object, "event", "phase");
		set_text(object, "phase", event->phase);
		break;
	case EVENT_OBSTACLE:
		set_text(object, "event", "obstacle");
		set_text(object, "kind", event->obstacle.kind == OBSTACLE_WARNS ? "warns" : "refuses");
		set_text(object, "at", event->obstacle.at_target ? "target" : "source");
		set_text(object, "what", event->obstacle.what);
		set_text(object, "cure", event->obstacle.cure);
		break;
	case EVENT_PROGRESS:
		set_text(object, "event", "progress");
		set_progress(object, &event->progress);
		break;
	case EVENT_ITERATION:
		set_text(object, "event", "iteration");
		set_iteration(object, event->round, &event->iteration);
		break;
	case EVENT_DECISION:
		set_text(object, "event", "decision");
		set_text(object, "decision", policy_explain(event->decision));
		set_bool(object, "again", policy_course(event->decision) == POLICY_COURSE_ROUND);
		set_ms(object, "estimate_ms", event->estimate_ns);
		break;
	case EVENT_SYNC:
		set_text(object, "event", "sync");
		set_text(object, "path", event->path);
		set_ms(object, "ms", event->ns);
		break;
	case EVENT_NONE:
		break;
	}
	return append(object, out);
}

const char *report_outcome(enum migration_outcome outcome)
{
	switch (outcome) {
	case OUTCOME_MIGRATED:
		return "migrated";
	case OUTCOME_CHECKED:
		return "checked";
	case OUTCOME_ABORTED:
	case OUTCOME_REFUSED:
		return "aborted";
	case OUTCOME_UNKNOWN:
	case OUTCOME_NONE:
		break;
	}
	return "unknown";
}

static void set_course(json_t *object, const struct migration_result *r)
{
	json_t *phases = json_object(), *iterations = json_array();

	for (size_t i = 0; i < r->n_phases; i++)
		set_ms(phases, r->phases[i].name, r->phases[i].ns);
	json_object_set_new(object, "phases", phases);
	for (size_t i = 0; i < r->n_iterations; i++) {
		json_t *one = json_object();

		set_iteration(one, (uint32_t)i + 1, &r->iterations[i]);
		json_array_append_new(iterations, one);
	}
	json_object_set_new(object, "iterations", iterations);
}

/* How copying came to its end. */
static void set_convergence(json_t *object, const struct migration_result *r)
{
	json_t *regions = json_array();

	set_text(object, "decision", r->decision ? r->decision : "");
	set_number(object, "throttle_max_percent", r->throttle_max);
	set_text(object, "throttle_way", r->throttle_way ? r->throttle_way : "");
	for (size_t i = 0; i < r->n_regions; i++) {
		json_t *one = json_object();

		set_number(one, "pid", (uint64_t)r->regions[i].pid);
		set_number(one, "start", r->regions[i].start);
		set_number(one, "end", r->regions[i].end);
		set_text(one, "name", r->regions[i].name);
		set_number(one, "dirty_pages_per_second", r->regions[i].pages_per_second);
		json_array_append_new(regions, one);
	}
	json_object_set_new(object, "dirty_regions", regions);
}

/* What stayed behind, and how long faults took that needed it. */
static void set_postcopy(json_t *object, const struct migration_result *r)
{
	json_t *one = json_object();

	set_number(one, "pages", r->postcopy_pages);
	set_number(one, "pages_urgent", r->postcopy_pages_urgent);
	set_ms(one, "resident_ms", r->postcopy_ns);
	set_number(one, "reconnects", r->postcopy_reconnects);
	set_number(one, "faults", r->faults_remote);
	set_ms(one, "fault_p50_ms", r->remote_ns_p50);
	set_ms(one, "fault_p99_ms", r->remote_ns_p99);
	json_object_set_new(object, "postcopy", r->postcopy_pages ? one : json_null());
	if (!r->postcopy_pages)
		json_decref(one);
}

/* How the pages of the copy went. */
static void set_encodings(json_t *object, const struct migration_result *r)
{
	json_t *all = json_object();

	for (int i = ENCODING_ZERO; i < ENCODING_MAX; i++) {
		json_t *one = json_object();

		set_number(one, "pages", r->encodings[i].pages);
		set_number(one, "bytes", r->encodings[i].bytes);
		json_object_set_new(all, encoding_name(i), one);
	}
	json_object_set_new(object, "encodings", all);
}

static void set_figures(json_t *object, const struct migration_result *r)
{
	set_number(object, "bytes_wire", r->bytes_wire);
	set_number(object, "pages_sent", r->pages_sent);
	set_number(object, "pages_zero", r->pages_zero);
	set_number(object, "pages_total", r->pages_total);
	set_number(object, "pages_referenced", r->pages_referenced);
	set_number(object, "image_bytes", r->image_bytes);
	set_number(object, "brought_bytes", r->brought_bytes);
	set_ms(object, "brought_ms", r->brought_ns);
	set_ms(object, "sync_ms", r->sync_ns);
	set_ms(object, "sync_final_ms", r->sync_final_ns);
	set_number(object, "sync_passes", r->sync_passes);
	set_number(object, "sync_final_names", r->sync_final_names);
	set_number(object, "sync_patched_files", r->sync_patched_files);
	set_number(object, "sync_patched_bytes", r->sync_patched_bytes);
	set_text(object, "sync_final_whole", r->sync_final_whole);
	set_ms(object, "track_ms", r->track_ns);
	set_ms(object, "dump_ms", r->dump_ns);
	set_ms(object, "restore_ms", r->restore_ns);
	set_ms(object, "resume_ms", r->resume_ns);
	set_number(object, "faults", r->faults);
	set_ms(object, "fault_p50_ms", r->fault_ns_p50);
	set_ms(object, "fault_p99_ms", r->fault_ns_p99);
	set_ms(object, "fault_max_ms", r->fault_ns_max);
	set_number(object, "pages_filled", r->pages_filled);
	set_ms(object, "fill_ms", r->fill_ns);
	set_number(object, "pager_replaced", r->pager_replaced);
	set_number(object, "reconnects", r->reconnects);
}

int report_result(const struct migration_result *r, struct buffer *out)
{
	json_t *object = json_object();
	char id[UUID_TEXT_SIZE];

	uuid_format(&r->id, id);
	set_text(object, "event", "result");
	set_text(object, "id", id);
	set_text(object, "outcome", report_outcome(r->outcome));
	set_bool(object, "refused", r->outcome == OUTCOME_REFUSED);
	set_text(object, "reason", r->reason);
	set_number(object, "errno", (uint64_t)r->number);
	set_ms(object, "total_ms", r->total_ns);
	set_ms(object, "frozen_ms", r->frozen_ns);
	set_ms(object, "predicted_frozen_ms", r->predicted_frozen_ns);
	set_course(object, r);
	set_convergence(object, r);
	set_figures(object, r);
	set_encodings(object, r);
	set_postcopy(object, r);
	set_text(object, "engine", r->engine);
	set_text(object, "target", r->target);
	set_text(object, "tracker", r->tracker);
	set_bool(object, "preload_acted", r->preload_acted);
	set_text(object, "preload_did", r->preload_did);
	set_text(object, "images", r->images);
	set_bool(object, "hold", r->held);
	set_number(object, "held_packets", r->held_packets);
	return append(object, out);
}

int report_summary(const struct journal_summary *s, struct buffer *out)
{
	json_t *object = json_object();
	char id[UUID_TEXT_SIZE];

	uuid_format(&s->id, id);
	set_text(object, "id", id);
	set_text(object, "side", s->side == SIDE_SOURCE ? "source" : "target");
	set_text(object, "state", state_name(s->state));
	set_text(object, "type", s->type);
	set_text(object, "workload", s->workload);
	set_text(object, "peer", s->peer);
	set_text(object, "peer_identity", s->peer_identity);
	set_text(object, "reason", s->reason);
	set_text(object, "time", s->time);
	set_bool(object, "driven", s->driven);
	set_bool(object, "torn", s->torn);
	return append(object, out);
}
