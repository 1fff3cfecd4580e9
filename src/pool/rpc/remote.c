/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of all procedures: numbers and layouts are libvirt's, and the rules that its daemon has for each. */
#include "pool/rpc/remote.h"

#include <assert.h>

#include "pool/daemon.h"
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/foreign.h"
#include "pool/rpc/remote-access.h"
#include "pool/rpc/remote-events.h"
#include "pool/rpc/remote-sasl.h"

enum {
    AUTH = RPC_BEFORE_AUTH | RPC_BEFORE_OPEN | RPC_NO_WORKER,
    CONNECT = RPC_OPEN_TEXT,
    READ = RPC_STORAGE,
    WRITE = RPC_STORAGE | RPC_WRITES,
    SLOW = RPC_STORAGE | RPC_WRITES | RPC_LOW_PRIORITY,
    SECRET = RPC_SECRET,
    SECRET_WRITE = RPC_SECRET | RPC_WRITES,
};

/* clang-format off: a table is read by its columns */
static const struct rpc_procedure procedures[] = {
    {1, "virConnectOpen", "nu", "", co_remote_open, RPC_BEFORE_OPEN},
    {2, "virConnectClose", "", "", co_remote_close, RPC_BEFORE_OPEN},
    {3, "virConnectGetType", "", "s", co_remote_get_type, CONNECT},
    {7, "virConnectGetCapabilities", "", "s", co_remote_get_capabilities, CONNECT},
    {60, "virConnectSupportsFeature", "i", "i", co_remote_supports_feature, RPC_BEFORE_OPEN | RPC_AT_ONCE},
    {66, "virConnectOpenAuth", "", "I", co_remote_auth_list, AUTH},
    {67, "virConnectOpenAuth", "", "s", co_remote_sasl_init, AUTH},
    {68, "virConnectOpenAuth", "sia", "iia", co_remote_sasl_step, AUTH | RPC_CONFIDENTIAL},
    {69, "virConnectOpenAuth", "ia", "iia", co_remote_sasl_step, AUTH | RPC_CONFIDENTIAL},
    {70, "virConnectOpenAuth", "", "i", co_remote_auth_polkit, AUTH},
    {71, "virConnectNumOfStoragePools", "", "i", co_remote_pool_count, READ},
    {72, "virConnectListStoragePools", "i", "S", co_remote_pool_names, READ},
    {73, "virConnectNumOfDefinedStoragePools", "", "i", co_remote_pool_count, READ},
    {74, "virConnectListDefinedStoragePools", "i", "S", co_remote_pool_names, READ},
    {75, "virConnectFindStoragePoolSources", "snu", "s", co_remote_find_sources, SLOW},
    {76, "virStoragePoolCreateXML", "su", "p", co_remote_pool_create_xml, SLOW},
    {77, "virStoragePoolDefineXML", "su", "p", co_remote_pool_define_xml, WRITE},
    {78, "virStoragePoolCreate", "pu", "", co_remote_pool_create, SLOW},
    {79, "virStoragePoolBuild", "pu", "", co_remote_pool_build, SLOW},
    {80, "virStoragePoolDestroy", "p", "", co_remote_pool_destroy, WRITE},
    {81, "virStoragePoolDelete", "pu", "", co_remote_pool_delete, SLOW},
    {82, "virStoragePoolUndefine", "p", "", co_remote_pool_undefine, WRITE},
    {83, "virStoragePoolRefresh", "pu", "", co_remote_pool_refresh, SLOW},
    {84, "virStoragePoolLookupByName", "s", "p", co_remote_pool_by_name, READ},
    {85, "virStoragePoolLookupByUUID", "U", "p", co_remote_pool_by_uuid, READ},
    {86, "virStoragePoolLookupByVolume", "v", "p", co_remote_pool_by_volume, READ},
    {87, "virStoragePoolGetInfo", "p", "chhh", co_remote_pool_get_info, READ},
    {88, "virStoragePoolGetXMLDesc", "pu", "s", co_remote_pool_get_xml, READ},
    {89, "virStoragePoolGetAutostart", "p", "i", co_remote_pool_get_autostart, READ},
    {90, "virStoragePoolSetAutostart", "pi", "", co_remote_pool_set_autostart, WRITE},
    {91, "virStoragePoolNumOfVolumes", "p", "i", co_remote_volume_count, READ},
    {92, "virStoragePoolListVolumes", "pi", "S", co_remote_volume_names, READ},
    {93, "virStorageVolCreateXML", "psu", "v", co_remote_volume_create_xml, SLOW},
    {94, "virStorageVolDelete", "vu", "", co_remote_volume_delete, SLOW},
    {95, "virStorageVolLookupByName", "ps", "v", co_remote_volume_by_name, READ},
    {96, "virStorageVolLookupByKey", "s", "v", co_remote_volume_by_key, READ},
    {97, "virStorageVolLookupByPath", "s", "v", co_remote_volume_by_path, READ},
    {98, "virStorageVolGetInfo", "v", "chh", co_remote_volume_get_info, READ},
    {99, "virStorageVolGetXMLDesc", "vu", "s", co_remote_volume_get_xml, READ},
    {100, "virStorageVolGetPath", "v", "s", co_remote_volume_get_path, READ},
    {110, "virConnectGetURI", "", "s", co_remote_get_uri, CONNECT},
    {125, "virStorageVolCreateXMLFrom", "psvu", "v", co_remote_volume_create_xml_from, SLOW},
    {139, "virConnectNumOfSecrets", "", "i", co_remote_secret_count, SECRET},
    {140, "virConnectListSecrets", "i", "S", co_remote_secret_uuids, SECRET},
    {141, "virSecretLookupByUUID", "U", "x", co_remote_secret_by_uuid, SECRET},
    {142, "virSecretDefineXML", "su", "x", co_remote_secret_define_xml, SECRET_WRITE},
    {143, "virSecretGetXMLDesc", "xu", "s", co_remote_secret_get_xml, SECRET},
    {144, "virSecretSetValue", "xbu", "", co_remote_secret_set_value, SECRET_WRITE | RPC_CONFIDENTIAL},
    {145, "virSecretGetValue", "xu", "b", co_remote_secret_get_value, SECRET_WRITE},
    {146, "virSecretUndefine", "x", "", co_remote_secret_undefine, SECRET_WRITE},
    {147, "virSecretLookupByUsage", "is", "x", co_remote_secret_by_usage, SECRET},
    {149, "virConnectIsSecure", "", "i", co_remote_is_secure, CONNECT},
    {154, "virStoragePoolIsActive", "p", "i", co_remote_pool_is_active, READ},
    {155, "virStoragePoolIsPersistent", "p", "i", co_remote_pool_is_persistent, READ},
    {157, "virConnectGetLibVersion", "", "h", co_remote_get_lib_version, CONNECT},
    {165, "virStorageVolWipe", "vu", "", co_remote_volume_wipe, SLOW},
    {208, "virStorageVolUpload", "vhhu", "", co_remote_volume_upload, SLOW},
    {209, "virStorageVolDownload", "vhhu", "", co_remote_volume_download, SLOW},
    {259, "virStorageVolWipePattern", "vuu", "", co_remote_volume_wipe_pattern, SLOW},
    {260, "virStorageVolResize", "vhu", "", co_remote_volume_resize, SLOW},
    {281, "virConnectListAllStoragePools", "uu", "Pu", co_remote_pool_list, READ},
    {282, "virStoragePoolListAllVolumes", "puu", "Vu", co_remote_volume_list, READ},
    {287, "virConnectListAllSecrets", "uu", "Xu", co_remote_secret_list, SECRET},
    {360, "virConnectRegisterCloseCallback", "", "", co_remote_close_callback, CONNECT},
    {361, "virConnectUnregisterCloseCallback", "", "", co_remote_close_callback, CONNECT},
    {368, "virConnectStoragePoolEventRegisterAny", "iq", "i", co_remote_pool_event_register, READ},
    {369, "virConnectStoragePoolEventDeregisterAny", "i", "", co_remote_pool_event_deregister, READ},
    {378, "virStorageVolGetInfoFlags", "vu", "chh", co_remote_volume_get_info_flags, READ},
    {380, "virConnectSecretEventRegisterAny", "iy", "i", co_remote_secret_event_register, SECRET},
    {381, "virConnectSecretEventDeregisterAny", "i", "", co_remote_secret_event_deregister, SECRET},
    {391, "virStoragePoolLookupByTargetPath", "s", "p", co_remote_pool_by_target_path, READ},
    {403, "virConnectGetStoragePoolCapabilities", "u", "s", co_remote_pool_capabilities, READ | RPC_LOW_PRIORITY},
    {419, "virConnectSetIdentity", "tu", "", co_remote_set_identity, CONNECT | RPC_LOW_PRIORITY},
};
/* clang-format on */

