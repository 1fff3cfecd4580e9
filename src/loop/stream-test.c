/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/stream.h"

#include <errno.h>
#include <string.h>

#include "loop/coroutine.h"
#include "loop/loop-test.h"

static void make_pair(struct stream *ret_streams[2])
{
    int fds[2];

    loop_test_socket_pair(fds);
    ret_streams[0] = stream_new_socket(fds[0]);
    ret_streams[1] = stream_new_socket(fds[1]);
}

enum { PIECES = 3000, PIECE = 777 };

static void co_write_all(void *opaque)
{
    struct stream *stream = opaque;
    g_autofree char *data = g_malloc(PIECES * PIECE);
    g_autofree struct iovec *iov = g_new(struct iovec, PIECES + 1);

    for (size_t i = 0; i < PIECES * PIECE; i++)
        data[i] = (char)(i % 251);
    iov[0] = (struct iovec){data, 0};
    for (size_t i = 0; i < PIECES; i++)
        iov[i + 1] = (struct iovec){data + i * PIECE, PIECE};
    /* More pieces than the system takes at once, and one that is empty. */
    g_assert_cmpint(co_stream_writev(stream, iov, PIECES + 1), ==, 0);
    g_assert_cmpint(co_stream_write(stream, "end", 3), ==, 0);
    co_stream_shutdown(stream);
}

static void co_test_exact(void *opaque)
{
    struct stream *streams[2];
    g_autofree char *data = g_malloc(PIECES * PIECE);
    struct co_task *task;
    char rest[8];

    make_pair(streams);
    task = co_task_start(loop_current(), co_write_all, streams[0]);
    g_assert_cmpint(co_stream_read_exact(streams[1], data, PIECES * PIECE), ==, 0);
    for (size_t i = 0; i < PIECES * PIECE; i++)
        g_assert_cmpint(data[i], ==, (char)(i % 251));
    /* The end comes in the middle of what was asked. */
    g_assert_cmpint(co_stream_read_exact(streams[1], rest, 4), ==, -ECONNRESET);
    g_assert_cmpint(co_stream_read(streams[1], rest, 4), ==, 0);
    co_task_join(task);
    /* The other direction is still open. */
    g_assert_cmpint(co_stream_write(streams[1], "back", 4), ==, 0);
    g_assert_cmpint(co_stream_read_exact(streams[0], rest, 4), ==, 0);
    g_assert_cmpmem(rest, 4, "back", 4);
    stream_free(streams[0]);
    stream_free(streams[1]);
    stream_free(NULL);
}

static void co_read_one(void *opaque)
{
    struct stream *stream = opaque;
    char data;

    g_assert_cmpint(co_stream_read(stream, &data, 1), <=, 0);
}

static void co_test_abort(void *opaque)
{
    struct stream *streams[2];
    struct co_task *task;

    make_pair(streams);
    task = co_task_start(loop_current(), co_read_one, streams[0]);
    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    stream_abort(streams[0]);
    co_task_join(task);
    g_assert_cmpint(co_stream_write(streams[0], "x", 1), ==, -EPIPE);
    stream_free(streams[0]);
    stream_free(streams[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add("stream/exact", co_test_exact);
    loop_test_add("stream/abort", co_test_abort);
    return loop_test_finish();
}
