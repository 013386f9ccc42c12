/* Accounting of beats: losses, gaps, hosts, and the time in which two hosts beat at once.
 *
 * Two copies of one workload show in three ways, all reported: the same sequence number from two hosts
 * (double_sequences), beats of one host between two near beats of another (overlap_beats), and the common
 * time of the intervals in which hosts were alive (overlap_ms). A clean move has 0 in all three.
 * Invariants: lost counts numbers below the highest that have not come; a late one is taken off it again.
 * Threads: none; the caller has one.
 */
#include "tally.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct tally_workload *workload_find(struct tally *tally, uint64_t id)
{
	for (size_t i = 0; i < tally->workloads_count; i++)
		if (tally->workloads[i]->id == id)
			return tally->workloads[i];
	if (tally->workloads_count == TALLY_WORKLOADS_MAX)
		return NULL;
	struct tally_workload *workload = calloc(1, sizeof(*workload));
	if (!workload)
		return NULL;
	workload->id = id;
	tally->workloads[tally->workloads_count++] = workload;
	return workload;
}

static int host_find(struct tally_workload *workload, const char *name, uint8_t *ret_index)
{
	size_t i = 0;
	while (i < workload->hosts_count && strcmp(workload->hosts[i].name, name) != 0)
		i++;
	if (i == TALLY_HOSTS_MAX)
		return -ENOSPC;
	if (i == workload->hosts_count) {
		memcpy(workload->hosts[i].name, name, BEAT_HOST_BYTES); /* a beat's host ends with NUL */
		workload->hosts_count++;
	}
	*ret_index = (uint8_t)i;
	return 0;
}

/* The number is new, late, or came already. */
static void sequence_take(struct tally_workload *workload, uint64_t sequence, uint8_t host)
{
	uint64_t highest = workload->last.sequence;
	uint8_t *slot = &workload->ring[sequence % TALLY_RING];
	if (workload->any && sequence == 1 && highest > 1) {
		workload->restarts++;
		memset(workload->ring, 0, sizeof(workload->ring));
		workload->any = false;
	}
	if (!workload->any || sequence > highest) {
		uint64_t fresh = workload->any ? sequence - highest : 1;
		if (fresh >= TALLY_RING)
			memset(workload->ring, 0, sizeof(workload->ring));
		else
			for (uint64_t s = highest + 1; workload->any && s <= sequence; s++)
				workload->ring[s % TALLY_RING] = 0;
		workload->lost += fresh - 1;
	} else if (highest - sequence >= TALLY_RING || *slot) {
		workload->duplicates++;
		if (highest - sequence < TALLY_RING && *slot != host + 1)
			workload->double_sequences++;
	} else {
		workload->reordered++;
		workload->lost -= workload->lost > 0;
	}
	*slot = (uint8_t)(host + 1);
}

static void gap_take(struct tally *tally, struct tally_workload *workload, const struct beat *beat, uint8_t host,
		     uint64_t arrival_ns)
{
	if (!workload->last_ns || arrival_ns <= workload->last_ns)
		return;
	struct tally_gap gap = { .start_ns = workload->last_ns,
				 .length_ns = arrival_ns - workload->last_ns,
				 .sequence_before = workload->last.sequence,
				 .sequence_after = beat->sequence,
				 .host_before = workload->last_host,
				 .host_after = host };
	if (gap.length_ns > workload->longest.length_ns)
		workload->longest = gap;
	if (gap.length_ns <= tally->gap_ns)
		return;
	if (workload->gaps_count < TALLY_GAPS_MAX)
		workload->gaps[workload->gaps_count] = gap;
	workload->gaps_count++;
}

