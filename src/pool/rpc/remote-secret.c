/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls about secrets: each hands on to the function of secrets.h that stands for it. */
#include "pool/pool-error.h"
#include "pool/rpc/remote.h"
#include "pool/secrets.h"
#include "pool/xml/document.h"

bool co_remote_secret_count(struct rpc_call *call, struct pool_error **err)
{
    struct secret_id_array *secrets = pool_secrets_list(remote_secrets(call), 0, err);

    call->result[0].i = (int32_t)secrets->count;
    secret_id_array_free(secrets);
    return true;
}

bool co_remote_secret_uuids(struct rpc_call *call, struct pool_error **err)
{
    struct secret_id_array *secrets;

    if (!remote_check_max("maxuuids", call->args[0].i, "REMOTE_SECRET_LIST_MAX", err))
        return false;
    secrets = pool_secrets_list(remote_secrets(call), 0, err);
    call->result[0].strings = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < secrets->count && i < (size_t)call->args[0].i; i++) {
        char *text = g_malloc(XML_UUID_TEXT);

        uuid_format(secrets->items[i]->uuid, text);
        g_ptr_array_add(call->result[0].strings, text);
    }
    secret_id_array_free(secrets);
    return true;
}

bool co_remote_secret_list(struct rpc_call *call, struct pool_error **err)
{
    AUTO(secret_id_array) secrets = pool_secrets_list(remote_secrets(call), call->args[1].u, err);

    if (!secrets)
        return false;
    call->result[1].u = (uint32_t)secrets->count;
    if (!call->args[0].u)
        return true;
    if (!remote_check_count("secrets", secrets->count, err))
        return false;
    call->result[0].secrets = TAKE(secrets);
    return true;
}

bool co_remote_secret_by_uuid(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].secret = pool_secrets_by_uuid(remote_secrets(call), call->args[0].uuid, err);
    return call->result[0].secret;
}

bool co_remote_secret_by_usage(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].secret = pool_secrets_by_usage(remote_secrets(call), call->args[0].i, call->args[1].string, err);
    return call->result[0].secret;
}

bool co_remote_secret_define_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].secret = co_pool_secrets_define(remote_secrets(call), call->args[0].string, call->args[1].u, err);
    return call->result[0].secret;
}

bool co_remote_secret_get_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string =
        pool_secrets_get_xml(remote_secrets(call), call->args[0].secret->uuid, call->args[1].u, err);
    return call->result[0].string;
}

bool co_remote_secret_set_value(struct rpc_call *call, struct pool_error **err)
{
    return co_pool_secrets_set_value(remote_secrets(call), call->args[0].secret->uuid, call->args[1].bytes,
                                     call->args[2].u, err);
}

bool co_remote_secret_get_value(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].bytes =
        pool_secrets_get_value(remote_secrets(call), call->args[0].secret->uuid, call->args[1].u, false, err);
    return call->result[0].bytes;
}

bool co_remote_secret_undefine(struct rpc_call *call, struct pool_error **err)
{
    return co_pool_secrets_undefine(remote_secrets(call), call->args[0].secret->uuid, err);
}
