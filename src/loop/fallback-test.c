/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Systems that forbid what the loop likes best: a filter refuses the calls, as containers do. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/loop-test.h"
#include "loop/socket.h"

/* From here on io_uring_setup() fails with EPERM and epoll_pwait2() with ENOSYS, for the rest of the process. */
static void forbid(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = G_N_ELEMENTS(filter), .filter = filter};

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

/* Runs the test again in a process of its own, which must succeed; false: we are in it. */
static bool in_parent(void)
{
    if (g_test_subprocess())
        return false;
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
    g_test_trap_assert_passed();
    return true;
}

static void co_use_loop(void *opaque)
{
    int64_t before_ns = loop_now_ns();
    AUTO(error) err = NULL;
    int fds[2];
    char data;

    g_assert_cmpint(co_sleep_ns(1500000), ==, 0);
    g_assert_cmpint(loop_now_ns() - before_ns, >=, 1500000);
    loop_test_socket_pair(fds);
    g_assert_cmpint(co_socket_send(fds[0], "x", 1, 0), ==, 1);
    g_assert_cmpint(co_socket_recv(fds[1], &data, 1, 0), ==, 1);
    fd_close(fds[0]);
    fd_close(fds[1]);
    g_assert_true(file_engine_available(FILE_ENGINE_DEFAULT, NULL));
    g_assert_true(file_engine_available(FILE_ENGINE_THREADS, NULL));
    g_assert_false(file_engine_available(FILE_ENGINE_IO_URING, &err));
    g_assert_cmpstr(error_message(err), ==, "The kernel does not let us use io_uring: Operation not permitted");
}

static void test_chosen(void)
{
    AUTO(error) err = NULL;
    struct loop *loop;

    if (in_parent())
        return;
    forbid();
    g_unsetenv("ASHLAR_LOOP");
    loop = loop_new(NULL, &err);
    g_assert_nonnull(loop);
    g_assert_null(err);
    g_assert_cmpint(loop_get_backend(loop), ==, LOOP_EPOLL);
    co_run(loop, co_use_loop, NULL);
    loop_free(loop);
}

/* Who insists is told why not. */
static void test_insisted(void)
{
    AUTO(error) err = NULL;

    if (in_parent())
        return;
    forbid();
    g_setenv("ASHLAR_LOOP", "io_uring", TRUE);
    g_assert_null(loop_new(NULL, &err));
    g_assert_cmpstr(error_message(err), ==, "The kernel does not let us use io_uring: Operation not permitted");
    g_assert_null(loop_current());
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fallback/chosen", test_chosen);
    g_test_add_func("/fallback/insisted", test_insisted);
    return g_test_run();
}
