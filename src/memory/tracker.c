/*
 * The tracker's interface: see tracker.h, and tracker-internal.h for which file does what.
 *
 * Invariants: a space id is given out once; a process is the same as long as its pidfd says it lives, whatever its number;
 * a process that cannot be tracked is kept all the same, with everything it has counting as written.
 * One thread.
 */
#include "memory/tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/array.h"
#include "base/fd.h"
#include "base/log.h"
#include "memory/tracker-internal.h"
#include "memory/vma-flags.h"

static int none_arm(struct tracked *p, uint64_t start, uint64_t end)
{
	(void)p;
	(void)start;
	(void)end;
	return -EOPNOTSUPP;
}

static int none_attach(struct tracked *p, const struct maps *maps, struct error *err)
{
	(void)p;
	(void)maps;
	return error_set(err, EOPNOTSUPP, "writes are not tracked; all memory is copied each time");
}

static void none_release(struct tracked *p, bool alive)
{
	(void)p;
	(void)alive;
}

const struct tracker_ops tracker_none_ops = {
	.kind = TRACKER_NONE,
	.attach = none_attach,
	.arm = none_arm,
	.release = none_release,
};

enum tracker_kind tracker_probe(struct error *err)
{
	struct error soft = { 0 };

	if (tracker_write_protect_works(err))
		return TRACKER_WRITE_PROTECT;
	if (tracker_soft_dirty_works(&soft))
		return TRACKER_SOFT_DIRTY;
	error_wrap(err, "%s, and", soft.text);
	return TRACKER_NONE;
}

static const struct tracker_ops *choose_ops(enum tracker_kind kind, struct error *err)
{
	switch (kind) {
	case TRACKER_AUTO:
		return choose_ops(tracker_probe(NULL), err);
	case TRACKER_WRITE_PROTECT:
		return tracker_write_protect_works(err) ? &tracker_write_protect_ops : NULL;
	case TRACKER_SOFT_DIRTY:
		return tracker_soft_dirty_works(err) ? &tracker_soft_dirty_ops : NULL;
	case TRACKER_NONE:
		return &tracker_none_ops;
	case TRACKER_KIND_MAX:
		break;
	}
	error_set(err, EINVAL, "no such kind of tracker: %d", (int)kind);
	return NULL;
}

int tracker_new(enum tracker_kind kind, struct tracker **ret, struct error *err)
{
	const struct tracker_ops *ops = choose_ops(kind, err);
	struct tracker *t;

	if (!ops)
		return err ? -err->number : -EOPNOTSUPP;
	fd_raise_limit(); /* three descriptors for each process */
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_set(err, ENOMEM, "no memory for the tracker");
	t->ops = ops;
	t->next_space = 1;
	if (scanner_init(&t->scanner, ops->use_ioctl || (ops->kind == TRACKER_NONE && scan_has_ioctl())) < 0) {
		free(t);
		return error_set(err, ENOMEM, "no memory for the tracker");
	}
	*ret = t;
	return 0;
}

enum tracker_kind tracker_kind_of(const struct tracker *t)
{
	return t->ops->kind;
}

uint64_t process_memory_id(pid_t pid)
{
	_cleanup_buffer_ struct buffer text = { 0 };
	uint64_t id = 0;
	char path[64], *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (fd_read_file(AT_FDCWD, path, 65536, &text) < 0 || !text.length)
		return 0;
	p = strrchr((char *)text.data, ')'); /* the name may hold anything; field 3 follows */
	for (int field = 2; p && field < 47; field++) {
		p = strchr(p + 1, ' ');
		/* startcode, startstack, start_brk: random with each execve(2), see proc(5) */
		if (p && (field + 1 == 26 || field + 1 == 28 || field + 1 == 47))
			id = id * 0x9e3779b97f4a7c15ULL + strtoull(p + 1, NULL, 10);
	}
	return id;
}

bool tracked_memory_changed(const struct tracked *p)
{
	uint64_t word;

	/* pagemap ends at once when the memory it was opened for has no user left; that may be somebody else, though. */
	if (pread(p->pagemap_fd, &word, sizeof(word), 0) == 0)
		return true;
	return process_memory_id(p->pid) != p->memory_id;
}

