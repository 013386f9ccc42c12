/* What a journal's last state means, in words. */
#pragma once

#include <stdbool.h>

#include "migration/journal.h"

/* Nothing is left to do or to find out on this side. */
bool status_finished(enum migration_state state);

/* What it means on this side, and what to do about it. */
const char *status_explain(const struct journal_summary *summary);
