/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The check of an image that is open: its caches step aside for it. */
#include <errno.h>

#include "base/error.h"
#include "block/image.h"
#include "driver/format/qcow2/check-internal.h"
#include "driver/format/qcow2/qcow2.h"
#include "driver/format/qcow2/snapshot.h"

/* What a repair may have changed is read again; `image->header` is replaced field by field, since others hold it. */
static int CO_FN co_reload(struct qcow2_image *image, struct error **err)
{
    AUTO(qcow2_header) now = co_qcow2_header_load(image->file, err);
    struct qcow2_header *header = image->header;
    int ret;

    if (!now)
        return -EIO;
    header->size = now->size;
    header->l1_size = now->l1_size;
    header->l1_table_offset = now->l1_table_offset;
    header->refcount_table_offset = now->refcount_table_offset;
    header->refcount_table_clusters = now->refcount_table_clusters;
    header->snapshot_count = now->snapshot_count;
    header->snapshots_offset = now->snapshots_offset;
    header->incompatible_features = now->incompatible_features;
    header->autoclear_features = now->autoclear_features;
    header->has_bitmaps = now->has_bitmaps;
    header->bitmaps = now->bitmaps;
    ret = co_qcow2_refcount_table_load(image);
    if (ret == 0)
        ret = co_qcow2_l1_load(image);
    if (ret) {
        error_set_errno(err, ret, "Could not read the repaired tables");
        return ret;
    }
    if (!co_qcow2_snapshots_load(image, err))
        return -EIO;
    node_set_length(image->node, header->size);
    ret = co_qcow2_overlap_load(image, image->overlap.mask);
    if (ret)
        error_set_errno(err, ret, "Could not read the repaired tables");
    return ret;
}

int CO_FN co_qcow2_recover(struct qcow2_image *image)
{
    struct qcow2_check_result result;
    int ret;

    qcow2_alloc_reset(image);
    qcow2_caches_drop(image);
    if (!co_qcow2_check(image->file, IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS, NULL, &result, NULL))
        return -EIO;
    ret = co_reload(image, NULL);
    if (ret)
        return ret;
    return result.corruptions || result.check_errors ? -EIO : co_qcow2_mark_repaired(image);
}

bool CO_FN co_qcow2_check_node(struct node *node, unsigned repair, struct image_report *report, struct image_check *ret,
                               struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    struct qcow2_check_result result;
    bool done;
    int settled = 0;

    if (repair && !image->writable)
        return error_set(err, "Node '%s' is read-only: it cannot be repaired", node_name(node));
    if (image->writable) {
        qcow2_alloc_reset(image);
        settled = co_qcow2_settle(image);
    }
    if (settled)
        return error_set_errno(err, settled, "Could not write back the metadata of node '%s'", node_name(node));
    done = co_qcow2_check(image->file, repair, report, &result, err);
    if (repair) {
        struct error *reload_err = NULL;

        qcow2_caches_drop(image);
        /* The first error counts. */
        if (co_reload(image, &reload_err)) {
            if (done)
                return error_move(err, reload_err);
            error_free(reload_err);
        }
    }
    if (!done)
        return false;
    if (repair && !result.corruptions && !result.check_errors && co_qcow2_mark_repaired(image))
        return error_set(err, "Could not clear the corrupt bit of node '%s'", node_name(node));
    qcow2_check_fill_in(&result, ret);
    return true;
}
