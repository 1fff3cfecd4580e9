/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zeroes in what has been read, so that they need not travel. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NBD_PART_ALIGNMENT = 4096, /* parts begin and end at multiples of it, as far as the read does */
    NBD_PARTS_MAX = 65,
};

/* A run of data, or of zeroes. */
struct nbd_part {
    uint64_t offset; /* in the export */
    uint32_t bytes;
    bool is_zero;
};

/*
 * Splits `data`, which lies at `offset` of the export, into parts, alternately data and zeroes; returns how many they
 * are. Longer reads are looked at in coarser units, so that there are never more than NBD_PARTS_MAX.
 */
unsigned nbd_parts_find(const uint8_t *data, uint32_t bytes, uint64_t offset, struct nbd_part parts[NBD_PARTS_MAX]);
