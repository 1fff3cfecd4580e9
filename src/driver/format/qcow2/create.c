/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making an image: all of it is laid out first (layout.h), then written table by table. The header comes last, after a
 * flush, so that what has been broken off is no image.
 */
#include "driver/format/qcow2/create.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "driver/format/qcow2/crypt.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/qcow2/layout.h"
#include "loop/loop.h"

struct creation {
    const struct blockdev_create_options_qcow2 *options;
    struct qcow2_create_request request;
    struct qcow2_crypt_plan crypt;
    struct qcow2_layout layout;
    struct handle *file;      /* owned */
    struct handle *data_file; /* owned; NULL: none */
    uint8_t *buffer;          /* a cluster, for writing */
};

static uint64_t cluster_size(const struct creation *creation)
{
    return UINT64_C(1) << creation->request.cluster_bits;
}

/* --- tables --- */

/* A table whose entries each name the next cluster. */
struct run {
    uint64_t offset; /* where the table is */
    uint64_t count;  /* entries */
    uint64_t first;  /* the first entry */
    unsigned words;  /* 8 bytes each, of an entry; the second is ... */
    uint64_t subclusters;
};

static int CO_FN co_write_run(struct creation *creation, const struct run *run)
{
    size_t entries_max = cluster_size(creation) / 8 / run->words;
    uint64_t entry = run->first;
    int ret = 0;

    for (uint64_t done = 0; done < run->count && !ret;) {
        size_t entries = MIN(run->count - done, entries_max);
        size_t entry_bytes = (size_t)run->words * 8;

        for (size_t i = 0; i < entries; i++, entry += cluster_size(creation)) {
            store_be64(creation->buffer + i * entry_bytes, entry);
            if (run->words > 1)
                store_be64(creation->buffer + i * entry_bytes + 8, run->subclusters);
        }
        ret = co_handle_pwrite(creation->file, run->offset + done * entry_bytes, entries * entry_bytes,
                               creation->buffer, 0);
        done += entries;
    }
    return ret;
}

/* The first `count` counts of a block as ones, the others as zeroes. */
static void fill_refcounts(uint8_t *block, uint64_t size, unsigned order, uint64_t count)
{
    memset(block, 0, size);
    for (uint64_t i = 0; i < count; i++) {
        if (order < 3)
            block[i >> (3 - order)] |= (uint8_t)(1u << ((i & ((1u << (3 - order)) - 1)) << order));
        else
            block[((i + 1) << (order - 3)) - 1] = 1;
    }
}

static int CO_FN co_write_refcounts(struct creation *creation)
{
    const struct qcow2_layout *layout = &creation->layout;
    uint64_t size = cluster_size(creation);
    uint64_t block_entries = size * 8 >> creation->request.refcount_order;
    uint64_t left = layout->clusters;
    int ret = 0;

    for (uint64_t i = 0; i < layout->refcount_blocks && !ret; i++) {
        uint64_t count = MIN(left, block_entries);

        fill_refcounts(creation->buffer, size, creation->request.refcount_order, count);
        ret = co_handle_pwrite(creation->file, layout->refcount_blocks_offset + i * size, size, creation->buffer, 0);
        left -= count;
    }
    return ret;
}

/* L1 and L2 tables that map the whole disk. */
static int CO_FN co_write_mapping(struct creation *creation)
{
    const struct qcow2_layout *layout = &creation->layout;
    const struct qcow2_create_request *request = &creation->request;
    struct run l1 = {
        .offset = layout->l1_offset, .count = layout->l2_tables, .first = layout->l2_offset | QCOW2_COPIED, .words = 1};
    struct run l2 = {
        .offset = layout->l2_offset,
        .count = (creation->options->size + cluster_size(creation) - 1) >> request->cluster_bits,
        .first = (request->data_file ? 0 : layout->data_offset) | QCOW2_COPIED,
        .words = request->subclusters ? 2 : 1,
        /* The backing image goes on to show where nothing has been written. */
        .subclusters = creation->options->backing_file ? 0 : QCOW2_SUBCLUSTERS_ALLOCATED,
    };
    int ret;

    if (!layout->l2_tables)
        return 0;
    /* What nobody has written is no message: it would be deciphered to noise. */
    if (creation->crypt.method != QCOW2_CRYPT_NONE && request->version >= 3 && !request->data_file_raw) {
        l2.first |= request->subclusters ? 0 : QCOW2_ZERO;
        l2.subclusters = creation->options->backing_file ? 0 : QCOW2_SUBCLUSTERS_ZERO;
    }
    ret = co_write_run(creation, &l2);
    return ret ? ret : co_write_run(creation, &l1);
}

