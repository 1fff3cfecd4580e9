/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Going through all that an L1 table leads to, to change its counts. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"
#include "loop/loop.h"

/* Freed ranges are remembered until the image has been settled; this many at most. */
enum { SETTLE_AFTER = 16 * 1024 };

struct walk {
    struct qcow2_image *image;
    enum qcow2_walk what;
    const uint64_t *copies; /* L1 entries: those that differ do not count; NULL: none */
    uint8_t *table;         /* one L2 table */
    uint64_t run_offset;    /* clusters in one piece that wait for being counted */
    uint64_t run_bytes;     /* 0: none */
    uint64_t runs;          /* that were counted */
    uint64_t runs_max;      /* after which to stop: for taking back */
    uint64_t unsettled;     /* freed since the last settling */
    uint32_t l1_index;      /* for messages */
};

static int CO_FN co_count(struct walk *walk, uint64_t offset, uint64_t bytes)
{
    struct qcow2_image *image = walk->image;
    int ret = 0;

    if (walk->runs >= walk->runs_max)
        return 0;
    if (walk->what != QCOW2_WALK_LOWER) {
        ret = co_qcow2_refcount_add(image, offset, bytes, 1);
    } else {
        qcow2_free_clusters(image, offset, bytes, QCOW2_FREE_SNAPSHOT);
        if (++walk->unsettled >= SETTLE_AFTER) {
            walk->unsettled = 0;
            ret = co_qcow2_settle(image);
        }
    }
    walk->runs += ret == 0;
    return ret;
}

static int CO_FN co_run_end(struct walk *walk)
{
    uint64_t bytes = walk->run_bytes;

    walk->run_bytes = 0;
    return bytes ? co_count(walk, walk->run_offset, bytes) : 0;
}

/* A data cluster: neighbours are counted together. */
static int CO_FN co_cluster(struct walk *walk, uint64_t offset)
{
    int ret;

    if (walk->run_bytes && offset == walk->run_offset + walk->run_bytes) {
        walk->run_bytes += walk->image->cluster_size;
        return 0;
    }
    ret = co_run_end(walk);
    walk->run_offset = offset;
    walk->run_bytes = walk->image->cluster_size;
    return ret;
}

static int CO_FN co_compressed(struct walk *walk, uint64_t entry)
{
    struct qcow2_compressed_extent extent = qcow2_compressed_extent(entry, walk->image->cluster_bits);
    int ret = co_run_end(walk);

    return ret ? ret : co_count(walk, extent.offset, extent.bytes);
}

static int CO_FN co_l2_entry(struct walk *walk, unsigned index, bool *changed)
{
    struct qcow2_image *image = walk->image;
    uint8_t *at = walk->table + ((size_t)index << image->l2_entry_bits);
    uint64_t entry = load_be64(at);
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;

    if (entry & QCOW2_COMPRESSED)
        return image->has_data_file ? 0 : co_compressed(walk, entry);
    if (!offset || image->has_data_file)
        return 0;
    if (!is_aligned(offset, image->cluster_size))
        return co_qcow2_corrupt(image, 0, 0,
                                "Data cluster offset %#" PRIx64 " unaligned (L1 index: %" PRIu32 ", L2 index: %u)",
                                offset, walk->l1_index, index);
    if (walk->what == QCOW2_WALK_REVIVE && entry & QCOW2_COPIED) {
        store_be64(at, entry ^ QCOW2_COPIED);
        *changed = true;
    }
    return co_cluster(walk, offset);
}

static int CO_FN co_l2_table(struct walk *walk, uint64_t l2_offset)
{
    struct qcow2_image *image = walk->image;
    bool changed = false;
    int ret = co_edge_pread(image->file, l2_offset, image->cluster_size, walk->table, 0);

    for (unsigned i = 0; ret == 0 && i < 1u << image->l2_bits; i++)
        ret = co_l2_entry(walk, i, &changed);
    if (ret == 0)
        ret = co_run_end(walk);
    if (ret || !changed)
        return ret;
    ret = co_qcow2_overlap_check(image, l2_offset, image->cluster_size,
                                 QCOW2_METADATA_ACTIVE_L2 | QCOW2_METADATA_INACTIVE_L2);
    return ret ? ret : co_edge_pwrite(image->file, l2_offset, image->cluster_size, walk->table, 0);
}

static int CO_FN co_l1_entries(struct walk *walk, const uint64_t *l1, uint32_t l1_size)
{
    struct qcow2_image *image = walk->image;
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < l1_size; i++) {
        uint64_t l2_offset = l1[i] & QCOW2_L1_OFFSET_MASK;

        walk->l1_index = i;
        if (!l2_offset)
            continue;
        ret = co_qcow2_l2_check(image, l1[i] & ~QCOW2_L1_UNWRITTEN);
        if (ret == 0)
            ret = co_l2_table(walk, l2_offset);
        /* After what is in it: by then nobody reads it any more. */
        if (ret == 0 && !(walk->copies && (walk->copies[i] & QCOW2_L1_OFFSET_MASK) != l2_offset))
            ret = co_count(walk, l2_offset, image->cluster_size);
    }
    return ret;
}

int CO_FN co_qcow2_walk(struct qcow2_image *image, const uint64_t *l1, uint32_t l1_size, enum qcow2_walk what,
                        const uint64_t *copies)
{
    struct walk walk = {.image = image, .what = what, .copies = copies, .runs_max = UINT64_MAX};
    int ret;

    walk.table = loop_buffer_get(image->cluster_size);
    if (!walk.table)
        return -ENOMEM;
    ret = co_l1_entries(&walk, l1, l1_size);
    if (ret < 0 && what != QCOW2_WALK_LOWER) {
        struct walk back = {.image = image, .copies = copies, .runs_max = walk.runs, .table = walk.table};

        /* The same entries lead to the same runs; what fails here leaks. Who began the change settles it. */
        back.what = QCOW2_WALK_LOWER;
        (void)co_l1_entries(&back, l1, l1_size);
    }
    loop_buffer_put(walk.table, image->cluster_size);
    return ret;
}
