/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/filename.h"

#include <fcntl.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "loop/file.h"
#include "schema/json.h"

enum { NBD_PORT_DEFAULT = 10809, JSON_NAME_MAX = 1 << 20 };

size_t filename_protocol_length(const char *filename)
{
    size_t length = strcspn(filename, ":/");

    return filename[length] == ':' ? length : 0;
}

static struct json *driver_options(const char *driver)
{
    struct json *options = json_object();

    json_set(options, "driver", json_string(driver));
    return options;
}

/* --- paths --- */

const char *CO_FN co_filename_path_driver(const char *path)
{
    struct stat stat;
    AUTO(fd) fd = -1;

    if (g_str_has_prefix(path, "/dev/cdrom"))
        return "host_cdrom";
    fd = co_file_open(path, O_PATH, 0);
    if (fd < 0 || co_file_stat(fd, &stat) < 0)
        return "file";
    return S_ISBLK(stat.st_mode) || S_ISCHR(stat.st_mode) ? "host_device" : "file";
}

static struct json *path_options(const char *driver, const char *path)
{
    struct json *options = driver_options(driver);

    json_set(options, "filename", json_string(path));
    return options;
}

/* --- NBD --- */

static struct json *unix_server(const char *path)
{
    struct json *server = json_object();

    json_set(server, "type", json_string("unix"));
    json_set(server, "path", json_string(path));
    return server;
}

static struct json *inet_server(const char *host, const char *port)
{
    struct json *server = json_object();

    json_set(server, "type", json_string("inet"));
    json_set(server, "host", json_string(host));
    json_set(server, "port", json_string(port));
    return server;
}

/* "HOST:PORT", the host in brackets where it has colons. */
static struct json *nbd_inet_address(const char *text, struct error **err)
{
    const char *end = text[0] == '[' ? strchr(text, ']') : strchr(text, ':');
    const char *port = end && *end == ']' ? end + 1 : end;
    g_autofree char *host = NULL;

    if (!port || *port != ':' || !port[1] || strchr(port + 1, ':')) {
        error_set(err, "error parsing address '%s'", text);
        return NULL;
    }
    host = text[0] == '[' ? g_strndup(text + 1, (gsize)(end - text - 1)) : g_strndup(text, (gsize)(end - text));
    return inet_server(host, port + 1);
}

/* What stands behind "nbd:" in the form without slashes. */
static struct json *nbd_plain(const char *text, struct error **err)
{
    static const char export_key[] = ":exportname=";
    const char *export = strstr(text, export_key);
    g_autofree char *address = export ? g_strndup(text, (gsize)(export - text)) : g_strdup(text);
    AUTO(json) options = driver_options("nbd");
    struct json *server;

    if (!*address) {
        error_set(err, "NBD server address missing");
        return NULL;
    }
    server =
        g_str_has_prefix(address, "unix:") ? unix_server(address + strlen("unix:")) : nbd_inet_address(address, err);
    if (!server)
        return NULL;
    json_set(options, "server", server);
    if (export)
        json_set(options, "export", json_string(export + strlen(export_key)));
    return TAKE(options);
}

/* `words`: of the query, those that are understood are taken out. */
static struct json *nbd_unix_url(GUri *uri, GHashTable *words)
{
    g_autofree char *path = g_strdup(g_hash_table_lookup(words, "socket"));
    const char *host = g_uri_get_host(uri);

    g_hash_table_remove(words, "socket");
    return !path || (host && *host) || g_uri_get_port(uri) > 0 ? NULL : unix_server(path);
}

static struct json *nbd_vsock_url(GUri *uri)
{
    const char *host = g_uri_get_host(uri);
    g_autofree char *port = NULL;
    struct json *server;

    if (!host || !*host || strspn(host, "0123456789") != strlen(host))
        return NULL;
    port = g_strdup_printf("%d", g_uri_get_port(uri) > 0 ? g_uri_get_port(uri) : NBD_PORT_DEFAULT);
    server = json_object();
    json_set(server, "type", json_string("vsock"));
    json_set(server, "cid", json_string(host));
    json_set(server, "port", json_string(port));
    return server;
}

static struct json *nbd_inet_url(GUri *uri)
{
    g_autofree char *port = NULL;
    const char *host = g_uri_get_host(uri);

    if (!host || !*host)
        return NULL;
    port = g_strdup_printf("%d", g_uri_get_port(uri) > 0 ? g_uri_get_port(uri) : NBD_PORT_DEFAULT);
    return inet_server(host, port);
}

