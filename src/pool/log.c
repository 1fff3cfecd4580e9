/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/log.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glib.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/unix-datagram.h"
#include "pool/pool-error.h"

enum log_destination { LOG_TO_STDERR, LOG_TO_JOURNALD, LOG_TO_SYSLOG, LOG_TO_FILE };

static const char *const destination_names[] = {
    [LOG_TO_STDERR] = "stderr",
    [LOG_TO_JOURNALD] = "journald",
    [LOG_TO_SYSLOG] = "syslog",
    [LOG_TO_FILE] = "file",
};

/* The journal takes larger ones by other means only, and so does syslog; the end of such a text is left out. */
enum { SYSTEM_TEXT_MAX = 32 << 10 };

struct log_output {
    enum pool_log_level level;
    enum log_destination destination;
    char *argument; /* path, or name for syslog; NULL: none */
    FILE *file;     /* of LOG_TO_FILE */
};

struct log_filter {
    enum pool_log_level level;
    char *match; /* a glob */
};

/* One a process; `mutex` guards it. */
static struct {
    GMutex mutex;
    enum pool_log_level level;
    GArray *outputs; /* of struct log_output; NULL: standard error */
    GArray *filters; /* of struct log_filter */
    char *default_outputs;
    const char *journal, *syslog; /* sockets of the system's logs */
} pool_log_state = {
    .level = POOL_LOG_WARNING,
    .journal = "/run/systemd/journal/socket",
    .syslog = "/dev/log",
};

static const char *const level_names[] = {
    [POOL_LOG_DEBUG] = "debug",
    [POOL_LOG_INFO] = "info",
    [POOL_LOG_WARNING] = "warning",
    [POOL_LOG_ERROR] = "error",
};

/* --- writing --- */

static int syslog_priority(enum pool_log_level level)
{
    static const int priorities[] = {
        [POOL_LOG_DEBUG] = LOG_DEBUG,
        [POOL_LOG_INFO] = LOG_INFO,
        [POOL_LOG_WARNING] = LOG_WARNING,
        [POOL_LOG_ERROR] = LOG_ERR,
    };
    return priorities[level];
}

/* A text of several lines has its size before it. */
static void journal_field(GString *message, const char *name, const char *value)
{
    uint8_t size[8];

    if (!strchr(value, '\n')) {
        g_string_append_printf(message, "%s=%s\n", name, value);
        return;
    }
    store_le64(size, strlen(value));
    g_string_append_printf(message, "%s\n", name);
    g_string_append_len(message, (const char *)size, sizeof(size));
    g_string_append_printf(message, "%s\n", value);
}

struct log_line {
    enum pool_log_level level;
    const char *category, *text;
    const struct pool_log_place *place;
};

/* The compiler was called in a folder of its own, which says nothing. */
static const char *file_of(const struct pool_log_place *place)
{
    const char *sources = strstr(place->file, "src/");

    return sources ? sources : place->file;
}

static void write_journal(const struct log_line *line)
{
    g_autoptr(GString) message = g_string_new(NULL);
    g_autofree char *text = g_strndup(line->text, SYSTEM_TEXT_MAX);

    journal_field(message, "MESSAGE", text);
    g_string_append_printf(message,
                           "PRIORITY=%d\nLIBVIRT_SOURCE=%s\nCODE_FILE=%s\nCODE_LINE=%d\nCODE_FUNC=%s\nSYSLOG_PID=%d\n",
                           syslog_priority(line->level), line->category, file_of(line->place), line->place->line,
                           line->place->function, (int)getpid());
    (void)unix_datagram_send(pool_log_state.journal, message->str, message->len); /* there is nobody else to tell */
}

