/*
 * The manifest of a checkpoint: see manifest.h. No state; any thread.
 *
 * Checksums guard against damage and mixed-up files, not against somebody who may write the directory: who restores a checkpoint runs
 * what is in it, with all its rights.
 */
#include "migration/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/fd.h"

#define BLOCK_BYTES 65536U /* on the stack */
#define PATH_BYTES 4400U
#define MANIFEST_MAX (16U << 20)
#define ZSTD_LEVEL 3

/* XXH3-64 of a file's content and its size. */
static int sum_file(const char *path, uint64_t *ret_sum, uint64_t *ret_bytes)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char block[BLOCK_BYTES];
	XXH3_state_t *state;
	uint64_t bytes = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	state = XXH3_createState();
	if (!state)
		return -ENOMEM;
	XXH3_64bits_reset(state);
	while ((n = read(fd, block, sizeof(block))) > 0) {
		XXH3_64bits_update(state, block, (size_t)n);
		bytes += (uint64_t)n;
	}
	*ret_sum = XXH3_64bits_digest(state);
	*ret_bytes = bytes;
	XXH3_freeState(state);
	return n < 0 ? -errno : 0;
}

static int add_file(json_t *files, const char *directory, const char *name, uint64_t *bytes, struct error *err)
{
	uint64_t sum, size;
	char path[PATH_BYTES], text[17];
	int r;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	r = sum_file(path, &sum, &size);
	if (r < 0)
		return error_errno(err, -r, "cannot read %s", path);
	snprintf(text, sizeof(text), "%016llx", (unsigned long long)sum);
	json_object_set_new(files, name, json_pack("{s:I, s:s}", "bytes", (json_int_t)size, "xxh3", text));
	*bytes += size;
	return 0;
}

static int list_files(const char *directory, json_t *files, uint64_t *bytes, struct error *err)
{
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *e;
	char path[PATH_BYTES];
	int r = add_file(files, directory, MANIFEST_PLAN, bytes, err);

	snprintf(path, sizeof(path), "%s/" MANIFEST_IMAGES, directory);
	d = opendir(path);
	if (!d)
		return error_errno(err, errno, "cannot read %s", path);
	while (!r && (e = readdir(d))) {
		snprintf(path, sizeof(path), MANIFEST_IMAGES "/%s", e->d_name);
		if (e->d_name[0] != '.')
			r = add_file(files, directory, path, bytes, err);
	}
	return r;
}

int manifest_write(const char *directory, const struct manifest *m, uint64_t *ret_bytes, struct error *err)
{
	json_t *files = json_object(), *o;
	_cleanup_free_ char *text = NULL;
	struct utsname host;
	char path[PATH_BYTES], when[32];
	time_t now = time(NULL);
	struct tm utc;
	int r;

	uname(&host);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	*ret_bytes = 0;
	r = list_files(directory, files, ret_bytes, err);
	if (r < 0) {
		json_decref(files);
		return r;
	}
	o = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:b, s:{s:b, s:b, s:b, s:b, s:b, s:i, s:I}, s:o}",
		      "version", MANIFEST_VERSION, "software", "phaul " PHAUL_VERSION, "time", when, "type", m->type,
		      "id", m->id, "host", host.nodename, "kernel", host.release, "machine", host.machine, "criu",
		      m->criu_version, "compressed", (int)m->compressed, "way", "shell_job", (int)m->way.shell_job,
		      "tcp_established", (int)m->way.tcp_established, "file_locks", (int)m->way.file_locks,
		      "ext_unix_sk", (int)m->way.ext_unix_sk, "link_remap", (int)m->way.link_remap, "manage_cgroups",
		      (int)m->way.manage_cgroups, "ghost_limit", (json_int_t)m->way.ghost_limit_bytes, "files", files);
	text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	if (!text)
		return error_set(err, ENOMEM, "no memory for the manifest");
	snprintf(path, sizeof(path), "%s/manifest.json", directory);
	r = fd_write_file(AT_FDCWD, path, text, strlen(text), 0600);
	return r < 0 ? error_errno(err, -r, "cannot write %s", path) : 0;
}

static int check_files(const char *directory, const json_t *files, uint64_t *bytes, struct error *err)
{
	const char *name;
	json_t *file;

	json_object_foreach ((json_t *)files, name, file) {
		const char *wanted = json_string_value(json_object_get(file, "xxh3"));
		json_int_t size = json_integer_value(json_object_get(file, "bytes"));
		uint64_t sum = 0, found = 0;
		char path[PATH_BYTES], text[17];
		int r;

		if (strstr(name, "..") || name[0] == '/' || !wanted)
			return error_set(err, EBADMSG, "the manifest of %s names a file that cannot be", directory);
		snprintf(path, sizeof(path), "%s/%s", directory, name);
		r = sum_file(path, &sum, &found);
		if (r < 0)
			return error_errno(err, -r, "the checkpoint is not whole: cannot read %s", path);
		snprintf(text, sizeof(text), "%016llx", (unsigned long long)sum);
		if (found != (uint64_t)size || strcmp(text, wanted) != 0)
			return error_set(err, EBADMSG, "the checkpoint is damaged: %s is not what was written", path);
		*bytes += found;
	}
	return json_object_size(files) ? 0 : error_set(err, EBADMSG, "the manifest of %s lists no files", directory);
}

static void read_way(const json_t *way, struct checkpoint_way *ret)
{
	*ret = (struct checkpoint_way){
		.shell_job = json_is_true(json_object_get(way, "shell_job")),
		.tcp_established = json_is_true(json_object_get(way, "tcp_established")),
		.file_locks = json_is_true(json_object_get(way, "file_locks")),
		.ext_unix_sk = json_is_true(json_object_get(way, "ext_unix_sk")),
		.link_remap = json_is_true(json_object_get(way, "link_remap")),
		.manage_cgroups = (uint32_t)json_integer_value(json_object_get(way, "manage_cgroups")),
		.ghost_limit_bytes = (uint64_t)json_integer_value(json_object_get(way, "ghost_limit")),
	};
}

