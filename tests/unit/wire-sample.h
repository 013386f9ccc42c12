/*
 * One valid message of every kind, with all its fields in use: for tests that spoil them and for the seeds of fuzzing.
 */
#pragma once

#include "wire/message.h"

/* The parts point to one another: not to be copied. Nothing in it is on the heap. */
struct wire_sample {
	Phaul__Wire__Control control; /* what to encode */
	Phaul__Wire__Hello hello;
	Phaul__Wire__HelloReply hello_reply;
	Phaul__Wire__File file[2];
	Phaul__Wire__File *files[2];
	int32_t pids[3];
	Phaul__Wire__Workload workload;
	Phaul__Wire__Address address[2];
	Phaul__Wire__Address *addresses[2];
	Phaul__Wire__Neighbour neighbour[3];
	Phaul__Wire__Neighbour *neighbours[3];
	char *sync_paths[2];
	Phaul__Wire__Plan plan;
	Phaul__Wire__Obstacle obstacle[2];
	Phaul__Wire__Obstacle *obstacles[2];
	Phaul__Wire__PlanReply plan_reply;
	Phaul__Wire__Begin begin;
	Phaul__Wire__Ready ready;
	Phaul__Wire__Round round;
	Phaul__Wire__RoundDone round_done;
	Phaul__Wire__Sync sync;
	Phaul__Wire__SyncDone sync_done;
	Phaul__Wire__SyncEnd sync_end;
	Phaul__Wire__Probe probe;
	Phaul__Wire__ProbeReply probe_reply;
	Phaul__Wire__Arm arm;
	Phaul__Wire__Take take;
	uint64_t bounds[2][4];
	Phaul__Wire__SpacePresent present[2];
	Phaul__Wire__SpacePresent *presents[2];
	char *external[2];
	Phaul__Wire__Way way;
	Phaul__Wire__Finish finish;
	Phaul__Wire__Prepared prepared;
	Phaul__Wire__Commit commit;
	Phaul__Wire__Running running;
	Phaul__Wire__Done done;
	Phaul__Wire__Filled filled;
	Phaul__Wire__Abort abort;
	Phaul__Wire__Ping ping;
	Phaul__Wire__Failure failure;
	Phaul__Wire__Resume resume;
	Phaul__Wire__State state;
	Phaul__Wire__Arrived arrived[2], *arriveds[2];
	Phaul__Wire__Missing missing;
	Phaul__Wire__MissingReply missing_reply;
	Phaul__Wire__Lacks lacks;
	Phaul__Wire__Blocks blocks;
	Phaul__Wire__Sums sums;
	Phaul__Wire__SumsReply sums_reply;
	Phaul__Wire__Patch patch;
	Phaul__Wire__PatchEnd patch_end;
};

#define WIRE_SAMPLE_KINDS 34 /* kinds are numbered 1 .. this */

void wire_sample_init(struct wire_sample *s, Phaul__Wire__Control__KindCase kind);
