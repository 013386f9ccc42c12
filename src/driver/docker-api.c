/*
 * Docker's HTTP API: see docker-api.h. One curl handle per connection; no state besides it. What the daemon answers is bounded and parsed,
 * never trusted to have a member.
 */
#include "driver/docker-api.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"

#define API_LOWEST 140	/* Docker 19.03 */
#define API_HIGHEST 144 /* Docker 25; later ones still speak it */
#define CONNECT_MS 5000L
#define ESCAPED_KEPT 8
#define AGAIN_MS 10000 /* a service manager restarts it within seconds */
#define AGAIN_PAUSE_NS 100000000

struct docker_api {
	CURL *curl;
	char socket[108];
	struct docker_daemon daemon;
	char *escaped[ESCAPED_KEPT];
	size_t n_escaped;
	long patience_ms;
	char curl_words[CURL_ERROR_SIZE];
};

const char *docker_json_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

json_t *docker_json_at(const json_t *object, const char *path)
{
	char part[64];

	while (object && *path) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(part))
			return NULL;
		memcpy(part, path, n);
		part[n] = 0;
		object = json_object_get(object, part);
		path += n + (path[n] == '.');
	}
	return (json_t *)object;
}

unsigned int docker_api_number(const char *version)
{
	unsigned int major, minor;
	char end;

	if (sscanf(version, "%2u.%2u%c", &major, &minor, &end) != 2 || minor > 99)
		return 0;
	return major * 100 + minor;
}

const struct docker_daemon *docker_api_daemon(const struct docker_api *api)
{
	return &api->daemon;
}

void docker_api_patience(struct docker_api *api, long ms)
{
	api->patience_ms = ms;
}

void docker_api_free(struct docker_api *api)
{
	if (!api)
		return;
	for (size_t i = 0; i < ESCAPED_KEPT; i++)
		curl_free(api->escaped[i]);
	curl_easy_cleanup(api->curl);
	free(api);
}

const char *docker_api_escape(struct docker_api *api, const char *text)
{
	char **slot = &api->escaped[api->n_escaped++ % ESCAPED_KEPT];

	curl_free(*slot);
	*slot = curl_easy_escape(api->curl, text, 0);
	return *slot ? *slot : "";
}

static size_t take_answer(char *data, size_t size, size_t n, void *context)
{
	struct buffer *b = context;

	if (b->length + size * n > DOCKER_ANSWER_MAX || buffer_append(b, data, size * n) < 0)
		return 0;
	return size * n;
}

static int curl_number(CURLcode code)
{
	switch ((int)code) {
	case CURLE_COULDNT_CONNECT:
		return ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return ETIMEDOUT;
	case CURLE_WRITE_ERROR:
		return EFBIG;
	case CURLE_OUT_OF_MEMORY:
		return ENOMEM;
	default:
		return EIO;
	}
}

static int status_number(long status)
{
	switch (status) {
	case 400:
		return EINVAL;
	case 404:
		return ENOENT;
	case 409:
		return EEXIST;
	default:
		return EIO;
	}
}

static int judge(const char *method, const char *path, long status, struct buffer *answer, json_t **ret,
		 struct error *err)
{
	_cleanup_json_ json_t *json = NULL;
	const char *words;

	if (answer->length)
		json = json_loadb((char *)answer->data, answer->length, JSON_DISABLE_EOF_CHECK, NULL);
	if (status >= 400) {
		words = docker_json_text(json, "message");
		return error_set(err, status_number(status), "Docker refused %s %.*s: %.700s", method,
				 (int)strcspn(path, "?"), path, *words ? words : "it does not say why");
	}
	if (ret && answer->length && !json)
		return error_set(err, EPROTO, "Docker's answer to %s %s is not JSON", method, path);
	if (ret)
		*ret = TAKE_PTR(json);
	return 0;
}