/* With TLS the URL says which object has the credentials: "nbds://host/export?tls-creds=ID". */
static bool nbd_take_tls(GHashTable *words, bool tls, struct json *options)
{
    static const char *const keys[] = {"tls-creds", "tls-hostname"};

    for (size_t i = 0; tls && i < G_N_ELEMENTS(keys); i++) {
        const char *value = g_hash_table_lookup(words, keys[i]);

        if (value)
            json_set(options, keys[i], json_string(value));
        g_hash_table_remove(words, keys[i]);
    }
    return !tls || json_get(options, "tls-creds");
}

static struct json *nbd_url(const char *url, struct error **err)
{
    g_autoptr(GUri) uri = g_uri_parse(url, G_URI_FLAGS_NONE, NULL);
    const char *scheme = uri ? g_uri_get_scheme(uri) : "";
    const char *path = uri ? g_uri_get_path(uri) : "", *query = uri ? g_uri_get_query(uri) : NULL;
    g_autoptr(GHashTable) words = g_uri_parse_params(query ? query : "", -1, "&", G_URI_PARAMS_NONE, NULL);
    bool tls = g_str_has_prefix(scheme, "nbds");
    const char *transport = strchr(scheme, '+') ? strchr(scheme, '+') + 1 : "tcp";
    AUTO(json) options = driver_options("nbd");
    struct json *server = NULL;

    if (uri && words && !strcmp(transport, "unix"))
        server = nbd_unix_url(uri, words);
    else if (uri && words && !strcmp(transport, "vsock"))
        server = nbd_vsock_url(uri);
    else if (uri && words && !strcmp(transport, "tcp"))
        server = nbd_inet_url(uri);
    if (!server) {
        error_set(err, "No valid URL specified");
        return NULL;
    }
    json_set(options, "server", server);
    path += *path == '/';
    if (*path)
        json_set(options, "export", json_string(path));
    if (!nbd_take_tls(words, tls, options)) {
        error_set(err, "'%s' needs the credentials for TLS: ...?tls-creds=ID", url);
        return NULL;
    }
    if (g_hash_table_size(words)) {
        error_set(err, "No valid URL specified");
        return NULL;
    }
    return TAKE(options);
}

/* --- all --- */

/* Whether `filename` is "PROTOCOL:..."; what stands behind the colon in *ret_rest. */
static bool has_protocol(const char *filename, const char *protocol, const char **ret_rest)
{
    size_t length = filename_protocol_length(filename);

    if (length != strlen(protocol) || strncmp(filename, protocol, length) != 0)
        return false;
    *ret_rest = filename + length + 1;
    return true;
}

/* --- filters for tests --- */

/* What stands behind "blkdebug:" or "blkverify:": "FIRST:IMAGE"; FIRST in *ret_first, owned. NULL: no colon. */
static const char *split_pair(const char *text, char **ret_first)
{
    const char *colon = strchr(text, ':');

    *ret_first = colon ? g_strndup(text, (gsize)(colon - text)) : NULL;
    return colon ? colon + 1 : NULL;
}

static struct json *CO_FN co_blkdebug(const char *text, struct error **err)
{
    g_autofree char *config = NULL;
    const char *image = split_pair(text, &config);
    AUTO(json) options = driver_options("blkdebug");
    struct json *child;

    if (!image) {
        error_set(err, "blkdebug requires both config file and image path: 'blkdebug:%s'", text);
        return NULL;
    }
    child = co_filename_protocol_options(image, err);
    if (!child)
        return NULL;
    json_set(options, "image", child);
    if (*config)
        json_set(options, "config", json_string(config));
    return TAKE(options);
}

/* The image under test is of any format, which is to be found out. */
static struct json *CO_FN co_blkverify(const char *text, struct error **err)
{
    g_autofree char *raw = NULL;
    const char *image = split_pair(text, &raw);
    AUTO(json) options = driver_options("blkverify");
    struct json *child, *test;

    if (!image) {
        error_set(err, "blkverify requires raw copy and original image path: 'blkverify:%s'", text);
        return NULL;
    }
    child = co_filename_protocol_options(raw, err);
    if (!child)
        return NULL;
    json_set(options, "raw", child);
    child = co_filename_protocol_options(image, err);
    if (!child)
        return NULL;
    test = json_object();
    json_set(test, "file", child);
    json_set(options, "test", test);
    return TAKE(options);
}

static const char *const nbd_schemes[] = {"nbd",      "nbd+tcp",   "nbd+unix",   "nbd+vsock", "nbds",
                                          "nbds+tcp", "nbds+unix", "nbds+vsock", NULL};

struct json *CO_FN co_filename_protocol_options(const char *filename, struct error **err)
{
    size_t length = filename_protocol_length(filename);
    g_autofree char *protocol = g_strndup(filename, length);
    const char *rest;

