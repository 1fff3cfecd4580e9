/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From options and a file to an open image, and back. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "block/filename-options.h"
#include "block/image.h"
#include "crypto/block-crypt.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/crypt.h"
#include "driver/format/qcow2/options.h"
#include "driver/format/qcow2/request.h"
#include "driver/format/qcow2/snapshot.h"
#include "loop/loop.h"

/* --- tables --- */

/* An array of 64-bit entries from the file; NULL and the error. */
static uint64_t *CO_FN co_load_table(struct qcow2_image *image, const char *what, uint64_t offset, uint64_t entries,
                                     struct error **err)
{
    g_autofree uint64_t *table = g_try_new0(uint64_t, MAX(entries, 1));
    int ret = table ? co_qcow2_table_read(image, offset, entries, table) : -ENOMEM;

    if (ret) {
        error_set_errno(err, ret, "Could not read the %s of %" PRIu64 " entries at offset %#" PRIx64, what, entries,
                        offset);
        return NULL;
    }
    return TAKE(table);
}

int CO_FN co_qcow2_l1_load(struct qcow2_image *image)
{
    uint64_t *l1 = co_load_table(image, "L1 table", image->header->l1_table_offset, image->header->l1_size, NULL);

    if (!l1)
        return -EIO;
    g_free(image->l1);
    image->l1 = l1;
    image->owners_known = false;
    qcow2_ahead_drop(image);
    return 0;
}

int CO_FN co_qcow2_refcount_table_load(struct qcow2_image *image)
{
    const struct qcow2_header *header = image->header;
    uint64_t entries = (uint64_t)header->refcount_table_clusters << (header->cluster_bits - 3);
    uint64_t *table;

    co_edge_event(image->file, BLKDEBUG_EVENT_REFTABLE_LOAD);
    table = co_load_table(image, "refcount table", header->refcount_table_offset, entries, NULL);
    if (!table)
        return -EIO;
    g_free(image->refcount_table);
    image->refcount_table = table;
    image->refcount_table_entries = entries;
    if (image->refcounts)
        qcow2_cache_drop(image->refcounts);
    return 0;
}

static bool CO_FN co_load_tables(struct qcow2_image *image, struct error **err)
{
    const struct qcow2_header *header = image->header;

    image->refcount_table_entries = (uint64_t)header->refcount_table_clusters << (header->cluster_bits - 3);
    image->refcount_table =
        co_load_table(image, "refcount table", header->refcount_table_offset, image->refcount_table_entries, err);
    if (!image->refcount_table)
        return false;
    image->l1 = co_load_table(image, "L1 table", header->l1_table_offset, header->l1_size, err);
    return image->l1;
}

bool qcow2_caches_new(struct qcow2_image *image, const struct qcow2_settings *settings, struct qcow2_caches *ret_caches,
                      struct error **err)
{
    struct qcow2_caches caches = {
        .l2 = qcow2_cache_new(image, settings->l2_cache_bytes, settings->l2_slice_bytes, co_qcow2_slice_load,
                              co_qcow2_l2_clean),
        .refcounts = qcow2_cache_new(image, settings->refcount_cache_bytes, (uint32_t)image->cluster_size,
                                     co_qcow2_refcount_block_load, co_qcow2_refcount_blocks_write),
    };

    *ret_caches = caches;
    if (caches.l2 && caches.refcounts)
        return true;
    qcow2_cache_free(caches.l2);
    qcow2_cache_free(caches.refcounts);
    return error_set(err, "No memory for caches of %" PRIu64 " and %" PRIu64 " bytes", settings->l2_cache_bytes,
                     settings->refcount_cache_bytes);
}

void qcow2_caches_set(struct qcow2_image *image, const struct qcow2_caches *caches)
{
    if (image->l2)
        qcow2_caches_free(image);
    image->l2 = caches->l2;
    image->refcounts = caches->refcounts;
    image->slice_bits = (unsigned)__builtin_ctz(caches->l2->table_bytes) - image->l2_entry_bits;
}

void qcow2_caches_drop(struct qcow2_image *image)
{
    qcow2_alloc_reset(image);
    /* After a failure counts may be forgotten here that were to be lowered, and must not be lowered twice. */
    qcow2_freed_forget(image);
    qcow2_cache_drop(image->l2);
    qcow2_ahead_drop(image);
    qcow2_cache_drop(image->refcounts);
    qcow2_compressed_forget(image);
}

