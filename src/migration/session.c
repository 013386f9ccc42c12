/*
 * The control channel of a session: see session.h. One thread.
 *
 * Invariant: nothing of a peer's message is used before message_decode() has passed it.
 */
#include "migration/session.h"

#include <errno.h>

void session_free(struct session *s)
{
	channel_free(TAKE_PTR(s->control));
	buffer_free(&s->body);
}

int session_send(struct session *s, const Phaul__Wire__Control *message, struct error *err)
{
	_cleanup_buffer_ struct buffer packed = { 0 };
	uint8_t header[FRAME_HEADER_BYTES];
	struct iovec iov[2];
	int r = message_encode(message, &packed, err);

	if (r < 0)
		return r;
	frame_encode_header(header, FRAME_CONTROL, (uint32_t)packed.length);
	iov[0] = (struct iovec){ header, sizeof(header) };
	iov[1] = (struct iovec){ packed.data, packed.length };
	return channel_writev(s->control, iov, 2, err);
}

int session_read_frame(struct session *s, struct frame_header *ret, struct error *err)
{
	uint8_t header[FRAME_HEADER_BYTES];
	int r = channel_read(s->control, header, sizeof(header), err);

	if (!r)
		r = frame_decode_header(header, ret, err);
	if (r < 0)
		return r;
	s->body.length = 0;
	r = buffer_reserve(&s->body, ret->length + 1);
	if (r < 0)
		return error_errno(err, -r, "cannot take a message of %u bytes", ret->length);
	r = channel_read(s->control, s->body.data, ret->length, err);
	if (!r)
		s->body.length = ret->length;
	return r;
}

int session_receive_either(struct session *s, Phaul__Wire__Control__KindCase expected,
			   Phaul__Wire__Control__KindCase other, Phaul__Wire__Control **ret, struct error *err)
{
	_cleanup_message_ Phaul__Wire__Control *m = NULL;
	struct frame_header header;
	int r = session_read_frame(s, &header, err);

	if (r < 0)
		return r;
	if (header.type != FRAME_CONTROL)
		return error_set(err, EPROTO, "%s sent data where an answer was due", channel_peer(s->control));
	r = message_decode(s->body.data, s->body.length, &m, err);
	if (r < 0)
		return r;
	if (m->kind_case == PHAUL__WIRE__CONTROL__KIND_FAILURE)
		return error_set(err, (int)m->failure->number, "%s", m->failure->text);
	if (m->kind_case != expected && m->kind_case != other)
		return error_set(err, EPROTO, "%s answered with %s where %s was due", channel_peer(s->control),
				 message_name(m->kind_case), message_name(expected));
	if (ret)
		*ret = TAKE_PTR(m);
	return 0;
}

int session_receive(struct session *s, Phaul__Wire__Control__KindCase expected, Phaul__Wire__Control **ret,
		    struct error *err)
{
	return session_receive_either(s, expected, expected, ret, err);
}

int session_call(struct session *s, const Phaul__Wire__Control *request, Phaul__Wire__Control__KindCase expected,
		 Phaul__Wire__Control **ret, struct error *err)
{
	int r = session_send(s, request, err);

	return r < 0 ? r : session_receive(s, expected, ret, err);
}

int session_send_ready(struct session *s, struct error *err)
{
	Phaul__Wire__Ready ready = PHAUL__WIRE__READY__INIT;
	CONTROL_OF(message, ready, READY, &ready);

	return session_send(s, &message, err);
}

int session_send_failure(struct session *s, const char *step, const struct error *failure, struct error *err)
{
	Phaul__Wire__Failure part = PHAUL__WIRE__FAILURE__INIT;
	CONTROL_OF(message, failure, FAILURE, &part);

	part.number = failure->number > 0 && failure->number < 4096 ? (uint32_t)failure->number : EIO;
	part.step = (char *)step;
	part.text = (char *)failure->text;
	return session_send(s, &message, err);
}