static int CO_FN co_write_tables(struct creation *creation)
{
    const struct qcow2_layout *layout = &creation->layout;
    struct run refcount_table = {.offset = layout->refcount_table_offset,
                                 .count = layout->refcount_blocks,
                                 .first = layout->refcount_blocks_offset,
                                 .words = 1};
    int ret = co_write_run(creation, &refcount_table);

    if (!ret)
        ret = co_write_refcounts(creation);
    if (!ret)
        ret = co_write_mapping(creation);
    return ret ? ret : co_handle_flush(creation->file);
}

/* --- the header --- */

static struct qcow2_header *header_new(const struct creation *creation)
{
    const struct blockdev_create_options_qcow2 *options = creation->options;
    const struct qcow2_create_request *request = &creation->request;
    const struct qcow2_layout *layout = &creation->layout;
    struct qcow2_header *header = g_new0(struct qcow2_header, 1);

    header->version = request->version;
    header->cluster_bits = request->cluster_bits;
    header->size = options->size;
    header->l1_size = (uint32_t)layout->l1_entries;
    header->l1_table_offset = layout->l1_offset;
    header->refcount_table_offset = layout->refcount_table_offset;
    header->refcount_table_clusters = (uint32_t)layout->refcount_table_clusters;
    header->refcount_order = request->refcount_order;
    if (request->data_file) {
        header->incompatible_features |= QCOW2_DATA_FILE;
        header->data_file = node_plain_filename(handle_node(creation->data_file));
    }
    if (request->data_file_raw)
        header->autoclear_features |= QCOW2_DATA_FILE_RAW;
    if (request->subclusters)
        header->incompatible_features |= QCOW2_EXTENDED_L2;
    if (request->compression_type == QCOW2_COMPRESSION_TYPE_ZSTD) {
        header->compression_type = QCOW2_COMPRESSION_ZSTD;
        header->incompatible_features |= QCOW2_COMPRESSION;
    }
    if (options->has_lazy_refcounts && options->lazy_refcounts)
        header->compatible_features |= QCOW2_LAZY_REFCOUNTS;
    qcow2_crypt_announce(&creation->crypt, layout->crypto_offset, header);
    header->backing_file = g_strdup(options->backing_file);
    if (options->has_backing_fmt)
        header->backing_format = g_strdup(blockdev_driver_name(options->backing_fmt));
    return header;
}

static bool CO_FN co_write_header(struct creation *creation, const uint8_t *bytes, size_t size, struct error **err)
{
    int ret = co_handle_pwrite(creation->file, 0, size, bytes, 0);

    if (!ret)
        ret = co_handle_flush(creation->file);
    return !ret || error_set_errno(err, ret, "Could not write qcow2 header");
}

/* --- space --- */

/* Files lose what they held; devices, which keep their length, get zeroes where the image will lie. */
static bool CO_FN co_make_room(struct creation *creation, uint64_t end, struct error **err)
{
    struct truncate_request empty = {.length = 0};
    struct truncate_request room = {.length = end};
    uint64_t stale;
    int ret;

    if (creation->request.preallocation != PREALLOC_MODE_METADATA && !creation->request.data_file)
        room.preallocation = creation->request.preallocation;
    if (co_handle_truncate_as(creation->file, &empty, err))
        return error_prefix(err, "Could not resize image: ");
    stale = handle_length(creation->file);
    if (stale < end && co_handle_truncate_as(creation->file, &room, err))
        return error_prefix(err, "Could not resize image: ");
    ret = co_handle_pwrite_zeroes(creation->file, 0, MIN(stale, end), IO_MAY_UNMAP);
    return !ret || error_set_errno(err, ret, "Could not clear the image");
}

