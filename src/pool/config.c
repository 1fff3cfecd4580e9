/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/error.h"
#include "pool/log.h"
#include "pool/sasl-config.h"

/* Of a key that libvirt's daemons pass over: more would be no burst of calls any more. */
enum { POLL_MAX_US = 1000 };

enum key_type { KEY_STRING, KEY_LIST, KEY_UINT, KEY_INT };

static const char *const type_words[] = {
    [KEY_STRING] = "a string",
    [KEY_LIST] = "a list of strings",
    [KEY_UINT] = "a number of 0 or more",
    [KEY_INT] = "a number",
};

/* A value as it stands in the file. */
struct value {
    enum { VALUE_STRING, VALUE_NUMBER, VALUE_LIST } kind;
    char *string;
    int64_t number;
    GPtrArray *list; /* of char * */
};

struct parser {
    const char *at;
    const char *path;
    unsigned line;
    const char *key;  /* that is being read; NULL: none yet */
    unsigned *set_at; /* by the place of a key in the table: the line; 0: none yet */
    struct pool_config *config;
};

static void value_done(struct value value)
{
    g_free(value.string);
    if (value.list)
        g_ptr_array_unref(value.list);
}
AUTO_DEFINE(value, struct value, value_done)

/* --- reading --- */

/* File, line and key, and what is wrong there. */
static bool fail(const struct parser *parser, struct error **err, const char *format, ...) PRINTF_LIKE(3, 4);
static bool fail(const struct parser *parser, struct error **err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    return error_set(err, "%s:%u: %s%s%s", parser->path, parser->line, parser->key ? parser->key : "",
                     parser->key ? ": " : "", what);
}

/* The same, and it goes on. */
static void warn(const struct parser *parser, const char *format, ...) PRINTF_LIKE(2, 3);
static void warn(const struct parser *parser, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    g_ptr_array_add(parser->config->warnings,
                    g_strdup_printf("%s:%u: %s: %s", parser->path, parser->line, parser->key, what));
}

static void skip_blanks(struct parser *parser)
{
    while (*parser->at == ' ' || *parser->at == '\t' || *parser->at == '\r')
        parser->at++;
}

/* Blanks, empty lines and comments. */
static void skip_lines(struct parser *parser)
{
    for (;;) {
        skip_blanks(parser);
        if (*parser->at == '#')
            parser->at += strcspn(parser->at, "\n");
        if (*parser->at != '\n')
            return;
        parser->at++;
        parser->line++;
    }
}

static bool parse_string(struct parser *parser, char **ret, struct error **err)
{
    static const char triple[] = "\"\"\"";
    bool long_form = g_str_has_prefix(parser->at, triple);
    char quote[] = {*parser->at, 0};
    const char *mark = long_form ? triple : quote;
    const char *begin = parser->at + strlen(mark);
    const char *end = strstr(begin, mark);

    if (!end || (!long_form && memchr(begin, '\n', (size_t)(end - begin))))
        return fail(parser, err, "unterminated string");
    *ret = g_strndup(begin, (size_t)(end - begin));
    for (const char *c = begin; c < end; c++)
        parser->line += *c == '\n';
    parser->at = end + strlen(mark);
    return true;
}

static bool parse_number(struct parser *parser, int64_t *ret, struct error **err)
{
    g_autofree char *text = g_strndup(parser->at, strspn(parser->at, "+-0123456789"));
    const char *digits = *text == '+' || *text == '-' ? text + 1 : text;

    if (!*digits || digits[strspn(digits, "0123456789")])
        return fail(parser, err, "'%s' is not a number", text);
    if (!g_ascii_string_to_signed(*text == '+' ? digits : text, 10, INT64_MIN, INT64_MAX, ret, NULL))
        return fail(parser, err, "the number %s is too large", text);
    parser->at += strlen(text);
    return true;
}

static bool is_quote(char c)
{
    return c == '"' || c == '\'';
}

