/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-img: makes, inspects, converts and changes disk images. */
#include "bin/img.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "block/driver.h"
#include "cli/object-option.h"
#include "cli/trace-option.h"
#include "loop/daemonize.h"
#include "qmp/version.h"
#include "schema/json.h"

static const struct img_command *const commands[] = {
    &img_amend, &img_bench, &img_bitmap, &img_check,   &img_commit, &img_compare, &img_convert,  &img_create,
    &img_dd,    &img_info,  &img_map,    &img_measure, &img_rebase, &img_resize,  &img_snapshot,
};

static const struct option global_options[] = {
    {"help", 'h', NULL, "show this help, or after a command its help", IMG_HELP},
    {"version", 'V', NULL, "show the version", IMG_VERSION},
    {"trace", 'T', "[[enable=]PATTERN][,events=FILE][,file=FILE]", "switch trace points on", IMG_TRACE},
    {0},
};

/* --- for the commands --- */

int img_fail(struct error *err)
{
    tool_report(err);
    error_free(err);
    return EXIT_FAILURE;
}

static int try_help(const char *program, const struct img_command *command)
{
    (void)fprintf(stderr, "Try '%s%s%s --help' for more information\n", program, command ? " " : "",
                  command ? command->name : "");
    return EXIT_FAILURE;
}

int img_misuse(const struct img *img, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    log_error("%s", text);
    return try_help(img->tool->program, img->command);
}

const char *img_one_filename(const struct img *img)
{
    if (img->argument_count == 1)
        return img->arguments[0];
    img_misuse(img, "Expecting one image file name");
    return NULL;
}

struct image_open img_open_options(const struct img *img, const char *filename)
{
    return (struct image_open){
        .filename = filename,
        .image_opts = img->image_opts,
        .format = img->format,
        .force_share = img->force_share,
        .quiet = img->quiet,
    };
}

bool img_parse_size(const char *what, const char *text, uint64_t *ret)
{
    if (size_parse(text, ret)) {
        if (*ret <= INT64_MAX)
            return true;
        log_error("Invalid %s specified. Must be between 0 and %" PRId64 ".", what, INT64_MAX);
        return false;
    }
    log_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
    log_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    return false;
}

bool img_parse_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    uint64_t value;

    if (uint64_parse(text, &value) && value >= min && value <= max) {
        *ret = value;
        return true;
    }
    log_error("Invalid %s specified: '%s'; it must be a number from %" PRIu64 " to %" PRIu64, what, text, min, max);
    return false;
}

void img_print_json(const struct json *value)
{
    g_autofree char *text = json_format(value, true);

    printf("%s\n", text);
}

/* --- help --- */

static void print_formats(void)
{
    printf("Supported formats:");
    for (const struct block_driver *const *driver = block_drivers; *driver; driver++)
        printf(" %s", (*driver)->name);
    printf("\n");
}

static void print_version(const char *program)
{
    if (g_str_has_prefix(program, "ashlar"))
        printf("%s version %s (interface version %d.%d.%d)\n", program, ASHLAR_VERSION, VERSION_INTERFACE_MAJOR,
               VERSION_INTERFACE_MINOR, VERSION_INTERFACE_MICRO);
    else
        printf("%s version %d.%d.%d (%s)\n", program, VERSION_INTERFACE_MAJOR, VERSION_INTERFACE_MINOR,
               VERSION_INTERFACE_MICRO, version_package);
}

static void print_help(const char *program)
{
    g_autofree char *options = option_table_help(global_options);

    printf("usage: %s [standard options] command [command options]\n"
           "Makes, inspects, converts and changes disk images.\n\n"
           "%s\nCommand syntax:\n",
           program, options);
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *synopsis = option_table_synopsis(commands[i]->options);

        printf("  %s %s %s\n", commands[i]->name, synopsis, commands[i]->arguments);
    }
    printf("\n'%s COMMAND --help' explains the options of a command.\n\n", program);
    print_formats();
}

