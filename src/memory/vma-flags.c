/*
 * Flags of mappings: see vma-flags.h.
 *
 * Invariants: a text belongs to one flag word; it was seen in smaps for a mapping whose word was the same before and after smaps
 * was read; a word that was seen with two texts has none. The kernel's own page above all others ([vsyscall]), which no
 * iterator shows, is the same in every process and never changes: its line is kept as a whole.
 *
 * Source: fs/proc/task_mmu.c (show_smap_vma_flags: a function of the word alone), kernel/bpf/task_iter.c, bpf(2).
 */
#include "memory/vma-flags.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/array.h"
#include "base/fd.h"
#include "memory/btf.h"

#define KERNEL_BTF "/sys/kernel/btf/vmlinux"
#define TEXT_MAX 160 /* of one VmFlags line; the kernel knows some 40 flags of 3 characters */
#define SMAPS_MAX (1UL << 30)
#define HIGHEST_USER (1ULL << 63)

/* As the program below writes it. */
struct mapping {
	uint64_t start, end, word;
};

struct known {
	uint64_t word;
	char text[TEXT_MAX]; /* empty: it has none */
};

struct mappings {
	struct mapping *list;
	size_t n;
	struct buffer bytes;
};

struct offsets {
	uint32_t meta, vma, seq, start, end, word;
	int function; /* that the program attaches to */
};

struct vma_flags {
	struct offsets offsets;
	int program_fd; /* from the first mapping on */
	struct known *known;
	size_t n_known, n_allocated;
	uint64_t gate_start, gate_end; /* 0: there is none */
	char gate_text[TEXT_MAX];
};

static int bpf_call(int command, union bpf_attr *attributes)
{
	long r = syscall(SYS_bpf, command, attributes, sizeof(*attributes));

	return r < 0 ? -errno : (int)r;
}

static int find_offsets(struct offsets *o)
{
	const struct {
		const char *structure, *member;
		uint32_t *ret_offset;
	} wanted[] = {
		{ "bpf_iter__task_vma", "meta", &o->meta }, { "bpf_iter__task_vma", "vma", &o->vma },
		{ "bpf_iter_meta", "seq", &o->seq },	    { "vm_area_struct", "vm_start", &o->start },
		{ "vm_area_struct", "vm_end", &o->end },    { "vm_area_struct", "vm_flags", &o->word },
	};
	struct btf btf;
	int r = btf_read(KERNEL_BTF, &btf);

	if (r < 0)
		return r;
	r = o->function = btf_find_function(&btf, "bpf_iter_task_vma");
	for (size_t i = 0; i < ARRAY_SIZE(wanted) && r >= 0; i++)
		r = btf_find_member(&btf, wanted[i].structure, wanted[i].member, wanted[i].ret_offset);
	btf_free(&btf);
	return MIN(r, 0);
}

#define LOAD(to, from, offset)                                                                                         \
	((struct bpf_insn){                                                                                            \
		.code = BPF_LDX | BPF_MEM | BPF_DW, .dst_reg = (to), .src_reg = (from), .off = (int16_t)(offset) })
#define STORE(to, offset, from)                                                                                        \
	((struct bpf_insn){                                                                                            \
		.code = BPF_STX | BPF_MEM | BPF_DW, .dst_reg = (to), .src_reg = (from), .off = (int16_t)(offset) })
#define COPY(to, from) ((struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = (to), .src_reg = (from) })
#define SET(to, value) ((struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = (to), .imm = (value) })
#define ADD(to, value) ((struct bpf_insn){ .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = (to), .imm = (value) })
#define SKIP_IF_ZERO(what, n)                                                                                          \
	((struct bpf_insn){ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = (what), .off = (n), .imm = 0 })
#define SKIP_IF_LESS(what, than, n)                                                                                    \
	((struct bpf_insn){ .code = BPF_JMP | BPF_JLT | BPF_X, .dst_reg = (what), .src_reg = (than), .off = (n) })
#define SET_LOW(to, value)                                                                                             \
	((struct bpf_insn){ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = (to), .imm = (int32_t)(uint32_t)(value) })
#define AND_HIGH(value) ((struct bpf_insn){ .imm = (int32_t)(uint32_t)((value) >> 32) })
#define CALL(function) ((struct bpf_insn){ .code = BPF_JMP | BPF_CALL, .imm = (function) })
#define END() ((struct bpf_insn){ .code = BPF_JMP | BPF_EXIT })

