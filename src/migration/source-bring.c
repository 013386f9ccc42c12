/*
 * The source's half of what the target lacks: between BEGIN and its answer. See bring.h.
 *
 * Invariant: the words of the target only choose among what belongs to the workload; the driver sees to that. Threads: that of source.c.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migration/bring.h"
#include "migration/source-internal.h"

static int give(struct source *s, const char *words, struct error *err)
{
	struct bring b = { .channel = s->session.control,
			   .cancel_fd = s->options->cancel_fd,
			   .silence_ms = s->options->timeout_ms };
	uint64_t began_ns = clock_now_ns(), bytes = channel_bytes_out(b.channel);
	int r;

	snprintf(b.log, sizeof(b.log), "%s/give.log", s->work_directory);
	r = bring_open(&b, err);
	if (!r)
		r = s->driver->give(&s->workload, &s->driver_options, words, b.child_fd, b.log_fd, &b.child, err);
	/* The target waits for an end, which nothing but a run can say. */
	channel_set_pacer(b.channel, &s->pacer); /* --bandwidth is for these bytes, too */
	if (!r)
		r = bring_run(&b, err);
	channel_set_pacer(b.channel, NULL);
	bring_close(&b);
	s->result.brought_bytes = channel_bytes_out(s->session.control) - bytes;
	s->result.brought_ns = clock_now_ns() - began_ns;
	return r;
}

/* What the target says in the end. When it failed there and here, that of the side that failed first is the cause: the reader's end breaks the
 * writer's pipe, but a writer that fails says so, where a broken pipe is not its own fault. */
static int choose(int given, const struct error *here, int answered, struct error *err)
{
	if (given < 0 && (answered >= 0 || !strstr(here->text, "Broken pipe"))) {
		*err = *here;
		return error_wrap(err, "what the target lacks could not be brought");
	}
	return answered;
}

int source_call_begin(struct source *s, const Phaul__Wire__Control *request, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *answer = NULL;
	struct error here = { 0 };
	int r = session_send(&s->session, request, err), given;

	if (!r)
		r = session_receive_either(&s->session, PHAUL__WIRE__CONTROL__KIND_LACKS,
					   PHAUL__WIRE__CONTROL__KIND_READY, &answer, err);
	if (r < 0 || !answer || answer->kind_case == PHAUL__WIRE__CONTROL__KIND_READY)
		return r;
	if (!s->driver->give)
		return error_set(err, EPROTO, "the target lacks something that a %s never has", s->driver->name);
	given = give(s, answer->lacks->words, &here);
	if (given < 0 &&
	    given != -EIO) { /* nobody runs it any more: the channel is in the middle of a frame, or of a stream */
		*err = here;
		return given;
	}
	log_debug("brought what the target lacks, %llu bytes", (unsigned long long)s->result.brought_bytes);
	r = session_receive(&s->session, PHAUL__WIRE__CONTROL__KIND_READY, NULL, err);
	return choose(given, &here, r, err);
}
