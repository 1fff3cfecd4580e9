/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Time and randomness, of the system and of the running loop. */
#include "base/units.h"
#include "loop/loop-internal.h"

#include <assert.h>
#include <errno.h>
#include <sys/random.h>

int64_t clock_monotonic_ns(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_MONOTONIC, &now);

    assert(!failed);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_now_ns(struct loop *loop)
{
    return clock_monotonic_ns();
}

int64_t clock_wall_time_us(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);

    assert(!failed);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / NS_PER_US;
}

int64_t loop_thread_cpu_ns(void)
{
    struct timespec used;
    int failed = clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);

    assert(!failed);
    return (int64_t)used.tv_sec * NS_PER_S + used.tv_nsec;
}

void clock_random_bytes(void *to, size_t size)
{
    char *at = to;

    while (size) {
        ssize_t got = getrandom(at, size, 0);

        assert(got > 0 || errno == EINTR);
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
}

int64_t loop_now_ns(void)
{
    struct loop *loop = loop_current();

    return loop ? loop->ops->now_ns(loop) : clock_monotonic_ns();
}

int64_t loop_turn_time_ns(void)
{
    struct loop *loop = loop_current();

    if (!loop->turn_time_ns)
        loop->turn_time_ns = loop->ops->now_ns(loop);
    return loop->turn_time_ns;
}

int64_t loop_wall_time_us(void)
{
    struct loop *loop = loop_current();

    return loop && loop->ops->wall_time_us ? loop->ops->wall_time_us(loop) : clock_wall_time_us();
}

void loop_random_bytes(void *to, size_t size)
{
    struct loop *loop = loop_current();

    if (loop && loop->ops->random_bytes)
        loop->ops->random_bytes(loop, to, size);
    else
        clock_random_bytes(to, size);
}