/* For each mapping from `first` on: its struct mapping into the iterator's file. */
static int load_program(const struct offsets *o, uint64_t first)
{
	const struct bpf_insn program[] = {
		LOAD(6, 1, o->vma),
		LOAD(7, 1, o->meta),
		SET_LOW(8, first),
		AND_HIGH(first),
		SKIP_IF_ZERO(6, 12),
		LOAD(1, 6, o->start),
		SKIP_IF_LESS(1, 8, 10),
		STORE(10, -24, 1),
		LOAD(1, 6, o->end),
		STORE(10, -16, 1),
		LOAD(1, 6, o->word),
		STORE(10, -8, 1),
		LOAD(1, 7, o->seq),
		COPY(2, 10),
		ADD(2, -24),
		SET(3, sizeof(struct mapping)),
		CALL(BPF_FUNC_seq_write),
		SET(0, 0),
		END(),
	};
	union bpf_attr a = {
		.prog_type = BPF_PROG_TYPE_TRACING,
		.expected_attach_type = BPF_TRACE_ITER,
		.attach_btf_id = (uint32_t)o->function,
		.insns = (uintptr_t)program,
		.insn_cnt = sizeof(program) / sizeof(program[0]),
		.license = (uintptr_t) "Dual MIT/GPL",
		.prog_name = "phaul_vma_flags",
	};

	return bpf_call(BPF_PROG_LOAD, &a);
}

int vma_flags_new(struct vma_flags **ret, struct error *err)
{
	struct vma_flags *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return error_set(err, ENOMEM, "no memory for the flags of mappings");
	r = find_offsets(&f->offsets);
	if (!r)
		r = f->program_fd = load_program(&f->offsets, 0);
	if (r < 0) {
		free(f);
		error_errno(err, -r, "the kernel does not tell the flags of mappings by BPF");
		return -EOPNOTSUPP;
	}
	*ret = f;
	return 0;
}

void vma_flags_free(struct vma_flags *f)
{
	if (!f)
		return;
	close_fd(&f->program_fd);
	free(f->known);
	free(f);
}

/* bpf(2), union bpf_iter_link_info: which task the iterator is about. */
struct iterator_of {
	uint32_t thread, process, process_fd, unused;
};

/* One read(2), appended. The number of bytes, or a negative errno. */
static ssize_t read_some(int fd, struct buffer *b)
{
	ssize_t n;
	int r = buffer_reserve(b, 1UL << 16);

	if (r < 0)
		return r;
	do
		n = read(fd, b->data + b->length, b->capacity - b->length);
	while (n < 0 && (errno == EINTR || errno == EAGAIN));
	return n < 0 ? -errno : n;
}

/* As many mappings of a process as one read gives, from where the program begins; *ret_all: those were all. */
static int read_part(int program_fd, pid_t pid, struct buffer *b, bool *ret_all)
{
	struct iterator_of task = { .thread = (uint32_t)pid };
	union bpf_attr link = { .link_create = { .prog_fd = (uint32_t)program_fd,
						 .attach_type = BPF_TRACE_ITER,
						 .iter_info = (uintptr_t)&task,
						 .iter_info_len = sizeof(task) } };
	_cleanup_close_ int link_fd = bpf_call(BPF_LINK_CREATE, &link), fd = -1;
	union bpf_attr iterator = { .iter_create = { .link_fd = (uint32_t)link_fd } };
	ssize_t n = link_fd;
	size_t length;

	if (n >= 0)
		n = fd = bpf_call(BPF_ITER_CREATE, &iterator);
	if (n >= 0)
		n = read_some(fd, b);
	if (n <= 0) {
		*ret_all = true;
		return (int)n;
	}
	/* What a second read gives is not to be relied on: the kernel (6.18) begins at the same mapping for ever. */
	length = b->length += (size_t)n;
	n = read_some(fd, b);
	b->length = length;
	*ret_all = n == 0;
	return (int)MIN(n, 0);
}

/* The mappings of a process, ascending; none when it has ended. */
static int read_mappings(const struct vma_flags *f, pid_t pid, struct mappings *ret)
{
	bool all = false;
	int r = read_part(f->program_fd, pid, &ret->bytes, &all);

	while (!r && !all) {
		const struct mapping *list = (void *)ret->bytes.data;
		size_t n = ret->bytes.length / sizeof(*list);
		_cleanup_close_ int fd = load_program(&f->offsets, list[n - 1].end);

		r = fd < 0 ? fd : read_part(fd, pid, &ret->bytes, &all);
	}
	if (r < 0)
		return r;
	ret->list = (void *)ret->bytes.data;
	ret->n = ret->bytes.length / sizeof(*ret->list);
	return 0;
}

static const struct mapping *find_mapping(const struct mappings *m, uint64_t start, uint64_t end)
{
	size_t low = 0, high = m->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->list[middle].start < start)
			low = middle + 1;
		else
			high = middle;
	}
	return low < m->n && m->list[low].start == start && m->list[low].end == end ? &m->list[low] : NULL;
}

