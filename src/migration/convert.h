/*
 * Between what the drivers and net/ know and what the wire carries.
 */
#pragma once

#include "driver/driver.h"
#include "net/guard.h"
#include "wire/message.h"

/* Builds a message part that borrows the strings of its source; free with convert_*_free(), which frees only what was made. */
int convert_workload_to_wire(const struct workload *w, Phaul__Wire__Workload *ret, struct error *err);
void convert_workload_wire_free(Phaul__Wire__Workload *w);

/* A copy that owns everything. */
int convert_workload_from_wire(const Phaul__Wire__Workload *m, struct workload *ret, struct error *err);

void convert_address_to_wire(const struct net_address *a, Phaul__Wire__Address *ret);
void convert_address_from_wire(const Phaul__Wire__Address *m, struct net_address *ret);

void convert_neighbour_to_wire(const struct net_neighbour *n, Phaul__Wire__Neighbour *ret);
void convert_neighbour_from_wire(const Phaul__Wire__Neighbour *m, struct net_neighbour *ret);

void convert_way_to_wire(const struct checkpoint_way *way, Phaul__Wire__Way *ret);

/* Obstacles found at the target, as the reply carries them. */
int convert_obstacles_to_wire(const struct obstacles *o, Phaul__Wire__PlanReply *ret, struct error *err);
void convert_obstacles_wire_free(Phaul__Wire__PlanReply *reply);
