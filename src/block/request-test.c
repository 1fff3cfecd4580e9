/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests at a node: bounds, padding, splitting, zeroes, flags, hooks, and a model test with requests at random. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/error.h"
#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "block/statistics.h"
#include "block/write-hook.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { KIB = 1024, DISK_BYTES = 64 * KIB };

static struct handle *CO_FN co_open_disk(struct graph *graph, const char *more, uint32_t perm)
{
    g_autofree char *json = g_strdup_printf("{'driver': 'null-co', 'node-name': 'd', 'size': %d%s}", DISK_BYTES, more);

    return co_test_handle(co_test_add_ok(graph, json), perm);
}

/* --- bounds and permissions --- */

static void CO_FN co_test_bounds(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, "", PERM_CONSISTENT_READ | PERM_WRITE);
    struct io_statistics statistics;
    char byte = 1;

    g_assert_cmpint(co_handle_pread(handle, DISK_BYTES - 1, 1, &byte, 0), ==, 0);
    g_assert_cmpint(co_handle_pread(handle, DISK_BYTES, 1, &byte, 0), ==, -EIO);
    g_assert_cmpint(co_handle_pread(handle, UINT64_MAX, 1, &byte, 0), ==, -EIO);
    g_assert_cmpint(co_handle_pread(handle, DISK_BYTES, 0, NULL, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, DISK_BYTES, 1, &byte, 0), ==, -ENOSPC);
    g_assert_cmpint(co_handle_pwrite(handle, UINT64_MAX, 1, &byte, 0), ==, -ENOSPC);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 1, DISK_BYTES, 0), ==, -ENOSPC);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 1, UINT64_MAX, 0), ==, -ENOSPC);
    g_assert_cmpint(co_handle_pdiscard(handle, DISK_BYTES, 1), ==, -ENOSPC);
    handle_get_statistics(handle, &statistics);
    g_assert_cmpuint(statistics.kinds[IO_KIND_READ].invalid, ==, 2);
    g_assert_cmpuint(statistics.kinds[IO_KIND_READ].operations, ==, 2);
    g_assert_cmpuint(statistics.kinds[IO_KIND_WRITE].invalid, ==, 4);
    g_assert_cmpuint(statistics.kinds[IO_KIND_UNMAP].invalid, ==, 1);
    co_handle_free(handle);
}

static void test_bounds(void)
{
    run_graph_test(co_test_bounds);
}

static void CO_FN co_test_permissions(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, "", PERM_CONSISTENT_READ);
    char byte = 1;

    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, -EPERM);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_UNCHANGED), ==, -EPERM);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 1, 0), ==, -EPERM);
    g_assert_cmpint(co_handle_pdiscard(handle, 0, 512), ==, -EPERM);
    g_assert_cmpint(co_handle_truncate(handle, 512, NULL), ==, -EPERM);
    g_assert_true(co_handle_set_permissions(handle, PERM_WRITE_UNCHANGED, PERM_ALL, NULL));
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, -EPERM);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_UNCHANGED), ==, 0);
    co_handle_free(handle);
}

static void test_permissions(void)
{
    run_graph_test(co_test_permissions);
}

/* --- the model: what must be on the disk after any sequence of requests --- */

/* Options of the disk under the model, so that each way through the core is taken. */
static const struct memory_disk_options model_disks[] = {
    {0},
    {.transfer_max = 3 * 512, .write_flags = IO_FUA},
    {.request_alignment = 512, .memory_alignment = 512},
    {.request_alignment = 4096, .memory_alignment = 4096, .transfer_max = 8192},
    {.request_alignment = 4096, .memory_alignment = 1, .no_zero_writes = true, .zero_flags = IO_MAY_UNMAP},
    {.request_alignment = 512, .zeroes_alignment = 4096, .zeroes_max = 8192, .zero_flags = IO_FUA | IO_NO_FALLBACK},
};

struct model {
    struct handle *handle;
    uint8_t data[DISK_BYTES];
    struct co_group group;
    unsigned writers;
    unsigned rounds;
};

/* One of the coroutines: it owns the bytes with (offset / grain) % writers == number, so blocks have many owners. */
struct model_writer {
    struct model *model;
    unsigned number;
    GRand *random;
};

enum { GRAIN = 700 };

