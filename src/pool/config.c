/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/config.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "pool/log.h"
#include "pool/sasl-config.h"

/* Of a key that libvirt's daemons pass over: more would be no burst of calls any more. */
enum { POLL_MAX_US = 1000 };

enum key_type { KEY_STRING, KEY_MODE, KEY_LIST, KEY_UINT, KEY_INT, KEY_AUTH };

static const char *const type_words[] = {
    [KEY_STRING] = "a string",        [KEY_MODE] = "a string",
    [KEY_LIST] = "a list of strings", [KEY_UINT] = "a number of 0 or more",
    [KEY_INT] = "a number",           [KEY_AUTH] = "a string",
};

struct key {
    const char *name;
    enum key_type type;
    size_t offset;
    uint32_t min, max; /* of KEY_UINT; max 0: none */
};

#define KEY(name, type)                                                                                                \
    {                                                                                                                  \
#name, type, offsetof(struct pool_config, name), 0, 0                                                          \
    }
#define KEY_RANGE(name, min, max)                                                                                      \
    {                                                                                                                  \
#name, KEY_UINT, offsetof(struct pool_config, name), min, max                                                  \
    }

static const struct key keys[] = {
    KEY(unix_sock_group, KEY_STRING),
    KEY(unix_sock_ro_perms, KEY_MODE),
    KEY(unix_sock_rw_perms, KEY_MODE),
    KEY(unix_sock_admin_perms, KEY_MODE),
    KEY(unix_sock_dir, KEY_STRING),
    KEY(auth_unix_ro, KEY_AUTH),
    KEY(auth_unix_rw, KEY_AUTH),
    KEY(access_drivers, KEY_LIST),
    KEY(sasl_allowed_username_list, KEY_LIST),
    KEY_RANGE(max_clients, 1, 0),
    KEY_RANGE(max_queued_clients, 1, INT32_MAX),
    KEY(max_anonymous_clients, KEY_UINT),
    KEY(min_workers, KEY_UINT),
    KEY_RANGE(max_workers, 1, 0),
    KEY(prio_workers, KEY_UINT),
    KEY_RANGE(max_client_requests, 1, 0),
    KEY(admin_min_workers, KEY_UINT),
    KEY_RANGE(admin_max_workers, 1, 0),
    KEY_RANGE(admin_max_clients, 1, 0),
    KEY_RANGE(admin_max_queued_clients, 1, INT32_MAX),
    KEY_RANGE(admin_max_client_requests, 1, 0),
    KEY_RANGE(log_level, 0, POOL_LOG_ERROR),
    KEY(log_filters, KEY_STRING),
    KEY(log_outputs, KEY_STRING),
    KEY_RANGE(audit_level, 0, 2),
    KEY_RANGE(audit_logging, 0, 1),
    KEY(host_uuid, KEY_STRING),
    KEY(host_uuid_source, KEY_STRING),
    KEY(keepalive_interval, KEY_INT),
    KEY(keepalive_count, KEY_UINT),
    KEY(admin_keepalive_interval, KEY_INT),
    KEY(admin_keepalive_count, KEY_UINT),
    KEY(keepalive_required, KEY_UINT),
    KEY(admin_keepalive_required, KEY_UINT),
    KEY(ovs_timeout, KEY_UINT),
    KEY_RANGE(poll_max_us, 0, POLL_MAX_US),
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
    struct pool_config *config;
};

struct pool_config *pool_config_new(void)
{
    struct pool_config *config = g_new0(struct pool_config, 1);