static void forget_memory(struct tracked *p)
{
	close_fd(&p->pagemap_fd);
	range_set_free(&p->armed);
	range_set_free(&p->armed_private);
	frames_free(&p->frames);
	range_set_free(&p->fresh);
	range_set_free(&p->unwritable);
	range_set_free(&p->present);
	direct_io_free(&p->direct_io);
	p->present_valid = p->attached = false;
	p->attempts = 0;
}

static void tracked_release(const struct tracker *t, struct tracked *p)
{
	bool alive = p->pidfd >= 0 && fd_wait(p->pidfd, POLLIN, 0) == 0 && !tracked_memory_changed(p);

	t->ops->release(p, alive);
	forget_memory(p);
	close_fd(&p->pidfd);
	free(p->areas.areas);
	free(p);
}

static struct tracked *find_process(const struct tracker *t, pid_t pid, size_t hint)
{
	if (hint < t->n_processes && t->processes[hint]->pid == pid)
		return t->processes[hint];
	for (size_t i = 0; i < t->n_processes; i++)
		if (t->processes[i]->pid == pid)
			return t->processes[i];
	return NULL;
}

static int open_memory(struct tracked *p)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)p->pid);
	p->memory_id = process_memory_id(p->pid);
	p->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
	return p->pagemap_fd < 0 ? -errno : 0;
}

/* A new entry; -ESRCH: it has ended already. */
static int add_process(struct tracker *t, pid_t pid, pid_t image_pid, struct tracked **ret)
{
	struct tracked *p;
	int r;

	if (t->next_space >= SPACES_MAX)
		return -ENOSPC;
	if (array_grow(&t->processes, t->n_processes, &t->n_allocated, 16, sizeof(*t->processes)) < 0)
		return -ENOMEM;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct tracked){ .pid = pid, .image_pid = image_pid, .pagemap_fd = -1, .uffd = -1 };
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	r = p->pidfd < 0 ? -errno : open_memory(p);
	if (r < 0) {
		close_fd(&p->pidfd);
		free(p);
		return r == -ENOENT ? -ESRCH : r;
	}
	p->space = t->next_space++;
	t->processes[t->n_processes++] = p;
	*ret = p;
	return 0;
}

static void remove_process(struct tracker *t, struct tracked *p)
{
	for (size_t i = 0; i < t->n_processes; i++)
		if (t->processes[i] == p) {
			memmove(&t->processes[i], &t->processes[i + 1],
				(t->n_processes - i - 1) * sizeof(t->processes[0]));
			t->n_processes--;
			break;
		}
	tracked_release(t, p);
}

/* One look at a process with the memory it has now. */
static int update_once(struct tracker *t, struct tracked *p, enum tracker_pass pass, struct error *err)
{
	_cleanup_maps_ struct maps maps = { 0 };
	uint64_t locked = 0;
	int r;

	if (tracked_memory_changed(p)) {
		t->ops->release(p, false);
		forget_memory(p);
		if (open_memory(p) < 0)
			return -ESRCH;
	}
	r = maps_read(p->pid, &maps, err);
	if (r < 0)
		return r;
	if (pass == TRACKER_ROUND) {
		tracked_attach(t, p, &maps);
		if (!p->direct_io.seen)
			p->direct_io.seen = direct_io_has_ring(p->pid, &maps);
	} else if (!status_read_number(p->pid, "VmLck", &locked) && locked) {
		r = t->flags ? vma_flags_mark_locked(t->flags, p->pid, &maps) : -ENODATA;
		if (r < 0)
			r = maps_mark_locked(p->pid, &maps, err);
		if (r < 0)
			return r;
	}
	return tracked_map_areas(t, p, &maps, pass, err);
}

static int update_process(struct tracker *t, struct tracked *p, enum tracker_pass pass, struct error *err)
{
	int r = 0;

	/* execve(2) between two steps shows as -ESRCH: look again, a few times at most. */
	for (int i = 0; i < 3; i++) {
		r = update_once(t, p, pass, err);
		if (r != -ESRCH)
			return r;
	}
	remove_process(t, p); /* ended, or a zombie: it has no memory */
	return 0;
}

