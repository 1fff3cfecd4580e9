/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-poold: storage pools and volumes for libvirt's clients; from the command line to the end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "bin/poold-options.h"
#include "cli/pid-file.h"
#include "loop/daemonize.h"
#include "loop/loop.h"
#include "loop/socket.h"
#include "pool/config.h"
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/paths.h"
#include "pool/pool-error.h"
#include "pool/supervisor.h"

enum { END_MAX_S = 10 };

static const char journal_socket[] = "/run/systemd/journal/socket";

struct program {
    struct poold_options options;
    struct pool_paths *paths;
    struct pool_config *config;
    struct supervisor_sockets sockets;
    bool privileged;
    int started_fd; /* tells the parent that we have started; -1: nobody waits */
    sigset_t signals;

    struct pool_daemon daemon;
    struct pid_file *pid_file;
    unsigned reloads; /* under way */
    struct co_condition reload_done;
    int status; /* to end with */
};

static int report(const struct error *error)
{
    pool_log_error("daemon", "%s", error_message(error));
    return EXIT_FAILURE;
}

/* --- before the daemon lives --- */

static bool load_config(struct program *program, struct error **err)
{
    const char *path = program->options.config ? program->options.config : program->paths->config_file;
    g_autoptr(GError) reason = NULL;
    g_autofree char *text = NULL;
    gsize size;

    program->config = pool_config_new();
    if (!g_file_get_contents(path, &text, &size, &reason)) {
        if (!program->options.config && g_error_matches(reason, G_FILE_ERROR, G_FILE_ERROR_NOENT))
            return true;
        return error_set(err, "Can't load config file: %s: %s", reason->message, path);
    }
    if (strlen(text) != size)
        return error_set(err, "Can't load config file: a NUL byte is no text: %s", path);
    if (!pool_config_parse(program->config, text, path, err)) {
        error_prefix(err, "Can't load config file: ");
        return false;
    }
    return true;
}

/* Where lines go if nobody says otherwise. */
static char *default_outputs(const struct program *program, enum pool_log_level level)
{
    bool unattended = program->options.daemonize || !isatty(STDIN_FILENO);

    if (unattended && !access(journal_socket, W_OK))
        return g_strdup_printf("%d:journald", MAX(level, POOL_LOG_INFO));
    if (program->options.daemonize) {
        g_autofree char *folder = g_path_get_dirname(program->paths->log_file);

        (void)g_mkdir_with_parents(folder, 0700); /* opening the file will tell */
        return g_strdup_printf("%d:file:%s", level, program->paths->log_file);
    }
    return g_strdup_printf("%d:stderr", level);
}

static bool set_log(bool (*set)(const char *text, struct pool_error **err), const char *configured,
                    const char *variable, struct error **err)
{
    const char *environment = g_getenv(variable);
    AUTO(pool_error) error = NULL;

    if (set(environment && *environment ? environment : configured, &error))
        return true;
    return error_set(err, "%s", error->message);
}

static void log_from_below(enum log_kind kind, const char *text)
{
    static const enum pool_log_level levels[] = {
        [LOG_KIND_ERROR] = POOL_LOG_ERROR, [LOG_KIND_WARNING] = POOL_LOG_WARNING, [LOG_KIND_INFO] = POOL_LOG_INFO};

    pool_log(levels[kind], "storage", "%s", text);
}

/* The file says what to log, the environment knows better, and the command line best. */
static bool set_up_log(const struct program *program, struct error **err)
{
    enum pool_log_level level =
        program->config->log_level ? (enum pool_log_level)program->config->log_level : POOL_LOG_WARNING;
    const char *debug = g_getenv("LIBVIRT_DEBUG");
    g_autofree char *outputs = NULL;

    if (debug && *debug && !pool_log_parse_level(debug, &level))
        pool_log_warning("daemon", "LIBVIRT_DEBUG is '%s', which is no level", debug);
    if (program->options.verbose && level > POOL_LOG_INFO)
        level = POOL_LOG_INFO;
    pool_log_set_level(level);
    outputs = default_outputs(program, level);
    pool_log_set_default_outputs(outputs);
    log_set_sink(log_from_below);
    return set_log(pool_log_set_filters, program->config->log_filters, "LIBVIRT_LOG_FILTERS", err) &&
           set_log(pool_log_set_outputs, program->config->log_outputs, "LIBVIRT_LOG_OUTPUTS", err);
}

static bool prepare(struct program *program, struct error **err)
{
    program->paths = pool_paths_new(program->privileged);
    if (!load_config(program, err) || !set_up_log(program, err))
        return false;
    pool_log_info("daemon", "%s version: %s, libvirt interface %s", program->options.name, ASHLAR_VERSION,
                  POOLD_INTERFACE);
    for (guint i = 0; i < program->config->warnings->len; i++)
        pool_log_warning("config", "%s", (const char *)program->config->warnings->pdata[i]);
    return true;
}

