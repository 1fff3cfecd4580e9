/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "loop/process.h"
#include "pool/pool-error.h"
#include "schema/json.h"

enum { ERRORS_MAX = 64 * 1024 };

#define SYSTEM_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

void command_result_clear(struct command_result *result)
{
    g_free(result->output);
    g_free(result->errors);
    *result = (struct command_result){0};
}

static bool is_program(const char *path)
{
    return g_file_test(path, G_FILE_TEST_IS_EXECUTABLE) && !g_file_test(path, G_FILE_TEST_IS_DIR);
}

/* Our own PATH, and behind it the places of administrators' tools; a path is as it is. */
static char *find_program(const char *name)
{
    const char *path = getenv("PATH");
    g_autofree char *places = g_strconcat(path ? path : "", path ? ":" : "", SYSTEM_PATH, NULL);
    g_auto(GStrv) folders = g_strsplit(places, ":", -1);

    if (*name == '/')
        return is_program(name) ? g_strdup(name) : NULL;
    for (char **folder = folders; *folder; folder++) {
        g_autofree char *program = **folder == '/' ? g_build_filename(*folder, name, NULL) : NULL;

        if (program && is_program(program))
            return TAKE(program);
    }
    return NULL;
}

bool command_exists(const char *name)
{
    g_autofree char *program = find_program(name);

    return program;
}

static bool CO_FN co_run(const char *const *argv, int time_max_s, struct command_result *ret, struct pool_error **err)
{
    g_autofree char *program = find_program(argv[0]);
    const char *environment[] = {"PATH=" SYSTEM_PATH, "LC_ALL=C", "HOME=/", NULL};
    g_autofree const char **own_argv = NULL;
    struct process_run run = {
        .environment = environment,
        .output_max = COMMAND_OUTPUT_MAX,
        .errors_max = ERRORS_MAX,
        .timeout_ms = time_max_s * 1000,
    };
    struct process_result result;
    size_t count = g_strv_length((char **)(uintptr_t)argv);
    int failed;

    if (!program)
        return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_SYSTEM,
                                     "Cannot find '%s' in path: No such file or directory", argv[0]);
    own_argv = g_new0(const char *, count + 1);
    memcpy(own_argv, argv, count * sizeof(*argv));
    own_argv[0] = program;
    run.argv = own_argv;
    failed = co_process_run(&run, &result);
    if (failed == -ETIMEDOUT)
        return pool_error_set(err, POOL_ERROR_TIMEOUT, "'%s' has not ended within %d seconds", argv[0], time_max_s);
    if (failed == -ECANCELED)
        return pool_error_set(err, POOL_ERROR_ABORTED, "'%s' has not ended, and the daemon is about to", argv[0]);
    if (failed)
        return pool_error_set_errno(err, failed, "Cannot run '%s'", argv[0]);
    command_result_clear(ret);
    *ret = (struct command_result){result.status, result.output, result.output_size, result.errors};
    return true;
}

bool CO_FN co_command_try(const char *const *argv, struct command_result *ret, struct pool_error **err)
{
    return co_run(argv, COMMAND_TIME_MAX_S, ret, err);
}

static bool check_status(const char *const *argv, const struct command_result *result, struct pool_error **err)
{
    g_autofree char *line = NULL;
    g_autofree char *errors = NULL;

    if (!result->status)
        return true;
    line = g_strjoinv(" ", (char **)(uintptr_t)argv);
    errors = g_utf8_make_valid(result->errors, -1);
    return pool_error_set(err, POOL_ERROR_INTERNAL, "Child process (%s) unexpected exit status %d: %s", line,
                          result->status, errors);
}

bool CO_FN co_command_run(const char *const *argv, struct command_result *ret, struct pool_error **err)
{
    struct command_result own = {0};
    struct command_result *result = ret ? ret : &own;
    bool ok = co_command_try(argv, result, err) && check_status(argv, result, err);

    if (!ok || !ret)
        command_result_clear(result);
    return ok;
}

bool CO_FN co_command_work(const char *const *argv, struct pool_error **err)
{
    struct command_result result = {0};
    bool ok = co_run(argv, 0, &result, err) && check_status(argv, &result, err);

    command_result_clear(&result);
    return ok;
}

struct json *CO_FN co_command_json(const char *const *argv, struct pool_error **err)
{
    struct command_result result = {0};
    struct error *error = NULL;
    struct json *value = NULL;

    if (!co_command_run(argv, &result, err))
        return NULL;
    value = json_parse(result.output, result.output_size, &error);
    if (!value) {
        pool_error_set(err, POOL_ERROR_INTERNAL, "the output of '%s' is not JSON: %s", argv[0], error_message(error));
        error_free(error);
    }
    command_result_clear(&result);
    return value;
}

void CO_FN co_command_settle(void)
{
    const char *argv[] = {"udevadm", "settle", NULL};
    struct command_result result = {0};

    if (command_exists(argv[0]))
        (void)co_command_try(argv, &result, NULL);
    command_result_clear(&result);
}
