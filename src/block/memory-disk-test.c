/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/memory-disk-test.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

#include "gen/types.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "schema/event.h"
#include "schema/json.h"

struct memory_disk_options memory_disk_options;
unsigned memory_disk_fail[MEMORY_DISK__COUNT];
int memory_disks_open;

/* 0, or the failure that is due. */
static int begin(struct memory_disk *disk, enum memory_disk_operation operation)
{
    __atomic_add_fetch(&disk->calls[operation], 1, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&memory_disk_fail[operation], __ATOMIC_RELAXED))
        return 0;
    return __atomic_sub_fetch(&memory_disk_fail[operation], 1, __ATOMIC_RELAXED) ? 0 : -EIO;
}

static void CO_FN co_give_way(const struct memory_disk *disk, uint64_t offset)
{
    /* Different ranges take different times, so that requests overtake each other. */
    for (unsigned i = 0; disk->options.yields && i < 1 + offset / 512 % 5; i++)
        co_yield ();
}

static void check_range(const struct memory_disk *disk, uint64_t offset, uint64_t bytes, const struct io_vector *iov)
{
    g_assert_cmpuint(bytes, >, 0);
    g_assert_true(is_aligned(offset | bytes, disk->options.request_alignment));
    g_assert_true(range_fits(offset, bytes, disk->capacity));
    if (!iov)
        return;
    g_assert_cmpuint(iov->size, ==, bytes);
    g_assert_cmpuint(iov->count, <=, IOV_MAX);
    g_assert_true(!disk->options.transfer_max || bytes <= disk->options.transfer_max);
    for (unsigned i = 0; i < iov->count; i++) {
        uintptr_t address = (uintptr_t)iov->segments[i].iov_base;

        g_assert_true(is_aligned(address | iov->segments[i].iov_len, disk->options.memory_alignment));
    }
}

static bool CO_FN disk_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    struct memory_disk *disk = node_state(node);

    if (begin(disk, MEMORY_DISK_OPEN))
        return error_set(err, "the test disk does not open");
    disk->options = memory_disk_options;
    disk->options.request_alignment = MAX(disk->options.request_alignment, 1);
    disk->options.memory_alignment = MAX(disk->options.memory_alignment, 1);
    disk->length = options->u.null_co.has_size ? (uint64_t)options->u.null_co.size : 64 * 1024;
    disk->capacity = MEMORY_DISK_CAPACITY;
    g_assert_cmpuint(disk->length, <=, disk->capacity);
    disk->data = g_malloc0(disk->capacity);
    disk->shared = PERM_ALL;
    node_set_flags(node, disk->options.write_flags, disk->options.zero_flags);
    memory_disks_open++;
    return true;
}

static void CO_FN disk_co_close(struct node *node)
{
    struct memory_disk *disk = node_state(node);

    g_assert_cmpuint(disk->prepared, ==, 0);
    g_free(disk->data);
    memory_disks_open--;
}

static bool CO_FN disk_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct memory_disk *disk = node_state(node);

    limits->request_alignment = disk->options.request_alignment;
    limits->memory_alignment = disk->options.memory_alignment;
    limits->transfer_max = disk->options.transfer_max;
    limits->zeroes_alignment = disk->options.zeroes_alignment;
    limits->zeroes_max = disk->options.zeroes_max;
    return true;
}

static int CO_FN disk_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                unsigned flags)
{
    struct memory_disk *disk = node_state(node);
    int ret = begin(disk, MEMORY_DISK_READ);

    check_range(disk, offset, bytes, iov);
    if (ret)
        return ret;
    __atomic_add_fetch(&disk->active, 1, __ATOMIC_RELAXED);
    co_give_way(disk, offset);
    spin_lock(&disk->spin);
    io_vector_write(iov, 0, disk->data + offset, bytes);
    spin_unlock(&disk->spin);
    co_give_way(disk, offset);
    __atomic_sub_fetch(&disk->active, 1, __ATOMIC_RELAXED);
    return 0;
}

