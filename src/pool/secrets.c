/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/secrets.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "pool/definition-list.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/replace-file.h"
#include "pool/rpc/value.h"
#include "pool/secret-daemon.h"
#include "pool/secret-def.h"
#include "pool/xml/document.h"
#include "pool/xml/schema.h"

enum { FILE_MAX = 1 << 20 };

/* Of the filter of list-all; of each pair, both or none let all pass. */
enum { LIST_EPHEMERAL = 1, LIST_NO_EPHEMERAL = 2, LIST_PRIVATE = 4, LIST_NO_PRIVATE = 8, LIST_ALL_FLAGS = 15 };

struct own_secret {
    struct secret_def *def;
    struct rpc_bytes *value; /* NULL: none yet */
};

struct pool_secrets {
    char *directory;
    char *socket;
    char *token_path;
    bool privileged;
    void (*event)(void *opaque, const struct secret_id *secret, enum secret_event event);
    void *opaque;
    GPtrArray *own;         /* of struct own_secret */
    struct co_mutex change; /* one change of files at a time */
};

/* --- values --- */

static struct secret_value *value_new(const struct rpc_bytes *bytes)
{
    struct secret_value *value = g_new0(struct secret_value, 1);

    value->data = g_malloc(bytes->size + 1);
    if (bytes->size)
        memcpy(value->data, bytes->data, bytes->size);
    value->size = bytes->size;
    return value;
}

void secret_value_free(struct secret_value *value)
{
    if (!value)
        return;
    explicit_bzero(value->data, value->size);
    g_free(value->data);
    g_free(value);
}

static void free_bytes(struct rpc_bytes *bytes)
{
    union rpc_value value = {.bytes = bytes};

    rpc_values_free("b", &value);
}

/* --- secrets in memory --- */

static void own_secret_free(void *opaque)
{
    struct own_secret *secret = opaque;

    secret_def_free(secret->def);
    free_bytes(secret->value);
    g_free(secret);
}

static struct secret_id *id_of(const struct secret_def *def)
{
    struct secret_id *id = g_new0(struct secret_id, 1);

    memcpy(id->uuid, def->uuid, sizeof(id->uuid));
    id->usage_type = def->usage_type;
    id->usage = g_strdup(def->usage ? def->usage : "");
    return id;
}

static void tell(struct pool_secrets *secrets, const struct secret_def *def, enum secret_event event)
{
    AUTO(secret_id) id = id_of(def);

    if (secrets->event)
        secrets->event(secrets->opaque, id, event);
}

static struct own_secret *find(const struct pool_secrets *secrets, const uint8_t *uuid)
{
    for (guint i = 0; i < secrets->own->len; i++) {
        struct own_secret *secret = secrets->own->pdata[i];

        if (!memcmp(secret->def->uuid, uuid, sizeof(secret->def->uuid)))
            return secret;
    }
    return NULL;
}

static struct own_secret *find_usage(const struct pool_secrets *secrets, int type, const char *usage)
{
    for (guint i = 0; i < secrets->own->len; i++) {
        struct own_secret *secret = secrets->own->pdata[i];

        if ((int)secret->def->usage_type == type && type != SECRET_FOR_NOTHING && !g_strcmp0(secret->def->usage, usage))
            return secret;
    }
    return NULL;
}

static struct own_secret *must_find(const struct pool_secrets *secrets, const uint8_t *uuid, struct pool_error **err)
{
    struct own_secret *secret = find(secrets, uuid);
    char text[XML_UUID_TEXT];

    if (secret)
        return secret;
    uuid_format(uuid, text);
    pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_NO_SECRET, "no secret with matching uuid '%s'", text);
    return NULL;
}

static bool check_flags(unsigned flags, unsigned allowed, const char *function, struct pool_error **err)
{
    if (pool_error_check_flags(err, flags, allowed, function))
        return true;
    if (err)
        (*err)->domain = POOL_DOMAIN_SECRET;
    return false;
}

/* --- files --- */

static char *file_path(const struct pool_secrets *secrets, const uint8_t *uuid, const char *ending)
{
    char text[XML_UUID_TEXT];

    uuid_format(uuid, text);
    return g_strdup_printf("%s/%s.%s", secrets->directory, text, ending);
}

static int make_directory(void *opaque)
{
    return g_mkdir_with_parents(opaque, 0700) ? -errno : 0;
}

static bool CO_FN co_ensure_directory(struct pool_secrets *secrets, struct pool_error **err)
{
    int result = co_worker_run(make_directory, secrets->directory);

    return !result ||
           pool_error_set_errno(err, result, "cannot create secret configuration directory '%s'", secrets->directory);
}