/* The vector's memory in up to seven pieces, some of them empty, at odd addresses. */
static unsigned split_memory(GRand *random, uint8_t *memory, size_t size, struct iovec *segments)
{
    unsigned count = 0;

    while (size && count < 6) {
        size_t here = g_rand_boolean(random) ? size : (size_t)g_rand_int_range(random, 0, (int)size + 1);

        segments[count++] = (struct iovec){.iov_base = memory, .iov_len = here};
        memory += here;
        size -= here;
    }
    if (size)
        segments[count++] = (struct iovec){.iov_base = memory, .iov_len = size};
    return count;
}

static void CO_FN co_model_write(struct model_writer *writer, uint64_t offset, uint64_t bytes)
{
    struct model *model = writer->model;
    g_autofree uint8_t *memory = g_malloc(bytes + 1);
    struct iovec segments[7];
    struct io_vector iov;
    uint8_t *from = memory + g_rand_int_range(writer->random, 0, 2);

    for (uint64_t i = 0; i < bytes; i++)
        from[i] = (uint8_t)g_rand_int(writer->random);
    iov = io_vector_of(segments, split_memory(writer->random, from, bytes, segments));
    g_assert_cmpint(co_handle_pwritev(model->handle, offset, bytes, &iov, g_rand_boolean(writer->random) ? IO_FUA : 0),
                    ==, 0);
    memcpy(model->data + offset, from, bytes);
}

static void CO_FN co_model_zero(struct model_writer *writer, uint64_t offset, uint64_t bytes)
{
    unsigned flags = g_rand_boolean(writer->random) ? IO_MAY_UNMAP : 0;

    flags |= g_rand_boolean(writer->random) ? IO_FUA : 0;
    g_assert_cmpint(co_handle_pwrite_zeroes(writer->model->handle, offset, bytes, flags), ==, 0);
    memset(writer->model->data + offset, 0, bytes);
}

static void CO_FN co_model_read(struct model_writer *writer, uint64_t offset, uint64_t bytes)
{
    g_autofree uint8_t *memory = g_malloc(bytes + 1);
    struct iovec segments[7];
    uint8_t *to = memory + g_rand_int_range(writer->random, 0, 2);
    struct io_vector iov = io_vector_of(segments, split_memory(writer->random, to, bytes, segments));

    g_assert_cmpint(co_handle_preadv(writer->model->handle, offset, bytes, &iov, 0), ==, 0);
    g_assert_cmpmem(to, bytes, writer->model->data + offset, bytes);
}

static void CO_FN co_model_step(struct model_writer *writer)
{
    struct model *model = writer->model;
    unsigned grains = DISK_BYTES / GRAIN;
    uint64_t grain = (uint64_t)g_rand_int_range(writer->random, 0, (int)(grains / model->writers));
    uint64_t start = (grain * model->writers + writer->number) * GRAIN;
    uint64_t skip = (uint64_t)g_rand_int_range(writer->random, 0, GRAIN);
    uint64_t bytes = (uint64_t)g_rand_int_range(writer->random, 1, (int)(GRAIN - skip) + 1);

    switch (g_rand_int_range(writer->random, 0, 4)) {
    case 0:
    case 1:
        co_model_write(writer, start + skip, bytes);
        break;
    case 2:
        co_model_zero(writer, start + skip, bytes);
        break;
    default:
        co_model_read(writer, start + skip, bytes);
        break;
    }
}

static void co_model_run(void *opaque)
{
    struct model_writer *writer = opaque;

    for (unsigned i = 0; i < writer->model->rounds; i++)
        co_model_step(writer);
    co_group_done(&writer->model->group);
}

static void CO_FN co_model_check(struct model *model)
{
    g_autofree uint8_t *all = g_malloc(DISK_BYTES);

    g_assert_cmpint(co_handle_pread(model->handle, 0, DISK_BYTES, all, 0), ==, 0);
    g_assert_cmpmem(all, DISK_BYTES, model->data, DISK_BYTES);
}

/* `writers` coroutines, each with bytes of its own in blocks that they share. */
static void CO_FN co_model(struct graph *graph, const struct memory_disk_options *options, unsigned writers,
                           uint64_t seed)
{
    struct model *model = g_new0(struct model, 1);
    struct model_writer each[8];

    memory_disk_options = *options;
    memory_disk_options.yields = true;
    model->handle = co_open_disk(graph, ", 'discard': 'unmap'", PERM_CONSISTENT_READ | PERM_WRITE);
    model->writers = writers;
    model->rounds = 120 / writers;
    co_group_add(&model->group, writers);
    for (unsigned i = 0; i < writers; i++) {
        each[i] = (struct model_writer){.model = model, .number = i, .random = g_rand_new_with_seed((guint32)seed + i)};
        co_spawn(loop_current(), co_model_run, &each[i]);
    }
    co_group_wait(&model->group);
    co_model_check(model);
    for (unsigned i = 0; i < writers; i++)
        g_rand_free(each[i].random);
    co_handle_free(model->handle);
    g_assert_true(co_graph_delete(graph, "d", NULL));
    g_free(model);
}

