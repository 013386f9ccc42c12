/*
 * criu/ without CRIU: which line of a log is its first error, and images whose bytes are known or bad. (Images of a real
 * dump are read and mended in test-criu-memory.c.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>

#include "base/clock.h"
#include "base/fd.h"
#include "criu/breakpoints.h"
#include "criu/criu.h"

static char directory[] = "/tmp/test-criu-XXXXXX";

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void write_bytes(const char *name, const void *data, size_t length)
{
	FILE *f = fopen(path_of(name), "we");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, length, f), length);
	fclose(f);
}

static const struct {
	const char *log, *error;
} logs[] = {
	{ "", "" },
	{ "(00.000001) Version: 4.2.1\n(00.01) all is well\n", "" },
	{ "(00.012345) Error (criu/files-ext.c:96): Can't dump file 4 of that type [20600] (chr 10:232)\n"
	  "(00.012400) Error (criu/cr-dump.c:1500): Dump files (pid: 7) failed with -1\n",
	  "Error (criu/files-ext.c:96): Can't dump file 4 of that type [20600] (chr 10:232)" },
	{ "Error (criu/log.c:1): without a time stamp  \r\n", "Error (criu/log.c:1): without a time stamp" },
	{ "(00.000001)     12: Error (criu/x.c:2): in a task\n", "Error (criu/x.c:2): in a task" },
	{ "(00.1) pie: 12: Error (criu/pie/restorer.c:2): in a restorer\n",
	  "Error (criu/pie/restorer.c:2): in a restorer" },
	{ "(100.123456 Error (criu/x.c:3): later than its stamp is wide\n", "" },
	{ "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
	  "(00.2) Warn  (criu/page-xfer.c:165): page-xfer: Unable to set TCP_CORK=1: Operation not supported\n",
	  "" },
	{ "(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
	  "(00.2) Error (criu/cr-dump.c:388): Can't get rlimit 0: Operation not permitted\n",
	  "Error (criu/cr-dump.c:388): Can't get rlimit 0: Operation not permitted" },
	{ "(00.1) Error (criu/cr-dump.c:2100): Dumping FAILED.\n", "Error (criu/cr-dump.c:2100): Dumping FAILED." },
	{ "(00.1) Error (criu/cr-restore.c:1): Restoring FAILED.\n(00.2) Error (criu/a.c:1): the cause\n",
	  "Error (criu/a.c:1): the cause" },
	{ "(00.1) a file called Error (x) is mapped\n", "" },
	{ "(00.1) \tno newline at the end\n(00.2) Error (criu/a.c:9): cut", "Error (criu/a.c:9): cut" },
};

static void test_first_error(void **state)
{
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(logs); i++) {
		write_bytes("log", logs[i].log, strlen(logs[i].log));
		criu_first_error(path_of("log"), text, sizeof(text));
		assert_string_equal(text, logs[i].error);
	}
	criu_first_error(path_of("no-such-log"), text, sizeof(text));
	assert_string_equal(text, "");
	write_bytes("log", logs[2].log, strlen(logs[2].log));
	criu_first_error(path_of("log"), text, 6);
	assert_string_equal(text, "Error");
}

static void test_network_table(void **state)
{
	static const char log[] = "(00.000000) CRIU run id = 96369606-2254-41af-b001-93e00a904341\n"
				  "(00.000000) CRIU run id = 6a313dc0-5648-49cb-9683-9382925f67fa\n";
	static const char other[] = "CRIU run id = 7b313dc0-5648-49cb-9683-9382925f67fa\n";
	char table[64];

	(void)state;
	write_bytes("dump.log", log, strlen(log));
	assert_int_equal(criu_network_table(path_of("."), table, sizeof(table)), 0);
	assert_string_equal(table, "CRIU-6a313dc0-5648-49cb-96"); /* as nft lists it: 26 characters */
	write_bytes("criu-preload.status.run", other, strlen(other));
	assert_int_equal(criu_network_table(path_of("."), table, sizeof(table)), 0);
	assert_string_equal(table, "CRIU-7b313dc0-5648-49cb-96");
	write_bytes("criu-preload.status.run", "", 0);
	write_bytes("dump.log", "", 0);
	assert_int_equal(criu_network_table(path_of("."), table, sizeof(table)), -ENOENT);
}

