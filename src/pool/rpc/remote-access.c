/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/remote-access.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "loop/file.h"
#include "pool/daemon.h"
#include "pool/log.h"
#include "pool/pool-def.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/typed-params.h"
#include "pool/secret-def.h"
#include "pool/secrets.h"
#include "pool/volume.h"
#include "pool/xml/document.h"

enum { TOKEN_MAX = 256, ATTRIBUTES_MAX = 12 };

/* What a permission is asked about: something that an argument names, or the connection. */
enum about {
    ABOUT_CONNECT,
    ABOUT_POOL,       /* the first argument */
    ABOUT_VOLUME,     /* the first argument */
    ABOUT_SECRET,     /* the first argument */
    ABOUT_POOL_XML,   /* one that is to be made */
    ABOUT_VOLUME_XML, /* in the pool that is the first argument */
    ABOUT_SECRET_XML,
};

/* What is done to a result. */
enum after {
    AFTER_NOTHING,
    AFTER_POOL, /* one was looked up */
    AFTER_VOLUME,
    AFTER_SECRET,
    AFTER_POOLS, /* an array, and their number */
    AFTER_VOLUMES,
    AFTER_SECRETS,
    AFTER_POOL_NAMES,
    AFTER_VOLUME_NAMES,
    AFTER_SECRET_UUIDS,
    AFTER_POOL_COUNT,
    AFTER_VOLUME_COUNT,
    AFTER_SECRET_COUNT,
};

struct rule {
    int32_t procedure;
    enum about about;
    const char *permissions; /* names with a space between; NULL: none is needed beforehand */
    enum after after;
};

/* clang-format off: a table is read by its columns */
static const struct rule rules[] = {
    {3, ABOUT_CONNECT, "getattr", AFTER_NOTHING},
    {7, ABOUT_CONNECT, "read", AFTER_NOTHING},
    {71, ABOUT_CONNECT, "search-storage-pools", AFTER_POOL_COUNT},
    {72, ABOUT_CONNECT, "search-storage-pools", AFTER_POOL_NAMES},
    {73, ABOUT_CONNECT, "search-storage-pools", AFTER_POOL_COUNT},
    {74, ABOUT_CONNECT, "search-storage-pools", AFTER_POOL_NAMES},
    {75, ABOUT_CONNECT, "detect-storage-pools", AFTER_NOTHING},
    {76, ABOUT_POOL_XML, "write start", AFTER_NOTHING},
    {77, ABOUT_POOL_XML, "write save", AFTER_NOTHING},
    {78, ABOUT_POOL, "start", AFTER_NOTHING},
    {79, ABOUT_POOL, "format", AFTER_NOTHING},
    {80, ABOUT_POOL, "stop", AFTER_NOTHING},
    {81, ABOUT_POOL, "format", AFTER_NOTHING},
    {82, ABOUT_POOL, "delete", AFTER_NOTHING},
    {83, ABOUT_POOL, "refresh", AFTER_NOTHING},
    {84, ABOUT_CONNECT, NULL, AFTER_POOL},
    {85, ABOUT_CONNECT, NULL, AFTER_POOL},
    {86, ABOUT_CONNECT, NULL, AFTER_POOL},
    {87, ABOUT_POOL, "read", AFTER_NOTHING},
    {88, ABOUT_POOL, "read", AFTER_NOTHING},
    {89, ABOUT_POOL, "read", AFTER_NOTHING},
    {90, ABOUT_POOL, "write", AFTER_NOTHING},
    {91, ABOUT_POOL, "search-storage-vols", AFTER_VOLUME_COUNT},
    {92, ABOUT_POOL, "search-storage-vols", AFTER_VOLUME_NAMES},
    {93, ABOUT_VOLUME_XML, "create", AFTER_NOTHING},
    {94, ABOUT_VOLUME, "delete", AFTER_NOTHING},
    {95, ABOUT_CONNECT, NULL, AFTER_VOLUME},
    {96, ABOUT_CONNECT, NULL, AFTER_VOLUME},
    {97, ABOUT_CONNECT, NULL, AFTER_VOLUME},
    {98, ABOUT_VOLUME, "read", AFTER_NOTHING},
    {99, ABOUT_VOLUME, "read", AFTER_NOTHING},
    {100, ABOUT_VOLUME, "read", AFTER_NOTHING},
    {125, ABOUT_VOLUME_XML, "create", AFTER_NOTHING},
    {139, ABOUT_CONNECT, "search-secrets", AFTER_SECRET_COUNT},
    {140, ABOUT_CONNECT, "search-secrets", AFTER_SECRET_UUIDS},
    {141, ABOUT_CONNECT, NULL, AFTER_SECRET},
    {142, ABOUT_SECRET_XML, "write save", AFTER_NOTHING},
    {143, ABOUT_SECRET, "read", AFTER_NOTHING},
    {144, ABOUT_SECRET, "write", AFTER_NOTHING},
    {145, ABOUT_SECRET, "read-secure", AFTER_NOTHING},
    {146, ABOUT_SECRET, "delete", AFTER_NOTHING},
    {147, ABOUT_CONNECT, NULL, AFTER_SECRET},
    {154, ABOUT_POOL, "read", AFTER_NOTHING},
    {155, ABOUT_POOL, "read", AFTER_NOTHING},
    {165, ABOUT_VOLUME, "format", AFTER_NOTHING},
    {208, ABOUT_VOLUME, "data-write", AFTER_NOTHING},
    {209, ABOUT_VOLUME, "data-read", AFTER_NOTHING},
    {259, ABOUT_VOLUME, "format", AFTER_NOTHING},
    {260, ABOUT_VOLUME, "resize", AFTER_NOTHING},
    {281, ABOUT_CONNECT, "search-storage-pools", AFTER_POOLS},
    {282, ABOUT_POOL, "search-storage-vols", AFTER_VOLUMES},
    {287, ABOUT_CONNECT, "search-secrets", AFTER_SECRETS},
    {368, ABOUT_CONNECT, "search-storage-pools", AFTER_NOTHING},
    {378, ABOUT_VOLUME, "read", AFTER_NOTHING},
    {380, ABOUT_CONNECT, "search-secrets", AFTER_NOTHING},
    {391, ABOUT_CONNECT, NULL, AFTER_POOL},
    {403, ABOUT_CONNECT, "read", AFTER_NOTHING},
    {419, ABOUT_CONNECT, "write", AFTER_NOTHING},
};
/* clang-format on */

