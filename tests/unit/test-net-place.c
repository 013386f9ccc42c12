/*
 * Unit tests of net/place and net/mute: from the test's own namespace "home" into "there" (net-rig.h). Needs root.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/process.h"
#include "base/uuid.h"
#include "net-rig.h"
#include "net/hold.h"
#include "net/leftovers.h"
#include "net/mute.h"

static struct net_place there;

static int setup(void **state)
{
	char path[64];
	int r = net_rig_setup(state);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", net_rig.there);
	assert_int_equal(net_place_open_path(path, &there, NULL), 0);
	assert_int_equal(net_address_add(&net_rig.here4, NULL), 0);
	assert_int_equal(net_address_add(&net_rig.here6, NULL), 0);
	return r;
}

static ino_t own_inode(void)
{
	struct stat st;

	assert_int_equal(stat("/proc/thread-self/ns/net", &st), 0);
	return st.st_ino;
}

static void test_open(void **state)
{
	struct net_place own = NET_PLACE_HERE, none = NET_PLACE_HERE;
	struct error err;

	(void)state;
	assert_int_equal(net_place_is_own(NULL, &err), 1);
	assert_int_equal(net_place_is_own(&own, &err), 1);
	assert_int_equal(net_place_open_path("/proc/thread-self/ns/net", &own, &err), 0);
	assert_int_equal(net_place_is_own(&own, &err), 1);
	assert_int_equal(net_place_is_own(&there, &err), 0);
	assert_int_equal(net_place_open_path("/proc/self/ns/mnt", &none, &err), -EINVAL);
	assert_non_null(strstr(err.text, "/proc/self/ns/mnt"));
	assert_int_equal(net_place_open_path("/dev/null", &none, &err), -EINVAL);
	assert_int_equal(net_place_open_path("/run/netns/none/none", &none, &err), -ENOENT);
	assert_int_equal(net_place_open_pid(0x7fffffff, &none, &err), -ENOENT);
	assert_int_equal(none.netns_fd, -1);
	net_place_close(&own);
	net_place_close(&own);
	net_place_close(NULL);
	assert_int_equal(net_place_open_pid(getpid(), &own, &err), 0);
	net_place_close(&own);
}

static int set_backlog(void *context, struct error *err)
{
	_cleanup_close_ int fd = open("/proc/sys/net/core/somaxconn", O_WRONLY | O_CLOEXEC);
	const char *value = context;

	return fd < 0 || write(fd, value, strlen(value)) < 0 ? error_errno(err, errno, "cannot set somaxconn") : 0;
}

/* Of that namespace, one line each; nothing of single devices, nothing that only root may read. */
static void test_settings(void **state)
{
	_cleanup_buffer_ struct buffer here = { 0 }, text = { 0 };
	struct error err;

	(void)state;
	assert_int_equal(net_place_call(&there, set_backlog, "1234", &err), 0);
	assert_int_equal(net_place_settings(&there, &text, &err), 0);
	assert_int_equal(net_place_settings(NULL, &here, &err), 0);
	assert_non_null(strstr((char *)text.data, "core/somaxconn=1234\n"));
	assert_null(strstr((char *)here.data, "core/somaxconn=1234\n"));
	/* Three numbers with tabs between them in the file. */
	assert_non_null(strstr((char *)text.data, "\nipv4/tcp_rmem="));
	assert_null(strchr((char *)text.data, '\t'));
	assert_null(strstr((char *)text.data, "ip_forward="));
	assert_null(strstr((char *)text.data, "tcp_fastopen_key"));
	assert_null(strstr((char *)text.data, "conf"));
	assert_int_equal(text.data[text.length - 1], '\n');
}

static int note_inode(void *context, struct error *err)
{
	*(ino_t *)context = own_inode();
	return error_set(err, ENOTTY, "from there");
}

