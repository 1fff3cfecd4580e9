/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands of ashlar-io: the table, and how a line becomes a call. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "bin/io.h"
#include "block/handle.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* --- words --- */

/* Whether it would be a size if it were smaller: digits, perhaps with a fraction of a unit, and perhaps a unit. */
static bool looks_like_size(const char *text)
{
    bool hexadecimal = !g_ascii_strncasecmp(text, "0x", 2);
    const char *start = hexadecimal ? text + 2 : text + (*text == '+');
    const char *rest = start + strspn(start, hexadecimal ? "0123456789abcdefABCDEF" : "0123456789");
    size_t digits = (size_t)(rest - start);
    bool fraction = *rest == '.' && !hexadecimal;

    if (fraction)
        rest += 1 + strspn(rest + 1, "0123456789");
    if (*rest && strchr("kmgtpeKMGTPE", *rest))
        return digits && !rest[1];
    return digits && !fraction && (!*rest || !g_ascii_strcasecmp(rest, "b"));
}

/* Sizes such as 0x1k are understood, and read by people in two ways. */
static void warn_of_suffix(const char *text)
{
    if (!g_ascii_strncasecmp(text, "0x", 2) && text[2 + strspn(text + 2, "0123456789abcdefABCDEF")])
        log_warning("Using a multiplier suffix on hex numbers is deprecated: %s", text);
}

bool io_parse_size(const char *text, uint64_t *ret)
{
    uint64_t value;

    if (size_parse(text, &value) && value <= INT64_MAX) {
        warn_of_suffix(text);
        *ret = value;
        return true;
    }
    if (looks_like_size(text))
        printf("Parsing error: argument too large -- %s\n", text);
    else
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", text);
    return false;
}

