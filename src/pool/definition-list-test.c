/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/definition-list.h"

#include <errno.h>
#include <glib/gstdio.h>

#include "loop/loop-test.h"

static void CO_FN co_test_names(void *opaque)
{
    static const char *const files[] = {"b.xml", "a.xml", ".xml", "c.xml.new", "d.XML", "xml", "a.xml.xml", NULL};
    g_autofree char *folder = g_dir_make_tmp("ashlar-definitions-XXXXXX", NULL);
    g_autofree char *text = NULL;
    GStrv names;

    for (const char *const *file = files; *file; file++) {
        g_autofree char *path = g_build_filename(folder, *file, NULL);

        g_assert_true(g_file_set_contents(path, "", 0, NULL));
    }
    g_assert_cmpint(co_definition_list(folder, &names), ==, 0);
    text = g_strjoinv(" ", names);
    g_assert_cmpstr(text, ==, "a a.xml b");
    g_strfreev(names);
    for (const char *const *file = files; *file; file++) {
        g_autofree char *path = g_build_filename(folder, *file, NULL);

        g_assert_cmpint(g_unlink(path), ==, 0);
    }
    g_assert_cmpint(g_rmdir(folder), ==, 0);
}

/* A directory that is missing has nothing in it; one that cannot be read is another matter. */
static void CO_FN co_test_no_directory(void *opaque)
{
    GStrv names;

    g_assert_cmpint(co_definition_list("/nonexistent/folder", &names), ==, 0);
    g_assert_cmpuint(g_strv_length(names), ==, 0);
    g_strfreev(names);
    g_assert_cmpint(co_definition_list("/dev/null", &names), ==, -ENOTDIR);
    g_assert_cmpuint(g_strv_length(names), ==, 0);
    g_strfreev(names);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("definition-list/names", co_test_names);
    loop_test_add_real("definition-list/no-directory", co_test_no_directory);
    return loop_test_finish();
}
