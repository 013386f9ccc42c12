/*
 * The driver of containers of runc, or of another OCI runtime that has runc's command line and state (--runtime). See driver.h,
 * docs/driver-runc.md.
 */
#pragma once

#include "driver/driver.h"

extern const struct driver_ops driver_runc;