static bool CO_FN co_make_data_room(struct creation *creation, struct error **err)
{
    struct truncate_request empty = {.length = 0};
    struct truncate_request room = {.length = creation->options->size};

    if (!creation->data_file)
        return true;
    if (creation->request.preallocation != PREALLOC_MODE_METADATA)
        room.preallocation = creation->request.preallocation;
    if (co_handle_truncate_as(creation->data_file, &empty, err) ||
        (handle_length(creation->data_file) < room.length && co_handle_truncate_as(creation->data_file, &room, err)))
        return error_prefix(err, "Could not resize the data file: ");
    return true;
}

/* --- all together --- */

static bool creation_lay_out(struct creation *creation, struct error **err)
{
    const struct qcow2_create_request *request = &creation->request;
    bool preallocated = request->preallocation != PREALLOC_MODE_OFF;
    struct qcow2_layout_request wanted = {
        .size = creation->options->size,
        .cluster_bits = request->cluster_bits,
        .refcount_order = request->refcount_order,
        .subclusters = request->subclusters,
        .tables = preallocated,
        .crypto_bytes = creation->crypt.header_bytes,
        .data_bytes = preallocated && !request->data_file ? creation->options->size : 0,
    };

    return qcow2_layout_make(&wanted, &creation->layout, err);
}

/* Where the file must reach: to the last entry of a table or the last data. */
static uint64_t creation_end(const struct creation *creation)
{
    const struct qcow2_layout *layout = &creation->layout;

    if (layout->crypto_clusters || layout->l2_tables || layout->data_clusters || !layout->l1_entries)
        return layout->clusters << creation->request.cluster_bits;
    return layout->l1_offset + layout->l1_entries * 8;
}

static bool CO_FN co_creation_open(struct creation *creation, struct graph *graph, struct error **err)
{
    struct handle_options options = {
        .name = "blockdev-create", .perm = PERM_WRITE | PERM_RESIZE, .shared = PERM_ALL, .follows_length = true};

    creation->file = co_graph_open(graph, creation->options->file, &options, err);
    if (!creation->file)
        return false;
    if (!creation->request.data_file)
        return true;
    /* Two handles that resize the same node would be one image writing over itself. */
    options.shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
    creation->data_file = co_graph_open(graph, creation->options->data_file, &options, err);
    return creation->data_file != NULL;
}

static bool CO_FN co_creation_run(struct creation *creation, struct graph *graph, struct error **err)
{
    const struct q_crypto_block_create_options *encrypt = creation->options->encrypt;
    AUTO(qcow2_header) header = header_new(creation);
    g_autofree uint8_t *bytes = NULL;
    size_t size;
    int ret;

    /* Before anything is lost: names may be too long for the first cluster. */
    bytes = qcow2_header_serialise(header, &size, err);
    if (!bytes || !co_make_room(creation, creation_end(creation), err) || !co_make_data_room(creation, err))
        return false;
    ret = co_write_tables(creation);
    if (ret)
        return error_set_errno(err, ret, "Could not write the tables of the image");
    if (!co_qcow2_crypt_make(&creation->crypt, encrypt, graph_objects(graph), creation->file,
                             creation->layout.crypto_offset, err))
        return false;
    return co_write_header(creation, bytes, size, err);
}

bool CO_FN qcow2_co_create(struct graph *graph, const struct blockdev_create_options *all, struct error **err)
{
    struct creation creation = {.options = &all->u.qcow2};
    bool ok;

    if (!qcow2_create_request_check(creation.options, &creation.request, err) ||
        !qcow2_crypt_check_secret(creation.options->encrypt, graph_objects(graph), err) ||
        !qcow2_crypt_plan(creation.options->encrypt, &creation.crypt, err) || !creation_lay_out(&creation, err))
        return false;
    creation.buffer = loop_buffer_get(cluster_size(&creation));
    if (!creation.buffer)
        return error_set_errno(err, ENOMEM, "Could not create the image");
    ok = co_creation_open(&creation, graph, err) && co_creation_run(&creation, graph, err);
    co_handle_free(creation.data_file);
    co_handle_free(creation.file);
    loop_buffer_put(creation.buffer, cluster_size(&creation));
    return ok;
}
