/*
 * The end of a table of rules: not while packets wait in a queue of its namespace. No state; any thread.
 */
#include <errno.h>

#include "base/clock.h"
#include "net/nft.h"
#include "net/queue.h"

int nft_remove_table(uint8_t family, const char *table, int patience_ms, struct error *err)
{
	_cleanup_nft_batch_ struct nft_batch b = { 0 };
	int r;

	queue_await_idle(deadline_in_ms(patience_ms));
	nft_begin(&b);
	b.family = family;
	nft_delete_table(&b, table);
	r = nft_commit(&b);
	/* A family that the kernel lacks has no tables. */
	if (r < 0 && r != -ENOENT && r != -EOPNOTSUPP && r != -EAFNOSUPPORT)
		return error_errno(err, -r, "cannot remove the nftables table %s", table);
	return 0;
}
