/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/throttle.h"

#include <glib.h>

#include "base/error.h"
#include "base/units.h"

struct flood {
    enum throttle_direction direction;
    uint64_t bytes;
    int64_t begin_ns;
    int64_t end_ns;
};

/* How many requests get through when the next one always stands ready. */
static uint64_t flood_run(struct throttle *throttle, const struct flood *flood)
{
    uint64_t count = 0;

    for (int64_t now_ns = flood->begin_ns;;) {
        int64_t wait_ns = throttle_wait_ns(throttle, flood->direction, now_ns);

        now_ns += wait_ns;
        if (now_ns >= flood->end_ns)
            return count;
        if (wait_ns) {
            g_assert_cmpint(throttle_wait_ns(throttle, flood->direction, now_ns - 2 - wait_ns / 1000), >, 0);
            g_assert_cmpint(throttle_wait_ns(throttle, flood->direction, now_ns), ==, 0);
        }
        throttle_account(throttle, flood->direction, flood->bytes, now_ns);
        count++;
    }
}

static struct throttle throttle_of(enum throttle_kind kind, struct throttle_rate rate)
{
    struct throttle throttle = {0};
    struct throttle_config config;

    throttle_config_init(&config);
    config.rates[kind] = rate;
    throttle_configure(&throttle, &config, 0);
    return throttle;
}

static void assert_within(double value, double expected, double tolerance)
{
    g_assert_cmpfloat(value, >=, expected * (1 - tolerance));
    g_assert_cmpfloat(value, <=, expected * (1 + tolerance));
}

static void test_average_holds(void)
{
    static const int64_t rates[] = {64, 100, 999, 12345, 1000000};

    for (size_t i = 0; i < G_N_ELEMENTS(rates); i++) {
        struct throttle throttle = throttle_of(THROTTLE_IOPS_TOTAL, (struct throttle_rate){rates[i], 0, 1});
        struct flood flood = {THROTTLE_READ, 512, 0, 10 * NS_PER_S};

        /* 64 a second: one request more than 2 % of a second's worth. */
        assert_within((double)flood_run(&throttle, &flood), (double)rates[i] * 10, 0.02);
    }
}

static void test_bytes_hold_for_any_size(void)
{
    static const uint64_t sizes[] = {1, 512, 4096, 5000, 65536, 1048576};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int64_t rate = sizes[i] == 1 ? 10000 : 100 << 20;
        struct throttle throttle = throttle_of(THROTTLE_BPS_WRITE, (struct throttle_rate){rate, 0, 1});
        struct flood flood = {THROTTLE_WRITE, sizes[i], 0, 10 * NS_PER_S};

        assert_within((double)(flood_run(&throttle, &flood) * sizes[i]), (double)rate * 10, 0.02);
    }
}

static void test_request_larger_than_a_second(void)
{
    struct throttle throttle = throttle_of(THROTTLE_BPS_TOTAL, (struct throttle_rate){1000, 0, 1});

    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_READ, 0), ==, 0);
    throttle_account(&throttle, THROTTLE_READ, 10100, 0);
    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_WRITE, 0), ==, 10 * NS_PER_S);
}

static void test_directions_are_apart(void)
{
    struct throttle throttle = throttle_of(THROTTLE_IOPS_READ, (struct throttle_rate){10, 0, 1});

    g_assert_true(throttle_is_active(&throttle, THROTTLE_READ));
    g_assert_false(throttle_is_active(&throttle, THROTTLE_WRITE));
    for (int i = 0; i < 100; i++) {
        throttle_account(&throttle, THROTTLE_READ, 1, 0);
        throttle_account(&throttle, THROTTLE_WRITE, 1, 0);
    }
    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_WRITE, 0), ==, 0);
    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_READ, 0), ==, (100 - 1) * NS_PER_S / 10);
}

