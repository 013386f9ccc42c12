/*
 * The text of an LXC container's configuration: lines "key = value", read and rewritten without liblxc, so that comments, includes
 * and the order of lines stay as their author left them. What is appended to a buffer has a NUL behind it. Source of the facts: lxc.container.conf(5), LXC's src/lxc/parse.c, confile.c.
 */
#pragma once

#include <stdbool.h>

#include "base/buffer.h"

#define LXC_CONFIG_MAX 65536 /* bytes; a usual one has some hundred */
#define LXC_VALUE_MAX 4096

/* Every setting in order; comments and includes' contents apart. Ends early with what `each` returns when that is not 0. */
int lxc_config_each(const char *text, int (*each)(void *context, const char *key, const char *value), void *context);

/* The last value of a key, as LXC takes it. false: it is not there. */
bool lxc_config_value(const char *text, const char *key, char *ret, size_t size);

/* Appends text to ret with every mention of the path `from`, or of what lies below it, led to `to`. 0 or -ENOMEM. */
int lxc_config_move(const char *text, const char *from, const char *to, struct buffer *ret);

/* Appends text to ret with each `lxc.net.N.link = from` changed to `to`. 0 or -ENOMEM. */
int lxc_config_relink(const char *text, const char *from, const char *to, struct buffer *ret);

/* A guarded configuration is never started by the host itself (lxc.start.auto): appended lines that can be taken away again. */
int lxc_config_guard(const char *text, struct buffer *ret);
int lxc_config_unguard(const char *text, struct buffer *ret);
bool lxc_config_guarded(const char *text);

/* path, when it is `from` or lies below it, as it is called below `to`; else as it is. 0, or -ENAMETOOLONG. */
int lxc_path_move(const char *path, const char *from, const char *to, char *ret, size_t size);

/* Whether path is `directory` or lies below it, by the letters. */
bool lxc_path_below(const char *path, const char *directory);