struct pool_daemon *remote_daemon(const struct rpc_call *call)
{
    return call->client->server->opaque;
}

struct storage *remote_storage(const struct rpc_call *call)
{
    return remote_daemon(call)->storage;
}

struct pool_secrets *remote_secrets(const struct rpc_call *call)
{
    return remote_daemon(call)->secrets;
}

struct remote_session *remote_session(const struct rpc_call *call)
{
    return call->client->session;
}

bool remote_check_max(const char *what, int32_t count, const char *limit, struct pool_error **err)
{
    if (count < 0)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "%s must be non-negative", what);
    if (count > STORAGE_LIST_MAX)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_RPC, "%s > %s", what, limit);
    return true;
}

bool remote_check_count(const char *what, size_t count, struct pool_error **err)
{
    return count <= STORAGE_LIST_MAX ||
           pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "Too many %s '%zu' for limit '%d'", what,
                                 count, STORAGE_LIST_MAX);
}

static bool check_driver(const struct rpc_procedure *procedure, enum remote_driver driver, struct pool_error **err)
{
    if (procedure->rules & RPC_SECRET && driver != REMOTE_SECRET)
        return pool_error_set_domain(err, POOL_DOMAIN_SECRET, POOL_ERROR_NO_SUPPORT, "%s", procedure->function);
    if (procedure->rules & RPC_STORAGE && driver != REMOTE_STORAGE)
        return pool_error_set_domain(err, POOL_DOMAIN_STORAGE, POOL_ERROR_NO_SUPPORT, "%s", procedure->function);
    return true;
}