    config->max_clients = 5000;
    config->max_queued_clients = 1000;
    config->max_anonymous_clients = 20;
    config->min_workers = config->admin_max_workers = 5;
    config->max_workers = 20;
    config->admin_min_workers = 1;
    config->prio_workers = 5;
    config->max_client_requests = config->admin_max_client_requests = 5;
    config->admin_max_clients = 5;
    config->admin_max_queued_clients = 20;
    config->audit_level = 1;
    config->keepalive_interval = config->admin_keepalive_interval = 5;
    config->keepalive_count = config->admin_keepalive_count = 5;
    config->ovs_timeout = 5;
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

static void value_done(struct value value)
{
    g_free(value.string);
    if (value.list)
        g_ptr_array_unref(value.list);
}
AUTO_DEFINE(value, struct value, value_done)

/* --- reading --- */

static bool fail(const struct parser *parser, const char *what, struct error **err)
{
    return error_set(err, "%s:%u: %s", parser->path, parser->line, what);
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
        return fail(parser, "unterminated string", err);
    *ret = g_strndup(begin, (size_t)(end - begin));
    for (const char *c = begin; c < end; c++)
        parser->line += *c == '\n';
    parser->at = end + strlen(mark);
    return true;
}

static bool parse_number(struct parser *parser, int64_t *ret, struct error **err)
{
    g_autofree char *text = g_strndup(parser->at, strspn(parser->at, "+-0123456789"));

    if (!g_ascii_string_to_signed(*text == '+' ? text + 1 : text, 10, INT64_MIN, INT64_MAX, ret, NULL))
        return fail(parser, "unterminated number", err);
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
            return fail(parser, "expecting a string or ']' in a list", err);
        if (!parse_string(parser, &text, err))
            return false;
        g_ptr_array_add(list, text);
        skip_lines(parser);
        if (*parser->at == ',')
            parser->at++;
        else if (*parser->at != ']')
            return fail(parser, "expecting a separator in list", err);
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
    return fail(parser, "expecting a value", err);
}

/* --- setting --- */

#ifdef ASHLAR_SASL
enum { POOL_HAS_SASL = true };
#else
enum { POOL_HAS_SASL = false };
#endif

static bool bad_value(const struct parser *parser, const struct key *key, const char *what, struct error **err)
{
    return error_set(err, "%s:%u: %s: %s", parser->path, parser->line, key->name, what);
}

static bool check_mode(const struct parser *parser, const struct key *key, const char *text, struct error **err)
{
    if (!*text || strlen(text) > 4 || strspn(text, "01234567") != strlen(text))
        return error_set(err, "%s:%u: %s: '%s' is not a mode in octal, like \"0770\"", parser->path, parser->line,
                         key->name, text);
    return true;
}

static bool check_auth(const struct parser *parser, const struct key *key, const char *text, struct error **err)
{
    if (!strcmp(text, "none") || !strcmp(text, "polkit"))
        return true;
    if (!strcmp(text, "sasl"))
        return POOL_HAS_SASL ||
               bad_value(parser, key, "this daemon is built without SASL; \"none\" and \"polkit\" are there", err);
    return error_set(err, "%s:%u: %s: unsupported auth '%s'", parser->path, parser->line, key->name, text);
}

/* A wrong kind of value, or one out of range. */
static bool check_number(const struct parser *parser, const struct key *key, int64_t number, struct error **err)
{
    int64_t min = key->type == KEY_INT ? INT32_MIN : (int64_t)key->min;
    int64_t max = key->type == KEY_INT ? INT32_MAX : key->max ? (int64_t)key->max : (int64_t)UINT32_MAX;

    if (number < min || number > max)
        return error_set(err, "%s:%u: %s: %" PRId64 " is not from %" PRId64 " to %" PRId64, parser->path, parser->line,
                         key->name, number, min, max);
    return true;
}

static bool set_text(const struct parser *parser, const struct key *key, struct value *value, struct error **err)
{
    char **field = (char **)(void *)((char *)parser->config + key->offset);

    if (key->type == KEY_MODE && !check_mode(parser, key, value->string, err))
        return false;
    if (key->type == KEY_AUTH && !check_auth(parser, key, value->string, err))
        return false;
    g_free(*field);
    *field = TAKE(value->string);
    return true;
}

static void set_list(const struct parser *parser, const struct key *key, struct value *value)
{
    GStrv *field = (GStrv *)(void *)((char *)parser->config + key->offset);

    g_strfreev(*field);
    g_ptr_array_add(value->list, NULL);
    *field = (GStrv)g_ptr_array_free(TAKE(value->list), FALSE);
}

static bool set(const struct parser *parser, const struct key *key, struct value *value, struct error **err)
{
    bool number = key->type == KEY_UINT || key->type == KEY_INT;
    void *field = (char *)parser->config + key->offset;

    if ((int)value->kind != (number ? VALUE_NUMBER : key->type == KEY_LIST ? VALUE_LIST : VALUE_STRING))
        return error_set(err, "%s:%u: %s: expecting %s", parser->path, parser->line, key->name, type_words[key->type]);
    if (number && !check_number(parser, key, value->number, err))
        return false;
    if (key->type == KEY_UINT)
        *(uint32_t *)field = (uint32_t)value->number;
    else if (key->type == KEY_INT)
        *(int32_t *)field = (int32_t)value->number;
    else if (key->type == KEY_LIST)
        set_list(parser, key, value);
    else
        return set_text(parser, key, value, err);
    return true;
}

static bool parse_line(struct parser *parser, struct error **err)
{
    static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t length = strspn(parser->at, name_characters);
    g_autofree char *name = g_strndup(parser->at, length);
    struct parser begin = *parser; /* for messages: a list may end on another line */
    AUTO(value) value = {0};

    if (!length)
        return fail(parser, "expecting a name", err);
    parser->at += length;
    skip_blanks(parser);
    if (*parser->at != '=')
        return error_set(err, "%s:%u: %s: expecting an assignment", parser->path, parser->line, name);
    parser->at++;
    skip_blanks(parser);
    if (!parse_value(parser, &value, err))
        return false;
    skip_blanks(parser);
    if (*parser->at && *parser->at != '\n' && *parser->at != '#')
        return error_set(err, "%s:%u: %s: expecting the end of the line after the value", parser->path, parser->line,
                         name);
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (!strcmp(keys[i].name, name))
            return set(&begin, &keys[i], &value, err);
    }
    g_ptr_array_add(parser->config->warnings,
                    g_strdup_printf("%s:%u: %s: there is no such key", begin.path, begin.line, name));
    return true;
}

