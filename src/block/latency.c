/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An interval has two windows of its length, which begin half of it apart. Requests are entered in both; the older is
 * the one that is shown, so it is never younger than half the interval, and what it has is never older than the whole.
 */
#include "block/latency.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/units.h"
#include "loop/lock.h"

struct histogram {
    uint64_t *boundaries; /* owned; NULL: none */
    uint64_t *bins;       /* owned: `count` and one more */
    size_t count;
};

struct totals {
    uint64_t count, sum_ns, min_ns, max_ns;
};

struct window {
    int64_t start_ns, end_ns;
    struct totals kinds[LATENCY_KINDS];
};

struct interval {
    uint32_t seconds;
    struct window windows[2];
};

struct latency {
    struct spin_lock spin; /* of the rest */
    struct histogram histograms[LATENCY_KINDS];
    struct interval intervals[LATENCY_INTERVALS_MAX];
    size_t interval_count;
};

struct latency *latency_new(void)
{
    return g_new0(struct latency, 1);
}

static void histogram_done(struct histogram *histogram)
{
    g_free(histogram->boundaries);
    g_free(histogram->bins);
}

void latency_free(struct latency *latency)
{
    for (unsigned kind = 0; latency && kind < LATENCY_KINDS; kind++)
        histogram_done(&latency->histograms[kind]);
    g_free(latency);
}

bool latency_is_idle(const struct latency *latency)
{
    for (unsigned kind = 0; kind < LATENCY_KINDS; kind++) {
        if (latency->histograms[kind].count)
            return false;
    }
    return latency->interval_count == 0;
}

void latency_set_boundaries(struct latency *latency, enum io_kind kind, const uint64_t *boundaries, size_t count)
{
    struct histogram histogram = {.count = count}, old;

    assert(kind < LATENCY_KINDS);
    assert(count <= LATENCY_BOUNDARIES_MAX);
    if (count) {
        histogram.boundaries = g_memdup2(boundaries, count * sizeof(*boundaries));
        histogram.bins = g_new0(uint64_t, count + 1);
    }
    spin_lock(&latency->spin);
    old = latency->histograms[kind];
    latency->histograms[kind] = histogram;
    spin_unlock(&latency->spin);
    histogram_done(&old);
}

void latency_set_intervals(struct latency *latency, const uint32_t *seconds, size_t count, int64_t now_ns)
{
    assert(count <= LATENCY_INTERVALS_MAX);
    spin_lock(&latency->spin);
    latency->interval_count = count;
    for (size_t i = 0; i < count; i++) {
        int64_t length_ns = (int64_t)(seconds[i] * NS_PER_S);

        assert(seconds[i]);
        latency->intervals[i] = (struct interval){.seconds = seconds[i]};
        latency->intervals[i].windows[0] = (struct window){.start_ns = now_ns, .end_ns = now_ns + length_ns / 2};
        latency->intervals[i].windows[1] = (struct window){.start_ns = now_ns, .end_ns = now_ns + length_ns};
    }
    spin_unlock(&latency->spin);
}

/* Windows that have ended begin anew, where they would have begun if somebody had looked in time. */
static void interval_go_on(struct interval *interval, int64_t now_ns)
{
    int64_t length_ns = (int64_t)(interval->seconds * NS_PER_S);

    for (unsigned i = 0; i < 2; i++) {
        struct window *window = &interval->windows[i];

        if (now_ns < window->end_ns)
            continue;
        int64_t start_ns = window->end_ns + (now_ns - window->end_ns) / length_ns * length_ns;

        *window = (struct window){.start_ns = start_ns, .end_ns = start_ns + length_ns};
    }
}

static void totals_add(struct totals *totals, uint64_t taken_ns)
{
    totals->min_ns = totals->count ? MIN(totals->min_ns, taken_ns) : taken_ns;
    totals->max_ns = MAX(totals->max_ns, taken_ns);
    totals->sum_ns += taken_ns;
    totals->count++;
}

static void histogram_add(struct histogram *histogram, uint64_t taken_ns)
{
    size_t low = 0, high = histogram->count;

    /* The number of limits that it reaches. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (taken_ns >= histogram->boundaries[middle])
            low = middle + 1;
        else
            high = middle;
    }
    histogram->bins[low]++;
}

void latency_record(struct latency *latency, enum io_kind kind, int64_t start_ns, int64_t now_ns)
{
    uint64_t taken_ns = now_ns > start_ns ? (uint64_t)(now_ns - start_ns) : 0;

    if (kind >= LATENCY_KINDS)
        return;
    spin_lock(&latency->spin);
    if (latency->histograms[kind].count)
        histogram_add(&latency->histograms[kind], taken_ns);
    for (size_t i = 0; i < latency->interval_count; i++) {
        interval_go_on(&latency->intervals[i], now_ns);
        for (unsigned w = 0; w < 2; w++)
            totals_add(&latency->intervals[i].windows[w].kinds[kind], taken_ns);
    }
    spin_unlock(&latency->spin);
}

size_t latency_interval_count(struct latency *latency)
{
    size_t count;

    spin_lock(&latency->spin);
    count = latency->interval_count;
    spin_unlock(&latency->spin);
    return count;
}

uint32_t latency_get_interval(struct latency *latency, size_t index, int64_t now_ns,
                              struct latency_summary ret[LATENCY_KINDS])
{
    struct interval *interval = &latency->intervals[index];
    const struct window *window;
    uint32_t seconds;

    assert(index < LATENCY_INTERVALS_MAX);
    spin_lock(&latency->spin);
    seconds = interval->seconds;
    interval_go_on(interval, now_ns);
    /* Of two that began together, as the first do, the one that ends later has as much and goes on. */
    window = &interval->windows[interval->windows[0].start_ns < interval->windows[1].start_ns ? 0 : 1];
    for (unsigned kind = 0; kind < LATENCY_KINDS; kind++) {
        const struct totals *totals = &window->kinds[kind];
        int64_t elapsed_ns = now_ns - window->start_ns;

        ret[kind] = (struct latency_summary){
            .min_ns = totals->min_ns,
            .max_ns = totals->max_ns,
            .mean_ns = totals->count ? totals->sum_ns / totals->count : 0,
            .queue_depth = elapsed_ns > 0 ? (double)totals->sum_ns / (double)elapsed_ns : 0,
        };
    }
    spin_unlock(&latency->spin);
    return seconds;
}

size_t latency_get_histogram(struct latency *latency, enum io_kind kind, uint64_t **ret_boundaries, uint64_t **ret_bins)
{
    const struct histogram *histogram = &latency->histograms[kind];
    size_t count;

    assert(kind < LATENCY_KINDS);
    spin_lock(&latency->spin);
    count = histogram->count;
    if (count) {
        *ret_boundaries = g_memdup2(histogram->boundaries, count * sizeof(uint64_t));
        *ret_bins = g_memdup2(histogram->bins, (count + 1) * sizeof(uint64_t));
    }
    spin_unlock(&latency->spin);
    return count;
}
