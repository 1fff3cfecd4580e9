/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reference counts in a second place. A change of many counts that goes together with a change of tables takes place
 * in copies of the refcount table and of all its blocks, and one write of the header makes counts and tables valid.
 * Until then the file says what was before, by structures that nobody touches.
 *
 * Keeps, while there is a shadow: (1) all that looks up or changes a count uses the copies, since the refcount table in
 * memory names them; (2) each write of the header names the former table all the same; (3) the former table and blocks
 * stay in use, by their counts in the copies, too.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "driver/format/qcow2/qcow2.h"
#include "loop/loop.h"

/* Where the copies go. */
struct places {
    uint64_t *blocks; /* by their index; owned */
    uint64_t entries; /* of `blocks` */
    uint64_t table;   /* with as many entries; 0: none yet */
};

/* A place for a table of as many entries as there are. */
static int CO_FN co_take_table(struct qcow2_image *image, struct places *places)
{
    uint64_t entries = image->refcount_table_entries;

    if (places->table)
        qcow2_free_clusters(image, places->table, places->entries * 8, QCOW2_FREE_NEVER);
    places->blocks = g_renew(uint64_t, places->blocks, entries);
    memset(places->blocks + places->entries, 0, (entries - places->entries) * sizeof(*places->blocks));
    places->entries = entries;
    return co_qcow2_alloc_clusters(image, entries * 8, &places->table);
}

/* Taking places may make blocks and a larger table, which want places, too. */
static int CO_FN co_take_places(struct qcow2_image *image, struct places *places)
{
    bool again = true;
    int ret = 0;

    while (again && !ret) {
        again = places->entries < image->refcount_table_entries;
        if (again)
            ret = co_take_table(image, places);
        for (uint64_t i = 0; i < places->entries && !ret; i++) {
            if (!qcow2_refcount_table_entry(image, i) || places->blocks[i])
                continue;
            again = true;
            ret = co_qcow2_alloc_clusters(image, image->cluster_size, &places->blocks[i]);
        }
    }
    return ret;
}

static int CO_FN co_copy_block(struct qcow2_image *image, uint64_t index, uint64_t to, uint8_t *block)
{
    int ret = co_qcow2_refcount_block_load(image, index, block);

    if (!ret)
        ret = co_qcow2_overlap_check(image, to, image->cluster_size, 0);
    if (ret)
        return ret;
    qcow2_overlap_add(&image->overlap, to, image->cluster_size);
    return co_edge_pwrite(image->file, to, image->cluster_size, block, 0);
}

static int CO_FN co_copy_all(struct qcow2_image *image, const struct places *places)
{
    uint8_t *block = loop_buffer_get(image->cluster_size);
    int ret = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < places->entries && !ret; i++) {
        if (places->blocks[i])
            ret = co_copy_block(image, i, places->blocks[i], block);
    }
    if (block)
        loop_buffer_put(block, image->cluster_size);
    return ret ? ret : co_qcow2_table_write(image, places->table, places->entries, places->blocks, 0);
}

int CO_FN co_qcow2_shadow_begin(struct qcow2_image *image)
{
    struct places places = {0};
    struct qcow2_shadow *shadow;
    int ret = co_take_places(image, &places);

    assert(!image->shadow);
    /* What was taken is counted in the blocks that are to be copied. */
    if (!ret)
        ret = co_qcow2_settle(image);
    if (!ret)
        ret = co_copy_all(image, &places);
    if (ret) {
        g_free(places.blocks);
        return ret;
    }
    qcow2_caches_drop(image);
    shadow = g_new(struct qcow2_shadow, 1);
    *shadow = (struct qcow2_shadow){
        .table = image->refcount_table,
        .entries = image->refcount_table_entries,
        .offset = image->header->refcount_table_offset,
        .clusters = image->header->refcount_table_clusters,
    };
    assert(places.entries == shadow->entries);
    image->shadow = shadow;
    image->refcount_table = places.blocks;
    image->header->refcount_table_offset = places.table;
    qcow2_overlap_refresh(image);
    return 0;
}

/* The former table and blocks are no longer in use. Only snapshots make shadows. */
static void release_former(struct qcow2_image *image, const struct qcow2_shadow *shadow)
{
    for (uint64_t i = 0; i < shadow->entries; i++) {
        if (shadow->table[i])
            qcow2_free_clusters(image, shadow->table[i] & QCOW2_REFCOUNT_OFFSET_MASK, image->cluster_size,
                                QCOW2_FREE_SNAPSHOT);
    }
    qcow2_free_clusters(image, shadow->offset, shadow->entries * 8, QCOW2_FREE_SNAPSHOT);
}

static void shadow_free(struct qcow2_shadow *shadow)
{
    g_free(shadow->table);
    g_free(shadow);
}

int CO_FN co_qcow2_shadow_switch(struct qcow2_image *image)
{
    struct qcow2_shadow *shadow = TAKE(image->shadow);
    int ret = co_qcow2_header_update_fields(image, true);

    if (ret) {
        image->shadow = shadow;
    } else if (shadow) {
        release_former(image, shadow);
        shadow_free(shadow);
    }
    return ret;
}

void qcow2_shadow_drop(struct qcow2_image *image)
{
    struct qcow2_shadow *shadow = image->shadow;

    if (!shadow)
        return;
    qcow2_caches_drop(image);
    g_free(image->refcount_table);
    image->refcount_table = TAKE(shadow->table);
    image->refcount_table_entries = shadow->entries;
    image->header->refcount_table_offset = shadow->offset;
    image->header->refcount_table_clusters = shadow->clusters;
    image->refcount_dirty_first = image->refcount_dirty_end = 0;
    image->shadow = NULL;
    shadow_free(shadow);
    /* What the copies counted is free. */
    qcow2_alloc_hint(image, 0);
    qcow2_overlap_refresh(image);
}
