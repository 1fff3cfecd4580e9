/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/multipath.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static void clear(void *map)
{
    g_free(((struct multipath *)map)->name);
}

static int compare(const void *left, const void *right)
{
    const struct multipath *a = left, *b = right;

    return a->minor < b->minor ? -1 : a->minor > b->minor;
}

/* multipathd and its tools give their maps such identifiers; partitions of them and other maps have others. */
static bool is_multipath(const char *block, const char *device)
{
    g_autofree char *path = g_build_filename(block, device, "dm", "uuid", NULL);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) && g_str_has_prefix(text, "mpath-");
}

GArray *multipath_list(const char *sysfs)
{
    g_autofree char *block = g_build_filename(sysfs, "block", NULL);
    g_autoptr(GDir) folder = g_dir_open(block, 0, NULL);
    GArray *maps = g_array_new(FALSE, FALSE, sizeof(struct multipath));
    const char *device;

    g_array_set_clear_func(maps, clear);
    while (folder && (device = g_dir_read_name(folder))) {
        g_autofree char *path = g_build_filename(block, device, "dm", "name", NULL);
        struct multipath map = {0};

        if (!g_str_has_prefix(device, "dm-") || !is_multipath(block, device) ||
            !g_file_get_contents(path, &map.name, NULL, NULL))
            continue;
        g_strchomp(map.name);
        map.minor = (unsigned)g_ascii_strtoull(device + strlen("dm-"), NULL, 10);
        g_array_append_val(maps, map);
    }
    g_array_sort(maps, compare);
    return maps;
}
