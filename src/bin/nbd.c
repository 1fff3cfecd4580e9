/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-nbd: one image, served over NBD from the shell. */
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/nbd.h"
#include "cli/option.h"
#include "cli/tool.h"
#include "loop/daemonize.h"
#include "qmp/version.h"

static void print_help(const char *name)
{
    g_autofree char *options = option_table_help(nbd_options);

    printf("Usage: %s [options] IMAGE\n"
           "       %s --list [options]\n"
           "       %s --disconnect DEVICE\n"
           "Serves a disk image over NBD, until its last client has gone.\n\n"
           "%s",
           name, name, name, options);
}

static void print_version(const char *name)
{
    if (!strncmp(name, "ashlar", strlen("ashlar")))
        printf("%s version %s (interface version %d.%d.%d)\n", name, ASHLAR_VERSION, VERSION_INTERFACE_MAJOR,
               VERSION_INTERFACE_MINOR, VERSION_INTERFACE_MICRO);
    else
        printf("%s %d.%d.%d (%s)\n", name, VERSION_INTERFACE_MAJOR, VERSION_INTERFACE_MINOR, VERSION_INTERFACE_MICRO,
               version_package);
}

static bool CO_FN co_act(struct nbd_program *program, struct error **err)
{
    bool help = false;

    if (!co_nbd_options_apply(program, &help, err))
        return false;
    if (help)
        return true;
    if (program->list)
        return co_nbd_list(program, err);
    if (!program->disconnect)
        return co_nbd_serve(program, err);
    if (!co_nbd_device_disconnect(program->image, err))
        return false;
    printf("%s disconnected\n", program->image);
    return true;
}

static int CO_FN co_nbd_main(struct tool *tool, void *opaque)
{
    struct nbd_program *program = opaque;
    AUTO(error) error = NULL;
    bool ok;

    program->tool = tool;
    ok = co_act(program, &error);
    if (!ok)
        tool_report(error);
    nbd_options_clear(program);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Before any thread is there. True: go on; otherwise *ret_status is the status to end with. */
static bool go_background(struct nbd_program *program, int *ret_status, struct error **err)
{
    int value;

    *ret_status = EXIT_FAILURE;
    if (!program->fork)
        return true;
    switch (daemonize_fork(&value, err)) {
    case DAEMONIZE_PARENT:
        *ret_status = value;
        return false;
    case DAEMONIZE_CHILD:
        program->started_fd = value;
        return true;
    default:
        return false;
    }
}

/* Help and version act before all others. */
static bool answer_question(const char *name, const struct option_list *options)
{
    for (size_t i = 0; i < options->count; i++) {
        const struct option *option = options->items[i].option;

        if (option && option->id == NBD_OPTION_HELP) {
            print_help(name);
            return true;
        }
        if (option && option->id == NBD_OPTION_VERSION) {
            print_version(name);
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    g_autofree char *name = g_path_get_basename(argc > 0 ? argv[0] : "ashlar-nbd");
    struct nbd_program program = {
        .name = name,
        .clients_max = NBD_CLIENTS_DEFAULT,
        .passed_fd = -1,
        .started_fd = -1,
        .open = {.writable = true},
    };
    AUTO(error) error = NULL;
    int status;

    daemonize_ensure_streams();
    log_set_program(name);
    AUTO(option_list) options = option_list_parse(nbd_options, argc, argv, &error);
    if (!options) {
        tool_report(error);
        log_error("Try `%s --help' for more information.", name);
        return EXIT_FAILURE;
    }
    if (answer_question(name, options))
        return EXIT_SUCCESS;
    program.options = options;
    nbd_options_look(&program);
    sigemptyset(&program.signals);
    sigaddset(&program.signals, SIGINT);
    sigaddset(&program.signals, SIGTERM);
    sigaddset(&program.signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &program.signals, NULL);
    if (!go_background(&program, &status, &error)) {
        if (error)
            tool_report(error);
        return status;
    }
    return tool_run(name, false, co_nbd_main, &program);
}
