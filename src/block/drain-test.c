/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Drains, and serialised requests, while several loops make requests. Best built with a thread sanitizer. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "block/graph-internal.h"
#include "block/memory-disk-test.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { LOOPS = 3, COROUTINES = 8, DRAINS = 60, BLOCK = 512, PER_COROUTINE = 4 * BLOCK };

/* Coroutines on several loops that make requests through handles until they are told to stop. */
struct load {
    struct graph *graph;
    struct loop_thread *threads[LOOPS];
    struct handle *handles[2];
    struct co_group group;
    bool stop;      /* atomic */
    uint64_t done;  /* atomic: requests */
    bool unaligned; /* requests share blocks */
};

struct member {
    struct load *load;
    unsigned number;
    uint32_t random;
};

static uint32_t next_random(struct member *member)
{
    member->random = member->random * 1664525 + 1013904223;
    return member->random >> 8;
}

/* A request within what is the coroutine's own; what it reads back is what it has written. */
static void CO_FN co_one_request(struct member *member, struct handle *handle)
{
    uint64_t start = (uint64_t)member->number * PER_COROUTINE;
    uint64_t grain = member->load->unaligned ? 1 : BLOCK;
    uint64_t offset, bytes;
    uint8_t from[PER_COROUTINE], to[PER_COROUTINE];

    /* Off the block boundary, so that neighbours meet in a block. */
    if (member->load->unaligned)
        start += BLOCK / 2;
    offset = start + next_random(member) % (PER_COROUTINE / 2) / grain * grain;
    bytes = MAX(next_random(member) % (PER_COROUTINE / 2) / grain * grain, grain);
    memset(from, (int)next_random(member), bytes);
    g_assert_cmpint(co_handle_pwrite(handle, offset, bytes, from, 0), ==, 0);
    g_assert_cmpint(co_handle_pread(handle, offset, bytes, to, 0), ==, 0);
    g_assert_cmpmem(from, bytes, to, bytes);
    if (next_random(member) % 8 == 0)
        g_assert_cmpint(co_handle_flush(handle), ==, 0);
    __atomic_add_fetch(&member->load->done, 1, __ATOMIC_RELAXED);
}

static void co_member(void *opaque)
{
    struct member *member = opaque;
    struct load *load = member->load;

    while (!__atomic_load_n(&load->stop, __ATOMIC_ACQUIRE))
        co_one_request(member, load->handles[next_random(member) % G_N_ELEMENTS(load->handles)]);
    co_group_done(&load->group);
    g_free(member);
}

/* Two handles, on a raw node and on the disk below it, used from all loops, the main one too. */
static void CO_FN co_load_start(struct load *load, struct graph *graph)
{
    load->graph = graph;
    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co', 'node-name': 'd',"
                          " 'size': 131072}}");
    load->handles[0] = co_test_handle(graph_find(graph, "r", NULL), PERM_CONSISTENT_READ | PERM_WRITE);
    load->handles[1] = co_test_handle(graph_find(graph, "d", NULL), PERM_CONSISTENT_READ | PERM_WRITE);
    for (unsigned i = 0; i < LOOPS; i++) {
        load->threads[i] = loop_thread_new(&(struct loop_options){0}, NULL);
        g_assert_nonnull(load->threads[i]);
    }
    for (unsigned i = 0; i < (LOOPS + 1) * COROUTINES; i++) {
        struct member *member = g_new0(struct member, 1);
        unsigned where = i % (LOOPS + 1);

        *member = (struct member){.load = load, .number = i, .random = i * 7919 + 1};
        co_group_add(&load->group, 1);
        co_spawn(where < LOOPS ? loop_thread_loop(load->threads[where]) : loop_current(), co_member, member);
    }
}

static void CO_FN co_load_stop(struct load *load)
{
    __atomic_store_n(&load->stop, true, __ATOMIC_RELEASE);
    co_group_wait(&load->group);
    for (unsigned i = 0; i < G_N_ELEMENTS(load->handles); i++)
        co_handle_free(load->handles[i]);
    for (unsigned i = 0; i < LOOPS; i++)
        co_loop_thread_free(load->threads[i]);
}

/* Lets the load go on until it has made so many requests more. */
static void CO_FN co_let_run(const struct load *load, uint64_t requests)
{
    uint64_t until = __atomic_load_n(&load->done, __ATOMIC_RELAXED) + requests;

    while (__atomic_load_n(&load->done, __ATOMIC_RELAXED) < until)
        co_yield ();
}

