/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iscsi-direct: the units of an iSCSI target, seen without the help of the kernel. */
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/iscsi-client.h"
#include "pool/backend/portal.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/storage-internal.h"

enum { READY_TRIES = 10, READY_FIRST_NS = 10 * NS_PER_MS };

/* What a worker thread does, with all that it needs. */
struct session {
    struct iscsi_login login;
    char *portal, *password;
    const struct iscsi_module *module;
    struct error *error; /* the module is missing */

    enum { LIST_UNITS, LIST_TARGETS, WIPE } work;
    GArray *units;
    GPtrArray *targets;
    unsigned lun;
    char *message;
};

static void session_clear(struct session *session)
{
    if (session->password)
        explicit_bzero(session->password, strlen(session->password));
    g_free(session->password);
    g_free(session->portal);
    g_free(session->message);
    error_free(session->error);
}

static int work(void *opaque)
{
    struct session *session = opaque;

    session->module =
        (const struct iscsi_module *)module_table("iscsi", "ashlar_iscsi_module", "libiscsi7", &session->error);
    if (!session->module)
        return 0;
    switch (session->work) {
    case LIST_UNITS:
        return session->module->list_units(&session->login, session->units, &session->message);
    case LIST_TARGETS:
        return session->module->list_targets(&session->login, session->targets, &session->message);
    case WIPE:
    default:
        return session->module->wipe(&session->login, session->lun, &session->message);
    }
}

static bool CO_FN co_take_secret(struct storage *storage, const struct pool_auth *auth, struct session *session,
                                 struct pool_error **err)
{
    AUTO(secret_value) value = NULL;

    if (auth->type == POOL_AUTH_NONE)
        return true;
    if (auth->type != POOL_AUTH_CHAP)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "iscsi-direct storage pools know no way to authenticate but 'chap'");
    if (!storage->secrets)
        return pool_error_set(err, POOL_ERROR_NO_SECRET, "for user '%s'", auth->username);
    value = co_pool_secret_get(storage->secrets, auth->secret.has_uuid ? auth->secret.uuid : NULL, SECRET_USAGE_ISCSI,
                               auth->secret.usage, err);
    if (!value)
        return false;
    session->password = g_strndup((const char *)value->data, value->size);
    session->login.username = auth->username;
    session->login.password = session->password;
    return true;
}

/* Logs in, does `session->work`, and logs out. */
static bool CO_FN co_run_session(struct storage *storage, const struct pool_source *source, struct session *session,
                                 struct pool_error **err)
{
    if (!portal_check_host(source, err))
        return false;
    if (!source->initiator)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "missing initiator IQN");
    session->portal = portal_of(source);
    session->login.portal = session->portal;
    session->login.initiator = source->initiator;
    if (!co_take_secret(storage, &source->auth, session, err))
        return false;
    if (co_worker_run(work, session))
        return true;
    if (session->error)
        return pool_error_from(err, TAKE(session->error));
    return pool_error_set(err, POOL_ERROR_INTERNAL, "iSCSI target at %s: %s", session->portal,
                          session->message ? session->message : "failed");
}

static bool set_target(const struct pool *pool, struct session *session, struct pool_error **err)
{
    if (pool->def->source.device_count != 1)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "expected exactly 1 device for the storage pool");
    session->login.target = pool->def->source.devices[0].path;
    return true;
}

/* --- volumes --- */

static struct volume *new_volume(const struct pool *pool, const char *portal, const struct iscsi_unit *unit)
{
    struct volume *volume = volume_new();

    volume->type = VOLUME_NETWORK;
    volume->name = g_strdup_printf("unit:0:0:%u", unit->lun);
    volume->key = g_strdup_printf("ip-%s-iscsi-%s-lun-%u", portal, pool->def->source.devices[0].path, unit->lun);
    volume->target.path = g_strdup(volume->key);
    if (!unit->is_disk || __builtin_mul_overflow(unit->blocks, unit->block_size, &volume->capacity))
        volume->capacity = 0;
    volume->allocation = volume->capacity;
    return volume;
}

/* The unit that is not ready, -1: all are. */
static int find_unready(const GArray *units)
{
    for (guint i = 0; i < units->len; i++) {
        if (!g_array_index(units, struct iscsi_unit, i).is_ready)
            return (int)g_array_index(units, struct iscsi_unit, i).lun;
    }
    return -1;
}

/* Some units take a while before they are ready. */
static bool CO_FN co_list_units(struct pool *pool, struct session *session, struct pool_error **err)
{
    int64_t pause = READY_FIRST_NS;

    for (unsigned tries = 0; tries < READY_TRIES; tries++, pause *= 2) {
        g_array_set_size(session->units, 0);
        session_clear(session);
        *session = (struct session){.work = LIST_UNITS, .units = session->units};
        if (!set_target(pool, session, err) || !co_run_session(pool->storage, &pool->def->source, session, err))
            return false;
        if (find_unready(session->units) < 0)
            return true;
        if (co_sleep_ns(pause))
            break;
    }
    return pool_error_set(err, POOL_ERROR_INTERNAL, "unit %d of iSCSI target '%s' does not become ready",
                          find_unready(session->units), session->login.target);
}

static bool CO_FN iscsi_direct_co_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err)
{
    g_autoptr(GArray) units = g_array_new(FALSE, FALSE, sizeof(struct iscsi_unit));
    struct session session = {.work = LIST_UNITS, .units = units};
    bool ok = co_list_units(pool, &session, err);

    for (guint i = 0; ok && i < units->len; i++) {
        struct volume *volume = new_volume(pool, session.portal, &g_array_index(units, struct iscsi_unit, i));

        scan->capacity += volume->capacity;
        scan->allocation += volume->allocation;
        pool_scan_add(scan, volume);
    }
    session_clear(&session);
    return ok;
}

static bool CO_FN iscsi_direct_co_wipe(struct pool *pool, struct volume *volume, enum volume_wipe_algorithm algorithm,
                                       struct pool_error **err)
{
    const char *lun = strrchr(volume->name, ':');
    struct session session = {.work = WIPE, .lun = lun ? (unsigned)g_ascii_strtoull(lun + 1, NULL, 10) : 0};
    bool ok;

    if (algorithm != VOLUME_WIPE_ZERO)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "unsupported algorithm %u", algorithm);
    ok = set_target(pool, &session, err) && co_run_session(pool->storage, &pool->def->source, &session, err);
    session_clear(&session);
    return ok;
}

/* --- finding --- */

static bool CO_FN iscsi_direct_co_find_sources(struct storage *storage, const struct pool_source *source,
                                               GPtrArray *sources, struct pool_error **err)
{
    g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func(g_free);
    struct session session = {.work = LIST_TARGETS, .targets = targets};
    bool ok;

    if (!source)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "hostname must be specified for iscsi-direct sources");
    ok = co_run_session(storage, source, &session, err);
    for (guint i = 0; ok && i < targets->len; i++)
        portal_add_found(sources, POOL_ISCSI_DIRECT, source, targets->pdata[i]);
    session_clear(&session);
    return ok;
}

static const struct pool_backend_volume iscsi_direct_volume_operations = {.co_wipe = iscsi_direct_co_wipe};

const struct pool_backend iscsi_direct_backend = {
    .type = POOL_ISCSI_DIRECT,
    .flags = BACKEND_EXACT_PATHS,
    .co_refresh = iscsi_direct_co_refresh,
    .co_find_sources = iscsi_direct_co_find_sources,
    .volume = &iscsi_direct_volume_operations,
};
