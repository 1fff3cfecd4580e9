/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The header of an image in use: its feature bits say what a later opener may rely on. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>

#include "base/error.h"
#include "driver/format/qcow2/qcow2.h"

int CO_FN co_qcow2_header_update(struct qcow2_image *image, bool flush, struct error **err)
{
    int ret = -EIO;

    assert(!image->shadow);
    co_mutex_lock(&image->header_lock);
    if (co_qcow2_header_store(image->file, image->header, err)) {
        ret = flush ? co_edge_flush(image->file) : 0;
        if (ret)
            error_set_errno(err, ret, "Could not make the header durable");
    }
    co_mutex_unlock(&image->header_lock);
    return ret;
}

/* Under header_lock. */
static int CO_FN co_store_fields(struct qcow2_image *image, bool flush)
{
    struct qcow2_header header = *image->header;
    int ret;

    if (image->shadow) {
        header.refcount_table_offset = image->shadow->offset;
        header.refcount_table_clusters = image->shadow->clusters;
    }
    ret = co_qcow2_header_store_fields(image->file, &header);
    return ret || !flush ? ret : co_edge_flush(image->file);
}

int CO_FN co_qcow2_header_update_fields(struct qcow2_image *image, bool flush)
{
    int ret;

    co_mutex_lock(&image->header_lock);
    ret = co_store_fields(image, flush);
    co_mutex_unlock(&image->header_lock);
    return ret;
}

/* Sets and clears bits, durably; as it was where that fails. */
static int CO_FN co_change_features(struct qcow2_image *image, uint64_t set, uint64_t clear)
{
    uint64_t before;
    int ret = 0;

    co_mutex_lock(&image->header_lock);
    before = image->header->incompatible_features;
    image->header->incompatible_features = (before | set) & ~clear;
    if (image->header->incompatible_features != before)
        ret = co_store_fields(image, true);
    if (ret)
        image->header->incompatible_features = before;
    co_mutex_unlock(&image->header_lock);
    return ret;
}

int CO_FN co_qcow2_mark_dirty(struct qcow2_image *image)
{
    int ret;

    if (likely(__atomic_load_n(&image->metadata_dirty, __ATOMIC_ACQUIRE)))
        return 0;
    ret = co_change_features(image, QCOW2_DIRTY, 0);
    if (!ret)
        __atomic_store_n(&image->metadata_dirty, true, __ATOMIC_RELEASE);
    return ret;
}

int CO_FN co_qcow2_mark_clean(struct qcow2_image *image)
{
    int ret;

    if (image->keep_dirty)
        return 0;
    ret = co_change_features(image, 0, QCOW2_DIRTY);
    if (!ret)
        __atomic_store_n(&image->metadata_dirty, false, __ATOMIC_RELEASE);
    return ret;
}

int CO_FN co_qcow2_mark_repaired(struct qcow2_image *image)
{
    int ret = co_change_features(image, 0, QCOW2_DIRTY | QCOW2_CORRUPT);

    if (!ret) {
        __atomic_store_n(&image->metadata_dirty, false, __ATOMIC_RELEASE);
        image->was_corrupt = false;
        image->keep_dirty = false;
    }
    return ret;
}

int CO_FN co_qcow2_corrupt(struct qcow2_image *image, uint64_t offset, uint64_t bytes, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    /* Fenced first: what is on its way to the file may still get there, nothing new does. */
    node_fence(image->node, offset, bytes, "%s", text);
    if (image->writable && image->header->version >= 3)
        (void)co_change_features(image, QCOW2_CORRUPT, 0);
    return -EIO;
}
