/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What requests did, in the lines that test suites compare. */
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "bin/io.h"

enum { DUMP_ROW_BYTES = 16, SECONDS_PER_MINUTE = 60, SECONDS_PER_HOUR = 3600 };

#define NS_PER_SECOND NS_PER_S
#define NS_PER_HUNDREDTH (NS_PER_SECOND / 100)

char *io_size_text(double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    g_autofree char *number = NULL;
    unsigned unit = 0;
    char *point;

    for (; bytes >= 1024 && unit + 1 < G_N_ELEMENTS(units); unit++)
        bytes /= 1024;
    number = g_strdup_printf("%.*f", unit ? 3 : 6, bytes);
    point = strchr(number, '.');
    if (!point[1 + strspn(point + 1, "0")])
        *point = '\0';
    return g_strdup_printf("%s %s", number, units[unit]);
}

/* `always_long`: with hours and minutes even below a second. */
static char *duration_text(int64_t duration_ns, bool always_long)
{
    int64_t seconds = duration_ns / NS_PER_SECOND;
    int hundredths = (int)(duration_ns % NS_PER_SECOND / NS_PER_HUNDREDTH);
    int64_t hours = seconds / SECONDS_PER_HOUR;
    int minutes = (int)(seconds % SECONDS_PER_HOUR / SECONDS_PER_MINUTE);
    int rest = (int)(seconds % SECONDS_PER_MINUTE);

    if (always_long || seconds)
        return g_strdup_printf("%" PRId64 ":%02d:%02d.%02d", hours, minutes, rest, hundredths);
    return g_strdup_printf("00.%02d sec", hundredths);
}

void io_report_print(const struct io_report *report)
{
    double seconds = (double)MAX(report->duration_ns, 1) / (double)NS_PER_SECOND;
    double byte_rate = (double)report->done / seconds;
    g_autofree char *duration = duration_text(report->duration_ns, report->machine);
    g_autofree char *size = io_size_text((double)report->done);
    g_autofree char *rate = io_size_text(byte_rate);

    if (report->machine) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", report->done, duration, byte_rate, 1 / seconds);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", report->verb, report->done, report->requested,
           report->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", size, duration, rate, 1 / seconds);
}

void io_dump(const uint8_t *data, size_t size, uint64_t offset)
{
    for (size_t row = 0; row < size; row += DUMP_ROW_BYTES) {
        size_t count = MIN(size - row, DUMP_ROW_BYTES);

        printf("%08" PRIx64 ":  ", offset + row);
        for (size_t i = 0; i < count; i++)
            printf("%02x ", data[row + i]);
        printf(" ");
        for (size_t i = 0; i < count; i++)
            printf("%c", g_ascii_isalnum(data[row + i]) ? data[row + i] : '.');
        printf("\n");
    }
}