/* files.img with two timerfds as CRIU 4.2.1 writes them: 10 ms, one with a pending tick, one disarmed. */
#define HEAD(magic) 0x19, 0x43, 0x56, 0x54, magic
#define FOWN 0x1a, 0x0a, 0x08, 0, 0x10, 0, 0x18, 0, 0x20, 0, 0x28, 0
#define TIMER(id, ticks, interval...)                                                                                  \
	0x62, 0x21, 0x08, id, 0x10, 2, FOWN, 0x20, 1, 0x28, ticks, 0x30, 0, 0x38, 0, 0x40, 0, 0x48, 0, 0x50, interval
#define ENTRY(id, ticks, interval...)                                                                                  \
	0x2b, 0, 0, 0, 0x08, 17, 0x10, id, TIMER(id, ticks, interval), 0xa2, 0x1f, 0x01, 'x'
#define ENTRY_BYTES 47 /* with its length */
#define TEN_MS 0x80, 0xad, 0xe2, 0x04

static const uint8_t timers[] = { HEAD(0x38), 0x31, 0x30, 0x56, ENTRY(1, 3, TEN_MS), ENTRY(2, 0, TEN_MS) };

static void test_mend(void **state)
{
	_cleanup_buffer_ struct buffer b = { 0 };
	struct error err;

	(void)state;
	write_bytes("files.img", timers, sizeof(timers));
	assert_int_equal(criu_mend_images(directory, &err), 1);
	assert_int_equal(fd_read_file(-1, path_of("files.img"), 4096, &b), 0);
	/* Three bytes longer: value_ns from one byte to four. The second entry, and the unknown field of the first, are kept. */
	assert_int_equal(b.length, sizeof(timers) + 3);
	assert_memory_equal(b.data + b.length - ENTRY_BYTES, timers + sizeof(timers) - ENTRY_BYTES, ENTRY_BYTES);
	assert_memory_equal(b.data + 8 + ENTRY_BYTES + 3 - 4, "\xa2\x1f\x01x", 4);
	assert_int_equal(criu_mend_images(directory, &err), 0);
}

/* Version 2, a field that phaul does not know (8), lock method 1 at METHOD_AT, the id of the run. */
static const uint8_t inventory[] = "\x16\x31\x31\x58"
				   "\x2c\0\0\0"
				   "\x08\x02"
				   "\x40\x07"
				   "\x58\x01"
				   "\x6a\x24"
				   "bb9bcfe2-8bf3-49d5-86d4-03da29fedf2a";
#define METHOD_AT 13

static void test_leave_locked(void **state)
{
	_cleanup_buffer_ struct buffer b = { 0 }, again = { 0 };
	uint8_t other[sizeof(inventory) - 1];
	struct error err;
	char table[64];

	(void)state;
	write_bytes("inventory.img", inventory, sizeof(inventory) - 1);
	assert_int_equal(criu_leave_network_locked(directory, table, sizeof(table), &err), 0);
	assert_string_equal(table, "CRIU-bb9bcfe2-8bf3-49d5-86");
	assert_int_equal(fd_read_file(-1, path_of("inventory.img"), 4096, &b), 0);
	assert_int_equal(b.length, sizeof(inventory) - 1);
	/* "skip" now; what is not known to us comes behind the rest. */
	assert_non_null(memmem(b.data, b.length, "\x58\x02", 2));
	assert_non_null(memmem(b.data, b.length, "\x40\x07", 2));
	assert_non_null(memmem(b.data, b.length, inventory + METHOD_AT + 1, 38));
	/* Nothing is left to be left. */
	assert_int_equal(criu_leave_network_locked(directory, table, sizeof(table), &err), 0);
	assert_string_equal(table, "");
	/* A lock that is none of ours to remove. */
	memcpy(other, inventory, sizeof(other));
	other[METHOD_AT] = 0;
	write_bytes("inventory.img", other, sizeof(other));
	assert_int_equal(criu_leave_network_locked(directory, table, sizeof(table), &err), 0);
	assert_string_equal(table, "");
	assert_int_equal(fd_read_file(-1, path_of("inventory.img"), 4096, &again), 0);
	assert_memory_equal(again.data, other, sizeof(other));
	write_bytes("inventory.img", inventory, sizeof(inventory) - 2);
	assert_int_equal(criu_leave_network_locked(directory, table, sizeof(table), &err), -EBADMSG);
	unlink(path_of("inventory.img"));
	assert_int_equal(criu_leave_network_locked(directory, table, sizeof(table), &err), -ENOENT);
}