static int CO_FN disk_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                 unsigned flags)
{
    struct memory_disk *disk = node_state(node);
    int ret = begin(disk, MEMORY_DISK_WRITE);

    check_range(disk, offset, bytes, iov);
    g_assert_cmpuint(flags & ~disk->options.write_flags, ==, 0);
    __atomic_store_n(&disk->last_write_flags, flags, __ATOMIC_RELAXED);
    if (ret)
        return ret;
    __atomic_add_fetch(&disk->active, 1, __ATOMIC_RELAXED);
    co_give_way(disk, offset);
    spin_lock(&disk->spin);
    io_vector_read(iov, 0, disk->data + offset, bytes);
    spin_unlock(&disk->spin);
    co_give_way(disk, offset);
    __atomic_sub_fetch(&disk->active, 1, __ATOMIC_RELAXED);
    return 0;
}

static int CO_FN disk_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct memory_disk *disk = node_state(node);
    int ret = begin(disk, MEMORY_DISK_ZERO);

    check_range(disk, offset, bytes, NULL);
    g_assert_cmpuint(flags & ~disk->options.zero_flags, ==, 0);
    g_assert_true(!disk->options.zeroes_max || bytes <= disk->options.zeroes_max);
    if (ret)
        return ret;
    if (disk->options.no_zero_writes || !is_aligned(offset | bytes, MAX(disk->options.zeroes_alignment, 1)))
        return -ENOTSUP;
    __atomic_add_fetch(&disk->active, 1, __ATOMIC_RELAXED);
    co_give_way(disk, offset);
    spin_lock(&disk->spin);
    memset(disk->data + offset, 0, bytes);
    spin_unlock(&disk->spin);
    __atomic_sub_fetch(&disk->active, 1, __ATOMIC_RELAXED);
    return 0;
}

static int CO_FN disk_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct memory_disk *disk = node_state(node);
    int ret = begin(disk, MEMORY_DISK_DISCARD);

    check_range(disk, offset, bytes, NULL);
    if (!ret)
        memset(disk->data + offset, 0, bytes);
    return ret;
}

static int CO_FN disk_co_flush(struct node *node)
{
    struct memory_disk *disk = node_state(node);
    int ret = begin(disk, MEMORY_DISK_FLUSH);

    co_give_way(disk, 512);
    return ret;
}

static void CO_FN disk_co_flush_soon(struct node *node)
{
    (void)begin(node_state(node), MEMORY_DISK_FLUSH_SOON);
}

static bool disk_is_near(const struct node *node)
{
    return ((const struct memory_disk *)node_state(node))->options.is_near;
}

/* Blocks of 512 bytes that are all zero are holes. */
static int CO_FN disk_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                      struct block_extent *ret)
{
    enum { BLOCK = 512 };
    const struct memory_disk *disk = node_state(node);
    bool zero = memory_is_zero(disk->data + offset / BLOCK * BLOCK, BLOCK);
    uint64_t end = offset / BLOCK * BLOCK + BLOCK;

    while (end < offset + bytes && memory_is_zero(disk->data + end, BLOCK) == zero)
        end += BLOCK;
    ret->bytes = end - offset; /* more than was asked, at times: the core cuts it */
    ret->flags = BLOCK_OFFSET_VALID | BLOCK_ALLOCATED | (zero ? BLOCK_ZERO : BLOCK_DATA);
    ret->host = node;
    ret->host_offset = offset;
    return 0;
}

static int CO_FN disk_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    struct memory_disk *disk = node_state(node);

    if (request->length > disk->capacity) {
        error_set(err, "the test disk is full");
        return -ENOSPC;
    }
    memset(disk->data + request->length, 0, disk->capacity - request->length);
    disk->length = request->length;
    return 0;
}

static int64_t CO_FN disk_co_length(struct node *node)
{
    const struct memory_disk *disk = node_state(node);

    return (int64_t)disk->length;
}

static bool CO_FN disk_co_permission_prepare(struct node *node, uint32_t perm, uint32_t shared, struct error **err)
{
    struct memory_disk *disk = node_state(node);

    g_assert_cmpuint(disk->prepared, ==, 0);
    co_yield ();
    if (begin(disk, MEMORY_DISK_PERMISSION))
        return error_set(err, "the test disk does not allow that");
    disk->prepared = 1;
    return true;
}

static void CO_FN disk_co_permission_commit(struct node *node)
{
    struct memory_disk *disk = node_state(node);

    g_assert_cmpuint(disk->prepared, ==, 1);
    disk->prepared = 0;
    disk->perm = node_used_permissions(node);
    disk->shared = node_shared_permissions(node);
}

