/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large bitmaps, as trees: a clean or an all-set area costs no memory however large it is, and finding the next set or
 * clear bit takes a few steps a level (7 levels at most). No locks: the user guards them.
 *
 * Bit ranges must lie inside the size. Bits are numbered as in memory and on disk: bit i is bit i % 8, counted from the
 * lowest, of byte i / 8.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct bitmap;

#define BITMAP_BITS_MAX (UINT64_C(1) << 54) /* 8 EiB in blocks of 512 bytes */

/* `size` bits, all clear; at most BITMAP_BITS_MAX. */
struct bitmap *bitmap_new(uint64_t size) MUST_CHECK;
struct bitmap *bitmap_copy(const struct bitmap *bitmap) MUST_CHECK;
void bitmap_free(struct bitmap *bitmap); /* NULL is allowed */
AUTO_DEFINE(bitmap, struct bitmap *, bitmap_free)

uint64_t bitmap_size(const struct bitmap *bitmap);        /* bits */
uint64_t bitmap_count(const struct bitmap *bitmap);       /* set ones; at once */
size_t bitmap_memory_bytes(const struct bitmap *bitmap);  /* that it takes; walks the tree */
void bitmap_resize(struct bitmap *bitmap, uint64_t size); /* new bits are clear */

bool bitmap_get(const struct bitmap *bitmap, uint64_t bit);
void bitmap_set(struct bitmap *bitmap, uint64_t first, uint64_t count);
void bitmap_clear(struct bitmap *bitmap, uint64_t first, uint64_t count);

/* The first set, or clear, bit in [from, end); `end` where there is none. */
uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from, uint64_t end);
uint64_t bitmap_next_clear(const struct bitmap *bitmap, uint64_t from, uint64_t end);

/* The first run of set bits in [from, end), cut there; false where there is none. */
bool bitmap_next_run(const struct bitmap *bitmap, uint64_t from, uint64_t end, uint64_t *ret_first,
                     uint64_t *ret_count);

/* Sets in `to` what is set in `from`, of the same size. */
void bitmap_merge(struct bitmap *to, const struct bitmap *from);

/*
 * The same where a bit of `from` stands for 1 << from_shift units and one of `to` for 1 << to_shift: sets every bit of
 * `to` that shares a unit with a set one of `from`. What lies beyond the end of `to` is left out.
 */
void bitmap_merge_scaled(struct bitmap *to, unsigned to_shift, const struct bitmap *from, unsigned from_shift);

bool bitmap_equal(const struct bitmap *a, const struct bitmap *b);

/*
 * To and from bytes, `first` a multiple of 8: (count + 7) / 8 of them. Bits of the last byte beyond `count` are written
 * as zero, and not looked at.
 */
void bitmap_store(const struct bitmap *bitmap, uint64_t first, uint64_t count, uint8_t *to);
void bitmap_load(struct bitmap *bitmap, uint64_t first, uint64_t count, const uint8_t *from);