/* --- what goes together --- */

static bool check_workers(const char *path, const char *key, uint32_t min, uint32_t max, struct error **err)
{
    return min <= max ||
           error_set(err, "%s: %smin_workers is %u, more than %smax_workers, which is %u", path, key, min, key, max);
}

static bool check_host_uuid(const struct pool_config *config, const char *path, struct error **err)
{
    const char *uuid = config->host_uuid;
    const char *source = config->host_uuid_source;

    if (source && strcmp(source, "smbios") != 0 && strcmp(source, "machine-id") != 0)
        return error_set(err, "%s: host_uuid_source: invalid UUID source: %s", path, source);
    if (uuid && !g_uuid_string_is_valid(uuid))
        return error_set(err, "%s: host_uuid: '%s' is not a UUID", path, uuid);
    if (uuid && strspn(uuid, (char[]){*uuid, '-', 0}) == strlen(uuid))
        return error_set(err, "%s: host_uuid: '%s' is the same digit all over", path, uuid);
    return true;
}

static bool check_access(const struct pool_config *config, const char *path, struct error **err)
{
    if (!config->access_drivers)
        return true;
    for (char **name = config->access_drivers; *name; name++) {
        if (strcmp(*name, "none") != 0 && strcmp(*name, "polkit") != 0)
            return error_set(err, "%s: access_drivers: there is no access driver '%s', only \"none\" and \"polkit\"",
                             path, *name);
    }
    return true;
}

static bool check(const struct pool_config *config, const char *path, struct error **err)
{
    if (config->max_clients < config->max_anonymous_clients)
        return error_set(err, "%s: max_anonymous_clients is %u, more than max_clients, which is %u", path,
                         config->max_anonymous_clients, config->max_clients);
    if (config->unix_sock_dir && !g_path_is_absolute(config->unix_sock_dir))
        return error_set(err, "%s: unix_sock_dir: '%s' is not an absolute path", path, config->unix_sock_dir);
    return check_workers(path, "", config->min_workers, config->max_workers, err) &&
           check_workers(path, "admin_", config->admin_min_workers, config->admin_max_workers, err) &&
           check_host_uuid(config, path, err) && check_access(config, path, err);
}

bool pool_config_parse(struct pool_config *config, const char *text, const char *path, struct error **err)
{
    struct parser parser = {.at = text, .path = path, .line = 1, .config = config};

    for (;;) {
        skip_lines(&parser);
        if (!*parser.at)
            return check(config, path, err);
        if (!parse_line(&parser, err))
            return false;
    }
}

unsigned pool_config_mode(const char *text, unsigned otherwise)
{
    return text ? (unsigned)g_ascii_strtoull(text, NULL, 8) : otherwise;
}