static void CO_FN co_test_model(struct graph *graph)
{
    for (size_t i = 0; i < G_N_ELEMENTS(model_disks); i++) {
        co_model(graph, &model_disks[i], 1, graph_test_seed * 100);
        co_model(graph, &model_disks[i], 7, graph_test_seed * 100 + 50);
    }
}

static void test_model(void)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        run_graph_test_simulated(co_test_model, seed);
}

/* --- large requests --- */

static void CO_FN co_test_large(struct graph *graph)
{
    struct handle *handle;
    g_autofree uint8_t *from = g_malloc(DISK_BYTES);
    g_autofree uint8_t *to = g_malloc0(DISK_BYTES);
    g_autofree struct iovec *segments = g_new(struct iovec, 3000);
    struct io_vector iov;

    memory_disk_options = (struct memory_disk_options){.request_alignment = 512, .transfer_max = 16 * KIB};
    handle = co_open_disk(graph, "", PERM_CONSISTENT_READ | PERM_WRITE);
    for (unsigned i = 0; i < DISK_BYTES; i++)
        from[i] = (uint8_t)(i * 7 + i / 256);
    /* More segments than a system call takes, of odd lengths. */
    for (unsigned i = 0; i < 3000; i++)
        segments[i] = (struct iovec){.iov_base = from + i * 21, .iov_len = 21};
    iov = io_vector_of(segments, 3000);
    g_assert_cmpuint(iov.count, >, IOV_MAX);
    g_assert_cmpint(co_handle_pwritev(handle, 0, iov.size, &iov, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, iov.size, DISK_BYTES - iov.size, from + iov.size, 0), ==, 0);
    g_assert_cmpint(co_handle_pread(handle, 0, DISK_BYTES, to, 0), ==, 0);
    g_assert_cmpmem(from, DISK_BYTES, to, DISK_BYTES);
    co_handle_free(handle);
}

static void test_large(void)
{
    run_graph_test(co_test_large);
}

/* An error of any part is the error of the whole, whatever way it takes. */
static void CO_FN co_test_errors(struct graph *graph)
{
    struct handle *handle;
    char data[3000] = {1};

    memory_disk_options = (struct memory_disk_options){.request_alignment = 512, .transfer_max = 1024};
    handle = co_open_disk(graph, ", 'discard': 'unmap'", PERM_CONSISTENT_READ | PERM_WRITE);
    for (unsigned n = 1; n <= 3; n++) {
        memory_disk_fail[MEMORY_DISK_READ] = n;
        g_assert_cmpint(co_handle_pread(handle, 100, 3000, data, 0), ==, -EIO);
        memory_disk_fail[MEMORY_DISK_READ] = 0;
        memory_disk_fail[MEMORY_DISK_WRITE] = n;
        g_assert_cmpint(co_handle_pwrite(handle, 100, 3000, data, 0), ==, -EIO);
        memory_disk_fail[MEMORY_DISK_WRITE] = 0;
    }
    /* The block that is read around a part of it. */
    memory_disk_fail[MEMORY_DISK_READ] = 1;
    g_assert_cmpint(co_handle_pwrite(handle, 100, 10, data, 0), ==, -EIO);
    memory_disk_fail[MEMORY_DISK_ZERO] = 1;
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 512, 512, 0), ==, -EIO);
    memory_disk_fail[MEMORY_DISK_DISCARD] = 1;
    g_assert_cmpint(co_handle_pdiscard(handle, 512, 512), ==, -EIO);
    /* Nothing is held on to. */
    g_assert_cmpint(co_handle_pwrite(handle, 100, 3000, data, 0), ==, 0);
    co_handle_free(handle);
}

static void test_errors(void)
{
    run_graph_test(co_test_errors);
}

/* --- flags --- */