/* What all calls have in common. */
static void prepare(struct docker_api *api, const char *method, const char *url)
{
	curl_easy_reset(api->curl);
	curl_easy_setopt(api->curl, CURLOPT_UNIX_SOCKET_PATH, api->socket);
	curl_easy_setopt(api->curl, CURLOPT_URL, url);
	curl_easy_setopt(api->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(api->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(api->curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, api->patience_ms);
	curl_easy_setopt(api->curl, CURLOPT_ERRORBUFFER, api->curl_words);
	curl_easy_setopt(api->curl, CURLOPT_CUSTOMREQUEST, method);
	api->curl_words[0] = 0;
}

/* path: from the root, version included. */
static int perform(struct docker_api *api, const char *method, const char *path, const char *body, json_t **ret,
		   struct error *err)
{
	_cleanup_buffer_ struct buffer answer = { 0 };
	struct curl_slist *headers = curl_slist_append(NULL, body ? "Content-Type: application/json" : "Content-Type:");
	char url[2200];
	long status = 0;
	CURLcode code;

	snprintf(url, sizeof(url), "http://docker%s", path);
	prepare(api, method, url);
	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, &answer);
	curl_easy_setopt(api->curl, CURLOPT_HTTPHEADER, headers);
	if (!strcmp(method, "POST"))
		curl_easy_setopt(api->curl, CURLOPT_POSTFIELDS, body ? body : "");
	code = curl_easy_perform(api->curl);
	curl_slist_free_all(headers);
	if (code == CURLE_OK)
		curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (code != CURLE_OK)
		return error_set(err, curl_number(code),
				 "cannot speak with the Docker daemon at %s: %s; is it running?", api->socket,
				 *api->curl_words ? api->curl_words : curl_easy_strerror(code));
	return judge(method, path, status, &answer, ret, err);
}

int docker_api_call(struct docker_api *api, const char *method, json_t *body, json_t **ret, struct error *err,
		    const char *fmt, ...)
{
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	char path[2048];
	va_list ap;
	int n, m;

	if (body && !text)
		return error_set(err, ENOMEM, "no memory for a request to Docker");
	n = snprintf(path, sizeof(path), "/v%s", api->daemon.api_version);
	va_start(ap, fmt);
	m = vsnprintf(path + n, sizeof(path) - (size_t)n, fmt, ap);
	va_end(ap);
	if (m < 0 || (size_t)n + (size_t)m >= sizeof(path))
		return error_set(err, ENAMETOOLONG, "a request to Docker would be too long");
	return perform(api, method, path, text, ret, err);
}

struct flow {
	struct docker_api *api;
	int (*take)(void *context, const void *data, size_t length);
	void *context;
	int source_fd, result;
	struct buffer refusal; /* of an answer that is one */
};

static size_t take_flow(char *data, size_t size, size_t n, void *context)
{
	struct flow *f = context;
	long status = 0;

	curl_easy_getinfo(f->api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 400)
		return take_answer(data, size, n, &f->refusal);
	f->result = f->take(f->context, data, size * n);
	return f->result < 0 ? 0 : size * n;
}

static size_t give_flow(char *data, size_t size, size_t n, void *context)
{
	struct flow *f = context;
	ssize_t got;

	do
		got = read(f->source_fd, data, size * n);
	while (got < 0 && errno == EINTR);
	if (got >= 0)
		return (size_t)got;
	f->result = -errno;
	return CURL_READFUNC_ABORT;
}

int docker_api_stream(struct docker_api *api, const char *method, const char *path,
		      int (*take)(void *context, const void *data, size_t length), void *context, int source_fd,
		      struct error *err)
{
	struct flow f = { .api = api, .take = take, .context = context, .source_fd = source_fd };
	/* Without "Expect", for which a daemon that does not answer it is waited for a second. */
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	char url[2200];
	long status = 0;
	CURLcode code;
	int r;

	snprintf(url, sizeof(url), "http://docker/v%s%s", api->daemon.api_version, path);
	prepare(api, method, url);
	curl_easy_setopt(api->curl, CURLOPT_WRITEFUNCTION, take_flow);
	curl_easy_setopt(api->curl, CURLOPT_WRITEDATA, &f);
	if (source_fd >= 0) {
		headers = curl_slist_append(headers, "Content-Type: application/x-tar");
		headers = curl_slist_append(headers, "Transfer-Encoding: chunked");
		curl_easy_setopt(api->curl, CURLOPT_POST, 1L);
		curl_easy_setopt(api->curl, CURLOPT_READFUNCTION, give_flow);
		curl_easy_setopt(api->curl, CURLOPT_READDATA, &f);
	}
	curl_easy_setopt(api->curl, CURLOPT_HTTPHEADER, headers);
	code = curl_easy_perform(api->curl);
	curl_slist_free_all(headers);
	curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 400)
		r = judge(method, path, status, &f.refusal, NULL, err);
	else if (f.result < 0)
		r = error_errno(err, -f.result, "%s",
				method[0] == 'G' ? "cannot pass on what Docker sends"
						 : "cannot read what is for Docker");
	else if (code != CURLE_OK)
		r = error_set(err, curl_number(code), "cannot speak with the Docker daemon at %s: %s", api->socket,
			      *api->curl_words ? api->curl_words : curl_easy_strerror(code));
	else
		r = 0;
	buffer_free(&f.refusal);
	return r;
}

