/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/size-text.h"

#include <glib.h>

char *size_text(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;

    /* What three digits would show as 1000 or more goes by the next unit. */
    while (value >= 999.5 && unit + 1 < G_N_ELEMENTS(units)) {
        value /= 1024.0;
        unit++;
    }
    return g_strdup_printf("%0.3g %s", value, units[unit]);
}
