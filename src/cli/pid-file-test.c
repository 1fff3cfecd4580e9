/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/pid-file.h"

#include <glib/gstdio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "loop/loop.h"

/* Runs `test` in a coroutine, in a new folder that is the working directory. */
static void in_folder(co_entry *test)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-pid-XXXXXX", NULL);
    struct loop_options options = {.name = "test"};
    struct loop *loop = loop_new(&options, NULL);

    g_assert_nonnull(loop);
    g_assert_cmpint(g_chdir(folder), ==, 0);
    co_run(loop, test, NULL);
    g_assert_cmpint(g_chdir("/"), ==, 0);
    g_assert_cmpint(g_rmdir(folder), ==, 0);
    loop_free(loop);
}

static void CO_FN co_whole_life(void *opaque)
{
    AUTO(error) err = NULL;
    g_autofree char *text = NULL;
    g_autofree char *expected = g_strdup_printf("%ld\n", (long)getpid());
    GStatBuf status;

    g_assert_true(g_file_set_contents("pid", "a longer text than any process id\n", -1, NULL));
    struct pid_file *file = co_pid_file_new("pid", 0600, &err);
    g_assert_nonnull(file);
    g_assert_true(g_file_get_contents("pid", &text, NULL, NULL));
    g_assert_cmpstr(text, ==, expected);

    g_assert_null(co_pid_file_new("pid", 0600, &err));
    g_assert_cmpstr(error_message(err), ==,
                    "Cannot lock pid file 'pid', another process holds it: Resource temporarily unavailable");
    co_pid_file_free(file);
    g_assert_cmpint(g_stat("pid", &status), ==, -1);
}

static void CO_FN co_mode_private(void *opaque)
{
    struct pid_file *file = co_pid_file_new("pid", 0600, NULL);
    GStatBuf status;

    g_assert_nonnull(file);
    g_assert_cmpint(g_stat("pid", &status), ==, 0);
    g_assert_cmpint(status.st_mode & 0777, ==, 0600);
    co_pid_file_free(file);
}

static void CO_FN co_working_directory_changes(void *opaque)
{
    g_autofree char *folder = g_get_current_dir();
    struct pid_file *file = co_pid_file_new("pid", 0600, NULL);

    g_assert_nonnull(file);
    g_assert_cmpint(g_chdir("/"), ==, 0);
    co_pid_file_free(file);
    g_assert_cmpint(g_chdir(folder), ==, 0);
    g_assert_false(g_file_test("pid", G_FILE_TEST_EXISTS));
}

static void CO_FN co_replaced_file_stays(void *opaque)
{
    struct pid_file *file = co_pid_file_new("pid", 0600, NULL);

    g_assert_nonnull(file);
    g_assert_cmpint(g_rename("pid", "moved"), ==, 0);
    g_assert_true(g_file_set_contents("pid", "1\n", -1, NULL));
    co_pid_file_free(file);
    g_assert_cmpint(g_unlink("pid"), ==, 0);
    g_assert_cmpint(g_unlink("moved"), ==, 0);
}

static void CO_FN co_refused(void *opaque)
{
    AUTO(error) no_folder = NULL;
    AUTO(error) folder = NULL;
    AUTO(error) device = NULL;

    g_assert_null(co_pid_file_new("missing/pid", 0600, &no_folder));
    g_assert_cmpstr(error_message(no_folder), ==, "Could not create 'missing/pid': No such file or directory");
    g_assert_null(co_pid_file_new(".", 0600, &folder));
    g_assert_cmpstr(error_message(folder), ==, "Could not create '.': Is a directory");
    g_assert_null(co_pid_file_new("/dev/zero", 0600, &device));
    g_assert_cmpstr(error_message(device), ==, "'/dev/zero' is not a regular file");
    g_assert_true(g_file_test("/dev/zero", G_FILE_TEST_EXISTS));
}

static void run_test(gconstpointer test)
{
    in_folder((co_entry *)(uintptr_t)test);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        co_entry *test;
    } tests[] = {
        {"/pid-file/whole-life", co_whole_life},
        {"/pid-file/mode-private", co_mode_private},
        {"/pid-file/working-directory-changes", co_working_directory_changes},
        {"/pid-file/replaced-file-stays", co_replaced_file_stays},
        {"/pid-file/refused", co_refused},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add_data_func(tests[i].name, (gconstpointer)(uintptr_t)tests[i].test, run_test);
    return g_test_run();
}
