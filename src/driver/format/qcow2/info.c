/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image's own facts, and the name of its backing image. What lies damaged in the file is left out, not reported. */
#include "driver/format/qcow2/info.h"

#include <string.h>

#include "base/error.h"
#include "crypto/luks-header.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/qcow2.h"

/* --- encryption --- */

/* The LUKS header's facts; NULL: it cannot be read. */
static struct q_crypto_block_info_luks *CO_FN co_describe_luks(const struct qcow2_image *image)
{
    uint8_t bytes[LUKS_HEADER_BYTES];
    struct luks_header header;

    if (!qcow2_header_check_crypto(image->header, UINT64_MAX, NULL) ||
        co_edge_pread(image->file, image->header->crypto_offset, sizeof(bytes), bytes, 0) ||
        !luks_header_parse(bytes, false, &header, NULL))
        return NULL;
    return luks_header_describe(&header, false);
}

static struct image_info_specific_q_cow2_encryption *CO_FN co_describe_encryption(const struct qcow2_image *image)
{
    struct image_info_specific_q_cow2_encryption *info;
    struct q_crypto_block_info_luks *luks;

    if (image->header->crypt_method == QCOW2_CRYPT_NONE)
        return NULL;
    info = g_new0(struct image_info_specific_q_cow2_encryption, 1);
    if (image->header->crypt_method == QCOW2_CRYPT_AES) {
        info->format = BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_AES;
        return info;
    }
    info->format = BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_LUKS;
    luks = co_describe_luks(image);
    if (!luks) {
        g_free(info);
        return NULL;
    }
    info->u.luks = *luks;
    g_free(luks);
    return info;
}

/* --- all of it --- */

/* What version 3 has beside what both have. */
static void describe_features(const struct qcow2_header *header, struct image_info_specific_q_cow2 *info)
{
    info->has_lazy_refcounts = info->has_corrupt = info->has_extended_l2 = true;
    info->lazy_refcounts = header->compatible_features & QCOW2_LAZY_REFCOUNTS;
    info->corrupt = header->incompatible_features & QCOW2_CORRUPT;
    info->extended_l2 = qcow2_has_subclusters(header);
    if (!(header->incompatible_features & QCOW2_DATA_FILE))
        return;
    info->data_file = g_strdup(header->data_file);
    info->has_data_file_raw = true;
    info->data_file_raw = header->autoclear_features & QCOW2_DATA_FILE_RAW;
}

struct image_info_specific *CO_FN qcow2_co_get_specific_info(struct node *node)
{
    const struct qcow2_image *image = qcow2_image_of(node);
    const struct qcow2_header *header = image->header;
    struct image_info_specific *specific = g_new0(struct image_info_specific, 1);
    struct image_info_specific_q_cow2 *info = g_new0(struct image_info_specific_q_cow2, 1);

    specific->type = IMAGE_INFO_SPECIFIC_KIND_QCOW2;
    specific->u.qcow2.data = info;
    info->compat = g_strdup(header->version == 2 ? "0.10" : "1.1");
    info->refcount_bits = INT64_C(1) << header->refcount_order;
    info->compression_type =
        header->compression_type == QCOW2_COMPRESSION_ZSTD ? QCOW2_COMPRESSION_TYPE_ZSTD : QCOW2_COMPRESSION_TYPE_ZLIB;
    if (header->version >= 3)
        describe_features(header, info);
    info->encrypt = co_describe_encryption(image);
    info->bitmaps = qcow2_bitmaps_describe(image);
    return specific;
}

/* --- the backing image's name --- */

char *qcow2_backing_file(const struct node *node)
{
    return g_strdup(qcow2_image_of(node)->header->backing_file);
}

char *qcow2_backing_format(const struct node *node)
{
    return g_strdup(qcow2_image_of(node)->header->backing_format);
}

static bool check_backing_names(const struct qcow2_header *header, const char *file, const char *format,
                                struct error **err)
{
    if (file && strlen(file) > QCOW2_BACKING_FILE_BYTES_MAX)
        return error_set(err, "Backing file name too long: it has %zu bytes, at most %d", strlen(file),
                         QCOW2_BACKING_FILE_BYTES_MAX);
    if (format && strlen(format) > QCOW2_BACKING_FORMAT_BYTES_MAX)
        return error_set(err, "Backing format '%s' too long: it has %zu bytes, at most %d", format, strlen(format),
                         QCOW2_BACKING_FORMAT_BYTES_MAX);
    if (file && header->autoclear_features & QCOW2_DATA_FILE_RAW)
        return error_set(err, "Cannot set a backing file for an image with a raw external data file");
    return true;
}

bool CO_FN qcow2_co_change_backing_file(struct node *node, const char *file, const char *format, struct error **err)
{
    struct qcow2_image *image = qcow2_image_of(node);
    struct qcow2_header *header = image->header;
    g_autofree char *old_file = NULL;
    g_autofree char *old_format = NULL;

    if (!image->writable)
        return error_set(err, "Image is read-only: node '%s'", node_name(node));
    file = file && *file ? file : NULL;
    format = file && format && *format ? format : NULL;
    if (!check_backing_names(header, file, format, err))
        return false;
    old_file = TAKE(header->backing_file);
    old_format = TAKE(header->backing_format);
    header->backing_file = g_strdup(file);
    header->backing_format = g_strdup(format);
    if (!co_qcow2_header_update(image, true, err))
        return true;
    g_free(header->backing_file);
    g_free(header->backing_format);
    header->backing_file = TAKE(old_file);
    header->backing_format = TAKE(old_format);
    return false;
}
