/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-io: reads and writes images by hand and from test suites, a command at a time. */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/io.h"
#include "cli/object-option.h"
#include "cli/option.h"
#include "cli/tool.h"
#include "cli/trace-option.h"
#include "loop/daemonize.h"
#include "loop/socket.h"
#include "qmp/version.h"

enum option_id {
    OPTION_AIO,
    OPTION_CACHE,
    OPTION_COMMAND,
    OPTION_COPY_ON_READ,
    OPTION_DISCARD,
    OPTION_FORCE_SHARE,
    OPTION_FORMAT,
    OPTION_HELP,
    OPTION_IMAGE_OPTS,
    OPTION_MISALIGN,
    OPTION_NATIVE_AIO,
    OPTION_NO_CACHE,
    OPTION_OBJECT,
    OPTION_READ_ONLY,
    OPTION_SNAPSHOT,
    OPTION_TRACE,
    OPTION_VERSION,
};

static const struct option io_options[] = {
    {"cmd", 'c', "COMMAND", "run this command; may be given several times, 'help' lists commands", OPTION_COMMAND},
    {"format", 'f', "FORMAT", "format of the image (default: by its content)", OPTION_FORMAT},
    {"image-opts", 0, NULL, "the image is given by options: key=value,...", OPTION_IMAGE_OPTS},
    {"read-only", 'r', NULL, "open for reading only", OPTION_READ_ONLY},
    {"snapshot", 's', NULL, "keep writes in a temporary image", OPTION_SNAPSHOT},
    {"cache", 't', "MODE", "none, writeback, unsafe, directsync or writethrough (default: writeback)", OPTION_CACHE},
    {"nocache", 'n', NULL, "the same as -t none", OPTION_NO_CACHE},
    {"discard", 'd', "MODE", "unmap or ignore (default: unmap)", OPTION_DISCARD},
    {"aio", 'i', "MODE", "threads, native or io_uring", OPTION_AIO},
    {"native-aio", 'k', NULL, "the same as -i native", OPTION_NATIVE_AIO},
    {"copy-on-read", 'C', NULL, "copy what is read from backing images into the image", OPTION_COPY_ON_READ},
    {"misalign", 'm', NULL, "use memory that is not aligned", OPTION_MISALIGN},
    {"force-share", 'U', NULL, "open beside others that use the image; needs -r", OPTION_FORCE_SHARE},
    {"object", 0, "OBJECT", "make an object, such as a secret: TYPE,id=ID,...", OPTION_OBJECT},
    {"trace", 'T', "TRACE", "[[enable=]PATTERN][,events=FILE][,file=FILE]: print what happens inside", OPTION_TRACE},
    {"help", 'h', NULL, "show this help and exit", OPTION_HELP},
    {"version", 'V', NULL, "show the version and exit", OPTION_VERSION},
    {0},
};

struct program {
    const char *name;
    const struct option_list *options;
    struct io_session session;
    GPtrArray *commands; /* borrowed lines; none: they come from standard input */
};

enum { LINE_BYTES_MAX = 1 << 20, READ_BYTES = 4096 };