static bool parse_list(struct parser *parser, GPtrArray *list, struct error **err)
{
    parser->at++;
    for (;;) {
        char *text;

        skip_lines(parser);
        if (*parser->at == ']')
            break;
        if (!is_quote(*parser->at))
            return fail(parser, err, "expecting a string or ']' in a list");
        if (!parse_string(parser, &text, err))
            return false;
        g_ptr_array_add(list, text);
        skip_lines(parser);
        if (*parser->at == ',')
            parser->at++;
        else if (*parser->at != ']')
            return fail(parser, err, "expecting a separator in list");
    }
    parser->at++;
    return true;
}

static bool parse_value(struct parser *parser, struct value *ret, struct error **err)
{
    if (is_quote(*parser->at)) {
        ret->kind = VALUE_STRING;
        return parse_string(parser, &ret->string, err);
    }
    if (*parser->at == '[') {
        ret->kind = VALUE_LIST;
        ret->list = g_ptr_array_new_with_free_func(g_free);
        return parse_list(parser, ret->list, err);
    }
    if (g_ascii_isdigit(*parser->at) || *parser->at == '-' || *parser->at == '+') {
        ret->kind = VALUE_NUMBER;
        return parse_number(parser, &ret->number, err);
    }
    return fail(parser, err, "expecting a value");
}

/* --- what a value may be --- */

#ifdef ASHLAR_SASL
enum { POOL_HAS_SASL = true };
#else
enum { POOL_HAS_SASL = false };
#endif

static bool check_mode(const struct parser *parser, const struct value *value, struct error **err)
{
    const char *text = value->string;

    if (!*text || strlen(text) > 10 || strspn(text, "01234567") != strlen(text) || pool_config_mode(text, 0) > 07777)
        return fail(parser, err, "'%s' is not a mode in octal, like \"0770\"", text);
    return true;
}

static bool check_directory(const struct parser *parser, const struct value *value, struct error **err)
{
    return g_path_is_absolute(value->string) || fail(parser, err, "'%s' is not an absolute path", value->string);
}

static bool check_auth(const struct parser *parser, const struct value *value, struct error **err)
{
    const char *text = value->string;

    if (!strcmp(text, "none") || !strcmp(text, "polkit"))
        return true;
    if (!strcmp(text, "sasl"))
        return POOL_HAS_SASL ||
               fail(parser, err, "this daemon is built without SASL; \"none\" and \"polkit\" are there");
    return fail(parser, err, "unsupported auth '%s'", text);
}

static bool check_access(const struct parser *parser, const struct value *value, struct error **err)
{
    for (guint i = 0; i < value->list->len; i++) {
        const char *name = value->list->pdata[i];

        if (strcmp(name, "none") != 0 && strcmp(name, "polkit") != 0)
            return fail(parser, err, "there is no access driver '%s', only \"none\" and \"polkit\"", name);
    }
    return true;
}

static bool check_host_uuid(const struct parser *parser, const struct value *value, struct error **err)
{
    const char *uuid = value->string;

    if (!g_uuid_string_is_valid(uuid))
        return fail(parser, err, "'%s' is not a UUID", uuid);
    if (strspn(uuid, (char[]){*uuid, '-', 0}) == strlen(uuid))
        return fail(parser, err, "'%s' is the same digit all over", uuid);
    return true;
}

static bool check_host_uuid_source(const struct parser *parser, const struct value *value, struct error **err)
{
    if (!strcmp(value->string, "smbios") || !strcmp(value->string, "machine-id"))
        return true;
    return fail(parser, err, "invalid UUID source: %s", value->string);
}

struct key {
    const char *name;
    enum key_type type;
    size_t offset;
    uint32_t min, max; /* of KEY_UINT; max 0: none */
    bool (*check)(const struct parser *parser, const struct value *value, struct error **err); /* NULL: all goes */
};

#define KEY(field, key_type) .name = #field, .type = key_type, .offset = offsetof(struct pool_config, field)

