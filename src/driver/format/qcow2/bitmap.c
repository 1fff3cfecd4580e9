/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/qcow2/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "driver/format/qcow2/bitmap-internal.h"

void qcow2_bitmaps_free(struct qcow2_image *image)
{
    struct qcow2_bitmaps *bitmaps = TAKE(image->bitmaps);

    if (!bitmaps)
        return;
    co_mutex_done(&bitmaps->lock);
    qcow2_bitmap_directory_free(bitmaps->directory);
    g_free(bitmaps);
}

/* --- writable or not --- */

static void set_read_only(const struct qcow2_image *image, bool read_only)
{
    struct dirty_bitmap *bitmap = NULL;

    while ((bitmap = dirty_bitmap_next(image->node, bitmap))) {
        if (dirty_bitmap_persistent(bitmap))
            dirty_bitmap_set_read_only(bitmap, read_only);
    }
}

bool CO_FN co_qcow2_bitmaps_begin_writing(struct qcow2_image *image, struct error **err)
{
    struct qcow2_bitmaps *bitmaps = image->bitmaps;
    bool changed = false;
    int ret;

    for (unsigned i = 0; i < bitmaps->directory->entries->len; i++) {
        struct qcow2_bitmap_entry *entry = g_ptr_array_index(bitmaps->directory->entries, i);

        if (entry->problem || entry->flags & QCOW2_BITMAP_IN_USE)
            continue;
        entry->flags |= QCOW2_BITMAP_IN_USE;
        changed = true;
    }
    ret = changed ? co_qcow2_bitmap_flags_write(image) : 0;
    if (ret)
        return error_set_errno(err, ret, "Could not mark the bitmaps of the image as in use");
    set_read_only(image, false);
    return true;
}

bool CO_FN co_qcow2_bitmaps_end_writing(struct qcow2_image *image, struct error **err)
{
    if (!co_qcow2_bitmaps_store(image, err))
        return false;
    set_read_only(image, true);
    return true;
}

bool qcow2_bitmaps_can_resize(const struct qcow2_image *image, uint64_t length, struct error **err)
{
    struct dirty_bitmap *bitmap = NULL;

    while ((bitmap = dirty_bitmap_next(image->node, bitmap))) {
        unsigned granularity_bits = (unsigned)__builtin_ctz(dirty_bitmap_granularity(bitmap));

        if (!dirty_bitmap_persistent(bitmap))
            continue;
        if (dirty_bitmap_inconsistent(bitmap))
            return error_set(err, "Bitmap '%s' is inconsistent and cannot be used", dirty_bitmap_name(bitmap));
        if (qcow2_bitmap_data_bytes(length, granularity_bits) > QCOW2_BITMAP_BYTES_MAX)
            return error_set(err, "Bitmap '%s' is too fine for a disk of %" PRIu64 " bytes: it would have more than %d",
                             dirty_bitmap_name(bitmap), length, QCOW2_BITMAP_BYTES_MAX);
    }
    return true;
}

/* --- what there is --- */

static struct qcow2_bitmap_info_flags_array *describe_flags(uint32_t flags)
{
    struct qcow2_bitmap_info_flags_array *array = g_new0(struct qcow2_bitmap_info_flags_array, 1);

    array->items = g_new0(enum qcow2_bitmap_info_flags, 2);
    if (flags & QCOW2_BITMAP_IN_USE)
        array->items[array->count++] = QCOW2_BITMAP_INFO_FLAGS_IN_USE;
    if (flags & QCOW2_BITMAP_AUTO)
        array->items[array->count++] = QCOW2_BITMAP_INFO_FLAGS_AUTO;
    return array;
}

struct qcow2_bitmap_info_array *qcow2_bitmaps_describe(const struct qcow2_image *image)
{
    const GPtrArray *entries = image->bitmaps ? image->bitmaps->directory->entries : NULL;
    struct qcow2_bitmap_info_array *array;

    if (!entries || !entries->len)
        return NULL;
    array = g_new0(struct qcow2_bitmap_info_array, 1);
    array->items = g_new0(struct qcow2_bitmap_info *, entries->len);
    for (unsigned i = 0; i < entries->len; i++) {
        const struct qcow2_bitmap_entry *entry = g_ptr_array_index(entries, i);
        struct qcow2_bitmap_info *info = g_new0(struct qcow2_bitmap_info, 1);

        info->name = g_strdup(entry->name);
        info->granularity = entry->granularity_bits <= QCOW2_BITMAP_GRANULARITY_BITS_MAX
                                ? UINT32_C(1) << entry->granularity_bits
                                : UINT32_MAX;
        info->flags = describe_flags(entry->flags);
        array->items[array->count++] = info;
    }
    return array;
}