static void CO_FN co_test_fua(struct graph *graph)
{
    struct handle_options through = {.name = "a test", .perm = PERM_WRITE, .shared = PERM_ALL, .writethrough = true};
    struct handle *handle = co_open_disk(graph, "", PERM_WRITE);
    struct memory_disk *disk = memory_disk_of(graph, "d");
    char byte = 1;

    /* Nobody can make that up. */
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_COMPRESSED), ==, -ENOTSUP);
    /* The disk cannot do it: a flush follows. */
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_FUA), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 1);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 1, IO_FUA), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 2);
    co_handle_free(handle);
    handle = co_handle_new(graph_find(graph, "d", NULL), &through, NULL);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 3);
    co_handle_free(handle);
    g_assert_true(co_graph_delete(graph, "d", NULL));

    /* It can. */
    memory_disk_options.write_flags = IO_FUA;
    handle = co_open_disk(graph, "", PERM_WRITE);
    disk = memory_disk_of(graph, "d");
    g_assert_cmpint(co_handle_pwrite(handle, 0, 1, &byte, IO_FUA), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_FLUSH], ==, 0);
    g_assert_cmphex(disk->last_write_flags, ==, IO_FUA);
    co_handle_free(handle);
}

static void test_fua(void)
{
    run_graph_test(co_test_fua);
}

static void CO_FN co_test_zeroes(struct graph *graph)
{
    struct handle *handle;
    struct memory_disk *disk;
    char data[4096];

    memory_disk_options.no_zero_writes = true;
    memory_disk_options.zero_flags = IO_NO_FALLBACK;
    handle = co_open_disk(graph, "", PERM_CONSISTENT_READ | PERM_WRITE);
    disk = memory_disk_of(graph, "d");
    memset(data, 1, sizeof(data));
    g_assert_cmpint(co_handle_pwrite(handle, 0, 4096, data, 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 4096, IO_NO_FALLBACK), ==, -ENOTSUP);
    g_assert_cmpint(disk->data[0], ==, 1);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 4096, 0), ==, 0);
    g_assert_true(memory_is_zero(disk->data, 4096));
    co_handle_free(handle);
    g_assert_true(co_graph_delete(graph, "d", NULL));

    /* A disk that knows nothing of it. */
    memory_disk_options = (struct memory_disk_options){0};
    handle = co_open_disk(graph, "", PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 4096, IO_NO_FALLBACK), ==, -ENOTSUP);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 4096, IO_MAY_UNMAP), ==, 0);
    co_handle_free(handle);
}

static void test_zeroes(void)
{
    run_graph_test(co_test_zeroes);
}

static void CO_FN co_test_detect_zeroes(struct graph *graph)
{
    struct handle *handle;
    struct memory_disk *disk;
    char data[4096] = {0};

    memory_disk_options.zero_flags = IO_MAY_UNMAP;
    handle = co_open_disk(graph, ", 'detect-zeroes': 'on'", PERM_WRITE);
    disk = memory_disk_of(graph, "d");
    g_assert_cmpint(co_handle_pwrite(handle, 0, sizeof(data), data, 0), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_ZERO], ==, 1);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_WRITE], ==, 0);
    data[4095] = 1;
    g_assert_cmpint(co_handle_pwrite(handle, 0, sizeof(data), data, 0), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_ZERO], ==, 1);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_WRITE], ==, 1);
    g_assert_cmpint(disk->data[4095], ==, 1);
    co_handle_free(handle);
}

static void test_detect_zeroes(void)
{
    run_graph_test(co_test_detect_zeroes);
}

static void CO_FN co_test_discard(struct graph *graph)
{
    struct handle *handle;
    struct memory_disk *disk;

    memory_disk_options.request_alignment = 4096;
    handle = co_open_disk(graph, "", PERM_WRITE);
    disk = memory_disk_of(graph, "d");
    g_assert_cmpint(co_handle_pdiscard(handle, 0, DISK_BYTES), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_DISCARD], ==, 0); /* discard=ignore */
    co_handle_free(handle);
    g_assert_true(co_graph_delete(graph, "d", NULL));

    handle = co_open_disk(graph, ", 'discard': 'unmap'", PERM_WRITE);
    disk = memory_disk_of(graph, "d");
    memset(disk->data, 1, DISK_BYTES);
    g_assert_cmpint(co_handle_pdiscard(handle, 100, 3000), ==, 0); /* no whole block */
    g_assert_cmpuint(disk->calls[MEMORY_DISK_DISCARD], ==, 0);
    g_assert_cmpint(co_handle_pdiscard(handle, 100, 12000), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_DISCARD], ==, 1);
    g_assert_cmpint(disk->data[4095], ==, 1);
    g_assert_cmpint(disk->data[4096], ==, 0);
    g_assert_cmpint(disk->data[8191], ==, 0);
    g_assert_cmpint(disk->data[8192], ==, 1);
    co_handle_free(handle);
}

