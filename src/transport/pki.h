/*
 * A small certificate authority for mutual TLS: `phaul pki init` and `phaul pki issue NAME`.
 *
 * Layout of a directory (default /etc/phaul/pki, mode 0700): ca.crt, ca.key (0600; only where certificates are
 * issued), NAME.crt, NAME.key (0600) per host; host.crt and host.key are what this host uses (links or copies).
 * Keys are EC P-256; certificates carry the name as CN and DNS SAN, both client and server usage.
 */
#pragma once

#include <stdbool.h>

#include "base/error.h"

#define PKI_DIRECTORY_DEFAULT "/etc/phaul/pki"

/* Makes the authority; -EEXIST (with a sentence) when there is one already. */
int pki_init(const char *directory, int days, struct error *err);

/* Issues NAME.crt and NAME.key, and host.crt/host.key as links to them when there are none yet.
 * NAME: 1 to 63 of [a-zA-Z0-9.-]; -EINVAL otherwise, -EEXIST unless `force`, -ENOENT without an authority. */
int pki_issue(const char *directory, const char *name, int days, bool force, struct error *err);