static void print_command_help(const char *program, const struct img_command *command)
{
    g_autofree char *synopsis = option_table_synopsis(command->options);
    g_autofree char *options = option_table_help(command->options);

    printf("usage: %s %s %s %s\n%s\n\n%s\n", program, command->name, synopsis, command->arguments, command->about,
           options);
    print_formats();
}

/* --- the command line --- */

static bool take_cache(const char *text, const char *what, struct cache_mode *ret, bool *ret_given)
{
    *ret_given = true;
    if (cache_mode_parse(text, ret))
        return true;
    log_error("Invalid %s option: %s", what, text);
    return false;
}

static bool take_output(struct img *img, const char *text)
{
    img->json = !strcmp(text, "json");
    if (img->json || !strcmp(text, "human"))
        return true;
    log_error("--output must be used with human or json as argument.");
    return false;
}

/* Several lists are joined; so each must be whole: without a single comma at either end. */
static bool take_key_values(struct img *img, const char *text)
{
    size_t commas = 0;
    char *joined;

    for (const char *c = text; *c; c++)
        commas = *c == ',' ? commas + 1 : 0;
    if (!*text || *text == ',' || commas % 2) {
        log_error("Invalid option list: %s", text);
        return false;
    }
    joined = img->key_values ? g_strdup_printf("%s,%s", img->key_values, text) : g_strdup(text);
    g_free(img->key_values);
    img->key_values = joined;
    return true;
}

/* One of the shared options; false: reported. */
static bool CO_FN co_take_shared(struct img *img, const struct option_use *use, bool *ret_help)
{
    AUTO(error) error = NULL;

    switch (use->option->id) {
    case IMG_OBJECT:
        if (co_object_option_apply(img->tool->objects, use->value, ret_help, &error))
            return true;
        tool_report(error);
        return false;
    case IMG_IMAGE_OPTS:
        img->image_opts = true;
        return true;
    case IMG_FORMAT:
        img->format = use->value;
        return true;
    case IMG_QUIET:
        img->quiet = true;
        return true;
    case IMG_PROGRESS:
        img->progress = true;
        return true;
    case IMG_CACHE:
        return take_cache(use->value, "cache", &img->cache, &img->has_cache);
    case IMG_SOURCE_CACHE:
        return take_cache(use->value, "source cache", &img->source_cache, &img->has_source_cache);
    case IMG_FORCE_SHARE:
        img->force_share = true;
        return true;
    case IMG_OUTPUT:
        return take_output(img, use->value);
    case IMG_OPTIONS:
        return take_key_values(img, use->value);
    default:
        return true;
    }
}

/* All shared options and the words; false with the status in *ret_status. */
static bool CO_FN co_take_words(struct img *img, int *ret_status)
{
    bool help = false;

    img->arguments = g_new0(const char *, img->options->count);
    for (size_t i = 0; i < img->options->count; i++) {
        const struct option_use *use = &img->options->items[i];

        if (!use->option) {
            img->arguments[img->argument_count++] = use->value;
        } else if (!co_take_shared(img, use, &help)) {
            *ret_status = img->command->failed ? img->command->failed : EXIT_FAILURE;
            return false;
        } else if (help) {
            *ret_status = EXIT_SUCCESS;
            return false;
        }
    }
    img->progress = img->progress && !img->quiet;
    if (!img->image_opts || !img->format)
        return true;
    *ret_status = img_misuse(img, "--image-opts and --format are mutually exclusive");
    return false;
}

/* What was given before the command starts. */
struct start {
    const struct img_command *command; /* NULL: only options */
    const struct option_list *global;
    const struct option_list *options;
};

static int say_missing_command(const char *program)
{
    log_error("Not enough arguments");
    return try_help(program, NULL);
}

static int CO_FN co_img_main(struct tool *tool, void *opaque)
{
    const struct start *start = opaque;
    struct img img = {.tool = tool, .command = start->command, .options = start->options};
    AUTO(error) error = NULL;
    bool help = false;
    int status;

    for (size_t i = 0; i < start->global->count; i++) {
        const struct option_use *use = &start->global->items[i];

        if (!co_trace_option_apply(use, &help, &error)) {
            tool_report(error);
            return EXIT_FAILURE;
        }
        if (help)
            return EXIT_SUCCESS;
    }
    if (!start->command)
        return say_missing_command(tool->program);
    if (co_take_words(&img, &status))
        status = start->command->co_run(&img);
    g_free(img.arguments);
    g_free(img.key_values);
    return status;
}

