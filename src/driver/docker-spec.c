/*
 * What makes a container the same one elsewhere: the spec out of Docker's inspect, and the request out of the spec. See docker.h.
 *
 * At the target the spec comes from a peer. It may ask for anything that whoever may start containers there may ask for, which is what
 * admitting a peer means; but every member may be missing or of another type. No state; any thread.
 */
#include "driver/docker.h"

#include <errno.h>
#include <string.h>

#define SHORT_ID 12 /* digits of an id that Docker makes an alias of */

bool docker_id_valid(const char *id)
{
	return strlen(id) == 64 && strspn(id, "0123456789abcdef") == 64;
}

const char *docker_target_name(const json_t *spec, const struct driver_options *options)
{
	return options && options->target_id ? options->target_id : docker_json_text(spec, "name");
}

static json_t *copy_of(const json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);

	return value ? json_deep_copy(value) : json_null();
}

/* Networks of a kind that every daemon has; in them no address can be asked for. */
static bool is_builtin(const char *name)
{
	return !strcmp(name, "bridge") || !strcmp(name, "host") || !strcmp(name, "none") || !strcmp(name, "default");
}

/* Names that the source's own id gave are not worth asking for. */
static json_t *aliases_of(const json_t *network, const char *id)
{
	json_t *aliases = json_array(), *one;
	size_t i;

	json_array_foreach (json_object_get(network, "Aliases"), i, one) {
		const char *text = json_string_value(one);

		if (text && strncmp(text, id, SHORT_ID) != 0)
			json_array_append(aliases, one);
	}
	return aliases;
}

static json_t *network_spec(const char *name, const json_t *network, const char *id)
{
	const char *address = docker_json_text(network, "IPAddress"),
		   *address6 = docker_json_text(network, "GlobalIPv6Address");
	json_t *config = json_object(), *ipam = json_object();

	if (!is_builtin(name)) {
		if (*address)
			json_object_set_new(ipam, "IPv4Address", json_string(address));
		if (*address6)
			json_object_set_new(ipam, "IPv6Address", json_string(address6));
		json_object_set_new(config, "Aliases", aliases_of(network, id));
		json_object_set_new(config, "Links", copy_of(network, "Links"));
	}
	json_object_set_new(config, "IPAMConfig", json_object_size(ipam) ? json_incref(ipam) : json_null());
	json_object_set_new(config, "DriverOpts", copy_of(network, "DriverOpts"));
	json_decref(ipam);
	return json_pack("{s:s, s:o, s:s, s:s, s:s}", "name", name, "config", config, "address", address, "address6",
			 address6, "mac", docker_json_text(network, "MacAddress"));
}

/* The network that the container is created with comes first. NetworkMode may name it by its id. */
static int add_networks(const json_t *inspected, json_t *spec)
{
	json_t *all = docker_json_at(inspected, "NetworkSettings.Networks"), *list = json_array(), *network;
	const char *mode = docker_json_text(json_object_get(inspected, "HostConfig"), "NetworkMode"), *name;
	bool keeps = true;

	if (!strcmp(mode, "default"))
		mode = "bridge";
	json_object_foreach (all, name, network) {
		json_t *one = network_spec(name, network, docker_json_text(inspected, "Id"));

		keeps = keeps && (strcmp(name, "bridge") != 0);
		if (!strcmp(name, mode) || !strcmp(docker_json_text(network, "NetworkID"), mode))
			json_array_insert_new(list, 0, one);
		else
			json_array_append_new(list, one);
	}
	json_object_set_new(spec, "connections", json_boolean(keeps));
	return json_object_set_new(spec, "networks", list);
}

static int add_volume(struct docker_api *api, const json_t *mount, json_t *spec, struct error *err)
{
	const char *name = docker_json_text(mount, "Name"), *driver = docker_json_text(mount, "Driver");
	_cleanup_json_ json_t *volume = NULL;
	json_t *options, *one;
	bool local, named;
	int r = docker_api_call(api, "GET", NULL, &volume, err, "/volumes/%s", docker_api_escape(api, name));

	if (r < 0)
		return r;
	options = json_object_get(volume, "Options");
	/* A local volume with options is a mount of something else: a device, a share. It is made again there, not copied. */
	local = !strcmp(driver, "local") && !json_object_size(options);
	named = !(strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64);
	one = json_pack("{s:s, s:s, s:s, s:o, s:o, s:b, s:b, s:s}", "name", name, "destination",
			docker_json_text(mount, "Destination"), "driver", driver, "options", copy_of(volume, "Options"),
			"labels", copy_of(volume, "Labels"), "named", (int)named, "brought", (int)local, "source",
			docker_json_text(mount, "Source"));
	json_array_append_new(json_object_get(spec, "volumes"), one);
	return 0;
}

