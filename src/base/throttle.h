/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The arithmetic of I/O limits: leaky buckets, one for each of bytes and operations, total, read and written. Pure: the
 * caller brings the time and does the waiting. Not thread-safe.
 *
 * A bucket leaks at its average rate, and a request may go while none of the buckets that count it is over its brim;
 * its own size may take a bucket beyond, and then the next one waits for that to leak out. So the average holds exactly
 * whatever the sizes of requests are. The brim is a tenth of a second of the average; where a burst rate `max` is
 * given, it is `max` times the burst length, and for lengths over a second a second bucket, which leaks at `max` and
 * has its brim at a tenth of a second, keeps the burst itself to that rate.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/units.h"

struct error;

enum throttle_kind {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL,
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE_KIND__COUNT,
};

/* What a request does, for the buckets that count it. */
enum throttle_direction { THROTTLE_READ, THROTTLE_WRITE, THROTTLE_DIRECTION__COUNT };

/* No rate is higher than this, and no bucket deeper. */
#define THROTTLE_RATE_MAX INT64_C(1000000000000000)

struct throttle_rate {
    int64_t average;      /* bytes or operations a second; 0: no limit */
    int64_t max;          /* while a burst lasts, a second; 0: no bursts */
    int64_t max_length_s; /* of a burst, seconds */
};

/* As users give them: not checked yet. */
struct throttle_config {
    struct throttle_rate rates[THROTTLE_KIND__COUNT];
    int64_t iops_size; /* a request counts as one operation for each so many bytes, at least one; 0: always as one */
};

struct throttle_bucket {
    double level;       /* what has not leaked out yet, bytes or operations */
    double burst_level; /* of the bucket that leaks at the burst rate */
};

/* Zero-filled memory: no limits. */
struct throttle {
    struct throttle_config config; /* checked */
    struct throttle_bucket buckets[THROTTLE_KIND__COUNT];
    int64_t leaked_ns; /* up to when the levels are right */
    bool active[THROTTLE_DIRECTION__COUNT];
};

/* No limits: all zero, and every burst length one second. */
void throttle_config_init(struct throttle_config *config);

/* Whether they are within range and go together. */
bool throttle_config_check(const struct throttle_config *config, struct error **err) MUST_CHECK;

/*
 * New limits from `now_ns` on; they must have been checked. What has been done already stays counted as far as the new
 * limits let anybody know it: nobody gets a fresh burst by setting limits, nor waits for debts beyond the new ones.
 */
void throttle_configure(struct throttle *throttle, const struct throttle_config *config, int64_t now_ns);

/* Whether anything limits requests of that direction. */
bool throttle_is_active(const struct throttle *throttle, enum throttle_direction direction);

/* How long from now on a request has to wait; 0: it may go. */
int64_t throttle_wait_ns(struct throttle *throttle, enum throttle_direction direction, int64_t now_ns);

/* Counts a request that goes now. */
void throttle_account(struct throttle *throttle, enum throttle_direction direction, uint64_t bytes, int64_t now_ns);
