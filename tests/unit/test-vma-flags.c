/*
 * Flags of mappings: what is printed for a real process is what the kernel's smaps says, for every mapping, without a look at
 * smaps; and a word that was never met gives nothing. Skipped where the kernel does not let us (Linux < 6.1, no BTF).
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/page.h"
#include "child.h"
#include "memory/btf.h"
#include "memory/vma-flags.h"

#define AREA_PAGES 64
#define ADVICE_MAX 3
#define MANY 5000

static const int advice[ADVICE_MAX] = { MADV_DONTFORK, MADV_DONTDUMP, MADV_WIPEONFORK };

/* Mappings that differ in their flags; each order gives one more of them an advice. */
static int mapper(int fd, void *argument)
{
	char *areas[ADVICE_MAX + 1];
	int file = open("/proc/self/exe", O_RDONLY);

	(void)argument;
	for (int i = 0; i <= ADVICE_MAX; i++)
		areas[i] = mmap(NULL, AREA_PAGES * PAGE_BYTES, i % 2 ? PROT_READ | PROT_WRITE : PROT_READ,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED ||
	    mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return 1;
	syscall(SYS_mlock, areas[ADVICE_MAX], PAGE_BYTES); /* ASan makes mlock() do nothing */
	child_send(fd, 0);
	for (int i = 0; i < ADVICE_MAX; i++) {
		child_receive(fd);
		madvise(areas[i], AREA_PAGES / 2 * PAGE_BYTES, advice[i]);
		child_send(fd, 0);
	}
	child_receive(fd);
	return 0;
}

/* The same lines out of smaps. */
static void print_smaps(pid_t pid, struct buffer *text)
{
	char path[64], line[4096], range[64] = "";
	unsigned long start, end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			snprintf(range, sizeof(range), "%d %lx %lx ", (int)pid, start, end);
		else if (!strncmp(line, "VmFlags: ", 9))
			assert_int_equal(buffer_printf(text, "%s%s", range, line + 9), 0);
	}
	fclose(f);
}

static void assert_same(struct vma_flags *f, pid_t pid)
{
	struct buffer ours = { 0 }, theirs = { 0 };
	struct error err = { 0 };

	print_smaps(pid, &theirs);
	if (vma_flags_print(f, pid, &ours, &err) < 0)
		fail_msg("%s", err.text);
	assert_string_equal((char *)ours.data, (char *)theirs.data);
	buffer_free(&ours);
	buffer_free(&theirs);
}

static struct vma_flags *flags_or_skip(void)
{
	struct vma_flags *f = NULL;
	struct error err = { 0 };
	int r = vma_flags_new(&f, &err);

	if (r == -EOPNOTSUPP) {
		print_message("%s\n", err.text);
		skip();
	}
	assert_int_equal(r, 0);
	return f;
}

static void test_same_as_smaps(void **state)
{
	struct vma_flags *f = flags_or_skip();
	struct child c = child_start(mapper, NULL), other = child_start(mapper, NULL);
	struct error err = { 0 };

	(void)state;
	child_receive(c.fd);
	child_receive(other.fd);
	assert_int_equal(vma_flags_learn(f, c.pid, &err), 0);
	assert_same(f, c.pid);
	assert_same(f, other.pid); /* what was learnt holds for every process */
	for (int i = 0; i < ADVICE_MAX; i++) {
		struct buffer text = { 0 };

		child_ask(&c, 1);
		/* The page tables and the list of mappings do not show it; the word does, and was never met. */
		assert_int_equal(vma_flags_print(f, c.pid, &text, &err), -ENODATA);
		assert_int_equal(text.length, 0);
		assert_int_equal(vma_flags_learn(f, c.pid, &err), 0);
		assert_same(f, c.pid);
		buffer_free(&text);
	}
	child_end(&c);
	child_end(&other);
	vma_flags_free(f);
}

/* More than any buffer of the kernel's iterator holds, of two kinds in turn so that they stay apart. */
static int mapper_of_many(int fd, void *argument)
{
	char *area = mmap(NULL, MANY * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)argument;
	for (size_t i = 0; i < MANY; i += 2)
		mprotect(area + i * PAGE_BYTES, PAGE_BYTES, PROT_READ);
	child_send(fd, 0);
	child_receive(fd);
	return 0;
}

