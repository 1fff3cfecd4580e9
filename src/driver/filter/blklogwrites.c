/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blklogwrites: passes requests on, and records all changes in a log that tools can play back step by step: that of the
 * kernel's dm-log-writes target, version 1. Options:
 *  - file: the node whose data it shows;
 *  - log: the node that the record goes to; it grows;
 *  - log-sector-size: unit of the record, bytes, a power of two (default 512); also the alignment of requests;
 *  - log-append: go on with the record that is there, by its own unit (default false);
 *  - log-super-update-interval: entries after which the header is brought up to date (default 4096).
 *
 * On disk, all little-endian: a header in the first sector (magic, version, number of entries, sector size), then the
 * entries, each a sector that says where and how much was written, and the data after it.
 *
 * Keeps: (1) entries are in the order in which their requests ended well, one after the other without gaps; (2) the
 * header counts no entry that is not in the log; it is written at the interval, at every flush and in the end.
 */
#include "driver/filter/blklogwrites.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "loop/lock.h"
#include "loop/loop.h"

#define LOG_MAGIC UINT64_C(0x6a736677736872)

enum {
    LOG_VERSION = 1,
    AT_MAGIC = 0, /* of the header */
    AT_VERSION = 8,
    AT_ENTRIES = 16,
    AT_SECTOR_SIZE = 24,
    HEADER_BYTES = 28,
    AT_SECTOR = 0, /* of an entry */
    AT_SECTORS = 8,
    AT_FLAGS = 16,
    AT_DATA_LENGTH = 24,
    ENTRY_BYTES = 32,
    ENTRY_FLUSH = 1, /* its flags */
    ENTRY_FUA = 2,
    ENTRY_DISCARD = 4,
    SECTOR_BYTES_DEFAULT = 512,
    SECTOR_BYTES_MIN = 64,
    SECTOR_BYTES_MAX = 1 << 23,
    INTERVAL_DEFAULT = 4096,
};

struct blklogwrites_node {
    struct edge *file; /* const after open */
    struct edge *log;
    uint32_t sector_bytes;
    uint64_t interval;    /* entries */
    struct co_mutex lock; /* of the rest */
    uint64_t entries;     /* in the log */
    uint64_t next_sector; /* of the log */
    uint64_t saved;       /* entries that the header counts */
    bool failed;          /* the log has a gap: nothing more is recorded */
};

/* --- the log's header --- */

static int CO_FN co_header_write(struct blklogwrites_node *log)
{
    g_autofree uint8_t *sector = g_malloc0(log->sector_bytes);
    int ret;

    assert(log->sector_bytes >= HEADER_BYTES);
    store_le64(sector + AT_MAGIC, LOG_MAGIC);
    store_le64(sector + AT_VERSION, LOG_VERSION);
    store_le64(sector + AT_ENTRIES, log->entries);
    store_le32(sector + AT_SECTOR_SIZE, log->sector_bytes);
    ret = co_edge_pwrite(log->log, 0, log->sector_bytes, sector, 0);
    if (!ret)
        log->saved = log->entries;
    return ret;
}

static bool sector_bytes_valid(uint64_t bytes)
{
    return bytes >= SECTOR_BYTES_MIN && bytes <= SECTOR_BYTES_MAX && is_power_of_two(bytes);
}

static bool parse_header(struct blklogwrites_node *log, const uint8_t *header, struct error **err)
{
    uint64_t magic = load_le64(header + AT_MAGIC), version = load_le64(header + AT_VERSION);
    uint32_t sector_bytes = load_le32(header + AT_SECTOR_SIZE);

    if (magic != LOG_MAGIC)
        return error_set(err, "Invalid log superblock magic: it is %#" PRIx64, magic);
    if (version != LOG_VERSION)
        return error_set(err, "Unsupported log version %" PRIu64, version);
    if (!sector_bytes_valid(sector_bytes))
        return error_set(err, "Invalid log sector size %" PRIu32, sector_bytes);
    log->sector_bytes = sector_bytes;
    log->entries = log->saved = load_le64(header + AT_ENTRIES);
    return true;
}

/* The sectors of data that follow the entry. */
static uint64_t data_sectors(const uint8_t *entry)
{
    return load_le64(entry + AT_FLAGS) & ENTRY_DISCARD ? 0 : load_le64(entry + AT_SECTORS);
}

