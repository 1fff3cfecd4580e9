/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers as people write them: each parser takes the whole text, and writes *ret only on success. Units of time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* Bytes: "4096", "4k", "1.5G", "+1M", "0x1000"; suffixes B, K, M, G, T, P, E of either case, powers of 1,024. */
bool size_parse(const char *text, uint64_t *ret) MUST_CHECK;

/* Decimal, or hexadecimal with "0x"; white space and, for the unsigned one, signs are refused. */
bool uint64_parse(const char *text, uint64_t *ret) MUST_CHECK;
bool int64_parse(const char *text, int64_t *ret) MUST_CHECK;