static int compare_spaces(const void *a, const void *b)
{
	const struct space *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

static int list_spaces(struct tracker *t)
{
	struct space *spaces = calloc(t->n_processes + t->inodes.n_entries + 1, sizeof(*spaces));
	size_t n = 0;

	if (!spaces)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_processes; i++)
		spaces[n++] = (struct space){ .id = t->processes[i]->space,
					      .kind = SPACE_PROCESS,
					      .pid = t->processes[i]->pid,
					      .image_pid = t->processes[i]->image_pid };
	for (size_t i = 0; i < t->inodes.n_slots; i++) {
		const struct inode_entry *e = t->inodes.slots[i];

		if (e && e->space && e->seen_shared == t->update)
			spaces[n++] = (struct space){
				.id = e->space, .kind = SPACE_SHARED, .device = e->device, .inode = e->inode
			};
	}
	qsort(spaces, n, sizeof(*spaces), compare_spaces);
	free(t->spaces);
	t->spaces = spaces;
	t->n_spaces = n;
	return 0;
}

/* Takes up a process that is named for the first time, unless it has ended. */
static int name_process(struct tracker *t, enum tracker_pass pass, pid_t pid, pid_t image_pid, size_t hint,
			struct error *err)
{
	struct tracked *p = find_process(t, pid, hint);
	int r;

	if (p && fd_wait(p->pidfd, POLLIN, 0) > 0) { /* ended, and its number may be another's */
		remove_process(t, p);
		p = NULL;
	}
	if (!p) {
		r = add_process(t, pid, image_pid, &p);
		if (r == -ESRCH)
			return 0;
		if (r < 0)
			return error_errno(err, -r, "cannot watch process %d", (int)pid);
		p->late = pass == TRACKER_FINAL;
	}
	p->image_pid = image_pid;
	p->update = t->update;
	return 0;
}

int tracker_update(struct tracker *t, enum tracker_pass pass, const pid_t *pids, const pid_t *image_pids, size_t n,
		   struct error *err)
{
	int r;

	t->update++;
	for (size_t i = 0; i < n; i++) {
		r = name_process(t, pass, pids[i], image_pids[i], i, err);
		if (r < 0)
			return r;
	}
	for (size_t i = t->n_processes; i-- > 0;)
		if (t->processes[i]->update != t->update)
			remove_process(t, t->processes[i]);
	if (pass == TRACKER_ROUND)
		tracked_attach_new(t);
	/* Backwards: who has ended meanwhile leaves the list. */
	for (size_t i = t->n_processes; i-- > 0;) {
		r = update_process(t, t->processes[i], pass, err);
		if (r < 0)
			return r;
	}
	inode_table_expire(&t->inodes, t->update);
	if (t->next_space >= SPACES_MAX)
		return error_set(err, ENOSPC, "more than %d processes and shared memory objects came and went",
				 SPACES_MAX);
	r = list_spaces(t);
	return r < 0 ? error_errno(err, -r, "no memory for the list of spaces") : 0;
}

void tracker_set_flags(struct tracker *t, struct vma_flags *flags)
{
	t->flags = flags;
}

size_t tracker_spaces(const struct tracker *t, const struct space **ret)
{
	*ret = t->spaces;
	return t->n_spaces;
}

size_t tracker_untracked(const struct tracker *t, struct error *ret_reason)
{
	size_t n = 0;

	for (size_t i = 0; i < t->n_processes; i++) {
		const struct tracked *p = t->processes[i];

		if (!p->reason_number || p->late)
			continue;
		if (!n++)
			error_set(ret_reason, p->reason_number, "%s", p->reason);
	}
	return n;
}

int tracker_resident_bytes(pid_t pid, uint64_t *ret, struct error *err)
{
	static const char *const fields[] = { "RssAnon", "RssShmem", "VmSwap", "HugetlbPages" };
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		uint64_t kib = 0;
		int r = status_read_number(pid, fields[i], &kib);

		if (r < 0 && r != -ENOENT) /* absent: a kernel thread or a zombie has no memory */
			return error_errno(err, -r, "cannot read the memory size of process %d", (int)pid);
		sum += kib << 10;
	}
	*ret = sum;
	return 0;
}

void tracker_free(struct tracker *t)
{
	if (!t)
		return;
	while (t->n_processes)
		remove_process(t, t->processes[t->n_processes - 1]);
	free(t->processes);
	free(t->spaces);
	inode_table_free(&t->inodes);
	scanner_free(&t->scanner);
	free(t);
}
