/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/statistics.h"

#include "block/per-loop.h"

void io_statistics_add(struct io_statistics *to, const struct io_statistics *from)
{
    uint64_t highest = counter_get(&from->highest);
    uint64_t last_ns = counter_get(&from->last_ns);

    for (unsigned kind = 0; kind < IO_KIND__COUNT; kind++) {
        to->kinds[kind].operations += counter_get(&from->kinds[kind].operations);
        to->kinds[kind].bytes += counter_get(&from->kinds[kind].bytes);
        to->kinds[kind].failed += counter_get(&from->kinds[kind].failed);
        to->kinds[kind].invalid += counter_get(&from->kinds[kind].invalid);
        to->kinds[kind].time_ns += counter_get(&from->kinds[kind].time_ns);
    }
    if (highest > to->highest)
        to->highest = highest;
    if (last_ns > to->last_ns)
        to->last_ns = last_ns;
}