/* The library's own syslog() knows one name for the whole process, and forgets it when any of its users closes it. */
static void write_syslog(const char *ident, const struct log_line *line)
{
    g_autoptr(GDateTime) now = g_date_time_new_from_unix_local(loop_wall_time_us() / 1000000);
    g_autofree char *date = g_date_time_format(now, "%b %e %H:%M:%S");
    g_autofree char *text = g_strdup_printf("<%d>%s %s[%d]: %.*s", LOG_DAEMON | syslog_priority(line->level), date,
                                            ident, (int)getpid(), SYSTEM_TEXT_MAX, line->text);

    (void)unix_datagram_send(pool_log_state.syslog, text, strlen(text)); /* as above */
}

static char *format_line(const struct log_line *line)
{
    int64_t now_us = loop_wall_time_us();
    g_autoptr(GDateTime) now = g_date_time_new_from_unix_utc(now_us / 1000000);
    g_autofree char *date = g_date_time_format(now, "%Y-%m-%d %H:%M:%S");

    return g_strdup_printf("%s.%03d+0000: %d: %s : %s:%d : %s\n", date, (int)(now_us / 1000 % 1000), (int)gettid(),
                           level_names[line->level], line->place->function, line->place->line, line->text);
}

static void write_output(const struct log_output *output, const struct log_line *line, const char *whole)
{
    switch (output->destination) {
    case LOG_TO_STDERR:
        (void)fputs(whole, stderr);
        break;
    case LOG_TO_FILE:
        (void)fputs(whole, output->file);
        break;
    case LOG_TO_SYSLOG:
        write_syslog(output->argument, line);
        break;
    case LOG_TO_JOURNALD:
        write_journal(line);
        break;
    }
}

/* The first filter that names the category decides. */
static enum pool_log_level level_of(const char *category)
{
    for (guint i = 0; pool_log_state.filters && i < pool_log_state.filters->len; i++) {
        const struct log_filter *filter = &g_array_index(pool_log_state.filters, struct log_filter, i);

        if (!fnmatch(filter->match, category, 0))
            return filter->level;
    }
    return pool_log_state.level;
}

static void write_line(const struct log_line *line)
{
    g_autofree char *whole = NULL;

    if (line->level < level_of(line->category))
        return;
    whole = format_line(line);
    if (!pool_log_state.outputs) {
        (void)fputs(whole, stderr);
        return;
    }
    for (guint i = 0; i < pool_log_state.outputs->len; i++) {
        const struct log_output *output = &g_array_index(pool_log_state.outputs, struct log_output, i);

        if (line->level >= output->level)
            write_output(output, line, whole);
    }
}

/* What a client has sent must not look like another line. */
static char *escape(const char *text)
{
    GString *escaped = g_string_new(NULL);

    for (const char *c = text; *c; c++) {
        if ((*c >= 0 && *c < ' ' && *c != '\n' && *c != '\t') || *c == 0x7f)
            g_string_append_printf(escaped, "\\x%02x", (unsigned char)*c);
        else if (*c == '\n')
            g_string_append(escaped, "\n    ");
        else
            g_string_append_c(escaped, *c);
    }
    return g_string_free(escaped, FALSE);
}

void pool_log_line(enum pool_log_level level, const char *category, const struct pool_log_place *place,
                   const char *format, ...)
{
    struct log_line whole = {.level = level, .category = category, .place = place};
    va_list args;
    bool wanted;

    g_mutex_lock(&pool_log_state.mutex);
    wanted = level >= level_of(category);
    g_mutex_unlock(&pool_log_state.mutex);
    if (!wanted)
        return;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *escaped = escape(text);

    whole.text = escaped;
    g_mutex_lock(&pool_log_state.mutex);
    write_line(&whole);
    g_mutex_unlock(&pool_log_state.mutex);
}

/* --- settings --- */

void pool_log_set_level(enum pool_log_level level)
{
    g_mutex_lock(&pool_log_state.mutex);
    pool_log_state.level = level;
    g_mutex_unlock(&pool_log_state.mutex);
}

