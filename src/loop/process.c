/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker thread starts the program and listens to it; so the loop's own signals and descriptors stay untouched. All
 * that listen look at one more descriptor, which tells them that the loop is about to end.
 */
#include "loop/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop-internal.h"
#include "loop/loop.h"

enum { PIECE = 64 * 1024, SIGNALLED = 128 };

/* Of a loop that is about to end. */
enum {
    ASKED_MS = 1000,  /* between asking a program to end and killing it */
    KILLED_MS = 2000, /* for the end of one that has been killed */
    STARTS = 3,       /* so many times the grace, programs are still started */
};

/* What those who listen to a loop's programs know of its end. */
struct process_stop {
    int fd;                   /* readable when it comes; -1: they are not told */
    _Atomic int64_t since_us; /* monotonic; 0: it has not come */
    _Atomic int64_t grace_us;
};

/* A program that runs. */
struct child {
    const struct process_run *run;
    const struct process_stop *stop;
    struct process_result *result;
    pid_t pid;
    int input, output, errors; /* our ends of its pipes; -1: closed */
    size_t written;
    GString *output_text, *errors_text;
    int64_t end_us; /* monotonic; 0: it may take as long as it takes */
    bool stopping;  /* the loop is about to end, and end_us says what is left */
};

static int make_pipe(int *ret_ours, int *ret_theirs, bool they_read)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    *ret_ours = ends[they_read ? 1 : 0];
    *ret_theirs = ends[they_read ? 0 : 1];
    return 0;
}