static const struct rule *find_rule(int32_t procedure)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        if (rules[i].procedure == procedure)
            return &rules[i];
    }
    return NULL;
}

/* --- objects --- */

/* An object as rules of polkit see it: which kind, and its attributes, each a name and a value. */
struct object {
    const char *kind;
    const char *attributes[2 * ATTRIBUTES_MAX + 1]; /* names borrowed, values owned */
    unsigned count;
};

static void object_clear(struct object *object)
{
    for (unsigned i = 0; i < object->count; i++)
        g_free((char *)(uintptr_t)object->attributes[2 * i + 1]);
}

static void add_text(struct object *object, const char *name, const char *value)
{
    assert(object->count < ATTRIBUTES_MAX);
    if (!value)
        return;
    object->attributes[2 * object->count] = name;
    object->attributes[2 * object->count + 1] = g_utf8_make_valid(value, -1);
    object->count++;
}

static void add_uuid(struct object *object, const char *name, const uint8_t *uuid)
{
    char text[XML_UUID_TEXT];

    uuid_format(uuid, text);
    add_text(object, name, text);
}

static void begin_object(struct object *object, const char *kind, const struct rpc_client *client)
{
    const struct remote_session *session = client->session;

    *object = (struct object){.kind = kind};
    add_text(object, "connect_driver", session->driver == REMOTE_SECRET ? "secret" : "storage");
}

static void add_pool(struct object *object, const struct pool_id *pool)
{
    add_text(object, "pool_name", pool->name);
    add_uuid(object, "pool_uuid", pool->uuid);
}

