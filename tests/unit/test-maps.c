/*
 * The parsers of /proc/PID/maps, smaps and pagemap words against given text.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/page.h"
#include "memory/maps.h"
#include "memory/scan.h"

struct line_case {
	const char *text;
	int result;
	struct map map;
};

static const struct line_case line_cases[] = {
	{ "7f00-8000 rw-p 00000000 00:00 0 \n",
	  -0,
	  { .start = 0x7f00, .end = 0x8000, .name = MAP_NAME_NONE, .readable = true, .writable = true } },
	{ "1000-2000 r-xp 00003000 fe:01 123 /usr/bin/a b\n",
	  0,
	  { .start = 0x1000,
	    .end = 0x2000,
	    .offset = 0x3000,
	    .inode = 123,
	    .name = MAP_NAME_FILE,
	    .readable = true,
	    .executable = true } },
	{ "1000-2000 ---p 00000000 00:00 0      [heap]\n",
	  0,
	  { .start = 0x1000, .end = 0x2000, .name = MAP_NAME_NONE } },
	{ "1000-2000 rw-p 00000000 00:00 0      [stack]\n",
	  0,
	  { .start = 0x1000, .end = 0x2000, .name = MAP_NAME_NONE, .readable = true, .writable = true } },
	{ "1000-2000 ---p 00000000 00:00 0      [anon:arena [vdso]]\n",
	  0,
	  { .start = 0x1000, .end = 0x2000, .name = MAP_NAME_NONE } },
	{ "1000-2000 r-xp 00000000 00:00 0      [vdso]\n",
	  0,
	  { .start = 0x1000,
	    .end = 0x2000,
	    .name = MAP_NAME_KERNEL,
	    .readable = true,
	    .executable = true,
	    .vdso = true } },
	{ "1000-2000 r--p 00000000 00:00 0      [vvar_vclock]\n",
	  0,
	  { .start = 0x1000, .end = 0x2000, .name = MAP_NAME_KERNEL, .readable = true } },
	{ "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n",
	  0,
	  { .start = 0xffffffffff600000, .end = 0xffffffffff601000, .name = MAP_NAME_KERNEL, .executable = true } },
	{ "1000-2000 rw-s 00000000 00:01 2054 /dev/zero (deleted)\n",
	  0,
	  { .start = 0x1000,
	    .end = 0x2000,
	    .inode = 2054,
	    .name = MAP_NAME_ZERO,
	    .readable = true,
	    .writable = true,
	    .shared = true } },
	{ "1000-2000 rw-s 00000000 00:01 3 /memfd:CRIUMFD (deleted)\n",
	  0,
	  { .start = 0x1000,
	    .end = 0x2000,
	    .inode = 3,
	    .name = MAP_NAME_CRIU,
	    .readable = true,
	    .writable = true,
	    .shared = true } },
	{ "1000-2000 r--p 00000000 fe:01 7 /tmp/new\\012line (deleted)\n",
	  0,
	  { .start = 0x1000, .end = 0x2000, .inode = 7, .name = MAP_NAME_FILE, .readable = true } },
	{ "1000-2000 r--p 00000000 fe:01 7 [vdso]\n",
	  0,
	  { .start = 0x1000, .end = 0x2000, .inode = 7, .name = MAP_NAME_FILE, .readable = true } },
	{ "2000-1000 rw-p 00000000 00:00 0 \n", -EBADMSG, { 0 } },
	{ "1000-2000 rw-p 00000000 00:00 0 ", -EBADMSG, { 0 } },
	{ "1000 2000 rw-p 00000000 00:00 0 \n", -EBADMSG, { 0 } },
	{ "1000-2000 rw\n", -EBADMSG, { 0 } },
	{ "11111111111111111-2 rw-p 00000000 00:00 0 \n", -EBADMSG, { 0 } },
	{ "\n", -EBADMSG, { 0 } },
};

static void test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(line_cases); i++) {
		const struct line_case *c = &line_cases[i];
		_cleanup_maps_ struct maps m = { 0 };
		const struct map *got;

		if (maps_parse(c->text, strlen(c->text), &m) != c->result)
			fail_msg("unexpected result for: %s", c->text);
		if (c->result)
			continue;
		assert_int_equal(m.n_maps, 1);
		got = &m.maps[0];
		if (got->start != c->map.start || got->end != c->map.end || got->offset != c->map.offset ||
		    got->inode != c->map.inode || got->name != c->map.name || got->readable != c->map.readable ||
		    got->writable != c->map.writable || got->executable != c->map.executable ||
		    got->shared != c->map.shared || got->vdso != c->map.vdso)
			fail_msg("parsed wrongly: %s", c->text);
	}
}

/* Every prefix of a valid text either parses or is refused; none is read beyond its end (run under ASan). */
static void test_truncated(void **state)
{
	const char *text = "1000-2000 r-xp 00003000 fe:01 123 /usr/bin/a\n3000-4000 rw-p 00000000 00:00 0 \n";

	(void)state;
	for (size_t n = 0; n < strlen(text); n++) {
		char *copy = strndup(text, n);
		_cleanup_maps_ struct maps m = { 0 };
		int r = maps_parse(copy, n, &m);

		assert_true(r == 0 || r == -EBADMSG);
		assert_int_equal(r == 0, n == 0 || copy[n - 1] == '\n');
		free(copy);
	}
}

