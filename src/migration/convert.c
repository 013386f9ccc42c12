/*
 * Between what the drivers and net/ know and what the wire carries: see convert.h. Pure.
 *
 * Invariant: what comes from the wire was checked by wire/message.c; here only enums of our own are checked again.
 *
 * Threads: no state, any.
 */
#include "migration/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int no_memory(struct error *err)
{
	return error_set(err, ENOMEM, "no memory to describe the workload");
}

void convert_workload_wire_free(Phaul__Wire__Workload *w)
{
	if (w->files)
		free(w->files[0]);
	free(w->files);
	if (w->trees)
		free(w->trees[0]);
	free(w->trees);
	*w = (Phaul__Wire__Workload)PHAUL__WIRE__WORKLOAD__INIT;
}

/* trees[0] owns the whole array, even when there are none. */
static int trees_to_wire(const struct workload *w, Phaul__Wire__Workload *ret)
{
	Phaul__Wire__Tree *trees = calloc(w->n_trees + 1, sizeof(*trees));

	ret->trees = calloc(w->n_trees + 1, sizeof(Phaul__Wire__Tree *));
	if (!trees || !ret->trees) {
		free(trees);
		free(ret->trees);
		ret->trees = NULL;
		return -ENOMEM;
	}
	ret->trees[0] = trees;
	for (size_t i = 0; i < w->n_trees; i++) {
		phaul__wire__tree__init(&trees[i]);
		trees[i].name = w->trees[i].name;
		trees[i].path = w->trees[i].path;
		ret->trees[i] = &trees[i];
	}
	ret->n_trees = w->n_trees;
	return 0;
}

int convert_workload_to_wire(const struct workload *w, Phaul__Wire__Workload *ret, struct error *err)
{
	Phaul__Wire__File *files = calloc(w->n_files + 1, sizeof(*files));

	phaul__wire__workload__init(ret);
	ret->files = calloc(w->n_files + 1, sizeof(Phaul__Wire__File *));
	if (!files || !ret->files) {
		free(files);
		free(ret->files);
		return no_memory(err);
	}
	/* files[0] owns the whole array, even when there are none. */
	ret->files[0] = files;
	for (size_t i = 0; i < w->n_files; i++) {
		phaul__wire__file__init(&files[i]);
		files[i].path = w->files[i].path;
		files[i].use = w->files[i].use;
		files[i].size = w->files[i].size;
		files[i].mode = w->files[i].mode;
		files[i].hash = w->files[i].hash;
		files[i].writable = w->files[i].writable;
		ret->files[i] = &files[i];
	}
	ret->n_files = w->n_files;
	ret->type = (char *)w->type;
	ret->id = (char *)w->id;
	ret->root_pid = w->root_pid;
	ret->own_pid_namespace = w->own_pid_namespace;
	ret->session_leader = w->session_leader;
	ret->has_terminal = w->has_terminal;
	ret->resident_bytes = w->resident_bytes;
	ret->hugetlb_bytes = w->hugetlb_bytes;
	ret->processes = (uint32_t)w->n_processes;
	ret->pids = w->pids;
	ret->n_pids = w->n_pids;
	if (w->spec)
		ret->spec = w->spec;
	if (trees_to_wire(w, ret) < 0) {
		convert_workload_wire_free(ret);
		return no_memory(err);
	}
	return 0;
}

int convert_workload_from_wire(const Phaul__Wire__Workload *m, struct workload *ret, struct error *err)
{
	struct workload w = {
		.root_pid = m->root_pid,
		.own_pid_namespace = m->own_pid_namespace,
		.session_leader = m->session_leader,
		.has_terminal = m->has_terminal,
		.resident_bytes = m->resident_bytes,
		.hugetlb_bytes = m->hugetlb_bytes,
	};

	snprintf(w.type, sizeof(w.type), "%s", m->type);
	snprintf(w.id, sizeof(w.id), "%s", m->id);
	w.files = calloc(m->n_files + 1, sizeof(*w.files));
	w.pids = calloc(m->n_pids + 1, sizeof(*w.pids));
	if (!w.files || !w.pids)
		goto fail;
	for (; w.n_files < m->n_files; w.n_files++) {
		const Phaul__Wire__File *from = m->files[w.n_files];
		struct workload_file *to = &w.files[w.n_files];

		*to = (struct workload_file){
			.path = strdup(from->path),
			.use = from->use < FILE_USE_MAX ? (enum workload_file_use)from->use : FILE_USE_INVALID,
			.size = from->size,
			.mode = from->mode,
			.hash = from->hash,
			.writable = from->writable,
		};
		if (!to->path)
			goto fail;
	}
	for (; w.n_pids < m->n_pids; w.n_pids++)
		w.pids[w.n_pids] = m->pids[w.n_pids];
	if (m->spec[0] && !(w.spec = strdup(m->spec)))
		goto fail;
	for (size_t i = 0; i < m->n_trees; i++)
		if (workload_add_tree(&w, m->trees[i]->name, m->trees[i]->path) < 0)
			goto fail;
	*ret = w;
	return 0;
fail:
	workload_free(&w);
	return no_memory(err);
}