static bool CO_FN co_remove(const struct pool_secrets *secrets, const uint8_t *uuid, const char *ending,
                            struct pool_error **err)
{
    g_autofree char *path = file_path(secrets, uuid, ending);
    int result = co_file_unlink(path);

    return !result || result == -ENOENT || pool_error_set_errno(err, result, "cannot unlink secret file '%s'", path);
}

static bool CO_FN co_write_def(struct pool_secrets *secrets, const struct secret_def *def, struct pool_error **err)
{
    g_autofree char *path = file_path(secrets, def->uuid, "xml");
    g_autofree char *xml = secret_def_format(def);
    size_t size = strlen(xml);

    if (size > FILE_MAX) /* it could not be read again when the daemon is started next */
        return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_XML_DETAIL,
                                     "the definition has %zu bytes in its file, more than %d", size, FILE_MAX);
    if (!co_ensure_directory(secrets, err))
        return false;
    return co_replace_file(path, xml, size, err);
}

static bool CO_FN co_write_value(struct pool_secrets *secrets, const struct own_secret *secret, struct pool_error **err)
{
    g_autofree char *path = file_path(secrets, secret->def->uuid, "base64");
    g_autofree char *text = g_base64_encode(secret->value->data, secret->value->size);
    bool ok;

    if (!co_ensure_directory(secrets, err))
        return false;
    ok = co_replace_file(path, text, strlen(text), err);
    explicit_bzero(text, strlen(text));
    return ok;
}

/* --- loading --- */

/* NULL where there is none, or it cannot be read, which is logged. */
static struct rpc_bytes *CO_FN co_load_value(const struct pool_secrets *secrets, const uint8_t *uuid)
{
    g_autofree char *path = file_path(secrets, uuid, "base64");
    g_autofree char *text = NULL;
    g_autofree uint8_t *data = NULL;
    struct rpc_bytes *bytes;
    AUTO(error) error = NULL;
    gsize decoded;
    size_t size;

    if (!co_file_load(path, FILE_MAX, &text, &size, &error)) {
        if (error_get_errno(error) != ENOENT)
            pool_log_error("secret", "cannot load the value of a secret: %s", error_message(error));
        return NULL;
    }
    data = g_base64_decode(text, &decoded);
    bytes = rpc_bytes_new(data, decoded);
    explicit_bzero(text, size);
    if (data)
        explicit_bzero(data, decoded);
    return bytes;
}

static void CO_FN co_load_secret(struct pool_secrets *secrets, const char *name)
{
    g_autofree char *path = g_strdup_printf("%s/%s.xml", secrets->directory, name);
    AUTO(pool_error) pool_error = NULL;
    g_autofree char *xml = NULL;
    AUTO(error) error = NULL;
    AUTO(secret_def) def = NULL;
    char uuid[XML_UUID_TEXT];
    size_t size;

    if (!co_file_load(path, FILE_MAX, &xml, &size, &error)) {
        pool_log_error("secret", "cannot load secret '%s': %s", path, error_message(error));
        return;
    }
    def = secret_def_parse(xml, &pool_error);
    if (!def) {
        pool_log_error("secret", "cannot load secret '%s': %s", path, pool_error->message);
        return;
    }
    uuid_format(def->uuid, uuid);
    if (strcmp(uuid, name) != 0) {
        pool_log_error("secret", "<uuid> does not match secret file name '%s'", path);
        return;
    }

    struct own_secret *secret = g_new0(struct own_secret, 1);
    secret->def = TAKE(def);
    secret->value = co_load_value(secrets, secret->def->uuid);
    g_ptr_array_add(secrets->own, secret);
}

void co_pool_secrets_load(struct pool_secrets *secrets)
{
    g_auto(GStrv) names = NULL;
    int result = co_definition_list(secrets->directory, &names);

    if (result)
        pool_log_error("secret", "cannot read directory '%s': %s", secrets->directory, g_strerror(-result));
    for (char **name = names; *name; name++)
        co_load_secret(secrets, *name);
}

/* --- life --- */

struct pool_secrets *pool_secrets_new(const struct secrets_options *options)
{
    struct pool_secrets *secrets = g_new0(struct pool_secrets, 1);

    secrets->directory = g_strdup(options->directory);
    secrets->socket = g_strdup(options->socket);
    secrets->token_path = g_strdup(options->token_path);
    secrets->privileged = options->privileged;
    secrets->event = options->event;
    secrets->opaque = options->opaque;
    secrets->own = g_ptr_array_new_with_free_func(own_secret_free);
    return secrets;
}

