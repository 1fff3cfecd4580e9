/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar pool: its commands, their options, and from a command line to a call. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/ashlar-pool.h"
#include "cli/option.h"
#include "cli/tool.h"

enum option_id {
    OPTION_HELP,
    OPTION_SOCKET,
    OPTION_QMP,
    OPTION_JSON,
    OPTION_NBD,
    OPTION_VHOST_USER,
    OPTION_FUSE,
    OPTION_NAME,
    OPTION_READ_ONLY,
    OPTION_STOP,
    OPTION_FORCE,
};

#define HELP                                                                                                           \
    {                                                                                                                  \
        .name = "help", .letter = 'h', .help = "display this help and exit", .id = OPTION_HELP                         \
    }
#define SOCKET                                                                                                         \
    {                                                                                                                  \
        .name = "socket", .letter = 's', .argument = "PATH", .id = OPTION_SOCKET,                                      \
        .help = "where the pool daemon listens (default: its usual place, a user's own one first)"                     \
    }
#define JSON                                                                                                           \
    {                                                                                                                  \
        .name = "json", .letter = 'j', .help = "print JSON", .id = OPTION_JSON                                         \
    }
#define QMP                                                                                                            \
    {                                                                                                                  \
        .name = "qmp", .letter = 'q', .argument = "PATH", .id = OPTION_QMP,                                            \
        .help = "where an ashlar-storaged listens for QMP (default: $ASHLAR_QMP)"                                      \
    }
#define FORCE                                                                                                          \
    {                                                                                                                  \
        .name = "force", .letter = 'f', .help = "take an export away from its clients", .id = OPTION_FORCE             \
    }

static const struct option view_options[] = {JSON, SOCKET, HELP, {.name = NULL}};

static const struct option export_options[] = {
    {.name = "nbd",
     .argument = "ADDRESS",
     .optional = true,
     .help = "over NBD; ADDRESS: HOST:PORT, unix:PATH or a path (default: the daemon's NBD\n"
             "server where it runs, else a socket beside that of QMP)",
     .id = OPTION_NBD},
    {.name = "vhost-user", .argument = "SOCKET", .help = "as a vhost-user-blk device", .id = OPTION_VHOST_USER},
    {.name = "fuse",
     .argument = "FILE",
     .help = "as a raw image in place of FILE, made where missing",
     .id = OPTION_FUSE},
    {.name = "name",
     .letter = 'n',
     .argument = "NAME",
     .help = "how NBD's clients call it (default: the volume's name)",
     .id = OPTION_NAME},
    {.name = "read-only", .letter = 'r', .help = "nobody can write", .id = OPTION_READ_ONLY},
    {.name = "stop", .help = "take it away again, as 'unexport' does", .id = OPTION_STOP},
    FORCE,
    QMP,
    SOCKET,
    HELP,
    {.name = NULL},
};

static const struct option unexport_options[] = {
    {.name = "nbd", .help = "only what is exported over NBD", .id = OPTION_NBD},
    {.name = "vhost-user", .help = "only vhost-user-blk devices", .id = OPTION_VHOST_USER},
    {.name = "fuse", .help = "only files", .id = OPTION_FUSE},
    FORCE,
    QMP,
    SOCKET,
    HELP,
    {.name = NULL},
};

const struct pool_command pool_commands[] = {
    {"list", "", 0, 0, "pools, and how full they are", view_options, co_pool_list},
    {"tree", "[POOL]", 0, 1, "pools, their volumes, and what these are based on", view_options, co_pool_tree},
    {"export", "POOL VOLUME --nbd|--vhost-user|--fuse", 2, 2, "hand a volume to others, without a virtual machine",
     export_options, co_pool_export},
    {"unexport", "POOL VOLUME", 2, 2, "take an exported volume away again", unexport_options, co_pool_unexport},
    {.name = NULL},
};

static int print_help(const char *name)
{
    printf("Usage: %s pool COMMAND [options]\n\n", name);
    for (const struct pool_command *command = pool_commands; command->name; command++)
        printf("  %-22s %s\n", command->name, command->help);
    printf("\nOptions of a command: `%s pool COMMAND --help'\n", name);
    return EXIT_SUCCESS;
}