static void CO_FN disk_co_permission_abort(struct node *node)
{
    struct memory_disk *disk = node_state(node);

    g_assert_cmpuint(disk->prepared, ==, 1);
    disk->prepared = 0;
}

static void disk_drain_begin(struct node *node)
{
    struct memory_disk *disk = node_state(node);

    g_assert_false(disk->resting);
    disk->resting = true;
}

static void disk_drain_end(struct node *node)
{
    struct memory_disk *disk = node_state(node);

    g_assert_true(disk->resting);
    disk->resting = false;
}

static const struct block_driver_permission disk_permission = {
    .co_prepare = disk_co_permission_prepare,
    .co_commit = disk_co_permission_commit,
    .co_abort = disk_co_permission_abort,
};

static const struct block_driver_drain disk_drain = {
    .begin = disk_drain_begin,
    .end = disk_drain_end,
};

static const struct block_driver disk_driver = {
    .name = "null-co",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(struct memory_disk),
    .co_open = disk_co_open,
    .co_close = disk_co_close,
    .co_preadv = disk_co_preadv,
    .co_pwritev = disk_co_pwritev,
    .co_pwrite_zeroes = disk_co_pwrite_zeroes,
    .co_pdiscard = disk_co_pdiscard,
    .co_flush = disk_co_flush,
    .co_flush_soon = disk_co_flush_soon,
    .is_near = disk_is_near,
    .co_block_status = disk_co_block_status,
    .co_truncate = disk_co_truncate,
    .co_length = disk_co_length,
    .co_refresh_limits = disk_co_refresh_limits,
    .permission = &disk_permission,
    .drain = &disk_drain,
};

/*
 * An overlay in the place of qed: 512-byte blocks, which are its own once they are written, else its backing image's.
 * It is there to have a chain, and metadata of which nobody may write beside it.
 */
struct overlay {
    struct edge *file;
    struct edge *backing; /* NULL: none */
    bool owned[MEMORY_DISK_CAPACITY / 512];
};

static bool CO_FN overlay_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_ref_or_null *backing = options->u.qed.backing;
    struct overlay *overlay = node_state(node);
    struct blockdev_ref ref = {.kind = BLOCKDEV_REF_KIND_REFERENCE};

    overlay->file = co_node_add_child(node, "file", options->u.qed.file, EDGE_DATA | EDGE_METADATA | EDGE_PRIMARY, err);
    if (!overlay->file)
        return false;
    if (backing && backing->kind == BLOCKDEV_REF_OR_NULL_KIND_REFERENCE) {
        ref.u.reference = backing->u.reference;
        overlay->backing = co_node_add_child(node, "backing", &ref, EDGE_COW, err);
        if (!overlay->backing)
            return false;
    }
    node_set_length(node, node_length(edge_child(overlay->file)));
    node_set_flags(node, IO_FUA, 0);
    return true;
}

static bool CO_FN overlay_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    limits->request_alignment = 512;
    return true;
}

static int CO_FN overlay_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                   unsigned flags)
{
    const struct overlay *overlay = node_state(node);
    int ret = 0;

    for (uint64_t at = 0; at < bytes && !ret; at += 512) {
        uint8_t block[512] = {0};

        if (overlay->owned[(offset + at) / 512])
            ret = co_edge_pread(overlay->file, offset + at, 512, block, 0);
        else if (overlay->backing)
            ret = co_edge_pread(overlay->backing, offset + at, 512, block, 0);
        io_vector_write(iov, at, block, 512);
    }
    return ret;
}

static int CO_FN overlay_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                    unsigned flags)
{
    struct overlay *overlay = node_state(node);
    int ret = co_edge_pwritev(overlay->file, offset, bytes, iov, flags);

    for (uint64_t at = 0; at < bytes && !ret; at += 512)
        __atomic_store_n(&overlay->owned[(offset + at) / 512], true, __ATOMIC_RELAXED);
    return ret;
}