static void test_burst_of_a_second_goes_at_once(void)
{
    struct throttle throttle = throttle_of(THROTTLE_IOPS_TOTAL, (struct throttle_rate){100, 1000, 1});

    g_assert_cmpuint(flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 0, 1}), ==, 1001);
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 1, 10 * NS_PER_S}), 1000, 0.02);
}

static void test_long_burst_keeps_its_rate(void)
{
    struct throttle throttle = throttle_of(THROTTLE_IOPS_TOTAL, (struct throttle_rate){100, 2000, 60});

    /* A burst of a minute at 2,000 a second; the 6,000 that leaked out meanwhile last three seconds more. */
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 0, 60 * NS_PER_S}), 120000, 0.02);
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 60 * NS_PER_S, 63 * NS_PER_S}), 6000,
                  0.02);
    flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 63 * NS_PER_S, 64 * NS_PER_S});
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 64 * NS_PER_S, 74 * NS_PER_S}), 1000,
                  0.02);

    /* Ten idle seconds pay for ten seconds' worth of burst. */
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 84 * NS_PER_S, 85 * NS_PER_S}),
                  1000 + 100, 0.02);
}

static void test_iops_size_counts_large_requests(void)
{
    struct throttle throttle = {0};
    struct throttle_config config;

    throttle_config_init(&config);
    config.rates[THROTTLE_IOPS_TOTAL].average = 1000;
    config.iops_size = 4096;
    throttle_configure(&throttle, &config, 0);
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 6144, 0, 10 * NS_PER_S}), 6666, 0.02);
    throttle_configure(&throttle, &config, 20 * NS_PER_S);
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 512, 20 * NS_PER_S, 30 * NS_PER_S}),
                  10000, 0.02);
}

static void test_change_keeps_what_was_counted(void)
{
    struct throttle throttle = throttle_of(THROTTLE_IOPS_TOTAL, (struct throttle_rate){100, 1000, 1});
    struct throttle_config config;

    flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 0, 1});
    throttle_config_init(&config);
    config.rates[THROTTLE_IOPS_TOTAL] = (struct throttle_rate){200, 0, 1};
    throttle_configure(&throttle, &config, 1);
    /* At the brim: no new burst, and no debt of five seconds either. */
    assert_within((double)flood_run(&throttle, &(struct flood){THROTTLE_READ, 1, 1, 10 * NS_PER_S}), 2000, 0.02);

    throttle_config_init(&config);
    throttle_configure(&throttle, &config, 10 * NS_PER_S);
    g_assert_false(throttle_is_active(&throttle, THROTTLE_READ));
    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_READ, 10 * NS_PER_S), ==, 0);
}

static void test_time_that_steps_back_is_harmless(void)
{
    struct throttle throttle = throttle_of(THROTTLE_IOPS_TOTAL, (struct throttle_rate){10, 0, 1});

    throttle_account(&throttle, THROTTLE_READ, 1, NS_PER_S);
    throttle_account(&throttle, THROTTLE_READ, 1, NS_PER_S / 2);
    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_READ, 0), ==, NS_PER_S / 10);
}

struct bad_config {
    enum throttle_kind kind;
    struct throttle_rate rate;
    int64_t iops_size;
    const char *message;
};