/* Finds the end of the record that is there. */
static bool CO_FN co_find_end(struct blklogwrites_node *log, struct error **err)
{
    uint64_t sectors = node_length(edge_child(log->log)) / log->sector_bytes;
    uint8_t entry[ENTRY_BYTES];

    log->next_sector = 1;
    for (uint64_t i = 0; i < log->entries; i++) {
        int ret = log->next_sector < sectors
                      ? co_edge_pread(log->log, log->next_sector * log->sector_bytes, sizeof(entry), entry, 0)
                      : -ENODATA;

        if (ret)
            return error_set_errno(err, ret, "Could not read log entry %" PRIu64 " of %" PRIu64 " at sector %" PRIu64,
                                   i, log->entries, log->next_sector);
        if (data_sectors(entry) > sectors - log->next_sector - 1)
            return error_set(err,
                             "Log entry %" PRIu64 " of %" PRIu64 " says that %" PRIu64
                             " sectors of data follow, and the log ends after %" PRIu64,
                             i, log->entries, data_sectors(entry), sectors - log->next_sector - 1);
        log->next_sector += 1 + data_sectors(entry);
    }
    return true;
}

static bool CO_FN co_begin_log(struct blklogwrites_node *log, struct error **err)
{
    struct truncate_request empty = {0};
    int ret;

    log->next_sector = 1;
    /* What an old record has behind the new one's end is no harm; but most logs are files, and stay small. */
    if (node_length(edge_child(log->log)))
        (void)co_edge_truncate(log->log, &empty, NULL);
    ret = co_header_write(log);
    return !ret || error_set_errno(err, ret, "Could not write the log superblock");
}

static bool CO_FN co_open_log(struct blklogwrites_node *log, const struct blockdev_options_blklogwrites *own,
                              struct error **err)
{
    uint8_t header[HEADER_BYTES];
    int ret;

    if (!own->has_log_append || !own->log_append || !node_length(edge_child(log->log)))
        return co_begin_log(log, err);
    ret = co_edge_pread(log->log, 0, sizeof(header), header, 0);
    if (ret)
        return error_set_errno(err, ret, "Could not read log superblock");
    return parse_header(log, header, err) && co_find_end(log, err);
}

/* --- opening and closing --- */

static bool take_options(struct blklogwrites_node *log, const struct blockdev_options_blklogwrites *own,
                         struct error **err)
{
    log->sector_bytes = own->has_log_sector_size ? own->log_sector_size : SECTOR_BYTES_DEFAULT;
    log->interval = own->has_log_super_update_interval ? own->log_super_update_interval : INTERVAL_DEFAULT;
    if (own->has_log_append && own->log_append && own->has_log_sector_size)
        return error_set(err, "log-append and log-sector-size are mutually exclusive");
    if (!sector_bytes_valid(log->sector_bytes))
        return error_set(err, "Invalid log sector size %" PRIu32, log->sector_bytes);
    if (!log->interval)
        return error_set(err, "Invalid log superblock update interval 0");
    return true;
}

static bool CO_FN blklogwrites_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_blklogwrites *own = &options->u.blklogwrites;
    struct blklogwrites_node *log = node_state(node);

    if (!take_options(log, own, err))
        return false;
    log->file = co_node_add_child(node, "file", own->file, EDGE_FILTERED | EDGE_PRIMARY, err);
    if (!log->file)
        return false;
    log->log = co_node_add_child(node, "log", own->log, EDGE_METADATA, err);
    if (!log->log || (!node_read_only(node) && !co_open_log(log, own, err)))
        return false;
    node_set_flags(node, IO_FUA | IO_UNCHANGED, IO_FUA | IO_MAY_UNMAP | IO_UNCHANGED);
    return true;
}

static void CO_FN blklogwrites_co_close(struct node *node)
{
    struct blklogwrites_node *log = node_state(node);

    if (log->saved != log->entries)
        (void)co_header_write(log);
    co_mutex_done(&log->lock);
}

static bool CO_FN blklogwrites_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct blklogwrites_node *log = node_state(node);

    limits->request_alignment = MAX(limits->request_alignment, log->sector_bytes);
    limits->zeroes_alignment = (uint32_t)align_up(limits->zeroes_alignment, limits->request_alignment);
    limits->discard_alignment = (uint32_t)align_up(limits->discard_alignment, limits->request_alignment);
    return true;
}

static void blklogwrites_child_permissions(const struct node *node, const struct edge *edge, uint32_t perm,
                                           uint32_t shared, uint32_t *ret_perm, uint32_t *ret_shared)
{
    if (edge_role(edge) & EDGE_FILTERED) {
        /* Who writes less than a sector reads the rest of it. */
        *ret_perm = perm & (PERM_WRITE | PERM_WRITE_UNCHANGED) ? perm | PERM_CONSISTENT_READ : perm;
        *ret_shared = shared;
        return;
    }
    *ret_perm = node_read_only(node) ? 0 : PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE;
    *ret_shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
}

