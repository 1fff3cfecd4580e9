/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each output of the log gets what is meant for it, in its own form. */
#include "pool/log.h"

#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "loop/file.h"
#include "pool/pool-error.h"

/* More than a datagram takes. */
enum { MUCH = 1 << 20 };

static char *folder;

static char *in_folder(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

static char *content(const char *path)
{
    char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

/* "DATE TIME.mmm+0000: TID: LEVEL : FUNCTION:LINE : TEXT" */
static void expect_line(const char *line, const char *level, const char *text)
{
    g_autofree char *pattern = g_strdup_printf(
        "^\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d\\.\\d{3}\\+0000: \\d+: %s : \\w+:\\d+ : %s$", level, text);

    if (!g_regex_match_simple(pattern, line, G_REGEX_DEFAULT, G_REGEX_MATCH_DEFAULT))
        g_error("'%s' does not match '%s'", line, pattern);
}

static void set_outputs(const char *format, ...) PRINTF_LIKE(1, 2);
static void set_outputs(const char *format, ...)
{
    struct pool_error *error = NULL;
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    if (!pool_log_set_outputs(text, &error))
        g_error("%s: %s", text, error->message);
}

static void test_files(void)
{
    g_autofree char *much = in_folder("much");
    g_autofree char *little = in_folder("little");
    g_autofree char *all = NULL;
    g_autofree char *some = NULL;
    g_auto(GStrv) lines = NULL;
    GStatBuf status;

    set_outputs("1:file:%s 4:file:%s", much, little);
    g_assert_cmpint(g_stat(much, &status), ==, 0);
    g_assert_cmpuint(status.st_mode & 0777, ==, 0600);
    pool_log_set_level(POOL_LOG_INFO);
    pool_log_debug("a", "unseen");
    pool_log_info("a", "number %d", 7);
    pool_log_error("a", "two\nlines\x01\x7f");
    all = content(much);
    some = content(little);
    lines = g_strsplit(all, "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, 4);
    expect_line(lines[0], "info", "number 7");
    expect_line(lines[1], "error", "two");
    /* What a client has sent cannot look like a line of its own. */
    g_assert_cmpstr(lines[2], ==, "    lines\\x01\\x7f");
    g_assert_null(strstr(some, "number 7"));
    g_assert_nonnull(strstr(some, ": error : "));
    pool_log_close();
    /* What is there already stays. */
    set_outputs("1:file:%s", much);
    pool_log_info("a", "again");
    g_free(some);
    some = content(much);
    g_assert_true(g_str_has_prefix(some, all));
    g_assert_nonnull(strstr(some, "again"));
    pool_log_close();
}

/* Of two outputs to one place the later one counts. */
static void test_twice(void)
{
    g_autofree char *path = in_folder("twice");
    g_autofree char *expected = g_strdup_printf("2:stderr 3:file:%s", path);
    g_autofree char *outputs = NULL;
    g_autofree char *text = NULL;
    unsigned count;

    set_outputs("1:file:%s 1:stderr 2:stderr 3:file:%s", path, path);
    outputs = pool_log_get_outputs(&count);
    g_assert_cmpuint(count, ==, 2);
    g_assert_cmpstr(outputs, ==, expected);
    set_outputs("1:file:%s 1:file:%s", path, path);
    pool_log_error("a", "once");
    text = content(path);
    g_assert_true(strstr(text, "once") == g_strrstr(text, "once"));
    pool_log_close();
}

static void test_stderr(void)
{
    g_autofree char *path = in_folder("stderr");
    AUTO(fd) fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    AUTO(fd) old = dup(STDERR_FILENO);
    g_autofree char *text = NULL;

    g_assert_cmpint(dup2(fd, STDERR_FILENO), ==, STDERR_FILENO);
    set_outputs("3:stderr");
    pool_log_info("a", "not there");
    pool_log_warning("a", "there");
    pool_log_close();
    pool_log_warning("a", "without outputs");
    g_assert_cmpint(dup2(old, STDERR_FILENO), ==, STDERR_FILENO);
    text = content(path);
    g_assert_null(strstr(text, "not there"));
    g_assert_nonnull(strstr(text, "warning : test_stderr:"));
    g_assert_nonnull(strstr(text, " : there\n"));
    g_assert_nonnull(strstr(text, " : without outputs\n"));
}

static void test_filters(void)
{
    g_autofree char *path = in_folder("filtered");
    g_autofree char *text = NULL;

    set_outputs("1:file:%s", path);
    pool_log_set_level(POOL_LOG_WARNING);
    g_assert_true(pool_log_set_filters("1:rpc.cl 4:rpc 2:+stor", NULL));
    pool_log_debug("rpc.client", "one");
    pool_log_warning("rpc.server", "two");
    pool_log_error("rpc.server", "three");
    pool_log_info("storage", "four");
    pool_log_debug("storage", "five");
    pool_log_info("daemon", "six");
    pool_log_warning("daemon", "seven");
    text = content(path);
    for (int i = 0; i < 7; i++) {
        static const char *const words[] = {"one", "two", "three", "four", "five", "six", "seven"};
        static const bool seen[] = {true, false, true, true, false, false, true};
        g_autofree char *end = g_strdup_printf(" : %s\n", words[i]);

        g_assert_cmpint(!!strstr(text, end), ==, seen[i]);
    }
    pool_log_close();
}

/* --- the system's logs --- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    g_assert_cmpuint(g_strlcpy(address.sun_path, path, sizeof(address.sun_path)), <, sizeof(address.sun_path));
    g_assert_cmpint(bind(fd, (const struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

/* A message that is there already. */
static char *receive(int fd, size_t *ret_size)
{
    char *message = g_malloc0(65536);
    ssize_t size = recv(fd, message, 65535, MSG_DONTWAIT);

    g_assert_cmpint(size, >, 0);
    if (ret_size)
        *ret_size = (size_t)size;
    return message;
}

static void test_syslog(const void *opaque)
{
    int fd = *(const int *)opaque;
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;
    g_autofree char *third = NULL;
    g_autofree char *fourth = NULL;
    g_autofree char *much = g_malloc0(MUCH + 1);

    set_outputs("1:syslog:one 4:syslog:two");
    pool_log_error("a", "bad");
    first = receive(fd, NULL);
    second = receive(fd, NULL);
    /* The facility "daemon" is 3. */
    g_assert_true(g_regex_match_simple("^<27>\\w{3} [ \\d]\\d \\d\\d:\\d\\d:\\d\\d one\\[\\d+\\]: bad$", first,
                                       G_REGEX_DEFAULT, G_REGEX_MATCH_DEFAULT));
    g_assert_nonnull(strstr(second, " two["));
    /* Replacing one leaves the others their names. */
    set_outputs("1:syslog:one");
    pool_log_warning("a", "odd");
    third = receive(fd, NULL);
    g_assert_true(g_str_has_prefix(third, "<28>"));
    g_assert_nonnull(strstr(third, " one["));
    /* A text that the socket does not take is cut, not lost. */
    memset(much, 'x', MUCH);
    pool_log_error("a", "%s", much);
    fourth = receive(fd, NULL);
    g_assert_true(g_str_has_suffix(fourth, "xxxx"));
    pool_log_close();
}

static void test_journal(const void *opaque)
{
    int fd = *(const int *)opaque;
    g_autofree char *plain = NULL;
    g_autofree char *lines = NULL;
    size_t size;

    set_outputs("1:journald");
    pool_log_warning("storage", "hello");
    plain = receive(fd, NULL);
    g_assert_true(g_str_has_prefix(plain, "MESSAGE=hello\nPRIORITY=4\nLIBVIRT_SOURCE=storage\n"
                                          "CODE_FILE=src/pool/log-test.c\nCODE_LINE="));
    g_assert_nonnull(strstr(plain, "\nCODE_FUNC=test_journal\n"));
    pool_log_error("storage", "a\nb");
    lines = receive(fd, &size);
    /* A text of several lines has its length before it, eight bytes, the lowest first. */
    g_assert_cmpuint(size, >, 30);
    g_assert_cmpmem(lines, 23, "MESSAGE\n\7\0\0\0\0\0\0\0a\n    b", 23);
    pool_log_close();
}

/* Nobody listens: the line is lost, and nobody waits for it. */
static void test_nobody(void)
{
    set_outputs("1:journald 1:syslog:x");
    pool_log_set_system_sockets("/nonexistent/journal", "/nonexistent/log");
    pool_log_error("a", "lost");
    pool_log_close();
}

/* --- settings --- */

static void test_bad_settings(void)
{
    static const char *const outputs[][2] = {
        {"stderr", "Malformed format for log output 'stderr'"},
        {"5:stderr", "Invalid log priority '5' for log output '5:stderr'"},
        {"0:stderr", "Invalid log priority '0' for log output '0:stderr'"},
        {"1:printer", "Invalid log destination 'printer' for log output '1:printer'"},
        {"1:file", "Log output '1:file' does not meet the format requirements for destination type 'file'"},
        {"1:file:", "Log output '1:file:' does not meet the format requirements for destination type 'file'"},
        {"1:syslog", "Log output '1:syslog' does not meet the format requirements for destination type 'syslog'"},
        {"1:stderr:x", "Log output '1:stderr:x' does not meet the format requirements for destination type 'stderr'"},
        {"1:stderr 9:stderr", "Invalid log priority '9' for log output '9:stderr'"},
    };
    static const char *const filters[][2] = {
        {"x", "Malformed format for filter 'x'"}, {"1:c 1", "Malformed format for filter '1'"},
        {"1:", "Invalid match string ''"},        {"1:+", "Invalid match string '+'"},
        {"1::c", "Invalid match string ''"},      {"9:x", "Invalid priority '9' for filter '9:x'"},
    };
    g_autofree char *kept_outputs = NULL;
    g_autofree char *kept_filters = NULL;
    unsigned count;

    set_outputs("2:syslog:me 3:stderr");
    g_assert_true(pool_log_set_filters("1:a 2:b", NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(outputs); i++) {
        struct pool_error *error = NULL;

        g_assert_false(pool_log_set_outputs(outputs[i][0], &error));
        g_assert_cmpint(error->code, ==, POOL_ERROR_INVALID_ARG);
        g_assert_nonnull(strstr(error->message, outputs[i][1]));
        pool_error_free(error);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(filters); i++) {
        struct pool_error *error = NULL;

        g_assert_false(pool_log_set_filters(filters[i][0], &error));
        g_assert_cmpint(error->code, ==, POOL_ERROR_INVALID_ARG);
        g_assert_true(g_str_has_suffix(error->message, filters[i][1]));
        pool_error_free(error);
    }
    g_assert_false(pool_log_set_outputs("1:file:/nonexistent/folder/log", NULL));
    /* All is as it was. */
    kept_outputs = pool_log_get_outputs(&count);
    g_assert_cmpuint(count, ==, 2);
    g_assert_cmpstr(kept_outputs, ==, "2:syslog:me 3:stderr");
    kept_filters = pool_log_get_filters(&count);
    g_assert_cmpuint(count, ==, 2);
    g_assert_cmpstr(kept_filters, ==, "1:*a* 2:*b* ");
    g_assert_true(pool_log_set_filters("1:a:b:c", NULL));
    g_free(kept_filters);
    kept_filters = pool_log_get_filters(&count);
    g_assert_cmpstr(kept_filters, ==, "1:*a* ");
    pool_log_close();
}

static void test_defaults(void)
{
    g_autofree char *outputs = NULL;
    enum pool_log_level level;
    unsigned count;

    pool_log_set_default_outputs("4:syslog:d");
    g_assert_true(pool_log_set_outputs(NULL, NULL));
    outputs = pool_log_get_outputs(&count);
    g_assert_cmpstr(outputs, ==, "4:syslog:d");
    g_free(outputs);
    g_assert_true(pool_log_set_outputs(" \t ", NULL));
    outputs = pool_log_get_outputs(&count);
    g_assert_cmpstr(outputs, ==, "4:syslog:d");
    g_assert_cmpuint(count, ==, 1);
    g_assert_true(pool_log_parse_level("3", &level));
    g_assert_cmpint(level, ==, POOL_LOG_WARNING);
    g_assert_true(pool_log_parse_level("warn", &level));
    g_assert_cmpint(level, ==, POOL_LOG_WARNING);
    g_assert_true(pool_log_parse_level("debug", &level));
    g_assert_cmpint(level, ==, POOL_LOG_DEBUG);
    g_assert_false(pool_log_parse_level("5", &level));
    pool_log_close();
}

int main(int argc, char **argv)
{
    g_autofree char *journal = NULL;
    g_autofree char *syslog = NULL;
    int fds[2];
    int ret;

    g_test_init(&argc, &argv, NULL);
    folder = g_dir_make_tmp("ashlar-log-XXXXXX", NULL);
    journal = in_folder("journal.socket");
    syslog = in_folder("log.socket");
    fds[0] = listen_at(journal);
    fds[1] = listen_at(syslog);
    pool_log_set_system_sockets(journal, syslog);
    g_test_add_func("/pool/log/files", test_files);
    g_test_add_func("/pool/log/twice", test_twice);
    g_test_add_func("/pool/log/stderr", test_stderr);
    g_test_add_func("/pool/log/filters", test_filters);
    g_test_add_data_func("/pool/log/journal", &fds[0], test_journal);
    g_test_add_data_func("/pool/log/syslog", &fds[1], test_syslog);
    g_test_add_func("/pool/log/bad-settings", test_bad_settings);
    g_test_add_func("/pool/log/defaults", test_defaults);
    g_test_add_func("/pool/log/nobody", test_nobody);
    ret = g_test_run();
    for (const char *const *name = (const char *const[]){"journal.socket", "log.socket", "much", "little", "stderr",
                                                         "filtered", "twice", NULL};
         *name; name++) {
        g_autofree char *path = in_folder(*name);

        g_unlink(path);
    }
    g_rmdir(folder);
    g_free(folder);
    return ret;
}
