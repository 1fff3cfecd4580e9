/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of requests in flight of a queue: memory that the front end keeps for us, so that a successor does again
 * what we had begun (vhost-user protocol, "Inflight I/O tracking"). In the machine's own byte order. The front end can
 * write there too: what is read back is checked.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/checked.h"

enum { INFLIGHT_VERSION = 1, INFLIGHT_ALIGNMENT = 64 };

/* With which the entries of both kinds begin. */
struct inflight_head {
    uint8_t inflight;
    uint8_t other[7];
    uint64_t counter;
};

struct inflight_split_entry {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next; /* the one given back before, in the last batch */
    uint64_t counter;
};

struct inflight_split {
    uint64_t features;
    uint16_t version; /* 0: not in use yet */
    uint16_t count;
    uint16_t last_batch_head;
    uint16_t used_index;
    struct inflight_split_entry entries[];
};

struct inflight_packed_entry {
    uint8_t inflight;
    uint8_t padding;
    uint16_t next; /* free ones */
    uint16_t last; /* of the first of a chain: its last */
    uint16_t count;
    uint64_t counter;
    uint16_t id;
    uint16_t flags;
    uint32_t length;
    uint64_t address;
};

/*
 * Where the ring's next used place is, and where it was before what is being given back. In one word, so that who dies
 * while he stores them leaves all of them or none: an index with the wrap bit of another would be a place that nobody
 * ever looks at.
 */
union inflight_used {
    struct {
        uint16_t index;
        uint16_t old_index;
        uint8_t wrap;
        uint8_t old_wrap;
        uint8_t padding[2];
    };
    uint64_t word;
};

struct inflight_packed {
    uint64_t features;
    uint16_t version;
    uint16_t count;
    uint16_t free_head;
    uint16_t old_free_head;
    union inflight_used used;
    uint8_t padding[5];
    struct inflight_packed_entry entries[];
};

static_assert(offsetof(struct inflight_split_entry, counter) == offsetof(struct inflight_head, counter) &&
                  offsetof(struct inflight_packed_entry, counter) == offsetof(struct inflight_head, counter),
              "entries begin alike");
static_assert(offsetof(struct inflight_packed, used) == 16 && offsetof(struct inflight_packed, entries) == 32,
              "as the protocol lays the table out");

/* Bytes for a queue of `size` places. */
static inline size_t inflight_region_size(uint16_t size, bool packed)
{
    size_t bytes = packed ? sizeof(struct inflight_packed) + size * sizeof(struct inflight_packed_entry)
                          : sizeof(struct inflight_split) + size * sizeof(struct inflight_split_entry);

    return align_up(bytes, INFLIGHT_ALIGNMENT);
}
