/*
 * CRIU's images on their way: the source sends the files of a directory over the control channel, pages-*.img as
 * references to what the target already holds wherever that is so; the target writes them down and checks every reference.
 */
#pragma once

#include "memory/dedup.h"
#include "memory/store.h"
#include "migration/session.h"

struct image_counters {
	uint32_t files;
	uint64_t bytes;		   /* of the files */
	uint64_t pages_referenced; /* of pages-*.img that were not sent again */
	uint64_t pages_sent;
};

/* Sends the pages-*.img (pages true) or all other files (false) of a directory. Adds to *counters. */
int images_send(struct session *s, const char *directory, bool pages, struct dedup_index *dedup,
		struct image_counters *counters, struct error *err);

/* The receiving end. One file at a time: IMAGE_BEGIN ends the one before. */
struct image_sink {
	int directory_fd; /* owned */
	int file_fd;	  /* owned; -1: none open */
	char name[FRAME_NAME_MAX + 1];
	uint64_t size, received;
	uint64_t room; /* bytes of all files together that may still come */
	uint32_t files;
	struct store *store;
};

/* Opens an empty directory for images. What they may take is a share of what is free there now: the file system is the host's. */
int image_sink_open(const char *directory, struct store *store, struct image_sink *ret, struct error *err);

/* Takes one IMAGE_* frame. -ENOSPC says where room is missing; -EBADMSG: a reference names other content than the source
 * thinks (the migration must not go on). */
int image_sink_take(struct image_sink *sink, const struct frame_header *header, const uint8_t *body, struct error *err);

/* All files whole? */
int image_sink_finish(struct image_sink *sink, uint32_t files, struct error *err);
void image_sink_close(struct image_sink *sink);