void convert_address_to_wire(const struct net_address *a, Phaul__Wire__Address *ret)
{
	phaul__wire__address__init(ret);
	ret->family = a->family == AF_INET ? 4 : 6;
	ret->bytes.data = (uint8_t *)a->bytes;
	ret->bytes.len = a->family == AF_INET ? 4 : 16;
	ret->prefix_length = a->prefix_length;
	ret->device = (char *)a->device;
}

void convert_address_from_wire(const Phaul__Wire__Address *m, struct net_address *ret)
{
	*ret = (struct net_address){ .family = m->family == 4 ? AF_INET : AF_INET6,
				     .prefix_length = (uint8_t)m->prefix_length };
	memcpy(ret->bytes, m->bytes.data, m->bytes.len);
	snprintf(ret->device, sizeof(ret->device), "%s", m->device);
}

void convert_neighbour_to_wire(const struct net_neighbour *n, Phaul__Wire__Neighbour *ret)
{
	phaul__wire__neighbour__init(ret);
	ret->mac.data = (uint8_t *)n->mac;
	ret->mac.len = sizeof(n->mac);
	ret->family = n->family == AF_INET ? 4 : n->family == AF_INET6 ? 6 : 0;
	ret->bytes.data = (uint8_t *)n->bytes;
	ret->bytes.len = n->family == AF_INET ? 4 : n->family == AF_INET6 ? 16 : 0;
}

void convert_neighbour_from_wire(const Phaul__Wire__Neighbour *m, struct net_neighbour *ret)
{
	*ret = (struct net_neighbour){ .family = m->family == 4 ? AF_INET : m->family == 6 ? AF_INET6 : 0 };
	memcpy(ret->mac, m->mac.data, sizeof(ret->mac));
	memcpy(ret->bytes, m->bytes.data, m->bytes.len);
}

void convert_way_to_wire(const struct checkpoint_way *way, Phaul__Wire__Way *ret)
{
	phaul__wire__way__init(ret);
	ret->shell_job = way->shell_job;
	ret->tcp_established = way->tcp_established;
	ret->file_locks = way->file_locks;
	ret->ghost_limit_bytes = way->ghost_limit_bytes;
	ret->manage_cgroups = way->manage_cgroups;
	ret->ext_unix_sk = way->ext_unix_sk;
	ret->link_remap = way->link_remap;
	ret->external = way->external;
	while (way->external && way->external[ret->n_external])
		ret->n_external++;
}

void convert_obstacles_wire_free(Phaul__Wire__PlanReply *reply)
{
	if (reply->obstacles)
		free(reply->obstacles[0]);
	free(reply->obstacles);
	reply->obstacles = NULL;
	reply->n_obstacles = 0;
}

int convert_obstacles_to_wire(const struct obstacles *o, Phaul__Wire__PlanReply *ret, struct error *err)
{
	size_t n = MIN(o->n, (size_t)MESSAGE_OBSTACLES_MAX);
	Phaul__Wire__Obstacle *parts = calloc(n + 1, sizeof(*parts));

	ret->obstacles = calloc(n + 1, sizeof(Phaul__Wire__Obstacle *));
	if (!parts || !ret->obstacles) {
		free(parts);
		free(ret->obstacles);
		ret->obstacles = NULL;
		return no_memory(err);
	}
	ret->obstacles[0] = parts;
	for (size_t i = 0; i < n; i++) {
		phaul__wire__obstacle__init(&parts[i]);
		parts[i].refuses = o->list[i].kind == OBSTACLE_REFUSES;
		parts[i].what = o->list[i].what;
		parts[i].cure = o->list[i].cure;
		ret->obstacles[i] = &parts[i];
	}
	ret->n_obstacles = n;
	return 0;
}