static void test_own_maps(void **state)
{
	_cleanup_maps_ struct maps m = { 0 };
	struct error err = { 0 };
	int on_stack = 0;
	bool vdso = false;
	size_t i;

	(void)state;
	assert_int_equal(maps_read(getpid(), &m, &err), 0);
	i = maps_find(&m, (uintptr_t)&on_stack);
	assert_true(i < m.n_maps && m.maps[i].start <= (uintptr_t)&on_stack && m.maps[i].writable);
	for (i = 0; i < m.n_maps; i++)
		vdso = vdso || m.maps[i].vdso;
	assert_int_equal(vdso, getauxval(AT_SYSINFO_EHDR) != 0); /* valgrind hides it */
	assert_int_equal(maps_read(0x7ffffff0, &m, &err), -ESRCH);
}

static void test_many_lines_are_fast(void **state)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	_cleanup_maps_ struct maps m = { 0 };
	uint64_t begin;

	(void)state;
	for (unsigned long i = 0; i < 100000; i++)
		assert_int_equal(buffer_printf(&text,
					       "%lx-%lx rw-p 00000000 fe:01 %lu   /some/where/a/library-%lu.so\n",
					       (i + 1) << 20, ((i + 1) << 20) + 4096, i, i),
				 0);
	begin = clock_now_ns();
	assert_int_equal(maps_parse((const char *)text.data, text.length, &m), 0);
	print_message("# 100000 lines parsed in %.1f ms\n", (double)(clock_now_ns() - begin) / 1e6);
	assert_int_equal(m.n_maps, 100000);
	assert_int_equal(maps_find(&m, (500UL << 20) + 4095), 499);
	assert_int_equal(maps_find(&m, (500UL << 20) + 4096), 500);
	assert_true(clock_now_ns() - begin < NS_PER_S);
}

static void test_locked(void **state)
{
	const char *maps_text = "1000-2000 rw-p 0 00:00 0 \n2000-3000 rw-p 0 00:00 0 \n4000-5000 rw-p 0 00:00 0 \n";
	const char *smaps = "1000-2000 rw-p 0 00:00 0 \nSize: 4 kB\nVmFlags: rd wr mr mw me lo ac \n"
			    "2000-3000 rw-p 0 00:00 0 \nVmFlags: rd wr mr mw me ac \n"
			    "4000-5000 rw-p 0 00:00 0 \nLocked: 4 kB\nVmFlags: rd lo\n"
			    "6000-7000 rw-p 0 00:00 0 \nVmFlags: rd lo\n";
	_cleanup_maps_ struct maps m = { 0 };

	(void)state;
	assert_int_equal(maps_parse(maps_text, strlen(maps_text), &m), 0);
	maps_parse_locked(smaps, &m);
	assert_true(m.maps[0].locked && !m.maps[1].locked && m.maps[2].locked);
}

/* Of a real locked page of our own. */
static void test_locked_for_real(void **state)
{
	char *area = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	_cleanup_maps_ struct maps m = { 0 };
	struct error err = { 0 };
	uint64_t locked = 0;

	(void)state;
	assert_int_equal(syscall(SYS_mlock, area, PAGE_BYTES), 0); /* ASan makes mlock() do nothing */
	assert_int_equal(status_read_number(getpid(), "VmLck", &locked), 0);
	assert_true(locked >= 4);
	assert_int_equal(maps_read(getpid(), &m, &err), 0);
	assert_int_equal(maps_mark_locked(getpid(), &m, &err), 0);
	assert_true(m.maps[maps_find(&m, (uintptr_t)area)].locked);
	assert_false(m.maps[maps_find(&m, (uintptr_t)area + PAGE_BYTES)].locked);
	munmap(area, 2 * PAGE_BYTES);
	assert_int_equal(status_read_number(getpid(), "NoSuchField", &locked), -ENOENT);
}

