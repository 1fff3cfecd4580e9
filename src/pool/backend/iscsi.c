/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iscsi: the units of an iSCSI target, through the kernel and open-iscsi's iscsiadm. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/backend/iscsi-record.h"
#include "pool/backend/iscsi-session.h"
#include "pool/backend/portal.h"
#include "pool/backend/scsi-scan.h"
#include "pool/backend/types.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/storage-internal.h"
#include "pool/xml/document.h"

static const char *target_of(const struct pool *pool)
{
    return pool->def->source.devices[0].path;
}

/* It goes into a record of open-iscsi's, where another line would be another setting. NULL is none. */
static bool check_line(const char *what, const char *text, struct pool_error **err)
{
    return !text || !strpbrk(text, "\r\n") ||
           pool_error_set(err, POOL_ERROR_INVALID_ARG, "the %s '%s' has more than one line", what, text);
}

static bool check_source(const struct pool *pool, struct pool_error **err)
{
    const struct pool_source *source = &pool->def->source;

    if (!portal_check_host(source, err))
        return false;
    if (source->device_count != 1)
        return pool_error_set(err, POOL_ERROR_INTERNAL, "missing source device");
    if (*target_of(pool) == '-')
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "'%s' is not the name of a target", target_of(pool));
    return check_line("host's name", source->hosts[0].name, err) && check_line("target's name", target_of(pool), err) &&
           check_line("initiator's name", source->initiator, err) &&
           check_line("user's name", source->auth.username, err);
}

/* --- interfaces --- */

/*
 * What open-iscsi calls an interface says by which name this host logs in. A pool that has a name of its own gets an
 * interface of its own: while it runs, and while its targets are being looked for. Others have the usual one. Owned.
 */
static char *interface_of(const struct pool_def *def)
{
    char uuid[XML_UUID_TEXT];

    if (!def->source.initiator)
        return g_strdup("default");
    uuid_format(def->uuid, uuid);
    return g_strconcat(ISCSI_OWN_INTERFACE, uuid, NULL);
}

/* One that a dead daemon has left is as good as a new one. */
static bool CO_FN co_make_interface(const char *interface, const char *initiator, struct pool_error **err)
{
    const char *make[] = {"iscsiadm", "--mode", "iface", "--interface", interface, "--op", "new", NULL};
    const char *name[] = {"iscsiadm", "--mode", "iface",  "--interface",         interface,
                          "--op",     "update", "--name", "iface.initiatorname", "--value",
                          initiator,  NULL};
    struct command_result result = {0};
    bool ok = co_command_try(make, &result, err) && co_command_run(name, NULL, err);

    command_result_clear(&result);
    return ok;
}

/* Whoever looks for targets would get a record for each interface that there is. */
static void CO_FN co_remove_interface(const char *interface)
{
    const char *argv[] = {"iscsiadm", "--mode", "iface", "--interface", interface, "--op", "delete", NULL};
    struct command_result result = {0};

    (void)co_command_try(argv, &result, NULL);
    command_result_clear(&result);
}

/* --- records of targets --- */

/* The pool's portal with the number of the group that its records have. Owned. */
static char *group_of(const struct pool *pool)
{
    g_autofree char *portal = portal_of(&pool->def->source);

    return g_strconcat(portal, ",1", NULL);
}

/* Runs iscsiadm on the record of the pool's target: `words`, ended by NULL, follow. */
static bool CO_FN co_on_node(struct pool *pool, const char *const *words, struct pool_error **err)
{
    g_autofree char *group = group_of(pool);
    g_autofree char *interface = interface_of(pool->def);
    const char *argv[18] = {"iscsiadm",     "--mode",        "node",        "--portal", group,
                            "--targetname", target_of(pool), "--interface", interface};
    size_t count = 9;

    while (*words && count < G_N_ELEMENTS(argv) - 1)
        argv[count++] = *words++;
    return co_command_run(argv, NULL, err);
}

static bool CO_FN co_set(struct pool *pool, const char *name, const char *value, struct pool_error **err)
{
    const char *words[] = {"--op", "update", "--name", name, "--value", value, NULL};

    return co_on_node(pool, words, err);
}

static bool CO_FN co_set_password(struct pool *pool, const struct secret_value *value, struct pool_error **err)
{
    g_autofree char *group = group_of(pool);
    g_autofree char *interface = interface_of(pool->def);
    char *password = g_strndup((const char *)value->data, value->size);
    bool ok = co_iscsi_record_set(target_of(pool), group, interface, "node.session.auth.password", password, err);

    explicit_bzero(password, strlen(password));
    g_free(password);
    return ok;
}

static bool CO_FN co_set_secret(struct pool *pool, struct pool_error **err)
{
    const struct pool_auth *auth = &pool->def->source.auth;
    AUTO(secret_value) value = NULL;

    if (auth->type == POOL_AUTH_NONE)
        return true;
    if (auth->type != POOL_AUTH_CHAP)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED,
                              "iscsi storage pools know no way to authenticate but 'chap'");
    if (!pool->storage->secrets)
        return pool_error_set(err, POOL_ERROR_NO_SECRET, "for user '%s'", auth->username);
    value = co_pool_secret_get(pool->storage->secrets, auth->secret.has_uuid ? auth->secret.uuid : NULL,
                               SECRET_USAGE_ISCSI, auth->secret.usage, err);
    return value && co_set(pool, "node.session.auth.authmethod", "CHAP", err) &&
           co_set(pool, "node.session.auth.username", auth->username, err) && co_set_password(pool, value, err);
}

/* --- sessions --- */

struct session_search {
    const struct pool *pool;
    const char *text;
    char *session;
};