    if (!length)
        return path_options(co_filename_path_driver(filename), filename);
    if (has_protocol(filename, "file", &rest))
        return path_options("file", rest);
    if (has_protocol(filename, "host_device", &rest) || has_protocol(filename, "host_cdrom", &rest))
        return path_options(protocol, rest);
    if (!strcmp(filename, "null-co://") || !strcmp(filename, "null-aio://"))
        return driver_options(protocol);
    if (has_protocol(filename, "blkdebug", &rest))
        return co_blkdebug(rest, err);
    if (has_protocol(filename, "blkverify", &rest))
        return co_blkverify(rest, err);
    if (has_protocol(filename, "nbd", &rest) && !g_str_has_prefix(rest, "//"))
        return nbd_plain(rest, err);
    if (g_strv_contains(nbd_schemes, protocol))
        return nbd_url(filename, err);
    error_set(err, "Unknown protocol '%s'", protocol);
    return NULL;
}

/* --- "json:" --- */

/* Puts `value`, taken, under the dotted `key`. */
static bool set_nested(struct json *root, const char *key, struct json *value, struct error **err)
{
    g_auto(GStrv) parts = g_strsplit(key, ".", -1);
    struct json *object = root;

    for (char **part = parts; *part; part++) {
        struct json *member = (struct json *)(uintptr_t)json_get(object, *part);

        if (!part[1]) {
            if (!member) {
                json_set(object, *part, value);
                return true;
            }
            break;
        }
        if (!member) {
            json_set(object, *part, json_object());
            member = (struct json *)(uintptr_t)json_get(object, *part);
        }
        if (json_get_kind(member) != JSON_OBJECT)
            break;
        object = member;
    }
    json_free(value);
    return error_set(err, "Parameters '%s' used inconsistently", key);
}

static bool is_list(const struct json *object)
{
    for (size_t i = 0; i < json_count(object); i++) {
        g_autofree char *index = g_strdup_printf("%zu", i);

        if (!json_get(object, index))
            return false;
    }
    return json_count(object) > 0;
}

static struct json *nest(const struct json *value, struct error **err);

static struct json *nest_array(const struct json *array, struct error **err)
{
    AUTO(json) result = json_array();

    for (size_t i = 0; i < json_count(array); i++) {
        struct json *item = nest(json_at(array, i), err);

        if (!item)
            return NULL;
        json_append(result, item);
    }
    return TAKE(result);
}

/* What consists of nothing but the numbers from 0 on is a list. */
static struct json *list_where_numbered(struct json *object)
{
    struct json *array;

    for (size_t i = 0; i < json_count(object); i++) {
        const char *key;
        const struct json *member = json_member(object, i, &key);

        if (json_get_kind(member) == JSON_OBJECT) {
            g_autofree char *name = g_strdup(key);

            json_set(object, name, list_where_numbered(json_clone(member)));
        }
    }
    if (!is_list(object))
        return object;
    array = json_array();
    for (size_t i = 0; json_count(object); i++) {
        g_autofree char *index = g_strdup_printf("%zu", i);

        json_append(array, json_take(object, index));
    }
    json_free(object);
    return array;
}

static struct json *nest_object(const struct json *object, struct error **err)
{
    AUTO(json) result = json_object();

    for (size_t i = 0; i < json_count(object); i++) {
        const char *key;
        struct json *member = nest(json_member(object, i, &key), err);

        if (!member || !set_nested(result, key, member, err))
            return NULL;
    }
    return TAKE(result);
}

/* The recursion is bounded by the reader's limit of depth. */
static struct json *nest(const struct json *value, struct error **err)
{
    if (json_get_kind(value) == JSON_OBJECT)
        return nest_object(value, err);
    if (json_get_kind(value) == JSON_ARRAY)
        return nest_array(value, err);
    return json_clone(value);
}

struct json *filename_json_options(const char *filename, struct error **err)
{
    const char *text = filename + strlen("json:");
    AUTO(json) value = NULL;
    struct json *nested;

    if (strlen(text) > JSON_NAME_MAX) {
        error_set(err, "Could not parse the JSON options: longer than %d bytes", JSON_NAME_MAX);
        return NULL;
    }
    value = json_parse(text, strlen(text), err);
    if (!value) {
        error_prefix(err, "Could not parse the JSON options: ");
        return NULL;
    }
    if (json_get_kind(value) != JSON_OBJECT) {
        error_set(err, "Invalid JSON object given");
        return NULL;
    }
    nested = nest(value, err);
    return nested ? list_where_numbered(nested) : NULL;
}
