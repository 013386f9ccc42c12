/*
 * Inside of net/: what its files that speak rtnetlink share.
 */
#pragma once

#include "net/net.h"

/* A positive errno for libnl's number, of either sign; they are its own (libnl3, errno.h). */
int net_errno(int nle);
