/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Four queues of a mounted file on four loops, with a socket in the place of the kernel's device: whichever queue gets
 * a request does it, on one disk. Meant for the thread sanitizer, too.
 */
#include <assert.h>
#include <glib.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/handle.h"
#include "block/memory-disk-test.h"
#include "export/fuse/session.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum { QUEUES = 4, BLOCK = 4096, BLOCKS = 64, ROUNDS = 40, AT_ONCE = 16 };

struct stage {
    struct fuse_file file;
    struct loop_thread *threads[QUEUES];
    int kernel; /* the other end of the device */
};

static void ignore_unmount(struct fuse_file *file)
{
}

static void CO_FN co_begin(struct stage *stage, struct graph *graph)
{
    struct loop *loops[QUEUES];
    int pair[2];

    stage->file.handle =
        co_test_handle(co_test_add_ok(graph, "{'driver': 'null-co', 'node-name': 'disk', 'size': 1048576}"),
                       PERM_CONSISTENT_READ | PERM_WRITE);
    stage->file.main = loop_current();
    stage->file.writable = true;
    stage->file.unmounted = ignore_unmount;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), ==, 0);
    stage->kernel = pair[1];
    for (unsigned i = 0; i < QUEUES; i++) {
        stage->threads[i] = loop_thread_new(&(struct loop_options){.name = "queue"}, NULL);
        g_assert_nonnull(stage->threads[i]);
        loops[i] = loop_thread_loop(stage->threads[i]);
    }
    co_fuse_file_open_queues(&stage->file, pair[0], loops, QUEUES);
    g_assert_cmpuint(stage->file.queue_count, ==, QUEUES);
    fuse_file_start(&stage->file);
}

/* A write of block `unique`, filled with `value`, or a read of it. */
static void CO_FN co_ask(struct stage *stage, uint64_t unique, bool write, uint8_t value)
{
    struct {
        struct fuse_in_header header;
        union {
            struct fuse_write_in write;
            struct fuse_read_in read;
        };
        uint8_t data[BLOCK];
    } request = {.header = {.unique = unique, .nodeid = FUSE_ROOT_ID}};
    size_t size = sizeof(request.header) + sizeof(request.read);

    static_assert(sizeof(request.write) == sizeof(request.read), "as the kernel has it");
    if (write) {
        request.header.opcode = FUSE_WRITE;
        request.write = (struct fuse_write_in){.offset = unique * BLOCK, .size = BLOCK};
        memset(request.data, value, BLOCK);
        size = sizeof(request);
    } else {
        request.header.opcode = FUSE_READ;
        request.read = (struct fuse_read_in){.offset = unique * BLOCK, .size = BLOCK};
    }
    request.header.len = (uint32_t)size;
    g_assert_cmpint(co_socket_send(stage->kernel, &request, size, 0), ==, size);
}

/* The next answer: of which block it is. */
static uint64_t CO_FN co_answer(struct stage *stage, bool write, const uint8_t *model)
{
    struct {
        struct fuse_out_header header;
        uint8_t data[BLOCK];
    } answer;
    ssize_t got = co_socket_recv(stage->kernel, &answer, sizeof(answer), 0);

    g_assert_cmpint(got, ==, answer.header.len);
    g_assert_cmpint(answer.header.error, ==, 0);
    g_assert_cmpuint(answer.header.unique, <, BLOCKS);
    if (write) {
        g_assert_cmpint(got, ==, sizeof(answer.header) + sizeof(struct fuse_write_out));
    } else {
        g_assert_cmpint(got, ==, sizeof(answer));
        for (unsigned i = 0; i < BLOCK; i++)
            g_assert_cmpuint(answer.data[i], ==, model[answer.header.unique]);
    }
    return answer.header.unique;
}

/* All blocks, several at once, each answered once. */
static void CO_FN co_round(struct stage *stage, bool write, uint8_t *model, uint8_t value)
{
    uint64_t answered = 0;
    unsigned asked = 0;

    for (unsigned done = 0; done < BLOCKS; done++) {
        uint64_t unique;

        for (; asked < BLOCKS && asked < done + AT_ONCE; asked++) {
            if (write)
                model[asked] = (uint8_t)(value + asked);
            co_ask(stage, asked, write, model[asked]);
        }
        unique = co_answer(stage, write, model);
        g_assert_false(answered >> unique & 1);
        answered |= UINT64_C(1) << unique;
    }
}

static void test_queues(struct graph *graph)
{
    struct stage stage = {.kernel = -1};
    uint8_t model[BLOCKS];
    int device;

    co_begin(&stage, graph);
    device = stage.file.queues[0].fd;
    for (unsigned round = 0; round < ROUNDS; round++) {
        co_round(&stage, true, model, (uint8_t)round);
        co_round(&stage, false, model, 0);
    }
    co_fuse_file_stop(&stage.file);
    fuse_file_close_queues(&stage.file);
    fuse_file_free_queues(&stage.file);
    fd_close(device);
    fd_close(stage.kernel);
    co_handle_free(stage.file.handle);
    for (unsigned i = 0; i < QUEUES; i++)
        co_loop_thread_free(stage.threads[i]);
}

static void run(void)
{
    run_graph_test(test_queues);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fuse/queues", run);
    return g_test_run();
}