void qcow2_caches_free(struct qcow2_image *image)
{
    if (image->refcounts)
        qcow2_alloc_reset(image);
    qcow2_cache_free(TAKE(image->l2));
    qcow2_ahead_drop(image);
    qcow2_cache_free(TAKE(image->refcounts));
    qcow2_compressed_forget(image);
}

void qcow2_retire(struct qcow2_image *image, void *table)
{
    if (!image->retired)
        image->retired = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(image->retired, table);
}

/* --- children --- */

/* The name of an external data file in the header is a plain path, from the folder of the image. */
static char *data_file_path(struct node *node, const char *name, struct error **err)
{
    g_autofree char *base = NULL, *folder = NULL;

    if (g_path_is_absolute(name))
        return g_strdup(name);
    base = node_base_filename(node);
    if (!base) {
        error_set(err, "The name '%s' of the data file is relative, and the image itself has no name", name);
        return NULL;
    }
    if (!strchr(base, '/'))
        return g_strdup(name);
    folder = g_path_get_dirname(base);
    return g_build_filename(folder, name, NULL);
}

static struct edge *CO_FN co_data_file_by_name(struct qcow2_image *image, struct error **err)
{
    struct blockdev_options *definition;
    struct blockdev_ref ref = {.kind = BLOCKDEV_REF_KIND_DEFINITION};
    g_autofree char *path = NULL;
    struct edge *edge;

    if (!image->header->data_file) {
        error_set(err, "'data-file' is required for this image: it has an external data file and does not name it");
        return NULL;
    }
    path = data_file_path(image->node, image->header->data_file, err);
    if (!path)
        return NULL;
    definition = g_new0(struct blockdev_options, 1);
    definition->driver = BLOCKDEV_DRIVER_FILE;
    definition->u.file.filename = TAKE(path);
    ref.u.definition = definition;
    edge = co_node_add_child(image->node, "data-file", &ref, EDGE_DATA, err);
    blockdev_options_free(definition);
    return edge;
}

static bool CO_FN co_open_data_file(struct qcow2_image *image, const struct blockdev_options_qcow2 *own,
                                    struct error **err)
{
    image->data = image->file;
    if (!image->has_data_file) {
        if (own->data_file)
            return error_set(err, "'data-file' can only be set for images with an external data file");
        return true;
    }
    /* Who asks for metadata opens nothing that the image names. */
    if (!own->data_file && node_metadata_only(image->node)) {
        image->no_io = true;
        return true;
    }
    if (own->data_file)
        image->data = co_node_add_child(image->node, "data-file", own->data_file, EDGE_DATA, err);
    else
        image->data = co_data_file_by_name(image, err);
    if (!image->data)
        return error_prefix(err, "Could not open external data file: ");
    return true;
}

static bool CO_FN co_open_backing(struct qcow2_image *image, const struct blockdev_ref_or_null *given,
                                  struct error **err)
{
    struct blockdev_ref ref = {.kind = BLOCKDEV_REF_KIND_REFERENCE};

    if (!given) {
        if (!image->header->backing_file)
            return true;
        return co_node_add_backing(image->node, image->header->backing_file, image->header->backing_format, err);
    }
    switch (given->kind) {
    case BLOCKDEV_REF_OR_NULL_KIND_REFERENCE:
        /* An empty name is an old way to say "none". */
        if (!*given->u.reference)
            return true;
        ref.u.reference = given->u.reference;
        break;
    case BLOCKDEV_REF_OR_NULL_KIND_DEFINITION:
        ref.kind = BLOCKDEV_REF_KIND_DEFINITION;
        ref.u.definition = given->u.definition;
        break;
    default:
        return true;
    }
    return co_node_add_child(image->node, "backing", &ref, EDGE_COW, err);
}

/* --- the image as the last user left it --- */

