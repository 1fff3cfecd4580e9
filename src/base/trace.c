/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/trace.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"

void trace_emit(const struct trace_point *point, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    (void)fprintf(stderr, "%s %s\n", point->name, text);
}
