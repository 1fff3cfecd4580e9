/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checking and repairing: what is done in which order. See check-internal.h for the parts. */
#include "driver/format/qcow2/check.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/format/qcow2/check-internal.h"

/* Where the last part of the work begins: the flags, after the counts. */
#define FLAGS_FROM 0.75

static void say(struct qcow2_check *check, const char *format, va_list args)
{
    g_autofree char *text = NULL;

    if (check->quiet || !check->report)
        return;
    text = g_strdup_vprintf(format, args);
    check->report->line(check->report, text);
}

void qcow2_check_say(struct qcow2_check *check, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(check, format, args);
    va_end(args);
}

void qcow2_check_corruption(struct qcow2_check *check, const char *format, ...)
{
    va_list args;

    if (check->quiet)
        return;
    check->result.corruptions++;
    va_start(args, format);
    say(check, format, args);
    va_end(args);
}

void qcow2_check_corruption_here(struct qcow2_check *check, const char *format, ...)
{
    bool quiet = check->quiet;
    va_list args;

    if (check->recount)
        return;
    check->quiet = false;
    check->result.corruptions++;
    va_start(args, format);
    say(check, format, args);
    va_end(args);
    check->quiet = quiet;
}

void qcow2_check_part(struct qcow2_check *check, double from, double to)
{
    assert(from <= to);
    check->part_from = from;
    check->part_to = to;
}

int qcow2_check_tick(struct qcow2_check *check, double done)
{
    double whole = check->part_from + (check->part_to - check->part_from) * CLAMP(done, 0, 1);

    if (!check->report || !check->report->go_on || check->report->go_on(check->report, whole))
        return 0;
    error_set(&check->error, "The check was cancelled");
    return -ECANCELED;
}

int qcow2_check_tick_window(struct qcow2_check *check, double done)
{
    double clusters = (double)check->window_first + done * (double)check->window_count;

    return qcow2_check_tick(check, clusters / (double)MAX(check->cluster_count, 1));
}

/*
 * The header. Two things that would make it unusable are left to the repair: more snapshots than there may be, of which
 * the first are kept, and a refcount table without clusters.
 */
static bool CO_FN co_header_load(struct qcow2_check *check, struct error **err)
{
    size_t size = MIN(check->file_length, QCOW2_CLUSTER_SIZE_MAX);
    g_autofree uint8_t *data = g_malloc0(MAX(size, QCOW2_V2_HEADER_BYTES));
    int ret = co_edge_pread(check->file, 0, size, data, 0);
    uint32_t snapshots;
    bool has_table;

    if (ret < 0)
        return error_set_errno(err, ret, "Could not read the image header");
    snapshots = load_be32(data + QCOW2_AT_SNAPSHOT_COUNT);
    if (snapshots > QCOW2_SNAPSHOTS_MAX && check->repair & IMAGE_REPAIR_ERRORS) {
        store_be32(data + QCOW2_AT_SNAPSHOT_COUNT, QCOW2_SNAPSHOTS_MAX);
        check->snapshots_rewrite = true;
    }
    has_table = load_be32(data + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS);
    if (!has_table)
        store_be32(data + QCOW2_AT_REFCOUNT_TABLE_CLUSTERS, 1);
    /* Tables beyond the end of the file are a finding, not a reason to stop. */
    check->header = qcow2_header_parse(data, size, UINT64_MAX, err);
    if (!check->header || !qcow2_header_check_crypto(check->header, UINT64_MAX, err))
        return false;
    if (!has_table)
        check->header->refcount_table_clusters = 0;
    if (check->snapshots_rewrite) {
        qcow2_check_say(check, "Discarding %" PRIu32 " overhanging snapshots", snapshots - QCOW2_SNAPSHOTS_MAX);
        check->result.corruptions_fixed += snapshots - QCOW2_SNAPSHOTS_MAX;
    }
    return true;
}

