/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which combinations of options make an image, and what users are told about the others. */
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "driver/format/qcow2/compress.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/header.h"

enum { CLUSTER_SIZE_DEFAULT = 65536, REFCOUNT_BITS_DEFAULT = 16, SECTOR = 512 };

static bool check_numbers(const struct blockdev_create_options_qcow2 *options, struct qcow2_create_request *ret,
                          struct error **err)
{
    uint64_t cluster_size = options->has_cluster_size ? options->cluster_size : CLUSTER_SIZE_DEFAULT;
    int64_t refcount_bits = options->has_refcount_bits ? options->refcount_bits : REFCOUNT_BITS_DEFAULT;

    if (options->size % SECTOR)
        return error_set(err, "Image size must be a multiple of %d bytes: it is %" PRIu64, SECTOR, options->size);
    if (!is_power_of_two(cluster_size) || cluster_size < 1u << QCOW2_CLUSTER_BITS_MIN ||
        cluster_size > QCOW2_CLUSTER_SIZE_MAX)
        return error_set(err, "Cluster size must be a power of two between %d and %dk: it is %" PRIu64,
                         1 << QCOW2_CLUSTER_BITS_MIN, QCOW2_CLUSTER_SIZE_MAX / 1024, cluster_size);
    if (refcount_bits < 1 || refcount_bits > 64 || !is_power_of_two((uint64_t)refcount_bits))
        return error_set(err, "Refcount width must be a power of two and may not exceed 64 bits: it is %" PRId64,
                         refcount_bits);
    ret->cluster_bits = (unsigned)__builtin_ctzll(cluster_size);
    ret->refcount_order = (unsigned)__builtin_ctzll((uint64_t)refcount_bits);
    return true;
}

static bool needs_version_3(const char *what, struct error **err)
{
    return error_set(err, "%s (use version=v3 or greater)", what);
}

/* What version 2 does not have. */
static bool check_version(const struct blockdev_create_options_qcow2 *options,
                          const struct qcow2_create_request *request, struct error **err)
{
    if (request->version >= 3)
        return true;
    if (options->has_lazy_refcounts && options->lazy_refcounts)
        return needs_version_3("Lazy refcounts only supported with compatibility level 1.1 and above", err);
    if (request->refcount_order != QCOW2_REFCOUNT_ORDER_V2)
        return needs_version_3("Different refcount widths than 16 bits require compatibility level 1.1 or above", err);
    if (request->data_file)
        return needs_version_3("External data files are only supported with compatibility level 1.1 and above", err);
    if (request->subclusters)
        return needs_version_3("Extended L2 entries are only supported with compatibility level 1.1 and above", err);
    if (request->compression_type != QCOW2_COMPRESSION_TYPE_ZLIB)
        return needs_version_3("Non-zlib compression type is only supported with compatibility level 1.1 and above",
                               err);
    return true;
}

static bool check_backing(const struct blockdev_create_options_qcow2 *options,
                          const struct qcow2_create_request *request, struct error **err)
{
    if (!options->backing_file) {
        if (options->has_backing_fmt)
            return error_set(err, "Backing format cannot be used without backing file");
        return true;
    }
    if (request->preallocation != PREALLOC_MODE_OFF && !request->subclusters)
        return error_set(err, "Backing file and preallocation can only be used at the same time if extended_l2 is on");
    if (request->data_file_raw)
        return error_set(err, "Backing file and data-file-raw cannot be used at the same time");
    if (strlen(options->backing_file) > QCOW2_BACKING_FILE_BYTES_MAX)
        return error_set(err, "Backing file name too long: it has %zu bytes, at most %d", strlen(options->backing_file),
                         QCOW2_BACKING_FILE_BYTES_MAX);
    return true;
}

bool qcow2_create_request_check(const struct blockdev_create_options_qcow2 *options, struct qcow2_create_request *ret,
                                struct error **err)
{
    struct qcow2_create_request request = {
        .version = options->has_version && options->version == BLOCKDEV_QCOW2_VERSION_V2 ? 2 : 3,
        .subclusters = options->has_extended_l2 && options->extended_l2,
        .data_file = options->data_file != NULL,
        .data_file_raw = options->has_data_file_raw && options->data_file_raw,
        .preallocation = options->has_preallocation ? options->preallocation : PREALLOC_MODE_OFF,
        .compression_type = options->has_compression_type ? options->compression_type : QCOW2_COMPRESSION_TYPE_ZLIB,
    };

    if (!check_numbers(options, &request, err) || !check_version(options, &request, err))
        return false;
    if (request.data_file_raw && !request.data_file)
        return error_set(err, "data-file-raw requires data-file");
    if (request.subclusters && request.cluster_bits < QCOW2_CLUSTER_BITS_SUBCLUSTERS_MIN)
        return error_set(err, "Extended L2 entries are only supported with cluster sizes of at least %d bytes",
                         1 << QCOW2_CLUSTER_BITS_SUBCLUSTERS_MIN);
    if (!check_backing(options, &request, err))
        return false;
    if (request.compression_type == QCOW2_COMPRESSION_TYPE_ZSTD &&
        !qcow2_compression_available(QCOW2_COMPRESSION_ZSTD, err))
        return false;
    /* Without a mapping nobody would read what is in the data file. */
    if (request.data_file_raw && request.preallocation == PREALLOC_MODE_OFF)
        request.preallocation = PREALLOC_MODE_METADATA;
    *ret = request;
    return true;
}
