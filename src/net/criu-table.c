/*
 * The nftables table that CRIU leaves behind at the source: see net.h. No state; any thread.
 */
#include <errno.h>
#include <netinet/in.h> /* before linux/netfilter.h */
#include <linux/netfilter.h>
#include <string.h>

#include "net/names.h"
#include "net/nft.h"
#include "net/place.h"

#define OTHERS_MS 100 /* for packets that wait for another workload: queue.h */

static int remove_here(void *context, struct error *err)
{
	return nft_remove_table(NFPROTO_INET, context, OTHERS_MS, err);
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
