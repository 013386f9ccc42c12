/*
 * phaul checkpoint and phaul restore: see checkpoint.h.
 *
 * Invariants: the workload ends here only after everything of it, the manifest last, is on the disk; before that every failure leaves it
 * running. A restore that fails leaves nothing of it here. One thread.
 */
#include "migration/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/logs.h"
#include "criu/criu.h"
#include "migration/container-net.h"
#include "migration/convert.h"
#include "migration/manifest.h"
#include "migration/restorer.h"
#include "migration/session.h"
#include "migration/work-directory.h"

#define PLAN_MAX (80U << 20)
#define COPY_MS DEADLINE_NEVER

struct work {
	const struct checkpoint_options *options;
	const struct driver_ops *driver;
	struct workload workload;
	struct checkpoint_way way;
	struct manifest manifest;
	struct buffer net_settings; /* of the checkpoint that is restored */
	struct uuid id;
	char id_text[UUID_TEXT_SIZE];
	char images[4200], unpacked[4200], work_directory[512];
	struct criu_job *criu;
	struct restorer *restorer;
	struct driver_place place;
	bool armed, prepared;
	int lock; /* says that the work directory is in use */
};

static int work_begin(struct work *w, const char *what, struct error *err)
{
	int r = uuid_new(&w->id);

	uuid_format(&w->id, w->id_text);
	snprintf(w->work_directory, sizeof(w->work_directory), "%s/%s", w->options->run_directory, w->id_text);
	snprintf(w->images, sizeof(w->images), "%s/" MANIFEST_IMAGES, w->options->directory);
	if (r < 0)
		return error_errno(err, -r, "cannot make an id");
	r = work_directory_make(w->options->run_directory, w->id_text, NULL, &w->lock, err);
	if (r < 0)
		return r;
	return geteuid() ? error_set(err, EPERM, "phaul must run as root to %s", what) : 0;
}

static void work_end(struct work *w)
{
	criu_free(w->criu);
	restorer_free(w->restorer);
	checkpoint_way_free(&w->way);
	workload_free(&w->workload);
	buffer_free(&w->net_settings);
	if (w->unpacked[0])
		dir_remove(w->unpacked);
	if (w->work_directory[0])
		dir_remove(w->work_directory);
	close_fd(&w->lock);
}

static int refuse_if(const struct checkpoint_options *o, struct checkpoint_result *ret, struct error *err)
{
	if (!obstacles_refuse(&ret->obstacles) || o->force)
		return 0;
	ret->refused = true;
	for (size_t i = 0; i < ret->obstacles.n; i++)
		if (ret->obstacles.list[i].kind == OBSTACLE_REFUSES)
			return error_set(err, ENOTSUP, "%s", ret->obstacles.list[i].what);
	return -ENOTSUP;
}

/* rsync from one directory of this host to another, exactly; a tree may be a single file as well. */
static int copy_tree(const char *from, const char *to, struct error *err)
{
	char source[4200], target[4200];
	const char *argv[] = { "rsync", "-aHAXS", "--numeric-ids", "--delete", source, target, NULL };
	struct stat st;
	bool file = stat(from, &st) == 0 && S_ISREG(st.st_mode);
	int r;

	snprintf(source, sizeof(source), "%s%s", from, file ? "" : "/");
	snprintf(target, sizeof(target), "%s%s", to, file ? "" : "/");
	if (file)
		argv[3] = "--inplace";
	r = file ? 0 : dir_make(to, 0755);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", to);
	r = process_run(argv, NULL, COPY_MS, err);
	if (r == 24) /* files vanished: the workload runs on meanwhile, and the copy under the freeze comes last */
		return 0;
	return r > 0 ? error_wrap(err, "cannot copy %s", from) : r;
}

static int copy_trees(struct work *w, bool out, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < w->workload.n_trees && !r; i++) {
		char kept[4200];

		snprintf(kept, sizeof(kept), "%s/" MANIFEST_TREES "/%zu", w->options->directory, i);
		r = out ? copy_tree(w->workload.trees[i].path, kept, err)
			: copy_tree(kept, w->workload.trees[i].target_path, err);
	}
	return r;
}