static void test_call(void **state)
{
	ino_t before = own_inode(), inside = 0;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(net_place_call(&there, note_inode, &inside, &err), -ENOTTY);
	assert_string_equal(err.text, "from there");
	assert_true(inside && inside != before);
	assert_int_equal(own_inode(), before);
	assert_int_equal(net_place_call(NULL, note_inode, &inside, &err), -ENOTTY);
	assert_int_equal(inside, before);
}

static const struct net_device *find_device(const struct net_device *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	fail_msg("no device %s", name);
	return NULL;
}

static void test_devices(void **state)
{
	_cleanup_free_ struct net_device *inside = NULL, *here = NULL;
	const struct net_device *inner, *outer;
	size_t n_inside, n_here;
	struct error err;

	(void)state;
	assert_int_equal(net_place_devices(&there, &inside, &n_inside, &err), 0);
	assert_int_equal(net_place_devices(NULL, &here, &n_here, &err), 0);
	inner = find_device(inside, n_inside, "phaul1");
	outer = find_device(here, n_here, "phaul0");
	assert_true(inner->up && inner->has_mac && !inner->loopback);
	assert_string_equal(inner->host_end, "phaul0");
	assert_string_equal(inner->bridge, "");
	assert_int_equal(inner->link, outer->index);
	assert_int_equal(outer->link, inner->index);
	assert_string_equal(outer->host_end, "");
	assert_true(memcmp(inner->mac, outer->mac, 6) != 0);
	assert_true(find_device(inside, n_inside, "lo")->loopback);
}

static bool same(const struct net_address *a, const struct net_address *b)
{
	return a->family == b->family && a->prefix_length == b->prefix_length && !strcmp(a->device, b->device) &&
	       !memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

static void test_addresses(void **state)
{
	struct net_address *wanted[] = { &net_rig.there4, &net_rig.there6 };
	_cleanup_free_ struct net_place_address *list = NULL;
	size_t n, found = 0;
	struct error err;

	(void)state;
	assert_int_equal(net_place_addresses(&there, &list, &n, &err), 0);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(list[i].address.device, "phaul1"); /* none of loopback */
		assert_true(list[i].has_mac && list[i].up);
		for (size_t k = 0; k < ARRAY_SIZE(wanted); k++)
			found += !list[i].link_local && same(&list[i].address, wanted[k]);
	}
	assert_int_equal(found, 2);
}

/* Frames that come in at home, from the other end, whatever they are. */
static int listen_frames(void)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_ALL),
				  .sll_ifindex = (int)if_nametoindex("phaul0") };
	int on = 1, fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static int count_frames(int fd, int wait_ms)
{
	int n = 0;

	while (fd_wait(fd, POLLIN, deadline_in_ms(wait_ms)) == 1) {
		char frame[64];

		n += recv(fd, frame, sizeof(frame), 0) > 0;
	}
	return n;
}

/* "there" is asked for its addresses, as if nobody knew them. */
static void provoke(void)
{
	const char *const forget[] = { "ip", "neigh", "flush", "dev", "phaul0", NULL };
	struct net_address *both[] = { &net_rig.there4, &net_rig.there6 };
	struct error err;

	assert_int_equal(process_run(forget, NULL, deadline_in_ms(RIG_ANSWER_MS), &err), 0);
	for (size_t i = 0; i < 2; i++) {
		struct sockaddr_storage to;
		socklen_t length = net_rig_socket_address(both[i], &to);
		_cleanup_close_ int fd = socket(both[i]->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, length), 1);
	}
}

static void check_silence(bool silent)
{
	_cleanup_close_ int fd = listen_frames();
	struct error err;
	int n;

	provoke();
	/* The kernel tells whoever sends that the frame was dropped. */
	assert_int_equal(net_announce_all(&there, &err) < 0, silent);
	n = count_frames(fd, RIG_SILENCE_MS);
	if (silent)
		assert_int_equal(n, 0);
	else
		assert_true(n >= 6 + 3 + 2); /* announcements, an answer to ARP and to ND */
}