static bool check(const struct rpc_call *call, struct pool_error **err)
{
    const struct rpc_procedure *procedure = call->procedure;
    enum remote_driver driver = remote_session(call)->driver;

    if (procedure->rules & RPC_BEFORE_OPEN)
        return true;
    if (driver == REMOTE_NOT_OPEN)
        return pool_error_set_domain(err, POOL_DOMAIN_RPC, POOL_ERROR_INTERNAL, "%s",
                                     procedure->rules & RPC_OPEN_TEXT ? "hypervisor connection not open"
                                                                      : "connection not open");
    if (!check_driver(procedure, driver, err))
        return false;
    if (procedure->rules & RPC_WRITES && call->client->read_only)
        return pool_error_set_domain(err, driver == REMOTE_SECRET ? POOL_DOMAIN_SECRET : POOL_DOMAIN_STORAGE,
                                     POOL_ERROR_OPERATION_DENIED, "read only access prevents %s", procedure->function);
    return true;
}

static void *session_new(struct rpc_client *client)
{
    struct remote_session *session = g_new0(struct remote_session, 1);

    session->client = client;
    return session;
}

static void session_free(void *opaque)
{
    struct remote_session *session = opaque;
    struct pool_daemon *daemon = session->client->server->opaque;

    remote_events_forget(daemon->events, session->client);
    remote_sasl_free(session->sasl);
    g_free(session->uri);
    g_free(session);
}

const struct rpc_program remote_program = {
    .number = RPC_PROGRAM_REMOTE,
    .procedures = procedures,
    .count = G_N_ELEMENTS(procedures),
    .session_new = session_new,
    .session_free = session_free,
    .co_begin = co_remote_access_begin,
    .check = check,
    .co_before = co_remote_access_before,
    .co_after = co_remote_access_after,
    .unknown = rpc_foreign_refuse,
};