static const struct key keys[] = {
    {KEY(unix_sock_group, KEY_STRING)},
    {KEY(unix_sock_ro_perms, KEY_STRING), .check = check_mode},
    {KEY(unix_sock_rw_perms, KEY_STRING), .check = check_mode},
    {KEY(unix_sock_admin_perms, KEY_STRING), .check = check_mode},
    {KEY(unix_sock_dir, KEY_STRING), .check = check_directory},
    {KEY(auth_unix_ro, KEY_STRING), .check = check_auth},
    {KEY(auth_unix_rw, KEY_STRING), .check = check_auth},
    {KEY(access_drivers, KEY_LIST), .check = check_access},
    {KEY(sasl_allowed_username_list, KEY_LIST)},
    {KEY(max_clients, KEY_UINT), .min = 1},
    {KEY(max_queued_clients, KEY_UINT), .max = INT32_MAX},
    {KEY(max_anonymous_clients, KEY_UINT)},
    {KEY(min_workers, KEY_UINT)},
    {KEY(max_workers, KEY_UINT), .min = 1},
    {KEY(prio_workers, KEY_UINT)},
    {KEY(max_client_requests, KEY_UINT), .min = 1},
    {KEY(admin_min_workers, KEY_UINT)},
    {KEY(admin_max_workers, KEY_UINT), .min = 1},
    {KEY(admin_max_clients, KEY_UINT)},
    {KEY(admin_max_queued_clients, KEY_UINT), .max = INT32_MAX},
    {KEY(admin_max_client_requests, KEY_UINT), .min = 1},
    {KEY(log_level, KEY_UINT), .max = POOL_LOG_ERROR},
    {KEY(log_filters, KEY_STRING)},
    {KEY(log_outputs, KEY_STRING)},
    {KEY(audit_level, KEY_UINT), .max = 2},
    {KEY(audit_logging, KEY_UINT), .max = 1},
    {KEY(host_uuid, KEY_STRING), .check = check_host_uuid},
    {KEY(host_uuid_source, KEY_STRING), .check = check_host_uuid_source},
    {KEY(keepalive_interval, KEY_INT)},
    {KEY(keepalive_count, KEY_UINT)},
    {KEY(admin_keepalive_interval, KEY_INT)},
    {KEY(admin_keepalive_count, KEY_UINT)},
    {KEY(keepalive_required, KEY_UINT)},
    {KEY(admin_keepalive_required, KEY_UINT)},
    {KEY(ovs_timeout, KEY_UINT)},
    {KEY(poll_max_us, KEY_UINT), .max = POLL_MAX_US},
};

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    }
    return NULL;
}

/* A number out of range, or one that its key does not take. */
static bool check_number(const struct parser *parser, const struct key *key, int64_t number, struct error **err)
{
    int64_t min = key->type == KEY_INT ? INT32_MIN : (int64_t)key->min;
    int64_t max = key->type == KEY_INT ? INT32_MAX : key->max ? (int64_t)key->max : (int64_t)UINT32_MAX;

    if (number < min || number > max)
        return fail(parser, err, "%" PRId64 " is not from %" PRId64 " to %" PRId64, number, min, max);
    return true;
}

/* --- setting --- */

static bool is_number(const struct key *key)
{
    return key->type == KEY_UINT || key->type == KEY_INT;
}

static bool check_value(const struct parser *parser, const struct key *key, const struct value *value,
                        struct error **err)
{
    int wanted = is_number(key) ? VALUE_NUMBER : key->type == KEY_LIST ? VALUE_LIST : VALUE_STRING;

    if ((int)value->kind != wanted)
        return fail(parser, err, "expecting %s", type_words[key->type]);
    if (is_number(key) && !check_number(parser, key, value->number, err))
        return false;
    return !key->check || key->check(parser, value, err);
}

static void set_list(GStrv *field, struct value *value)
{
    g_strfreev(*field);
    g_ptr_array_add(value->list, NULL);
    *field = (GStrv)g_ptr_array_free(TAKE(value->list), FALSE);
}

static void set_text(char **field, struct value *value)
{
    g_free(*field);
    *field = TAKE(value->string);
}

static void set(struct pool_config *config, const struct key *key, struct value *value)
{
    void *field = (char *)config + key->offset;

    if (key->type == KEY_UINT)
        *(uint32_t *)field = (uint32_t)value->number;
    else if (key->type == KEY_INT)
        *(int32_t *)field = (int32_t)value->number;
    else if (key->type == KEY_LIST)
        set_list(field, value);
    else
        set_text(field, value);
}