static struct known *find_known(struct vma_flags *f, uint64_t word)
{
	for (size_t i = 0; i < f->n_known; i++)
		if (f->known[i].word == word)
			return &f->known[i];
	return NULL;
}

static int note(struct vma_flags *f, uint64_t word, const char *text)
{
	struct known *k = find_known(f, word);

	if (k) {
		if (strcmp(k->text, text) != 0)
			k->text[0] = 0;
		return 0;
	}
	if (array_grow(&f->known, f->n_known, &f->n_allocated, 32, sizeof(*f->known)) < 0)
		return -ENOMEM;
	k = &f->known[f->n_known++];
	*k = (struct known){ .word = word };
	snprintf(k->text, sizeof(k->text), "%s", text);
	return 0;
}

/* Pairs the lines of smaps with the words that did not change while it was read. */
static int learn_from(struct vma_flags *f, char *smaps, const struct mappings *before, const struct mappings *after)
{
	uint64_t start = 0, end = 0;
	int r = 0;

	for (char *line = smaps, *newline; !r && (newline = strchr(line, '\n')); line = newline + 1) {
		const struct mapping *m, *n;
		unsigned long from, to;
		const char *text = line + strlen("VmFlags: ");

		*newline = 0;
		if (strncmp(line, "VmFlags: ", strlen("VmFlags: ")) != 0) {
			/* "Rss:" and so on begin with letters that no address ends with */
			if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
				start = from;
				end = to;
			}
			continue;
		}
		if (strlen(text) >= TEXT_MAX)
			continue;
		if (start >= HIGHEST_USER) {
			f->gate_start = start;
			f->gate_end = end;
			snprintf(f->gate_text, sizeof(f->gate_text), "%s", text);
			continue;
		}
		m = find_mapping(before, start, end);
		n = find_mapping(after, start, end);
		if (m && n && m->word == n->word)
			r = note(f, m->word, text);
	}
	return r;
}

int vma_flags_learn(struct vma_flags *f, pid_t pid, struct error *err)
{
	struct mappings before = { 0 }, after = { 0 };
	_cleanup_buffer_ struct buffer smaps = { 0 };
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	r = read_mappings(f, pid, &before);
	if (!r)
		r = fd_read_file(AT_FDCWD, path, SMAPS_MAX, &smaps);
	if (!r)
		r = read_mappings(f, pid, &after);
	if (!r)
		r = buffer_append(&smaps, "", 1);
	if (!r)
		r = learn_from(f, (char *)smaps.data, &before, &after);
	buffer_free(&before.bytes);
	buffer_free(&after.bytes);
	return r < 0 ? error_errno(err, -r, "cannot learn the flags of the mappings of process %d", (int)pid) : 0;
}

int vma_flags_print(struct vma_flags *f, pid_t pid, struct buffer *text, struct error *err)
{
	struct mappings now = { 0 };
	size_t length = text->length;
	int r = read_mappings(f, pid, &now);

	if (!r && !now.n)
		r = -ENODATA;
	for (size_t i = 0; i < now.n && !r; i++) {
		const struct known *k = find_known(f, now.list[i].word);

		if (!k || !k->text[0])
			r = -ENODATA;
		else
			r = buffer_printf(text, "%d %llx %llx %s\n", (int)pid, (unsigned long long)now.list[i].start,
					  (unsigned long long)now.list[i].end, k->text);
	}
	if (!r && f->gate_start)
		r = buffer_printf(text, "%d %llx %llx %s\n", (int)pid, (unsigned long long)f->gate_start,
				  (unsigned long long)f->gate_end, f->gate_text);
	buffer_free(&now.bytes);
	if (r < 0) {
		text->length = length;
		return error_errno(err, -r, "the flags of the mappings of process %d are not known", (int)pid);
	}
	return 0;
}

int vma_flags_mark_locked(struct vma_flags *f, pid_t pid, struct maps *maps)
{
	struct mappings now = { 0 };
	int r = read_mappings(f, pid, &now);

	for (size_t turn = 0; turn < 2 && !r; turn++) /* first whether all are known */
		for (size_t i = 0; i < maps->n_maps && !r; i++) {
			struct map *map = &maps->maps[i];
			const struct mapping *m = find_mapping(&now, map->start, map->end);
			const struct known *k = m ? find_known(f, m->word) : NULL;

			if (map->start >= HIGHEST_USER)
				continue;
			if (!k || !k->text[0])
				r = -ENODATA;
			else if (turn)
				map->locked = map->locked || strstr(k->text, " lo ");
		}
	buffer_free(&now.bytes);
	return r;
}
