/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bin/img-text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/size-text.h"
#include "gen/types.h"
#include "schema/json.h"

/* Scalars as they are read best; owned. */
static char *scalar_text(const struct json *value)
{
    if (json_get_kind(value) == JSON_STRING)
        return g_strdup(json_get_string(value));
    return json_format(value, false);
}

static bool is_container(const struct json *value)
{
    return json_get_kind(value) == JSON_OBJECT || json_get_kind(value) == JSON_ARRAY;
}

static void print_member(const char *name, const struct json *value, unsigned depth)
{
    g_autofree char *text = NULL;

    printf("%*s%s:", (int)depth * 4, "", name);
    if (is_container(value)) {
        printf("\n");
        img_print_members(value, depth + 1);
        return;
    }
    text = scalar_text(value);
    printf(" %s\n", text);
}

/* The depth is that of types in the schema. */
void img_print_members(const struct json *container, unsigned depth)
{
    for (size_t i = 0; i < json_count(container); i++) {
        g_autofree char *name = NULL;
        const struct json *value;
        const char *key;

        if (json_get_kind(container) == JSON_ARRAY) {
            value = json_at(container, i);
            name = g_strdup_printf("[%zu]", i);
        } else {
            value = json_member(container, i, &key);
            name = g_strdelimit(g_strdup(key), "-", ' ');
        }
        print_member(name, value, depth);
    }
}

static void print_snapshot(const struct snapshot_info *snapshot)
{
    g_autofree char *size = size_text((uint64_t)snapshot->vm_state_size);
    g_autoptr(GDateTime) date = g_date_time_new_from_unix_local(snapshot->date_sec);
    g_autofree char *date_shown = date ? g_date_time_format(date, "%Y-%m-%d %H:%M:%S") : g_strdup("?");
    g_autofree char *clock = g_strdup_printf("%02" PRId64 ":%02" PRId64 ":%02" PRId64 ".%03" PRId64,
                                             snapshot->vm_clock_sec / 3600, snapshot->vm_clock_sec / 60 % 60,
                                             snapshot->vm_clock_sec % 60, snapshot->vm_clock_nsec / 1000000);
    g_autofree char *count = snapshot->has_icount ? g_strdup_printf("%" PRId64, snapshot->icount) : g_strdup("");

    printf("%-9s %-16s %8s%20s%13s%11s\n", snapshot->id, snapshot->name, size, date_shown, clock, count);
}

void img_print_snapshots(const struct snapshot_info_array *snapshots)
{
    printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (size_t i = 0; i < snapshots->count; i++)
        print_snapshot(snapshots->items[i]);
}