static void test_mute(void **state)
{
	const char *id = net_rig_id();
	struct error err = { 0 };
	uint64_t began, muted, unmuted;

	(void)state;
	check_silence(false);
	for (int again = 0; again < 2; again++) {
		began = clock_now_ns();
		if (net_mute(id, &there, &err) < 0)
			fail_msg("%s", err.text);
		muted = clock_now_ns() - began;
		print_message("# muted within %.2f ms\n", (double)muted / 1e6);
	}
	check_silence(true);
	began = clock_now_ns();
	assert_int_equal(net_unmute(id, &there, &err), 0);
	unmuted = clock_now_ns() - began;
	check_silence(false);
	print_message("# unmuted within %.2f ms\n", (double)unmuted / 1e6);
	assert_int_equal(net_unmute(id, &there, &err), 0);
	assert_int_equal(net_mute("../x", &there, &err), -EINVAL);
	assert_int_equal(net_unmute("", &there, &err), -EINVAL);
}

static void delete_table(const char *family, const char *name)
{
	const char *const argv[] = { "nft", "delete", "table", family, name, NULL };

	net_rig_enter(net_rig.there);
	assert_int_equal(process_run(argv, NULL, deadline_in_ms(RIG_ANSWER_MS), NULL), 0);
	net_rig_enter(net_rig.home);
}

/* Each of the two ways alone, as on kernels that lack the other. */
static void test_mute_ways(void **state)
{
	static const char *const ways[2][2] = { { "netdev", NULL }, { "inet", "arp" } };
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		_cleanup_close_ int fd = listen_frames();
		const char *id = net_rig_id();
		char name[80];

		snprintf(name, sizeof(name), "phaul-mute-%s", id);
		assert_int_equal(net_mute(id, &there, &err), 0);
		for (size_t k = 0; k < 2 && ways[i][k]; k++)
			delete_table(ways[i][k], name);
		provoke();
		assert_int_equal(count_frames(fd, RIG_SILENCE_MS), 0);
		assert_int_equal(net_unmute(id, &there, &err), 0);
		provoke();
		assert_true(count_frames(fd, RIG_SILENCE_MS) >= 2);
	}
	assert_int_equal(net_mute(net_rig_id(), NULL, &err), -EINVAL);
}

/* It is found by its name, in that namespace only. */
static void test_mute_names(void **state)
{
	static const char *const families[] = { "netdev", "inet", "arp" };
	const char *id = net_rig_id();
	char name[80];
	struct error err;

	(void)state;
	snprintf(name, sizeof(name), "phaul-mute-%s", id);
	assert_int_equal(net_mute(id, &there, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		assert_false(net_rig_table_exists(families[i], name));
		net_rig_enter(net_rig.there);
		assert_true(net_rig_table_exists(families[i], name));
		net_rig_enter(net_rig.home);
	}
	assert_int_equal(net_unmute(id, &there, &err), 0);
	net_rig_enter(net_rig.there);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		assert_false(net_rig_table_exists(families[i], name));
	net_rig_enter(net_rig.home);
}

static bool lists(const struct net_place *place, const char *what, const char *id)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	struct error err;
	char line[80];

	snprintf(line, sizeof(line), "%s %s\n", what, id);
	assert_int_equal(net_leftovers_list(place, &text, &err), 0);
	return text.length && memmem(text.data, text.length, line, strlen(line));
}

