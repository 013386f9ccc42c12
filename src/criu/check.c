/*
 * Questions to CRIU that touch no task: where it is, its version, what it can do here, whether a CPU fits.
 *
 * Each is a child of its own. Threads: any. Source: criu/cr-service.c (check, handle_feature_check, handle_cpuinfo).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "criu/job.h"

#define ANSWER_MS 30000
#define CPUINFO "cpuinfo.img"
#define CPU_CAPABILITIES_DEFAULT 0xffffffffU

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int criu_find(char *ret_path, size_t size, struct error *err)
{
	static const char *const fallback[] = { "/usr/local/sbin/criu", "/usr/sbin/criu" };
	const char *named = getenv("PHAUL_CRIU"), *path = getenv("PATH");
	char candidate[PATH_MAX];

	if (named && named[0]) {
		if (!is_program(named))
			return error_set(err, ENOENT, "PHAUL_CRIU names %s, which is not a program", named);
		snprintf(ret_path, size, "%s", named);
		return 0;
	}
	while (path && *path) {
		size_t n = strcspn(path, ":");

		snprintf(candidate, sizeof(candidate), "%.*s/criu", (int)n, path);
		if (n && is_program(candidate)) {
			snprintf(ret_path, size, "%s", candidate);
			return 0;
		}
		path += n + (path[n] == ':');
	}
	for (size_t i = 0; i < ARRAY_SIZE(fallback); i++)
		if (is_program(fallback[i])) {
			snprintf(ret_path, size, "%s", fallback[i]);
			return 0;
		}
	return error_set(err, ENOENT,
			 "criu is not installed: it is not on PATH, and not in /usr/local/sbin or /usr/sbin; "
			 "install version 4.1 or newer");
}

/* The first error of a child's stderr, which went to errors_fd. */
static void read_errors(int errors_fd, char *text, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", errors_fd);
	criu_first_error(path, text, size);
}

/* One request to a child of its own. ret is to be freed; the child's stderr stays in errors_fd. */
static int ask(const CriuRpc__Request *request, int errors_fd, const char *what, CriuRpc__Response **ret,
	       struct error *err)
{
	static const char *const environment[] = { "CRIU_CONFIG_FILE=", NULL };
	_cleanup_(rpc_free) struct rpc rpc = RPC_NONE;
	char program[PATH_MAX], reason[ERROR_TEXT_MAX / 2];
	struct rpc_start start = {
		.program = program, .environment = environment, .stderr_fd = errors_fd, .pages_fd = -1
	};
	int r = criu_find(program, sizeof(program), err);

	if (r < 0)
		return r;
	r = rpc_start(&start, &rpc, err);
	if (r < 0)
		return r;
	r = rpc_send(&rpc, request);
	if (!r)
		r = rpc_receive(&rpc, -1, deadline_in_ms(ANSWER_MS), ret);
	if (!r)
		return 0;
	rpc_finish(&rpc, deadline_in_ms(0));
	read_errors(errors_fd, reason, sizeof(reason));
	if (reason[0])
		return error_set(err, -r, "cannot ask %s for its %s: %s", program, what, reason);
	return error_errno(err, -r, "cannot ask %s for its %s", program, what);
}

static int errors_open(void)
{
	return memfd_create("criu-stderr", MFD_CLOEXEC);
}

int criu_version(int *ret_version, struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	_cleanup_close_ int errors_fd = errors_open();
	CriuRpc__Response *response = NULL;
	int r;

	request.type = CRIU_RPC__TYPE__VERSION;
	r = ask(&request, errors_fd, "version", &response, err);
	if (r < 0)
		return r;
	if (response->version)
		*ret_version =
			response->version->major * 10000 + response->version->minor * 100 + response->version->sublevel;
	else
		r = error_set(err, EPROTO, "criu does not say its version");
	criu_rpc__response__free_unpacked(response, NULL);
	return r;
}

