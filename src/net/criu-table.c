/*
 * The nftables table that CRIU leaves behind at the source: see net.h. No state; any thread.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "net/names.h"
#include "net/net.h"
#include "net/nft.h"
#include "net/place.h"
#include "net/queue.h"

#define OTHERS_MS 100 /* for packets that wait for another workload: queue.h */

int net_criu_table_remove(const char *table, struct error *err)
{
	static const char prefix[] = "CRIU-";
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	size_t length = strlen(table);
	int r;

	if (strncmp(table, prefix, strlen(prefix)) != 0 || length <= strlen(prefix) || length >= NET_TABLE_NAME_MAX ||
	    strspn(table + strlen(prefix), "0123456789abcdefABCDEF-") != length - strlen(prefix))
		return error_set(err, EINVAL, "\"%.64s\" is not the name of a table of CRIU's", table);
	queue_await_idle(deadline_in_ms(OTHERS_MS));
	nft_begin(&b);
	nft_delete_table(&b, table);
	r = nft_commit(&b);
	if (r < 0 && r != -ENOENT)
		return error_errno(err, -r, "cannot remove the nftables table inet %s", table);
	return 0;
}

static int remove_there(void *table, struct error *err)
{
	return net_criu_table_remove(table, err);
}

int net_criu_table_remove_of(pid_t pid, const char *table, struct error *err)
{
	_cleanup_net_place_ struct net_place place = NET_PLACE_HERE;
	struct error ended = { 0 };

	if (pid <= 0 || net_place_open_pid(pid, &place, &ended) < 0)
		return net_criu_table_remove(table, err);
	return net_place_call(&place, remove_there, (void *)table, err);
}
