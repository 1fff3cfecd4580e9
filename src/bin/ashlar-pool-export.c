/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ashlar pool export, unexport: a volume, by way of a running ashlar-storaged. What is made there is named after pool
 * and volume, so that it is found again: a node, its secret where it is encrypted, and for each way an export.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "bin/ashlar-pool.h"
#include "cli/qmp-client.h"
#include "loop/file.h"
#include "loop/socket.h"
#include "pool/rpc/caller.h"
#include "schema/json.h"

enum { HASH_DIGITS = 16 };

/* By enum pool_export_kind: the type of export, and the end of its id. */
static const char *const kind_types[] = {"", "nbd", "vhost-user-blk", "fuse"};

struct export
{
    const struct pool_program *program;
    struct qmp_client *qmp;
    char *node; /* name of the node */
    char *secret;
    char *id;         /* of the export; NULL where no kind is given */
    char *nbd_socket; /* where the NBD server listens by default */

    /* what has been begun, to be taken back on failure */
    bool secret_made, node_made, server_started;
    char *file_made;
};

static void export_done(struct export *export)
{
    qmp_client_free(export->qmp);
    g_free(export->node);
    g_free(export->secret);
    g_free(export->id);
    g_free(export->nbd_socket);
    g_free(export->file_made);
}

static bool CO_FN co_begin(struct export *export, const struct pool_program *program, struct error **err)
{
    const char *qmp = program->qmp ? program->qmp : g_getenv("ASHLAR_QMP");
    g_autofree char *both = g_strdup_printf("%s\n%s", program->words[0], program->words[1]);
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, both, -1);
    g_autofree char *folder = NULL;

    *export = (struct export){.program = program};
    if (!qmp || !*qmp) {
        error_set(err, "which ashlar-storaged is to export it? --qmp or ASHLAR_QMP says where it listens for QMP");
        error_hint(err, "One can be started by: ashlar-storaged --chardev socket,id=qmp,path=PATH,server=on,wait=off "
                        "--monitor qmp");
        return false;
    }
    export->node = g_strdup_printf("volume-%.*s", HASH_DIGITS, hash);
    export->secret = g_strdup_printf("%s-key", export->node);
    if (program->kind)
        export->id = g_strdup_printf("%s-%s", export->node, kind_types[program->kind]);
    folder = g_path_get_dirname(qmp);
    export->nbd_socket = g_build_filename(folder, "ashlar-nbd.sock", NULL);
    export->qmp = co_qmp_client_new(qmp, err);
    return export->qmp;
}

/* An object with texts; ends with NULL. */
static struct json *G_GNUC_NULL_TERMINATED texts(const char *key, ...)
{
    struct json *object = json_object();
    va_list list;

    va_start(list, key);
    for (; key; key = va_arg(list, const char *))
        json_set(object, key, json_string(va_arg(list, const char *)));
    va_end(list);
    return object;
}

/* --- what is there --- */

/* Whether in the list that `query` returns one has `value` under `key`. */
static bool CO_FN co_has(struct export *export, const char *query, const char *key, const char *value, bool *ret,
                         struct error **err)
{
    AUTO(json) list = co_qmp_client_call(export->qmp, query, NULL, err);

    *ret = false;
    if (!list)
        return false;
    for (size_t i = 0; json_get_kind(list) == JSON_ARRAY && i < json_count(list); i++) {
        const struct json *found = json_get(json_at(list, i), key);

        if (found && json_get_kind(found) == JSON_STRING && !strcmp(json_get_string(found), value))
            *ret = true;
    }
    return true;
}

/* --- the node --- */

static bool CO_FN co_make_secret(struct export *export, const struct volume_view *volume, struct error **err)
{
    g_autofree char *value = co_volume_view_secret(export->program, volume, err);
    struct json *arguments;

    if (!value)
        return false;
    arguments = texts("qom-type", "secret", "id", export->secret, "data", value, "format", "base64", NULL);
    explicit_bzero(value, strlen(value));
    export->secret_made = co_qmp_client_do(export->qmp, "object-add", arguments, err);
    return export->secret_made;
}

