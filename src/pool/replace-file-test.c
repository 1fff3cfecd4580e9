/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/replace-file.h"

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/loop-test.h"
#include "pool/pool-error.h"

static void CO_FN co_expect(const char *path, const char *text)
{
    g_autofree char *found = NULL;
    GStatBuf status;

    g_assert_true(co_replace_file(path, text, strlen(text), NULL));
    g_assert_true(g_file_get_contents(path, &found, NULL, NULL));
    g_assert_cmpstr(found, ==, text);
    g_assert_cmpint(g_lstat(path, &status), ==, 0);
    g_assert_true(S_ISREG(status.st_mode));
    g_assert_cmpuint(status.st_mode & 0777, ==, 0600);
}

/* What a crash has left under the passing name gives nothing of what is written to others. */
static void CO_FN co_test_left_behind(void *opaque)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-replace-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "file", NULL);
    g_autofree char *passing = g_strconcat(path, ".new", NULL);
    g_autofree char *other = g_build_filename(folder, "other", NULL);
    g_autofree char *kept = NULL;

    co_expect(path, "first");
    g_assert_true(g_file_set_contents(passing, "a text that is longer", -1, NULL));
    g_assert_cmpint(g_chmod(passing, 0644), ==, 0);
    co_expect(path, "second");
    g_assert_true(g_file_set_contents(other, "kept", -1, NULL));
    g_assert_cmpint(symlink(other, passing), ==, 0);
    co_expect(path, "third");
    g_assert_true(g_file_get_contents(other, &kept, NULL, NULL));
    g_assert_cmpstr(kept, ==, "kept");
    g_assert_false(g_file_test(passing, G_FILE_TEST_EXISTS));
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_unlink(other), ==, 0);
    g_assert_cmpint(g_rmdir(folder), ==, 0);
}

static void CO_FN co_test_failure(void *opaque)
{
    AUTO(pool_error) error = NULL;

    g_assert_false(co_replace_file("/nonexistent/file", "x", 1, &error));
    g_assert_cmpstr(error->message, ==, "cannot write '/nonexistent/file.new': No such file or directory");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("replace-file/left-behind", co_test_left_behind);
    loop_test_add_real("replace-file/failure", co_test_failure);
    return loop_test_finish();
}
