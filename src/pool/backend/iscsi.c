/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iscsi: the units of an iSCSI target, through the kernel and open-iscsi's iscsiadm. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/backend/iscsi-session.h"
#include "pool/backend/portal.h"
#include "pool/backend/scsi-scan.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/storage-internal.h"

static const char *target_of(const struct pool *pool)
{
    return pool->def->source.devices[0].path;
}

static bool check_source(const struct pool *pool, struct pool_error **err)
{
    const struct pool_source *source = &pool->def->source;

    if (!portal_check_host(source, err))
        return false;
    if (source->device_count != 1)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "missing source device");
    return *target_of(pool) != '-' ||
           pool_error_set(err, POOL_ERROR_INVALID_ARG, "'%s' is not the name of a target", target_of(pool));
}

/* --- sessions --- */

/* The number of the session with the pool's target, owned; NULL: there is none. Its exit status does not tell. */
static char *CO_FN co_find_session(const struct pool *pool, struct pool_error **err)
{
    const char *argv[] = {"iscsiadm", "--mode", "session", NULL};
    struct command_result result = {0};
    char *session = NULL;

    if (co_command_try(argv, &result, err))
        session = iscsi_session_find(result.output, target_of(pool));
    command_result_clear(&result);
    return session;
}

static bool CO_FN iscsi_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    g_autofree char *session = check_source(pool, NULL) ? co_find_session(pool, NULL) : NULL;

    *ret_active = session;
    return true;
}

/* Runs iscsiadm on the record of the pool's target: `words`, ended by NULL, follow. */
static bool CO_FN co_on_node(struct pool *pool, const char *const *words, struct pool_error **err)
{
    g_autofree char *portal = portal_of(&pool->def->source);
    g_autofree char *group = g_strconcat(portal, ",1", NULL);
    const char *argv[16] = {"iscsiadm", "--mode", "node", "--portal", group, "--targetname", target_of(pool)};
    size_t count = 7;

    while (*words && count < G_N_ELEMENTS(argv) - 1)
        argv[count++] = *words++;
    return co_command_run(argv, NULL, err);
}

static bool CO_FN co_set(struct pool *pool, const char *name, const char *value, struct pool_error **err)
{
    const char *words[] = {"--op", "update", "--name", name, "--value", value, NULL};

    return co_on_node(pool, words, err);
}

/* iscsiadm takes the password as a word only: whoever may look at root's processes sees it for a moment. */
static bool CO_FN co_set_secret(struct pool *pool, struct pool_error **err)
{
    const struct pool_auth *auth = &pool->def->source.auth;
    AUTO(secret_value) value = NULL;
    char *password;
    bool ok;

    if (auth->type == POOL_AUTH_NONE)
        return true;
    if (auth->type != POOL_AUTH_CHAP)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "iscsi storage pools know no way to authenticate but 'chap'");
    if (!pool->storage->secrets)
        return pool_error_set(err, POOL_ERROR_NO_SECRET, "for user '%s'", auth->username);
    value = co_pool_secret_get(pool->storage->secrets, auth->secret.has_uuid ? auth->secret.uuid : NULL,
                               SECRET_USAGE_ISCSI, auth->secret.usage, err);
    if (!value)
        return false;
    password = g_strndup((const char *)value->data, value->size);
    ok = co_set(pool, "node.session.auth.authmethod", "CHAP", err) &&
         co_set(pool, "node.session.auth.username", auth->username, err);
    if (ok && !co_set(pool, "node.session.auth.password", password, NULL))
        /* The command line, which the usual error shows, has the password. */
        ok = pool_error_set(err, POOL_ERROR_INTERNAL, "iscsiadm does not take the password of user '%s'",
                            auth->username);
    explicit_bzero(password, strlen(password));
    g_free(password);
    return ok;
}

static bool CO_FN iscsi_co_start(struct pool *pool, struct pool_error **err)
{
    const char *make[] = {"--op", "new", NULL};
    const char *login[] = {"--login", NULL};
    AUTO(pool_error) error = NULL;
    g_autofree char *session = NULL;

    if (!check_source(pool, err))
        return false;
    session = co_find_session(pool, &error);
    if (error)
        return pool_error_move(err, TAKE(error));
    if (session)
        return true;
    return co_on_node(pool, make, err) && co_set_secret(pool, err) &&
           (!pool->def->source.initiator || co_set(pool, "iface.initiatorname", pool->def->source.initiator, err)) &&
           co_on_node(pool, login, err);
}

static bool CO_FN iscsi_co_stop(struct pool *pool, struct pool_error **err)
{
    const char *logout[] = {"--logout", NULL};
    g_autofree char *session = NULL;

    if (!check_source(pool, err))
        return false;
    session = co_find_session(pool, NULL);
    return !session || co_on_node(pool, logout, err);
}

/* --- units --- */

struct host_search {
    const char *session;
    unsigned host;
};

static int find_host(void *opaque)
{
    struct host_search *search = opaque;

    return iscsi_session_host("/sys", search->session, &search->host);
}

static bool CO_FN iscsi_co_refresh(struct pool *pool, struct pool_scan *scan, struct pool_error **err)
{
    g_autofree char *session = NULL;
    const char *rescan[] = {"iscsiadm", "--mode", "session", "-r", NULL, "-R", NULL};
    struct host_search search;
    int ret;

    if (!check_source(pool, err))
        return false;
    session = co_find_session(pool, NULL);
    if (!session)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "cannot find iscsiadm session: %s", target_of(pool));
    rescan[4] = session;
    if (!co_command_run(rescan, NULL, err))
        return false;
    search = (struct host_search){.session = session};
    ret = co_worker_run(find_host, &search);
    if (ret)
        return pool_error_set_errno(err, ret, "cannot find the SCSI host of session %s", session);
    return co_scsi_scan(pool, search.host, scan, err);
}

/* --- finding --- */

static bool CO_FN iscsi_co_find_sources(struct storage *storage, const struct pool_source *source, GPtrArray *sources,
                                        struct pool_error **err)
{
    const char *argv[] = {"iscsiadm", "--mode", "discovery", "--type",        "sendtargets",
                          "--portal", NULL,     "--op",      "nonpersistent", NULL};
    struct command_result result = {0};
    g_autofree char *portal = NULL;
    g_autoptr(GPtrArray) targets = NULL;

    if (!source)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "hostname must be specified for iscsi sources");
    if (!portal_check_host(source, err))
        return false;
    portal = portal_of(source);
    argv[6] = portal;
    if (!co_command_run(argv, &result, err))
        return false;
    targets = iscsi_session_targets(result.output);
    for (guint i = 0; i < targets->len; i++)
        portal_add_found(sources, POOL_ISCSI, source, targets->pdata[i]);
    command_result_clear(&result);
    return true;
}

static const struct pool_backend_volume iscsi_volume_operations = {
    .co_refresh = co_device_volume_refresh,
    .co_wipe = co_device_volume_wipe,
};

const struct pool_backend iscsi_backend = {
    .type = POOL_ISCSI,
    .flags = BACKEND_STABLE_PATHS | BACKEND_TRANSFERS,
    .co_check = iscsi_co_check,
    .co_start = iscsi_co_start,
    .co_stop = iscsi_co_stop,
    .co_refresh = iscsi_co_refresh,
    .co_find_sources = iscsi_co_find_sources,
    .volume = &iscsi_volume_operations,
};