static void add_volume(struct object *object, const struct pool_id *pool, const char *name, const char *key)
{
    add_text(object, "vol_pool_name", pool->name);
    add_uuid(object, "vol_pool_uuid", pool->uuid);
    add_text(object, "vol_name", name);
    add_text(object, "vol_key", key);
}

static void add_secret(struct object *object, const uint8_t *uuid, int usage_type, const char *usage)
{
    static const char *const names[] = {NULL,
                                        "secret_usage_volume",
                                        "secret_usage_ceph",
                                        "secret_usage_target",
                                        "secret_usage_name",
                                        "secret_usage_name"};

    add_uuid(object, "secret_uuid", uuid);
    if (usage_type > 0 && usage_type < (int)G_N_ELEMENTS(names))
        add_text(object, names[usage_type], usage);
}

/* --- asking --- */

static struct polkit *authority(const struct rpc_client *client)
{
    const struct pool_daemon *daemon = client->server->opaque;

    return daemon->access;
}

void co_remote_access_begin(struct rpc_client *client)
{
    struct remote_session *session = client->session;

    if (client->auth != RPC_AUTH_POLKIT && !authority(client))
        return;
    client->peer.start = co_process_start(client->peer.pid);
    session->identity.subject = (struct polkit_subject){client->peer.pid, client->peer.start, client->peer.uid};
    session->identity.known = client->peer.start;
}

static bool CO_FN co_ask(struct rpc_client *client, const struct object *object, const char *permission,
                         struct pool_error **err)
{
    const struct remote_identity *identity = &((const struct remote_session *)client->session)->identity;
    g_autofree char *action = g_strdup_printf("org.libvirt.api.%s.%s", object->kind, permission);
    const struct polkit_subject subject = identity->subject; /* a call beside this one may change whom it speaks for */
    const struct polkit_question question = {.subject = &subject, .action = action, .details = object->attributes};
    enum polkit_answer answer = POLKIT_DENIED;

    if (identity->elevated)
        return true;
    if (identity->known && !co_polkit_ask(authority(client), &question, &answer, err))
        return false;
    return answer == POLKIT_GRANTED ||
           pool_error_set_domain(err, POOL_DOMAIN_ACCESS, POOL_ERROR_ACCESS_DENIED, "%s", action);
}

/* All of `permissions`, and the object is cleared. */
static bool CO_FN co_ask_all(struct rpc_client *client, struct object *object, const char *permissions,
                             struct pool_error **err)
{
    g_auto(GStrv) names = g_strsplit(permissions, " ", -1);
    bool ok = true;

    for (char **name = names; ok && *name; name++)
        ok = co_ask(client, object, *name, err);
    object_clear(object);
    return ok;
}

static bool CO_FN co_ask_pool(struct rpc_client *client, const struct pool_id *pool, const char *permissions,
                              struct pool_error **err)
{
    struct object object;

    begin_object(&object, "storage-pool", client);
    add_pool(&object, pool);
    return co_ask_all(client, &object, permissions, err);
}

static bool CO_FN co_ask_volume(struct rpc_client *client, const struct pool_id *pool, const char *name,
                                const char *key, const char *permissions, struct pool_error **err)
{
    struct object object;

    begin_object(&object, "storage-vol", client);
    add_volume(&object, pool, name, key);
    return co_ask_all(client, &object, permissions, err);
}

static bool CO_FN co_ask_secret(struct rpc_client *client, const struct secret_id *secret, const char *permissions,
                                struct pool_error **err)
{
    struct object object;

    begin_object(&object, "secret", client);
    add_secret(&object, secret->uuid, secret->usage_type, secret->usage);
    return co_ask_all(client, &object, permissions, err);
}

/* --- before --- */

/* The names in what clients send are theirs to choose, so objects are looked up; what is not there is for the call
 * itself to say. */
static bool CO_FN co_before_pool(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    AUTO(pool_id) pool = storage_pool_by_uuid(remote_storage(call), call->args[0].pool->uuid, NULL);

    return !pool || co_ask_pool(call->client, pool, permissions, err);
}