bool io_parse_pattern(const char *text, uint8_t *ret)
{
    char *end;
    long value = strtol(text, &end, 0);

    if (end == text || *end || value < 0 || value > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *ret = (uint8_t)value;
    return true;
}

int io_option_next(struct io_words *words, const char *options)
{
    int letter;

    /* The C library's parser says by itself what is wrong, in the words that everybody knows. */
    if (!words->begun)
        optind = 0;
    words->begun = true;
    letter = getopt(words->count, words->words, options);
    words->value = optarg;
    words->first = optind;
    return letter;
}

/* --- commands of no other file --- */

static void print_line(const struct io_command *command, const char *name)
{
    printf("%s%s%s -- %s\n", name, command->usage ? " " : "", command->usage ? command->usage : "", command->summary);
}

static const struct io_command *find_command(const char *name)
{
    for (const struct io_command *command = io_commands; command->name; command++) {
        if (!strcmp(command->name, name) || (command->alias && !strcmp(command->alias, name)))
            return command;
    }
    return NULL;
}

bool io_usage(const char *name)
{
    const struct io_command *command = find_command(name);

    assert(command);
    print_line(command, name);
    return false;
}

static bool CO_FN co_help(struct io_session *session, int count, char **words)
{
    const struct io_command *command;

    if (count == 1) {
        for (command = io_commands; command->name; command++)
            print_line(command, command->name);
        printf("\nUse 'help commandname' for extended help.\n");
        return true;
    }
    command = find_command(words[1]);
    if (!command) {
        printf("command %s not found\n", words[1]);
        return false;
    }
    print_line(command, words[1]);
    if (command->help)
        printf("\n%s\n", command->help);
    return true;
}

static bool CO_FN co_quit(struct io_session *session, int count, char **words)
{
    session->quit = true;
    return true;
}

static bool CO_FN co_abort(struct io_session *session, int count, char **words)
{
    abort();
}

static bool CO_FN co_sigraise(struct io_session *session, int count, char **words)
{
    uint64_t number;

    if (!io_parse_size(words[1], &number))
        return false;
    if (number > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n", words[1]);
        return false;
    }
    (void)fflush(stdout);
    (void)raise((int)number);
    return true;
}

static bool CO_FN co_sleep_command(struct io_session *session, int count, char **words)
{
    char *end;
    long long ms;

    errno = 0;
    ms = strtoll(words[1], &end, 0);
    if (end == words[1] || *end || errno || ms < 0 || ms > INT64_MAX / NS_PER_MS) {
        printf("%s is not a valid number\n", words[1]);
        return false;
    }
    return co_sleep_ns(ms * NS_PER_MS) == 0;
}

/* --- running --- */

static bool check_arguments(const struct io_command *command, const char *name, int arguments)
{
    int min = command->arguments_min;
    int max = command->arguments_max;

    if (arguments >= min && (max == IO_ARGUMENTS_ANY || arguments <= max))
        return true;
    if (max == IO_ARGUMENTS_ANY)
        (void)fprintf(stderr, "bad argument count %d to %s, expected at least %d arguments\n", arguments, name, min);
    else if (min == max)
        (void)fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n", arguments, name, min);
    else
        (void)fprintf(stderr, "bad argument count %d to %s, expected between %d and %d arguments\n", arguments, name,
                      min, max);
    return false;
}

/* With -r and -s both, there is a temporary image, and it is not written to. */
static bool is_read_only(const struct io_session *session)
{
    return handle_is_read_only(session->image->handle) || (session->open.temporary && !session->open.how.writable);
}

bool co_io_run_line(struct io_session *session, const char *line)
{
    g_auto(GStrv) words = NULL;
    g_autoptr(GPtrArray) filled = g_ptr_array_new();
    const struct io_command *command;
    int count;

    words = g_strsplit_set(line, " \t\r\n", -1);
    for (char **word = words; *word; word++) {
        if (**word)
            g_ptr_array_add(filled, *word);
    }
    count = (int)filled->len;
    if (!count)
        return true;
    g_ptr_array_add(filled, NULL);

    command = find_command(g_ptr_array_index(filled, 0));
    if (!command) {
        (void)fprintf(stderr, "command \"%s\" not found\n", (const char *)g_ptr_array_index(filled, 0));
        return false;
    }
    if ((command->needs & IO_NEEDS_IMAGE) && !session->image) {
        (void)fprintf(stderr, "no file open, try 'help open'\n");
        return false;
    }
    if (!check_arguments(command, g_ptr_array_index(filled, 0), count - 1))
        return false;
    if ((command->needs & IO_NEEDS_WRITE) && is_read_only(session)) {
        log_error("Block node is read-only");
        return false;
    }
    return command->co_run(session, count, (char **)filled->pdata);
}

/* --- the table --- */

#define HELP_REPORT                                                                                                    \
    " -C  print the statistics as numbers with commas between them\n"                                                  \
    " -q  print no statistics\n"
#define HELP_PATTERN_WRITE " -P  the byte that is written (default: 0xcd)\n"
#define HELP_PATTERN_READ " -P  the byte that everything read must be\n"
#define HELP_DUMP " -v  print what was read\n"

const struct io_command io_commands[] = {
    {
        .name = "abort",
        .summary = "ends the program by abort(3), as a crash would",
        .co_run = co_abort,
    },
    {
        .name = "aio_flush",
        .needs = IO_NEEDS_IMAGE,
        .summary = "waits for all requests that aio_read and aio_write have started",
        .co_run = co_io_aio_flush,
    },
    {
        .name = "aio_read",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-Ciqv] [-P pattern] off len [len..]",
        .summary = "starts to read a number of bytes",
        .help = " The result is printed when the request ends; aio_flush waits for that. The command has\n"
                " succeeded once the request is started, whatever becomes of it.\n" HELP_REPORT
                " -i  count an invalid request, and do nothing\n" HELP_PATTERN_READ HELP_DUMP,
        .co_run = co_io_aio_read,
    },
    {
        .name = "aio_write",
        .needs = IO_NEEDS_IMAGE | IO_NEEDS_WRITE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-Cfiquz] [-P pattern] off len [len..]",
        .summary = "starts to write a number of bytes",
        .help = " The result is printed when the request ends; aio_flush waits for that. The command has\n"
                " succeeded once the request is started, whatever becomes of it.\n" HELP_REPORT
                " -f  durable before it ends (FUA)\n"
                " -i  count an invalid request, and do nothing\n" HELP_PATTERN_WRITE
                " -u  with -z: the space may be released\n"
                " -z  write zeroes without sending them\n",
        .co_run = co_io_aio_write,
    },
    {
        .name = "alloc",
        .alias = "a",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 1,
        .arguments_max = 2,
        .usage = "offset [count]",
        .summary = "tells how much of a range is allocated in the image itself",
        .co_run = co_io_alloc,
    },
    {
        .name = "break",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 2,
        .arguments_max = 2,
        .usage = "event tag",
        .summary = "holds the next request that comes to an event, under a tag",
        .co_run = co_io_break,
    },
    {
        .name = "close",
        .alias = "c",
        .needs = IO_NEEDS_IMAGE,
        .summary = "closes the image",
        .co_run = co_io_close_command,
    },
    {
        .name = "discard",
        .alias = "d",
        .needs = IO_NEEDS_IMAGE | IO_NEEDS_WRITE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-Cq] off len",
        .summary = "gives up the content of a range",
        .help = HELP_REPORT,
        .co_run = co_io_discard,
    },
    {
        .name = "flush",
        .alias = "f",
        .needs = IO_NEEDS_IMAGE,
        .summary = "makes everything written durable",
        .co_run = co_io_flush,
    },
    {
        .name = "help",
        .alias = "?",
        .arguments_max = 1,
        .usage = "[command]",
        .summary = "explains one command, or lists all",
        .co_run = co_help,
    },
    {
        .name = "info",
        .alias = "i",
        .needs = IO_NEEDS_IMAGE,
        .summary = "tells about the image's format",
        .co_run = co_io_info,
    },
    {
        .name = "length",
        .alias = "l",
        .needs = IO_NEEDS_IMAGE,
        .summary = "tells the length of the image",
        .co_run = co_io_length,
    },
    {
        .name = "map",
        .needs = IO_NEEDS_IMAGE,
        .summary = "lists which areas are allocated in the image itself",
        .co_run = co_io_map,
    },
    {
        .name = "open",
        .alias = "o",
        .arguments_min = 1,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
        .summary = "opens an image",
        .help = " -C  copy what is read from backing images into the image\n"
                " -U  beside others that use it; needs -r\n"
                " -d  what a discard does: \"unmap\", \"ignore\"\n"
                " -i  how I/O is made: \"threads\", \"native\", \"io_uring\"\n"
                " -k  the same as -i native\n"
                " -n  the same as -t none\n"
                " -o  options of the block driver: key=value,...\n"
                " -r  for reading only\n"
                " -s  keep writes in a temporary image\n"
                " -t  cache mode: \"none\", \"writeback\", \"unsafe\", \"directsync\", \"writethrough\"\n",
        .co_run = co_io_open_command,
    },
    {
        .name = "quit",
        .alias = "q",
        .arguments_max = IO_ARGUMENTS_ANY,
        .summary = "ends the program",
        .co_run = co_quit,
    },
    {
        .name = "read",
        .alias = "r",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-bCqv] [-P pattern [-s off] [-l len]] off len",
        .summary = "reads a number of bytes at an offset",
        .help = " -b  from the state of the virtual machine instead of the disk\n" HELP_REPORT
                " -l  with -P: how much of it must be so\n"
                " -p  has no effect\n" HELP_PATTERN_READ " -s  with -P: from where on, in what was read\n" HELP_DUMP,
        .co_run = co_io_read,
    },
    {
        .name = "readv",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-Cqv] [-P pattern] off len [len..]",
        .summary = "reads a number of bytes at an offset into several buffers",
        .help = HELP_REPORT HELP_PATTERN_READ HELP_DUMP,
        .co_run = co_io_readv,
    },
    {
        .name = "remove_break",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 1,
        .arguments_max = 1,
        .usage = "tag",
        .summary = "removes a breakpoint",
        .co_run = co_io_remove_break,
    },
    {
        .name = "reopen",
        .needs = IO_NEEDS_IMAGE,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[(-r|-w)] [-c cache] [-o options]",
        .summary = "changes options of the open image",
        .help = " -c  cache mode\n"
                " -o  options of the block driver: key=value,...\n"
                " -r  for reading only from now on\n"
                " -w  for reading and writing from now on\n",
        .co_run = co_io_reopen_command,
    },
    {
        .name = "resume",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 1,
        .arguments_max = 1,
        .usage = "tag",
        .summary = "lets the requests go that are held under a tag",
        .co_run = co_io_resume,
    },
    {
        .name = "sigraise",
        .arguments_min = 1,
        .arguments_max = 1,
        .usage = "signal",
        .summary = "raises a signal, given by its number",
        .co_run = co_sigraise,
    },
    {
        .name = "sleep",
        .arguments_min = 1,
        .arguments_max = 1,
        .usage = "milliseconds",
        .summary = "waits, while requests go on",
        .co_run = co_sleep_command,
    },
    {
        .name = "truncate",
        .alias = "t",
        .needs = IO_NEEDS_IMAGE | IO_NEEDS_WRITE,
        .arguments_min = 1,
        .arguments_max = 3,
        .usage = "[-m prealloc_mode] off",
        .summary = "changes the length of the image",
        .co_run = co_io_truncate,
    },
    {
        .name = "wait_break",
        .needs = IO_NEEDS_IMAGE,
        .arguments_min = 1,
        .arguments_max = 1,
        .usage = "tag",
        .summary = "waits until a request is held under a tag",
        .co_run = co_io_wait_break,
    },
    {
        .name = "write",
        .alias = "w",
        .needs = IO_NEEDS_IMAGE | IO_NEEDS_WRITE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-bcCfnquz] [-P pattern | -s source_file] off len",
        .summary = "writes a number of bytes at an offset",
        .help = " -b  to the state of the virtual machine instead of the disk\n"
                " -c  stored compressed\n" HELP_REPORT " -f  durable before it ends (FUA)\n"
                " -n  with -z: fail rather than write slowly\n"
                " -p  has no effect\n" HELP_PATTERN_WRITE " -s  write what this file holds, again and again\n"
                " -u  with -z: the space may be released\n"
                " -z  write zeroes without sending them\n",
        .co_run = co_io_write,
    },
    {
        .name = "writev",
        .needs = IO_NEEDS_IMAGE | IO_NEEDS_WRITE,
        .arguments_min = 2,
        .arguments_max = IO_ARGUMENTS_ANY,
        .usage = "[-Cfq] [-P pattern] off len [len..]",
        .summary = "writes a number of bytes at an offset from several buffers",
        .help = HELP_REPORT " -f  durable before it ends (FUA)\n" HELP_PATTERN_WRITE,
        .co_run = co_io_writev,
    },
    {0},
};