/* The driver for the volume's format; NULL: there is none. */
static const char *driver_of(const struct volume_view *volume)
{
    static const char *const formats[][2] = {
        {"raw", "raw"}, {"iso", "raw"}, {"fat", "raw"}, {"qcow2", "qcow2"}, {"unknown", "raw"}, {"none", "raw"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (!strcmp(volume->format, formats[i][0]))
            return volume->encrypted && !strcmp(formats[i][1], "raw") ? "luks" : formats[i][1];
    }
    return NULL;
}

static struct json *node_options(const struct export *export, const struct volume_view *volume, const char *driver)
{
    struct json *file =
        texts("driver", strcmp(volume->type, "block") ? "file" : "host_device", "filename", volume->path, NULL);
    struct json *node = texts("driver", driver, "node-name", export->node, NULL);

    json_set(file, "read-only", json_bool(export->program->read_only));
    json_set(file, "discard", json_string("unmap"));
    json_set(node, "discard", json_string("unmap"));
    json_set(node, "read-only", json_bool(export->program->read_only));
    json_set(node, "file", file);
    if (volume->encrypted && !strcmp(driver, "luks"))
        json_set(node, "key-secret", json_string(export->secret));
    else if (volume->encrypted)
        json_set(node, "encrypt", texts("format", "luks", "key-secret", export->secret, NULL));
    return node;
}

static bool check_volume(const struct volume_view *volume, struct error **err)
{
    if (strcmp(volume->type, "file") != 0 && strcmp(volume->type, "block") != 0)
        return error_set(err, "volume '%s' is of type %s, and only files and block devices can be exported",
                         volume->name, volume->type);
    if (!volume->path || !g_path_is_absolute(volume->path))
        return error_set(err, "the pool daemon does not say where volume '%s' lies", volume->name);
    return driver_of(volume) ||
           error_set(err, "volume '%s' has format %s, which cannot be exported", volume->name, volume->format);
}

/* Why the volume cannot be opened; `error` is taken. */
static bool say_why(const struct pool_program *program, const struct volume_view *volume, struct error *error,
                    struct error **err)
{
    bool in_use = strstr(error_message(error), "\" lock");

    error_move(err, error);
    error_prefix(err, "volume '%s': ", volume->name);
    if (in_use && !program->read_only)
        error_hint(err, "Another image may be based on it, or a machine runs on it; --read-only does without writing.");
    return false;
}

/* One that is there already serves another export of the same volume. */
static bool CO_FN co_make_node(struct export *export, struct error **err)
{
    const struct pool_program *program = export->program;
    AUTO(rpc_caller) caller = co_pool_connect(program, "storage", true, err);
    AUTO(volume_view) volume = caller ? co_volume_view(caller, program->words[0], program->words[1], err) : NULL;
    struct error *error = NULL;
    bool there;

    if (!volume || !check_volume(volume, err) ||
        !co_has(export, "query-named-block-nodes", "node-name", export->node, &there, err))
        return false;
    if (there)
        return true;
    if (volume->encrypted && !co_make_secret(export, volume, err))
        return false;
    export->node_made =
        co_qmp_client_do(export->qmp, "blockdev-add", node_options(export, volume, driver_of(volume)), &error);
    return export->node_made || say_why(program, volume, TAKE(error), err);
}

/* --- NBD's server --- */

struct nbd_address {
    char *path; /* of a Unix socket; else: */
    char *host, *port;
};

static void nbd_address_done(struct nbd_address address)
{
    g_free(address.path);
    g_free(address.host);
    g_free(address.port);
}
AUTO_DEFINE(nbd_address, struct nbd_address, nbd_address_done)

/* "unix:PATH", a path with a slash in it, "HOST:PORT", "[HOST]:PORT". */
static bool parse_address(const char *text, struct nbd_address *ret, struct error **err)
{
    const char *colon = strrchr(text, ':');
    size_t length;

    if (g_str_has_prefix(text, "unix:") || strchr(text, '/')) {
        const char *path = g_str_has_prefix(text, "unix:") ? text + strlen("unix:") : text;

        ret->path = g_canonicalize_filename(path, NULL);
        return *path || error_set(err, "the address 'unix:' has no path");
    }
    if (!colon || !colon[1])
        return error_set(err, "'%s' is no address: HOST:PORT, unix:PATH or a path", text);
    length = (size_t)(colon - text);
    if (length >= 2 && *text == '[' && colon[-1] == ']')
        ret->host = g_strndup(text + 1, length - 2);
    else
        ret->host = g_strndup(text, length);
    ret->port = g_strdup(colon + 1);
    return true;
}

static bool CO_FN co_start_server(struct export *export, const struct nbd_address *address, struct error **err)
{
    struct json *arguments = json_object();
    struct json *addr = texts("type", address->path ? "unix" : "inet", NULL);

    json_set(addr, "data",
             address->path ? texts("path", address->path, NULL)
                           : texts("host", address->host, "port", address->port, NULL));
    json_set(arguments, "addr", addr);
    export->server_started = co_qmp_client_do(export->qmp, "nbd-server-start", arguments, err);
    return export->server_started;
}

/* Whether somebody listens there. */
static bool CO_FN co_answers(const struct nbd_address *address)
{
    const struct socket_endpoint endpoint = {
        .family = address->path ? SOCKET_UNIX : SOCKET_INET,
        .path = address->path,
        .host = address->host && *address->host ? address->host : "localhost",
        .port = address->port,
    };
    int fd = co_socket_dial(&endpoint, NULL);

    fd_close(fd);
    return fd >= 0;
}

/* The server at `address`: one is started, unless it is there already. */
static bool CO_FN co_ensure_server(struct export *export, const struct nbd_address *address, struct error **err)
{
    AUTO(error) error = NULL;

    if (co_start_server(export, address, &error))
        return true;
    if (strstr(error_message(error), "already") && co_answers(address))
        return true;
    error_move(err, TAKE(error));
    return error_prefix(err, "the NBD server: ");
}

/* --- exports --- */

static struct json *export_options(const struct export *export)
{
    const struct pool_program *program = export->program;
    struct json *options = texts("type", kind_types[program->kind], "id", export->id, "node-name", export->node, NULL);
    g_autofree char *path = program->where ? g_canonicalize_filename(program->where, NULL) : NULL;

    json_set(options, "writable", json_bool(!program->read_only));
    if (program->kind == POOL_EXPORT_NBD)
        json_set(options, "name", json_string(program->export_name ? program->export_name : program->words[1]));
    else if (program->kind == POOL_EXPORT_VHOST_USER)
        json_set(options, "addr", texts("type", "unix", "path", path, NULL));
    else
        json_set(options, "mountpoint", json_string(path));
    return options;
}

static bool CO_FN co_add_export(struct export *export, struct error **err)
{
    return co_qmp_client_do(export->qmp, "block-export-add", export_options(export), err);
}

/* "nbd+unix:///NAME?socket=PATH", "nbd://HOST:PORT/NAME". */
static void print_nbd(const struct export *export, const struct nbd_address *address)
{
    const struct pool_program *program = export->program;
    const char *name = program->export_name ? program->export_name : program->words[1];
    g_autofree char *in_uri = g_uri_escape_string(name, NULL, true);
    g_autofree char *path = address->path ? g_uri_escape_string(address->path, "/", true) : NULL;

    if (path)
        printf("nbd+unix:///%s?socket=%s\n", in_uri, path);
    else
        printf(strchr(address->host, ':') ? "nbd://[%s]:%s/%s\n" : "nbd://%s:%s/%s\n",
               *address->host ? address->host : "localhost", address->port, in_uri);
}

/* A server that somebody else has started serves as well; only they know where it listens. */
static bool CO_FN co_export_nbd(struct export *export, struct error **err)
{
    AUTO(nbd_address) address = {0};
    AUTO(error) error = NULL;

    if (export->program->where) {
        if (!parse_address(export->program->where, &address, err) || !co_ensure_server(export, &address, err) ||
            !co_add_export(export, err))
            return false;
        print_nbd(export, &address);
        return true;
    }
    address.path = g_strdup(export->nbd_socket);
    if (!co_start_server(export, &address, &error) && !strstr(error_message(error), "already"))
        return error_move(err, TAKE(error));
    if (!co_add_export(export, err))
        return false;
    if (export->server_started || co_answers(&address))
        print_nbd(export, &address);
    else
        printf("export '%s' of the daemon's NBD server\n",
               export->program->export_name ? export->program->export_name : export->program->words[1]);
    return true;
}

/* The file that the image is to be shown in place of. */
static bool CO_FN co_make_file(struct export *export, struct error **err)
{
    const char *path = export->program->where;
    int fd = co_file_open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);

    if (fd == -EEXIST)
        return true;
    if (fd < 0)
        return error_set_errno(err, fd, "%s: cannot make the file to show the volume in", path);
    fd_close(fd);
    export->file_made = g_strdup(path);
    return true;
}

