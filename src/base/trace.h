/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace points: TRACE(nbd_request, "cookie %" PRIu64 " type %u", cookie, type).
 *
 * A point that is off costs a load and a branch; its arguments are not evaluated, and must have no side effects. Points
 * are found in a section of the binary, so a new one needs no registration; its name is SUBSYSTEM_WHAT, unique in the
 * program. Where <sys/sdt.h> is there, each is a USDT probe ashlar:NAME too, with the arguments (at most twelve,
 * integers or pointers) and a semaphore, by which a tracer that attaches switches it on.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;

struct trace_point {
    const char *name;
    bool enabled; /* atomic */
} __attribute__((aligned(16)));

#ifdef ASHLAR_USDT
#define SDT_USE_VARIADIC 1
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
/* The semaphore's symbol name is a part of the probe's binary description; the kernel counts tracers in it. */
#define TRACE_PROBE_DEFINE(point)                                                                                      \
    static volatile unsigned short ashlar_##point##_semaphore __asm__("ashlar_" #point "_semaphore")                   \
        __attribute__((section(".probes"), used))
#define TRACE_PROBE(point, ...)                                                                                        \
    do {                                                                                                               \
        if (unlikely(ashlar_##point##_semaphore))                                                                      \
            STAP_PROBEV(ashlar, point, ##__VA_ARGS__);                                                                 \
    } while (0)
#else
#define TRACE_PROBE_DEFINE(point)
#define TRACE_PROBE(point, ...)
#endif

#define TRACE(point, format, ...)                                                                                      \
    do {                                                                                                               \
        static struct trace_point trace_##point                                                                        \
            __attribute__((section("trace_points"), used)) = {.name = #point, .enabled = false};                       \
        TRACE_PROBE_DEFINE(point);                                                                                     \
        if (unlikely(__atomic_load_n(&trace_##point.enabled, __ATOMIC_RELAXED)))                                       \
            trace_emit(&trace_##point, format, ##__VA_ARGS__);                                                         \
        TRACE_PROBE(point, ##__VA_ARGS__);                                                                             \
    } while (0)

/* One line to the trace output: thread, time, name, text. Any thread. */
void trace_emit(const struct trace_point *point, const char *format, ...) PRINTF_LIKE(2, 3);

/*
 * Switches every point on whose name matches the glob `pattern` ('*' and '?'), or off where the pattern starts with
 * '-'. How many match. Any thread.
 */
unsigned trace_enable(const char *pattern);

/*
 * Applies the patterns in `text`, one a line; empty lines and those that start with '#' do not count. The first one
 * that matches nothing is returned in *ret_unmatched (owned; NULL: none).
 */
void trace_enable_list(const char *text, char **ret_unmatched);

/* The names of all points in order, NULL-terminated; freed by g_free() (the names are borrowed). */
const char **trace_names(void);

/* Sends the output to the file `path`, which is created or emptied, instead of standard error. */
bool trace_open(const char *path, struct error **err) MUST_CHECK;

/* Where the time of lines comes from: microseconds since 1970. Before it is set, lines have no time. */
void trace_set_clock(int64_t (*wall_time_us)(void));
