/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long the requests of a node took: histograms, and statistics of the last seconds or hours. Only where somebody
 * has asked for them, so that other nodes pay nothing. Times are in nanoseconds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/statistics.h"

enum { LATENCY_BOUNDARIES_MAX = 1024, LATENCY_INTERVALS_MAX = 16 };
/* Reads, writes, flushes; discards are not asked for. */
#define LATENCY_KINDS IO_KIND_UNMAP

struct latency;

/* Nothing is asked for yet. Owned. */
struct latency *latency_new(void);
void latency_free(struct latency *latency);

/* Whether nothing is asked for (any more). Main loop. */
bool latency_is_idle(const struct latency *latency);

/*
 * A histogram of one kind of request with `count` limits, ascending, none zero, at most LATENCY_BOUNDARIES_MAX; 0: none
 * any more. What was counted is forgotten. Any thread.
 */
void latency_set_boundaries(struct latency *latency, enum io_kind kind, const uint64_t *boundaries, size_t count);

/* Statistics of intervals of so many seconds, none zero, at most LATENCY_INTERVALS_MAX; they begin at `now_ns`. Any
 * thread. */
void latency_set_intervals(struct latency *latency, const uint32_t *seconds, size_t count, int64_t now_ns);

/* A request has ended at `now_ns` that began at `start_ns`. Any thread. */
void latency_record(struct latency *latency, enum io_kind kind, int64_t start_ns, int64_t now_ns);

struct latency_summary {
    uint64_t min_ns, max_ns, mean_ns; /* 0: there was no request */
    double queue_depth;               /* requests under way, on average */
};

/* How many intervals there are; the seconds of one, and the latest half to whole of it. Any thread. */
size_t latency_interval_count(struct latency *latency);
uint32_t latency_get_interval(struct latency *latency, size_t index, int64_t now_ns,
                              struct latency_summary ret[LATENCY_KINDS]);

/* The number of limits; 0: no histogram. Then limits, and one more bins than those, are copied out, owned. Any thread.
 */
size_t latency_get_histogram(struct latency *latency, enum io_kind kind, uint64_t **ret_boundaries,
                             uint64_t **ret_bins);
