/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a fuzz target over the files of its seed corpus: a regression test where libFuzzer is not at hand. */
#include <glib.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_file(gconstpointer path)
{
    g_autofree char *data = NULL;
    gsize size;

    g_assert_true(g_file_get_contents(path, &data, &size, NULL));
    (void)LLVMFuzzerTestOneInput((const uint8_t *)data, size);
}

static void run_empty(void)
{
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
}

/* Arguments: the folder of the corpus. */
int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(argc, ==, 2);
    g_test_add_func("/empty", run_empty);

    g_autoptr(GDir) corpus = g_dir_open(argv[1], 0, NULL);
    while (corpus && (name = g_dir_read_name(corpus))) {
        g_autofree char *test = g_strdup_printf("/corpus/%s", name);

        g_ptr_array_add(paths, g_build_filename(argv[1], name, NULL));
        g_test_add_data_func(test, g_ptr_array_index(paths, paths->len - 1), run_file);
    }
    return g_test_run();
}
