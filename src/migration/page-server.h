/*
 * The source's side of post-copy: gives out the pages of stopped tasks, those that faults at the target wait for first.
 *
 * Two channels, one thread each (fetch.h is the other end). Each link begins with the target's list of what it lacks; every page of it is
 * sent once. Nothing here stops, continues or ends a task, and nothing is remembered from one link to the next.
 */
#pragma once

#include "memory/space.h"
#include "transport/channel.h"

struct page_server;

struct page_server_space {
	uint32_t space;
	pid_t pid;
};

/* encodings: a set, of those that may be used beside zero and raw; such as need what the target has are not. */
int page_server_new(uint32_t encodings, struct page_server **ret, struct error *err);

/* Whose memory it is; before anything is asked for. 0, -ENOMEM. */
int page_server_set_spaces(struct page_server *s, const struct page_server_space *spaces, size_t n);

/* A link: takes both channels over, in the place of a broken one. window_bytes: how much of the background stream may be on its way,
 * for a request waits behind it where the link is narrow. */
int page_server_attach(struct page_server *s, struct channel *urgent, struct channel *others, uint32_t window_bytes,
		       struct error *err);

/* The background stream may begin; requests are answered from the start. */
void page_server_release(struct page_server *s);

/* 0, or why the link is broken. */
int page_server_failure(struct page_server *s, struct error *err);

struct page_server_counters {
	uint64_t pages, pages_urgent, bytes_out;
};
void page_server_progress(struct page_server *s, struct page_server_counters *ret);

/* Breaks the link, joins the threads. */
void page_server_free(struct page_server *s);