/* A process in "there", so that its namespace has a name. */
static pid_t start_inhabitant(void)
{
	pid_t pid = fork();

	if (!pid) {
		net_rig_enter(net_rig.there);
		raise(SIGSTOP);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	return pid;
}

static bool is_up(const char *name)
{
	_cleanup_free_ struct net_device *devices = NULL;
	size_t n;

	assert_int_equal(net_place_devices(NULL, &devices, &n, NULL), 0);
	return find_device(devices, n, name)->up;
}

/* After a crash: by the id alone, wherever it is, and nothing of another one. */
static void test_leftovers(void **state)
{
	_cleanup_close_ int fd = listen_frames();
	char id[UUID_TEXT_SIZE], other[UUID_TEXT_SIZE];
	pid_t inhabitant = start_inhabitant();
	struct net_hold *hold = NULL;
	struct error err = { 0 };

	(void)state;
	snprintf(id, sizeof(id), "%s", net_rig_id());
	snprintf(other, sizeof(other), "%s", net_rig_id());
	assert_int_equal(net_mute(id, &there, &err), 0);
	assert_int_equal(net_mute_device(other, NULL, "phaul0", &err), 0);
	assert_int_equal(net_hold_install(id, &there, NULL, 0, &hold, &err), 0);
	net_hold_free(hold);
	assert_int_equal(net_hold_install(id, NULL, &net_rig.here4, 1, &hold, &err), 0);
	net_hold_free(hold);
	assert_true(lists(&there, "mute", id) && lists(&there, "hold", id) && lists(NULL, "hold", id));
	assert_true(lists(NULL, "mute", other) && !lists(NULL, "mute", id));
	count_frames(fd, RIG_SILENCE_MS);
	if (net_leftovers_remove(id, true, &err) < 0)
		fail_msg("%s", err.text);
	assert_true(count_frames(fd, RIG_SILENCE_MS) >= 6 + 3);
	assert_false(lists(&there, "mute", id) || lists(&there, "hold", id) || lists(NULL, "hold", id));
	assert_true(lists(NULL, "mute", other));
	assert_int_equal(net_unmute_all(NULL, &err), 0);
	assert_false(lists(NULL, "mute", other));
	assert_int_equal(net_leftovers_remove(id, true, &err), 0);
	/* Not to be heard: the cable is out before the silence ends; and in again for the one that is. */
	assert_int_equal(net_mute(id, &there, &err), 0);
	assert_int_equal(net_leftovers_remove(id, false, &err), 0);
	assert_false(is_up("phaul0"));
	assert_int_equal(net_mute(id, &there, &err), 0);
	assert_int_equal(net_leftovers_remove(id, true, &err), 0);
	assert_true(is_up("phaul0"));
	assert_int_equal(net_leftovers_remove("x", true, &err), -EINVAL);
	kill(inhabitant, SIGKILL);
	waitpid(inhabitant, NULL, 0);
}

/* From outside: this end drops what comes; a tap of a packet socket sits before the drop, so the stack is asked. */
static void test_mute_device(void **state)
{
	const char *id = net_rig_id();
	struct error err;

	(void)state;
	assert_int_equal(net_rig_knock(&net_rig.here4, SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
	for (int again = 0; again < 2; again++)
		assert_int_equal(net_mute_device(id, NULL, "phaul0", &err), 0);
	assert_int_equal(net_rig_knock(&net_rig.here4, SOCK_STREAM, RIG_SILENCE_MS), 0);
	assert_int_equal(net_rig_knock(&net_rig.here6, SOCK_STREAM, RIG_SILENCE_MS), 0);
	assert_int_equal(net_unmute(id, NULL, &err), 0);
	assert_int_equal(net_rig_knock(&net_rig.here4, SOCK_STREAM, RIG_ANSWER_MS), ECONNREFUSED);
	assert_int_equal(net_mute_device(id, NULL, "none", &err), -ENODEV);
	assert_non_null(strstr(err.text, "none"));
	assert_int_equal(net_mute_device(id, NULL, "", &err), -EINVAL);
	assert_int_equal(net_unmute(id, NULL, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open),	   cmocka_unit_test(test_settings),    cmocka_unit_test(test_call),
		cmocka_unit_test(test_devices),	   cmocka_unit_test(test_addresses),   cmocka_unit_test(test_mute),
		cmocka_unit_test(test_mute_names), cmocka_unit_test(test_mute_device), cmocka_unit_test(test_mute_ways),
		cmocka_unit_test(test_leftovers),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
