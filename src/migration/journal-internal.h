/*
 * Inside of the journal: what journal.c (writing) and journal-read.c (reading) share.
 */
#pragma once

#include <jansson.h>

#include "migration/journal.h"

#define JOURNAL_BYTES_MAX (4U << 20)
#define BOOT_ID_SIZE 37

struct journal {
	int fd; /* open for appending, locked */
	uint64_t sequence;
	enum migration_side side;
	enum migration_state state;
	char id[UUID_TEXT_SIZE];
	char place[4096]; /* its own directory */
	json_t *facts;	  /* of journal_open(): the members of all records and all notes, the last of a name; or NULL */
};

int journal_lock(int fd);

/* The kernel's name for this boot; "" when it has none. */
void boot_id(char text[BOOT_ID_SIZE]);