static const struct img_command *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    }
    return NULL;
}

/* The table of `command` with --help; owned array. */
static struct option *table_with_help(const struct img_command *command)
{
    size_t count = 0;
    struct option *table;

    while (command->options[count].name)
        count++;
    table = g_new0(struct option, count + 2);
    memcpy(table, command->options, count * sizeof(*table));
    table[count] = global_options[0];
    return table;
}

static bool asks_for_help(const struct option_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].option && list->items[i].option->id == IMG_HELP)
            return true;
    }
    return false;
}

/* A last word that begins with a dash but is none of the options: a size by which to shrink. */
static bool last_is_a_word(const struct img_command *command, int argc, char *const *argv)
{
    return command->last_argument_is_a_word && argc > 1 && argv[argc - 1][0] == '-' &&
           g_ascii_isdigit(argv[argc - 1][1]);
}

static struct option_list *parse_command_line(const struct img_command *command, const struct option *table, int argc,
                                              char *const *argv, struct error **err)
{
    g_autofree char **words = NULL;

    if (!last_is_a_word(command, argc, argv))
        return option_list_parse_by_word(table, argc, argv, err);
    words = g_new0(char *, (size_t)argc + 2);
    memcpy(words, argv, (size_t)argc * sizeof(*words));
    words[argc] = words[argc - 1];
    words[argc - 1] = (char *)(uintptr_t) "--";
    return option_list_parse_by_word(table, argc + 1, words, err);
}

/* Before there are threads. */
static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int run_command(const char *program, const struct option_list *global, int argc, char *const *argv)
{
    const struct img_command *command = find_command(argv[0]);
    struct start start = {.command = command, .global = global};
    g_autofree struct option *table = NULL;
    AUTO(option_list) options = NULL;
    AUTO(error) error = NULL;

    if (!command) {
        log_error("Command not found: %s", argv[0]);
        return try_help(program, NULL);
    }
    table = table_with_help(command);
    options = parse_command_line(command, table, argc, argv, &error);
    if (!options) {
        tool_report(error);
        return try_help(program, command);
    }
    if (asks_for_help(options)) {
        print_command_help(program, command);
        return EXIT_SUCCESS;
    }
    start.options = options;
    if (command->handles_signals)
        block_signals();
    return tool_run(program, true, co_img_main, &start);
}

/* How many words before the command are options, with their arguments. */
static int count_global_words(int argc, char *const *argv)
{
    int count = 1;

    while (count < argc && argv[count][0] == '-') {
        bool takes = !strcmp(argv[count], "-T") || !strcmp(argv[count], "--trace");

        count += takes && count + 1 < argc ? 2 : 1;
    }
    return count;
}

int main(int argc, char **argv)
{
    g_autofree char *program = g_path_get_basename(argc > 0 ? argv[0] : "ashlar-img");
    int words = count_global_words(argc, argv);
    AUTO(error) error = NULL;
    AUTO(option_list) global = NULL;

    daemonize_ensure_streams();
    log_set_program(program);
    global = option_list_parse_by_word(global_options, words, argv, &error);
    if (!global) {
        tool_report(error);
        return try_help(program, NULL);
    }
    for (size_t i = 0; i < global->count; i++) {
        if (global->items[i].option->id == IMG_HELP) {
            print_version(program);
            print_help(program);
            return EXIT_SUCCESS;
        }
        if (global->items[i].option->id == IMG_VERSION) {
            print_version(program);
            return EXIT_SUCCESS;
        }
    }
    if (words >= argc) {
        struct start start = {.global = global};

        return tool_run(program, true, co_img_main, &start);
    }
    return run_command(program, global, argc - words, argv + words);
}