static void test_bad_images(void **state)
{
	struct criu_lazy_range *ranges;
	struct error err;
	size_t n;

	(void)state;
	for (size_t cut = 0; cut < sizeof(timers); cut++) {
		int r;

		write_bytes("files.img", timers, cut);
		r = criu_mend_images(directory, &err);
		/* Cut between entries it is a shorter file; anywhere else it is bad. */
		if (cut == 8)
			assert_int_equal(r, 0);
		else if (cut == 8 + ENTRY_BYTES)
			assert_int_equal(r, 1);
		else
			assert_int_equal(r, -EBADMSG);
	}
	unlink(path_of("files.img"));
	assert_int_equal(criu_mend_images(directory, &err), 0);
	assert_int_equal(criu_mend_images("/no/such/directory", &err), -ENOENT);
	write_bytes("pagemap-1.img", timers, sizeof(timers));
	assert_int_equal(criu_lazy_ranges(directory, &ranges, &n, &err), -EBADMSG);
	unlink(path_of("pagemap-1.img"));
}

static void test_lazy_ranges(void **state)
{
	/* head; 2 pages at 0x1000, lazy and present; 1 at 0x3000, lazy; 1 at 0x4000, present only */
	static const uint8_t pagemap[] = {
		HEAD(0x25), 0x40, 0x08, 0x56,							 /* magic */
		2,	    0,	  0,	0,    0x08, 1,						 /* head */
		9,	    0,	  0,	0,    0x08, 0x80, 0x20, 0x10, 1,    0x20, 6,	0x28, 2, /* nr_pages counts, not compat */
		7,	    0,	  0,	0,    0x08, 0x80, 0x60, 0x10, 1,    0x20, 2, /* an older one, without it */
		10,	    0,	  0,	0,    0x08, 0x80, 0x80, 0x01, 0x10, 1,	  0x20, 4,    0x28, 1,
	};
	struct criu_lazy_range *ranges = NULL;
	struct error err;
	size_t n = 0;

	(void)state;
	write_bytes("pagemap-42.img", pagemap, sizeof(pagemap));
	write_bytes("pagemap-shmem-7.img", "x", 1);
	assert_int_equal(criu_lazy_ranges(directory, &ranges, &n, &err), 0);
	assert_int_equal(n, 1);
	assert_int_equal(ranges[0].image_pid, 42);
	assert_int_equal(ranges[0].start, 0x1000);
	assert_int_equal(ranges[0].end, 0x4000);
	free(ranges);
	unlink(path_of("pagemap-42.img"));
	unlink(path_of("pagemap-shmem-7.img"));
}

static int group_setup(void **state)
{
	(void)state;
	return mkdtemp(directory) ? 0 : -1;
}

static int group_teardown(void **state)
{
	(void)state;
	return dir_remove(directory);
}

/* While one is held, further ones do not wait for the kernel's grace period: the quickest of a few tells. */
static void test_breakpoints(void **state)
{
	int held = breakpoints_prepare();
	uint64_t quickest = UINT64_MAX;

	(void)state;
	if (held < 0) {
		print_message("# not tested: no performance events here\n");
		return;
	}
	for (int i = 0; i < 10; i++) {
		uint64_t before = clock_now_ns();
		int next = breakpoints_prepare();

		quickest = MIN(quickest, clock_now_ns() - before);
		assert_true(next >= 0);
		close(next);
	}
	close(held);
	assert_true(quickest < NS_PER_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_breakpoints),   cmocka_unit_test(test_first_error),
		cmocka_unit_test(test_network_table), cmocka_unit_test(test_mend),
		cmocka_unit_test(test_leave_locked),  cmocka_unit_test(test_bad_images),
		cmocka_unit_test(test_lazy_ranges),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
