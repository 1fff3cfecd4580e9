/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options of a qcow2 node. The caches: `l2-cache-size` and `refcount-cache-size` in bytes, or `cache-size` for both,
 * which goes to L2 tables as far as the disk has them. Without any, as much for L2 tables as the whole disk needs, up
 * to 32 MiB, and four refcount blocks.
 *
 * L2 tables are cached in slices of 4 KiB unless `l2-cache-entry-size` says otherwise: on a disk that is larger than
 * the cache bears, a miss then costs a page and pushes out a page, rather than a cluster each.
 */
#include "driver/format/qcow2/options.h"

#include <inttypes.h>

#include "base/checked.h"
#include "base/error.h"
#include "driver/format/qcow2/qcow2.h"

enum {
    L2_CACHE_BYTES_MAX = 32 << 20, /* by default */
    L2_SLICE_BYTES = 4096,         /* by default */
    L2_SLICE_BYTES_MIN = 512,
    REFCOUNT_CACHE_TABLES = 4, /* by default */
    CLEAN_INTERVAL_SECONDS = 600,
    SPARE_BYTES = 1 << 20,
};

static bool get_size(const char *name, bool has, int64_t value, uint64_t *ret, struct error **err)
{
    if (has && value < 0)
        return error_set(err, "Parameter '%s' expects a non-negative number below 2^63: it is %" PRId64, name, value);
    *ret = has ? (uint64_t)value : 0;
    return true;
}

/* Bytes of all L2 tables that a disk of that size has when it is full. */
static uint64_t l2_bytes_of_disk(const struct qcow2_header *header)
{
    uint64_t cluster_size = qcow2_cluster_size(header);
    uint64_t clusters = (header->size >> header->cluster_bits) + !is_aligned(header->size, cluster_size);
    uint64_t entries = align_up(clusters, UINT64_C(1) << qcow2_l2_bits(header));

    return entries * qcow2_l2_entry_bytes(header);
}

static bool parse_caches(const struct blockdev_options_qcow2 *options, const struct qcow2_header *header,
                         struct qcow2_settings *ret, struct error **err)
{
    uint64_t refcounts_default = REFCOUNT_CACHE_TABLES * qcow2_cluster_size(header);
    uint64_t l2_full = l2_bytes_of_disk(header);
    uint64_t both = 0, l2 = 0, refcounts = 0;

    if (!get_size("cache-size", options->has_cache_size, options->cache_size, &both, err) ||
        !get_size("l2-cache-size", options->has_l2_cache_size, options->l2_cache_size, &l2, err) ||
        !get_size("refcount-cache-size", options->has_refcount_cache_size, options->refcount_cache_size, &refcounts,
                  err))
        return false;
    if (options->has_cache_size && options->has_l2_cache_size && options->has_refcount_cache_size)
        return error_set(err, "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
    if (options->has_cache_size && l2 > both)
        return error_set(err, "l2-cache-size may not exceed cache-size: %" PRIu64 " and %" PRIu64 " bytes", l2, both);
    if (options->has_cache_size && refcounts > both)
        return error_set(err, "refcount-cache-size may not exceed cache-size: %" PRIu64 " and %" PRIu64 " bytes",
                         refcounts, both);

    if (options->has_cache_size && options->has_l2_cache_size)
        refcounts = both - l2;
    else if (options->has_cache_size && options->has_refcount_cache_size)
        l2 = both - refcounts;
    else if (options->has_cache_size)
        l2 = MIN(l2_full, both > refcounts_default ? both - refcounts_default : 0), refcounts = both - l2;
    else if (!options->has_l2_cache_size)
        l2 = L2_CACHE_BYTES_MAX;
    if (!options->has_cache_size && !options->has_refcount_cache_size)
        refcounts = refcounts_default;
    /*
     * Where all tables of the disk fit, they are the bound, and places cost next to nothing while they are empty: with
     * some to spare in each shard, no table pushes out another.
     */
    ret->l2_cache_bytes =
        options->has_cache_size || options->has_l2_cache_size ? MIN(l2, 2 * l2_full + SPARE_BYTES) : l2;
    ret->refcount_cache_bytes = refcounts;
    return true;
}

static bool parse_slice(const struct blockdev_options_qcow2 *options, const struct qcow2_header *header,
                        struct qcow2_settings *ret, struct error **err)
{
    uint64_t cluster_size = qcow2_cluster_size(header);
    int64_t size = options->has_l2_cache_entry_size ? options->l2_cache_entry_size : L2_SLICE_BYTES;

    if (!options->has_l2_cache_entry_size)
        size = MIN(size, (int64_t)cluster_size);
    if (size < L2_SLICE_BYTES_MIN || (uint64_t)size > cluster_size || !is_power_of_two((uint64_t)size))
        return error_set(err,
                         "L2 cache entry size must be a power of two between %d and the cluster size (%" PRIu64
                         "): it is %" PRId64,
                         L2_SLICE_BYTES_MIN, cluster_size, size);
    ret->l2_slice_bytes = (uint32_t)size;
    return true;
}

bool qcow2_settings_parse(const struct blockdev_options_qcow2 *options, const struct qcow2_header *header,
                          bool discard_unmap, struct qcow2_settings *ret_settings, struct error **err)
{
    struct qcow2_settings settings = {
        .lazy_refcounts =
            options->has_lazy_refcounts ? options->lazy_refcounts : header->compatible_features & QCOW2_LAZY_REFCOUNTS,
        .discard_no_unref = options->has_discard_no_unref && options->discard_no_unref,
        .overlap_mask = qcow2_overlap_mask(options->overlap_check),
        .clean_interval_seconds = CLEAN_INTERVAL_SECONDS,
    };

    settings.pass_discard[QCOW2_FREE_REQUEST] =
        options->has_pass_discard_request ? options->pass_discard_request : discard_unmap;
    settings.pass_discard[QCOW2_FREE_SNAPSHOT] =
        options->has_pass_discard_snapshot ? options->pass_discard_snapshot : true;
    settings.pass_discard[QCOW2_FREE_OTHER] = options->has_pass_discard_other && options->pass_discard_other;
    if (settings.lazy_refcounts && header->version < 3)
        return error_set(err, "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level: it "
                              "is of version 2");
    if (options->has_cache_clean_interval) {
        if (options->cache_clean_interval < 0 || options->cache_clean_interval > UINT32_MAX)
            return error_set(err, "Cache clean interval too big: %" PRId64 " is not from 0 to %" PRIu32 " seconds",
                             options->cache_clean_interval, UINT32_MAX);
        settings.clean_interval_seconds = (uint32_t)options->cache_clean_interval;
    }
    if (settings.discard_no_unref && header->version < 3)
        return error_set(err, "discard-no-unref is only supported since qcow2 version 3: the image is of version 2");
    if (!parse_caches(options, header, &settings, err) || !parse_slice(options, header, &settings, err))
        return false;
    *ret_settings = settings;
    return true;
}
