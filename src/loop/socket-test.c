/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moving data and waiting, on each back end. */
#include "loop/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop-test.h"

/* --- data --- */

struct echo {
    int fd;
    int result;
};

static void co_echo(void *opaque)
{
    struct echo *echo = opaque;
    char data[64];
    ssize_t size;

    while ((size = co_socket_recv(echo->fd, data, sizeof(data), 0)) > 0) {
        for (ssize_t done = 0; done < size;) {
            ssize_t moved = co_socket_send(echo->fd, data + done, (size_t)(size - done), 0);

            g_assert_cmpint(moved, >, 0);
            done += moved;
        }
    }
    echo->result = (int)size;
}

static void co_test_echo(void *opaque)
{
    struct echo echo = {.result = -1};
    struct co_task *task;
    int fds[2];
    char data[8];

    loop_test_socket_pair(fds);
    echo.fd = fds[1];
    task = co_task_start(loop_current(), co_echo, &echo);
    for (int i = 0; i < 100; i++) {
        for (size_t sent = 0; sent < 5;)
            sent += (size_t)co_socket_send(fds[0], &"hello"[sent], 5 - sent, 0);
        g_assert_cmpint(co_socket_recv(fds[0], data, 5, MSG_WAITALL), ==, 5);
        g_assert_cmpmem(data, 5, "hello", 5);
    }
    fd_close(fds[0]);
    co_task_join(task);
    g_assert_cmpint(echo.result, ==, 0);
    g_assert_cmpint(co_socket_send(echo.fd, "x", 1, 0), ==, -EPIPE); /* and no signal */
    fd_close(echo.fd);
}

struct flood {
    int fd;
    size_t size;
};

/* Sends far more than fits, in messages of several pieces. */
static void co_flood(void *opaque)
{
    struct flood *flood = opaque;
    g_autofree char *data = g_malloc(flood->size);

    for (size_t i = 0; i < flood->size; i++)
        data[i] = (char)(i * 31 >> 3);
    for (size_t done = 0; done < flood->size;) {
        size_t half = (flood->size - done) / 2;
        struct iovec iov[] = {{data + done, half}, {data + done + half, flood->size - done - half}};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        ssize_t moved = co_socket_send_message(flood->fd, &message, 0);

        g_assert_cmpint(moved, >, 0);
        done += (size_t)moved;
    }
    fd_close(flood->fd);
}

static void co_test_flood(void *opaque)
{
    struct flood flood = {.size = 4 << 20};
    struct co_task *task;
    size_t got = 0;
    int fds[2];

    loop_test_socket_pair(fds);
    flood.fd = fds[0];
    task = co_task_start(loop_current(), co_flood, &flood);
    for (;;) {
        char one[1000];
        char two[3000];
        struct iovec iov[] = {{one, sizeof(one)}, {two, sizeof(two)}};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        ssize_t moved = co_socket_recv_message(fds[1], &message, 0);

        g_assert_cmpint(moved, >=, 0);
        if (!moved)
            break;
        for (size_t i = 0; i < (size_t)moved; i++) {
            char byte = i < sizeof(one) ? one[i] : two[i - sizeof(one)];

            g_assert_cmpint(byte, ==, (char)((got + i) * 31 >> 3));
        }
        got += (size_t)moved;
    }
    g_assert_cmpuint(got, ==, flood.size);
    co_task_join(task);
    fd_close(fds[1]);
}

static void co_test_at_once(void *opaque)
{
    int fds[2];
    char data[2];

    loop_test_socket_pair(fds);
    g_assert_cmpint(co_socket_recv(fds[0], data, 1, MSG_DONTWAIT), ==, -EAGAIN);
    g_assert_cmpint(co_socket_send(fds[1], "a", 1, MSG_DONTWAIT), ==, 1);
    g_assert_cmpint(co_fd_poll(fds[0], POLLIN), ==, POLLIN);
    g_assert_cmpint(co_socket_recv(fds[0], data, 1, MSG_PEEK), ==, 1);
    g_assert_cmpint(co_socket_recv(fds[0], data, 1, MSG_DONTWAIT), ==, 1);
    g_assert_cmpint(co_fd_poll(fds[0], POLLOUT), ==, POLLOUT);
    fd_close(fds[1]);
    g_assert_cmpint(co_fd_poll(fds[0], POLLIN) & (POLLIN | POLLHUP), ==, POLLIN | POLLHUP);
    fd_close(fds[0]);
}