static const struct bad_config bad_configs[] = {
    {THROTTLE_BPS_READ,
     {1, 0, 1},
     0,
     "bps/iops/max total values and read/write values cannot be used at the same time"},
    {THROTTLE_BPS_WRITE, {2000, 3000, 1}, 0, "bps/iops/max total values and read/write values cannot be used"},
    {THROTTLE_IOPS_TOTAL, {-1, 0, 1}, 0, "bps/iops/max values must be within [0, 1000000000000000]"},
    {THROTTLE_IOPS_TOTAL, {1000000000000001, 0, 1}, 0, "bps/iops/max values must be within [0, 1000000000000000]"},
    {THROTTLE_IOPS_TOTAL, {1, 1000000000000001, 1}, 0, "bps/iops/max values must be within [0, 1000000000000000]"},
    {THROTTLE_IOPS_TOTAL, {1000, 2000, 0}, 0, "the burst length cannot be 0"},
    {THROTTLE_IOPS_TOTAL, {1000, 2000, -1}, 0, "the burst length cannot be negative"},
    {THROTTLE_IOPS_TOTAL, {1000, 0, 5}, 0, "burst length set without burst rate"},
    {THROTTLE_IOPS_TOTAL, {1000, 1000000000000000, 2}, 0, "burst length too high for this burst rate"},
    {THROTTLE_IOPS_TOTAL, {1000, 2000, INT64_MAX}, 0, "burst length too high for this burst rate"},
    {THROTTLE_IOPS_TOTAL, {0, 500, 1}, 0, "bps_max/iops_max require corresponding bps/iops values"},
    {THROTTLE_IOPS_TOTAL, {1000, 500, 1}, 0, "bps_max/iops_max cannot be lower than bps/iops"},
    {THROTTLE_IOPS_TOTAL, {0, 0, 1}, 4096, "iops size requires an iops value to be set"},
    {THROTTLE_IOPS_TOTAL, {5, 0, 1}, -1, "iops size cannot be negative"},
};

static void test_bad_limits_are_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad_configs); i++) {
        const struct bad_config *bad = &bad_configs[i];
        AUTO(error) error = NULL;
        struct throttle_config config;

        throttle_config_init(&config);
        config.rates[THROTTLE_BPS_TOTAL] = (struct throttle_rate){1000, 2000, 1};
        config.rates[bad->kind] = bad->rate;
        config.iops_size = bad->iops_size;
        g_assert_false(throttle_config_check(&config, &error));
        g_assert_true(g_str_has_prefix(error_message(error), bad->message));
    }
}

static void test_refusal_names_the_limit(void)
{
    AUTO(error) error = NULL;
    struct throttle_config config;

    throttle_config_init(&config);
    config.rates[THROTTLE_IOPS_READ] = (struct throttle_rate){-5, 7, 1};
    g_assert_false(throttle_config_check(&config, &error));
    g_assert_cmpstr(error_hint_text(error), ==, "iops-read would be -5, with bursts of 7 for 1 s.");
}

static void test_extreme_limits_are_taken(void)
{
    struct throttle throttle = throttle_of(THROTTLE_BPS_TOTAL, (struct throttle_rate){1, THROTTLE_RATE_MAX, 1});

    for (int i = 0; i < 1000; i++)
        throttle_account(&throttle, THROTTLE_WRITE, INT64_MAX, 0);
    g_assert_cmpint(throttle_wait_ns(&throttle, THROTTLE_WRITE, INT64_MAX / 4), ==, INT64_MAX / 2);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/average-holds", test_average_holds);
    g_test_add_func("/throttle/bytes-hold-for-any-size", test_bytes_hold_for_any_size);
    g_test_add_func("/throttle/request-larger-than-a-second", test_request_larger_than_a_second);
    g_test_add_func("/throttle/directions-are-apart", test_directions_are_apart);
    g_test_add_func("/throttle/burst-of-a-second-goes-at-once", test_burst_of_a_second_goes_at_once);
    g_test_add_func("/throttle/long-burst-keeps-its-rate", test_long_burst_keeps_its_rate);
    g_test_add_func("/throttle/iops-size-counts-large-requests", test_iops_size_counts_large_requests);
    g_test_add_func("/throttle/change-keeps-what-was-counted", test_change_keeps_what_was_counted);
    g_test_add_func("/throttle/time-that-steps-back-is-harmless", test_time_that_steps_back_is_harmless);
    g_test_add_func("/throttle/bad-limits-are-refused", test_bad_limits_are_refused);
    g_test_add_func("/throttle/refusal-names-the-limit", test_refusal_names_the_limit);
    g_test_add_func("/throttle/extreme-limits-are-taken", test_extreme_limits_are_taken);
    return g_test_run();
}
