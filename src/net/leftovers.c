/*
 * See leftovers.h. No state; any thread.
 */
#include "net/leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h> /* before linux/netfilter.h */
#include <linux/netfilter.h>
#include <string.h>
#include <sys/stat.h>

#include "base/array.h"
#include "base/uuid.h"
#include "net/hold.h"
#include "net/mute.h"
#include "net/names.h"
#include "net/nft.h"

static const uint8_t families[] = { NFPROTO_INET, NFPROTO_NETDEV, NFPROTO_ARP, NFPROTO_BRIDGE };

struct tour {
	int (*visit)(void *context, const struct net_place *place, const char *where, struct error *err);
	void *context;
	ino_t *seen;
	size_t n_seen, room;
};

/* A namespace that cannot be looked at, or has just gone, is passed over. */
static int visit_path(struct tour *t, const char *path, struct error *err)
{
	_cleanup_net_place_ struct net_place place = NET_PLACE_HERE;
	struct error ignored;
	struct stat st;

	if (stat(path, &st) < 0)
		return 0;
	for (size_t i = 0; i < t->n_seen; i++)
		if (t->seen[i] == st.st_ino)
			return 0;
	if (net_place_open_path(path, &place, &ignored) < 0)
		return 0;
	if (array_grow(&t->seen, t->n_seen, &t->room, 16, sizeof(*t->seen)) < 0)
		return error_set(err, ENOMEM, "no memory to list network namespaces");
	t->seen[t->n_seen++] = st.st_ino;
	return t->visit(t->context, &place, path, err);
}

/* DIRECTORY/NAME/suffix for each name; of processes only where digits_only. */
static int visit_directory(struct tour *t, const char *directory, const char *suffix, bool digits_only,
			   struct error *err)
{
	_cleanup_closedir_ DIR *dir = opendir(directory);
	struct dirent *entry;
	int r = 0;

	while (dir && !r && (entry = readdir(dir))) {
		char path[400];

		if (digits_only ? !strspn(entry->d_name, "0123456789") : entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s%s", directory, entry->d_name, suffix);
		r = visit_path(t, path, err);
	}
	return r;
}

int net_place_each(int (*visit)(void *context, const struct net_place *place, const char *where, struct error *err),
		   void *context, struct error *err)
{
	struct tour t = { .visit = visit, .context = context };
	int r = visit_path(&t, "/proc/thread-self/ns/net", err);

	if (!r)
		r = visit_directory(&t, "/run/netns", "", false, err);
	if (!r)
		r = visit_directory(&t, "/run/docker/netns", "", false, err);
	if (!r)
		r = visit_directory(&t, "/proc", "/ns/net", true, err);
	free(t.seen);
	return r;
}

/* A family that the kernel lacks has no tables. */
static int list_here(void *context, struct error *err)
{
	struct buffer *names = context;

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		int r = nft_list_tables(families[i], NET_HOLD_PREFIX, names);

		if (r < 0 && r != -EOPNOTSUPP && r != -EAFNOSUPPORT && r != -ENOENT)
			return error_errno(err, -r, "cannot list the nftables tables");
	}
	return buffer_append(names, "", 1) < 0 ? error_set(err, ENOMEM, "no memory to list nftables tables") : 0;
}

static bool has_line(const struct buffer *b, const char *line)
{
	return b->length && memmem(b->data, b->length, line, strlen(line));
}

int net_leftovers_list(const struct net_place *place, struct buffer *ret, struct error *err)
{
	_cleanup_buffer_ struct buffer names = { 0 };
	char *save = NULL;
	int r = net_place_call(place, list_here, &names, err);

	if (r < 0)
		return r;
	for (char *name = strtok_r((char *)names.data, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		bool mute = !strncmp(name, NET_MUTE_PREFIX, strlen(NET_MUTE_PREFIX));
		const char *id = name + strlen(mute ? NET_MUTE_PREFIX : NET_HOLD_PREFIX);
		struct uuid parsed;
		char line[64];

		if (!uuid_parse(id, &parsed))
			continue;
		snprintf(line, sizeof(line), "%s %s\n", mute ? "mute" : "hold", id);
		if (!has_line(ret, line) && buffer_append(ret, line, strlen(line)) < 0)
			return error_set(err, ENOMEM, "no memory to list nftables tables");
	}
	return 0;
}

struct removal {
	const char *id;
	bool speaks;
	int first;
	struct error error;
};

static void note(struct removal *r, int result, const struct error *why)
{
	if (result < 0 && !r->first) {
		r->first = result;
		r->error = *why;
	}
}

static void plug(struct removal *r, const struct net_place *place)
{
	_cleanup_free_ struct net_device *devices = NULL;
	struct error why = { 0 };
	size_t n = 0;

	note(r, net_place_devices(place, &devices, &n, &why), &why);
	for (size_t i = 0; i < n; i++)
		if (devices[i].host_end[0])
			note(r, net_device_set_up(devices[i].host_end, r->speaks, &why), &why);
}

static int remove_there(void *context, const struct net_place *place, const char *where, struct error *err)
{
	_cleanup_buffer_ struct buffer lines = { 0 };
	struct removal *r = context;
	struct error why = { 0 };
	char hold[64], mute[64];
	bool held, muted, other = net_place_is_own(place, &why) == 0;

	(void)where;
	(void)err;
	note(r, net_leftovers_list(place, &lines, &why), &why);
	snprintf(hold, sizeof(hold), "hold %s\n", r->id);
	snprintf(mute, sizeof(mute), "mute %s\n", r->id);
	held = has_line(&lines, hold);
	muted = has_line(&lines, mute);
	if ((held || muted) && other)
		plug(r, place);
	if (held)
		note(r, net_hold_remove(r->id, place, &why), &why);
	if (muted)
		note(r, net_unmute(r->id, place, &why), &why);
	if ((held || muted) && other && r->speaks)
		note(r, net_announce_all(place, &why), &why);
	return 0;
}

int net_leftovers_remove(const char *id, bool speaks, struct error *err)
{
	struct removal removal = { .id = id, .speaks = speaks };
	char name[NET_TABLE_NAME_MAX];
	int r = net_table_name(NET_HOLD_PREFIX, id, name, err);

	if (!r)
		r = net_place_each(remove_there, &removal, err);
	if (!r && removal.first) {
		r = removal.first;
		if (err)
			*err = removal.error;
	}
	return r;
}

static int remove_criu_there(void *context, const struct net_place *place, const char *where, struct error *err)
{
	(void)where;
	return net_criu_table_remove(context, place, err);
}

int net_criu_table_remove_everywhere(const char *table, struct error *err)
{
	return net_place_each(remove_criu_there, (void *)table, err);
}
