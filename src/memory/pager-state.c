/*
 * The shared state: see pager-state.h for what must hold. Used by the client before the supervisor starts, then by one
 * pager at a time.
 *
 * Threads: none; what two processes touch is atomic.
 */
#include "memory/pager-state.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

int pager_state_map(int fd, struct pager_state **ret, struct error *err)
{
	void *m = mmap(NULL, PAGER_STATE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (m == MAP_FAILED)
		return error_errno(err, errno, "cannot map the pager's state");
	*ret = m;
	return 0;
}

void pager_state_unmap(struct pager_state *s)
{
	if (s)
		munmap(s, PAGER_STATE_BYTES);
}

int pager_state_new(int *ret_fd, struct pager_state **ret, struct error *err)
{
	_cleanup_close_ int fd = memfd_create("phaul-pager-state", MFD_CLOEXEC);
	struct pager_state *s;
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)PAGER_STATE_BYTES) < 0)
		return error_errno(err, errno, "cannot make the pager's state");
	r = pager_state_map(fd, &s, err);
	if (r < 0)
		return r;
	s->next = sizeof(*s);
	s->members_offset = pager_state_alloc(s, PAGER_MEMBERS_MAX * sizeof(struct pager_member));
	*ret = s;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

uint64_t pager_state_alloc(struct pager_state *s, uint64_t bytes)
{
	uint64_t at = (s->next + PAGE_BYTES - 1) & PAGE_MASK;

	if (bytes > PAGER_STATE_BYTES || at > PAGER_STATE_BYTES - bytes)
		return 0;
	s->next = at + bytes;
	return at;
}

int pager_state_fail(struct pager_state *s, int number, const char *fmt, ...)
{
	if (!s->failed) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(s->failure, sizeof(s->failure), fmt, ap);
		va_end(ap);
		s->failed = number;
	}
	return -number;
}

/* Room for `n` segments in a table that is not active. */
static bool table_reserve(struct pager_state *s, struct pager_table *t, uint64_t n)
{
	uint64_t capacity = n + n / 2 + 64, at;

	if (n <= t->capacity)
		return true;
	at = pager_state_alloc(s, capacity * sizeof(struct pager_segment));
	if (!at)
		return false;
	t->offset = at;
	t->capacity = capacity;
	return true;
}

static uint64_t bits_words(uint64_t pages)
{
	return (pages + 63) / 64;
}

static struct pager_member *free_member(struct pager_state *s)
{
	for (uint32_t i = 0; i < s->n_members; i++)
		if (state_member(s, i)->state == MEMBER_FREE)
			return state_member(s, i);
	if (s->n_members == PAGER_MEMBERS_MAX)
		return NULL;
	s->n_members++;
	return state_member(s, s->n_members - 1);
}

struct pager_member *pager_member_new(struct pager_state *s, uint32_t space, int uffd, struct pager_member *parent)
{
	struct pager_space_state *sp = state_space(s, space);
	struct pager_table from =
		parent ? *member_table(parent) : (struct pager_table){ .offset = sp->runs_offset, .n = sp->n_runs };
	uint64_t words = bits_words(sp->pages);
	struct pager_member *m = free_member(s);

	if (!m)
		return NULL;
	m->active = 0;
	if (!table_reserve(s, &m->tables[0], from.n))
		return NULL;
	if (words > m->bits_capacity) {
		m->bits_offset = pager_state_alloc(s, words * 8);
		if (!m->bits_offset)
			return NULL;
		m->bits_capacity = words;
	}
	memcpy(state_at(s, m->tables[0].offset), state_at(s, from.offset), from.n * sizeof(struct pager_segment));
	m->tables[0].n = from.n;
	m->tables[0].done = 0;
	if (parent)
		memcpy(member_bits(s, m), member_bits(s, parent), words * 8);
	else
		memset(state_at(s, m->bits_offset), 0, words * 8);
	memset(m->slots, 0, sizeof(m->slots));
	m->left = parent ? parent->left : sp->pages;
	m->space = space;
	m->uffd = uffd;
	m->state = MEMBER_LIVE;
	return m;
}

struct pager_member *pager_member_find(struct pager_state *s, int uffd)
{
	for (uint32_t i = 0; i < s->n_members; i++)
		if (state_member(s, i)->state == MEMBER_LIVE && state_member(s, i)->uffd == uffd)
			return state_member(s, i);
	return NULL;
}

/* Whether that descriptor is a userfaultfd: one that was closed just before the end may be anything else by now. */
static bool is_userfaultfd(int fd)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return strstr(target, "[userfaultfd]") != NULL;
}

void pager_members_recover(struct pager_state *s)
{
	for (uint32_t i = 0; i < s->n_members; i++) {
		struct pager_member *m = state_member(s, i);
		uint64_t pages, *bits, set = 0;

		if (m->state == MEMBER_CLOSING) {
			if (is_userfaultfd(m->uffd))
				close(m->uffd);
			m->state = MEMBER_FREE;
		}
		if (m->state == MEMBER_FREE)
			continue;
		pages = state_space(s, m->space)->pages;
		bits = member_bits(s, m);
		for (uint64_t w = 0; w < bits_words(pages); w++)
			set += (uint64_t)__builtin_popcountll(bits[w]);
		m->left = pages - set;
	}
}

/* Bits of word w that lie in [index, end). */
static uint64_t bits_mask(uint64_t w, uint64_t index, uint64_t end)
{
	uint64_t mask = UINT64_MAX;

	if (w == index / 64)
		mask &= UINT64_MAX << (index % 64);
	if (w == end / 64)
		mask &= (1ULL << (end % 64)) - 1;
	return mask;
}

void pager_member_mark(struct pager_state *s, struct pager_member *m, uint64_t index, uint64_t pages)
{
	uint64_t *bits = member_bits(s, m), end = index + pages;

	for (uint64_t w = index / 64; pages && w <= (end - 1) / 64; w++) {
		uint64_t fresh = bits_mask(w, index, end) & ~bits[w];

		bits[w] |= fresh;
		m->left -= (uint64_t)__builtin_popcountll(fresh);
	}
}

bool pager_member_marked(struct pager_state *s, const struct pager_member *m, uint64_t index, uint64_t pages)
{
	const uint64_t *bits = member_bits(s, m);
	uint64_t end = index + pages;

	for (uint64_t w = index / 64; pages && w <= (end - 1) / 64; w++)
		if (bits_mask(w, index, end) & ~bits[w])
			return false;
	return true;
}
