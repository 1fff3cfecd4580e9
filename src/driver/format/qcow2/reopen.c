/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options, and whether the image can be written to, changed while it is open. What ends with writing is written before
 * the change may happen; what begins with it comes after the file can be written to.
 */
#include "driver/format/qcow2/reopen.h"

#include "base/error.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/options.h"
#include "driver/format/qcow2/qcow2.h"

/* What will be so once the change has been made. */
struct qcow2_reopening {
    struct qcow2_settings settings;
    struct qcow2_caches caches; /* owned; NULL: those that there are */
};

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

static bool CO_FN co_prepare_writable(struct node *node, struct error **err)
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

static bool caches_differ(const struct qcow2_settings *a, const struct qcow2_settings *b)
{
    return a->l2_cache_bytes != b->l2_cache_bytes || a->refcount_cache_bytes != b->refcount_cache_bytes ||
           a->l2_slice_bytes != b->l2_slice_bytes;
}

/* The guard as the new options want it; an abort takes the old one again. */
static bool CO_FN co_prepare_guard(struct qcow2_image *image, unsigned mask, struct error **err)
{
    int ret = mask == image->settings.overlap_mask ? 0 : co_qcow2_overlap_load(image, mask);

    return !ret || error_set_errno(err, ret, "Could not read what has to be guarded against overwriting");
}

static bool CO_FN co_prepare_settings(struct qcow2_image *image, const struct blockdev_options *options,
                                      struct qcow2_reopening *reopening, struct error **err)
{
    struct qcow2_settings *settings = &reopening->settings;
    int ret;

    if (!qcow2_settings_parse(&options->u.qcow2, image->header, node_discard_unmap(image->node), settings, err))
        return false;
    if (caches_differ(settings, &image->settings)) {
        ret = image->writable ? co_qcow2_settle(image) : 0;
        if (ret)
            return error_set_errno(err, ret, "Could not write what the caches of node '%s' hold",
                                   node_name(image->node));
        if (!qcow2_caches_new(image, settings, &reopening->caches, err))
            return false;
    }
    if (co_prepare_guard(image, settings->overlap_mask, err))
        return true;
    qcow2_cache_free(reopening->caches.l2);
    qcow2_cache_free(reopening->caches.refcounts);
    return false;
}

static void CO_FN co_drop_prepared(struct qcow2_image *image)
{
    struct qcow2_reopening *reopening = TAKE(image->reopening);
    unsigned mask = image->settings.overlap_mask;
    int ret = reopening->settings.overlap_mask == mask ? 0 : co_qcow2_overlap_load(image, mask);

    if (ret)
        node_fence(image->node, 0, 0, "Could not read what has to be guarded against overwriting");
    qcow2_cache_free(reopening->caches.l2);
    qcow2_cache_free(reopening->caches.refcounts);
    g_free(reopening);
}

static bool CO_FN qcow2_co_reopen_prepare(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct qcow2_image *image = node_state(node);
    struct qcow2_reopening *reopening = g_new0(struct qcow2_reopening, 1);

    if (!co_prepare_settings(image, options, reopening, err)) {
        g_free(reopening);
        return false;
    }
    image->reopening = reopening;
    if (co_prepare_writable(node, err))
        return true;
    co_drop_prepared(image);
    return false;
}

/* From now on what is marked as consistent will not be. */
static void CO_FN co_begin_writing(struct node *node)
{
    struct qcow2_image *image = node_state(node);
    AUTO(error) err = NULL;

    if (node_read_only(node) || image->writable)
        return;
    image->writable = true;
    image->owners_known = false;
    qcow2_ahead_drop(image);
    if (!co_qcow2_clear_autoclear(image, &err) || !co_qcow2_bitmaps_begin_writing(image, &err)) {
        log_warning("Node '%s': %s", node_name(node), error_message(err));
        node_fence(node, 0, 0, "%s", error_message(err));
    }
}

static void CO_FN qcow2_co_reopen_abort(struct node *node)
{
    co_drop_prepared(node_state(node));
    co_begin_writing(node);
}

static void CO_FN qcow2_co_reopen_commit(struct node *node)
{
    struct qcow2_image *image = node_state(node);
    struct qcow2_reopening *reopening = TAKE(image->reopening);
    bool other_interval = reopening->settings.clean_interval_seconds != image->settings.clean_interval_seconds;

    if (other_interval || reopening->caches.l2)
        co_qcow2_cleaner_stop(image);
    image->settings = reopening->settings;
    if (reopening->caches.l2)
        qcow2_caches_set(image, &reopening->caches);
    if (!image->cleaner)
        qcow2_cleaner_start(image);
    g_free(reopening);
}

static const char *const changeable_options[] = {
    "lazy-refcounts",      "pass-discard-request", "pass-discard-snapshot",
    "pass-discard-other",  "discard-no-unref",     "overlap-check",
    "cache-size",          "l2-cache-size",        "l2-cache-entry-size",
    "refcount-cache-size", "cache-clean-interval", NULL,
};

const struct block_driver_reopen qcow2_reopen = {
    .options = changeable_options,
    .co_prepare = qcow2_co_reopen_prepare,
    .co_commit = qcow2_co_reopen_commit,
    .co_abort = qcow2_co_reopen_abort,
    .co_after = co_begin_writing,
};
