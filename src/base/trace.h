/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace points: TRACE(nbd_request, "cookie %" PRIu64 " type %u", cookie, type).
 *
 * A point that is off costs a load and a branch. Points are found in a section of the binary, so a new one needs no
 * registration; its name is SUBSYSTEM_WHAT, unique in the program. Where <sys/sdt.h> is there, each is a USDT probe
 * ashlar:NAME too, with the arguments that are integers or pointers.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct trace_point {
    const char *name;
    bool enabled; /* written by trace_enable() before threads start */
} __attribute__((aligned(16)));

#define TRACE(point, ...)                                                                                              \
    do {                                                                                                               \
        static struct trace_point trace_##point                                                                        \
            __attribute__((section("trace_points"), used)) = {.name = #point, .enabled = false};                       \
        if (unlikely(trace_##point.enabled))                                                                           \
            trace_emit(&trace_##point, __VA_ARGS__);                                                                   \
    } while (0)

void trace_emit(const struct trace_point *point, const char *format, ...) PRINTF_LIKE(2, 3);
