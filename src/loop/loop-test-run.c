/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/loop-test.h"

#include <dirent.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/sim.h"

struct test_case {
    co_entry *entry;
    enum loop_backend backend;
};

static char *directory;

static void run_case(const void *data)
{
    const struct test_case *test = data;
    struct loop_options options = {.backend = test->backend, .sim_seed = 1};
    AUTO(error) err = NULL;
    struct loop *loop = loop_new(&options, &err);

    if (!loop && test->backend == LOOP_IO_URING) {
        g_test_message("%s", error_message(err));
        return;
    }
    g_assert_nonnull(loop);
    co_run(loop, test->entry, NULL);
    loop_free(loop);
}

static void add(const char *name, co_entry *entry, enum loop_backend backend)
{
    struct test_case *test = g_new0(struct test_case, 1);
    g_autofree char *path = g_strdup_printf("/%s/%s", name, loop_backend_name(backend));

    *test = (struct test_case){.entry = entry, .backend = backend};
    g_test_add_data_func_full(path, test, run_case, g_free);
}

void loop_test_add_real(const char *name, co_entry *entry)
{
    add(name, entry, LOOP_IO_URING);
    add(name, entry, LOOP_EPOLL);
}

void loop_test_add(const char *name, co_entry *entry)
{
    loop_test_add_real(name, entry);
    add(name, entry, LOOP_SIM);
}

void loop_test_socket_pair(int ret_fds[2])
{
    if (loop_get_backend(loop_current()) == LOOP_SIM)
        sim_socket_pair(loop_current(), ret_fds, 0);
    else
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret_fds), ==, 0);
}

char *loop_test_path(const char *name)
{
    g_autofree char *own = NULL;

    if (!directory)
        directory = g_dir_make_tmp("ashlar-XXXXXX", NULL);
    g_assert_nonnull(directory);
    own = g_strconcat(name, "-", loop_backend_name(loop_get_backend(loop_current())), NULL);
    return g_build_filename(directory, own, NULL);
}

static void remove_directory(void)
{
    DIR *entries = opendir(directory);
    struct dirent *entry;

    g_assert_nonnull(entries);
    while ((entry = readdir(entries))) {
        g_autofree char *path = g_build_filename(directory, entry->d_name, NULL);

        if (entry->d_name[0] != '.')
            g_assert_cmpint(unlink(path), ==, 0);
    }
    closedir(entries);
    g_assert_cmpint(rmdir(directory), ==, 0);
    g_clear_pointer(&directory, g_free);
}

int loop_test_finish(void)
{
    int result = g_test_run();

    if (directory)
        remove_directory();
    return result;
}

struct loop_thread *loop_test_thread(void)
{
    struct loop_options options = {.backend = loop_get_backend(loop_current()), .name = "test"};
    AUTO(error) err = NULL;
    struct loop_thread *thread = loop_thread_new(&options, &err);

    g_assert_nonnull(thread);
    return thread;
}
