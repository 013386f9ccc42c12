/*
 * The target's half after a crash: see recover.h. One thread.
 *
 * What decides: COMMIT is written (`resuming`) before anything is let go, and a mark ("released") follows right before CRIU is told. Without
 * the mark, in the same boot, nothing restored can have run: it is killed and the source may go on. With it, only tasks that are seen to
 * run are a "running"; anything else stays as it is, for the operator.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "criu/criu.h"
#include "migration/container-net.h"
#include "migration/recover.h"
#include "migration/subject.h"
#include "migration/tasks.h"
#include "net/hold.h"
#include "net/leftovers.h"

#define CRIU_MS 10000	     /* CRIU has lost its client and undoes what it did */
#define CRIU_RESUME_MS 60000 /* CRIU goes on with a resume */
#define RESTORE_TICKS                                                                                                  \
	12000 /* tasks of a restore are made within two minutes of its CRIU's start (100 ticks a second) */

int recover_note_addresses(struct journal *j, const struct net_address *addresses, size_t n, struct error *err)
{
	_cleanup_buffer_ struct buffer all = { 0 };
	char text[NET_ADDRESS_TEXT_MAX];
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		net_address_format(&addresses[i], text);
		r = buffer_printf(&all, "%s%s", i ? " " : "", text);
	}
	if (!r)
		r = buffer_append(&all, "", 1);
	if (r < 0)
		return error_set(err, ENOMEM, "no memory to note the addresses");
	return journal_note_text(j, "addresses", (const char *)all.data, err);
}

size_t recover_addresses(const struct journal *j, struct net_address ret[MIGRATION_ADDRESSES_MAX])
{
	_cleanup_free_ char *all = strdup(journal_fact(j, "addresses"));
	char *save = NULL;
	size_t n = 0;

	for (char *word = all ? strtok_r(all, " ", &save) : NULL; word && n < MIGRATION_ADDRESSES_MAX;
	     word = strtok_r(NULL, " ", &save))
		n += net_address_parse(word, &ret[n], NULL) == 0;
	return n;
}

static void remove_addresses(const struct journal *j)
{
	struct net_address addresses[MIGRATION_ADDRESSES_MAX];
	size_t n = journal_fact_number(j, "addresses_set") ? recover_addresses(j, addresses) : 0;
	struct error err = { 0 };

	for (size_t i = 0; i < n; i++)
		if (net_address_remove(&addresses[i], &err) < 0)
			log_warning("%s", err.text);
}

void recover_remove_files(const struct journal *j)
{
	const char *directory = journal_fact(j, "work_directory");
	int r = directory[0] && !journal_fact_number(j, "keep_images") ? dir_remove(directory) : 0;

	if (r < 0)
		log_warning("cannot remove %s: %s", directory, strerror(-r));
}

/* Nothing of the restore is left afterwards, or it fails. */
static int forget(const struct journal *j, struct error *err)
{
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	uint64_t ticks = noted_process_ticks(j, "criu");
	char images[4200];
	int r = 0;

	if (journal_same_boot(j)) {
		noted_process_await(j, "criu", deadline_in_ms(CRIU_MS));
		r = noted_tasks_read(j, &tasks, err);
		if (!r)
			r = noted_tasks_kill(&tasks, err);
		snprintf(images, sizeof(images), "%s/images", journal_fact(j, "work_directory"));
		if (!r && ticks)
			criu_restore_wipe(images, ticks, ticks + RESTORE_TICKS);
		if (!r)
			subject_forget(j);
		if (!r)
			remove_addresses(j);
		if (!r && net_leftovers_remove(journal_id(j), false, err) < 0)
			log_warning("%s", err->text);
	}
	if (!r)
		recover_remove_files(j);
	return r;
}

static int give_up(struct journal *j, const char *reason, enum migration_outcome *ret, struct error *err)
{
	int r = forget(j, err);

	*ret = OUTCOME_ABORTED;
	return r < 0 ? r : journal_enter(j, STATE_ABORTED, reason, err);
}

/* A container's network, of the tasks that run: nothing waits for them any more. */
static void return_network(const struct journal *j)
{
	struct container_net net = CONTAINER_NET_NONE;
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	struct error err = { 0 };
	int r = noted_tasks_read(j, &tasks, &err);

	if (!r && tasks.n && noted_tasks_alive(&tasks))
		r = container_net_open_pid(tasks.list[0].pid, &net, &err);
	if (!r && net.known)
		r = net_hold_remove(journal_id(j), &net.place, &err);
	if (!r)
		r = container_net_return(&net, journal_id(j), &err);
	if (r < 0)
		log_warning("%s", err.text);
	container_net_free(&net);
}

