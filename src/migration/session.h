/*
 * The control channel of a session: frames and messages in and out, request and answer.
 */
#pragma once

#include "base/buffer.h"
#include "transport/channel.h"
#include "wire/frame.h"
#include "wire/message.h"

struct session {
	struct channel *control; /* owned */
	struct buffer body;	 /* of the frame read last */
};

void session_free(struct session *s);

int session_send(struct session *s, const Phaul__Wire__Control *message, struct error *err);

/* Reads one frame; its body is in s->body until the next call. */
int session_read_frame(struct session *s, struct frame_header *ret, struct error *err);

/* Reads one message; a Failure becomes err (its sentence, the peer named) and its negative number; any other
 * kind than `expected` is -EPROTO. */
int session_receive(struct session *s, Phaul__Wire__Control__KindCase expected, Phaul__Wire__Control **ret,
		    struct error *err);

/* The same where two kinds are due; *ret says which it is. */
int session_receive_either(struct session *s, Phaul__Wire__Control__KindCase expected,
			   Phaul__Wire__Control__KindCase other, Phaul__Wire__Control **ret, struct error *err);

/* session_send() and session_receive(). ret may be NULL when only the kind of the answer matters. */
int session_call(struct session *s, const Phaul__Wire__Control *request, Phaul__Wire__Control__KindCase expected,
		 Phaul__Wire__Control **ret, struct error *err);

/* Answers that carry nothing, or an error. */
int session_send_ready(struct session *s, struct error *err);
int session_send_failure(struct session *s, const char *step, const struct error *failure, struct error *err);

/* Builds a Control around a part: CONTROL_OF(plan, PLAN, &plan). */
#define CONTROL_OF(variable, member, KIND_NAME, part)                                                                  \
	Phaul__Wire__Control variable = PHAUL__WIRE__CONTROL__INIT;                                                    \
	(variable).kind_case = PHAUL__WIRE__CONTROL__KIND_##KIND_NAME;                                                 \
	(variable).member = (part)