static void CO_FN co_test_drain(struct graph *graph)
{
    struct load load = {0};
    struct memory_disk *disk;
    struct node *node;

    memory_disk_options.yields = true;
    co_load_start(&load, graph);
    disk = memory_disk_of(graph, "d");
    node = graph_find(graph, "d", NULL);
    for (unsigned i = 0; i < DRAINS; i++) {
        struct drain drain;
        uint64_t calls;

        co_let_run(&load, 20);
        co_mutex_lock(&graph->lock);
        co_drain_begin(&drain, &node, 1);
        /* Nobody is inside, and nobody comes in. */
        g_assert_true(disk->resting);
        calls = __atomic_load_n(&disk->calls[MEMORY_DISK_WRITE], __ATOMIC_RELAXED);
        for (unsigned j = 0; j < 20; j++) {
            g_assert_cmpuint(__atomic_load_n(&disk->active, __ATOMIC_RELAXED), ==, 0);
            co_yield ();
        }
        /* Not atomic: that there is no race is part of the test. */
        g_assert_cmpuint(disk->calls[MEMORY_DISK_WRITE], ==, calls);
        drain_end(&drain);
        co_mutex_unlock(&graph->lock);
        g_assert_false(disk->resting);
    }
    co_load_stop(&load);
}

static void test_drain(void)
{
    run_graph_test(co_test_drain);
}

/* A drain of what one handle reaches leaves the other one alone. */
static void CO_FN co_test_other_handle(struct graph *graph)
{
    struct node *raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file':"
                                             " {'driver': 'null-co', 'node-name': 'd'}}");
    struct handle *upper = co_test_handle(raw, PERM_CONSISTENT_READ);
    struct handle *lower = co_test_handle(graph_find(graph, "d", NULL), PERM_CONSISTENT_READ);
    struct drain drain;
    char byte;

    co_mutex_lock(&graph->lock);
    co_drain_begin(&drain, &raw, 1);
    g_assert_cmpint(co_handle_pread(lower, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpuint(drain.handles->len, ==, 1);
    drain_end(&drain);
    co_mutex_unlock(&graph->lock);
    g_assert_cmpint(co_handle_pread(upper, 0, 1, &byte, 0), ==, 0);
    co_handle_free(upper);
    co_handle_free(lower);
}

static void test_other_handle(void)
{
    run_graph_test(co_test_other_handle);
}

/* The graph changes in every way that drains, under load: permissions, resizing, limits of what is above. */
static void CO_FN co_test_changes(struct graph *graph)
{
    struct load load = {0};

    memory_disk_options.yields = true;
    co_load_start(&load, graph);
    for (unsigned i = 0; i < DRAINS; i++) {
        struct handle *handle;

        co_let_run(&load, 20);
        g_assert_true(co_node_resize(graph_find(graph, "d", NULL), 131072 + (i % 2) * 4096, NULL));
        g_assert_nonnull(co_test_add(graph, "{'driver': 'raw', 'node-name': 'top', 'file': 'r'}", NULL));
        handle = co_test_handle(graph_find(graph, "top", NULL), PERM_CONSISTENT_READ | PERM_WRITE);
        node_set_write_threshold(graph_find(graph, "r", NULL), i % 2 ? 1024 : 0);
        g_assert_true(co_handle_set_permissions(load.handles[1], PERM_CONSISTENT_READ | PERM_WRITE, PERM_ALL, NULL));
        co_handle_free(handle);
        g_assert_true(co_graph_delete(graph, "top", NULL));
    }
    co_load_stop(&load);
}

static void test_changes(void)
{
    run_graph_test(co_test_changes);
}

/* Neighbours on different loops share blocks, which are read, changed and written back. */
static void CO_FN co_test_unaligned(struct graph *graph)
{
    struct load load = {.unaligned = true};

    memory_disk_options.yields = true;
    memory_disk_options.request_alignment = BLOCK;
    co_load_start(&load, graph);
    co_let_run(&load, 3000);
    co_load_stop(&load);
}

static void test_unaligned(void)
{
    run_graph_test(co_test_unaligned);
}

/* --- requests marked as serialising --- */

static void co_overlapping_read(void *opaque)
{
    struct load *load = opaque;
    uint8_t data[BLOCK];

    g_assert_cmpint(co_handle_pread(load->handles[0], 0, BLOCK, data, 0), ==, 0);
    /* All of the write or nothing of it. */
    g_assert_cmpint(data[0], ==, data[BLOCK - 1]);
    load->done++;
    co_group_done(&load->group);
}

static void co_marked_write(void *opaque)
{
    struct load *load = opaque;
    uint8_t data[BLOCK];

    memset(data, 7, BLOCK);
    g_assert_cmpint(co_handle_pwrite(load->handles[0], 0, BLOCK, data, IO_SERIALISING), ==, 0);
    load->done++;
    co_group_done(&load->group);
}

static void CO_FN co_test_marked(struct graph *graph)
{
    struct load load = {.graph = graph};
    uint8_t data[BLOCK];

    memory_disk_options.yields = true;
    co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co', 'node-name': 'd'}}");
    node_allow_serialising(graph_find(graph, "r", NULL));
    load.handles[0] = co_test_handle(graph_find(graph, "r", NULL), PERM_CONSISTENT_READ | PERM_WRITE);
    co_group_add(&load.group, 20);
    for (unsigned i = 0; i < 20; i++)
        co_spawn(loop_current(), i % 4 ? co_overlapping_read : co_marked_write, &load);
    co_yield ();
    /* Somebody is inside: who must not wait is told. */
    g_assert_cmpint(co_handle_pread(load.handles[0], 0, BLOCK, data, IO_SERIALISING | IO_NO_WAIT), ==, -EBUSY);
    co_group_wait(&load.group);
    g_assert_cmpuint(load.done, ==, 20);
    g_assert_cmpint(co_handle_pread(load.handles[0], 0, BLOCK, data, IO_SERIALISING | IO_NO_WAIT), ==, 0);
    co_handle_free(load.handles[0]);
}

static void test_marked(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        run_graph_test_simulated(co_test_marked, seed);
}

/* --- permissions of a handle that is in use --- */

static int co_linger(struct write_hook *hook, uint64_t offset, uint64_t bytes)
{
    for (unsigned i = 0; i < 5; i++)
        co_yield ();
    return 0;
}

static void co_write_until_stopped(void *opaque)
{
    struct load *load = opaque;
    uint8_t data[BLOCK] = {0};

    while (!load->stop) {
        int ret = co_handle_pwrite(load->handles[0], 0, BLOCK, data, 0);

        g_assert_true(!ret || ret == -EPERM);
        load->done += !ret;
        co_yield ();
    }
    co_group_done(&load->group);
}

/* Requests that were let in when they were allowed end before that changes, wherever they linger. */
static void CO_FN co_test_permissions(struct graph *graph)
{
    static const struct write_hook_ops ops = {.co_before = co_linger};
    struct write_hook hook = {.ops = &ops};
    struct load load = {.graph = graph};
    struct node *raw = co_test_add_ok(graph, "{'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co'}}");

    node_add_write_hook(raw, &hook);
    load.handles[0] = co_test_handle(raw, PERM_WRITE);
    co_group_add(&load.group, 3);
    for (unsigned i = 0; i < 3; i++)
        co_spawn(loop_current(), co_write_until_stopped, &load);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t done = load.done;

        g_assert_true(co_handle_set_permissions(load.handles[0], i % 2 ? PERM_WRITE : 0, PERM_ALL, NULL));
        while (i % 2 && load.done < done + 5)
            co_yield ();
    }
    load.stop = true;
    co_group_wait(&load.group);
    node_remove_write_hook(raw, &hook);
    co_handle_free(load.handles[0]);
}