static void test_pagemap_words(void **state)
{
	const uint64_t words[] = {
		0,
		PAGEMAP_PRESENT,
		PAGEMAP_PRESENT | 12345,
		PAGEMAP_PRESENT | PAGEMAP_SOFT_DIRTY,
		PAGEMAP_SWAPPED | PAGEMAP_SOFT_DIRTY,
		PAGEMAP_SOFT_DIRTY,
		PAGEMAP_PRESENT | PAGEMAP_FILE | PAGEMAP_SOFT_DIRTY,
		PAGEMAP_SWAPPED | PAGEMAP_GUARD | PAGEMAP_SOFT_DIRTY,
		PAGEMAP_SWAPPED,
	};
	struct scan_request all = { .at = 0x10000 }, own = { .at = 0x10000, .own_only = true },
			    own_written = { .at = 0x10000, .own_only = true, .written_only = true };
	struct scan_region r[ARRAY_SIZE(words)];

	(void)state;
	assert_int_equal(scan_parse_words(words, ARRAY_SIZE(words), &all, 12345, r), 4);
	assert_true(r[0].start == 0x11000 && r[0].end == 0x13000 && !r[0].categories);
	assert_true(r[1].start == 0x13000 && r[1].end == 0x15000 && r[1].categories == SCAN_IS_WRITTEN);
	assert_true(r[2].start == 0x16000 && r[2].end == 0x17000 && r[2].categories == SCAN_IS_WRITTEN);
	assert_true(r[3].start == 0x18000 && r[3].end == 0x19000 && !r[3].categories);
	assert_int_equal(scan_parse_words(words, ARRAY_SIZE(words), &own_written, 12345, r), 1);
	assert_true(r[0].start == 0x13000 && r[0].end == 0x15000);
	assert_int_equal(scan_parse_words(words, ARRAY_SIZE(words), &own, 0, r), 3);
	assert_true(r[0].start == 0x11000 && r[0].end == 0x13000);
	assert_int_equal(scan_parse_words(words, ARRAY_SIZE(words), &own, 12345, r), 3);
	assert_true(r[0].start == 0x11000 && r[0].end == 0x12000); /* the zero page is nobody's */
}

/* One round over the words of `n` pages from 2 MiB on, all of them noted; what it turned them into is for the caller. */
static void frames_round(struct frames *f, uint64_t *words, size_t n)
{
	struct scan_request q = { .pagemap_fd = -1, .at = 2 << 20, .frames = f, .note_frames = true };

	frames_begin(f);
	assert_int_equal(frames_mark_moved(&q, words, n, 99), 0);
	frames_end(f);
}

/* Holes belong to both mappings beside them; there is none before the first, and none up to the kernel's own. */
static void test_surroundings(void **state)
{
	static const char text[] = "10000-11000 rw-p 00000000 00:00 0 \n"
				   "11000-13000 r--p 00000000 00:00 0 \n"
				   "20000-21000 rw-p 00000000 00:00 0 \n"
				   "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]\n";
	static const uint64_t wanted[][2] = {
		{ 0x10000, 0x11000 }, { 0x11000, 0x20000 }, { 0x13000, 0x21000 }, { 0x21000, 0xffffffffff601000 }
	};
	_cleanup_maps_ struct maps m = { 0 };

	(void)state;
	assert_int_equal(maps_parse(text, strlen(text), &m), 0);
	assert_int_equal(m.n_maps, 4);
	for (size_t i = 0; i < m.n_maps; i++) {
		uint64_t start, end;

		maps_surroundings(&m, i, &start, &end);
		assert_int_equal(start, wanted[i][0]);
		assert_int_equal(end, wanted[i][1]);
	}
}

static size_t count_dirty(const uint64_t *words, size_t n)
{
	size_t dirty = 0;

	for (size_t i = 0; i < n; i++)
		dirty += (words[i] & PAGEMAP_SOFT_DIRTY) != 0;
	return dirty;
}

static void fill_words(uint64_t *words, size_t n, uint64_t frame)
{
	for (size_t i = 0; i < n; i++)
		words[i] = PAGEMAP_PRESENT | (frame + i);
}

/* Two page tables: what was there before is known, what came with its table from elsewhere is all dirty. */
static void test_moved_tables(void **state)
{
	static uint64_t words[1024];
	struct frames f = { 0 };

	(void)state;
	fill_words(words, 1024, 5000);
	frames_round(&f, words, 1024);
	assert_int_equal(count_dirty(words, 1024), 1024); /* nothing was known yet */
	fill_words(words, 1024, 5000);
	frames_round(&f, words, 1024);
	assert_int_equal(count_dirty(words, 1024), 0);
	fill_words(words, 512, 5000);
	fill_words(words + 512, 512, 9000);
	words[600] = PAGEMAP_PRESENT | 99; /* the zero page */
	words[601] = 0;
	frames_round(&f, words, 1024);
	assert_int_equal(count_dirty(words, 512), 0);
	assert_int_equal(count_dirty(words + 512, 512), 510);
	/* Seven of the eight witnesses written, one migrated: the next clean ones take their places, for the price of one table. */
	fill_words(words, 512, 5000);
	for (size_t i = 0; i < 512; i += 64)
		words[i] = i ? words[i] | PAGEMAP_SOFT_DIRTY : PAGEMAP_PRESENT | 77;
	frames_round(&f, words, 512);
	assert_int_equal(count_dirty(words, 512), 512);
	fill_words(words, 512, 5000);
	words[0] = PAGEMAP_PRESENT | 77;
	frames_round(&f, words, 512);
	assert_int_equal(count_dirty(words, 512), 0);
	frames_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),	      cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_own_maps),      cmocka_unit_test(test_many_lines_are_fast),
		cmocka_unit_test(test_locked),	      cmocka_unit_test(test_locked_for_real),
		cmocka_unit_test(test_pagemap_words), cmocka_unit_test(test_moved_tables),
		cmocka_unit_test(test_surroundings),
	};

	return cmocka_run_group_tests_name("maps", tests, NULL, NULL);
}