static bool CO_FN co_before_volume(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    const struct volume_id *given = call->args[0].volume;
    AUTO(pool_id) pool = storage_pool_by_name(remote_storage(call), given->pool, NULL);
    AUTO(volume_id) volume = pool ? storage_volume_by_name(remote_storage(call), pool, given->name, NULL) : NULL;

    return !volume || co_ask_volume(call->client, pool, volume->name, volume->key, permissions, err);
}

static bool CO_FN co_before_secret(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    AUTO(secret_id) secret = pool_secrets_by_uuid(remote_secrets(call), call->args[0].secret->uuid, NULL);

    return !secret || co_ask_secret(call->client, secret, permissions, err);
}

static bool CO_FN co_before_pool_xml(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    AUTO(pool_def) def = pool_def_parse(call->args[0].string, false, NULL);
    struct pool_id pool;

    if (!def)
        return true;
    pool.name = def->name;
    memcpy(pool.uuid, def->uuid, sizeof(pool.uuid));
    return co_ask_pool(call->client, &pool, permissions, err);
}

static bool CO_FN co_before_volume_xml(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    AUTO(pool_id) pool = storage_pool_by_uuid(remote_storage(call), call->args[0].pool->uuid, NULL);
    AUTO(xml_document) document = pool ? xml_document_parse(call->args[1].string, "volume", NULL) : NULL;
    g_autofree char *name = document ? xml_text(xmlDocGetRootElement(document), "name") : NULL;

    return !name || co_ask_volume(call->client, pool, name, NULL, permissions, err);
}

static bool CO_FN co_before_secret_xml(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    struct secret_def *def = secret_def_parse(call->args[0].string, NULL);
    struct secret_id secret = {0};
    bool ok;

    if (!def)
        return true;
    memcpy(secret.uuid, def->uuid, sizeof(secret.uuid));
    secret.usage_type = (int32_t)def->usage_type;
    secret.usage = def->usage;
    ok = co_ask_secret(call->client, &secret, permissions, err);
    secret_def_free(def);
    return ok;
}

static bool CO_FN co_before_connect(struct rpc_call *call, const char *permissions, struct pool_error **err)
{
    struct object object;

    begin_object(&object, "connect", call->client);
    return co_ask_all(call->client, &object, permissions, err);
}

bool co_remote_access_before(struct rpc_call *call, struct pool_error **err)
{
    const struct rule *rule = authority(call->client) ? find_rule(call->procedure->number) : NULL;

    if (!rule || !rule->permissions)
        return true;
    switch (rule->about) {
    case ABOUT_CONNECT:
        return co_before_connect(call, rule->permissions, err);
    case ABOUT_POOL:
        return co_before_pool(call, rule->permissions, err);
    case ABOUT_VOLUME:
        return co_before_volume(call, rule->permissions, err);
    case ABOUT_SECRET:
        return co_before_secret(call, rule->permissions, err);
    case ABOUT_POOL_XML:
        return co_before_pool_xml(call, rule->permissions, err);
    case ABOUT_VOLUME_XML:
        return co_before_volume_xml(call, rule->permissions, err);
    case ABOUT_SECRET_XML:
        return co_before_secret_xml(call, rule->permissions, err);
    }
    return false;
}

/* --- after --- */

static bool CO_FN co_sees_pool(struct rpc_client *client, const struct pool_id *pool, struct pool_error **err)
{
    return co_ask_pool(client, pool, "getattr", err);
}

/* `pool` NULL: it has gone. */
static bool CO_FN co_sees_volume(struct rpc_call *call, const struct volume_id *volume, struct pool_error **err)
{
    AUTO(pool_id) pool = storage_pool_by_name(remote_storage(call), volume->pool, err);

    return pool && co_ask_volume(call->client, pool, volume->name, volume->key, "getattr", err);
}

static void CO_FN co_filter_pools(struct rpc_client *client, struct pool_id_array *pools)
{
    size_t kept = 0;

    for (size_t i = 0; i < pools->count; i++) {
        struct pool_id *pool = TAKE(pools->items[i]);

        if (co_sees_pool(client, pool, NULL))
            pools->items[kept++] = pool;
        else
            pool_id_free(pool);
    }
    pools->count = kept;
}