/* Makes reference counts anew after a crash with lazy ones. The tables are not loaded yet. */
static bool CO_FN co_recover(struct qcow2_image *image, struct error **err)
{
    struct qcow2_check_result result;
    struct qcow2_header *header;

    if (!(image->header->incompatible_features & QCOW2_DIRTY) || !image->writable)
        return true;
    if (!co_qcow2_check(image->file, IMAGE_REPAIR_ERRORS | IMAGE_REPAIR_LEAKS, NULL, &result, err))
        return error_prefix(err, "Could not repair dirty image: ");
    if (result.corruptions || result.check_errors)
        return error_set(err,
                         "Could not repair dirty image: %" PRIu64 " corruptions and %" PRIu64
                         " places that could not be checked are left",
                         result.corruptions, result.check_errors);
    header = co_qcow2_header_load(image->file, err);
    if (!header)
        return false;
    qcow2_header_free(image->header);
    image->header = header;
    if (header->incompatible_features & QCOW2_DIRTY)
        return co_qcow2_mark_clean(image) ? error_set(err, "Could not clear the dirty bit of the image") : true;
    return true;
}

/* What we do not know how to keep consistent must not be believed by the next one to open the image. */
bool CO_FN co_qcow2_clear_autoclear(struct qcow2_image *image, struct error **err)
{
    uint64_t known = QCOW2_AUTOCLEAR_KNOWN & ~(image->bitmaps ? 0 : (uint64_t)QCOW2_BITMAPS_CONSISTENT);
    int ret;

    if (!image->writable || !(image->header->autoclear_features & ~known))
        return true;
    image->header->autoclear_features &= known;
    ret = co_qcow2_header_update_fields(image, true);
    return ret ? error_set_errno(err, ret, "Could not clear the autoclear features of the image") : true;
}

static bool check_header(struct qcow2_image *image, struct error **err)
{
    const struct qcow2_header *header = image->header;

    image->was_corrupt = header->incompatible_features & QCOW2_CORRUPT;
    if (image->was_corrupt && image->writable)
        return error_set(err, "qcow2: Image is corrupt; cannot be opened read/write");
    if (image->data_file_raw && header->backing_file)
        return error_set(err,
                         "The image has a raw external data file, which cannot have a backing file, and names "
                         "one: '%s'",
                         header->backing_file);
    return true;
}

static void set_geometry(struct qcow2_image *image)
{
    const struct qcow2_header *header = image->header;

    image->cluster_bits = header->cluster_bits;
    image->cluster_size = qcow2_cluster_size(header);
    image->l2_bits = qcow2_l2_bits(header);
    image->l2_entry_bits = qcow2_has_subclusters(header) ? 4 : 3;
    image->subclusters = qcow2_has_subclusters(header) ? QCOW2_SUBCLUSTERS : 1;
    image->subcluster_bits = image->cluster_bits - (image->subclusters > 1 ? 5 : 0);
    image->refcount_block_bits = qcow2_refcount_block_bits(header);
    image->refcount_max = UINT64_MAX >> (64 - (1u << header->refcount_order));
    image->has_zero_flag = header->version >= 3;
    image->has_data_file = header->incompatible_features & QCOW2_DATA_FILE;
    image->data_file_raw = image->has_data_file && header->autoclear_features & QCOW2_DATA_FILE_RAW;
}

/* --- trimming the caches --- */

static void CO_FN co_clean_caches(void *opaque)
{
    struct qcow2_image *image = opaque;
    int64_t interval_ns = image->settings.clean_interval_seconds * NS_PER_S;

    while (!co_sleep_ns(interval_ns)) {
        qcow2_cache_trim(image->l2);
        qcow2_cache_trim(image->refcounts);
    }
}

void qcow2_cleaner_start(struct qcow2_image *image)
{
    if (image->settings.clean_interval_seconds)
        image->cleaner = co_task_start(loop_current(), co_clean_caches, image);
}

void CO_FN co_qcow2_cleaner_stop(struct qcow2_image *image)
{
    if (image->cleaner) {
        co_task_cancel(image->cleaner);
        co_task_join(TAKE(image->cleaner));
    }
}

/* --- open and close --- */

/*
 * Where much of the file with the data is holes (clusters that were allocated beforehand, data files), asking it finds
 * zeroes that the tables don't tell of; elsewhere that would only take time.
 */
