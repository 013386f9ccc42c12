/*
 * The reader against real child processes: exact bytes, and exact pages where something has gone.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/page.h"
#include "base/range.h"
#include "child.h"
#include "memory/tracker.h"

#define PAGES 4096

static uint64_t stamp(uint64_t page)
{
	return page * 0x9e3779b97f4a7c15ULL + 1;
}

static bool is_gone(const uint64_t *gone, uint64_t page)
{
	return gone[page / 64] >> (page % 64) & 1;
}

/* PAGES stamped pages; pages 100-102 unmapped, 200 without any permission, 1000-2999 unmapped. */
static int patchy(int fd, void *argument)
{
	char *area = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)argument;
	for (uint64_t i = 0; i < PAGES; i++)
		*(uint64_t *)(area + i * PAGE_BYTES) = stamp(i);
	munmap(area + 100 * PAGE_BYTES, 3 * PAGE_BYTES);
	mprotect(area + 200 * PAGE_BYTES, PAGE_BYTES, PROT_NONE);
	munmap(area + 1000 * PAGE_BYTES, 2000 * PAGE_BYTES);
	child_send(fd, (uintptr_t)area);
	child_receive(fd);
	return 0;
}

static bool patchy_has(uint64_t page)
{
	return !(page >= 100 && page < 103) && !(page >= 1000 && page < 3000);
}

static void check_pages(const char *data, const uint64_t *gone, uint64_t at, uint64_t page)
{
	uint64_t word;

	memcpy(&word, data + at * PAGE_BYTES, sizeof(word));
	if (word != (patchy_has(page) ? stamp(page) : 0) || is_gone(gone, at) == patchy_has(page))
		fail_msg("page %lu read wrongly", (unsigned long)page);
}

static void test_gone_pages_are_exact(void **state)
{
	struct child c = child_start(patchy, NULL);
	uint64_t area = child_receive(c.fd), gone[PAGES / 64 + 1];
	struct range whole = { area, area + PAGES * PAGE_BYTES };
	char *data = malloc(PAGES * PAGE_BYTES);
	struct error err = { 0 };

	(void)state;
	memset(data, 0xaa, PAGES * PAGE_BYTES);
	assert_int_equal(reader_read(c.pid, &whole, 1, data, gone, &err), 2003);
	for (uint64_t i = 0; i < PAGES; i++)
		check_pages(data, gone, i, i);
	assert_int_equal(reader_read(c.pid, &whole, 1, data, NULL, &err), 2003);
	child_end(&c);
	free(data);
}

/* More ranges than one call takes, every other page, in pieces of one page. */
static void test_many_ranges(void **state)
{
	struct child c = child_start(patchy, NULL);
	uint64_t area = child_receive(c.fd), gone[PAGES / 64 + 1];
	struct range ranges[PAGES / 2];
	char *data = malloc(PAGES / 2 * PAGE_BYTES);
	struct error err = { 0 };

	(void)state;
	for (uint64_t i = 0; i < PAGES / 2; i++)
		ranges[i] = (struct range){ area + 2 * i * PAGE_BYTES, area + (2 * i + 1) * PAGE_BYTES };
	assert_int_equal(reader_read(c.pid, ranges, PAGES / 2, data, gone, &err), 1002);
	for (uint64_t i = 0; i < PAGES / 2; i++)
		check_pages(data, gone, i, 2 * i);
	child_end(&c);
	free(data);
}

static void test_refusals(void **state)
{
	struct child c = child_start(patchy, NULL);
	uint64_t area = child_receive(c.fd);
	struct range ranges[] = { { area, area + PAGE_BYTES }, { area + 1, area + PAGE_BYTES }, { area, area } };
	char data[PAGE_BYTES];
	struct error err = { 0 };

	(void)state;
	assert_int_equal(reader_read(c.pid, ranges, 0, data, NULL, &err), 0);
	assert_int_equal(reader_read(c.pid, &ranges[1], 1, data, NULL, &err), -EINVAL);
	assert_int_equal(reader_read(c.pid, &ranges[2], 1, data, NULL, &err), -EINVAL);
	kill(c.pid, SIGKILL);
	{
		pid_t pid = c.pid;

		child_join(&c);
		assert_int_equal(reader_read(pid, ranges, 1, data, NULL, &err), -ESRCH);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gone_pages_are_exact),
		cmocka_unit_test(test_many_ranges),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
