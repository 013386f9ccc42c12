/*
 * Control groups that a container left behind.
 */
#pragma once

/* Removes the group at `path` and those below it, which hold no tasks: rmdir(2) removes no other. 0, or -1 with errno when they cannot be walked. */
int group_remove_tree(const char *path);
