/*
 * What a journal has to remember of a workload whose engine takes part, so that a later process can still tell the engine how it ended: the
 * driver, the id, the spec, the options. A file beside the journal, DIRECTORY/ID/workload, JSON.
 */
#pragma once

#include "driver/driver.h"
#include "migration/journal.h"

#define SUBJECT_STOPPED "stopped" /* the note of a source in restart mode that has stopped it, or is about to */

struct subject {
	const struct driver_ops *driver;
	struct workload workload;      /* type, id, root_pid, spec and trees */
	struct driver_options options; /* strings are owned by `text` */
	char work_directory[512];
	void *text;
};

/* Writes it, synced. */
int subject_save(const struct journal *j, const struct workload *w, const struct driver_options *options,
		 struct error *err);

/* -ENOENT: there is none, the driver needs nobody to be told. */
int subject_load(const struct journal *j, struct subject *ret, struct error *err);
void subject_free(struct subject *s);

/* After a crash, best effort, repeatable; failures are logged. Nothing happens where no engine takes part. */
void subject_disarm(const struct journal *j);	/* source: it runs here */
void subject_restart(const struct journal *j);	/* source, if it was stopped (SUBJECT_STOPPED): it runs here again */
void subject_moved(const struct journal *j);	/* source: it runs there */
void subject_restored(const struct journal *j); /* target: it runs here */
void subject_forget(const struct journal *j);	/* target: it runs there */
