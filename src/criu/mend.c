/*
 * Mending what CRIU is known to write wrongly, or so that a restore elsewhere is slower than it need be.
 *
 * Mended files are replaced as a whole (rename), so that a crash leaves the old or the new one. No state; any thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "criu-images.pb-c.h"
#include "criu/criu.h"
#include "criu/images.h"

#define MAGIC_FILES 0x56303138U
#define MAGIC_INVENTORY 0x58313116U
#define INVENTORY_LIMIT (1U << 20)
#define FILE_TIMERFD 17 /* fd_types of fdinfo.proto */
/* enum NETWORK_LOCK_METHOD of criu/include/cr_options.h */
#define NETWORK_LOCK_NFTABLES 1
#define NETWORK_LOCK_SKIP 2

static int append_entry(struct buffer *out, const uint8_t *entry, size_t length)
{
	uint32_t head = (uint32_t)length;
	int r = buffer_append(out, &head, sizeof(head));

	return r < 0 ? r : buffer_append(out, entry, length);
}

/*
 * A periodic timerfd that has expired and was not read is restarted by the kernel only when somebody reads it (or asks): until then
 * fdinfo says "it_value 0", CRIU writes that down, and a restored timer with value 0 is disarmed for ever. Unread ticks
 * tell it from one that was disarmed on purpose, since settime clears them. The next expiration is set one
 * interval ahead: the unread ticks are restored as well, so that the program wakes at once, as it would have.
 * With an absolute timer CRIU adds the present time to the value's seconds and not to its nanoseconds, so that the
 * timer comes up to one second early: it fires at once and goes on from there.
 * Source: timerfd_show(), timerfd_read_iter() in fs/timerfd.c of Linux; timerfd_arm() in criu/pie/restorer.c.
 */
static bool timer_needs_mending(const CriuImages__FileEntry *file)
{
	const CriuImages__TimerfdEntry *t = file->timerfd;

	return file->type == FILE_TIMERFD && t && t->ticks && !t->value_s && !t->value_ns &&
	       (t->interval_s || t->interval_ns);
}

/* Appends the entry to out, mended if need be: 1, as it is: 0. */
static int mend_entry(const uint8_t *entry, size_t length, struct buffer *out)
{
	CriuImages__FileEntry *file = criu_images__file_entry__unpack(NULL, length, entry);
	_cleanup_free_ uint8_t *packed = NULL;
	size_t n;
	int r;

	if (!file)
		return -EBADMSG;
	if (!timer_needs_mending(file)) {
		r = append_entry(out, entry, length);
		goto finish;
	}
	file->timerfd->value_s = file->timerfd->interval_s;
	file->timerfd->value_ns = file->timerfd->interval_ns;
	n = criu_images__file_entry__get_packed_size(file);
	packed = malloc(n);
	if (!packed) {
		r = -ENOMEM;
		goto finish;
	}
	criu_images__file_entry__pack(file, packed);
	r = append_entry(out, packed, n);
	if (!r)
		r = 1;
finish:
	criu_images__file_entry__free_unpacked(file, NULL);
	return r;
}

static int mend_timers(int directory_fd)
{
	_cleanup_image_ struct image image = { 0 };
	_cleanup_buffer_ struct buffer out = { 0 };
	const uint8_t *entry;
	size_t length;
	int r = image_read(directory_fd, "files.img", MAGIC_FILES, &image), n_mended = 0;

	if (r == -ENOENT)
		return 0; /* a tree without any file */
	if (r < 0)
		return r;
	r = buffer_append(&out, image.data.data, IMAGE_HEAD);
	while (!r && (r = image_next(&image, &entry, &length)) > 0) {
		r = mend_entry(entry, length, &out);
		if (r > 0) {
			n_mended++;
			r = 0;
		}
	}
	if (!r && n_mended)
		r = fd_write_file(directory_fd, "files.img", out.data, out.length, 0600);
	return r < 0 ? r : n_mended;
}

