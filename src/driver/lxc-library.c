/*
 * liblxc through dlopen(3): see lxc-library.h. Invariant: it is never unloaded, because LXC keeps threads' data and descriptors. Any thread.
 */
#include "driver/lxc-library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define LIBRARY "liblxc.so.1"
#define USUAL_PLACE "/var/lib/lxc"

int lxc_library_load(struct lxc_library *ret, struct error *err)
{
	void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	struct lxc_library l = { 0 };

	if (!handle)
		return error_set(err, ENOENT, "LXC's library %s cannot be loaded: %s", LIBRARY, dlerror());
	*(void **)&l.container_new = dlsym(handle, "lxc_container_new");
	*(void **)&l.container_put = dlsym(handle, "lxc_container_put");
	*(void **)&l.global_item = dlsym(handle, "lxc_get_global_config_item");
	*(void **)&l.version = dlsym(handle, "lxc_get_version");
	*(void **)&l.log_init = dlsym(handle, "lxc_log_init");
	if (!l.container_new || !l.container_put || !l.global_item || !l.version || !l.log_init)
		return error_set(err, ENOENT, "LXC's library %s lacks functions that phaul needs", LIBRARY);
	*ret = l;
	return 0;
}

int lxc_library_place(const struct lxc_library *l, const char *wanted, char *ret, size_t size, struct error *err)
{
	const char *place = wanted ? wanted : l->global_item("lxc.lxcpath");
	int n = snprintf(ret, size, "%s", place ? place : USUAL_PLACE);

	if (n < 0 || (size_t)n >= size || ret[0] != '/')
		return error_set(err, EINVAL, "\"%.200s\" is not the absolute path of a directory of LXC containers",
				 ret);
	while (n > 1 && ret[n - 1] == '/')
		ret[--n] = 0;
	return 0;
}

int lxc_library_open(const struct lxc_library *l, const char *place, const char *name, struct lxc_container **ret,
		     struct error *err)
{
	struct lxc_container *c = l->container_new(name, place);

	if (!c)
		return error_set(err, EIO, "LXC cannot open container %.64s in %.200s", name, place);
	if (!c->is_defined(c)) {
		l->container_put(c);
		return error_set(err, ESRCH, "there is no LXC container %.64s in %.200s", name, place);
	}
	*ret = c;
	return 0;
}

char *lxc_library_item(struct lxc_container *c, const char *key)
{
	int n = c->get_config_item(c, key, NULL, 0);
	char *text;

	if (n <= 0)
		return strdup("");
	text = malloc((size_t)n + 1);
	if (text && c->get_config_item(c, key, text, n + 1) < 0)
		text[0] = 0;
	return text;
}

char *lxc_library_running_item(struct lxc_container *c, const char *key)
{
	char *text = c->get_running_config_item(c, key);

	return text ? text : strdup("");
}
