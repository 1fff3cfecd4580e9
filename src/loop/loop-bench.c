/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the loop itself costs: switches, starts, wakes, and a small server of the shape that exports have (one coroutine
 * receives, one a request reads the file, one gathers what they have to send). Prints a line a measurement; the time of
 * the server is the processor time of its thread and of whatever the kernel runs on its behalf.
 *
 *     loop-bench [-b io_uring|epoll]
 *     loop-bench [-b io_uring|epoll] [-d DEPTH] [-n REQUESTS] [-p POLL_NS] [-w] FILE
 */
#include <assert.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum { BLOCK = 4096, HEADER = 16, BATCH_MAX = 256 };

struct bench {
    const char *file;
    unsigned depth;
    unsigned requests;
    bool write;
    uint64_t blocks;

    int fd;
    int socket;
    int client_socket;
    struct co_group in_flight;

    /* Replies to send; the sender's. */
    struct coroutine *sender;
    bool sender_waits;
    bool ending;
    struct iovec out[2 * BATCH_MAX];
    struct request *out_requests[BATCH_MAX];
    unsigned out_count;
};

struct request {
    struct bench *bench;
    uint64_t block;
    uint64_t cookie;
    char header[HEADER];
    char *data;
};

static double seconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void report(const char *what, double spent, unsigned count)
{
    printf("%-32s %9.1f ns\n", what, spent / count * 1e9);
}

/* --- the client: another process, so that its time does not count --- */

static void client_exact(int fd, char *data, size_t size, bool write_it)
{
    while (size) {
        ssize_t moved = write_it ? write(fd, data, size) : read(fd, data, size);

        assert(moved > 0);
        data += moved;
        size -= (size_t)moved;
    }
}

static void client_main(struct bench *bench)
{
    size_t request_size = HEADER + (bench->write ? BLOCK : 0);
    size_t reply_size = HEADER + (bench->write ? 0 : BLOCK);
    char *out = g_malloc0(request_size * bench->depth);
    char *in = g_malloc(1 << 20);
    size_t got = 0;
    unsigned sent = 0;
    unsigned ready = bench->depth;
    unsigned answered = 0;
    uint64_t random = 88172645463325252u;

    while (answered < bench->requests) {
        unsigned batch = MIN(ready, bench->requests - sent);
        ssize_t moved;

        for (unsigned i = 0; i < batch; i++) {
            uint64_t block;

            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            block = random % bench->blocks;
            memcpy(out + i * request_size, &block, 8);
        }
        client_exact(bench->client_socket, out, batch * request_size, true);
        sent += batch;
        ready = 0;
        moved = read(bench->client_socket, in, 1 << 20);
        assert(moved > 0);
        got += (size_t)moved;
        while (got >= reply_size) {
            got -= reply_size;
            answered++;
            ready++;
        }
    }
    close(bench->client_socket);
    _exit(0);
}

/* --- the server --- */

static void co_request(void *opaque)
{
    struct request *request = opaque;
    struct bench *bench = request->bench;
    struct iovec iov = {.iov_base = request->data, .iov_len = BLOCK};
    ssize_t moved;

    if (bench->write)
        moved = co_file_pwritev(bench->fd, &iov, 1, request->block * BLOCK, 0, FILE_ENGINE_DEFAULT);
    else
        moved = co_file_preadv(bench->fd, &iov, 1, request->block * BLOCK, FILE_ENGINE_DEFAULT);
    assert(moved == BLOCK);
    assert(bench->out_count < BATCH_MAX);
    bench->out_requests[bench->out_count++] = request;
    if (bench->sender_waits) {
        bench->sender_waits = false;
        co_wake(bench->sender);
    }
}

static void co_send(void *opaque)
{
    struct bench *bench = opaque;

    bench->sender = co_self();
    for (;;) {
        struct msghdr message = {.msg_iov = bench->out};
        struct request *done[BATCH_MAX];
        unsigned count;
        size_t size = 0;

        while (!bench->out_count && !bench->ending) {
            bench->sender_waits = true;
            co_suspend();
        }
        count = bench->out_count;
        if (!count)
            break;
        for (unsigned i = 0; i < count; i++) {
            done[i] = bench->out_requests[i];
            bench->out[message.msg_iovlen++] = (struct iovec){done[i]->header, HEADER};
            if (!bench->write)
                bench->out[message.msg_iovlen++] = (struct iovec){done[i]->data, BLOCK};
            size += HEADER + (bench->write ? 0 : BLOCK);
        }
        bench->out_count = 0;
        while (size) {
            ssize_t moved = co_socket_send_message(bench->socket, &message, MSG_WAITALL);

            assert(moved > 0);
            size -= (size_t)moved;
            while (moved) {
                size_t part = MIN((size_t)moved, message.msg_iov->iov_len);

                message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + part;
                message.msg_iov->iov_len -= part;
                moved -= (ssize_t)part;
                if (!message.msg_iov->iov_len) {
                    message.msg_iov++;
                    message.msg_iovlen--;
                }
            }
        }
        for (unsigned i = 0; i < count; i++) {
            loop_buffer_put(done[i]->data, BLOCK);
            loop_release(done[i], sizeof(*done[i]));
            co_group_done(&bench->in_flight);
        }
    }
}