int manifest_read(const char *directory, struct manifest *ret, uint64_t *ret_bytes, struct error *err)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	struct manifest m = { 0 };
	const char *type, *id;
	char path[PATH_BYTES];
	json_t *o;
	int r;

	snprintf(path, sizeof(path), "%s/manifest.json", directory);
	r = fd_read_file(AT_FDCWD, path, MANIFEST_MAX, &text);
	if (r < 0)
		return error_errno(err, -r, "%s is not a checkpoint, or one that was not finished (no manifest.json)",
				   directory);
	o = json_loadb((const char *)text.data, text.length, 0, NULL);
	type = json_string_value(json_object_get(o, "type"));
	id = json_string_value(json_object_get(o, "id"));
	if (!type || !id || json_integer_value(json_object_get(o, "version")) != MANIFEST_VERSION) {
		json_decref(o);
		return error_set(err, EBADMSG, "%s is not the manifest of a checkpoint that phaul %s can read", path,
				 PHAUL_VERSION);
	}
	snprintf(m.type, sizeof(m.type), "%s", type);
	snprintf(m.id, sizeof(m.id), "%s", id);
	snprintf(m.machine, sizeof(m.machine), "%s", json_string_value(json_object_get(o, "machine")) ?: "");
	m.criu_version = (int)json_integer_value(json_object_get(o, "criu"));
	m.compressed = json_is_true(json_object_get(o, "compressed"));
	read_way(json_object_get(o, "way"), &m.way);
	*ret_bytes = 0;
	r = check_files(directory, json_object_get(o, "files"), ret_bytes, err);
	json_decref(o);
	if (!r)
		*ret = m;
	return r;
}

/* One file through a zstd stream, in either direction. */
static int convert(const char *from, const char *to, bool compress)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char source[BLOCK_BYTES], target[BLOCK_BYTES];
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_DCtx *d = ZSTD_createDCtx();
	ssize_t n = 0;
	int r = in < 0 || out < 0 ? -errno : !c || !d ? -ENOMEM : 0;
	size_t left = 1;

	if (!r)
		ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, ZSTD_LEVEL);
	while (!r && (n = read(in, source, BLOCK_BYTES)) >= 0) {
		ZSTD_inBuffer input = { source, (size_t)n, 0 };
		bool more = n || compress; /* the end of the file is the end of a frame, or damage */

		while (!r && more) {
			ZSTD_outBuffer output = { target, BLOCK_BYTES, 0 };

			left = compress ? ZSTD_compressStream2(c, &output, &input, n ? ZSTD_e_continue : ZSTD_e_end)
					: ZSTD_decompressStream(d, &output, &input);
			if (ZSTD_isError(left))
				r = -EBADMSG;
			else
				r = fd_write_full(out, target, output.pos);
			more = input.pos < input.size || output.pos == output.size || (compress && !n && left);
		}
		if (!n)
			break;
	}
	if (!r && n < 0)
		r = -errno;
	if (!r && !compress && left)
		r = -EBADMSG; /* it ends in the middle */
	ZSTD_freeCCtx(c);
	ZSTD_freeDCtx(d);
	return r;
}

/* Calls do_one for each file of a directory, until one fails: with its path and its name. */
static int each_file(const char *directory, int (*do_one)(const char *path, const char *name, const char *where),
		     const char *where)
{
	_cleanup_closedir_ DIR *d = opendir(directory);
	struct dirent *e;
	int r = 0;

	if (!d)
		return -errno;
	while (!r && (e = readdir(d))) {
		char path[PATH_BYTES];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, e->d_name);
		r = do_one(path, e->d_name, where);
	}
	return r;
}

static bool is_compressed(const char *name)
{
	size_t n = strlen(name), suffix = strlen(MANIFEST_COMPRESSED);

	return n > suffix && !strcmp(name + n - suffix, MANIFEST_COMPRESSED);
}

static int compress_one(const char *path, const char *name, const char *images)
{
	char to[PATH_BYTES];
	int r;

	if (is_compressed(name))
		return 0;
	snprintf(to, sizeof(to), "%s/%s" MANIFEST_COMPRESSED, images, name);
	r = convert(path, to, true);
	if (!r && unlink(path) < 0)
		r = -errno;
	return r;
}

int manifest_compress(const char *images, struct error *err)
{
	int r = each_file(images, compress_one, images);

	return r < 0 ? error_errno(err, -r, "cannot compress the images in %s", images) : 0;
}

static int copy(const char *from, const char *to)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char block[BLOCK_BYTES];
	ssize_t n = 0;
	int r = in < 0 || out < 0 ? -errno : 0;

	while (!r && (n = read(in, block, sizeof(block))) > 0)
		r = fd_write_full(out, block, (size_t)n);
	return !r && n < 0 ? -errno : r;
}

static int expand_one(const char *path, const char *name, const char *to_directory)
{
	char to[PATH_BYTES];

	snprintf(to, sizeof(to), "%s/%s", to_directory, name);
	if (is_compressed(name)) {
		to[strlen(to) - strlen(MANIFEST_COMPRESSED)] = 0;
		return convert(path, to, false);
	}
	return link(path, to) < 0 ? copy(path, to) : 0;
}

int manifest_expand(const char *images, const char *to_directory, struct error *err)
{
	int r = each_file(images, expand_one, to_directory);

	return r < 0 ? error_errno(err, -r, "cannot bring the images of %s to %s", images, to_directory) : 0;
}