/* The description, packed as for a peer, so that it is checked like one when it is read. */
static int write_plan(struct work *w, struct error *err)
{
	_cleanup_buffer_ struct buffer cpuinfo = { 0 }, settings = { 0 }, packed = { 0 };
	Phaul__Wire__Plan plan = PHAUL__WIRE__PLAN__INIT;
	CONTROL_OF(message, plan, PLAN, &plan);
	Phaul__Wire__Workload workload;
	char path[4400];
	int r = criu_cpuinfo_dump(w->work_directory, &cpuinfo, err);

	if (!r)
		r = container_net_settings(w->driver, &w->workload, &settings, err);
	if (!r)
		r = convert_workload_to_wire(&w->workload, &workload, err);
	if (r < 0)
		return r;
	plan.workload = &workload;
	plan.criu_version = (uint32_t)w->manifest.criu_version;
	plan.cpuinfo.data = cpuinfo.data;
	plan.cpuinfo.len = cpuinfo.length;
	plan.net_settings.data = settings.data;
	plan.net_settings.len = settings.length;
	r = message_encode(&message, &packed, err);
	convert_workload_wire_free(&workload);
	snprintf(path, sizeof(path), "%s/" MANIFEST_PLAN, w->options->directory);
	if (!r && (r = fd_write_file(AT_FDCWD, path, packed.data, packed.length, 0600)) < 0)
		error_errno(err, -r, "cannot write %s", path);
	return r;
}

static int make_directory(const struct checkpoint_options *o, struct error *err)
{
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *e;
	char images[4200];
	int r;

	snprintf(images, sizeof(images), "%s/" MANIFEST_IMAGES, o->directory);
	d = opendir(o->directory);
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return error_set(err, EEXIST, "%s is not empty: name a new directory", o->directory);
	r = dir_make(images, 0700);
	return r < 0 ? error_errno(err, -r, "cannot make %s", images) : 0;
}

static int make_plan(struct work *w, struct checkpoint_result *ret, struct error *err)
{
	const struct checkpoint_options *o = w->options;
	int r;

	w->driver = driver_find(o->type);
	if (!w->driver)
		return error_set(err, EINVAL, "there is no driver for workloads of type \"%s\"", o->type);
	r = w->driver->describe(o->id, &o->driver, &w->workload, err);
	if (!r)
		r = criu_version(&w->manifest.criu_version, err);
	if (!r)
		r = w->driver->check_source(&w->workload, &o->driver, &ret->obstacles, err);
	if (!r)
		r = refuse_if(o, ret, err);
	if (!r)
		r = w->driver->way(&w->workload, &o->driver, &w->way, err);
	snprintf(w->manifest.type, sizeof(w->manifest.type), "%s", w->workload.type);
	snprintf(w->manifest.id, sizeof(w->manifest.id), "%s", w->workload.id);
	w->manifest.way = w->way;
	w->manifest.compressed = o->compress;
	return r;
}

static int dump(struct work *w, struct error *err)
{
	struct criu_options options = {
		.images_directory = w->images,
		.work_directory = w->work_directory,
		.shell_job = w->way.shell_job,
		.tcp_established = w->way.tcp_established,
		.file_locks = w->way.file_locks,
		.ext_unix_sk = w->way.ext_unix_sk,
		.link_remap = w->way.link_remap,
		.ghost_limit_bytes = w->way.ghost_limit_bytes,
		.external = (const char *const *)w->way.external,
		.manage_cgroups = w->way.manage_cgroups,
		.full_memory = true,
	};
	int r = criu_start(&options, &w->criu, err);

	return r < 0 ? r : criu_dump(w->criu, w->workload.root_pid, w->options->cancel_fd, err);
}

/* Files and images are synced before the workload may end. */
static int sync_directory(const char *path, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || syncfs(fd) < 0 ? error_errno(err, errno, "cannot sync %s", path) : 0;
}

static int write_all(struct work *w, struct checkpoint_result *ret, struct error *err)
{
	const struct checkpoint_options *o = w->options;
	int r = copy_trees(w, true, err), mended;

	if (r < 0)
		return r;
	mended = criu_mend_images(w->images, err);
	if (mended < 0)
		return mended;
	r = o->compress && !o->leave_running ? manifest_compress(w->images, err) : 0;
	if (!r)
		r = sync_directory(o->directory, err);
	return r < 0 || o->leave_running ? r : manifest_write(o->directory, &w->manifest, &ret->bytes, err);
}

static void undo(struct work *w)
{
	struct error err = { 0 };

	if (w->criu && criu_dump_rollback(w->criu, &err) < 0)
		log_error("%s", err.text);
	if (w->armed && w->driver->disarm(&w->workload, &w->options->driver, &err) < 0)
		log_error("%s", err.text);
}

/* It runs on: what takes long is done afterwards. */
static int finish_running(struct work *w, struct checkpoint_result *ret, struct error *err)
{
	int r = criu_dump_rollback(w->criu, err);

	if (!r && w->armed)
		r = w->driver->disarm(&w->workload, &w->options->driver, err);
	if (!r && w->options->compress)
		r = manifest_compress(w->images, err);
	return r < 0 ? r : manifest_write(w->options->directory, &w->manifest, &ret->bytes, err);
}

