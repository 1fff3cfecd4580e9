/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/loop-test.h"

#include "base/error.h"

struct test_case {
    co_entry *entry;
    enum loop_backend backend;
};

void loop_test_run(enum loop_backend backend, co_entry *entry, void *opaque)
{
    struct loop_options options = {.backend = backend, .sim_seed = 1};
    AUTO(error) err = NULL;
    struct loop *loop = loop_new(&options, &err);

    if (!loop && backend == LOOP_IO_URING) {
        g_test_message("%s", error_message(err));
        return;
    }
    g_assert_nonnull(loop);
    co_run(loop, entry, opaque);
    loop_free(loop);
}

static void run_case(const void *data)
{
    const struct test_case *test = data;

    loop_test_run(test->backend, test->entry, NULL);
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
}
