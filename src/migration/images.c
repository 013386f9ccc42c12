/*
 * CRIU's images on their way: see images.h. One thread on each side.
 *
 * Order: references may only name pages of rounds that the target has acknowledged; the source sends pages-*.img after the last
 * round's end and never sends pages of such spaces in it (source.c), so what the index says is what the store holds.
 */
#include "migration/images.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fd.h"

#define REFERENCES_MAX ((FRAME_CHUNK_MAX - FRAME_OFFSET_BYTES) / FRAME_REFERENCE_BYTES)
#define DATA_PAGES_MAX (FRAME_CHUNK_MAX / PAGE_BYTES)
#define ROOM_SHARE 9 / 10 /* of what is free in the file system of the images */
#define GATHER_BYTES (64U << 10)
#define SMALL_FILE_BYTES (16U << 10)
#define FILE_COST PAGE_BYTES /* what a file takes beside its bytes, or more */

/* What is on its way. A container's images are some hundred files of a few hundred bytes each: they leave together, and are read where they leave from. */
struct outgoing {
	struct session *session;
	struct dedup_index *dedup;
	struct image_counters *counters;
	size_t gathered;
	uint8_t bytes[GATHER_BYTES], file[SMALL_FILE_BYTES];
};

static int flush(struct outgoing *o, struct error *err)
{
	struct iovec iov = { o->bytes, o->gathered };

	o->gathered = 0;
	return iov.iov_len ? channel_writev(o->session->control, &iov, 1, err) : 0;
}

static int send_frame(struct outgoing *o, enum frame_type type, const void *fixed, size_t fixed_bytes, const void *body,
		      size_t body_bytes, struct error *err)
{
	uint8_t header[FRAME_HEADER_BYTES];
	struct iovec iov[3] = { { header, sizeof(header) },
				{ (void *)fixed, fixed_bytes },
				{ (void *)body, body_bytes } };
	size_t length = sizeof(header) + fixed_bytes + body_bytes;
	int r = length > sizeof(o->bytes) - o->gathered ? flush(o, err) : 0;

	frame_encode_header(header, type, (uint32_t)(fixed_bytes + body_bytes));
	if (r < 0)
		return r;
	if (length > sizeof(o->bytes))
		return channel_writev(o->session->control, iov, 3, err);
	for (int i = 0; i < 3; i++) {
		if (iov[i].iov_len)
			memcpy(o->bytes + o->gathered, iov[i].iov_base, iov[i].iov_len);
		o->gathered += iov[i].iov_len;
	}
	return 0;
}

static int send_data(struct outgoing *o, const uint8_t *data, uint64_t from, uint64_t to, struct error *err)
{
	while (from < to) {
		uint64_t n = MIN(to - from, (uint64_t)FRAME_CHUNK_MAX);
		uint8_t offset[FRAME_OFFSET_BYTES];
		int r;

		frame_encode_u64(offset, from);
		r = send_frame(o, FRAME_IMAGE_DATA, offset, sizeof(offset), data + from, n, err);
		if (r < 0)
			return r;
		from += n;
	}
	return 0;
}

/* Runs of known and unknown pages in turn. */
static int send_pages(struct outgoing *o, const uint8_t *data, uint64_t size, struct error *err)
{
	_cleanup_free_ uint8_t *references = malloc(FRAME_OFFSET_BYTES + REFERENCES_MAX * FRAME_REFERENCE_BYTES);
	uint64_t at = 0, whole = size & PAGE_MASK;
	int r = 0;

	if (!references)
		return error_set(err, ENOMEM, "no memory for page references");
	while (at < whole && r >= 0) {
		struct page_reference place;
		uint64_t start = at;
		uint32_t n = 0;

		for (; at < whole && n < REFERENCES_MAX; at += PAGE_BYTES, n++) {
			struct page_hash hash = page_hash_of(data + at);
			struct frame_reference wire;

			if (!dedup_find(o->dedup, &hash, &place))
				break;
			wire = (struct frame_reference){ place.address, hash.low, hash.high, place.space };
			frame_encode_reference(references + (size_t)n * FRAME_REFERENCE_BYTES, &wire);
		}
		if (n) {
			uint8_t offset[FRAME_OFFSET_BYTES];

			frame_encode_u64(offset, start);
			o->counters->pages_referenced += n;
			r = send_frame(o, FRAME_IMAGE_REFERENCES, offset, sizeof(offset), references,
				       (size_t)n * FRAME_REFERENCE_BYTES, err);
			continue;
		}
		for (; at < whole && n < DATA_PAGES_MAX; at += PAGE_BYTES, n++) {
			struct page_hash hash = page_hash_of(data + at);

			if (n && dedup_find(o->dedup, &hash, &place))
				break;
		}
		o->counters->pages_sent += n;
		r = send_data(o, data, start, at, err);
	}
	return r < 0 ? r : send_data(o, data, whole, size, err);
}