static bool CO_FN co_data_is_sparse(struct qcow2_image *image)
{
    uint64_t length = node_length(edge_child(image->data));
    int64_t used = co_edge_allocated_size(image->data);

    return used >= 0 && (uint64_t)used < length - length / 10;
}

static void image_release(struct qcow2_image *image)
{
    qcow2_caches_free(image);
    qcow2_overlap_done(&image->overlap);
    qcow2_snapshots_free(image);
    qcow2_bitmaps_free(image);
    block_crypt_free(TAKE(image->crypt));
    g_free(TAKE(image->l1));
    g_free(TAKE(image->refcount_table));
    g_free(TAKE(image->dropped.items));
    g_free(TAKE(image->durable.items));
    g_free(TAKE(image->resting.items));
    if (image->retired)
        g_ptr_array_free(TAKE(image->retired), true);
    qcow2_header_free(TAKE(image->header));
}

static bool CO_FN co_open_parts(struct qcow2_image *image, const struct blockdev_options_qcow2 *own, struct error **err)
{
    struct qcow2_caches caches;
    int ret;

    image->header = co_qcow2_header_load(image->file, err);
    if (!image->header)
        return false;
    set_geometry(image);
    if (!check_header(image, err))
        return false;
    if (!co_qcow2_crypt_open(image, own->encrypt, err) ||
        !qcow2_settings_parse(own, image->header, node_discard_unmap(image->node), &image->settings, err))
        return false;
    /* What may fail without a trace comes before what may change the file. */
    if (!co_open_data_file(image, own, err) || !co_open_backing(image, own->backing, err) || !co_recover(image, err) ||
        !co_load_tables(image, err) || !co_qcow2_snapshots_load(image, err) ||
        !qcow2_caches_new(image, &image->settings, &caches, err))
        return false;
    qcow2_caches_set(image, &caches);
    image->fresh_from = align_up(node_length(edge_child(image->file)), image->cluster_size);
    ret = co_qcow2_overlap_load(image, image->settings.overlap_mask);
    if (ret)
        return error_set_errno(err, ret, "Could not read what has to be guarded against overwriting");
    image->data_may_be_zero = co_data_is_sparse(image);
    node_set_length(image->node, image->header->size);
    return co_qcow2_bitmaps_load(image, err) && co_qcow2_clear_autoclear(image, err);
}

bool CO_FN co_qcow2_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_qcow2 *own = &options->u.qcow2;
    struct qcow2_image *image = node_state(node);

    image->node = node;
    image->writable = !node_read_only(node);
    image->file = co_node_add_child(node, "file", own->file, EDGE_DATA | EDGE_METADATA | EDGE_PRIMARY, err);
    if (!image->file)
        return false;
    if (!co_open_parts(image, own, err)) {
        image_release(image);
        return false;
    }
    node_set_read_flags(node, IO_REGISTERED);
    /* What is encrypted does not get smaller, and the format has nothing that is both. */
    node_set_flags(node, (image->crypt ? 0 : IO_COMPRESSED) | IO_REGISTERED | IO_UNCHANGED,
                   IO_MAY_UNMAP | IO_NO_FALLBACK | IO_UNCHANGED);
    qcow2_cleaner_start(image);
    return true;
}

/* Nothing new goes into an image that is known to be damaged, or may be; its bitmaps stay marked as in use. */
static void CO_FN co_store_bitmaps(struct qcow2_image *image)
{
    AUTO(error) err = NULL;

    if (!image->writable || image->keep_dirty || image->header->incompatible_features & QCOW2_CORRUPT)
        return;
    if (!co_qcow2_bitmaps_store(image, &err))
        log_warning("Node '%s': lost its persistent bitmaps: %s", node_name(image->node), error_message(err));
}

void CO_FN co_qcow2_close(struct node *node)
{
    struct qcow2_image *image = node_state(node);
    int ret = 0;

    co_qcow2_cleaner_stop(image);
    co_store_bitmaps(image);
    if (image->writable)
        ret = co_qcow2_settle(image);
    if (!ret && image->writable && image->metadata_dirty)
        ret = co_qcow2_mark_clean(image);
    if (ret)
        log_warning("Node '%s': what its caches hold could not be written: %s", node_name(node), g_strerror(-ret));
    image_release(image);
}
