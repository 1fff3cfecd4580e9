/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-storaged: block nodes, exports and QMP in a process without a virtual machine. */
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "bin/storaged-options.h"
#include "cli/pid-file.h"
#include "loop/daemonize.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "qmp/daemon.h"
#include "qmp/version.h"

struct program {
    const char *name;
    const struct option_list *options;
    bool daemonize;
    const char *pid_path; /* NULL: none */
    int started_fd;       /* tells the parent that we have started; -1: nobody waits */
    sigset_t signals;     /* that end us */

    struct daemon *daemon;
    struct pid_file *pid_file;
    struct co_task *startup;
    bool help;    /* an option was a question */
    bool started; /* everything is there */
    bool failed;  /* the error has been reported */
};

static void print_help(const char *name)
{
    g_autofree char *options = option_table_help(storaged_options);

    printf("Usage: %s [options]\n"
           "Serves disk images over NBD, controlled over QMP.\n\n"
           "%s\n"
           "Definitions are given as JSON or as key=value,... where a comma in a value is doubled. 'help' in the\n"
           "place of a definition, or after its type, explains what can stand there.\n",
           name, options);
}

static void print_version(const char *name)
{
    if (!strncmp(name, "ashlar", strlen("ashlar")))
        printf("%s version %s (interface version %d.%d.%d)\n", name, ASHLAR_VERSION, VERSION_INTERFACE_MAJOR,
               VERSION_INTERFACE_MINOR, VERSION_INTERFACE_MICRO);
    else
        printf("%s version %d.%d.%d (%s)\n", name, VERSION_INTERFACE_MAJOR, VERSION_INTERFACE_MINOR,
               VERSION_INTERFACE_MICRO, version_package);
}

/* Options about the process as a whole act before all others, wherever they stand. True: there is nothing else to do.
 */
static bool act_early(struct program *program, struct error **err)
{
    for (size_t i = 0; i < program->options->count; i++) {
        const struct option_use *use = &program->options->items[i];

        if (!use->option) {
            error_set(err, "%s: Unexpected argument", use->shown);
            return true;
        }
        switch (use->option->id) {
        case STORAGED_HELP:
            print_help(program->name);
            return true;
        case STORAGED_VERSION:
            print_version(program->name);
            return true;
        case STORAGED_DAEMONIZE:
            program->daemonize = true;
            break;
        case STORAGED_PIDFILE:
            program->pid_path = use->value;
            break;
        }
    }
    return false;
}

static bool is_early(const struct option_use *use)
{
    return use->option->id == STORAGED_DAEMONIZE || use->option->id == STORAGED_PIDFILE;
}

static bool CO_FN co_apply_option(struct program *program, const struct option_use *use, struct error **err)
{
    if (program->daemonize && storaged_option_uses_streams(use))
        return error_set(err, "cannot use stdio with -daemonize");
    return co_storaged_option_apply(program->daemon, use, &program->help, err);
}

/* Everything that the command line asks for, in its order, until something fails or is a question. */
static bool CO_FN co_apply_options(struct program *program, struct error **err)
{
    for (size_t i = 0; i < program->options->count && !program->help; i++) {
        const struct option_use *use = &program->options->items[i];

        if (is_early(use))
            continue;
        if (!co_apply_option(program, use, err)) {
            g_autofree char *shown = storaged_option_shown(use);
            return error_prefix(err, "%s: ", shown);
        }
    }
    return true;
}

static bool CO_FN co_start(struct program *program, struct error **err)
{
    if (!co_apply_options(program, err))
        return false;
    if (program->help)
        return true;
    if (program->pid_path) {
        program->pid_file = co_pid_file_new(program->pid_path, 0600, err);
        if (!program->pid_file)
            return error_prefix(err, "cannot create PID file: ");
    }
    if (program->started_fd >= 0 && !daemonize_finish(TAKE_FD(program->started_fd), err))
        return false;
    program->started = true;
    daemon_started(program->daemon);
    return true;
}

/* Start-up has a coroutine of its own, so that a signal can end it while it waits for somebody. */
static void CO_FN co_startup(void *opaque)
{
    struct program *program = opaque;
    AUTO(error) error = NULL;
    bool ok = co_start(program, &error);

    if (!ok && !program->daemon->quit) {
        log_report(error);
        program->failed = true;
    }
    if (!ok || program->help)
        daemon_quit(program->daemon);
}

static void CO_FN co_watch_signals(void *opaque)
{
    struct program *program = opaque;
    int number = co_signal_wait(&program->signals);

    if (number < 0)
        return;
    TRACE(storaged_signal, "number %d", number);
    daemon_quit(program->daemon);
    co_task_cancel(program->startup);
}

static void CO_FN co_live(void *opaque)
{
    struct program *program = opaque;

    program->daemon = daemon_new();
    program->startup = co_task_start(loop_current(), co_startup, program);
    struct co_task *signals = co_task_start(loop_current(), co_watch_signals, program);

    co_daemon_wait_quit(program->daemon);
    co_task_cancel(signals);
    co_task_join(signals);
    co_task_cancel(program->startup);
    co_task_join(program->startup);
    co_daemon_free(program->daemon);
    co_pid_file_free(program->pid_file);
}

static bool run(struct program *program, struct error **err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, 0};
    static const struct loop_options loop_options = {.name = "main", .poll_max_ns = LOOP_POLL_MAX_NS_DEFAULT};

    return daemonize_run(&loop_options, signals, &program->signals, co_live, program, err);
}

static int report(const struct error *error)
{
    log_report(error);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    AUTO(error) error = NULL;
    g_autofree char *name = g_path_get_basename(argc > 0 ? argv[0] : "ashlar-storaged");
    struct program program = {.name = name, .started_fd = -1};

    daemonize_ensure_streams();
    log_set_program(name);
    AUTO(option_list) options = option_list_parse(storaged_options, argc, argv, &error);
    if (!options)
        return report(error);
    program.options = options;
    if (act_early(&program, &error))
        return error ? report(error) : EXIT_SUCCESS;
    if (program.daemonize) {
        int value;
        enum daemonize_side side = daemonize_fork(&value, &error);

        if (side == DAEMONIZE_FAILED)
            return report(error);
        if (side == DAEMONIZE_PARENT)
            return value;
        program.started_fd = value;
    }
    if (!run(&program, &error))
        return report(error);

    /* Who waits for us to start is not content with an orderly end. */
    bool in_vain = program.daemonize && !program.started && !program.help;
    return program.failed || in_vain ? EXIT_FAILURE : EXIT_SUCCESS;
}