static bool CO_FN co_export(struct export *export, struct error **err)
{
    const struct pool_program *program = export->program;
    bool there;

    if (!co_has(export, "query-block-exports", "id", export->id, &there, err))
        return false;
    if (there)
        return error_set(err, "volume '%s' of pool '%s' is exported in that way already", program->words[1],
                         program->words[0]);
    if (!co_make_node(export, err))
        return false;
    if (program->kind == POOL_EXPORT_NBD)
        return co_export_nbd(export, err);
    if (program->kind == POOL_EXPORT_FUSE && !co_make_file(export, err))
        return false;
    if (!co_add_export(export, err))
        return false;
    g_autofree char *path = g_canonicalize_filename(program->where, NULL);
    printf("%s\n", path);
    return true;
}

/* --- taking away --- */

/* Nothing that was begun is left; what fails meanwhile can be helped by nobody. */
static void CO_FN co_roll_back(struct export *export)
{
    if (export->server_started)
        (void)co_qmp_client_do(export->qmp, "nbd-server-stop", NULL, NULL);
    if (export->node_made)
        (void)co_qmp_client_do(export->qmp, "blockdev-del", texts("node-name", export->node, NULL), NULL);
    if (export->secret_made)
        (void)co_qmp_client_do(export->qmp, "object-del", texts("id", export->secret, NULL), NULL);
    if (export->file_made)
        (void)co_file_unlink(export->file_made);
}

