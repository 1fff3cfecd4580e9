/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/throttle.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>

#include "base/error.h"

static const double ns_per_s = 1e9;

/* A brim, in seconds of the rate at which its bucket leaks. */
static const double brim_s = 0.1;

static const enum throttle_kind kinds_of[THROTTLE_DIRECTION__COUNT][4] = {
    [THROTTLE_READ] = {THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_IOPS_TOTAL, THROTTLE_IOPS_READ},
    [THROTTLE_WRITE] = {THROTTLE_BPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_IOPS_TOTAL, THROTTLE_IOPS_WRITE},
};

enum { KINDS_OF_DIRECTION = 4 };

static const char *const kind_names[THROTTLE_KIND__COUNT] = {
    [THROTTLE_BPS_TOTAL] = "bps-total",   [THROTTLE_BPS_READ] = "bps-read",   [THROTTLE_BPS_WRITE] = "bps-write",
    [THROTTLE_IOPS_TOTAL] = "iops-total", [THROTTLE_IOPS_READ] = "iops-read", [THROTTLE_IOPS_WRITE] = "iops-write",
};

static bool kind_is_bytes(enum throttle_kind kind)
{
    return kind < THROTTLE_IOPS_TOTAL;
}

void throttle_config_init(struct throttle_config *config)
{
    *config = (struct throttle_config){0};
    for (int i = 0; i < THROTTLE_KIND__COUNT; i++)
        config->rates[i].max_length_s = 1;
}

static bool rate_check(const struct throttle_rate *rate, struct error **err)
{
    if (rate->average < 0 || rate->average > THROTTLE_RATE_MAX || rate->max < 0 || rate->max > THROTTLE_RATE_MAX)
        return error_set(err, "bps/iops/max values must be within [0, %" PRId64 "]", THROTTLE_RATE_MAX);
    if (rate->max_length_s < 0)
        return error_set(err, "the burst length cannot be negative");
    if (rate->max_length_s == 0)
        return error_set(err, "the burst length cannot be 0");
    if (rate->max_length_s > 1 && !rate->max)
        return error_set(err, "burst length set without burst rate");
    if (rate->max && rate->max_length_s > THROTTLE_RATE_MAX / rate->max)
        return error_set(err, "burst length too high for this burst rate");
    if (rate->max && !rate->average)
        return error_set(err, "bps_max/iops_max require corresponding bps/iops values");
    if (rate->max && rate->max < rate->average)
        return error_set(err, "bps_max/iops_max cannot be lower than bps/iops");
    return true;
}

/* Whether a total limit stands beside one of its parts. */
static bool rates_clash(const struct throttle_rate *total)
{
    const struct throttle_rate *read = total + 1;
    const struct throttle_rate *write = total + 2;

    return (total->average && (read->average || write->average)) || (total->max && (read->max || write->max));
}

bool throttle_config_check(const struct throttle_config *config, struct error **err)
{
    static_assert(THROTTLE_BPS_WRITE == THROTTLE_BPS_TOTAL + 2, "order of limits");
    static_assert(THROTTLE_IOPS_WRITE == THROTTLE_IOPS_TOTAL + 2, "order of limits");

    if (rates_clash(&config->rates[THROTTLE_BPS_TOTAL]) || rates_clash(&config->rates[THROTTLE_IOPS_TOTAL]))
        return error_set(err, "bps/iops/max total values and read/write values cannot be used at the same time");
    if (config->iops_size < 0)
        return error_set(err, "iops size cannot be negative");
    if (config->iops_size && !config->rates[THROTTLE_IOPS_TOTAL].average &&
        !config->rates[THROTTLE_IOPS_READ].average && !config->rates[THROTTLE_IOPS_WRITE].average)
        return error_set(err, "iops size requires an iops value to be set");
    for (int i = 0; i < THROTTLE_KIND__COUNT; i++) {
        const struct throttle_rate *rate = &config->rates[i];

        if (!rate_check(rate, err)) {
            error_hint(err, "%s would be %" PRId64 ", with bursts of %" PRId64 " for %" PRId64 " s.", kind_names[i],
                       rate->average, rate->max, rate->max_length_s);
            return false;
        }
    }
    return true;
}

/* The level up to which requests may go. */
static double bucket_brim(const struct throttle_rate *rate)
{
    return rate->max ? (double)rate->max * (double)rate->max_length_s : (double)rate->average * brim_s;
}

