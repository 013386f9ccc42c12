/*
 * Unit tests of the Docker driver against a daemon that says what it was told to say: versions, errors, what is asked for, what is refused,
 * specs that a peer made up. What real daemons do is in tests/drivers/test-docker.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "driver/docker.h"
#include "fake-docker.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define VERSION                                                                                                        \
	{                                                                                                              \
		"GET /version", 200, "{\"Version\":\"20.10.24\",\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}"   \
	}
#define INFO                                                                                                           \
	{                                                                                                              \
		"GET /v1.41/info", 200,                                                                                \
			"{\"ExperimentalBuild\":true,\"Driver\":\"overlay2\",\"CgroupVersion\":\"1\",\"Runtimes\":{"   \
			"\"runc\":{}},"                                                                                \
			"\"DockerRootDir\":\"/var/lib/docker\"}"                                                       \
	}
#define SPEC                                                                                                           \
	"{\"id\":\"" ID "\",\"name\":\"c1\",\"image\":\"sha256:1\",\"image_name\":\"x:1\",\"bind_rule\":\"present\","  \
	"\"config\":{\"Image\":\"x:1\",\"Env\":[\"A=b\"]},\"stdio\":[\"/dev/null\",\"pipe:[1]\",\"pipe:[2]\"],"        \
	"\"host_config\":{\"NetworkMode\":\"lan\",\"Runtime\":\"runc\",\"ContainerIDFile\":\"/x\","                    \
	"\"RestartPolicy\":{\"Name\":\"always\",\"MaximumRetryCount\":0}},\"storage\":\"overlay2\",\"cgroup_"          \
	"version\":\"1\","                                                                                             \
	"\"connections\":true,\"log\":true,\"volumes\":[%s],\"binds\":[%s],\"networks\":[{\"name\":\"lan\","           \
	"\"address\":\"10.7.0.50\",\"address6\":\"\",\"mac\":\"02:42:0a:07:00:32\","                                   \
	"\"config\":{\"IPAMConfig\":{\"IPv4Address\":\"10.7.0.50\"}}}]}"
#define LAN "{\"IPAM\":{\"Config\":[{\"Subnet\":\"%s\"}]},\"Containers\":{%s}}"

static char socket_path[64];

static int make_socket_path(void **state)
{
	(void)state;
	snprintf(socket_path, sizeof(socket_path), "/tmp/phaul-test-docker.%d.sock", getpid());
	return 0;
}

static int remove_socket(void **state)
{
	(void)state;
	unlink(socket_path);
	return 0;
}

static struct docker_api *open_api(int expected, const char *words)
{
	struct docker_api *api = NULL;
	struct error err = { 0 };
	int r = docker_api_open(socket_path, &api, &err);

	if (r != expected || (words && !strstr(err.text, words)))
		fail_msg("%d instead of %d: %s", r, expected, err.text);
	return api;
}

static void version_with(const char *body, int expected, const char *words, const char *spoken)
{
	struct fake_answer answers[] = { { "GET /version", 200, body }, { NULL, 0, NULL } };
	struct fake_docker *d = fake_docker_start(socket_path, answers);
	struct docker_api *api = open_api(expected, words);

	if (spoken)
		assert_string_equal(docker_api_daemon(api)->api_version, spoken);
	docker_api_free(api);
	free(fake_docker_stop(d));
}

static void test_versions(void **state)
{
	(void)state;
	version_with("{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}", 0, NULL, "1.41");
	version_with("{\"ApiVersion\":\"1.51\",\"MinAPIVersion\":\"1.44\"}", 0, NULL, "1.44");
	version_with("{\"ApiVersion\":\"1.39\",\"MinAPIVersion\":\"1.12\"}", -EPROTONOSUPPORT, "too old", NULL);
	version_with("{\"ApiVersion\":\"1.60\",\"MinAPIVersion\":\"1.50\"}", -EPROTONOSUPPORT, "no longer speaks",
		     NULL);
	version_with("{}", -EPROTONOSUPPORT, "too old", NULL);
	version_with("nonsense", -EPROTO, "is not JSON", NULL);
	assert_int_equal(docker_api_number("1.41"), 141);
	assert_int_equal(docker_api_number("1.411"), 0);
	assert_int_equal(docker_api_number(""), 0);
}

static void test_nobody(void **state)
{
	(void)state;
	unlink(socket_path);
	assert_null(open_api(-ENOENT, "does not answer at /tmp/phaul-test-docker"));
	assert_int_equal(docker_api_open("relative", &(struct docker_api *){ NULL }, NULL), -EINVAL);
}

static void test_errors(void **state)
{
	struct fake_answer answers[] = { VERSION,
					 { "POST /v1.41/containers/a%20b/start", 409,
					   "{\"message\":\"name is\\ntaken\"}" },
					 { "GET /v1.41/broken", 200, "{" },
					 { "GET /v1.41/empty", 500, "" },
					 { NULL, 0, NULL } };
	struct fake_docker *d = fake_docker_start(socket_path, answers);
	struct docker_api *api = open_api(0, NULL);
	struct error err = { 0 };
	json_t *answer = NULL;

	(void)state;
	assert_int_equal(
		docker_api_call(api, "POST", NULL, NULL, &err, "/containers/%s/start", docker_api_escape(api, "a b")),
		-EEXIST);
	assert_non_null(strstr(err.text, "taken"));
	assert_int_equal(docker_api_call(api, "GET", NULL, &answer, &err, "/nowhere"), -ENOENT);
	assert_int_equal(docker_api_call(api, "GET", NULL, &answer, &err, "/broken"), -EPROTO);
	assert_int_equal(docker_api_call(api, "GET", NULL, &answer, &err, "/empty"), -EIO);
	assert_non_null(strstr(err.text, "does not say why"));
	assert_null(answer);
	docker_api_free(api);
	free(fake_docker_stop(d));
}

static void read_spec(const char *text, int expected)
{
	struct workload w = { .spec = (char *)text };
	json_t *spec = NULL;

	if (docker_spec_read(&w, &spec, NULL) != expected)
		fail_msg("not %d: %s", expected, text);
	json_decref(spec);
}

static void test_specs_of_a_peer(void **state)
{
	char good[4096], *bad;

	(void)state;
	snprintf(good, sizeof(good), SPEC, "", "");
	read_spec(good, 0);
	read_spec(NULL, -EPROTO);
	read_spec("[]", -EPROTO);
	read_spec("{", -EPROTO);
	for (const char *const *word = (const char *const[]){ "\"id\":", "\"config\":", "\"stdio\":", "\"networks\":",
							      "\"pipe:[2]\"", "\"bind_rule\":\"present\"", ID, NULL };
	     *word; word++) {
		bad = strdup(good);
		assert_non_null(strstr(bad, *word));
		memset(strstr(bad, *word) + 1, 'x', 1);
		if (!strcmp(*word, "\"pipe:[2]\""))
			memcpy(strstr(bad, ",\"xipe:[2]\""), "           ", 11);
		read_spec(bad, -EPROTO);
		free(bad);
	}
}

static void test_request(void **state)
{
	struct fake_answer answers[] = { VERSION, { NULL, 0, NULL } };
	struct fake_docker *d = fake_docker_start(socket_path, answers);
	struct docker_api *api = open_api(0, NULL);
	char text[4096];
	struct workload w = { .spec = text };
	json_t *spec = NULL, *body = NULL, *endpoint;

	(void)state;
	snprintf(text, sizeof(text), SPEC, "", "");
	assert_int_equal(docker_spec_read(&w, &spec, NULL), 0);
	assert_int_equal(docker_spec_body(api, spec, "sha256:1", &body, NULL), 0);
	assert_string_equal(docker_json_text(body, "Image"), "sha256:1");
	assert_string_equal(docker_json_text(body, "MacAddress"), "02:42:0a:07:00:32");
	assert_string_equal(json_string_value(docker_json_at(body, "HostConfig.RestartPolicy.Name")), "no");
	assert_null(docker_json_at(body, "HostConfig.ContainerIDFile"));
	endpoint = docker_json_at(body, "NetworkingConfig.EndpointsConfig.lan");
	assert_string_equal(json_string_value(docker_json_at(endpoint, "IPAMConfig.IPv4Address")), "10.7.0.50");
	json_decref(body);
	json_decref(spec);
	docker_api_free(api);
	free(fake_docker_stop(d));
}

/* Exactly the obstacles whose words are given, of those that the daemon's answers decide: where CRIU is does not count here. */
static void target_says(const struct fake_answer *answers, const char *volumes, const char *binds, const char *words)
{
	struct fake_docker *d = fake_docker_start(socket_path, answers);
	struct driver_options options = { .engine = socket_path };
	struct workload w = { .own_pid_namespace = true };
	struct obstacles o = { 0 };
	struct error err = { 0 };
	char text[8192], found[2048] = "";

	snprintf(text, sizeof(text), SPEC, volumes, binds);
	w.spec = text;
	if (docker_check_target(&w, &options, &o, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < o.n; i++)
		if (!strstr(o.list[i].what, "CRIU"))
			snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s;", o.list[i].what);
	if (*words ? !strstr(found, words) || strchr(found, ';')[1] : *found)
		fail_msg("expected \"%s\", got \"%s\"", words, found);
	obstacles_free(&o);
	free(fake_docker_stop(d));
}

#define IMAGE_THERE                                                                                                    \
	{                                                                                                              \
		"GET /v1.41/images/sha256%3A1/json", 200, "{\"Id\":\"sha256:1\"}"                                      \
	}

static void test_target(void **state)
{
	static const struct {
		const char *subnet, *containers, *words;
	} networks[] = {
		{ "10.7.0.0/24", "", "" },
		{ "10.7.0.32/27", "", "" },
		{ "10.7.0.0/27", "", "does not belong to the network lan" },
		{ "10.7.1.0/24", "", "does not belong to the network lan" },
		{ "nonsense", "", "does not belong to the network lan" },
		{ "10.7.0.0/24", "\"1\":{\"Name\":\"thief\",\"IPv4Address\":\"10.7.0.50/24\"}",
		  "is that of the container thief" },
		{ "10.7.0.0/24", "\"1\":{\"Name\":\"other\",\"IPv4Address\":\"10.7.0.5/24\"}", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(networks); i++) {
		char lan[512];
		struct fake_answer answers[] = {
			VERSION, INFO, IMAGE_THERE, { "GET /v1.41/networks/lan", 200, lan }, { NULL, 0, NULL }
		};

		snprintf(lan, sizeof(lan), LAN, networks[i].subnet, networks[i].containers);
		target_says(answers, "", "", networks[i].words);
	}
}

static void test_target_lacks(void **state)
{
	char lan[512];
	struct fake_answer network = { "GET /v1.41/networks/lan", 200, lan };

	(void)state;
	snprintf(lan, sizeof(lan), LAN, "10.7.0.0/24", "");
	target_says((struct fake_answer[]){ VERSION, INFO, network, { NULL, 0, NULL } }, "", "",
		    "lacks the container's image x:1");
	target_says((struct fake_answer[]){ VERSION, INFO, IMAGE_THERE, { NULL, 0, NULL } }, "", "",
		    "has no Docker network called lan");
	target_says((struct fake_answer[]){ VERSION,
					    INFO,
					    IMAGE_THERE,
					    network,
					    { "GET /v1.41/containers/c1/json", 200, "{}" },
					    { NULL, 0, NULL } },
		    "", "", "has a container called c1 already");
	target_says((struct fake_answer[]){ VERSION, INFO, IMAGE_THERE, network, { NULL, 0, NULL } }, "",
		    "{\"source\":\"/nowhere/at/all\",\"destination\":\"/x\"}", "/nowhere/at/all");
}

static void test_target_volumes(void **state)
{
	const char *volume = "{\"name\":\"data\",\"named\":true,\"brought\":true}";
	static const struct {
		const char *users, *words;
	} cases[] = {
		{ "[]", "has a volume called data already" },
		{ "[{\"Names\":[\"/c1-moved-0123456789ab\"],\"State\":\"exited\"}]", "" },
		{ "[{\"Names\":[\"/c1-moved-0123456789ab\"],\"State\":\"running\"}]",
		  "has a volume called data already" },
		{ "[{\"Names\":[\"/c1-moved-away\"],\"State\":\"exited\"}]", "has a volume called data already" },
		{ "[{\"Names\":[\"/c1-moved-0123456789ab\"],\"State\":\"exited\"},{\"Names\":[\"/"
		  "db\"],\"State\":\"exited\"}]",
		  "has a volume called data already" },
	};
	char lan[512];

	(void)state;
	snprintf(lan, sizeof(lan), LAN, "10.7.0.0/24", "");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake_answer answers[] = { VERSION,
						 INFO,
						 IMAGE_THERE,
						 { "GET /v1.41/networks/lan", 200, lan },
						 { "GET /v1.41/volumes/data", 200, "{}" },
						 { "GET /v1.41/containers/json?all=1&filters=", 200, cases[i].users },
						 { NULL, 0, NULL } };

		target_says(answers, volume, "", cases[i].words);
	}
}

/* A container of ours by its state, whose root task is this process; what Docker says of it decides. */
static void source_says(const char *host, const char *labels, const char *daemon, const char *words)
{
	static const char state[] = "{\"init_process_pid\":%d,\"config\":{\"rootfs\":\"/\",\"namespaces\":["
				    "{\"type\":\"NEWPID\"},{\"type\":\"NEWNS\"},{\"type\":\"NEWIPC\"}]}}";
	char root[] = "/tmp/phaul-test-XXXXXX", place[512], text[2048];
	struct obstacles o = { 0 };
	struct error err = { 0 };
	struct driver_options options = { 0 };
	struct workload w = { .id = "c1", .spec = text };
	bool found = false;
	int n;

	assert_non_null(mkdtemp(root));
	snprintf(place, sizeof(place), "%s/" ID, root);
	assert_int_equal(mkdir(place, 0700), 0);
	snprintf(place, sizeof(place), "%s/" ID "/state.json", root);
	n = snprintf(text, sizeof(text), state, getpid());
	assert_int_equal(fd_write_file(AT_FDCWD, place, text, (size_t)n, 0600), 0);
	snprintf(text, sizeof(text),
		 "{\"id\":\"" ID "\",\"name\":\"c1\",\"image\":\"i\",\"image_name\":\"x\",\"bind_rule\":\"present\","
		 "\"stdio\":[1,2,3],\"networks\":[],\"volumes\":[],\"binds\":[],\"connections\":true,\"log\":true,"
		 "\"state_root\":\"%s\",\"config\":{\"Labels\":{%s}},\"host_config\":{%s},%s}",
		 root, labels, host, *daemon ? daemon : "\"storage\":\"overlay2\"");
	if (docker_check_source(&w, &options, &o, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < o.n; i++)
		found = found || (o.list[i].kind == OBSTACLE_REFUSES && strstr(o.list[i].what, words));
	if (!found)
		fail_msg("no obstacle says \"%s\" (%zu others)", words, o.n);
	obstacles_free(&o);
	assert_int_equal(dir_remove(root), 0);
}

/* What cannot be run in every place, too: privileged containers, devices of GPUs, tasks of a swarm. */
static void test_source(void **state)
{
	static const struct {
		const char *host, *labels, *daemon, *words;
	} cases[] = {
		{ "\"Privileged\":true", "", "", "is privileged: all devices of this host are its own" },
		{ "\"Privileged\":true,\"PidMode\":\"container:db\"", "", "", "shares the process numbers of another" },
		{ "\"NetworkMode\":\"container:db\"", "", "", "shares the network of another container" },
		{ "\"IpcMode\":\"shareable\"", "", "", "/dev/shm may be shared" },
		{ "\"DeviceRequests\":[{}]", "", "", "was given devices of this host" },
		{ "\"VolumesFrom\":[\"db\"]", "", "", "takes volumes from another container" },
		{ "\"Links\":[\"db\"]", "", "", "takes volumes from another container or is linked" },
		{ "", "\"com.docker.swarm.task\":\"1\"", "", "belongs to an orchestrator (a swarm)" },
		{ "", "\"io.kubernetes.pod.name\":\"p\"", "", "belongs to an orchestrator (a pod of Kubernetes)" },
		{ "", "", "\"storage\":\"overlay2\",\"security\":[\"name=userns\"]",
		  "in user namespaces (name=userns)" },
		{ "", "", "\"storage\":\"overlay2\",\"security\":[\"name=rootless\"]", "in user namespaces" },
		{ "", "", "\"storage\":\"btrfs\"", "storage driver here is btrfs" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		source_says(cases[i].host, cases[i].labels, cases[i].daemon, cases[i].words);
}

/* The words of a target that lacks an image, and what the source makes of words that are wrong. */
static void test_lacks(void **state)
{
	static const char images[] = "[{\"Id\":\"sha256:a\"},{\"Id\":\"sha256:b\"},{\"Id\":\"sha256:gone\"}]";
	struct fake_answer answers[] = {
		VERSION,
		{ "GET /v1.41/images/json", 200, images },
		{ "GET /v1.41/images/sha256%3Aa/json", 200, "{\"RootFS\":{\"Layers\":[\"l1\",\"x\",\"l3\"]}}" },
		{ "GET /v1.41/images/sha256%3Ab/json", 200, "{\"RootFS\":{\"Layers\":[\"l1\",\"l2\"]}}" },
		{ NULL, 0, NULL },
	};
	static const char *const wrong[] = { "{\"have\":4}", "{\"have\":-1}" };
	struct driver_options options = { .engine = socket_path };
	char directory[] = "/tmp/phaul-test-XXXXXX", text[4096], *words = NULL;
	struct driver_place place = { .id_text = "m", .work_directory = directory, .options = &options };
	struct fake_docker *d = fake_docker_start(socket_path, answers);
	struct process child = PROCESS_NONE;
	struct workload w = { .spec = text };
	struct error err = { 0 };

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(text, sizeof(text), SPEC, "", "");
	snprintf(strrchr(text, '}'), 80, ",\"layers\":[{\"id\":\"l1\"},{\"id\":\"l2\"},{\"id\":\"l3\"}]}");
	if (docker_lacks(&w, &place, &words, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal(words, "{\"have\":2,\"name\":true}");
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(docker_give(&w, &options, wrong[i], -1, -1, &child, &err), -EPROTO);
	free(words);
	free(fake_docker_stop(d));
	assert_int_equal(dir_remove(directory), 0);
}

static void test_policy(void **state)
{
	struct fake_answer answers[] = { VERSION,
					 { "POST /v1.41/containers/" ID "/update", 200, "{}" },
					 { NULL, 0, NULL } };
	struct driver_options options = { .engine = socket_path };
	struct fake_docker *d = fake_docker_start(socket_path, answers);
	char text[4096], *said, *off, *on;
	struct workload w = { .spec = text };

	(void)state;
	snprintf(text, sizeof(text), SPEC, "", "");
	assert_int_equal(docker_arm(&w, &options, NULL), 0);
	assert_int_equal(docker_disarm(&w, &options, NULL), 0);
	said = fake_docker_stop(d);
	off = strstr(said, "\"Name\":\"no\"");
	on = strstr(said, "\"Name\":\"always\"");
	assert_non_null(off);
	assert_non_null(on);
	assert_true(off < on);
	free(said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),     cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_errors),	     cmocka_unit_test(test_specs_of_a_peer),
		cmocka_unit_test(test_request),	     cmocka_unit_test(test_target),
		cmocka_unit_test(test_target_lacks), cmocka_unit_test(test_target_volumes),
		cmocka_unit_test(test_source),	     cmocka_unit_test(test_lacks),
		cmocka_unit_test(test_policy),
	};

	return cmocka_run_group_tests(tests, make_socket_path, remove_socket);
}