void pool_secrets_free(struct pool_secrets *secrets)
{
    if (!secrets)
        return;
    co_mutex_done(&secrets->change);
    g_ptr_array_unref(secrets->own);
    g_free(secrets->directory);
    g_free(secrets->socket);
    g_free(secrets->token_path);
    g_free(secrets);
}

bool pool_secrets_are_own(const struct pool_secrets *secrets)
{
    return !secrets->socket || access(secrets->socket, F_OK);
}

/* --- what clients ask for --- */

static bool passes(unsigned flags, unsigned yes, unsigned no, bool is)
{
    unsigned both = flags & (yes | no);

    return !both || both == (yes | no) || both == (is ? yes : no);
}

struct secret_id_array *pool_secrets_list(struct pool_secrets *secrets, unsigned flags, struct pool_error **err)
{
    struct secret_id_array *array;

    if (!check_flags(flags, LIST_ALL_FLAGS, "secretConnectListAllSecrets", err))
        return NULL;
    array = g_new0(struct secret_id_array, 1);
    array->items = g_new0(struct secret_id *, secrets->own->len);
    for (guint i = 0; i < secrets->own->len; i++) {
        const struct own_secret *secret = secrets->own->pdata[i];

        if (passes(flags, LIST_EPHEMERAL, LIST_NO_EPHEMERAL, secret->def->ephemeral) &&
            passes(flags, LIST_PRIVATE, LIST_NO_PRIVATE, secret->def->private))
            array->items[array->count++] = id_of(secret->def);
    }
    return array;
}

struct secret_id *pool_secrets_by_uuid(struct pool_secrets *secrets, const uint8_t *uuid, struct pool_error **err)
{
    const struct own_secret *secret = must_find(secrets, uuid, err);

    return secret ? id_of(secret->def) : NULL;
}

struct secret_id *pool_secrets_by_usage(struct pool_secrets *secrets, int type, const char *usage,
                                        struct pool_error **err)
{
    const struct own_secret *secret = find_usage(secrets, type, usage);

    if (!secret)
        pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_NO_SECRET, "no secret with matching usage '%s'",
                              usage);
    return secret ? id_of(secret->def) : NULL;
}

/* Whether `def` may stand beside what is there, or in the place of it. */
static bool check_conflict(const struct pool_secrets *secrets, const struct secret_def *def, struct pool_error **err)
{
    const struct own_secret *same = find(secrets, def->uuid);
    const struct own_secret *other = find_usage(secrets, (int)def->usage_type, def->usage);
    char uuid[XML_UUID_TEXT];

    if (same && (same->def->usage_type != def->usage_type || g_strcmp0(same->def->usage, def->usage))) {
        uuid_format(def->uuid, uuid);
        return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_INTERNAL,
                                     "a secret with UUID %s is already defined for use with %s", uuid,
                                     same->def->usage ? same->def->usage : "");
    }
    if (same && same->def->private && !def->private)
        return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_INTERNAL,
                                     "cannot change private flag on existing secret");
    if (other && other != same) {
        uuid_format(other->def->uuid, uuid);
        return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_INTERNAL,
                                     "a secret with UUID %s already defined for use with %s", uuid, def->usage);
    }
    return true;
}

/* The files come first: what we say that we know is to be there after a restart. */
static bool CO_FN co_store(struct pool_secrets *secrets, const struct secret_def *def, struct pool_error **err)
{
    struct own_secret *old = find(secrets, def->uuid);

    if (def->ephemeral)
        return !old || old->def->ephemeral ||
               (co_remove(secrets, def->uuid, "base64", err) && co_remove(secrets, def->uuid, "xml", err));
    if (old && old->def->ephemeral && old->value && !co_write_value(secrets, old, err))
        return false;
    return co_write_def(secrets, def, err);
}

struct secret_id *co_pool_secrets_define(struct pool_secrets *secrets, const char *xml, unsigned flags,
                                         struct pool_error **err)
{
    enum { VALIDATE = 1 };
    struct own_secret *secret;
    AUTO(secret_def) def = NULL;

    if (!check_flags(flags, VALIDATE, "secretDefineXML", err) || (flags & VALIDATE && !xml_check_secret(xml, err)))
        return NULL;
    def = secret_def_parse(xml, err);
    if (!def)
        return NULL;
    co_mutex_lock(&secrets->change);
    if (!check_conflict(secrets, def, err) || !co_store(secrets, def, err)) {
        co_mutex_unlock(&secrets->change);
        return NULL;
    }
    secret = find(secrets, def->uuid);
    if (!secret) {
        secret = g_new0(struct own_secret, 1);
        g_ptr_array_add(secrets->own, secret);
    }
    secret_def_free(secret->def);
    secret->def = TAKE(def);
    co_mutex_unlock(&secrets->change);
    tell(secrets, secret->def, SECRET_EVENT_DEFINED);
    return id_of(secret->def);
}