static int CO_FN overlay_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                         struct block_extent *ret)
{
    const struct overlay *overlay = node_state(node);
    bool owned = overlay->owned[offset / 512];

    for (ret->bytes = 0; ret->bytes < bytes && overlay->owned[(offset + ret->bytes) / 512] == owned;)
        ret->bytes += 512;
    if (!owned)
        return 0;
    ret->flags = BLOCK_DATA | BLOCK_ALLOCATED | BLOCK_OFFSET_VALID | BLOCK_RECURSE;
    ret->host = edge_child(overlay->file);
    ret->host_offset = offset;
    return 0;
}

static const struct block_driver overlay_driver = {
    .name = "qed",
    .kind = BLOCK_DRIVER_FORMAT,
    .state_size = sizeof(struct overlay),
    .co_open = overlay_co_open,
    .co_preadv = overlay_co_preadv,
    .co_pwritev = overlay_co_pwritev,
    .co_block_status = overlay_co_block_status,
    .co_refresh_limits = overlay_co_refresh_limits,
};

extern const struct block_driver raw_driver; /* src/driver/, a layer above */

const struct block_driver *const memory_disk_drivers[] = {&disk_driver, &overlay_driver, &raw_driver, NULL};

/* --- running --- */

struct memory_disk *memory_disk_of(struct graph *graph, const char *name)
{
    AUTO(error) err = NULL;
    struct node *node = graph_find(graph, name, &err);

    g_assert_nonnull(node);
    return node_state(node);
}

struct node *CO_FN co_test_add(struct graph *graph, const char *text, struct error **err)
{
    AUTO(error) parse_err = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &parse_err);

    g_assert_nonnull(json);

    AUTO(blockdev_options) options = blockdev_options_parse(json, &parse_err);

    if (!options)
        g_error("%s", error_message(parse_err));
    if (!co_graph_add(graph, options, err))
        return NULL;
    return graph_find(graph, options->node_name, NULL);
}

struct node *CO_FN co_test_add_ok(struct graph *graph, const char *text)
{
    AUTO(error) err = NULL;
    struct node *node = co_test_add(graph, text, &err);

    if (!node)
        g_error("%s: %s", text, error_message(err));
    return node;
}

struct handle *CO_FN co_test_handle(struct node *node, uint32_t perm)
{
    struct handle_options options = {.name = "a test", .perm = perm, .shared = PERM_ALL};
    AUTO(error) err = NULL;
    struct handle *handle = co_handle_new(node, &options, &err);

    if (!handle)
        g_error("%s", error_message(err));
    return handle;
}

/* Names of events, under a lock: any loop sends them. */
static struct {
    struct event_sink sink;
    struct spin_lock spin;
    GPtrArray *names;
} events;

static void take_event(struct event_sink *sink, const char *name, struct json *data)
{
    json_free(data);
    spin_lock(&events.spin);
    g_ptr_array_add(events.names, g_strdup(name));
    spin_unlock(&events.spin);
}

unsigned graph_test_events(const char *name)
{
    unsigned count = 0;

    spin_lock(&events.spin);
    for (unsigned i = 0; i < events.names->len; i++)
        count += !strcmp(g_ptr_array_index(events.names, i), name);
    spin_unlock(&events.spin);
    return count;
}

static void co_run_test(void *opaque)
{
    graph_test *test = *(graph_test **)opaque;
    struct graph *graph;

    events.sink.send = take_event;
    events.names = g_ptr_array_new_with_free_func(g_free);
    graph = graph_new(NULL, &events.sink);
    memory_disk_options = (struct memory_disk_options){0};
    memset(memory_disk_fail, 0, sizeof(memory_disk_fail));
    graph_set_drivers(graph, memory_disk_drivers);
    test(graph);
    co_graph_free(graph);
    g_assert_cmpint(memory_disks_open, ==, 0);
    g_ptr_array_free(events.names, true);
}

static void run_on(const struct loop_options *options, graph_test *test)
{
    AUTO(error) err = NULL;
    struct loop *loop = loop_new(options, &err);

    g_assert_nonnull(loop);
    co_run(loop, co_run_test, &test);
    loop_free(loop);
}

void run_graph_test(graph_test *test)
{
    run_on(&(struct loop_options){0}, test);
}

uint64_t graph_test_seed;

void run_graph_test_simulated(graph_test *test, uint64_t seed)
{
    graph_test_seed = seed;
    run_on(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = seed}, test);
}