static void co_serve(void *opaque)
{
    struct bench *bench = opaque;
    size_t request_size = HEADER + (bench->write ? BLOCK : 0);
    struct co_task *sender = co_task_start(loop_current(), co_send, bench);
    char *buffer = g_malloc(1 << 18);
    size_t have = 0;

    for (;;) {
        ssize_t moved = co_socket_recv(bench->socket, buffer + have, (1 << 18) - have, 0);
        size_t at = 0;

        if (moved <= 0)
            break;
        have += (size_t)moved;
        for (; have - at >= request_size; at += request_size) {
            struct request *request = loop_alloc(sizeof(*request));

            request->bench = bench;
            request->data = loop_buffer_get(BLOCK);
            memcpy(&request->block, buffer + at, 8);
            if (bench->write)
                memcpy(request->data, buffer + at + HEADER, BLOCK);
            memset(request->header, 0, HEADER);
            co_group_add(&bench->in_flight, 1);
            co_spawn(loop_current(), co_request, request);
        }
        have -= at;
        memmove(buffer, buffer + at, have);
    }
    co_group_wait(&bench->in_flight);
    bench->ending = true;
    co_wake(bench->sender);
    co_task_join(sender);
    g_free(buffer);
}

static void co_bench_serve(void *opaque)
{
    struct bench *bench = opaque;
    double wall;
    double cpu;
    struct stat st;
    int fds[2];
    pid_t pid;

    bench->fd = co_file_open(bench->file, O_RDWR, 0);
    assert(bench->fd >= 0);
    fstat(bench->fd, &st);
    bench->blocks = (uint64_t)st.st_size / BLOCK;
    assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    bench->socket = fds[0];
    bench->client_socket = fds[1];
    pid = fork();
    if (!pid) {
        close(fds[0]);
        client_main(bench);
    }
    close(fds[1]);
    wall = seconds(CLOCK_MONOTONIC);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    co_serve(bench);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = seconds(CLOCK_MONOTONIC) - wall;
    printf("%-8s %-5s depth %3u: %6.2f us CPU a request, %7.0f requests a second\n",
           loop_backend_name(loop_get_backend(loop_current())), bench->write ? "write" : "read", bench->depth,
           cpu / bench->requests * 1e6, bench->requests / wall);
    fd_close(bench->socket);
    fd_close(bench->fd);
}

/* --- single operations --- */

static void co_nothing(void *opaque)
{
}

struct ping {
    struct coroutine *here;
    struct coroutine *there;
    bool ending;
};

static void co_pong(void *opaque)
{
    struct ping *ping = opaque;

    ping->there = co_self();
    while (!ping->ending) {
        co_wake(ping->here);
        co_suspend();
    }
}

static void co_bench_single(void *opaque)
{
    enum { COUNT = 1000000 };
    struct co_mutex mutex = {0};
    struct ping ping = {.here = co_self()};
    struct co_task *pong;
    double start;

    start = seconds(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < COUNT / 64; i++) {
        for (unsigned j = 0; j < 64; j++)
            co_spawn(loop_current(), co_nothing, NULL);
        co_yield ();
    }
    report("start and end a coroutine", seconds(CLOCK_MONOTONIC) - start, COUNT);

    pong = co_task_start(loop_current(), co_pong, &ping);
    co_suspend();
    start = seconds(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < COUNT; i++) {
        co_wake(ping.there);
        co_suspend();
    }
    report("wake, switch and back", seconds(CLOCK_MONOTONIC) - start, COUNT);
    ping.ending = true;
    co_wake(ping.there);
    co_task_join(pong);

    start = seconds(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < COUNT; i++) {
        co_mutex_lock(&mutex);
        co_mutex_unlock(&mutex);
    }
    report("lock and unlock a mutex", seconds(CLOCK_MONOTONIC) - start, COUNT);

    start = seconds(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < COUNT; i++)
        loop_buffer_put(loop_buffer_get(BLOCK), BLOCK);
    report("get and put a buffer", seconds(CLOCK_MONOTONIC) - start, COUNT);

    start = seconds(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < COUNT; i++)
        co_yield ();
    report("a turn with nothing in it", seconds(CLOCK_MONOTONIC) - start, COUNT);
}

int main(int argc, char **argv)
{
    struct bench bench = {.depth = 32, .requests = 500000};
    struct loop_options options = {0};
    AUTO(error) err = NULL;
    struct loop *loop;
    int option;

    while ((option = getopt(argc, argv, "b:d:n:p:w")) != -1) {
        if (option == 'b')
            options.backend = strcmp(optarg, "epoll") ? LOOP_IO_URING : LOOP_EPOLL;
        else if (option == 'd')
            bench.depth = (unsigned)atoi(optarg);
        else if (option == 'n')
            bench.requests = (unsigned)atoi(optarg);
        else if (option == 'p')
            options.poll_max_ns = strtoull(optarg, NULL, 10);
        else if (option == 'w')
            bench.write = true;
        else
            return 2;
    }
    loop = loop_new(&options, &err);
    if (!loop) {
        fprintf(stderr, "%s\n", error_message(err));
        return 1;
    }
    if (optind < argc) {
        bench.file = argv[optind];
        co_run(loop, co_bench_serve, &bench);
    } else {
        co_run(loop, co_bench_single, &bench);
    }
    loop_free(loop);
    return 0;
}