static int acknowledge(struct journal *j, const char *reason, enum migration_outcome *ret, struct error *err)
{
	struct net_address addresses[MIGRATION_ADDRESSES_MAX];
	size_t n = recover_addresses(j, addresses);

	if (net_leftovers_remove(journal_id(j), true, err) < 0)
		log_warning("%s", err->text);
	for (size_t i = 0; i < n; i++)
		if (net_address_announce(&addresses[i], err) < 0)
			log_warning("%s", err->text);
	return_network(j);
	subject_restored(j);
	recover_remove_files(j);
	*ret = OUTCOME_MIGRATED;
	return journal_enter(j, STATE_RUNNING, reason, err);
}

static int end_resuming(struct journal *j, enum migration_side keep, enum migration_outcome *ret, struct error *err)
{
	_cleanup_tasks_ struct noted_tasks tasks = { 0 };
	int r;

	if (keep == SIDE_SOURCE)
		return give_up(j, "the operator keeps the source's copy", ret, err);
	if (journal_same_boot(j) && !journal_fact_number(j, "released"))
		return give_up(j, "phaul ended at the target before it let the restored tasks run", ret, err);
	if (journal_same_boot(j)) {
		noted_process_await(j, "criu", deadline_in_ms(CRIU_RESUME_MS));
		r = noted_tasks_read(j, &tasks, err);
		if (r < 0)
			return r;
		if (noted_tasks_alive(&tasks))
			return acknowledge(j, "phaul ended in the handover; the workload runs", ret, err);
	}
	if (keep == SIDE_TARGET)
		return acknowledge(j, "the operator keeps the target's copy", ret, err);
	*ret = OUTCOME_UNKNOWN;
	return error_set(
		err, ESRCH,
		"the workload of migration %s was let go here, and none of its processes is left: it has ended, or "
		"was lost; phaul resolve settles it",
		journal_id(j));
}

int recover_target(struct journal *j, enum migration_side keep, enum migration_outcome *ret, struct error *err)
{
	switch (journal_state(j)) {
	case STATE_PLANNED:
	case STATE_RECEIVING:
	case STATE_PREPARED:
		if (keep == SIDE_TARGET)
			return error_set(
				err, ENOTRECOVERABLE,
				"what was restored here for migration %s is gone, and it never ran: only the source's "
				"copy can be kept",
				journal_id(j));
		return give_up(j,
			       keep == SIDE_SOURCE ? "the operator keeps the source's copy"
						   : "phaul ended at the target before the handover",
			       ret, err);
	case STATE_RESUMING:
		return end_resuming(j, keep, ret, err);
	case STATE_RUNNING:
		*ret = OUTCOME_MIGRATED;
		return 0;
	case STATE_ABORTED:
		*ret = OUTCOME_ABORTED;
		return 0;
	case STATE_INVALID:
	case STATE_COPYING:
	case STATE_FROZEN:
	case STATE_COMMITTED:
	case STATE_SETTLED:
	case STATE_MAX:
		break;
	}
	return error_set(err, EINVAL, "the journal of migration %s is not a target's", journal_id(j));
}

/* It ran already when its worker crashed. Pages that are still at the source come through the pager's socket, among these files. */
static void forget_running(const struct journal *j)
{
	struct error err = { 0 };

	if (!journal_same_boot(j) || !journal_fact_number(j, POSTCOPY_MARK) || journal_fact_number(j, RESIDENT_MARK))
		recover_remove_files(j);
	if (journal_same_boot(j) && net_leftovers_remove(journal_id(j), true, &err) < 0)
		log_warning("%s", err.text);
}

void recover_targets(const char *journals)
{
	_cleanup_free_ struct journal_summary *list = NULL;
	struct error err = { 0 };
	size_t n = 0;

	if (journal_list(journals, &list, &n, &err) < 0)
		log_warning("%s", err.text);
	for (size_t i = 0; i < n; i++) {
		enum migration_outcome outcome = OUTCOME_UNKNOWN;
		struct journal *j = NULL;

		if (list[i].side != SIDE_TARGET || list[i].driven || list[i].state == STATE_ABORTED)
			continue;
		if (journal_open(journals, &list[i].id, &j, &err) < 0)
			log_warning("%s", err.text);
		else if (list[i].state == STATE_RUNNING)
			forget_running(j);
		else if (recover_target(j, SIDE_INVALID, &outcome, &err) < 0)
			log_warning("%s", err.text);
		else
			log_info("migration %s, which a crash left behind, is %s now", journal_id(j),
				 state_name(journal_state(j)));
		journal_free(j);
	}
}