static int find_session(void *opaque)
{
    struct session_search *search = opaque;

    search->session =
        iscsi_session_find("/sys", search->text, target_of(search->pool), search->pool->def->source.initiator);
    return 0;
}

/* The number of the session with the pool's target, owned; NULL: there is none. Its exit status does not tell. */
static char *CO_FN co_find_session(const struct pool *pool, struct pool_error **err)
{
    const char *argv[] = {"iscsiadm", "--mode", "session", NULL};
    struct session_search search = {.pool = pool};
    struct command_result result = {0};

    if (co_command_try(argv, &result, err)) {
        search.text = result.output;
        (void)co_worker_run(find_session, &search);
    }
    command_result_clear(&result);
    return search.session;
}

static bool CO_FN iscsi_co_check(struct pool *pool, bool *ret_active, struct pool_error **err)
{
    g_autofree char *session = check_source(pool, NULL) ? co_find_session(pool, NULL) : NULL;

    *ret_active = session;
    return true;
}

/* Somebody may have records of the same portal in other groups. Iscsiadm takes them all for meant, and fails for those
 * that come after the session is there. */
static bool CO_FN co_log_in(struct pool *pool, struct pool_error **err)
{
    const char *make[] = {"--op", "new", NULL};
    const char *login[] = {"--login", NULL};
    AUTO(pool_error) error = NULL;
    g_autofree char *session = NULL;

    if (!co_on_node(pool, make, err) || !co_set_secret(pool, err))
        return false;
    if (co_on_node(pool, login, &error))
        return true;
    session = error->code == POOL_ERROR_INTERNAL ? co_find_session(pool, NULL) : NULL;
    if (!session)
        return pool_error_move(err, TAKE(error));
    log_warning("pool '%s' has a session all the same: %s", pool->def->name, error->message);
    return true;
}

/* Of an interface of the pool's own nothing stays behind. */
static void CO_FN co_forget(struct pool *pool)
{
    const char *forget[] = {"--op", "delete", NULL};
    g_autofree char *interface = interface_of(pool->def);

    if (!pool->def->source.initiator)
        return;
    (void)co_on_node(pool, forget, NULL);
    co_remove_interface(interface);
}

static bool CO_FN iscsi_co_start(struct pool *pool, struct pool_error **err)
{
    AUTO(pool_error) error = NULL;
    g_autofree char *session = NULL;
    g_autofree char *interface = interface_of(pool->def);

    if (!check_source(pool, err))
        return false;
    session = co_find_session(pool, &error);
    if (error)
        return pool_error_move(err, TAKE(error));
    if (session)
        return true;
    if ((!pool->def->source.initiator || co_make_interface(interface, pool->def->source.initiator, err)) &&
        co_log_in(pool, err))
        return true;
    co_forget(pool);
    return false;
}

/* Others may have sessions with the same target. */
static bool CO_FN iscsi_co_stop(struct pool *pool, struct pool_error **err)
{
    const char *logout[] = {"iscsiadm", "--mode", "session", "-r", NULL, "--logout", NULL};
    AUTO(pool_error) error = NULL;
    g_autofree char *session = NULL;

    if (!check_source(pool, err))
        return false;
    session = co_find_session(pool, &error);
    /* Nobody knows of none: it would stay for good. */
    if (error)
        return pool_error_move(err, TAKE(error));
    logout[4] = session;
    if (session && !co_command_run(logout, NULL, err))
        return false;
    co_forget(pool);
    return true;
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
    AUTO(pool_error) error = NULL;
    g_autofree char *session = NULL;
    const char *rescan[] = {"iscsiadm", "--mode", "session", "-r", NULL, "-R", NULL};
    struct host_search search;
    int ret;

    if (!check_source(pool, err))
        return false;
    session = co_find_session(pool, &error);
    if (error)
        return pool_error_move(err, TAKE(error));
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

/* `interface`: NULL is the usual one. */
static bool CO_FN co_discover(const struct pool_source *source, const char *interface, GPtrArray *sources,
                              struct pool_error **err)
{
    g_autofree char *portal = portal_of(source);
    const char *argv[] = {"iscsiadm", "--mode", "discovery",     "--type",      "sendtargets", "--portal",
                          portal,     "--op",   "nonpersistent", "--interface", interface,     NULL};
    struct command_result result = {0};
    g_autoptr(GPtrArray) targets = NULL;

    if (!interface)
        argv[9] = NULL;
    if (!co_command_run(argv, &result, err))
        return false;
    targets = iscsi_session_targets(result.output);
    for (guint i = 0; i < targets->len; i++)
        portal_add_found(sources, POOL_ISCSI, source, targets->pdata[i]);
    command_result_clear(&result);
    return true;
}

static bool CO_FN co_discover_as(const struct pool_source *source, GPtrArray *sources, struct pool_error **err)
{
    g_autofree char *interface = NULL;
    uint64_t number;
    bool ok;

    loop_random_bytes(&number, sizeof(number));
    interface = g_strdup_printf("%sfind-%016llx", ISCSI_OWN_INTERFACE, (unsigned long long)number);
    ok = co_make_interface(interface, source->initiator, err) && co_discover(source, interface, sources, err);
    co_remove_interface(interface);
    return ok;
}

static bool CO_FN iscsi_co_find_sources(struct storage *storage, const struct pool_source *source, GPtrArray *sources,
                                        struct pool_error **err)
{
    if (!source)
        return pool_error_set(err, POOL_ERROR_INVALID_ARG, "hostname must be specified for iscsi sources");
    if (!portal_check_host(source, err) || !check_line("initiator's name", source->initiator, err))
        return false;
    return source->initiator ? co_discover_as(source, sources, err) : co_discover(source, NULL, sources, err);
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