bool co_pool_secrets_undefine(struct pool_secrets *secrets, const uint8_t *uuid, struct pool_error **err)
{
    struct own_secret *secret;
    bool ok;

    co_mutex_lock(&secrets->change);
    secret = must_find(secrets, uuid, err);
    ok = secret && co_remove(secrets, uuid, "base64", err) && co_remove(secrets, uuid, "xml", err);
    if (ok) {
        tell(secrets, secret->def, SECRET_EVENT_UNDEFINED);
        g_ptr_array_remove(secrets->own, secret);
    }
    co_mutex_unlock(&secrets->change);
    return ok;
}

char *pool_secrets_get_xml(struct pool_secrets *secrets, const uint8_t *uuid, unsigned flags, struct pool_error **err)
{
    const struct own_secret *secret;

    if (!check_flags(flags, 0, "secretGetXMLDesc", err))
        return NULL;
    secret = must_find(secrets, uuid, err);
    return secret ? secret_def_format(secret->def) : NULL;
}

bool co_pool_secrets_set_value(struct pool_secrets *secrets, const uint8_t *uuid, const struct rpc_bytes *value,
                               unsigned flags, struct pool_error **err)
{
    struct own_secret *secret;
    bool ok;

    if (!check_flags(flags, 0, "secretSetValue", err))
        return false;
    if (!value->size) {
        pool_error_set_argument(err, "virSecretSetValue", "value", "value in virSecretSetValue must not be NULL");
        if (err)
            (*err)->domain = POOL_DOMAIN_SECRET;
        return false;
    }
    co_mutex_lock(&secrets->change);
    secret = must_find(secrets, uuid, err);
    ok = secret;
    if (secret) {
        struct rpc_bytes *old = secret->value;

        secret->value = rpc_bytes_new(value->data, value->size);
        ok = secret->def->ephemeral || co_write_value(secrets, secret, err);
        if (!ok) {
            free_bytes(secret->value);
            secret->value = old;
        } else {
            free_bytes(old);
            tell(secrets, secret->def, SECRET_EVENT_VALUE);
        }
    }
    co_mutex_unlock(&secrets->change);
    return ok;
}

struct rpc_bytes *pool_secrets_get_value(struct pool_secrets *secrets, const uint8_t *uuid, unsigned flags,
                                         bool internal, struct pool_error **err)
{
    const struct own_secret *secret;
    char text[XML_UUID_TEXT];

    if (!check_flags(flags, 0, "secretGetValue", err))
        return NULL;
    secret = must_find(secrets, uuid, err);
    if (!secret)
        return NULL;
    if (!secret->value) {
        uuid_format(uuid, text);
        pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_NO_SECRET, "secret '%s' does not have a value", text);
        return NULL;
    }
    if (secret->def->private && !internal) {
        pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_INVALID_SECRET, "secret is private");
        return NULL;
    }
    return rpc_bytes_new(secret->value->data, secret->value->size);
}

/* --- what the storage side asks for --- */

static struct secret_value *take_value(struct rpc_bytes *bytes)
{
    struct secret_value *value = bytes ? value_new(bytes) : NULL;

    free_bytes(bytes);
    return value;
}

struct secret_value *co_pool_secret_get(struct pool_secrets *secrets, const uint8_t *uuid, enum secret_usage type,
                                        const char *usage, struct pool_error **err)
{
    AUTO(secret_id) id = NULL;

    if (!pool_secrets_are_own(secrets)) {
        const struct secret_daemon daemon = {secrets->socket, secrets->token_path, secrets->privileged};
        return take_value(co_secret_daemon_get(&daemon, uuid, (int)type, usage, err));
    }
    if (!uuid) {
        id = pool_secrets_by_usage(secrets, (int)type, usage, err);
        if (!id)
            return NULL;
        uuid = id->uuid;
    }
    return take_value(pool_secrets_get_value(secrets, uuid, 0, true, err));
}

bool co_pool_secret_find(struct pool_secrets *secrets, enum secret_usage type, const char *usage, uint8_t uuid[16])
{
    AUTO(secret_id) id = NULL;

    if (!pool_secrets_are_own(secrets)) {
        const struct secret_daemon daemon = {secrets->socket, secrets->token_path, secrets->privileged};
        id = co_secret_daemon_find(&daemon, (int)type, usage, NULL);
    } else {
        id = pool_secrets_by_usage(secrets, (int)type, usage, NULL);
    }
    if (id)
        memcpy(uuid, id->uuid, sizeof(id->uuid));
    return id;
}
