/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Arithmetic on numbers that come from outside. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether `offset` + `bytes` neither wraps nor passes `limit`. */
static inline bool range_fits(uint64_t offset, uint64_t bytes, uint64_t limit)
{
    return offset <= limit && bytes <= limit - offset;
}

/* Whether two ranges share a byte; none of them may wrap. */
static inline bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a_bytes && b_bytes && a < b + b_bytes && b < a + a_bytes;
}

static inline bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* `value` rounded to a multiple of `unit`, a power of two; align_up() must not be asked beyond the type. */
static inline uint64_t align_down(uint64_t value, uint64_t unit)
{
    return value & ~(unit - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t unit)
{
    return align_down(value + unit - 1, unit);
}

static inline bool is_aligned(uint64_t value, uint64_t unit)
{
    return !(value & (unit - 1));
}