static int host_take(const struct tally *tally, struct tally_workload *workload, uint8_t index, uint64_t arrival_ns)
{
	struct tally_host *host = &workload->hosts[index];
	bool goes_on = host->beats && arrival_ns - host->last_ns <= tally->alive_ns;
	if (goes_on) {
		workload->overlap_beats += workload->beats - host->total_at_last;
		host->intervals[host->intervals_count - 1].last_ns = arrival_ns;
	} else {
		if (host->intervals_count == host->intervals_room) {
			size_t room = host->intervals_room ? 2 * host->intervals_room : 16;
			struct interval *grown = realloc(host->intervals, room * sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			host->intervals = grown;
			host->intervals_room = room;
		}
		host->intervals[host->intervals_count++] = (struct interval){ arrival_ns, arrival_ns };
	}
	if (!host->beats)
		host->first_ns = arrival_ns;
	host->last_ns = arrival_ns;
	host->beats++;
	workload->beats++;
	host->total_at_last = workload->beats;
	return 0;
}

int tally_beat(struct tally *tally, const struct beat *beat, uint64_t arrival_ns)
{
	struct tally_workload *workload = workload_find(tally, beat->workload);
	uint8_t host;
	if (!workload || host_find(workload, beat->host, &host) < 0) {
		tally->refused++;
		return -ENOSPC;
	}
	sequence_take(workload, beat->sequence, host);
	gap_take(tally, workload, beat, host, arrival_ns);
	int r = host_take(tally, workload, host, arrival_ns);
	if (beat->errors > workload->errors)
		workload->errors = beat->errors;
	if (!workload->any || beat->sequence > workload->last.sequence)
		workload->last = *beat;
	workload->any = true;
	workload->last_ns = arrival_ns;
	workload->last_host = host;
	return r;
}

void tally_mark(struct tally *tally, const char *name, uint64_t now)
{
	memset(tally->mark, 0, sizeof(tally->mark));
	strncpy(tally->mark, name, sizeof(tally->mark) - 1);
	tally->mark_ns = now;
	for (size_t i = 0; i < tally->workloads_count; i++) {
		struct tally_workload *workload = tally->workloads[i];
		workload->beats = workload->lost = workload->duplicates = workload->reordered = 0;
		workload->double_sequences = workload->restarts = workload->overlap_beats = workload->gaps_count = 0;
		workload->errors = 0;
		workload->longest = (struct tally_gap){ 0 };
		/* Names keep their places, which the ring refers to. */
		for (size_t h = 0; h < workload->hosts_count; h++) {
			struct tally_host *host = &workload->hosts[h];
			host->beats = host->total_at_last = 0;
			host->first_ns = host->last_ns = 0;
			host->intervals_count = 0;
		}
	}
}

/* ---- reports ---- */

static uint64_t overlap_of_pair(const struct tally_host *a, const struct tally_host *b)
{
	uint64_t sum = 0;
	size_t i = 0, j = 0;
	while (i < a->intervals_count && j < b->intervals_count) {
		const struct interval *x = &a->intervals[i], *y = &b->intervals[j];
		uint64_t from = x->first_ns > y->first_ns ? x->first_ns : y->first_ns;
		uint64_t to = x->last_ns < y->last_ns ? x->last_ns : y->last_ns;
		if (to > from)
			sum += to - from;
		if (x->last_ns < y->last_ns)
			i++;
		else
			j++;
	}
	return sum;
}

uint64_t tally_overlap_ns(const struct tally_workload *workload)
{
	uint64_t sum = 0;
	for (size_t a = 0; a < workload->hosts_count; a++)
		for (size_t b = a + 1; b < workload->hosts_count; b++)
			sum += overlap_of_pair(&workload->hosts[a], &workload->hosts[b]);
	return sum;
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static void add_gap(const struct tally *tally, const struct tally_workload *workload, const struct tally_gap *gap,
		    struct text *text)
{
	text_add(text, "{\"at_ms\":%.3f,\"ms\":%.3f,\"sequence_before\":%" PRIu64 ",\"sequence_after\":%" PRIu64,
		 ms(gap->start_ns - tally->start_ns), ms(gap->length_ns), gap->sequence_before, gap->sequence_after);
	text_add(text, ",\"host_before\":");
	text_add_json_string(text, workload->hosts[gap->host_before].name);
	text_add(text, ",\"host_after\":");
	text_add_json_string(text, workload->hosts[gap->host_after].name);
	text_add(text, "}");
}

static void add_hosts(const struct tally *tally, const struct tally_workload *workload, struct text *text)
{
	const char *comma = "";
	text_add(text, ",\"hosts\":[");
	for (size_t i = 0; i < workload->hosts_count; i++) {
		const struct tally_host *host = &workload->hosts[i];
		if (!host->beats)
			continue;
		text_add(text, "%s{\"host\":", comma);
		text_add_json_string(text, host->name);
		text_add(text, ",\"beats\":%" PRIu64 ",\"first_ms\":%.3f,\"last_ms\":%.3f,\"intervals\":%zu}",
			 host->beats, ms(host->first_ns - tally->start_ns), ms(host->last_ns - tally->start_ns),
			 host->intervals_count);
		comma = ",";
	}
	text_add(text, "]");
}

static void add_workload(const struct tally *tally, const struct tally_workload *workload, uint64_t now,
			 struct text *text)
{
	text_add(text, "{\"workload\":%" PRIu64 ",\"beats\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"duplicates\":%" PRIu64,
		 workload->id, workload->beats, workload->lost, workload->duplicates);
	text_add(text, ",\"reordered\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"errors\":%u,\"last_sequence\":%" PRIu64,
		 workload->reordered, workload->restarts, workload->errors, workload->last.sequence);
	text_add(text, ",\"work\":%" PRIu64 ",\"verified\":%" PRIu64 ",\"full_passes\":%u", workload->last.work,
		 workload->last.verified, workload->last.full_passes);
	text_add(text, ",\"silent_ms\":%.3f,\"longest_gap_ms\":%.3f,\"longest_gap\":",
		 now > workload->last_ns ? ms(now - workload->last_ns) : 0.0, ms(workload->longest.length_ns));
	if (workload->longest.length_ns)
		add_gap(tally, workload, &workload->longest, text);
	else
		text_add(text, "null");
	text_add(text, ",\"gaps_over_count\":%" PRIu64 ",\"gaps_over\":[", workload->gaps_count);
	for (size_t i = 0; i < workload->gaps_count && i < TALLY_GAPS_MAX; i++) {
		text_add(text, i ? "," : "");
		add_gap(tally, workload, &workload->gaps[i], text);
	}
	text_add(text, "]");
	add_hosts(tally, workload, text);
	text_add(text, ",\"overlap_ms\":%.3f,\"overlap_beats\":%" PRIu64 ",\"double_sequences\":%" PRIu64 "}",
		 ms(tally_overlap_ns(workload)), workload->overlap_beats, workload->double_sequences);
}

void tally_report(const struct tally *tally, uint64_t now, const char *extra, struct text *text)
{
	text_add(text, "{\"mark\":");
	text_add_json_string(text, tally->mark);
	text_add(text, ",\"window_ms\":%.3f,\"gap_over_ms\":%.3f,\"alive_ms\":%.3f,\"refused\":%" PRIu64 "%s",
		 ms(now - tally->mark_ns), ms(tally->gap_ns), ms(tally->alive_ns), tally->refused, extra);
	text_add(text, ",\"workloads\":[");
	for (size_t i = 0; i < tally->workloads_count; i++) {
		text_add(text, i ? "," : "");
		add_workload(tally, tally->workloads[i], now, text);
	}
	text_add(text, "]}");
}

void tally_free(struct tally *tally)
{
	for (size_t i = 0; i < tally->workloads_count; i++) {
		for (size_t h = 0; h < tally->workloads[i]->hosts_count; h++)
			free(tally->workloads[i]->hosts[h].intervals);
		free(tally->workloads[i]);
	}
	tally->workloads_count = 0;
}
