/*
 * The registry of drivers. A new engine is one line in `drivers`. No state; any thread.
 */
#include "driver/driver.h"

#include <string.h>

#include "driver/lxc.h"
#include "driver/docker.h"
#include "driver/pid.h"
#include "driver/podman.h"
#include "driver/runc.h"

static const struct driver_ops *const drivers[] = {
	&driver_pid, &driver_runc, &driver_lxc, &driver_docker, &driver_podman, NULL,
};

const struct driver_ops *driver_find(const char *name)
{
	for (size_t i = 0; drivers[i]; i++)
		if (!strcmp(drivers[i]->name, name))
			return drivers[i];
	return NULL;
}

const struct driver_ops *const *driver_all(void)
{
	return drivers;
}

void checkpoint_way_free(struct checkpoint_way *way)
{
	if (!way)
		return;
	for (size_t i = 0; way->external && way->external[i]; i++)
		free(way->external[i]);
	free(way->external);
	*way = (struct checkpoint_way){ 0 };
}