static void test_discard(void)
{
    run_graph_test(co_test_discard);
}

static void CO_FN co_test_prefetch(struct graph *graph)
{
    struct handle *handle;
    struct memory_disk *disk;

    memory_disk_options = (struct memory_disk_options){.request_alignment = 512, .transfer_max = 4096};
    handle = co_open_disk(graph, "", PERM_CONSISTENT_READ);
    disk = memory_disk_of(graph, "d");
    g_assert_cmpint(co_handle_preadv(handle, 100, 20000, NULL, IO_PREFETCH), ==, 0);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_READ], >=, 5);
    co_handle_free(handle);
}

static void test_prefetch(void)
{
    run_graph_test(co_test_prefetch);
}

/* --- watching --- */

struct test_hook {
    struct write_hook hook;
    unsigned before, after;
    uint64_t offset, bytes;
    int result;
    int refuse;
};

static int co_hook_before(struct write_hook *hook, uint64_t offset, uint64_t bytes)
{
    struct test_hook *test = (struct test_hook *)hook;

    test->before++;
    test->offset = offset;
    test->bytes = bytes;
    co_yield ();
    return test->refuse;
}

static void hook_after(struct write_hook *hook, uint64_t offset, uint64_t bytes, int result)
{
    struct test_hook *test = (struct test_hook *)hook;

    test->after++;
    test->result = result;
}

static const struct write_hook_ops hook_ops = {.co_before = co_hook_before, .after = hook_after};

static void CO_FN co_test_hooks(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, ", 'discard': 'unmap'", PERM_CONSISTENT_READ | PERM_WRITE);
    struct node *node = handle_node(handle);
    struct memory_disk *disk = memory_disk_of(graph, "d");
    struct test_hook one = {.hook.ops = &hook_ops}, two = {.hook.ops = &hook_ops};
    char data[10] = {1};

    node_add_write_hook(node, &one.hook);
    node_add_write_hook(node, &two.hook);
    g_assert_cmpint(co_handle_pwrite(handle, 7, 10, data, 0), ==, 0);
    g_assert_cmpuint(two.before, ==, 1);
    g_assert_cmpuint(two.after, ==, 1);
    g_assert_cmpuint(one.offset, ==, 7);
    g_assert_cmpuint(one.bytes, ==, 10);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 10, 0), ==, 0);
    g_assert_cmpint(co_handle_pdiscard(handle, 0, 512), ==, 0);
    g_assert_cmpint(co_handle_pread(handle, 0, 10, data, 0), ==, 0);
    g_assert_cmpuint(one.after, ==, 3);

    /* One that refuses: the driver never sees it, and those that agreed before hear of it. */
    two.refuse = -EDQUOT;
    g_assert_cmpint(co_handle_pwrite(handle, 0, 10, data, 0), ==, -EDQUOT);
    g_assert_cmpuint(disk->calls[MEMORY_DISK_WRITE], ==, 1);
    g_assert_cmpint(one.result, ==, -EDQUOT);
    g_assert_cmpuint(one.after, ==, 4);
    g_assert_cmpuint(two.after, ==, 3);
    node_remove_write_hook(node, &two.hook);

    memory_disk_fail[MEMORY_DISK_WRITE] = 1;
    g_assert_cmpint(co_handle_pwrite(handle, 0, 10, data, 0), ==, -EIO);
    g_assert_cmpint(one.result, ==, -EIO);
    node_remove_write_hook(node, &one.hook);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 10, data, 0), ==, 0);
    g_assert_cmpuint(one.after, ==, 5);
    co_handle_free(handle);
}

static void test_hooks(void)
{
    run_graph_test(co_test_hooks);
}

static void CO_FN co_test_threshold(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, "", PERM_WRITE);
    struct node *node = handle_node(handle);
    char data[10] = {1};

    node_set_write_threshold(node, 4096);
    g_assert_cmpint(co_handle_pwrite(handle, 4086, 10, data, 0), ==, 0);
    g_assert_cmpuint(graph_test_events("BLOCK_WRITE_THRESHOLD"), ==, 0);
    g_assert_cmpuint(node_get_write_threshold(node), ==, 4096);
    g_assert_cmpint(co_handle_pwrite(handle, 4087, 10, data, 0), ==, 0);
    g_assert_cmpuint(graph_test_events("BLOCK_WRITE_THRESHOLD"), ==, 1);
    g_assert_cmpuint(node_get_write_threshold(node), ==, 0);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, DISK_BYTES, 0), ==, 0);
    g_assert_cmpuint(graph_test_events("BLOCK_WRITE_THRESHOLD"), ==, 1);
    co_handle_free(handle);
}

