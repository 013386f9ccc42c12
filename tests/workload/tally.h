/* The books of the observer: what arrived from each workload, when, from which host. Pure: no sockets, no clock. */
#pragma once

#include "common.h"

#define TALLY_WORKLOADS_MAX 256
#define TALLY_HOSTS_MAX 16
#define TALLY_GAPS_MAX 200
#define TALLY_RING (1u << 16) /* sequence numbers remembered: a minute of beats */

struct interval {
	uint64_t first_ns;
	uint64_t last_ns;
};

struct tally_host {
	char name[BEAT_HOST_BYTES];
	uint64_t beats;
	uint64_t first_ns;
	uint64_t last_ns;
	uint64_t total_at_last;	    /* beats of the workload, all hosts, when this host last beat */
	struct interval *intervals; /* times in which it beat without a pause of alive_ns */
	size_t intervals_count;
	size_t intervals_room;
};

struct tally_gap {
	uint64_t start_ns;
	uint64_t length_ns;
	uint64_t sequence_before;
	uint64_t sequence_after;
	uint8_t host_before;
	uint8_t host_after;
};

struct tally_workload {
	uint64_t id;
	struct beat last; /* with the highest sequence */
	bool any;
	uint64_t last_ns;
	uint8_t last_host;
	/* since the mark: */
	uint64_t beats, lost, duplicates, reordered, double_sequences, restarts, overlap_beats;
	uint32_t errors;
	struct tally_gap longest;
	struct tally_gap gaps[TALLY_GAPS_MAX];
	uint64_t gaps_count; /* all, also those that found no room above */
	struct tally_host hosts[TALLY_HOSTS_MAX];
	size_t hosts_count;
	/* For each remembered sequence number, the host it came from + 1; 0: not seen. */
	uint8_t ring[TALLY_RING];
};

struct tally {
	uint64_t gap_ns;   /* gaps longer than this are listed */
	uint64_t alive_ns; /* a host that beats within this long of its last beat counts as alive in between */
	uint64_t start_ns; /* times in reports count from here */
	uint64_t mark_ns;
	char mark[64];
	uint64_t refused; /* datagrams that are no beats, or from too many workloads or hosts */
	struct tally_workload *workloads[TALLY_WORKLOADS_MAX];
	size_t workloads_count;
};

int tally_beat(struct tally *tally, const struct beat *beat, uint64_t arrival_ns);
/* Counts anew from now on. Sequence numbers and the last arrivals stay known, so that a gap over the mark is seen. */
void tally_mark(struct tally *tally, const char *name, uint64_t now);
/* One JSON object, without a newline; `extra` (may be empty) is put in as it is. */
void tally_report(const struct tally *tally, uint64_t now, const char *extra, struct text *text);
/* How long two hosts were alive together, every pair added. */
uint64_t tally_overlap_ns(const struct tally_workload *workload);
void tally_free(struct tally *tally);