static bool CO_FN co_remove_export(struct export *export, const char *id, struct error **err)
{
    const char *mode = export->program->force ? "hard" : "safe";
    AUTO(error) error = NULL;

    if (!co_qmp_client_do(export->qmp, "block-export-del", texts("id", id, "mode", mode, NULL), &error)) {
        error_move(err, TAKE(error));
        if (!export->program->force)
            error_hint(err, "--force takes it away from its clients.");
        return false;
    }
    return co_qmp_client_wait(export->qmp, "BLOCK_EXPORT_DELETED", "id", id, err);
}

/* Ends the server that was started for exports like ours, when nothing is left for it to serve. */
static bool CO_FN co_end_server(struct export *export, struct error **err)
{
    const struct nbd_address address = {.path = export->nbd_socket};
    bool others;

    if (!co_has(export, "query-block-exports", "type", kind_types[POOL_EXPORT_NBD], &others, err))
        return false;
    if (others || !co_answers(&address))
        return true;
    return co_qmp_client_do(export->qmp, "nbd-server-stop", NULL, err);
}

/* The node goes with its last export. */
static bool CO_FN co_remove_node(struct export *export, struct error **err)
{
    bool used, there;

    if (!co_has(export, "query-block-exports", "node-name", export->node, &used, err))
        return false;
    if (used)
        return true;
    if (!co_has(export, "query-named-block-nodes", "node-name", export->node, &there, err))
        return false;
    if (there && !co_qmp_client_do(export->qmp, "blockdev-del", texts("node-name", export->node, NULL), err))
        return false;
    (void)co_qmp_client_do(export->qmp, "object-del", texts("id", export->secret, NULL), NULL); /* there may be none */
    return true;
}

static bool CO_FN co_unexport(struct export *export, struct error **err)
{
    const struct pool_program *program = export->program;
    unsigned removed = 0;

    for (unsigned kind = POOL_EXPORT_NBD; kind <= POOL_EXPORT_FUSE; kind++) {
        g_autofree char *id = g_strdup_printf("%s-%s", export->node, kind_types[kind]);
        bool there;

        if (program->kind && program->kind != kind)
            continue;
        if (!co_has(export, "query-block-exports", "id", id, &there, err))
            return false;
        if (!there)
            continue;
        if (!co_remove_export(export, id, err) || (kind == POOL_EXPORT_NBD && !co_end_server(export, err)))
            return false;
        removed++;
    }
    if (!removed)
        return error_set(err, "volume '%s' of pool '%s' is not exported%s%s", program->words[1], program->words[0],
                         program->kind ? " over " : "", kind_types[program->kind]);
    return co_remove_node(export, err);
}

/* --- the commands --- */

bool co_pool_unexport(struct pool_program *program, struct error **err)
{
    struct export export;
    bool ok = co_begin(&export, program, err) && co_unexport(&export, err);

    export_done(&export);
    return ok;
}

bool co_pool_export(struct pool_program *program, struct error **err)
{
    struct export export;
    bool ok;

    if (program->stop)
        return co_pool_unexport(program, err);
    if (!program->kind)
        return error_set(err, "one of --nbd, --vhost-user and --fuse says how to export it");
    if (program->export_name && program->kind != POOL_EXPORT_NBD)
        return error_set(err, "--name is for --nbd");
    ok = co_begin(&export, program, err);
    if (ok) {
        ok = co_export(&export, err);
        if (!ok)
            co_roll_back(&export);
    }
    export_done(&export);
    return ok;
}