static void test_threshold(void)
{
    run_graph_test(co_test_threshold);
}

static void CO_FN co_test_fence(struct graph *graph)
{
    struct handle *handle = co_open_disk(graph, "", PERM_CONSISTENT_READ | PERM_WRITE);
    char data[10] = {1};

    node_fence(handle_node(handle), 4096, 512, "entry %d is wrong", 7);
    node_fence(handle_node(handle), 0, 0, "and another");
    g_assert_cmpuint(graph_test_events("BLOCK_IMAGE_CORRUPTED"), ==, 1);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 10, data, 0), ==, -EIO);
    g_assert_cmpint(co_handle_pwrite_zeroes(handle, 0, 10, 0), ==, -EIO);
    g_assert_cmpint(co_handle_pread(handle, 0, 10, data, 0), ==, 0);
    g_assert_cmpuint(memory_disk_of(graph, "d")->calls[MEMORY_DISK_WRITE], ==, 0);
    co_handle_free(handle);
}

static void test_fence(void)
{
    run_graph_test(co_test_fence);
}

static void CO_FN co_test_statistics(struct graph *graph)
{
    struct handle *handle;
    struct node *node;
    struct io_statistics statistics;
    char data[4096] = {1};

    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'discard': 'unmap', 'offset': 4096,"
                          " 'file': {'driver': 'null-co', 'node-name': 'd'}}");
    node = graph_find(graph, "r", NULL);
    handle = co_test_handle(node, PERM_CONSISTENT_READ | PERM_WRITE);
    g_assert_cmpint(co_handle_pwrite(handle, 4096, 4096, data, 0), ==, 0);
    g_assert_cmpint(co_handle_pread(handle, 0, 100, data, 0), ==, 0);
    g_assert_cmpint(co_handle_pdiscard(handle, 0, 1024), ==, 0);
    g_assert_cmpint(co_handle_flush(handle), ==, 0);
    memory_disk_fail[MEMORY_DISK_READ] = 1;
    g_assert_cmpint(co_handle_pread(handle, 0, 100, data, 0), ==, -EIO);
    co_handle_free(handle);

    /* What was done stays known when the handle is gone; both nodes have seen it. */
    node_get_statistics(node, &statistics);
    g_assert_cmpuint(statistics.kinds[IO_KIND_WRITE].bytes, ==, 4096);
    g_assert_cmpuint(statistics.kinds[IO_KIND_READ].bytes, ==, 100);
    g_assert_cmpuint(statistics.kinds[IO_KIND_READ].failed, ==, 1);
    g_assert_cmpuint(statistics.kinds[IO_KIND_UNMAP].bytes, ==, 1024);
    g_assert_cmpuint(statistics.kinds[IO_KIND_FLUSH].operations, ==, 1);
    g_assert_cmpuint(statistics.highest, ==, 8192);
    g_assert_cmpuint(statistics.last_ns, >, 0);
    node_get_statistics(graph_find(graph, "d", NULL), &statistics);
    g_assert_cmpuint(statistics.kinds[IO_KIND_WRITE].operations, ==, 1);
    g_assert_cmpuint(statistics.highest, ==, 12288);
}

static void test_statistics(void)
{
    run_graph_test(co_test_statistics);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/request/bounds", test_bounds);
    g_test_add_func("/request/permissions", test_permissions);
    g_test_add_func("/request/model", test_model);
    g_test_add_func("/request/large", test_large);
    g_test_add_func("/request/errors", test_errors);
    g_test_add_func("/request/fua", test_fua);
    g_test_add_func("/request/zeroes", test_zeroes);
    g_test_add_func("/request/detect-zeroes", test_detect_zeroes);
    g_test_add_func("/request/discard", test_discard);
    g_test_add_func("/request/prefetch", test_prefetch);
    g_test_add_func("/request/hooks", test_hooks);
    g_test_add_func("/request/threshold", test_threshold);
    g_test_add_func("/request/fence", test_fence);
    g_test_add_func("/request/statistics", test_statistics);
    return g_test_run();
}
