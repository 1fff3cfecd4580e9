/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/daemonize.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/trace.h"
#include "loop/file.h"
#include "loop/loop.h"

/* The status for the parent to end with, once the child has started or ended. */
static int wait_for_child(pid_t child, int fd)
{
    char started;
    ssize_t size;
    int status;

    do {
        size = read(fd, &started, 1);
    } while (size < 0 && errno == EINTR);
    if (size == 1)
        return EXIT_SUCCESS;

    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return EXIT_FAILURE;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

enum daemonize_side daemonize_fork(int *ret_value, struct error **err)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_set_errno(err, errno, "cannot make a pipe");
        return DAEMONIZE_FAILED;
    }

    pid_t child = fork();
    if (child < 0) {
        error_set_errno(err, errno, "cannot fork");
        fd_close(fds[0]);
        fd_close(fds[1]);
        return DAEMONIZE_FAILED;
    }
    if (child > 0) {
        fd_close(fds[1]);
        *ret_value = wait_for_child(child, fds[0]);
        fd_close(fds[0]);
        return DAEMONIZE_PARENT;
    }
    fd_close(fds[0]);
    (void)setsid();
    *ret_value = fds[1];
    return DAEMONIZE_CHILD;
}

bool daemonize_finish(int fd, struct error **err)
{
    static const char started = 1;
    AUTO(fd) owned = fd;
    AUTO(fd) null = open("/dev/null", O_RDWR | O_CLOEXEC);
    ssize_t size;

    assert(fd > STDERR_FILENO);
    if (null < 0)
        return error_set_errno(err, errno, "cannot open /dev/null");
    if (chdir("/") < 0)
        return error_set_errno(err, errno, "cannot change to /");
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++) {
        if (dup2(null, stream) < 0)
            return error_set_errno(err, errno, "cannot redirect stream %d", stream);
    }
    /* A parent that was killed meanwhile is no reason for its child to end. */
    do {
        size = write(fd, &started, 1);
    } while (size < 0 && errno == EINTR);
    return true;
}

void daemonize_ensure_streams(void)
{
    int fd;

    /* Not close-on-exec: a helper that is started later needs its standard streams as much as we do. */
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    fd_close(fd);
}

bool daemonize_run(const struct loop_options *options, const int *signals, sigset_t *ret_set, co_entry *entry,
                   void *opaque, struct error **err)
{
    struct loop *loop;

    sigemptyset(ret_set);
    for (; *signals; signals++)
        sigaddset(ret_set, *signals);
    pthread_sigmask(SIG_BLOCK, ret_set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    loop = loop_new(options, err);
    if (!loop)
        return false;
    trace_set_clock(loop_wall_time_us);
    co_run(loop, entry, opaque);
    loop_free(loop);
    return true;
}
