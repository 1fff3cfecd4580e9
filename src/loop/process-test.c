/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop/process.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/loop-test.h"
#include "loop/loop.h"

enum { OUTPUT_MAX = 4096, PATIENCE_MS = 60000 };

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

/* A line of the shell's that is run while something else happens. */
struct shell {
    const char *line;
    int ret;
    struct process_result result;
};

static void CO_FN co_run_shell(void *opaque)
{
    struct shell *shell = opaque;

    shell->ret = co_shell(shell->line, (struct process_run){.output_max = OUTPUT_MAX}, &shell->result);
}

static void CO_FN co_wait_for_file(const char *path)
{
    while (!g_file_test(path, G_FILE_TEST_EXISTS))
        g_assert_cmpint(co_sleep_ns(NS_PER_MS), ==, 0);
}

/* Programs that hang end with the loop, those that refuse to do so as well; and no others are started then. */
static void CO_FN co_test_stop(void *opaque)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-process-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "runs", NULL);
    g_autofree char *line = g_strdup_printf("trap '' TERM; : > %s; while :; do sleep 1000; done", path);
    struct shell shells[] = {{.line = line}, {.line = "exec sleep 1000"}, {.line = "exec >&- 2>&-; sleep 1000"}};
    struct co_task *tasks[G_N_ELEMENTS(shells)];
    struct process_result result;

    for (size_t i = 0; i < G_N_ELEMENTS(shells); i++)
        tasks[i] = co_task_start(loop_current(), co_run_shell, &shells[i]);
    co_wait_for_file(path);
    process_stop_all(50);
    process_stop_all(PATIENCE_MS); /* too late */
    for (size_t i = 0; i < G_N_ELEMENTS(shells); i++) {
        co_task_join(tasks[i]);
        g_assert_cmpint(shells[i].ret, ==, -ECANCELED);
        g_assert_null(shells[i].result.output);
    }
    g_assert_cmpint(co_shell("exit 0", (struct process_run){0}, &result), ==, -ECANCELED);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(rmdir(folder), ==, 0);
}

/* What comes to its end soon is left to do so, and tidying up may take programs. */
static void CO_FN co_test_stop_softly(void *opaque)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-process-XXXXXX", NULL);
    g_autofree char *runs = g_build_filename(folder, "runs", NULL);
    g_autofree char *go = g_build_filename(folder, "go", NULL);
    g_autofree char *line = g_strdup_printf(": > %s; until [ -e %s ]; do sleep 0.01; done; echo through", runs, go);
    struct shell shell = {.line = line};
    struct co_task *task = co_task_start(loop_current(), co_run_shell, &shell);
    struct process_result result;

    co_wait_for_file(runs);
    process_stop_all(PATIENCE_MS);
    g_assert_true(g_file_set_contents(go, "", 0, NULL));
    co_task_join(task);
    g_assert_cmpint(shell.ret, ==, 0);
    g_assert_cmpstr(shell.result.output, ==, "through\n");
    result_clear(&shell.result);
    g_assert_cmpint(co_shell("exit 3", (struct process_run){0}, &result), ==, 0);
    g_assert_cmpint(result.status, ==, 3);
    result_clear(&result);
    g_assert_cmpint(unlink(runs), ==, 0);
    g_assert_cmpint(unlink(go), ==, 0);
    g_assert_cmpint(rmdir(folder), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("process/output", co_test_output);
    loop_test_add_real("process/limits", co_test_limits);
    loop_test_add_real("process/nothing-inherited", co_test_nothing_inherited);
    loop_test_add_real("process/stop", co_test_stop);
    loop_test_add_real("process/stop-softly", co_test_stop_softly);
    return loop_test_finish();
}