static bool rate_has_burst_bucket(const struct throttle_rate *rate)
{
    return rate->max && rate->max_length_s > 1;
}

static void throttle_leak(struct throttle *throttle, int64_t now_ns)
{
    /* Loops on several threads may bring times that are not quite in order. */
    if (now_ns <= throttle->leaked_ns)
        return;

    double elapsed_s = (double)(now_ns - throttle->leaked_ns) / ns_per_s;

    for (int i = 0; i < THROTTLE_KIND__COUNT; i++) {
        const struct throttle_rate *rate = &throttle->config.rates[i];
        struct throttle_bucket *bucket = &throttle->buckets[i];

        bucket->level = fmax(0, bucket->level - (double)rate->average * elapsed_s);
        bucket->burst_level = fmax(0, bucket->burst_level - (double)rate->max * elapsed_s);
    }
    throttle->leaked_ns = now_ns;
}

static bool direction_is_limited(const struct throttle_config *config, enum throttle_direction direction)
{
    for (int i = 0; i < KINDS_OF_DIRECTION; i++) {
        if (config->rates[kinds_of[direction][i]].average)
            return true;
    }
    return false;
}

void throttle_configure(struct throttle *throttle, const struct throttle_config *config, int64_t now_ns)
{
    assert(throttle_config_check(config, NULL));

    throttle_leak(throttle, now_ns);
    throttle->config = *config;
    throttle->leaked_ns = now_ns;
    for (int i = 0; i < THROTTLE_KIND__COUNT; i++) {
        const struct throttle_rate *rate = &config->rates[i];
        struct throttle_bucket *bucket = &throttle->buckets[i];

        if (!rate->average)
            *bucket = (struct throttle_bucket){0};
        bucket->level = fmin(bucket->level, bucket_brim(rate));
        bucket->burst_level = rate_has_burst_bucket(rate) ? fmin(bucket->burst_level, (double)rate->max * brim_s) : 0;
    }
    for (int i = 0; i < THROTTLE_DIRECTION__COUNT; i++)
        throttle->active[i] = direction_is_limited(config, i);
}

bool throttle_is_active(const struct throttle *throttle, enum throttle_direction direction)
{
    return throttle->active[direction];
}

/* Seconds until what is beyond the brim has leaked out at `rate`. */
static double excess_s(double level, double brim, int64_t rate)
{
    return level > brim ? (level - brim) / (double)rate : 0;
}

static double kind_wait_s(const struct throttle *throttle, enum throttle_kind kind)
{
    const struct throttle_rate *rate = &throttle->config.rates[kind];
    const struct throttle_bucket *bucket = &throttle->buckets[kind];

    if (!rate->average)
        return 0;

    double wait_s = excess_s(bucket->level, bucket_brim(rate), rate->average);

    if (rate_has_burst_bucket(rate))
        wait_s = fmax(wait_s, excess_s(bucket->burst_level, (double)rate->max * brim_s, rate->max));
    return wait_s;
}

int64_t throttle_wait_ns(struct throttle *throttle, enum throttle_direction direction, int64_t now_ns)
{
    double wait_s = 0;

    if (!throttle->active[direction])
        return 0;
    throttle_leak(throttle, now_ns);
    for (int i = 0; i < KINDS_OF_DIRECTION; i++)
        wait_s = fmax(wait_s, kind_wait_s(throttle, kinds_of[direction][i]));

    /* Rounded up, so that who comes back after that time may go: a hundredth of a nanosecond is only an error of
     * rounding. */
    double wait_ns = ceil(wait_s * ns_per_s - 0.01);

    return wait_ns >= (double)INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)wait_ns;
}

void throttle_account(struct throttle *throttle, enum throttle_direction direction, uint64_t bytes, int64_t now_ns)
{
    double operations = 1;

    if (!throttle->active[direction])
        return;
    throttle_leak(throttle, now_ns);
    if (throttle->config.iops_size && bytes > (uint64_t)throttle->config.iops_size)
        operations = (double)bytes / (double)throttle->config.iops_size;
    for (int i = 0; i < KINDS_OF_DIRECTION; i++) {
        enum throttle_kind kind = kinds_of[direction][i];
        const struct throttle_rate *rate = &throttle->config.rates[kind];
        double amount = kind_is_bytes(kind) ? (double)bytes : operations;

        if (rate->average)
            throttle->buckets[kind].level += amount;
        if (rate_has_burst_bucket(rate))
            throttle->buckets[kind].burst_level += amount;
    }
}