static int finish_ended(struct work *w, struct error *err)
{
	struct error why = { 0 };
	int r = criu_dump_commit(w->criu, err);

	if (!r && w->driver->moved && w->driver->moved(&w->workload, &w->options->driver, &why) < 0)
		log_warning("the checkpoint is whole, but %s", why.text);
	return r;
}

static int checkpoint(struct work *w, struct checkpoint_result *ret, struct error *err)
{
	uint64_t frozen;
	int r = make_directory(w->options, err);

	if (!r)
		r = write_plan(w, err);
	if (!r)
		r = copy_trees(w, true, err);
	if (!r && w->driver->arm) {
		w->armed = true;
		r = w->driver->arm(&w->workload, &w->options->driver, err);
	}
	frozen = clock_now_ns();
	if (!r)
		r = dump(w, err);
	if (!r)
		r = write_all(w, ret, err);
	if (r < 0) {
		undo(w);
		return r;
	}
	ret->frozen_ns = clock_now_ns() - frozen;
	return w->options->leave_running ? finish_running(w, ret, err) : finish_ended(w, err);
}

int checkpoint_make(const struct checkpoint_options *options, struct checkpoint_result *ret, struct error *err)
{
	struct work w = { .options = options, .lock = -1 };
	uint64_t began = clock_now_ns();
	int r = work_begin(&w, "freeze other processes", err);

	if (!r)
		r = make_plan(&w, ret, err);
	snprintf(ret->type, sizeof(ret->type), "%s", w.workload.type);
	snprintf(ret->id, sizeof(ret->id), "%s", w.workload.id);
	if (!r)
		r = checkpoint(&w, ret, err);
	if (r < 0 && err && !ret->refused)
		logs_keep(w.work_directory, options->directory, err->text, sizeof(err->text));
	work_end(&w);
	ret->total_ns = clock_now_ns() - began;
	return r;
}

/* 1: it is this host's. */
static int check_machine(const struct manifest *m, struct obstacles *o)
{
	struct utsname here;

	uname(&here);
	if (!strcmp(m->machine, here.machine))
		return 1;
	return obstacles_add(o, OBSTACLE_REFUSES, true, "restore it on a host of the same architecture",
			     "the checkpoint was made on a host whose architecture is %s; this host's is %s",
			     m->machine, here.machine);
}

static int check_cpu(struct work *w, const ProtobufCBinaryData *cpuinfo, struct obstacles *o, struct error *err)
{
	struct error why = { 0 };

	if (cpuinfo->len && criu_cpuinfo_check(w->work_directory, cpuinfo->data, cpuinfo->len, &why) < 0 &&
	    obstacles_add(o, OBSTACLE_REFUSES, true, "restore it on a CPU with the same features", "%s", why.text) < 0)
		return error_set(err, ENOMEM, "no memory for the plan");
	return 0;
}

static int read_plan(struct work *w, bool skip_cpu_check, struct checkpoint_result *ret, struct error *err)
{
	_cleanup_buffer_ struct buffer packed = { 0 };
	_cleanup_message_ Phaul__Wire__Control *message = NULL;
	char path[4400];
	int r;

	snprintf(path, sizeof(path), "%s/" MANIFEST_PLAN, w->options->directory);
	r = fd_read_file(AT_FDCWD, path, PLAN_MAX, &packed);
	if (r < 0)
		return error_errno(err, -r, "cannot read %s", path);
	r = message_decode(packed.data, packed.length, &message, err);
	if (!r && message->kind_case != PHAUL__WIRE__CONTROL__KIND_PLAN)
		r = error_set(err, EBADMSG, "%s holds no description of a workload", path);
	if (!r)
		r = convert_workload_from_wire(message->plan->workload, &w->workload, err);
	if (r < 0)
		return r;
	r = buffer_append(&w->net_settings, message->plan->net_settings.data, message->plan->net_settings.len);
	if (!r)
		r = check_machine(&w->manifest, &ret->obstacles);
	if (r < 0)
		return error_set(err, ENOMEM, "no memory for the plan");
	return r && !skip_cpu_check ? check_cpu(w, &message->plan->cpuinfo, &ret->obstacles, err) : 0;
}

static int check_restore(struct work *w, struct checkpoint_result *ret, struct error *err)
{
	int version = 0, r = criu_version(&version, err);

	if (r < 0)
		return r;
	if (w->manifest.criu_version > version &&
	    obstacles_add(&ret->obstacles, OBSTACLE_REFUSES, true, "update CRIU here",
			  "the checkpoint was made by CRIU %d.%d.%d, which is newer than the one here",
			  w->manifest.criu_version / 10000, w->manifest.criu_version / 100 % 100,
			  w->manifest.criu_version % 100) < 0)
		return error_set(err, ENOMEM, "no memory for the plan");
	r = w->driver->check_target(&w->workload, &w->options->driver, &ret->obstacles, err);
	return r < 0 ? r : refuse_if(w->options, ret, err);
}