/* --- recording --- */

static int CO_FN co_entry_write(struct blklogwrites_node *log, uint64_t flags, uint64_t offset, uint64_t bytes,
                                const struct io_vector *iov)
{
    uint64_t sectors = bytes / log->sector_bytes, at = log->next_sector * log->sector_bytes;
    uint64_t following = flags & ENTRY_DISCARD ? 0 : bytes;
    g_autofree uint8_t *sector = g_malloc0(log->sector_bytes);
    int ret;

    assert(is_aligned(offset | bytes, log->sector_bytes));
    store_le64(sector + AT_SECTOR, offset / log->sector_bytes);
    store_le64(sector + AT_SECTORS, sectors);
    store_le64(sector + AT_FLAGS, flags);
    ret = co_edge_pwrite(log->log, at, log->sector_bytes, sector, 0);
    if (!ret && following && iov)
        ret = co_edge_pwritev(log->log, at + log->sector_bytes, following, iov, 0);
    else if (!ret && following)
        ret = co_edge_pwrite_zeroes(log->log, at + log->sector_bytes, following, 0);
    if (ret)
        return ret;
    log->next_sector += 1 + following / log->sector_bytes;
    log->entries++;
    return 0;
}

/* Records a change that has been made. `iov` NULL: zeroes, or no data at all. */
static int CO_FN co_record(struct blklogwrites_node *log, uint64_t flags, uint64_t offset, uint64_t bytes,
                           const struct io_vector *iov)
{
    int ret;

    co_mutex_lock(&log->lock);
    ret = log->failed ? -EIO : co_entry_write(log, flags, offset, bytes, iov);
    if (ret)
        log->failed = true;
    if (!ret && (flags & (ENTRY_FLUSH | ENTRY_FUA) || log->entries - log->saved >= log->interval))
        ret = co_header_write(log);
    co_mutex_unlock(&log->lock);
    return ret;
}

static uint64_t entry_flags(unsigned flags)
{
    return flags & IO_FUA ? ENTRY_FUA : 0;
}

/* --- requests --- */

static int CO_FN blklogwrites_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                        unsigned flags)
{
    const struct blklogwrites_node *log = node_state(node);

    return co_edge_preadv(log->file, offset, bytes, iov, flags);
}

static int CO_FN blklogwrites_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes,
                                         const struct io_vector *iov, unsigned flags)
{
    struct blklogwrites_node *log = node_state(node);
    int ret = co_edge_pwritev_padded(log->file, offset, bytes, iov, flags);

    return ret ? ret : co_record(log, entry_flags(flags), offset, bytes, iov);
}

static int CO_FN blklogwrites_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct blklogwrites_node *log = node_state(node);
    int ret = co_edge_pwrite_zeroes_padded(log->file, offset, bytes, flags);

    return ret ? ret : co_record(log, entry_flags(flags), offset, bytes, NULL);
}

static int CO_FN blklogwrites_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct blklogwrites_node *log = node_state(node);
    int ret = co_edge_pdiscard(log->file, offset, bytes);

    return ret ? ret : co_record(log, ENTRY_DISCARD, offset, bytes, NULL);
}

/* What has ended before is durable first; then the record says so. */
static int CO_FN blklogwrites_co_flush_to_children(struct node *node)
{
    struct blklogwrites_node *log = node_state(node);
    int ret = co_edge_flush(log->file);

    if (!ret)
        ret = co_record(log, ENTRY_FLUSH, 0, 0, NULL);
    return ret ? ret : co_edge_flush(log->log);
}

static const char *const blklogwrites_significant_options[] = {"log-sector-size", "log-append",
                                                               "log-super-update-interval", NULL};

const struct block_driver blklogwrites_driver = {
    .name = "blklogwrites",
    .kind = BLOCK_DRIVER_FILTER,
    .state_size = sizeof(struct blklogwrites_node),
    .flushes_children = true,
    .co_open = blklogwrites_co_open,
    .co_close = blklogwrites_co_close,
    .co_preadv = blklogwrites_co_preadv,
    .co_pwritev = blklogwrites_co_pwritev,
    .co_pwrite_zeroes = blklogwrites_co_pwrite_zeroes,
    .co_pdiscard = blklogwrites_co_pdiscard,
    .co_flush_to_children = blklogwrites_co_flush_to_children,
    .co_refresh_limits = blklogwrites_co_refresh_limits,
    .child_permissions = blklogwrites_child_permissions,
    .significant_options = blklogwrites_significant_options,
};