static int print_command_help(const struct pool_program *program)
{
    const struct pool_command *command = program->command;
    g_autofree char *options = option_table_help(command->options);

    printf("Usage: %s pool %s%s%s [options]\n%c%s.\n\n%s", program->name, command->name, *command->words ? " " : "",
           command->words, g_ascii_toupper(*command->help), command->help + 1, options);
    return EXIT_SUCCESS;
}

static bool set_kind(struct pool_program *program, enum pool_export_kind kind, const char *where, struct error **err)
{
    if (program->kind)
        return error_set(err, "one of --nbd, --vhost-user and --fuse at a time");
    if (where && !*where)
        return error_set(err, "where to export to is empty");
    program->kind = kind;
    program->where = where;
    return true;
}

static bool apply(struct pool_program *program, const struct option_use *use, struct error **err)
{
    switch ((enum option_id)use->option->id) {
    case OPTION_NBD:
        return set_kind(program, POOL_EXPORT_NBD, use->value, err);
    case OPTION_VHOST_USER:
        return set_kind(program, POOL_EXPORT_VHOST_USER, use->value, err);
    case OPTION_FUSE:
        return set_kind(program, POOL_EXPORT_FUSE, use->value, err);
    case OPTION_SOCKET:
        program->socket = use->value;
        break;
    case OPTION_QMP:
        program->qmp = use->value;
        break;
    case OPTION_NAME:
        program->export_name = use->value;
        break;
    case OPTION_JSON:
        program->json = true;
        break;
    case OPTION_READ_ONLY:
        program->read_only = true;
        break;
    case OPTION_STOP:
        program->stop = true;
        break;
    case OPTION_FORCE:
        program->force = true;
        break;
    case OPTION_HELP:
        break;
    }
    return true;
}

static bool apply_all(struct pool_program *program, struct error **err)
{
    const struct pool_command *command = program->command;

    for (size_t i = 0; i < program->options->count; i++) {
        const struct option_use *use = &program->options->items[i];

        if (use->option) {
            if (!apply(program, use, err))
                return false;
        } else if (program->word_count == command->words_max) {
            return error_set(err, "'%s' is one word too many", use->shown);
        } else {
            program->words[program->word_count++] = use->value;
        }
    }
    if (program->word_count < command->words_min)
        return error_set(err, "%s is missing", program->word_count ? "the volume's name" : "the pool's name");
    return true;
}

static bool wants_help(const struct option_list *options)
{
    for (size_t i = 0; i < options->count; i++) {
        if (options->items[i].option && options->items[i].option->id == OPTION_HELP)
            return true;
    }
    return false;
}

/* What has been printed is where it should go. */
static bool flush_output(struct error **err)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout))
        return true;
    return error_set_errno(err, errno ? errno : EIO, "cannot write to the standard output");
}

static int CO_FN co_main(struct tool *tool, void *opaque)
{
    struct pool_program *program = opaque;
    AUTO(error) error = NULL;

    program->terminal = terminal_look();
    if (program->command->co_run(program, &error) && flush_output(&error))
        return EXIT_SUCCESS;
    tool_report(error);
    return EXIT_FAILURE;
}

static int run_command(struct pool_program *program, int argc, char **argv)
{
    AUTO(error) error = NULL;
    AUTO(option_list) options = option_list_parse(program->command->options, argc, argv, &error);

    program->options = options;
    if (options && wants_help(options))
        return print_command_help(program);
    if (!options || !apply_all(program, &error)) {
        tool_report(error);
        log_error("Try `%s pool %s --help' for more information.", program->name, program->command->name);
        return EXIT_FAILURE;
    }
    return tool_run(program->name, true, co_main, program);
}

int pool_main(const char *name, int argc, char **argv)
{
    struct pool_program program = {.name = name};
    const char *word = argc > 1 ? argv[1] : NULL;
    g_autofree char *shown = word ? text_printable(word) : NULL;

    assert(argc >= 1);
    if (word && (!strcmp(word, "--help") || !strcmp(word, "-h")))
        return print_help(name);
    for (const struct pool_command *command = pool_commands; word && command->name; command++) {
        if (strcmp(word, command->name) != 0)
            continue;
        program.command = command;
        return run_command(&program, argc - 1, argv + 1);
    }
    if (word)
        log_error("unknown command '%s'", shown);
    else
        log_error("which command?");
    log_error("Try `%s pool --help' for more information.", name);
    return EXIT_FAILURE;
}