static int send_file(struct outgoing *o, int directory_fd, const char *name, bool pages, struct error *err)
{
	_cleanup_close_ int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t size_bytes[FRAME_OFFSET_BYTES];
	struct stat st;
	void *data = NULL;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(err, errno, "cannot open CRIU's image %s", name);
	if (!S_ISREG(st.st_mode) || strlen(name) > FRAME_NAME_MAX)
		return 0;
	frame_encode_u64(size_bytes, (uint64_t)st.st_size);
	r = send_frame(o, FRAME_IMAGE_BEGIN, size_bytes, sizeof(size_bytes), name, strlen(name), err);
	o->counters->files++;
	o->counters->bytes += (uint64_t)st.st_size;
	if (r < 0 || !st.st_size)
		return r;
	if (!pages && (uint64_t)st.st_size <= sizeof(o->file)) {
		r = fd_pread_full(fd, o->file, (size_t)st.st_size, 0);
		return r < 0 ? error_errno(err, -r, "cannot read CRIU's image %s", name)
			     : send_data(o, o->file, 0, (uint64_t)st.st_size, err);
	}
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (data == MAP_FAILED)
		return error_errno(err, errno, "cannot map CRIU's image %s", name);
	r = pages ? send_pages(o, data, (uint64_t)st.st_size, err) : send_data(o, data, 0, (uint64_t)st.st_size, err);
	munmap(data, (size_t)st.st_size);
	return r;
}

static bool is_pages_image(const char *name)
{
	return !strncmp(name, "pages-", 6);
}

int images_send(struct session *s, const char *directory, bool pages, struct dedup_index *dedup,
		struct image_counters *counters, struct error *err)
{
	_cleanup_closedir_ DIR *dir = opendir(directory);
	_cleanup_free_ struct outgoing *o = malloc(sizeof(*o));
	struct dirent *entry;

	if (!dir)
		return error_errno(err, errno, "cannot open the image directory %s", directory);
	if (!o)
		return error_set(err, ENOMEM, "no memory to send CRIU's images");
	o->session = s;
	o->dedup = dedup;
	o->counters = counters;
	o->gathered = 0;
	while ((entry = readdir(dir))) {
		int r;

		if (entry->d_name[0] == '.' || is_pages_image(entry->d_name) != pages)
			continue;
		r = send_file(o, dirfd(dir), entry->d_name, pages, err);
		if (r < 0)
			return r;
	}
	return flush(o, err);
}

int image_sink_open(const char *directory, struct store *store, struct image_sink *ret, struct error *err)
{
	_cleanup_close_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t free_bytes;
	int r;

	if (fd < 0)
		return error_errno(err, errno, "cannot open the image directory %s", directory);
	r = dir_free_bytes(directory, &free_bytes);
	if (r < 0)
		return error_errno(err, -r, "cannot ask for the room in %s", directory);
	*ret = (struct image_sink){
		.directory_fd = TAKE_FD(fd), .file_fd = -1, .store = store, .room = free_bytes * ROOM_SHARE
	};
	return 0;
}

static int sink_take_room(struct image_sink *sink, uint64_t bytes, struct error *err)
{
	if (bytes > sink->room)
		return error_set(
			err, ENOSPC,
			"CRIU's images take more than nine tenths of what was free for them at the target; make "
			"room in its run directory");
	sink->room -= bytes;
	return 0;
}