bool pool_log_parse_level(const char *text, enum pool_log_level *ret)
{
    /* Also as libvirt's manual has it. */
    if (!strcmp(text, "warn")) {
        *ret = POOL_LOG_WARNING;
        return true;
    }
    for (int level = POOL_LOG_DEBUG; level <= POOL_LOG_ERROR; level++) {
        char digit[] = {(char)('0' + level), 0};

        if (!strcmp(text, digit) || !strcmp(text, level_names[level])) {
            *ret = (enum pool_log_level)level;
            return true;
        }
    }
    return false;
}

static bool invalid(struct pool_error **err, const char *format, ...) PRINTF_LIKE(2, 3);
static bool invalid(struct pool_error **err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    return pool_error_set_domain(err, POOL_DOMAIN_NONE, POOL_ERROR_INVALID_ARG, "%s", text);
}

static bool level_from_digit(const char *text, enum pool_log_level *ret)
{
    return strlen(text) == 1 && pool_log_parse_level(text, ret);
}

static void output_clear(void *item)
{
    struct log_output *output = item;

    if (output->file)
        (void)fclose(output->file);
    g_free(output->argument);
}

static bool open_output(struct log_output *output, struct pool_error **err)
{
    int fd;

    if (output->destination != LOG_TO_FILE)
        return true;
    fd = open(output->argument, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    output->file = fd < 0 ? NULL : fdopen(fd, "a");
    if (!output->file) {
        pool_error_set_errno(err, errno, "cannot open log file '%s'", output->argument);
        fd_close(fd);
        return false;
    }
    setvbuf(output->file, NULL, _IOLBF, 0);
    return true;
}

static bool parse_output(const char *text, struct log_output *output, struct pool_error **err)
{
    g_auto(GStrv) words = g_strsplit(text, ":", 3);
    unsigned count = g_strv_length(words);
    int destination = -1;

    if (count < 2)
        return invalid(err, "Malformed format for log output '%s'", text);
    if (!level_from_digit(words[0], &output->level))
        return invalid(err, "Invalid log priority '%s' for log output '%s'", words[0], text);
    for (int i = 0; i < (int)G_N_ELEMENTS(destination_names); i++) {
        if (!strcmp(words[1], destination_names[i]))
            destination = i;
    }
    if (destination < 0)
        return invalid(err, "Invalid log destination '%s' for log output '%s'", words[1], text);
    output->destination = (enum log_destination)destination;
    if ((count == 3) != (destination >= LOG_TO_SYSLOG) || (count == 3 && !*words[2]))
        return invalid(err, "Log output '%s' does not meet the format requirements for destination type '%s'", text,
                       words[1]);
    if (destination == LOG_TO_FILE)
        output->argument = g_canonicalize_filename(words[2], NULL);
    else if (count == 3)
        output->argument = g_strdup(words[2]);
    return open_output(output, err);
}

/* One that goes to the same place as a later one does not count: who reads there wants each line once. */
static void forget_output(GArray *outputs, const struct log_output *later)
{
    for (guint i = 0; i < outputs->len; i++) {
        const struct log_output *output = &g_array_index(outputs, struct log_output, i);

        if (output->destination == later->destination && !g_strcmp0(output->argument, later->argument)) {
            g_array_remove_index(outputs, i);
            return;
        }
    }
}

static bool is_blank(const char *text)
{
    return !text || !text[strspn(text, " \t")];
}

bool pool_log_set_outputs(const char *text, struct pool_error **err)
{
    const char *wanted = !is_blank(text) ? text : pool_log_state.default_outputs;
    g_auto(GStrv) words = g_strsplit_set(wanted ? wanted : "1:stderr", " \t", -1);
    GArray *outputs = g_array_new(FALSE, TRUE, sizeof(struct log_output));

    g_array_set_clear_func(outputs, output_clear);
    for (int i = 0; words[i]; i++) {
        struct log_output output = {0};

        if (!*words[i])
            continue;
        if (!parse_output(words[i], &output, err)) {
            g_free(output.argument);
            g_array_unref(outputs);
            return false;
        }
        forget_output(outputs, &output);
        g_array_append_val(outputs, output);
    }
    g_mutex_lock(&pool_log_state.mutex);
    g_clear_pointer(&pool_log_state.outputs, g_array_unref);
    pool_log_state.outputs = outputs;
    g_mutex_unlock(&pool_log_state.mutex);
    return true;
}

static void filter_clear(void *item)
{
    g_free(((struct log_filter *)item)->match);
}

/* What follows another colon libvirt's daemons pass over. */
static bool parse_filter(const char *text, struct log_filter *filter, struct pool_error **err)
{
    g_auto(GStrv) words = g_strsplit(text, ":", 3);
    const char *match;

    if (g_strv_length(words) < 2)
        return invalid(err, "Malformed format for filter '%s'", text);
    if (!level_from_digit(words[0], &filter->level))
        return invalid(err, "Invalid priority '%s' for filter '%s'", words[0], text);
    match = *words[1] == '+' ? words[1] + 1 : words[1];
    if (!*match)
        return invalid(err, "Invalid match string '%s'", words[1]);
    filter->match = g_strdup_printf("*%s*", match);
    return true;
}

bool pool_log_set_filters(const char *text, struct pool_error **err)
{
    g_auto(GStrv) words = g_strsplit_set(text ? text : "", " \t", -1);
    GArray *filters = g_array_new(FALSE, TRUE, sizeof(struct log_filter));

    g_array_set_clear_func(filters, filter_clear);
    for (int i = 0; words[i]; i++) {
        struct log_filter filter = {0};

        if (!*words[i])
            continue;
        if (!parse_filter(words[i], &filter, err)) {
            g_array_unref(filters);
            return false;
        }
        g_array_append_val(filters, filter);
    }
    g_mutex_lock(&pool_log_state.mutex);
    g_clear_pointer(&pool_log_state.filters, g_array_unref);
    pool_log_state.filters = filters;
    g_mutex_unlock(&pool_log_state.mutex);
    return true;
}

void pool_log_set_default_outputs(const char *text)
{
    g_free(pool_log_state.default_outputs);
    pool_log_state.default_outputs = g_strdup(text);
}

char *pool_log_get_outputs(unsigned *ret_count)
{
    GString *text = g_string_new(NULL);
    GArray *outputs = pool_log_state.outputs;

    for (guint i = 0; outputs && i < outputs->len; i++) {
        const struct log_output *output = &g_array_index(outputs, struct log_output, i);

        g_string_append_printf(text, "%s%d:%s", i ? " " : "", output->level, destination_names[output->destination]);
        if (output->argument)
            g_string_append_printf(text, ":%s", output->argument);
    }
    *ret_count = outputs ? outputs->len : 0;
    return g_string_free(text, FALSE);
}

char *pool_log_get_filters(unsigned *ret_count)
{
    GString *text = g_string_new(NULL);
    GArray *filters = pool_log_state.filters;

    for (guint i = 0; filters && i < filters->len; i++) {
        const struct log_filter *filter = &g_array_index(filters, struct log_filter, i);

        g_string_append_printf(text, "%d:%s ", filter->level, filter->match);
    }
    *ret_count = filters ? filters->len : 0;
    return g_string_free(text, FALSE);
}

void pool_log_set_system_sockets(const char *journal, const char *syslog)
{
    pool_log_state.journal = journal;
    pool_log_state.syslog = syslog;
}

void pool_log_close(void)
{
    g_mutex_lock(&pool_log_state.mutex);
    g_clear_pointer(&pool_log_state.outputs, g_array_unref);
    g_clear_pointer(&pool_log_state.filters, g_array_unref);
    g_clear_pointer(&pool_log_state.default_outputs, g_free);
    g_mutex_unlock(&pool_log_state.mutex);
}
