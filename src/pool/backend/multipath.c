/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/multipath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "loop/file.h"

enum { TABLE_BYTES = 16 * 1024 };

/* What is asked of the device mapper, and what it answers: one after the other in the same memory. */
union map_question {
    struct dm_ioctl head;
    uint8_t bytes[TABLE_BYTES];
};

static void clear(void *map)
{
    g_free(((struct multipath *)map)->name);
}

static int compare(const void *left, const void *right)
{
    const struct multipath *a = left, *b = right;

    return a->minor < b->minor ? -1 : a->minor > b->minor;
}

/* Whether the map begins with a target of several paths, or -errno. */
static int begins_with_multipath(int mapper, const char *name)
{
    g_autofree union map_question *map = g_new0(union map_question, 1);
    struct dm_target_spec target;

    map->head.version[0] = DM_VERSION_MAJOR;
    map->head.data_size = sizeof(*map);
    map->head.data_start = sizeof(map->head);
    map->head.flags = DM_STATUS_TABLE_FLAG;
    g_strlcpy(map->head.name, name, sizeof(map->head.name));
    if (ioctl(mapper, DM_TABLE_STATUS, map))
        return -errno;
    if (!map->head.target_count || map->head.data_start > sizeof(*map) - sizeof(target))
        return false;
    memcpy(&target, map->bytes + map->head.data_start, sizeof(target));
    return !strncmp(target.target_type, "multipath", sizeof(target.target_type));
}

/* Multipathd and its tools give their maps such identifiers; partitions of them and other maps have others. */
static bool has_multipath_uuid(const char *block, const char *device)
{
    g_autofree char *path = g_build_filename(block, device, "dm", "uuid", NULL);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) && g_str_has_prefix(text, "mpath-");
}

/* `mapper`: negative where that cannot be asked. */
static bool is_multipath(int mapper, const char *name, const char *block, const char *device)
{
    int begins = mapper >= 0 ? begins_with_multipath(mapper, name) : -ENODEV;

    return begins >= 0 ? begins : has_multipath_uuid(block, device);
}

GArray *multipath_list(const char *sysfs, const char *control)
{
    g_autofree char *block = g_build_filename(sysfs, "block", NULL);
    g_autoptr(GDir) folder = g_dir_open(block, 0, NULL);
    GArray *maps = g_array_new(FALSE, FALSE, sizeof(struct multipath));
    AUTO(fd) mapper = open(control, O_RDWR | O_CLOEXEC);
    const char *device;

    g_array_set_clear_func(maps, clear);
    while (folder && (device = g_dir_read_name(folder))) {
        g_autofree char *path = g_build_filename(block, device, "dm", "name", NULL);
        struct multipath map = {0};

        if (!g_str_has_prefix(device, "dm-") || !g_file_get_contents(path, &map.name, NULL, NULL))
            continue;
        g_strchomp(map.name);
        map.minor = (unsigned)g_ascii_strtoull(device + strlen("dm-"), NULL, 10);
        if (is_multipath(mapper, map.name, block, device))
            g_array_append_val(maps, map);
        else
            clear(&map);
    }
    g_array_sort(maps, compare);
    return maps;
}