static void CO_FN co_filter_volumes(struct rpc_call *call, struct volume_id_array *volumes)
{
    size_t kept = 0;

    for (size_t i = 0; i < volumes->count; i++) {
        struct volume_id *volume = TAKE(volumes->items[i]);

        if (co_sees_volume(call, volume, NULL))
            volumes->items[kept++] = volume;
        else
            volume_id_free(volume);
    }
    volumes->count = kept;
}

static void CO_FN co_filter_secrets(struct rpc_client *client, struct secret_id_array *secrets)
{
    size_t kept = 0;

    for (size_t i = 0; i < secrets->count; i++) {
        struct secret_id *secret = TAKE(secrets->items[i]);

        if (co_ask_secret(client, secret, "getattr", NULL))
            secrets->items[kept++] = secret;
        else
            secret_id_free(secret);
    }
    secrets->count = kept;
}

/*
 * Calls that only count have no objects in their result, and those that list names stop at the number of names that
 * the caller has room for; so for both it is listed again what there is.
 */
static struct pool_id_array *CO_FN co_pools(struct rpc_call *call)
{
    enum { LIST_INACTIVE = 1, LIST_ACTIVE = 2 };
    int32_t procedure = call->procedure->number;
    unsigned flags = procedure == 71 || procedure == 72 ? LIST_ACTIVE : LIST_INACTIVE;
    struct pool_id_array *pools;

    if (procedure == 281)
        flags = call->args[1].u;
    pools = storage_pool_list(remote_storage(call), flags, NULL);
    if (!pools)
        pools = g_new0(struct pool_id_array, 1);
    co_filter_pools(call->client, pools);
    return pools;
}

static struct volume_id_array *CO_FN co_volumes(struct rpc_call *call)
{
    struct volume_id_array *volumes = storage_volume_list(remote_storage(call), call->args[0].pool, 0, NULL);

    if (!volumes)
        volumes = g_new0(struct volume_id_array, 1);
    co_filter_volumes(call, volumes);
    return volumes;
}

static struct secret_id_array *CO_FN co_secrets(struct rpc_call *call)
{
    unsigned flags = call->procedure->number == 287 ? call->args[1].u : 0;
    struct secret_id_array *secrets = pool_secrets_list(remote_secrets(call), flags, NULL);

    if (!secrets)
        secrets = g_new0(struct secret_id_array, 1);
    co_filter_secrets(call->client, secrets);
    return secrets;
}

static void CO_FN co_list_pools(struct rpc_call *call, bool names)
{
    AUTO(pool_id_array) pools = co_pools(call);

    if (!names)
        call->result[0].u = (uint32_t)pools->count;
    for (size_t i = 0; names && i < pools->count && i < (size_t)call->args[0].i; i++)
        g_ptr_array_add(call->result[0].strings, g_strdup(pools->items[i]->name));
}

static void CO_FN co_list_volumes(struct rpc_call *call, bool names)
{
    AUTO(volume_id_array) volumes = co_volumes(call);

    if (!names)
        call->result[0].u = (uint32_t)volumes->count;
    for (size_t i = 0; names && i < volumes->count && i < (size_t)call->args[1].i; i++)
        g_ptr_array_add(call->result[0].strings, g_strdup(volumes->items[i]->name));
}

static void CO_FN co_list_secrets(struct rpc_call *call, bool names)
{
    struct secret_id_array *secrets = co_secrets(call);

    if (!names)
        call->result[0].u = (uint32_t)secrets->count;
    for (size_t i = 0; names && i < secrets->count && i < (size_t)call->args[0].i; i++) {
        char *text = g_malloc(XML_UUID_TEXT);

        uuid_format(secrets->items[i]->uuid, text);
        g_ptr_array_add(call->result[0].strings, text);
    }
    secret_id_array_free(secrets);
}

