/*
 * The source's half of post-copy: see postcopy.h. One thread, beside those of the page server.
 *
 * Invariant: only the target's own word ("nothing is missing") ends it; a broken link, whatever its reason, leads back to asking.
 */
#include "migration/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "transport/pacer.h"

#define DIAL_MS 5000
#define RETRY_MS 250
#define WINDOW_NS (2 * NS_PER_MS)
#define WINDOW_MAX (16U << 20)

uint32_t postcopy_window(uint64_t bytes_per_second, uint64_t round_trip_ns)
{
	double bytes = (double)bytes_per_second * (double)(round_trip_ns + WINDOW_NS) / (double)NS_PER_S;

	return (uint32_t)MIN(MAX(bytes, (double)POSTCOPY_WINDOW_BYTES / 4), (double)WINDOW_MAX);
}

static int dial(const struct postcopy *p, uint32_t index, struct channel **ret, struct error *err)
{
	const struct handover_link *l = &p->link;
	struct dial_options o = { .identity = l->identity,
				  .timeout_ms = MIN(l->timeout_ms, (int64_t)DIAL_MS),
				  .cancel_fd = l->cancel_fd,
				  .expected_name = l->expected_name };
	uint8_t frame[FRAME_HEADER_BYTES + FRAME_CHANNEL_BYTES];
	int r = endpoint_dial(&l->endpoint, &o, l->route, ret, err);

	if (r < 0)
		return r;
	if (index)
		channel_set_pacer(*ret, p->pacer);
	frame_encode_channel(frame, CHANNEL_KIND_PAGES, index);
	return channel_write(*ret, frame, sizeof(frame), err);
}

int postcopy_open(struct postcopy *p, struct error *err)
{
	_cleanup_channel_ struct channel *urgent = NULL, *others = NULL;
	int r = dial(p, 0, &urgent, err);

	if (!r)
		r = dial(p, 1, &others, err);
	if (r < 0)
		return r;
	return page_server_attach(p->server, TAKE_PTR(urgent), TAKE_PTR(others),
				  p->window_bytes ? p->window_bytes : POSTCOPY_WINDOW_BYTES, err);
}

/* How many pages the target lacks. */
static int look(struct postcopy *p, struct error *err)
{
	Phaul__Wire__Missing part = PHAUL__WIRE__MISSING__INIT;
	_cleanup_message_ Phaul__Wire__Control *reply = NULL;
	CONTROL_OF(request, missing, MISSING, &part);
	int r = session_call(p->session, &request, PHAUL__WIRE__CONTROL__KIND_MISSING_REPLY, &reply, err);

	if (r < 0)
		return r;
	p->missing = reply->missing_reply->pages;
	p->faults = reply->missing_reply->faults_remote;
	return 0;
}

static int rejoin(struct postcopy *p, struct error *err)
{
	int r = handover_rejoin_running(&p->link, p->session, err);

	if (!r)
		r = look(p, err);
	/* What it lacked last may have been on its way when the link broke. */
	return r < 0 || !p->missing ? r : postcopy_open(p, err);
}

static int link_lost(struct postcopy *p, const struct error *why)
{
	if (p->lost_ns)
		return 0;
	log_warning("the workload waits at the target for pages, the link is lost: %s", why->text);
	p->lost_ns = clock_now_ns();
	return 0;
}

/* While there is no link. 0: none was given. */
static int operators_word(struct postcopy *p, struct error *err)
{
	switch (journal_word(p->link.journals, &p->link.id)) {
	case SIDE_TARGET:
		log_warning("the operator keeps the target's copy, which lacks %" PRIu64 " pages", p->missing);
		return 1;
	case SIDE_SOURCE:
		p->keep_source = true;
		return error_set(err, ECONNABORTED, "the operator says that the target's copy is dead");
	case SIDE_INVALID:
	case SIDE_MAX:
		break;
	}
	return 0;
}

int postcopy_step(struct postcopy *p, struct error *err)
{
	int r = p->lost_ns ? 0 : page_server_failure(p->server, err);

	if (!p->lost_ns && p->session->control) {
		struct error why = { 0 };

		/* The page channels end with the last page, too. */
		if (look(p, &why) == 0 && !p->missing)
			return 1;
		if (!r && why.number) {
			r = -why.number;
			*err = why;
		}
	}
	if (r < 0)
		return link_lost(p, err);
	if (!p->lost_ns) {
		page_server_release(p->server);
		r = fd_wait(p->link.cancel_fd, POLLIN, deadline_in_ms(POSTCOPY_LOOK_MS));
		return r == 1 ? error_set(err, ECANCELED, "canceled while the target still lacks %" PRIu64 " pages",
					  p->missing)
			      : 0;
	}
	r = operators_word(p, err);
	if (r)
		return r;
	r = rejoin(p, err);
	if (!r) {
		log_info("the link is back; the target lacks %" PRIu64 " pages", p->missing);
		p->reconnects++;
		p->lost_ns = 0;
		return 0;
	}
	if (clock_now_ns() - p->lost_ns > (uint64_t)p->reconnect_ms * NS_PER_MS)
		return error_wrap(err, "the target cannot be reached, and lacks %" PRIu64 " pages", p->missing);
	r = fd_wait(p->link.cancel_fd, POLLIN, deadline_in_ms(RETRY_MS));
	return r == 1 ? error_set(err, ECANCELED, "canceled while the target still lacks %" PRIu64 " pages", p->missing)
		      : 0;
}
