/*
 * The nftables table that CRIU leaves behind at the source: see net.h. No state; any thread.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/names.h"
#include "net/nft.h"
#include "net/place.h"
#include "net/queue.h"

#define OTHERS_MS 100 /* for packets that wait for another workload: queue.h */

static int remove_here(void *context, struct error *err)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	const char *table = context;
	int r;

	queue_await_idle(deadline_in_ms(OTHERS_MS));
	nft_begin(&b);
	nft_delete_table(&b, table);
	r = nft_commit(&b);
	if (r < 0 && r != -ENOENT)
		return error_errno(err, -r, "cannot remove the nftables table inet %s", table);
	return 0;
}

int net_criu_table_remove(const char *table, const struct net_place *place, struct error *err)
{
	static const char prefix[] = "CRIU-";
	size_t length = strlen(table);

	if (strncmp(table, prefix, strlen(prefix)) != 0 || length <= strlen(prefix) || length >= NET_TABLE_NAME_MAX ||
	    strspn(table + strlen(prefix), "0123456789abcdefABCDEF-") != length - strlen(prefix))
		return error_set(err, EINVAL, "\"%.64s\" is not the name of a table of CRIU's", table);
	return net_place_call(place, remove_here, (void *)table, err);
}