/* --- life --- */

static void CO_FN co_reload(void *opaque)
{
    struct program *program = opaque;

    co_pool_daemon_reload(&program->daemon);
    program->reloads--;
    co_condition_broadcast(&program->reload_done);
}

static void CO_FN co_watch_signals(void *opaque)
{
    struct program *program = opaque;
    int number;

    while ((number = co_signal_wait(&program->signals)) >= 0) {
        if (number == SIGHUP) {
            program->reloads++;
            co_spawn(loop_current(), co_reload, program);
        } else {
            pool_daemon_quit(&program->daemon);
        }
    }
}

static int CO_FN co_start(struct program *program, struct error **err)
{
    struct pool_daemon_options options = {
        .privileged = program->privileged,
        .config = program->config,
        .paths = program->paths,
        .sockets = &program->sockets,
        .timeout_s = program->options.timeout_s,
    };
    const char *pid_path = program->options.pid_file ? program->options.pid_file : program->paths->pid_file;
    int status = pool_daemon_make_folders(&options, err);

    if (status)
        return status;
    /* As libvirt's daemons, in the foreground, too. */
    program->pid_file = co_pid_file_new(pid_path, 0644, err);
    if (!program->pid_file) {
        error_prefix(err, "cannot create PID file: ");
        return POOL_DAEMON_PID_FILE;
    }
    status = co_pool_daemon_start(&program->daemon, &options, err);
    if (status)
        return status;
    if (program->started_fd >= 0 && !daemonize_finish(TAKE_FD(program->started_fd), err))
        return POOL_DAEMON_INIT;
    return POOL_DAEMON_OK;
}

static void CO_FN co_remove_pid_file(void *opaque)
{
    co_pid_file_free(opaque);
}

/* A thread that the kernel does not give back, of a server or a disk that is dead, ends with the process. If there are
 * so many that none is left to remove the PID file, that stays. */
static void CO_FN co_end_without_it(void *opaque)
{
    struct program *program = opaque;

    if (co_sleep_ns(END_MAX_S * NS_PER_S))
        return;
    pool_log_warning("daemon", "something has not come to its end within %d seconds, and is left", END_MAX_S);
    co_spawn(loop_current(), co_remove_pid_file, TAKE(program->pid_file));
    (void)co_sleep_ns(NS_PER_S);
    pool_log_close();
    _exit(program->status);
}

static void CO_FN co_live(void *opaque)
{
    struct program *program = opaque;
    struct co_task *signals = co_task_start(loop_current(), co_watch_signals, program);
    struct co_task *limit;
    AUTO(error) error = NULL;

    program->status = co_start(program, &error);
    if (program->status) {
        report(error);
    } else {
        supervisor_tell_ready();
        co_pool_daemon_wait(&program->daemon);
        supervisor_tell_stopping();
    }
    limit = co_task_start(loop_current(), co_end_without_it, program);
    co_task_cancel(signals);
    co_task_join(signals);
    while (program->reloads)
        co_condition_wait_always(&program->reload_done, NULL);
    co_pool_daemon_done(&program->daemon);
    co_condition_done(&program->reload_done);
    co_task_cancel(limit);
    co_task_join(limit);
    co_pid_file_free(program->pid_file);
}

static bool run(struct program *program, struct error **err)
{
    static const int signals[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, 0};
    static const struct loop_options loop_options = {.name = "main"}; /* whether it polls, the configuration says */

    return daemonize_run(&loop_options, signals, &program->signals, co_live, program, err);
}

/* Everything after the command line. */
static int live(struct program *program)
{
    AUTO(error) error = NULL;

    if (!prepare(program, &error))
        return report(error);
    if (program->options.daemonize) {
        int value;
        enum daemonize_side side = daemonize_fork(&value, &error);

        if (side == DAEMONIZE_FAILED)
            return report(error);
        if (side == DAEMONIZE_PARENT)
            return value;
        program->started_fd = value;
    }
    if (!supervisor_take_sockets(program->privileged, &program->sockets, &error)) {
        report(error);
        return POOL_DAEMON_NETWORK;
    }
    if (!run(program, &error)) {
        report(error);
        return POOL_DAEMON_INIT;
    }
    return program->status;
}

int main(int argc, char **argv)
{
    struct program program = {.privileged = geteuid() == 0, .started_fd = -1};
    int status;

    daemonize_ensure_streams();
    log_set_program(argc > 0 ? argv[0] : "ashlar-poold");
    if (!poold_options_parse(argc, argv, program.privileged, &program.options, &status))
        return status;
    status = live(&program);
    pool_config_free(program.config);
    pool_paths_free(program.paths);
    pool_log_close();
    return status;
}
