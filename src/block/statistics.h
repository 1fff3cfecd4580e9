/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What has been done through a handle or to a node: counters that each loop keeps for itself (per-loop.h). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum io_kind { IO_KIND_READ, IO_KIND_WRITE, IO_KIND_FLUSH, IO_KIND_UNMAP, IO_KIND__COUNT };

struct io_counters {
    uint64_t operations; /* that succeeded */
    uint64_t bytes;      /* of those */
    uint64_t failed;
    uint64_t invalid; /* refused before they were tried: out of bounds, not allowed */
    uint64_t time_ns; /* from start to end, of those that succeeded */
};

/* Zero-filled: nothing yet. */
struct io_statistics {
    struct io_counters kinds[IO_KIND__COUNT];
    uint64_t highest; /* end of the highest byte written */
    uint64_t last_ns; /* loop_now_ns() of the last operation; 0: none yet */
};

/* Adds `from`, which its loop may be writing, to `to`, which is the caller's own. */
void io_statistics_add(struct io_statistics *to, const struct io_statistics *from);