int criu_check(struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	CriuRpc__Options options = CRIU_RPC__OPTIONS__INIT;
	_cleanup_close_ int errors_fd = errors_open();
	CriuRpc__Response *response = NULL;
	char reason[ERROR_TEXT_MAX / 2];
	int r;

	request.type = CRIU_RPC__TYPE__CHECK;
	options.images_dir_fd = -1;
	options.has_log_to_stderr = options.log_to_stderr = true;
	request.options = &options;
	r = ask(&request, errors_fd, "check of this kernel", &response, err);
	if (r < 0)
		return r;
	if (!response->success) {
		read_errors(errors_fd, reason, sizeof(reason));
		r = error_set(err, ENOTSUP, "this kernel lacks what CRIU needs: %s (criu check says more)",
			      reason[0] ? reason : "CRIU gave no reason");
	}
	criu_rpc__response__free_unpacked(response, NULL);
	return r;
}

int criu_lazy_supported(struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	CriuRpc__Features features = CRIU_RPC__FEATURES__INIT;
	_cleanup_close_ int errors_fd = errors_open();
	CriuRpc__Response *response = NULL;
	int r;

	request.type = CRIU_RPC__TYPE__FEATURE_CHECK;
	features.has_lazy_pages = features.lazy_pages = true;
	request.features = &features;
	r = ask(&request, errors_fd, "features", &response, err);
	if (r < 0)
		return r;
	if (!response->success || !response->features || !response->features->lazy_pages)
		r = error_set(err, ENOTSUP,
			      "CRIU cannot restore memory lazily here: this kernel has no userfaultfd with events "
			      "(CONFIG_USERFAULTFD, 4.11 or newer)");
	criu_rpc__response__free_unpacked(response, NULL);
	return r;
}

/* Either cpuinfo request; the images directory holds cpuinfo.img. */
static int ask_cpuinfo(const char *directory, bool dump, int errors_fd, CriuRpc__Response **ret, struct error *err)
{
	CriuRpc__Request request = CRIU_RPC__REQUEST__INIT;
	CriuRpc__Options options = CRIU_RPC__OPTIONS__INIT;
	_cleanup_close_ int directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (directory_fd < 0)
		return error_errno(err, errno, "cannot open %s for CRIU", directory);
	request.type = dump ? CRIU_RPC__TYPE__CPUINFO_DUMP : CRIU_RPC__TYPE__CPUINFO_CHECK;
	options.images_dir_fd = directory_fd;
	options.has_log_to_stderr = options.log_to_stderr = true;
	options.has_cpu_cap = true;
	options.cpu_cap = CPU_CAPABILITIES_DEFAULT;
	request.options = &options;
	return ask(&request, errors_fd, "view of the CPU", ret, err);
}

int criu_cpuinfo_dump(const char *directory, struct buffer *ret, struct error *err)
{
	_cleanup_close_ int errors_fd = errors_open();
	CriuRpc__Response *response = NULL;
	char reason[ERROR_TEXT_MAX / 2], path[PATH_MAX];
	int r = ask_cpuinfo(directory, true, errors_fd, &response, err);

	if (r < 0)
		return r;
	if (!response->success) {
		read_errors(errors_fd, reason, sizeof(reason));
		r = error_set(err, EIO, "CRIU could not describe this CPU in %s: %s", directory, reason);
	}
	criu_rpc__response__free_unpacked(response, NULL);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" CPUINFO, directory);
	r = fd_read_file(AT_FDCWD, path, CRIU_CPUINFO_MAX, ret);
	return r < 0 ? error_errno(err, -r, "cannot read CRIU's description of this CPU, %s", path) : 0;
}

int criu_cpuinfo_check(const char *directory, const void *image, size_t length, struct error *err)
{
	_cleanup_close_ int errors_fd = errors_open();
	CriuRpc__Response *response = NULL;
	char reason[ERROR_TEXT_MAX / 2], path[PATH_MAX];
	int r;

	snprintf(path, sizeof(path), "%s/" CPUINFO, directory);
	r = fd_write_file(AT_FDCWD, path, image, length, 0600);
	if (r < 0)
		return error_errno(err, -r, "cannot write %s", path);
	r = ask_cpuinfo(directory, false, errors_fd, &response, err);
	if (r < 0)
		return r;
	if (!response->success) {
		read_errors(errors_fd, reason, sizeof(reason));
		if (response->has_cr_errno && response->cr_errno == ENOTSUP)
			r = error_set(err, EMEDIUMTYPE, "this CPU lacks something that the source's CPU has: %s",
				      reason);
		else
			r = error_set(err, EIO, "CRIU could not compare the CPUs: %s", reason);
	}
	criu_rpc__response__free_unpacked(response, NULL);
	return r;
}