/* --- for the users of the node --- */

/* What the directory will be like with all that is to be stored. */
static void add_up(const struct qcow2_image *image, uint64_t *ret_count, uint64_t *ret_bytes)
{
    struct dirty_bitmap *bitmap = NULL;

    *ret_count = image->bitmaps->directory->entries->len;
    *ret_bytes = qcow2_bitmap_directory_bytes(image->bitmaps->directory);
    while ((bitmap = dirty_bitmap_next(image->node, bitmap))) {
        const char *name = dirty_bitmap_name(bitmap);

        if (!dirty_bitmap_persistent(bitmap) || qcow2_bitmap_directory_find(image->bitmaps->directory, name))
            continue;
        *ret_count += 1;
        *ret_bytes += 32 + strlen(name);
    }
}

static bool CO_FN co_can_store(struct node *node, const char *name, uint32_t granularity, struct error **err)
{
    const struct qcow2_image *image = qcow2_image_of(node);
    unsigned granularity_bits = (unsigned)__builtin_ctz(granularity);
    uint64_t count, bytes;

    if (!image->writable)
        return error_set(err, "The image is open for reading only");
    if (image->header->version < 3)
        return error_set(err, "Cannot store dirty bitmaps in qcow2 v2 files");
    if (strlen(name) > QCOW2_BITMAP_NAME_MAX)
        return error_set(err, "Name length exceeds maximum (%d characters)", QCOW2_BITMAP_NAME_MAX);
    if (granularity_bits < QCOW2_BITMAP_GRANULARITY_BITS_MIN || granularity_bits > QCOW2_BITMAP_GRANULARITY_BITS_MAX)
        return error_set(err, "Granularity %" PRIu32 " is not one of 512 bytes to 2 GiB", granularity);
    if (qcow2_bitmap_data_bytes(node_length(node), granularity_bits) > QCOW2_BITMAP_BYTES_MAX)
        return error_set(err, "Too much space will be occupied by the bitmap. Use larger granularity");
    if (qcow2_bitmap_directory_find(image->bitmaps->directory, name))
        return error_set(err, "The image has a bitmap of that name already");
    add_up(image, &count, &bytes);
    if (count >= QCOW2_BITMAPS_MAX)
        return error_set(err, "Maximum number of persistent bitmaps is already reached: %d", QCOW2_BITMAPS_MAX);
    if (bytes + 32 + strlen(name) > QCOW2_BITMAP_DIRECTORY_BYTES_MAX)
        return error_set(err, "Not enough space in the bitmap directory");
    return true;
}

/* The directory without the bitmaps of that name; NULL: there is none. */
static struct qcow2_bitmap_directory *directory_without(const struct qcow2_image *image, const char *name)
{
    const GPtrArray *entries = image->bitmaps->directory->entries;
    AUTO(qcow2_bitmap_directory) rest = qcow2_bitmap_directory_new();

    for (unsigned i = 0; i < entries->len; i++) {
        const struct qcow2_bitmap_entry *entry = g_ptr_array_index(entries, i);

        if (strcmp(entry->name, name))
            g_ptr_array_add(rest->entries, qcow2_bitmap_entry_copy(entry));
    }
    return rest->entries->len < entries->len ? TAKE(rest) : NULL;
}

static bool CO_FN co_remove_locked(struct qcow2_image *image, const char *name, struct error **err)
{
    struct qcow2_bitmap_directory *rest = directory_without(image, name);
    struct qcow2_bitmap_entry *entry;
    bool ok;

    if (!rest)
        return true;
    entry = qcow2_bitmap_entry_copy(qcow2_bitmap_directory_find(image->bitmaps->directory, name));
    ok = co_qcow2_bitmap_directory_switch(image, rest, err);
    if (ok)
        co_qcow2_bitmap_clusters_free(image, entry);
    qcow2_bitmap_entry_free(entry);
    return ok ? true : error_prefix(err, "Failed to remove bitmap '%s': ", name);
}

static bool CO_FN co_remove(struct node *node, const char *name, struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    bool ok;

    if (!image->writable)
        return error_set(err, "Bitmap '%s' cannot be removed: the image is open for reading only", name);
    co_mutex_lock(&image->bitmaps->lock);
    ok = co_remove_locked(image, name, err);
    co_mutex_unlock(&image->bitmaps->lock);
    return ok;
}

const struct block_driver_bitmaps qcow2_bitmap_ops = {
    .co_can_store = co_can_store,
    .co_remove = co_remove,
};
