/* phaul-criu-hook's part for a network namespace: hook-settings.c. */
#pragma once

/* directory: where HOOK_SETTINGS may lie; root: the pid of the root task, of whose namespace it is. */
void hook_settings(const char *directory, const char *root);
