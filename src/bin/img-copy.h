/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying images to another: by what the source says lies where, in pieces, by several coroutines on several threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct handle;
struct progress;

struct img_copy {
    struct handle *const *sources; /* one behind the other */
    unsigned source_count;
    struct handle *target;
    uint64_t length; /* bytes: of all sources, or what of them is wanted */

    bool target_is_zero;     /* it reads as zeroes all over, but where a backing image shows */
    uint64_t backing_length; /* how far the target's backing image shows; 0: it has none */
    unsigned layers;         /* as far as it shows, only these layers of the source, from the top, are copied: what
                              * lies below is there already; 0: all */
    uint64_t sparse;         /* runs of so many zero bytes become holes; 0: all is written */
    uint64_t unit;           /* power of two: pieces begin at multiples of it; 0: any */
    unsigned coroutines;     /* 0: 8 */
    bool compressed;
    bool any_order; /* writes need not start in the order of their places */
    bool offload;   /* let the storage copy where it can */
    bool salvage;   /* what cannot be read reads as zeroes */
    bool quiet;     /* with salvage: says nothing of it */
    uint64_t rate;  /* bytes a second, 0: no limit */
    struct progress *progress;
};

bool CO_FN co_img_copy(const struct img_copy *copy, struct error **err) MUST_CHECK;