/* An array, or only how many there are where the caller does not want to have them. */
static void CO_FN co_filter_array(struct rpc_call *call, enum after after)
{
    union rpc_value *result = call->result;

    if (after == AFTER_POOLS) {
        bool wanted = call->args[0].u;
        struct pool_id_array *pools = co_pools(call);

        pool_id_array_free(TAKE(result[0].pools));
        result[1].u = (uint32_t)pools->count;
        wanted ? (void)(result[0].pools = pools) : pool_id_array_free(pools);
    } else if (after == AFTER_VOLUMES) {
        bool wanted = call->args[1].u;
        struct volume_id_array *volumes = co_volumes(call);

        volume_id_array_free(TAKE(result[0].volumes));
        result[1].u = (uint32_t)volumes->count;
        wanted ? (void)(result[0].volumes = volumes) : volume_id_array_free(volumes);
    } else {
        bool wanted = call->args[0].u;
        struct secret_id_array *secrets = co_secrets(call);

        secret_id_array_free(TAKE(result[0].secrets));
        result[1].u = (uint32_t)secrets->count;
        wanted ? (void)(result[0].secrets = secrets) : secret_id_array_free(secrets);
    }
}

static void CO_FN co_filter_list(struct rpc_call *call, enum after after)
{
    bool names = after == AFTER_POOL_NAMES || after == AFTER_VOLUME_NAMES || after == AFTER_SECRET_UUIDS;

    if (names)
        g_ptr_array_set_size(call->result[0].strings, 0);
    switch (after) {
    case AFTER_POOLS:
    case AFTER_VOLUMES:
    case AFTER_SECRETS:
        co_filter_array(call, after);
        break;
    case AFTER_POOL_COUNT:
    case AFTER_POOL_NAMES:
        co_list_pools(call, names);
        break;
    case AFTER_VOLUME_COUNT:
    case AFTER_VOLUME_NAMES:
        co_list_volumes(call, names);
        break;
    default:
        co_list_secrets(call, names);
        break;
    }
}

bool co_remote_access_after(struct rpc_call *call, struct pool_error **err)
{
    const struct rule *rule = authority(call->client) ? find_rule(call->procedure->number) : NULL;

    if (!rule)
        return true;
    switch (rule->after) {
    case AFTER_NOTHING:
        return true;
    case AFTER_POOL:
        return co_sees_pool(call->client, call->result[0].pool, err);
    case AFTER_VOLUME:
        return co_sees_volume(call, call->result[0].volume, err);
    case AFTER_SECRET:
        return co_ask_secret(call->client, call->result[0].secret, "getattr", err);
    default:
        co_filter_list(call, rule->after);
        return true;
    }
}

bool co_remote_access_event(struct rpc_client *client, const struct pool_id *pool, const struct secret_id *secret)
{
    assert(authority(client));
    return pool ? co_sees_pool(client, pool, NULL) : co_ask_secret(client, secret, "getattr", NULL);
}

/* --- speaking for others --- */

static bool CO_FN co_is_token(const struct pool_daemon *daemon, const char *text)
{
    g_autofree char *token = NULL;
    size_t size;

    return text && *text && daemon->token_path && co_file_load(daemon->token_path, TOKEN_MAX, &token, &size, NULL) &&
           !strcmp(g_strchomp(token), text);
}

/* A process that is not said to be anybody's stays who it is. */
bool co_remote_access_identify(struct rpc_call *call, struct pool_error **err)
{
    const struct typed_params *params = call->args[0].params;
    const struct typed_param *user = typed_params_find(params, "unix-user-id");
    const struct typed_param *process = typed_params_find(params, "process-id");
    const struct typed_param *start = typed_params_find(params, "process-time");
    const struct typed_param *token = typed_params_find(params, "system.token");
    struct remote_session *session = remote_session(call);
    bool elevated;

    if (!authority(call->client))
        return true;
    elevated = token && co_is_token(remote_daemon(call), token->string);
    session->identity.elevated = elevated;
    if (!user || !process)
        return true;
    session->identity.subject = (struct polkit_subject){
        .pid = (pid_t)process->number,
        .start = start ? start->number : co_process_start((pid_t)process->number),
        .uid = (uid_t)user->number,
    };
    session->identity.known = true;
    return true;
}