/* Descriptors 0 to 2 of the program, signals as a program expects them, and nothing else of ours. */
static int spawn(struct child *child, int input, int output, int errors)
{
    char *const *argv = (char *const *)(uintptr_t)child->run->argv;
    static char *const nothing[] = {NULL};
    char *const *environment = child->run->environment ? (char *const *)(uintptr_t)child->run->environment : nothing;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t all;
    int error;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    /* A group of its own, so that those can be killed with it that it starts. */
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (input >= 0)
        posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    else
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
    /* What whoever started us left open is no business of the program's. */
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    error = posix_spawnp(&child->pid, argv[0], &actions, &attributes, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return -error;
}

static int start(struct child *child)
{
    AUTO(fd) input = -1;
    AUTO(fd) output = -1;
    AUTO(fd) errors = -1;
    int ret = make_pipe(&child->output, &output, false);

    if (!ret)
        ret = make_pipe(&child->errors, &errors, false);
    if (!ret && child->run->input)
        ret = make_pipe(&child->input, &input, true);
    if (!ret && child->run->input && fcntl(child->input, F_SETFL, O_NONBLOCK))
        ret = -errno;
    return ret ? ret : spawn(child, input, output, errors);
}

static void close_end(int *fd)
{
    fd_close(*fd);
    *fd = -1;
}

/* What the program says; false: more of it than is borne. */
static bool take(int *fd, GString *to, size_t max, bool cut)
{
    char piece[PIECE];
    ssize_t size = read(*fd, piece, sizeof(piece));

    if (size < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (size <= 0) {
        close_end(fd);
        return true;
    }
    if (to->len + (size_t)size > max && !cut)
        return !max;
    g_string_append_len(to, piece, (gssize)MIN((size_t)size, max - to->len));
    return true;
}

static void feed(struct child *child)
{
    const char *from = child->run->input;
    ssize_t size = write(child->input, from + child->written, child->run->input_size - child->written);

    if (size > 0)
        child->written += (size_t)size;
    if (child->written == child->run->input_size || (size < 0 && errno != EINTR && errno != EAGAIN))
        close_end(&child->input);
}

static void set_end(struct child *child, int64_t time_us)
{
    child->end_us = g_get_monotonic_time() + time_us;
}

/* The loop is about to end. */
static void stop_child(struct child *child)
{
    int64_t own_end_us = child->end_us;

    set_end(child, atomic_load(&child->stop->grace_us));
    if (own_end_us)
        child->end_us = MIN(child->end_us, own_end_us);
    child->stopping = true;
}

/* poll() for as long as the program may still take; 0, or -errno. The last of `fds` is for the end of the loop. */
static int wait_for(struct child *child, struct pollfd *fds, nfds_t count)
{
    struct pollfd *stop = &fds[count - 1];
    int64_t left_us = child->end_us - g_get_monotonic_time();
    int timeout_ms = child->end_us ? (int)(MAX(left_us, 0) / 1000) + 1 : -1;

    if (child->end_us && left_us <= 0)
        return child->stopping ? -ECANCELED : -ETIMEDOUT;
    *stop = (struct pollfd){child->stopping ? -1 : child->stop->fd, POLLIN, 0};
    if (poll(fds, count, timeout_ms) < 0) {
        for (nfds_t i = 0; i < count; i++)
            fds[i].revents = 0;
        return errno == EINTR ? 0 : -errno;
    }
    if (stop->revents)
        stop_child(child);
    return 0;
}

static int listen_to(struct child *child)
{
    bool fits = true;

    while (fits && (child->output >= 0 || child->errors >= 0)) {
        struct pollfd fds[] = {{child->output, POLLIN, 0}, {child->errors, POLLIN, 0}, {child->input, POLLOUT, 0}, {0}};
        int ret = wait_for(child, fds, G_N_ELEMENTS(fds));

        if (ret)
            return ret;
        if (fds[0].revents)
            fits = take(&child->output, child->output_text, child->run->output_max, false);
        if (fds[1].revents)
            (void)take(&child->errors, child->errors_text, child->run->errors_max, true);
        if (fds[2].revents)
            feed(child);
    }
    return fits ? 0 : -EFBIG;
}

/* It says nothing more, which is not yet its end. */
static int wait_until_it_ends(struct child *child)
{
    AUTO(fd) fd = pidfd_open(child->pid, 0);
    struct pollfd fds[] = {{fd, POLLIN, 0}, {0}};
    int ret = fd < 0 ? -errno : 0;

    while (!ret && !fds[0].revents)
        ret = wait_for(child, fds, G_N_ELEMENTS(fds));
    return ret;
}

/* Ends it with all that it has started. False: it is stuck in the kernel, and the loop cannot wait for that. */
static bool end(struct child *child)
{
    if (child->stopping) {
        set_end(child, ASKED_MS * INT64_C(1000));
        kill(-child->pid, SIGTERM);
        (void)wait_until_it_ends(child);
    }
    kill(-child->pid, SIGKILL);
    if (child->stopping)
        set_end(child, KILLED_MS * INT64_C(1000));
    else
        child->end_us = 0;
    return wait_until_it_ends(child) != -ECANCELED;
}

static int take_status(struct child *child)
{
    int status;

    while (waitpid(child->pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    child->result->status = WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
    return 0;
}

static int run_child(void *opaque)
{
    struct child *child = opaque;
    sigset_t pipe_signal;
    int ret = start(child);
    int ended;

    /* A program may close its input early; that is an error of the call, not our end. */
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, NULL);
    if (!ret) {
        ret = listen_to(child);
        if (!ret)
            ret = wait_until_it_ends(child);
        if (!ret || end(child)) {
            ended = take_status(child);
            ret = ret ? ret : ended;
        }
    }
    close_end(&child->input);
    close_end(&child->output);
    close_end(&child->errors);
    return ret;
}

/* --- the loop's end --- */

static struct process_stop *stop_of(struct loop *loop)
{
    if (loop->process_stop)
        return loop->process_stop;
    loop->process_stop = g_new0(struct process_stop, 1);
    loop->process_stop->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return loop->process_stop;
}

void process_stop_all(unsigned grace_ms)
{
    struct process_stop *stop = stop_of(loop_self());

    assert(grace_ms);
    if (atomic_load(&stop->since_us))
        return;
    atomic_store(&stop->grace_us, grace_ms * INT64_C(1000));
    atomic_store(&stop->since_us, g_get_monotonic_time());
    if (stop->fd >= 0)
        (void)!eventfd_write(stop->fd, 1);
}

void process_stop_free(struct process_stop *stop)
{
    if (stop)
        fd_close(stop->fd);
    g_free(stop);
}

/* Whether it may be started; near the loop's end it has less time. */
static bool may_start(struct child *child)
{
    int64_t since_us = atomic_load(&child->stop->since_us);

    if (!since_us)
        return true;
    if (g_get_monotonic_time() - since_us > STARTS * atomic_load(&child->stop->grace_us))
        return false;
    stop_child(child);
    return true;
}

int CO_FN co_process_run(const struct process_run *run, struct process_result *ret)
{
    struct child child = {
        .run = run,
        .result = ret,
        .stop = stop_of(loop_self()),
        .input = -1,
        .output = -1,
        .errors = -1,
        .output_text = g_string_new(NULL),
        .errors_text = g_string_new(NULL),
        .end_us = run->timeout_ms ? g_get_monotonic_time() + run->timeout_ms * INT64_C(1000) : 0,
    };
    int result;

    assert(run->argv[0]);
    *ret = (struct process_result){0};
    result = may_start(&child) ? co_worker_run(run_child, &child) : -ECANCELED;
    if (result) {
        g_string_free(child.output_text, TRUE);
        g_string_free(child.errors_text, TRUE);
        return result;
    }
    ret->output_size = child.output_text->len;
    ret->output = g_string_free(child.output_text, FALSE);
    ret->errors = g_string_free(child.errors_text, FALSE);
    return 0;
}
