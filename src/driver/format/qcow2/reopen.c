/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the image can be written to, changed while it is open. What ends with writing is written before the change
 * may happen; what begins with it comes after the file can be written to.
 */
#include "driver/format/qcow2/reopen.h"

#include "base/error.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/qcow2.h"

static bool CO_FN co_end_writing(struct qcow2_image *image, struct error **err)
{
    bool fenced = image->header->incompatible_features & QCOW2_CORRUPT;
    int ret;

    if (!fenced && !co_qcow2_bitmaps_end_writing(image, err))
        return false;
    ret = co_qcow2_settle(image);
    if (!ret && image->metadata_dirty)
        ret = co_qcow2_mark_clean(image);
    return !ret ||
           error_set_errno(err, ret, "Could not write what the caches of node '%s' hold", node_name(image->node));
}

/* What has to be repaired first cannot be written to just so. */
static bool check_begin(const struct qcow2_image *image, struct error **err)
{
    if (image->header->incompatible_features & QCOW2_CORRUPT)
        return error_set(err, "qcow2: Image is corrupt; cannot be opened read/write");
    if (image->header->incompatible_features & QCOW2_DIRTY)
        return error_set(err, "qcow2: Image was not closed cleanly; it has to be opened for writing to be repaired");
    return true;
}

static bool CO_FN qcow2_co_reopen_prepare(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct qcow2_image *image = node_state(node);

    if (node_read_only(node) && image->writable) {
        if (!co_end_writing(image, err))
            return false;
        image->writable = false;
        return true;
    }
    return node_read_only(node) || image->writable || check_begin(image, err);
}

/* From now on what is marked as consistent will not be. */
static void CO_FN co_begin_writing(struct node *node)
{
    struct qcow2_image *image = node_state(node);
    AUTO(error) err = NULL;

    if (node_read_only(node) || image->writable)
        return;
    image->writable = true;
    if (!co_qcow2_clear_autoclear(image, &err) || !co_qcow2_bitmaps_begin_writing(image, &err)) {
        log_warning("Node '%s': %s", node_name(node), error_message(err));
        node_fence(node, 0, 0, "%s", error_message(err));
    }
}

static void CO_FN qcow2_co_reopen_commit(struct node *node)
{
}

const struct block_driver_reopen qcow2_reopen = {
    .co_prepare = qcow2_co_reopen_prepare,
    .co_commit = qcow2_co_reopen_commit,
    .co_abort = co_begin_writing,
    .co_after = co_begin_writing,
};