/* Of a key that is given twice libvirt's daemons take the first value. */
static void take(const struct parser *parser, const struct key *key, struct value *value)
{
    unsigned *set_at = &parser->set_at[key - keys];

    if (*set_at) {
        warn(parser, "line %u has set it already, and that counts", *set_at);
        return;
    }
    *set_at = parser->line;
    set(parser->config, key, value);
}

static bool parse_line(struct parser *parser, struct error **err)
{
    static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t length = strspn(parser->at, name_characters);
    g_autofree char *name = g_strndup(parser->at, length);
    struct parser begin; /* for messages: a list may end on another line */
    AUTO(value) value = {0};
    const struct key *key;

    if (!g_ascii_isalpha(*name))
        return fail(parser, err, "expecting a name");
    parser->key = name;
    begin = *parser;
    parser->at += length;
    skip_blanks(parser);
    if (*parser->at != '=')
        return fail(parser, err, "expecting an assignment");
    parser->at++;
    skip_blanks(parser);
    if (!parse_value(parser, &value, err))
        return false;
    skip_blanks(parser);
    if (*parser->at && *parser->at != '\n' && *parser->at != '#')
        return fail(parser, err, "expecting the end of the line after the value");
    parser->key = NULL;
    key = find_key(name);
    if (!key) {
        warn(&begin, "there is no such key");
        return true;
    }
    if (!check_value(&begin, key, &value, err))
        return false;
    take(&begin, key, &value);
    return true;
}

/* --- what goes together --- */

/* As libvirt's daemons take it. */
static void limit_workers(struct pool_config *config, const char *path, const char *key, uint32_t *min, uint32_t max)
{
    if (*min <= max)
        return;
    g_ptr_array_add(config->warnings,
                    g_strdup_printf("%s: %smin_workers is %u, more than %smax_workers, which is %u and counts for both",
                                    path, key, *min, key, max));
    *min = max;
}

static bool check(struct pool_config *config, const char *path, struct error **err)
{
    if (config->max_clients < config->max_anonymous_clients)
        return error_set(err, "%s: max_anonymous_clients is %u, more than max_clients, which is %u", path,
                         config->max_anonymous_clients, config->max_clients);
    limit_workers(config, path, "", &config->min_workers, config->max_workers);
    limit_workers(config, path, "admin_", &config->admin_min_workers, config->admin_max_workers);
    return true;
}

bool pool_config_parse(struct pool_config *config, const char *text, const char *path, struct error **err)
{
    unsigned set_at[G_N_ELEMENTS(keys)] = {0};
    struct parser parser = {.at = text, .path = path, .line = 1, .set_at = set_at, .config = config};

    for (;;) {
        skip_lines(&parser);
        if (!*parser.at)
            return check(config, path, err);
        if (!parse_line(&parser, err))
            return false;
    }
}

/* --- life --- */

/* What counts where the file says nothing; other members are zero. */
static const struct pool_config usual_config = {
    .max_clients = 5000,
    .max_queued_clients = 1000,
    .max_anonymous_clients = 20,
    .min_workers = 5,
    .max_workers = 20,
    .prio_workers = 5,
    .max_client_requests = 5,
    .admin_min_workers = 5,
    .admin_max_workers = 20,
    .admin_max_clients = 5000,
    .admin_max_queued_clients = 20,
    .admin_max_client_requests = 5,
    .audit_level = 1,
    .keepalive_interval = 5,
    .keepalive_count = 5,
    .admin_keepalive_interval = 5,
    .admin_keepalive_count = 5,
    .ovs_timeout = 5,
};

struct pool_config *pool_config_new(void)
{
    struct pool_config *config = g_memdup2(&usual_config, sizeof(usual_config));

    config->warnings = g_ptr_array_new_with_free_func(g_free);
    return config;
}

void pool_config_free(struct pool_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        void *field = (char *)config + keys[i].offset;

        if (keys[i].type == KEY_LIST)
            g_strfreev(*(GStrv *)field);
        else if (keys[i].type != KEY_UINT && keys[i].type != KEY_INT)
            g_free(*(char **)field);
    }
    g_ptr_array_unref(config->warnings);
    g_free(config);
}

unsigned pool_config_mode(const char *text, unsigned otherwise)
{
    return text ? (unsigned)g_ascii_strtoull(text, NULL, 8) : otherwise;
}