static bool CO_FN co_begin(struct qcow2_check *check, struct error **err)
{
    unsigned refcount_bits;

    check->file_length = node_length(edge_child(check->file));
    if (!co_header_load(check, err))
        return false;
    check->cluster_size = qcow2_cluster_size(check->header);
    check->cluster_count = (check->file_length + check->cluster_size - 1) / check->cluster_size + 1;
    refcount_bits = 1u << check->header->refcount_order;
    check->used_end = 1;
    check->refcount_max = refcount_bits == 64 ? INT64_MAX : (UINT64_C(1) << refcount_bits) - 1;
    check->result.total_clusters =
        check->header->size / check->cluster_size + (check->header->size % check->cluster_size > 0);
    check->pieces = g_new0(struct qcow2_check_piece, QCOW2_CHECK_PIECES);
    check->l1_buffer = g_malloc(QCOW2_CHECK_TABLE_BYTES);
    check->l2_buffer = g_malloc(QCOW2_CHECK_TABLE_BYTES);
    return true;
}

static void check_done(struct qcow2_check *check)
{
    qcow2_check_window_done(check);
    qcow2_snapshot_table_done(&check->snapshots);
    qcow2_header_free(check->header);
    error_free(check->error);
    g_free(check->pieces);
    g_free(check->l1_buffer);
    g_free(check->l2_buffer);
}

/* Reads the snapshot table, and looks for what its entries lack or have too much of. */
static bool CO_FN co_snapshots_load(struct qcow2_check *check, struct error **err)
{
    bool repair = check->repair & IMAGE_REPAIR_ERRORS;

    if (!co_qcow2_snapshot_table_load(check->file, check->header, repair, &check->snapshots, err))
        return error_prefix(err, "ERROR failed to read the snapshot table: ");
    for (size_t i = 0; i < check->snapshots.count; i++) {
        const struct qcow2_snapshot *snapshot = &check->snapshots.items[i];

        if (snapshot->extra_bytes > QCOW2_SNAPSHOT_EXTRA_BYTES_MAX) {
            qcow2_check_say(check, "Discarding too much extra metadata in snapshot table entry %zu (%" PRIu32 " > %d)",
                            i, snapshot->extra_bytes, QCOW2_SNAPSHOT_EXTRA_BYTES_MAX);
            check->snapshots_incomplete++;
        } else if (check->header->version >= 3 && snapshot->extra_bytes < QCOW2_SNAPSHOT_EXTRA_BYTES_V3) {
            qcow2_check_say(check, "%s snapshot table entry %zu is incomplete", repair ? "Repairing" : "ERROR", i);
            check->snapshots_incomplete++;
        }
    }
    check->result.corruptions += check->snapshots_incomplete;
    check->snapshots_rewrite |= repair && check->snapshots_incomplete;
    return true;
}

/*
 * Who writes to an image gives up what he does not keep up to date: features that clear themselves, and bitmaps that
 * somebody else has let become stale, whose clusters are leaks.
 */
static int CO_FN co_prepare_writing(struct qcow2_check *check)
{
    struct qcow2_header *header = check->header;
    bool stale_bitmaps = header->has_bitmaps && !(header->autoclear_features & QCOW2_BITMAPS_CONSISTENT);
    uint64_t unknown = header->autoclear_features & ~(uint64_t)QCOW2_AUTOCLEAR_KNOWN;

    if (!stale_bitmaps && !unknown)
        return 0;
    header->has_bitmaps = header->has_bitmaps && !stale_bitmaps;
    header->autoclear_features &= QCOW2_AUTOCLEAR_KNOWN;
    if (!co_qcow2_header_store(check->file, header, &check->error))
        return -EIO;
    qcow2_check_forget(check);
    return co_edge_flush(check->file);
}

/* Everything that counts is right: the image may be used again without a check. */
static int CO_FN co_clear_bits(struct qcow2_check *check)
{
    struct qcow2_header *header = check->header;
    const struct qcow2_check_result *result = &check->result;
    int ret;

    if (!check->repair || result->corruptions || result->check_errors ||
        !(header->incompatible_features & (QCOW2_DIRTY | QCOW2_CORRUPT)))
        return 0;
    header->incompatible_features &= ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);
    ret = co_edge_flush(check->file);
    if (ret == 0)
        ret = co_qcow2_header_store_fields(check->file, header);
    return ret < 0 ? ret : co_edge_flush(check->file);
}