static int prepare(struct work *w, struct error *err)
{
	static char told[544];
	int r;

	snprintf(told, sizeof(told), "%s/told", w->work_directory);
	w->place = (struct driver_place){ .id_text = w->id_text,
					  .work_directory = w->work_directory,
					  .images_directory = told,
					  .options = &w->options->driver,
					  .lock = -1 };
	if (!w->driver->prepare)
		return 0;
	r = dir_make(told, 0700);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", told);
	w->prepared = true;
	r = w->driver->prepare(&w->workload, &w->place, err);
	return r < 0 ? r : copy_trees(w, false, err);
}

static int restore(struct work *w, struct checkpoint_result *ret, struct error *err)
{
	struct checkpoint_way *way = &w->manifest.way;
	char images[4400];
	struct criu_options options = {
		.images_directory = images,
		.work_directory = w->work_directory,
		.shell_job = way->shell_job,
		.tcp_established = way->tcp_established,
		.file_locks = way->file_locks,
		.ext_unix_sk = way->ext_unix_sk,
		.link_remap = way->link_remap,
		.ghost_limit_bytes = way->ghost_limit_bytes,
		.manage_cgroups = way->manage_cgroups,
		.net_settings = w->net_settings.data,
		.net_settings_length = w->net_settings.length,
		.full_memory = true,
	};
	int r;

	/* On the checkpoint's own file system nothing has to be copied; where it cannot be written, in memory. */
	snprintf(w->unpacked, sizeof(w->unpacked), "%.4000s/.restore-%s", w->options->directory, w->id_text);
	r = dir_make(w->unpacked, 0700);
	if (r < 0) {
		snprintf(w->unpacked, sizeof(w->unpacked), "%s/unpacked", w->work_directory);
		r = dir_make(w->unpacked, 0700);
	}
	snprintf(images, sizeof(images), "%s/images", w->unpacked);
	if (!r)
		r = dir_make(images, 0700);
	if (r < 0)
		return error_errno(err, -r, "cannot make %s", images);
	r = manifest_expand(w->images, images, err);
	if (!r)
		r = restorer_new(w->driver, &w->workload, &w->place, &options, w->options->cancel_fd, &w->restorer,
				 err);
	if (!r)
		r = restorer_hold(w->restorer, w->options->cancel_fd, &ret->root_pid, err);
	if (!r)
		r = restorer_resume(w->restorer, err);
	return r < 0 ? r : restorer_finish(w->restorer, err);
}

static void forget(struct work *w)
{
	struct error err = { 0 };

	if (w->restorer && restorer_abort(w->restorer, &err) < 0)
		log_error("%s", err.text);
	restorer_free(TAKE_PTR(w->restorer));
	if (w->prepared && w->driver->forget && w->driver->forget(&w->workload, &w->place, &err) < 0)
		log_error("%s", err.text);
}

int checkpoint_restore(const struct checkpoint_options *options, bool skip_cpu_check, struct checkpoint_result *ret,
		       struct error *err)
{
	struct work w = { .options = options, .lock = -1 };
	uint64_t began = clock_now_ns();
	int r = work_begin(&w, "restore processes", err);

	if (!r)
		r = manifest_read(options->directory, &w.manifest, &ret->bytes, err);
	if (!r && options->type && strcmp(options->type, w.manifest.type) != 0)
		r = error_set(err, EINVAL, "%s holds a %s, not a %s", options->directory, w.manifest.type,
			      options->type);
	if (!r && !(w.driver = driver_find(w.manifest.type)))
		r = error_set(err, ENOTSUP, "this phaul has no driver for %s", w.manifest.type);
	snprintf(ret->type, sizeof(ret->type), "%s", w.manifest.type);
	snprintf(ret->id, sizeof(ret->id), "%s", options->driver.target_id ? options->driver.target_id : w.manifest.id);
	if (!r)
		r = read_plan(&w, skip_cpu_check, ret, err);
	if (!r)
		r = check_restore(&w, ret, err);
	if (!r) {
		r = prepare(&w, err);
		if (!r)
			r = restore(&w, ret, err);
		if (r < 0) {
			forget(&w);
			if (err)
				logs_keep(w.work_directory, options->directory, err->text, sizeof(err->text));
		}
	}
	work_end(&w);
	ret->total_ns = clock_now_ns() - began;
	return r;
}
