/*
 * Settings of a network namespace, as sysctl(8) shows them: see place.h. No state; any thread.
 *
 * Source: Documentation/networking/ip-sysctl.rst, Documentation/admin-guide/sysctl/net.rst of the kernel.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "net/place.h"

#define VALUE_MAX 512

/* A name by itself changes others when it is written, and CRIU takes care of it (conf/all/forwarding). */
static bool left_out(const char *name)
{
	return !strcmp(name, "ip_forward");
}

/* One line, unless it is not for everybody to read and for root to write, or no text of one line. */
static int read_one(int directory_fd, const char *directory, const char *name, struct buffer *ret)
{
	_cleanup_buffer_ struct buffer value = { 0 };
	struct stat st;
	char *text;
	size_t n;

	if (left_out(name) || fstatat(directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
	    (st.st_mode & 0644) != 0644 || fd_read_file(directory_fd, name, VALUE_MAX, &value) < 0 || !value.length)
		return 0;
	text = (char *)value.data;
	n = strcspn(text, "\n");
	if (n + 1 != value.length)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '\t')
			text[i] = ' ';
		if (text[i] < ' ' || text[i] > '~')
			return 0;
	}
	return buffer_printf(ret, "%s/%s=%.*s\n", directory, name, (int)n, text);
}

static int read_all(void *context, struct error *err)
{
	static const char *const directories[] = { "core", "ipv4", "ipv6" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(directories) && !r; i++) {
		_cleanup_closedir_ DIR *d = NULL;
		struct dirent *e;
		char path[64];

		snprintf(path, sizeof(path), "/proc/sys/net/%s", directories[i]);
		d = opendir(path);
		while (d && !r && (e = readdir(d)))
			if (e->d_name[0] != '.')
				r = read_one(dirfd(d), directories[i], e->d_name, context);
	}
	return r < 0 ? error_errno(err, -r, "cannot read the settings of the container's network") : 0;
}

int net_place_settings(const struct net_place *place, struct buffer *ret, struct error *err)
{
	return net_place_call(place, read_all, ret, err);
}