/* Who listens: the socket was made by dockerd, or by what started it and handed it over. */
static int find_listener(const char *path, int *ret_pid)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred peer = { 0 };
	socklen_t length = sizeof(peer);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
		*ret_pid = peer.pid;
	return 0;
}

static int take_version(struct docker_api *api, const json_t *answer, struct error *err)
{
	unsigned int highest = docker_api_number(docker_json_text(answer, "ApiVersion"));
	unsigned int lowest = docker_api_number(docker_json_text(answer, "MinAPIVersion"));

	snprintf(api->daemon.version, sizeof(api->daemon.version), "%s", docker_json_text(answer, "Version"));
	api->daemon.api = MIN(highest, API_HIGHEST);
	if (highest < API_LOWEST)
		return error_set(err, EPROTONOSUPPORT, "Docker %s at %s is too old: phaul needs 19.03 or later",
				 api->daemon.version, api->socket);
	if (lowest > API_HIGHEST)
		return error_set(err, EPROTONOSUPPORT,
				 "Docker %s at %s no longer speaks the API that this phaul knows (%u.%u)",
				 api->daemon.version, api->socket, API_HIGHEST / 100, API_HIGHEST % 100);
	snprintf(api->daemon.api_version, sizeof(api->daemon.api_version), "%u.%u", api->daemon.api / 100,
		 api->daemon.api % 100);
	return 0;
}

static int connect_daemon(struct docker_api *api, struct error *err)
{
	_cleanup_json_ json_t *answer = NULL;
	int r = find_listener(api->socket, &api->daemon.pid);

	if (r < 0)
		return error_errno(err, -r,
				   "the Docker daemon does not answer at %s; start it, or name its socket (--engine)",
				   api->socket);
	api->curl = curl_easy_init();
	if (!api->curl)
		return error_set(err, ENOMEM, "no memory to speak with Docker");
	api->patience_ms = DOCKER_CALL_MS;
	r = perform(api, "GET", "/version", NULL, &answer, err);
	return r < 0 ? r : take_version(api, answer, err);
}

int docker_api_open(const char *socket, struct docker_api **ret, struct error *err)
{
	struct docker_api *api;
	int r;

	if (!socket)
		socket = DOCKER_SOCKET;
	if (!strncmp(socket, "unix://", 7))
		socket += 7;
	if (socket[0] != '/' || strlen(socket) >= sizeof(api->socket))
		return error_set(err, EINVAL,
				 "\"%.128s\" is not the path of Docker's socket (--engine /run/docker.sock)", socket);
	api = calloc(1, sizeof(*api));
	if (!api)
		return error_set(err, ENOMEM, "no memory to speak with Docker");
	snprintf(api->socket, sizeof(api->socket), "%s", socket);
	r = connect_daemon(api, err);
	if (r < 0)
		docker_api_free(api);
	else
		*ret = api;
	return r;
}

int docker_api_open_again(const char *socket, struct docker_api **ret, struct error *err)
{
	const struct timespec pause = { .tv_nsec = AGAIN_PAUSE_NS };
	uint64_t deadline_ns = deadline_in_ms(AGAIN_MS);
	int r;

	/* Nothing tells when a daemon will listen again: its socket may not even exist. */
	while ((r = docker_api_open(socket, ret, err)) < 0 && r != -EINVAL && r != -EPROTONOSUPPORT &&
	       clock_now_ns() < deadline_ns)
		nanosleep(&pause, NULL);
	return r;
}