static void test_many(void **state)
{
	struct vma_flags *f = flags_or_skip();
	struct child c = child_start(mapper_of_many, NULL);
	struct error err = { 0 };

	(void)state;
	child_receive(c.fd);
	assert_int_equal(vma_flags_learn(f, c.pid, &err), 0);
	assert_same(f, c.pid);
	child_end(&c);
	vma_flags_free(f);
}

static void test_locked(void **state)
{
	struct vma_flags *f = flags_or_skip();
	struct child c = child_start(mapper, NULL);
	struct maps ours = { 0 }, theirs = { 0 };
	struct error err = { 0 };
	size_t locked = 0;

	(void)state;
	child_receive(c.fd);
	assert_int_equal(maps_read(c.pid, &ours, &err), 0);
	assert_int_equal(maps_read(c.pid, &theirs, &err), 0);
	assert_int_equal(vma_flags_mark_locked(f, c.pid, &ours), -ENODATA); /* nothing was learnt */
	assert_int_equal(vma_flags_learn(f, c.pid, &err), 0);
	assert_int_equal(vma_flags_mark_locked(f, c.pid, &ours), 0);
	assert_int_equal(maps_mark_locked(c.pid, &theirs, &err), 0);
	for (size_t i = 0; i < ours.n_maps; i++) {
		assert_int_equal(ours.maps[i].locked, theirs.maps[i].locked);
		locked += ours.maps[i].locked;
	}
	assert_int_equal(locked, 1);
	maps_free(&ours);
	maps_free(&theirs);
	child_end(&c);
	vma_flags_free(f);
}

static void test_gone(void **state)
{
	struct vma_flags *f = flags_or_skip();
	struct child c = child_start(mapper, NULL);
	struct buffer text = { 0 };
	struct error err = { 0 };
	pid_t pid = c.pid;

	(void)state;
	child_receive(c.fd);
	child_end(&c);
	assert_true(vma_flags_learn(f, pid, &err) < 0);
	assert_true(vma_flags_print(f, pid, &text, &err) < 0);
	buffer_free(&text);
	vma_flags_free(f);
}

static void write_btf(const void *data, size_t length, char path[32])
{
	int fd;

	snprintf(path, 32, "/tmp/phaul-btf-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_full(fd, data, length), 0);
	close(fd);
}

/* A structure s { int a; struct { int b; }; }, in the kernel's format, and what is left of it when it is cut or spoilt. */
static void test_btf(void **state)
{
	static const char strings[] = "\0int\0s\0a\0b";
	const uint32_t words[] = {
		/* header */ 0x0001eb9f,
		24,
		0,
		88,
		88,
		sizeof(strings),
		/* 1: int */ 1,
		0x01000000,
		4,
		32,
		/* 2: struct { int b } */ 0,
		0x04000001,
		4,
		9,
		1,
		0,
		/* 3: struct s */ 5,
		0x04000002,
		8,
		7,
		1,
		0,
		0,
		2,
		32,
		/* 4: function s, of nothing */ 5,
		0x0c000000,
		0,
	};
	uint8_t file[sizeof(words) + sizeof(strings)];
	struct btf b = { 0 };
	uint32_t offset = 0;
	char path[32];

	(void)state;
	memcpy(file, words, sizeof(words));
	assert_int_equal(sizeof(words), 24 + 88);
	memcpy(file + sizeof(words), strings, sizeof(strings));
	write_btf(file, sizeof(file), path);
	assert_int_equal(btf_read(path, &b), 0);
	assert_int_equal(b.n_types, 5);
	assert_int_equal(btf_find_member(&b, "s", "a", &offset), 0);
	assert_int_equal(offset, 0);
	assert_int_equal(btf_find_member(&b, "s", "b", &offset), 0);
	assert_int_equal(offset, 4);
	assert_int_equal(btf_find_member(&b, "s", "c", &offset), -ENOENT);
	assert_int_equal(btf_find_function(&b, "s"), 4);
	btf_free(&b);
	unlink(path);
	for (size_t cut = 0; cut < sizeof(file); cut++) {
		write_btf(file, cut, path);
		assert_int_equal(btf_read(path, &b), -EBADMSG);
		unlink(path);
	}
	((uint32_t *)(void *)file)[7] = 0x1f000000; /* a kind that nobody knows */
	write_btf(file, sizeof(file), path);
	assert_int_equal(btf_read(path, &b), -EBADMSG);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_as_smaps), cmocka_unit_test(test_many), cmocka_unit_test(test_locked),
		cmocka_unit_test(test_gone),	      cmocka_unit_test(test_btf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
