/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/cpu-list.h"

#include <glib.h>
#include <string.h>

bool cpu_list_add(struct cpu_list *list, unsigned long cpu)
{
    if (cpu >= CPU_SETSIZE)
        return false;
    CPU_SET(cpu, &list->set);
    return true;
}

/* A number below the size of a set, at *at, which moves behind it. */
static bool parse_number(const char **at, unsigned *ret)
{
    unsigned number = 0;

    if (!g_ascii_isdigit(**at))
        return false;
    for (; g_ascii_isdigit(**at); (*at)++) {
        number = number * 10 + (unsigned)(**at - '0');
        if (number >= CPU_SETSIZE)
            return false;
    }
    *ret = number;
    return true;
}

static bool parse_range(struct cpu_list *list, const char **at)
{
    unsigned first, last;

    if (!parse_number(at, &first))
        return false;
    last = first;
    if (**at == '-') {
        (*at)++;
        if (!parse_number(at, &last) || last < first)
            return false;
    }
    for (unsigned cpu = first; cpu <= last; cpu++)
        CPU_SET(cpu, &list->set);
    return true;
}

bool cpu_list_parse(struct cpu_list *list, const char *text)
{
    g_autofree char *copy = g_strchomp(g_strdup(text));
    const char *at = copy;

    if (!*at)
        return true;
    for (;;) {
        if (!parse_range(list, &at))
            return false;
        if (!*at)
            return true;
        if (*at++ != ',')
            return false;
    }
}