static void test_permissions(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        run_graph_test_simulated(co_test_permissions, seed);
}

/* --- what a handle's owner hears --- */

struct listener {
    unsigned begins, ends;
};

static void co_hear_begin(void *opaque)
{
    ((struct listener *)opaque)->begins++;
}

static void hear_end(void *opaque)
{
    ((struct listener *)opaque)->ends++;
}

static void CO_FN co_test_owner(struct graph *graph)
{
    static const struct handle_ops ops = {.co_drain_begin = co_hear_begin, .drain_end = hear_end};
    struct listener listener = {0};
    struct handle_options options = {.name = "a test", .shared = PERM_ALL, .ops = &ops, .opaque = &listener};
    struct node *node = co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'd'}");
    struct handle *handle = co_handle_new(node, &options, NULL);
    struct drain one, two;

    co_mutex_lock(&graph->lock);
    co_drain_begin(&one, &node, 1);
    co_drain_begin(&two, &node, 1);
    g_assert_cmpuint(listener.begins, ==, 1);
    drain_end(&one);
    g_assert_cmpuint(listener.ends, ==, 0);
    drain_end(&two);
    g_assert_cmpuint(listener.ends, ==, 1);
    co_mutex_unlock(&graph->lock);
    co_handle_drain(handle);
    g_assert_cmpuint(listener.begins, ==, 2);
    g_assert_cmpuint(listener.ends, ==, 2);
    co_handle_free(handle);
}

static void test_owner(void)
{
    run_graph_test(co_test_owner);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/drain/drain", test_drain);
    g_test_add_func("/drain/other-handle", test_other_handle);
    g_test_add_func("/drain/changes", test_changes);
    g_test_add_func("/drain/unaligned", test_unaligned);
    g_test_add_func("/drain/marked", test_marked);
    g_test_add_func("/drain/permissions", test_permissions);
    g_test_add_func("/drain/owner", test_owner);
    return g_test_run();
}