static int CO_FN co_check_run(struct qcow2_check *check)
{
    int ret = check->repair ? co_prepare_writing(check) : 0;

    qcow2_check_part(check, 0, FLAGS_FROM);
    if (ret == 0)
        ret = co_qcow2_check_refcounts(check);
    if (ret < 0)
        return ret;
    if (check->rebuild && check->repair && !(check->repair & IMAGE_REPAIR_ERRORS)) {
        qcow2_check_say(check, "ERROR need to rebuild refcount structures");
        return -EIO;
    }
    if (check->repair & IMAGE_REPAIR_ERRORS && (check->rebuild || check->snapshots_rewrite)) {
        ret = co_qcow2_check_rebuild(check);
        if (ret < 0)
            return ret;
        check->result.corruptions -= check->snapshots_incomplete;
        check->result.corruptions_fixed += check->snapshots_incomplete;
    }
    qcow2_check_part(check, FLAGS_FROM, 1);
    /* Flags can only be judged by refcounts that can be read. */
    if (check->result.check_errors == 0)
        ret = co_qcow2_check_copied(check);
    return ret < 0 ? ret : co_clear_bits(check);
}

bool CO_FN co_qcow2_check_windowed(struct edge *file, unsigned repair, struct image_report *report, size_t window_bytes,
                                   struct qcow2_check_result *ret, struct error **err)
{
    struct qcow2_check check = {.file = file, .repair = repair, .report = report, .window_bytes = window_bytes};
    bool done = co_begin(&check, err) && co_snapshots_load(&check, err);
    int result;

    if (done) {
        result = co_check_run(&check);
        if (result == 0 && repair)
            result = co_edge_flush(file);
        check.result.image_end_offset = check.used_end << check.header->cluster_bits;
        *ret = check.result;
        if (result < 0 && check.error)
            done = error_move(err, TAKE(check.error));
        else if (result < 0)
            done = error_set(err, "%s", g_strerror(-result));
    }
    check_done(&check);
    return done;
}

bool CO_FN co_qcow2_check(struct edge *file, unsigned repair, struct image_report *report,
                          struct qcow2_check_result *ret, struct error **err)
{
    return co_qcow2_check_windowed(file, repair, report, QCOW2_CHECK_WINDOW_BYTES, ret, err);
}

void qcow2_check_fill_in(const struct qcow2_check_result *result, struct image_check *check)
{
    check->check_errors = (int64_t)result->check_errors;
    check->has_image_end_offset = true;
    check->image_end_offset = (int64_t)result->image_end_offset;
    check->has_corruptions = result->corruptions;
    check->corruptions = (int64_t)result->corruptions;
    check->has_leaks = result->leaks;
    check->leaks = (int64_t)result->leaks;
    check->has_corruptions_fixed = result->corruptions_fixed;
    check->corruptions_fixed = (int64_t)result->corruptions_fixed;
    check->has_leaks_fixed = result->leaks_fixed;
    check->leaks_fixed = (int64_t)result->leaks_fixed;
    check->has_total_clusters = result->total_clusters;
    check->total_clusters = (int64_t)result->total_clusters;
    check->has_allocated_clusters = result->allocated_clusters;
    check->allocated_clusters = (int64_t)result->allocated_clusters;
    check->has_fragmented_clusters = result->fragmented_clusters;
    check->fragmented_clusters = (int64_t)result->fragmented_clusters;
    check->has_compressed_clusters = result->compressed_clusters;
    check->compressed_clusters = (int64_t)result->compressed_clusters;
}

bool CO_FN co_qcow2_check_file(struct handle *file, unsigned repair, struct image_report *report,
                               struct image_check *ret, struct error **err)
{
    struct qcow2_check_result result;

    if (!co_qcow2_check(handle_edge(file), repair, report, &result, err))
        return false;
    qcow2_check_fill_in(&result, ret);
    return true;
}
