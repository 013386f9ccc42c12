/*
 * What the client (pager.c) and the supervisor (pager-main.c) agree on.
 *
 * Over the control socket: one byte with {state, listening socket}; bytes with up to PAGER_FDS_PER_MESSAGE stores each; then
 * the supervisor answers one byte when it is up. Later a byte from either side only means: look at the state.
 */
#pragma once

#define PAGER_FDS_PER_MESSAGE 16
