/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The same cases on each back end: what a loop promises of time, work, descriptors and cancellation. */
#include "loop/loop-test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/socket.h"

static void co_test_sleep(void *opaque)
{
    int64_t before_ns = loop_now_ns();

    g_assert_cmpint(co_sleep_ns(2000000), ==, 0);
    g_assert_cmpint(loop_now_ns() - before_ns, >=, 2000000);
}

static int add_one(void *opaque)
{
    int *value = opaque;

    return ++*value;
}

static void co_test_worker(void *opaque)
{
    int value = 41;

    g_assert_cmpint(co_worker_run(add_one, &value), ==, 42);
    g_assert_cmpint(value, ==, 42);
}

struct echo {
    int fd;
    int result;
};

static void co_echo(void *opaque)
{
    struct echo *echo = opaque;
    char data[64];
    ssize_t size;

    while ((size = co_socket_recv(echo->fd, data, sizeof(data), 0)) > 0)
        g_assert_cmpint(co_socket_send(echo->fd, data, (size_t)size, 0), ==, size);
    echo->result = (int)size;
    fd_close(echo->fd);
}

static void co_test_echo(void *opaque)
{
    struct echo echo = {.result = -1};
    struct co_task *task;
    int fds[2];
    char data[64];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    echo.fd = fds[1];
    task = co_task_start(loop_current(), co_echo, &echo);
    for (int i = 0; i < 100; i++) {
        g_assert_cmpint(co_socket_send(fds[0], "hello", 5, 0), ==, 5);
        g_assert_cmpint(co_socket_recv(fds[0], data, sizeof(data), 0), ==, 5);
        g_assert_cmpmem(data, 5, "hello", 5);
    }
    fd_close(fds[0]);
    co_task_join(task);
    g_assert_cmpint(echo.result, ==, 0);
}

static void co_test_cancel(void *opaque)
{
    struct echo echo = {.result = -1};
    struct co_task *task;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    echo.fd = fds[1];
    task = co_task_start(loop_current(), co_echo, &echo);
    co_yield ();
    co_yield ();
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(echo.result, ==, -ECANCELED);
    fd_close(fds[0]);
}

static void co_test_deadline(void *opaque)
{
    struct co_deadline outer;
    struct co_deadline inner;
    int fds[2];
    char data;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    co_deadline_begin(&outer, 1000000);
    co_deadline_begin(&inner, INT64_MAX);
    g_assert_cmpint(co_socket_recv(fds[0], &data, 1, 0), ==, -ETIMEDOUT);
    g_assert_cmpint(co_fd_poll(fds[0], POLLIN), ==, -ETIMEDOUT);
    g_assert_cmpint(co_sleep_ns(1), ==, -ETIMEDOUT);
    co_deadline_end(&inner);
    co_deadline_end(&outer);
    g_assert_cmpint(co_fd_poll(fds[0], POLLOUT), ==, POLLOUT);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

static void co_test_file(void *opaque)
{
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "ashlar-loop-XXXXXX", NULL);
    int made = mkstemp(path);
    AUTO(fd) fd = -1;
    char data[4096];
    struct stat st;

    g_assert_cmpint(made, >=, 0);
    close(made);
    fd = co_file_open(path, O_RDWR, 0);
    g_assert_cmpint(fd, >=, 0);
    memset(data, 'a', sizeof(data));
    g_assert_cmpint(co_file_write_exact(fd, data, sizeof(data), 4096), ==, 0);
    g_assert_cmpint(co_file_sync(fd, true), ==, 0);
    g_assert_cmpint(co_file_stat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 8192);
    g_assert_cmpint(co_file_read_exact(fd, data, sizeof(data), 0), ==, 0);
    g_assert_cmpint(data[0], ==, 0);
    g_assert_cmpint(co_file_read_exact(fd, data, sizeof(data), 4096), ==, 0);
    g_assert_cmpint(data[0], ==, 'a');
    g_assert_cmpint(co_file_read_exact(fd, data, sizeof(data), 6000), ==, -EIO);
    g_assert_cmpint(co_file_unlink(path), ==, 0);
    g_assert_cmpint(co_file_open(path, O_RDWR, 0), ==, -ENOENT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add("sleep", co_test_sleep);
    loop_test_add("worker", co_test_worker);
    loop_test_add_real("echo", co_test_echo);
    loop_test_add_real("cancel", co_test_cancel);
    loop_test_add_real("deadline", co_test_deadline);
    loop_test_add_real("file", co_test_file);
    return g_test_run();
}
