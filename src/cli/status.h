/* What a journal's last state means, in words. */
#pragma once

#include <stdbool.h>

#include "migration/journal.h"

/* What it means on this side, and what to do about it. */
const char *status_explain(const struct journal_summary *summary);
