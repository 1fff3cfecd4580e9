/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/units.h"
#include "block/latency.h"

#include <glib.h>

#define SECOND NS_PER_S

static void test_histogram(void)
{
    static const uint64_t limits[] = {10, 50, 100};
    static const int64_t taken[] = {0, 9, 10, 49, 50, 99, 100, 101, 1000000, -5};
    struct latency *latency = latency_new();
    g_autofree uint64_t *boundaries = NULL, *bins = NULL;

    g_assert_true(latency_is_idle(latency));
    latency_set_boundaries(latency, IO_KIND_WRITE, limits, G_N_ELEMENTS(limits));
    g_assert_false(latency_is_idle(latency));
    for (unsigned i = 0; i < G_N_ELEMENTS(taken); i++) {
        latency_record(latency, IO_KIND_WRITE, 1000, 1000 + taken[i]);
        latency_record(latency, IO_KIND_READ, 1000, 1000 + taken[i]);
        latency_record(latency, IO_KIND_UNMAP, 1000, 1000 + taken[i]);
    }
    g_assert_cmpuint(latency_get_histogram(latency, IO_KIND_READ, &boundaries, &bins), ==, 0);
    g_assert_cmpuint(latency_get_histogram(latency, IO_KIND_WRITE, &boundaries, &bins), ==, 3);
    g_assert_cmpmem(boundaries, 3 * sizeof(*boundaries), limits, sizeof(limits));
    g_assert_cmpuint(bins[0], ==, 3);
    g_assert_cmpuint(bins[1], ==, 2);
    g_assert_cmpuint(bins[2], ==, 2);
    g_assert_cmpuint(bins[3], ==, 3);
    latency_set_boundaries(latency, IO_KIND_WRITE, NULL, 0);
    g_assert_true(latency_is_idle(latency));
    latency_free(latency);
}

static void expect(struct latency *latency, int64_t now_ns, uint64_t min_ns, uint64_t max_ns, uint64_t mean_ns)
{
    struct latency_summary summary[LATENCY_KINDS];

    g_assert_cmpuint(latency_get_interval(latency, 0, now_ns, summary), ==, 10);
    g_assert_cmpuint(summary[IO_KIND_READ].min_ns, ==, min_ns);
    g_assert_cmpuint(summary[IO_KIND_READ].max_ns, ==, max_ns);
    g_assert_cmpuint(summary[IO_KIND_READ].mean_ns, ==, mean_ns);
    g_assert_cmpuint(summary[IO_KIND_WRITE].max_ns, ==, 0);
}

/* What is shown is never older than the interval, and half of it at least is covered. */
static void test_interval(void)
{
    static const uint32_t seconds[] = {10};
    struct latency *latency = latency_new();
    struct latency_summary summary[LATENCY_KINDS];

    latency_set_intervals(latency, seconds, 1, 100 * SECOND);
    g_assert_cmpuint(latency_interval_count(latency), ==, 1);
    expect(latency, 100 * SECOND, 0, 0, 0);
    latency_record(latency, IO_KIND_READ, 100 * SECOND, 101 * SECOND);
    latency_record(latency, IO_KIND_READ, 101 * SECOND, 104 * SECOND);
    expect(latency, 104 * SECOND, 1 * SECOND, 3 * SECOND, 2 * SECOND);
    (void)latency_get_interval(latency, 0, 108 * SECOND, summary);
    g_assert_cmpfloat(summary[IO_KIND_READ].queue_depth, ==, 0.5);
    latency_record(latency, IO_KIND_READ, 100 * SECOND, 109 * SECOND);
    expect(latency, 109 * SECOND, 1 * SECOND, 9 * SECOND, 13 * SECOND / 3);
    /* The first window has ended; the second has what came after its middle. */
    expect(latency, 112 * SECOND, 9 * SECOND, 9 * SECOND, 9 * SECOND);
    expect(latency, 116 * SECOND, 0, 0, 0);
    /* After a long time in which nobody came. */
    latency_record(latency, IO_KIND_READ, 1000 * SECOND, 1000 * SECOND + 7);
    expect(latency, 1003 * SECOND, 7, 7, 7);
    expect(latency, 2000 * SECOND, 0, 0, 0);
    latency_set_intervals(latency, NULL, 0, 0);
    g_assert_true(latency_is_idle(latency));
    latency_free(latency);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/latency/histogram", test_histogram);
    g_test_add_func("/latency/interval", test_interval);
    return g_test_run();
}