static int add_mounts(struct docker_api *api, const json_t *inspected, json_t *spec, struct error *err)
{
	json_t *mount;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(inspected, "Mounts"), i, mount) {
		const char *type = docker_json_text(mount, "Type");

		if (!strcmp(type, "volume"))
			r = add_volume(api, mount, spec, err);
		else if (!strcmp(type, "bind"))
			json_array_append_new(json_object_get(spec, "binds"),
					      json_pack("{s:s, s:s}", "source", docker_json_text(mount, "Source"),
							"destination", docker_json_text(mount, "Destination")));
		if (r < 0)
			return r;
	}
	return 0;
}

int docker_spec_make(struct docker_api *api, const json_t *inspected, const char *rule, json_t **ret, struct error *err)
{
	const char *name = docker_json_text(inspected, "Name");
	_cleanup_json_ json_t *spec = json_pack(
		"{s:s, s:s, s:s, s:s, s:o, s:o, s:[], s:[], s:s}", "id", docker_json_text(inspected, "Id"), "name",
		name + (name[0] == '/'), "image", docker_json_text(inspected, "Image"), "image_name",
		docker_json_text(json_object_get(inspected, "Config"), "Image"), "config", copy_of(inspected, "Config"),
		"host_config", copy_of(inspected, "HostConfig"), "volumes", "binds", "bind_rule", rule);
	int r;

	if (!spec)
		return error_set(err, EPROTO, "Docker's description of the container is not what it should be");
	if (add_networks(inspected, spec) < 0)
		return error_set(err, ENOMEM, "no memory to describe the container");
	r = add_mounts(api, inspected, spec, err);
	if (!r)
		r = docker_image_describe(api, spec, err);
	if (!r)
		*ret = TAKE_PTR(spec);
	return r;
}

int docker_spec_read(const struct workload *w, json_t **ret, struct error *err)
{
	static const char *const texts[] = { "id", "name", "image", "image_name", "bind_rule" };
	static const char *const objects[] = { "config", "host_config" };
	static const char *const arrays[] = { "networks", "volumes", "binds", "stdio" };
	_cleanup_json_ json_t *spec = w->spec ? json_loads(w->spec, 0, NULL) : NULL;
	bool good = json_is_object(spec);

	for (size_t i = 0; good && i < ARRAY_SIZE(texts); i++)
		good = json_is_string(json_object_get(spec, texts[i]));
	for (size_t i = 0; good && i < ARRAY_SIZE(objects); i++)
		good = json_is_object(json_object_get(spec, objects[i]));
	for (size_t i = 0; good && i < ARRAY_SIZE(arrays); i++)
		good = json_is_array(json_object_get(spec, arrays[i]));
	if (!good || !docker_id_valid(docker_json_text(spec, "id")) ||
	    json_array_size(json_object_get(spec, "stdio")) != DOCKER_STDIO)
		return error_set(err, EPROTO, "what the peer says of its Docker container cannot be understood");
	*ret = TAKE_PTR(spec);
	return 0;
}

/* Without a restart policy until it runs, and with its hostname, which would else be made of the new id. */
static json_t *host_config_of(const json_t *spec)
{
	json_t *host = json_deep_copy(json_object_get(spec, "host_config"));
	json_t *first = json_array_get(json_object_get(spec, "networks"), 0);

	json_object_set_new(host, "RestartPolicy", json_pack("{s:s, s:i}", "Name", "no", "MaximumRetryCount", 0));
	/* Its own id for the file that the client may have written. */
	json_object_del(host, "ContainerIDFile");
	if (first && strcmp(docker_json_text(host, "NetworkMode"), "default") != 0)
		json_object_set(host, "NetworkMode", json_object_get(first, "name"));
	return host;
}

int docker_spec_body(struct docker_api *api, const json_t *spec, const char *image, json_t **ret, struct error *err)
{
	json_t *body = json_deep_copy(json_object_get(spec, "config")),
	       *first = json_array_get(json_object_get(spec, "networks"), 0);
	const char *mac = docker_json_text(first, "mac"), *name = docker_json_text(first, "name");
	json_t *endpoint = json_deep_copy(json_object_get(first, "config"));

	if (!json_is_object(body)) {
		json_decref(endpoint);
		return error_set(err, EPROTO, "the container has no configuration");
	}
	json_object_set_new(body, "Image", json_string(image));
	json_object_set_new(body, "HostConfig", host_config_of(spec));
	if (*mac && !is_builtin(name)) {
		if (docker_api_daemon(api)->api >= 144)
			json_object_set_new(endpoint, "MacAddress", json_string(mac));
		else
			json_object_set_new(body, "MacAddress", json_string(mac));
	}
	if (first && !is_builtin(name))
		json_object_set_new(body, "NetworkingConfig",
				    json_pack("{s:{s:O}}", "EndpointsConfig", name, endpoint));
	json_decref(endpoint);
	*ret = body;
	return 0;
}
