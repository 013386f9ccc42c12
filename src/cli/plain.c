/*
 * A migration told in plain lines: see plain.h.
 *
 * What peers and programs said is cleaned of control characters on the way. Pure; any thread.
 */
#include "cli/plain.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/text.h"

const char *plain_phase(const char *phase)
{
	static const struct {
		const char *phase, *words;
	} known[] = {
		{ "describe", "looking at the workload" },
		{ "connect", "connecting to the target" },
		{ "plan", "planning" },
		{ "begin", "opening the channels" },
		{ "files", "bringing files over" },
		{ "copy", "copying memory while it runs" },
		{ "again", "bringing over what changed" },
		{ "stop", "stopping it" },
		{ "arm", "preparing the freeze" },
		{ "freeze", "freezing" },
		{ "finish", "sending what is left" },
		{ "commit", "handing over" },
		{ "postcopy", "running at the target, sending what is left" },
		{ "settle", "settling" },
		{ "fill", "filling memory at the target" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i].phase, phase))
			return known[i].words;
	return phase;
}

static int plain_iteration(const struct migration_event *event, struct buffer *out)
{
	char bytes[TEXT_QUANTITY_MAX], time[TEXT_QUANTITY_MAX];
	const struct migration_iteration *it = &event->iteration;

	return buffer_printf(
		out, "round %u: %" PRIu64 " pages, %s on the wire, in %s; %" PRIu64 " pages were written meanwhile\n",
		event->round, it->pages, text_bytes(it->bytes, bytes), text_duration(it->ns, time), it->dirty_pages);
}

int plain_event(const struct migration_event *event, struct buffer *out)
{
	char text[4096], time[TEXT_QUANTITY_MAX];

	switch (event->kind) {
	case EVENT_PHASE:
		return buffer_printf(out, "%s\n", plain_phase(event->phase));
	case EVENT_ITERATION:
		return plain_iteration(event, out);
	case EVENT_DECISION:
		return buffer_printf(out, "%s; the freeze would take %s\n", policy_explain(event->decision),
				     text_duration(event->estimate_ns, time));
	case EVENT_SYNC:
		return buffer_printf(out, "%s was brought over in %s\n", text_clean(event->path, text, sizeof(text)),
				     text_duration(event->ns, time));
	case EVENT_NONE:
	case EVENT_OBSTACLE:
	case EVENT_PROGRESS:
		break;
	}
	return 0;
}

int plain_obstacle(const struct obstacle *o, struct buffer *out)
{
	char text[sizeof(o->what) * 3];
	int r = buffer_printf(out, "%s: %s\n", o->kind == OBSTACLE_WARNS ? "warning" : "refused",
			      text_clean(o->what, text, sizeof(text)));

	if (!r && o->cure[0])
		r = buffer_printf(out, "  cure: %s\n", text_clean(o->cure, text, sizeof(text)));
	return r;
}

/* How the pages went: the bytes that they take, and on the wire took. Nothing where all of them went whole. */
static int plain_encodings(const struct migration_result *r, struct buffer *out)
{
	const char *between = "pages went as";
	int e = 0;

	if (r->encodings[ENCODING_RAW].pages == r->pages_sent)
		return 0;
	for (int i = ENCODING_ZERO; i < ENCODING_MAX && !e; i++) {
		char whole[TEXT_QUANTITY_MAX], bytes[TEXT_QUANTITY_MAX];
		const struct encoding_count *c = &r->encodings[i];

		if (!c->pages)
			continue;
		e = buffer_printf(out, "%s %s: %s in %s", between, encoding_name(i),
				  text_bytes(c->pages * PAGE_BYTES, whole), text_bytes(c->bytes, bytes));
		between = ",";
	}
	return e ? e : buffer_printf(out, "\n");
}

int plain_summary(const struct migration_options *o, const struct migration_result *r, struct buffer *out)
{
	char bytes[TEXT_QUANTITY_MAX], frozen[TEXT_QUANTITY_MAX], total[TEXT_QUANTITY_MAX];
	int e;

	if (r->outcome == OUTCOME_CHECKED)
		return buffer_printf(out, "nothing stands in the way of moving %s %s to %s\n", o->type, o->id,
				     o->target_text);
	e = buffer_printf(out, "moved %s %s to %s: frozen %s, %s in all, %zu round%s, %s on the wire\n", o->type, o->id,
			  o->target_text, text_duration(r->frozen_ns, frozen), text_duration(r->total_ns, total),
			  r->n_iterations, r->n_iterations == 1 ? "" : "s", text_bytes(r->bytes_wire, bytes));
	if (!e)
		e = plain_encodings(r, out);
	if (!e && r->brought_bytes)
		e = buffer_printf(out, "the target lacked its image: brought over in %s, %s\n",
				  text_duration(r->brought_ns, total), text_bytes(r->brought_bytes, bytes));
	if (!e && r->images[0])
		e = buffer_printf(out, "its images are kept in %s\n", r->images);
	return e;
}

int plain_failure(const struct migration_options *o, const struct migration_result *r, size_t n_refusing,
		  struct buffer *out)
{
	char reason[ERROR_TEXT_MAX * 3], id[UUID_TEXT_SIZE];
	const char *state = "; the source still runs";
	int e;

	text_clean(r->reason, reason, sizeof(reason));
	uuid_format(&r->id, id);
	if (r->outcome == OUTCOME_UNKNOWN || r->outcome == OUTCOME_NONE)
		return buffer_printf(out,
				     "it is not known whether %s %s runs at %s: %s; here it stays stopped, and "
				     "`phaul status %s` says how to settle it",
				     o->type, o->id, o->target_text, reason, id);
	/* What was not found in the first place does not run either. */
	if (r->number == ESRCH && r->n_phases <= 1)
		state = "";
	if (!o->check_only)
		e = buffer_printf(out, "cannot migrate %s %s: ", o->type, o->id);
	else if (r->outcome == OUTCOME_REFUSED)
		e = buffer_printf(out, "%s %s cannot move to %s: ", o->type, o->id, o->target_text);
	else
		e = buffer_printf(out, "cannot check whether %s %s can move to %s: ", o->type, o->id, o->target_text);
	if (e < 0)
		return e;
	if (r->outcome == OUTCOME_REFUSED && n_refusing)
		e = buffer_printf(out,
				  n_refusing == 1 ? "an obstacle stands in the way" : "%zu obstacles stand in the way",
				  n_refusing);
	else
		e = buffer_printf(out, "%s", reason);
	return e < 0 || o->check_only ? e : buffer_printf(out, "%s", state);
}