/* One coroutine receives while another sends on the same descriptor. */
static void co_test_both_ways(void *opaque)
{
    struct echo echo = {.result = -1};
    struct co_task *task;
    int fds[2];
    char data[8];

    loop_test_socket_pair(fds);
    echo.fd = fds[0];
    task = co_task_start(loop_current(), co_echo, &echo);
    co_yield ();
    g_assert_cmpint(co_socket_send(fds[0], "out", 3, 0), >, 0);
    g_assert_cmpint(co_socket_recv(fds[1], data, sizeof(data), 0), >, 0);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(echo.result, ==, -ECANCELED);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

/* --- waits that end early --- */

static void co_test_cancel(void *opaque)
{
    struct echo echo = {.result = -1};
    struct co_task *task;
    int fds[2];

    loop_test_socket_pair(fds);
    echo.fd = fds[1];
    task = co_task_start(loop_current(), co_echo, &echo);
    g_assert_cmpint(co_sleep_ns(2000000), ==, 0);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpint(echo.result, ==, -ECANCELED);
    /* The descriptor is as good as before. */
    echo.result = -1;
    task = co_task_start(loop_current(), co_echo, &echo);
    g_assert_cmpint(co_socket_send(fds[0], "a", 1, 0), ==, 1);
    g_assert_cmpint(co_socket_recv(fds[0], &(char){0}, 1, 0), ==, 1);
    fd_close(fds[0]);
    co_task_join(task);
    g_assert_cmpint(echo.result, ==, 0);
    fd_close(fds[1]);
}

static void co_test_deadline(void *opaque)
{
    struct co_deadline deadline;
    int fds[2];
    char data;

    loop_test_socket_pair(fds);
    co_deadline_begin(&deadline, 1000000);
    g_assert_cmpint(co_socket_recv(fds[0], &data, 1, 0), ==, -ETIMEDOUT);
    g_assert_cmpint(co_fd_poll(fds[0], POLLIN), ==, -ETIMEDOUT);
    co_deadline_end(&deadline);
    co_deadline_begin(&deadline, 1000000);
    g_assert_cmpint(co_fd_poll(fds[0], POLLIN), ==, -ETIMEDOUT);
    co_deadline_end(&deadline);
    co_deadline_begin(&deadline, NS_PER_S * 3600);
    g_assert_cmpint(co_socket_send(fds[1], "a", 1, 0), ==, 1);
    g_assert_cmpint(co_socket_recv(fds[0], &data, 1, 0), ==, 1);
    co_deadline_end(&deadline);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

/* --- other descriptors --- */

static void co_write_later(void *opaque)
{
    const int *fd = opaque;

    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    g_assert_cmpint(co_fd_write(*fd, "pipe", 4), ==, 4);
}

static void co_use_pipe(int flags)
{
    struct co_deadline deadline;
    struct co_task *task;
    char data[8];
    int fds[2];

    g_assert_cmpint(pipe2(fds, flags | O_CLOEXEC), ==, 0);
    co_deadline_begin(&deadline, 1000000);
    g_assert_cmpint(co_fd_read(fds[0], data, sizeof(data)), ==, -ETIMEDOUT);
    co_deadline_end(&deadline);
    task = co_task_start(loop_current(), co_write_later, &fds[1]);
    g_assert_cmpint(co_fd_read(fds[0], data, sizeof(data)), ==, 4);
    g_assert_cmpmem(data, 4, "pipe", 4);
    co_task_join(task);
    fd_close(fds[1]);
    g_assert_cmpint(co_fd_read(fds[0], data, sizeof(data)), ==, 0);
    fd_close(fds[0]);
}

static void co_test_pipe(void *opaque)
{
    co_use_pipe(0);
    co_use_pipe(O_NONBLOCK);
}

/* A pipe that is full does not stop the thread, whatever its mode. */
static void co_test_pipe_full(void *opaque)
{
    static char data[1 << 20];
    struct co_deadline deadline;
    ssize_t moved;
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    co_deadline_begin(&deadline, 20000000);
    do {
        moved = co_fd_write(fds[1], data, sizeof(data));
    } while (moved > 0);
    co_deadline_end(&deadline);
    g_assert_cmpint(moved, ==, -ETIMEDOUT);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

static void co_test_pipe_closed(void *opaque)
{
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    fd_close(fds[0]);
    g_assert_cmpint(co_fd_write(fds[1], "x", 1), ==, -EPIPE);
    fd_close(fds[1]);
}

static void co_test_terminal(void *opaque)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct co_deadline deadline;
    char data[16] = {0};
    int slave;

    g_assert_cmpint(master, >=, 0);
    g_assert_cmpint(grantpt(master), ==, 0);
    g_assert_cmpint(unlockpt(master), ==, 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    g_assert_cmpint(slave, >=, 0);
    co_deadline_begin(&deadline, 1000000);
    g_assert_cmpint(co_fd_read(slave, data, sizeof(data)), ==, -ETIMEDOUT);
    co_deadline_end(&deadline);
    g_assert_cmpint(co_fd_write(master, "line\n", 5), ==, 5);
    g_assert_cmpint(co_fd_read(slave, data, sizeof(data)), ==, 5);
    g_assert_cmpstr(data, ==, "line\n");
    fd_close(slave);
    fd_close(master);
}

static void co_raise(void *opaque)
{
    g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    kill(getpid(), SIGUSR1);
}

static void co_test_signal(void *opaque)
{
    struct co_deadline deadline;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    co_deadline_begin(&deadline, 1000000);
    g_assert_cmpint(co_signal_wait(&set), ==, -ETIMEDOUT);
    co_deadline_end(&deadline);
    co_spawn(loop_current(), co_raise, NULL);
    g_assert_cmpint(co_signal_wait(&set), ==, SIGUSR1);
}

/* Passes a descriptor along with data. */
static void co_test_pass(void *opaque)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char data = 'x';
    struct iovec iov = {&data, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int event = eventfd(0, EFD_CLOEXEC);
    int passed = -1;
    int fds[2];

    loop_test_socket_pair(fds);
    control.header =
        (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &event, sizeof(event));
    g_assert_cmpint(co_socket_send_message(fds[0], &message, 0), ==, 1);
    memset(&control, 0, sizeof(control));
    message.msg_controllen = sizeof(control);
    g_assert_cmpint(co_socket_recv_message(fds[1], &message, 0), ==, 1);
    memcpy(&passed, CMSG_DATA(&control.header), sizeof(passed));
    g_assert_cmpint(passed, >=, 0);
    g_assert_cmpint(passed, !=, event);
    g_assert_cmpint(fcntl(passed, F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
    fd_close(passed);
    fd_close(event);
    fd_close(fds[0]);
    fd_close(fds[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_DFL);
    loop_test_add("socket/echo", co_test_echo);
    loop_test_add("socket/flood", co_test_flood);
    loop_test_add("socket/at-once", co_test_at_once);
    loop_test_add("socket/both-ways", co_test_both_ways);
    loop_test_add("socket/cancel", co_test_cancel);
    loop_test_add("socket/deadline", co_test_deadline);
    loop_test_add_real("socket/pipe", co_test_pipe);
    loop_test_add_real("socket/pipe-full", co_test_pipe_full);
    loop_test_add_real("socket/pipe-closed", co_test_pipe_closed);
    loop_test_add_real("socket/terminal", co_test_terminal);
    loop_test_add_real("socket/signal", co_test_signal);
    loop_test_add_real("socket/pass", co_test_pass);
    return loop_test_finish();
}
