/*
 * The sender: see sender.h.
 *
 * Threads: one per channel, plus the caller. Under `lock`: the round, the cursor into its runs, the counters, the failure. A
 * thread takes a piece (pages of one process, at most one frame's worth) under the lock and works on it without. Reading,
 * encoding, encryption and sending of one piece follow each other in one thread; with two or more channels they overlap.
 *
 * Small frames are gathered in an output buffer so that scattered pages do not cost a system call each.
 */
#include "migration/sender-internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "memory/tracker.h"
#include "transport/pacer.h"

#define PIECE_RUNS 64		   /* runs in one piece at most */
#define GATHER_LARGEST (32U << 10) /* larger payloads go directly */

struct piece {
	struct page_run runs[PIECE_RUNS];
	size_t n_runs;
	uint64_t pages;
};

/* The next piece of the round; empty when there is none. Called under the lock. */
static void sender_take(struct sender *s, struct piece *piece)
{
	piece->n_runs = 0;
	piece->pages = 0;
	while (s->next_run < s->runs->n_runs && piece->n_runs < PIECE_RUNS && piece->pages < CODEC_PIECE_PAGES) {
		const struct page_run *run = &s->runs->runs[s->next_run];
		uint64_t n = MIN(run->pages - s->next_page, CODEC_PIECE_PAGES - piece->pages);
		struct page_run *part = &piece->runs[piece->n_runs];

		if (piece->n_runs && piece->runs[0].pid != run->pid)
			break;
		*part = *run;
		part->address += s->next_page << PAGE_SHIFT;
		part->pid_address += s->next_page << PAGE_SHIFT;
		part->pages = n;
		piece->n_runs++;
		piece->pages += n;
		s->next_page += n;
		if (s->next_page == run->pages) {
			s->next_run++;
			s->next_page = 0;
		}
	}
}

/* Whether the link has not yet taken what was written last. A limit of our own counts as the link's. Over ssh it cannot be told, and is taken
 * for so: packing too much there costs less than packing too little. */
static bool link_is_behind(const struct sender_thread *t)
{
	int unsent = 0;

	if (t->sender->pacer && pacer_limits(t->sender->pacer))
		return true;
	return ioctl(channel_poll_fd(t->channel), SIOCOUTQNSD, &unsent) < 0 || unsent > 0;
}

/* All frames leave here: what the link takes per second, as this thread sees it, tells the codec what pays. */
static int thread_write(struct sender_thread *t, const struct iovec *iov, int n_iov, struct error *err)
{
	struct link_write w = { 0 };
	int r;

	gentle_look(&t->gentle);
	w.before_ns = clock_now_ns();
	w.before_cpu_ns = clock_thread_ns();
	w.waited = link_is_behind(t);
	r = channel_writev(t->channel, iov, n_iov, err);
	w.after_ns = clock_now_ns();
	w.after_cpu_ns = clock_thread_ns();
	for (int i = 0; i < n_iov; i++)
		w.bytes += iov[i].iov_len;
	if (link_meter_add(&t->meter, &w))
		codec_set_link_rate(t->codec, link_meter_rate(&t->meter));
	return r;
}

static int thread_flush(struct sender_thread *t, struct error *err)
{
	struct iovec iov = { t->gather, t->gathered };

	t->gathered = 0;
	return iov.iov_len ? thread_write(t, &iov, 1, err) : 0;
}

int sender_send_frame(struct sender_thread *t, const struct frame_pages *pages, const uint8_t *payload,
		      uint32_t payload_bytes, struct error *err)
{
	uint8_t head[FRAME_PAGES_HEAD_BYTES];
	size_t length = sizeof(head) + payload_bytes;
	int r = 0;

	frame_encode_pages(head, pages, payload_bytes);
	t->counters.bytes += length;
	t->counters.by[pages->encoding].pages += pages->pages;
	t->counters.by[pages->encoding].bytes += length;
	if (t->gathered + length > GATHER_BYTES || payload_bytes > GATHER_LARGEST)
		r = thread_flush(t, err);
	if (r < 0)
		return r;
	if (payload_bytes > GATHER_LARGEST) {
		struct iovec iov[2] = { { head, sizeof(head) }, { (void *)payload, payload_bytes } };

		return thread_write(t, iov, 2, err);
	}
	memcpy(t->gather + t->gathered, head, sizeof(head));
	if (payload_bytes)
		memcpy(t->gather + t->gathered + sizeof(head), payload, payload_bytes);
	t->gathered += length;
	return 0;
}