static int sink_end_file(struct image_sink *sink, struct error *err)
{
	if (sink->file_fd < 0)
		return 0;
	close_fd(&sink->file_fd);
	if (sink->received != sink->size)
		return error_set(err, EPROTO, "the peer sent %llu of %llu bytes of the image %s",
				 (unsigned long long)sink->received, (unsigned long long)sink->size, sink->name);
	return 0;
}

static int sink_begin(struct image_sink *sink, uint32_t length, const uint8_t *body, struct error *err)
{
	int r = sink_end_file(sink, err);

	if (!r)
		r = frame_decode_image_begin(body, length, &sink->size, sink->name, err);
	if (!r)
		r = sink_take_room(sink, FILE_COST, err);
	if (r < 0)
		return r;
	sink->received = 0;
	sink->files++;
	/* O_EXCL: one name, one file; no link can have been put there by anybody. */
	sink->file_fd =
		openat(sink->directory_fd, sink->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (sink->file_fd < 0)
		return error_errno(err, errno, "cannot create the image %s", sink->name);
	return 0;
}

/* Pieces come in order and without gaps: as many bytes as the file is long could otherwise leave holes in it, where others came
 * twice. */
static int sink_write(struct image_sink *sink, const void *data, size_t n, uint64_t offset, struct error *err)
{
	int r = sink_take_room(sink, n, err);

	if (r < 0)
		return r;
	if (offset != sink->received)
		return error_set(err, EPROTO, "the peer sent the pieces of the image %s out of order", sink->name);
	while (n) {
		ssize_t done = pwrite(sink->file_fd, data, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return error_errno(err, errno, "cannot write CRIU's image %s at the target", sink->name);
		data = (const char *)data + done;
		offset += (uint64_t)done;
		n -= (size_t)done;
		sink->received += (uint64_t)done;
	}
	return 0;
}

static int sink_references(struct image_sink *sink, uint32_t length, const uint8_t *body, struct error *err)
{
	uint8_t page[PAGE_BYTES] __attribute__((aligned(64)));
	uint64_t offset;
	uint32_t n;
	int r = frame_decode_image_references(body, length, sink->size, &offset, &n, err);

	for (uint32_t i = 0; i < n && r >= 0; i++) {
		struct frame_reference reference;
		struct page_hash hash;

		r = frame_decode_reference(body, i, &reference, err);
		if (!r)
			r = store_get(sink->store, reference.space, reference.address, 1, page, err);
		if (r < 0)
			return r;
		hash = page_hash_of(page);
		if (hash.low != reference.low || hash.high != reference.high)
			return error_set(
				err, EBADMSG,
				"page %llx of space %u is not what the source believes it to be; nothing was resumed",
				(unsigned long long)reference.address, reference.space);
		r = sink_write(sink, page, PAGE_BYTES, offset + ((uint64_t)i << PAGE_SHIFT), err);
	}
	return r;
}

int image_sink_take(struct image_sink *sink, const struct frame_header *header, const uint8_t *body, struct error *err)
{
	uint64_t offset;
	uint32_t n;
	int r;

	if (header->type == FRAME_IMAGE_BEGIN)
		return sink_begin(sink, header->length, body, err);
	if (sink->file_fd < 0)
		return error_set(err, EPROTO, "the peer sent a piece of an image before its name");
	if (header->type == FRAME_IMAGE_REFERENCES)
		return sink_references(sink, header->length, body, err);
	r = frame_decode_image_data(body, header->length, sink->size, &offset, &n, err);
	return r ? r : sink_write(sink, body + FRAME_OFFSET_BYTES, n, offset, err);
}

int image_sink_finish(struct image_sink *sink, uint32_t files, struct error *err)
{
	int r = sink_end_file(sink, err);

	if (!r && sink->files != files)
		return error_set(err, EPROTO, "%u of %u images arrived", sink->files, files);
	return r;
}

void image_sink_close(struct image_sink *sink)
{
	close_fd(&sink->file_fd);
	close_fd(&sink->directory_fd);
}
