/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tables of 8-byte entries between file and memory, in parts, so that a large one needs no second copy of itself. */
#include <errno.h>

#include "base/bytes.h"
#include "driver/format/qcow2/qcow2.h"
#include "loop/loop.h"

enum { PART_ENTRIES = 8192 };

static void from_big_endian(const uint8_t *part, uint64_t entries, uint64_t *to)
{
    for (uint64_t i = 0; i < entries; i++)
        to[i] = load_be64(part + i * 8);
}

int CO_FN co_qcow2_table_read(struct qcow2_image *image, uint64_t offset, uint64_t entries, uint64_t *to)
{
    uint64_t size = MIN(entries, PART_ENTRIES) * 8;
    uint8_t *part;
    int ret = 0;

    if (!entries)
        return 0;
    part = loop_buffer_get(size);
    if (!part)
        return -ENOMEM;
    for (uint64_t done = 0; done < entries && !ret; done += PART_ENTRIES) {
        uint64_t now = MIN(entries - done, PART_ENTRIES);

        ret = co_edge_pread(image->file, offset + done * 8, now * 8, part, 0);
        if (!ret)
            from_big_endian(part, now, to + done);
    }
    loop_buffer_put(part, size);
    return ret;
}

int CO_FN co_qcow2_table_write(struct qcow2_image *image, uint64_t offset, uint64_t entries, const uint64_t *from,
                               enum qcow2_metadata kind)
{
    uint64_t size = MIN(entries, PART_ENTRIES) * 8;
    uint8_t *part;
    int ret;

    if (!entries)
        return 0;
    ret = co_qcow2_overlap_check(image, offset, entries * 8, kind);
    if (ret)
        return ret;
    part = loop_buffer_get(size);
    if (!part)
        return -ENOMEM;
    for (uint64_t done = 0; done < entries && !ret; done += PART_ENTRIES) {
        uint64_t now = MIN(entries - done, PART_ENTRIES);

        for (uint64_t i = 0; i < now; i++)
            store_be64(part + i * 8, from[done + i]);
        ret = co_edge_pwrite(image->file, offset + done * 8, now * 8, part, 0);
    }
    loop_buffer_put(part, size);
    return ret;
}