static bool bit_set(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

static int thread_send_piece(struct sender_thread *t, const struct piece *piece, struct error *err)
{
	struct range remote[PIECE_RUNS];
	uint64_t gone[CODEC_PIECE_PAGES / 64] = { 0 }, first = 0;
	int r;

	for (size_t i = 0; i < piece->n_runs; i++)
		remote[i] = (struct range){ piece->runs[i].pid_address,
					    piece->runs[i].pid_address + (piece->runs[i].pages << PAGE_SHIFT) };
	t->counters = (struct sender_counters){ .pages = piece->pages };
	r = reader_read(piece->runs[0].pid, remote, piece->n_runs, t->pages, gone, err);
	if (r == -ESRCH) {
		/* The process ended while we copied; the next round's list will not name it. */
		t->counters.pages_gone = piece->pages;
		return 0;
	}
	for (size_t i = 0; r >= 0 && i < piece->n_runs; first += piece->runs[i++].pages) {
		const struct page_run *run = &piece->runs[i];

		for (uint64_t at = 0; r >= 0 && at < run->pages;) {
			struct page_run part = *run;
			uint64_t n = 1;
			bool is_gone = bit_set(gone, first + at);

			while (at + n < run->pages && bit_set(gone, first + at + n) == is_gone)
				n++;
			part.address += at << PAGE_SHIFT;
			part.pages = n;
			if (is_gone)
				t->counters.pages_gone += n;
			else
				r = sender_send_run(t, &part, t->pages + ((first + at) << PAGE_SHIFT), err);
			at += n;
		}
	}
	return r < 0 ? r : 0;
}

static void counters_add(struct sender_counters *to, const struct sender_counters *from)
{
	to->pages += from->pages;
	to->pages_gone += from->pages_gone;
	to->bytes += from->bytes;
	for (size_t i = 0; i < ENCODING_MAX; i++) {
		to->by[i].pages += from->by[i].pages;
		to->by[i].bytes += from->by[i].bytes;
	}
}

/* Sends pieces until there are none, then the barrier. */
static int thread_round(struct sender_thread *t, uint32_t round, struct error *err)
{
	struct sender *s = t->sender;
	uint8_t barrier[FRAME_HEADER_BYTES + FRAME_BARRIER_BYTES];
	struct piece piece;
	int r;

	link_meter_begin(&t->meter);
	for (;;) {
		pthread_mutex_lock(&s->lock);
		sender_take(s, &piece);
		if (s->failure.number || s->stop)
			piece.n_runs = 0;
		pthread_mutex_unlock(&s->lock);
		if (!piece.n_runs)
			break;
		r = thread_send_piece(t, &piece, err);
		if (r < 0)
			return r;
		pthread_mutex_lock(&s->lock);
		counters_add(&s->this_round, &t->counters);
		counters_add(&s->all, &t->counters);
		pthread_mutex_unlock(&s->lock);
	}
	r = thread_flush(t, err);
	if (r < 0)
		return r;
	frame_encode_barrier(barrier, round);
	return channel_write(t->channel, barrier, sizeof(barrier), err);
}

void *sender_thread_main(void *arg)
{
	struct sender_thread *t = arg;
	struct sender *s = t->sender;
	uint32_t finished;

	gentle_begin(&t->gentle);
	pthread_mutex_lock(&s->lock);
	finished = t->started_at;
	while (!s->stop) {
		struct error err = { 0 };
		uint32_t round = s->round, turn = s->turn;
		int r;

		if (turn == finished) {
			pthread_cond_wait(&s->work, &s->lock);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		r = thread_round(t, round, &err);
		pthread_mutex_lock(&s->lock);
		finished = turn;
		if (r < 0 && !s->failure.number)
			s->failure = err;
		s->busy--;
		pthread_cond_broadcast(&s->done);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void sender_set_gentle(struct sender *s, bool gentle)
{
	for (size_t i = 0; i < s->n_threads; i++)
		gentle_set(&s->threads[i].gentle, gentle);
}

int sender_start(struct sender *s, uint32_t round, const struct page_runs *runs, enum sender_turn turn,
		 struct error *err)
{
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (s->failure.number) {
		if (err)
			*err = s->failure;
		r = -s->failure.number;
	} else if (sender_encode_begin(s, runs, turn, round) < 0) {
		r = error_set(err, ENOMEM, "no memory to note what the target has");
	} else {
		s->runs = runs;
		s->next_run = 0;
		s->next_page = 0;
		s->round = round;
		s->turn++;
		s->busy = (uint32_t)s->n_threads;
		if (turn != SENDER_AGAIN)
			s->this_round = (struct sender_counters){ 0 };
		for (size_t i = 0; i < s->n_threads; i++)
			page_runs_free(&s->threads[i].sent);
		pthread_cond_broadcast(&s->work);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int sender_wait(struct sender *s, uint64_t deadline_ns, struct error *err)
{
	struct timespec until = { .tv_sec = (time_t)(deadline_ns / NS_PER_S),
				  .tv_nsec = (long)(deadline_ns % NS_PER_S) };
	int r = 1;

	pthread_mutex_lock(&s->lock);
	while (s->busy && !s->failure.number) {
		if (deadline_ns == DEADLINE_NEVER)
			pthread_cond_wait(&s->done, &s->lock);
		else if (pthread_cond_timedwait(&s->done, &s->lock, &until) == ETIMEDOUT)
			break;
	}
	if (s->failure.number) {
		if (err)
			*err = s->failure;
		r = -s->failure.number;
	} else if (s->busy) {
		r = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int sender_cut(struct sender *s, struct page_runs *ret)
{
	int r = 0;

	pthread_mutex_lock(&s->lock);
	for (size_t i = s->next_run; s->busy && i < s->runs->n_runs && !r; i++) {
		struct page_run part = s->runs->runs[i];
		uint64_t skip = i == s->next_run ? s->next_page : 0;

		part.address += skip << PAGE_SHIFT;
		part.pid_address += skip << PAGE_SHIFT;
		part.pages -= skip;
		r = page_runs_add(ret, &part);
	}
	if (!r && s->busy)
		s->next_run = s->runs->n_runs;
	pthread_mutex_unlock(&s->lock);
	return r;
}

void sender_set_pacer(struct sender *s, struct pacer *pacer)
{
	s->pacer = pacer;
	for (size_t i = 0; i < s->n_threads; i++)
		channel_set_pacer(s->threads[i].channel, pacer);
}

void sender_progress(struct sender *s, struct sender_counters *ret_round, struct sender_counters *ret_all)
{
	pthread_mutex_lock(&s->lock);
	*ret_round = s->this_round;
	*ret_all = s->all;
	pthread_mutex_unlock(&s->lock);
}

uint64_t sender_bytes_out(struct sender *s)
{
	uint64_t sum = s->bytes_before;

	for (size_t i = 0; i < s->n_threads; i++)
		sum += s->threads[i].channel ? channel_bytes_out(s->threads[i].channel) : 0;
	return sum;
}