static void print_help(const char *name)
{
    g_autofree char *options = option_table_help(io_options);

    printf("Usage: %s [options] [IMAGE]\n"
           "Reads and writes a disk image by commands, given by -c or on standard input.\n\n"
           "%s\n"
           "'%s -c help' lists the commands.\n",
           name, options, name);
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

/* --- commands --- */

static bool CO_FN co_run_given(struct program *program)
{
    struct io_session *session = &program->session;
    bool ok = true;

    for (unsigned i = 0; i < program->commands->len && !session->quit; i++)
        ok &= co_io_run_line(session, g_ptr_array_index(program->commands, i));
    return ok;
}

/* The next line of standard input without its end, owned; NULL: there is no more. `pending`: read, and not used yet. */
static char *CO_FN co_read_line(GString *pending)
{
    for (;;) {
        char *newline = memchr(pending->str, '\n', pending->len);
        char chunk[READ_BYTES];
        ssize_t count;

        if (newline) {
            char *line = g_strndup(pending->str, (gsize)(newline - pending->str));

            g_string_erase(pending, 0, newline + 1 - pending->str);
            return line;
        }
        count = pending->len < LINE_BYTES_MAX ? co_fd_read(STDIN_FILENO, chunk, sizeof(chunk)) : 0;
        if (count <= 0) {
            char *line = pending->len ? g_strndup(pending->str, pending->len) : NULL;

            g_string_truncate(pending, 0);
            return line;
        }
        g_string_append_len(pending, chunk, count);
    }
}

static bool CO_FN co_run_input(struct program *program)
{
    g_autoptr(GString) pending = g_string_new(NULL);
    bool ok = true;

    while (!program->session.quit) {
        g_autofree char *line = NULL;

        printf("%s> ", program->name);
        (void)fflush(stdout);
        line = co_read_line(pending);
        if (!line) {
            if (isatty(STDIN_FILENO))
                printf("\n");
            break;
        }
        ok &= co_io_run_line(&program->session, line);
    }
    return ok;
}

/* --- the command line --- */

static bool apply_format(struct program *program, const char *format)
{
    struct io_open *open = &program->session.open;

    g_free(open->format);
    open->format = g_strdup(format);
    return true;
}

/* What says how to open the image; *ret_known: it does. */
static bool apply_open_option(struct program *program, const struct option_use *use, bool *ret_known,
                              struct error **err)
{
    struct io_open *open = &program->session.open;

    *ret_known = true;
    switch (use->option->id) {
    case OPTION_AIO:
        return io_open_set_aio(open, use->value, err);
    case OPTION_NATIVE_AIO:
        return io_open_set_aio(open, "native", err);
    case OPTION_CACHE:
        return io_open_set_cache(open, use->value, err);
    case OPTION_NO_CACHE:
        return io_open_set_cache(open, "none", err);
    case OPTION_DISCARD:
        return io_open_set_discard(open, use->value, err);
    case OPTION_FORMAT:
        return apply_format(program, use->value);
    case OPTION_COPY_ON_READ:
        open->copy_on_read = true;
        return true;
    case OPTION_FORCE_SHARE:
        open->how.force_share = true;
        return true;
    case OPTION_IMAGE_OPTS:
        open->how.image_opts = true;
        return true;
    case OPTION_READ_ONLY:
        open->how.writable = false;
        return true;
    case OPTION_SNAPSHOT:
        open->temporary = true;
        return true;
    default:
        *ret_known = false;
        return true;
    }
}

static bool CO_FN co_apply_option(struct program *program, const struct option_use *use, bool *ret_help,
                                  struct error **err)
{
    struct io_open *open = &program->session.open;
    bool known;

    if (!use->option) {
        if (open->filename)
            return error_set(err, "%s: only one image can be opened", use->shown);
        open->filename = g_strdup(use->value);
        return true;
    }
    if (!apply_open_option(program, use, &known, err))
        return false;
    if (known)
        return true;
    switch (use->option->id) {
    case OPTION_COMMAND:
        g_ptr_array_add(program->commands, (gpointer)(uintptr_t)use->value);
        return true;
    case OPTION_MISALIGN:
        program->session.misalign = true;
        return true;
    case OPTION_OBJECT:
        return co_object_option_apply(program->session.tool->objects, use->value, ret_help, err);
    case OPTION_TRACE:
        return co_trace_option_apply(use, ret_help, err);
    default:
        return error_set(err, "%s: unexpected", use->shown);
    }
}

static bool CO_FN co_start(struct program *program, bool *ret_help, struct error **err)
{
    struct io_open *open = &program->session.open;

    for (size_t i = 0; i < program->options->count && !*ret_help; i++) {
        if (!co_apply_option(program, &program->options->items[i], ret_help, err))
            return false;
    }
    if (*ret_help)
        return true;
    if (open->how.image_opts && open->format)
        return error_set(err, "--image-opts and -f are mutually exclusive");
    return !open->filename || co_io_image_open(&program->session, err);
}

static int CO_FN co_io_main(struct tool *tool, void *opaque)
{
    struct program *program = opaque;
    struct io_session *session = &program->session;
    AUTO(error) error = NULL;
    bool help = false;
    bool ok;

    session->tool = tool;
    session->open.how.writable = true;
    session->open.how.unmap = true;
    ok = co_start(program, &help, &error);
    if (!ok)
        tool_report(error);
    else if (!help)
        ok = program->commands->len ? co_run_given(program) : co_run_input(program);
    co_io_image_close(session);
    io_open_clear(&session->open);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    g_autofree char *name = g_path_get_basename(argc > 0 ? argv[0] : "ashlar-io");
    g_autoptr(GPtrArray) commands = g_ptr_array_new();
    struct program program = {.name = name, .commands = commands};
    AUTO(error) error = NULL;

    daemonize_ensure_streams();
    log_set_program(name);
    AUTO(option_list) options = option_list_parse(io_options, argc, argv, &error);
    if (!options) {
        tool_report(error);
        (void)fprintf(stderr, "Try '%s --help' for more information\n", name);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < options->count; i++) {
        const struct option *option = options->items[i].option;

        if (option && option->id == OPTION_HELP) {
            print_help(name);
            return EXIT_SUCCESS;
        }
        if (option && option->id == OPTION_VERSION) {
            print_version(name);
            return EXIT_SUCCESS;
        }
    }
    program.options = options;
    return tool_run(name, false, co_io_main, &program);
}
