/* Pages: the unit of everything under memory/. x86-64 and arm64 with 4 KiB pages; others are refused at
 * start-up (plan) rather than mishandled. */
#pragma once

#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_BYTES (1ULL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_BYTES - 1))