/* The one image with a single magic number in front. */
static int read_inventory(int directory_fd, CriuImages__InventoryEntry **ret)
{
	_cleanup_buffer_ struct buffer in = { 0 };
	uint32_t magic, length;
	int r = fd_read_file(directory_fd, "inventory.img", INVENTORY_LIMIT, &in);

	if (r < 0)
		return r;
	if (in.length < 2 * sizeof(uint32_t))
		return -EBADMSG;
	memcpy(&magic, in.data, sizeof(magic));
	memcpy(&length, in.data + sizeof(magic), sizeof(length));
	if (magic != MAGIC_INVENTORY || length != in.length - 2 * sizeof(uint32_t))
		return -EBADMSG;
	*ret = criu_images__inventory_entry__unpack(NULL, length, in.data + 2 * sizeof(uint32_t));
	return *ret ? 0 : -EBADMSG;
}

static int write_without_lock(int directory_fd, CriuImages__InventoryEntry *inventory)
{
	const uint32_t magic = MAGIC_INVENTORY;
	_cleanup_buffer_ struct buffer out = { 0 };
	_cleanup_free_ uint8_t *packed = NULL;
	size_t length;
	int r;

	inventory->has_network_lock_method = true;
	inventory->network_lock_method = NETWORK_LOCK_SKIP;
	length = criu_images__inventory_entry__get_packed_size(inventory);
	packed = malloc(length);
	r = packed ? buffer_append(&out, &magic, sizeof(magic)) : -ENOMEM;
	if (!r) {
		criu_images__inventory_entry__pack(inventory, packed);
		r = append_entry(&out, packed, length);
	}
	return r < 0 ? r : fd_write_file(directory_fd, "inventory.img", out.data, out.length, 0600);
}

/* A tree that shares its host's network namespace is locked, connection by connection, at the source only. The restore finds no
 * such table and still spends 16 ms in libnftables on deleting it, inside of the freeze (seen with 4.2.1). */
static int mend_network_lock(int directory_fd)
{
	CriuImages__InventoryEntry *inventory = NULL;
	int r = read_inventory(directory_fd, &inventory);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = write_without_lock(directory_fd, inventory);
	criu_images__inventory_entry__free_unpacked(inventory, NULL);
	return r;
}

/* Whether the tree has a network namespace of its own: then its devices are in the images. */
static bool has_own_network(int directory_fd)
{
	_cleanup_closedir_ DIR *d = NULL;
	int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	d = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
		if (!strncmp(e->d_name, "netdev-", strlen("netdev-")))
			return true;
	return false;
}

int criu_mend_images(const char *images_directory, struct error *err)
{
	_cleanup_close_ int directory_fd = open(images_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = directory_fd < 0 ? -errno : mend_timers(directory_fd), n_mended = r;

	if (r >= 0 && !has_own_network(directory_fd))
		r = mend_network_lock(directory_fd);
	return r < 0 ? error_errno(err, -r, "cannot mend CRIU's images in %s", images_directory) : n_mended;
}

static bool table_of(const CriuImages__InventoryEntry *inventory, char *ret, size_t size)
{
	if (!inventory->has_network_lock_method || inventory->network_lock_method != NETWORK_LOCK_NFTABLES ||
	    !inventory->dump_criu_run_id || !inventory->dump_criu_run_id[0])
		return false;
	criu_table_of_run(inventory->dump_criu_run_id, strlen(inventory->dump_criu_run_id), ret, size);
	return true;
}

int criu_inventory_table(const char *images_directory, char *ret, size_t size)
{
	_cleanup_close_ int directory_fd = open(images_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CriuImages__InventoryEntry *inventory = NULL;
	int r = directory_fd < 0 ? -errno : read_inventory(directory_fd, &inventory);

	if (!r && !(inventory && table_of(inventory, ret, size)))
		r = -ENOENT;
	if (inventory)
		criu_images__inventory_entry__free_unpacked(inventory, NULL);
	return r;
}

int criu_leave_network_locked(const char *images_directory, char *ret_table, size_t size, struct error *err)
{
	_cleanup_close_ int directory_fd = open(images_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CriuImages__InventoryEntry *inventory = NULL;
	int r = directory_fd < 0 ? -errno : read_inventory(directory_fd, &inventory);

	ret_table[0] = 0;
	if (!r && inventory && table_of(inventory, ret_table, size))
		r = write_without_lock(directory_fd, inventory);
	if (inventory)
		criu_images__inventory_entry__free_unpacked(inventory, NULL);
	return r < 0 ? error_errno(err, -r, "cannot change CRIU's images in %s", images_directory) : 0;
}
