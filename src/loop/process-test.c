/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/process.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop/coroutine.h"
#include "loop/loop-test.h"

enum { OUTPUT_MAX = 4096, PATIENCE_MS = 60000, NS_PER_MS = 1000000 };

/* Runs a line of the shell's. */
static int CO_FN co_shell(const char *line, struct process_run run, struct process_result *ret)
{
    const char *argv[] = {"/bin/sh", "-c", line, NULL};

    run.argv = argv;
    return co_process_run(&run, ret);
}

static void result_clear(struct process_result *result)
{
    g_free(result->output);
    g_free(result->errors);
}

static void CO_FN co_test_output(void *opaque)
{
    struct process_result result;

    g_assert_cmpint(
        co_shell(
            "cat; echo wrong >&2; exit 3",
            (struct process_run){
                .input = "text", .input_size = 4, .output_max = OUTPUT_MAX, .errors_max = 3, .timeout_ms = PATIENCE_MS},
            &result),
        ==, 0);
    g_assert_cmpint(result.status, ==, 3);
    g_assert_cmpstr(result.output, ==, "text");
    g_assert_cmpstr(result.errors, ==, "wro");
    result_clear(&result);
    g_assert_cmpint(co_shell("kill -9 $$", (struct process_run){0}, &result), ==, 0);
    g_assert_cmpint(result.status, ==, 128 + SIGKILL);
    result_clear(&result);
}

/* Too much output, or too much time: it is gone, and so is what it has started. */
static void CO_FN co_test_limits(void *opaque)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-process-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "child", NULL);
    g_autofree char *line = g_strdup_printf("sleep 1000 & echo $! > %s; wait", path);
    struct process_result result;
    g_autofree char *text = NULL;
    pid_t child;

    g_assert_cmpint(co_shell("yes", (struct process_run){.output_max = OUTPUT_MAX, .timeout_ms = PATIENCE_MS}, &result),
                    ==, -EFBIG);
    g_assert_cmpint(co_shell("exec >&- 2>&-; sleep 1000", (struct process_run){.timeout_ms = 50}, &result), ==,
                    -ETIMEDOUT);
    g_assert_cmpint(co_shell(line, (struct process_run){.timeout_ms = 2000}, &result), ==, -ETIMEDOUT);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    child = atoi(text);
    g_assert_cmpint(child, >, 0);
    /* Whoever inherits dead children may take its time to bury them. */
    for (bool gone = false; !gone;) {
        g_autofree char *status = g_strdup_printf("/proc/%d/stat", (int)child);
        g_autofree char *stat = NULL;

        gone = !g_file_get_contents(status, &stat, NULL, NULL) || strstr(stat, ") Z ");
        if (!gone)
            g_assert_cmpint(co_sleep_ns(NS_PER_MS), ==, 0);
    }
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(rmdir(folder), ==, 0);
}

/* What is open is asked without a pipe, since the shell itself has that open for a while. */
static void CO_FN co_test_nothing_inherited(void *opaque)
{
    static const char line[] = "echo $ONLY$HOME; i=0; while [ $i -lt 64 ]; do [ -e /proc/$$/fd/$i ] && echo $i; "
                               "i=$((i + 1)); done; exit 0";
    const char *environment[] = {"PATH=/usr/bin:/bin", "ONLY=this", NULL};
    struct process_result result;

    g_assert_cmpint(
        co_shell(line,
                 (struct process_run){.environment = environment, .output_max = OUTPUT_MAX, .timeout_ms = PATIENCE_MS},
                 &result),
        ==, 0);
    g_assert_cmpstr(result.output, ==, "this\n0\n1\n2\n");
    result_clear(&result);
    g_assert_cmpint(co_process_run(&(struct process_run){.argv = (const char *[]){"/nonexistent/x", NULL}}, &result),
                    ==, -ENOENT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("process/output", co_test_output);
    loop_test_add_real("process/limits", co_test_limits);
    loop_test_add_real("process/nothing-inherited", co_test_nothing_inherited);
    return loop_test_finish();
}
