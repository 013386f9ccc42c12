/*
 * The LXC driver in restart mode: LXC's own programs stop and start the container. See lxc.h. No state besides the workload; any
 * thread.
 */
#include <errno.h>

#include "base/clock.h"
#include "driver/lxc.h"

#define STOP_S "10" /* then it is killed */
#define STOP_MS 60000
#define START_MS 60000

static int run(const char *const *argv, const char *what, const char *name, uint64_t ms, struct error *err)
{
	int r = process_run(argv, NULL, deadline_in_ms((int64_t)ms), err);

	if (r > 0)
		r = -EIO;
	return r < 0 ? error_wrap(err, "cannot %s container %s", what, name) : 0;
}

int lxc_stop(const struct workload *w, const struct driver_options *options, struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	int r = lxc_spec_decode(w->spec, &s, err);
	const char *argv[] = { "lxc-stop", "-P", s.source_place, "-n", s.source_name, "-t", STOP_S, NULL };

	(void)options;
	return r < 0 ? r : run(argv, "stop", s.source_name, STOP_MS, err);
}

static bool runs(struct lxc_library *l, const char *place, const char *name)
{
	struct lxc_container *c = NULL;
	struct error ignored = { 0 };
	bool is = false;

	if (lxc_library_open(l, place, name, &c, &ignored) == 0) {
		is = c->is_running(c);
		l->container_put(c);
	}
	return is;
}

int lxc_start_again(const struct workload *w, const struct driver_options *options, const struct driver_place *place,
		    struct error *err)
{
	_cleanup_lxc_spec_ struct lxc_spec s = { 0 };
	struct lxc_target_place p;
	struct lxc_library l;
	int r = lxc_spec_decode(w->spec, &s, err);
	const char *directory = s.source_place, *name = s.source_name;

	if (!r)
		r = lxc_library_load(&l, err);
	if (!r && place) {
		r = lxc_target_place(&s, options, &p, err);
		directory = p.place;
		name = s.name;
	}
	if (r < 0)
		return r;
	if (!runs(&l, directory, name)) {
		const char *argv[] = { "lxc-start", "-P", directory, "-n", name, "-d", NULL };

		r = run(argv, "start", name, START_MS, err);
	}
	return r < 0 || !place ? r : lxc_restored(w, place, err);
}
