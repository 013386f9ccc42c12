/*
 * Control messages: protobuf in and out, with every limit checked. No I/O.
 *
 * What message_decode() returns satisfies: the oneof is set; enums are known; strings are at most their
 * field's limit and printable where a person will read them; byte fields have their exact length; counts are below
 * their maximum; ranges are page aligned, ascending, disjoint. Paths are absolute, without "." or ".." parts.
 */
#pragma once

#include "base/buffer.h"
#include "base/error.h"
#include "control.pb-c.h"

#define MESSAGE_PATH_MAX 4096
#define MESSAGE_TEXT_MAX 1024
#define MESSAGE_FILES_MAX 65536
#define MESSAGE_PIDS_MAX 262144
#define MESSAGE_OBSTACLES_MAX 1024
#define MESSAGE_ADDRESSES_MAX 64
#define MESSAGE_NEIGHBOURS_MAX 64
#define MESSAGE_SYNC_PATHS_MAX 64
#define MESSAGE_TREES_MAX 64
#define MESSAGE_PASSES_MAX (MESSAGE_SYNC_PATHS_MAX + MESSAGE_TREES_MAX)
#define MESSAGE_SPEC_MAX (1U << 20)
#define MESSAGE_CHANNELS_MAX 64
#define MESSAGE_EXTERNAL_MAX 256
#define MESSAGE_CPUINFO_MAX 65536
#define MESSAGE_NET_SETTINGS_MAX 65536
#define MESSAGE_BLOCK_BYTES 8192U
#define MESSAGE_SPAN_MAX                                                                                               \
	(8192ULL *                                                                                                     \
	 MESSAGE_BLOCK_BYTES) /* of a file, that sums are asked of at once: a moment's work even for a slow disk */
#define MESSAGE_FILE_MAX (1ULL << 56)
#define MESSAGE_MEMORY_MAX (96U << 20) /* to unpack one; the largest that is allowed takes a good half of it */

/* Appends the packed message. -EMSGSIZE when it is longer than a frame may be; -ENOMEM. */
int message_encode(const Phaul__Wire__Control *message, struct buffer *out, struct error *err);

/* -EPROTO with a sentence that names the field. Free the result with message_free(). */
int message_decode(const uint8_t *data, size_t length, Phaul__Wire__Control **ret, struct error *err);
void message_free(Phaul__Wire__Control *message);

static inline void message_freep(Phaul__Wire__Control **message)
{
	message_free(*message);
}
#define _cleanup_message_ _cleanup_(message_freep)

/* What a person would call it: "plan", "commit". */
const char *message_name(Phaul__Wire__Control__KindCase kind);
