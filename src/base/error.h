/*
 * Errors that a person can act on.
 *
 * Functions return 0 (or a count) or a negative errno. Across a module's boundary they also take a
 * trailing `struct error *err`, which is filled once, where the failure happened, with a sentence that
 * says what was tried, on what, why it failed and, where known, what to do. Callers may put their own
 * context in front (error_wrap) and the sentence is shown once, at the top. err may always be NULL.
 */
#pragma once

#include "base/cleanup.h"

#define ERROR_TEXT_MAX 1024

struct error {
	int number;		   /* positive errno; 0: nothing went wrong yet */
	char text[ERROR_TEXT_MAX]; /* one sentence, no newline */
};

/* Fills err and returns -number. number is a positive errno; 0 is taken as EIO. */
int error_set(struct error *err, int number, const char *fmt, ...) _printf_(3, 4);

/* The same, with ": " and the text of number behind the sentence. */
int error_errno(struct error *err, int number, const char *fmt, ...) _printf_(3, 4);

/* Puts "context: " before what err says and returns -err->number. */
int error_wrap(struct error *err, const char *fmt, ...) _printf_(2, 3);

/* Control characters become spaces: one line stays one line, and no terminal obeys what a peer or a file is called. */
void error_tidy(char *text);
