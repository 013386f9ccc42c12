/*
 * Post-copy after a crash of phaul at the source: the tasks are still stopped, the target still lacks pages, and goes on asking.
 * See recover.h. One thread, beside those of the page server.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "migration/postcopy.h"
#include "migration/recover.h"

/* "SPACE:PID ..." */
static int parse_spaces(const char *text, struct page_server_space **ret, size_t *ret_n, struct error *err)
{
	size_t allocated = 0;
	int used;

	*ret_n = 0;
	for (const char *at = text; *at; at += used) {
		struct page_server_space one;

		used = 0;
		if (sscanf(at, "%u:%d %n", &one.space, &one.pid, &used) != 2 || !used || one.pid <= 1)
			return error_set(err, EBADMSG,
					 "the journal names the memory that is given out in a way that makes no sense");
		if (array_grow(ret, *ret_n, &allocated, 16, sizeof(one)) < 0)
			return error_set(err, ENOMEM, "no memory for post-copy");
		(*ret)[(*ret_n)++] = one;
	}
	return 0;
}

int recover_serve_pages(const struct journal *j, const struct handover_link *link, int64_t reconnect_ms,
			struct session *session, struct error *err)
{
	_cleanup_free_ struct page_server_space *spaces = NULL;
	/* Without a session the first step makes one, and both page channels. */
	struct postcopy p = { .link = *link, .session = session, .reconnect_ms = reconnect_ms };
	size_t n;
	int r = parse_spaces(journal_fact(j, RECOVER_SPACES), &spaces, &n, err);

	if (!r)
		r = page_server_new(ENCODING_BIT(ENCODING_LZ4), &p.server, err);
	if (!r && page_server_set_spaces(p.server, spaces, n) < 0)
		r = error_set(err, ENOMEM, "no memory for post-copy");
	while (!r)
		r = postcopy_step(&p, err);
	page_server_free(p.server);
	return r < 0 ? error_wrap(err, "the workload runs at the target and waits there for what is left here") : 0;
}
