/*
 * How phaul's nftables tables are named: a prefix and the migration's id. Internal to net/.
 */
#pragma once

#include "base/error.h"

#define NET_HOLD_PREFIX "phaul-"
#define NET_MUTE_PREFIX "phaul-mute-"
#define NET_TABLE_NAME_MAX 64

/* -EINVAL with a sentence when id is not a UUID's canonical text. */
int net_table_name(const char *prefix, const char *id, char name[NET_TABLE_NAME_MAX], struct error *err);
