/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls about pools: each hands on to the function of storage.h that stands for it. */
#include "pool/pool-error.h"
#include "pool/rpc/remote.h"
#include "pool/storage.h"

enum { LIST_INACTIVE = 1, LIST_ACTIVE = 2 }; /* of the filter of pool lists */

/* Two procedures count and list those that run, and two the others. */
static struct pool_id_array *list_for(const struct rpc_call *call, struct pool_error **err)
{
    bool running = call->procedure->number == 71 || call->procedure->number == 72;

    return storage_pool_list(remote_storage(call), running ? LIST_ACTIVE : LIST_INACTIVE, err);
}

bool co_remote_pool_count(struct rpc_call *call, struct pool_error **err)
{
    AUTO(pool_id_array) pools = list_for(call, err);

    if (!pools)
        return false;
    call->result[0].i = (int32_t)pools->count;
    return true;
}

bool co_remote_pool_names(struct rpc_call *call, struct pool_error **err)
{
    AUTO(pool_id_array) pools = NULL;

    if (!remote_check_max("maxnames", call->args[0].i, "REMOTE_STORAGE_POOL_LIST_MAX", err))
        return false;
    pools = list_for(call, err);
    if (!pools)
        return false;
    call->result[0].strings = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < pools->count && i < (size_t)call->args[0].i; i++)
        g_ptr_array_add(call->result[0].strings, g_strdup(pools->items[i]->name));
    return true;
}

bool co_remote_pool_list(struct rpc_call *call, struct pool_error **err)
{
    AUTO(pool_id_array) pools = storage_pool_list(remote_storage(call), call->args[1].u, err);

    if (!pools)
        return false;
    call->result[1].u = (uint32_t)pools->count;
    if (!call->args[0].u)
        return true;
    if (!remote_check_count("storage_pools", pools->count, err))
        return false;
    call->result[0].pools = TAKE(pools);
    return true;
}

bool co_remote_find_sources(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string =
        co_storage_find_sources(remote_storage(call), call->args[0].string, call->args[1].string, call->args[2].u, err);
    return call->result[0].string;
}

bool co_remote_pool_create_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].pool = co_storage_pool_create_xml(remote_storage(call), call->args[0].string, call->args[1].u, err);
    return call->result[0].pool;
}

bool co_remote_pool_define_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].pool = co_storage_pool_define_xml(remote_storage(call), call->args[0].string, call->args[1].u, err);
    return call->result[0].pool;
}

bool co_remote_pool_create(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_start(remote_storage(call), call->args[0].pool, call->args[1].u, err);
}

bool co_remote_pool_build(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_build(remote_storage(call), call->args[0].pool, call->args[1].u, err);
}

bool co_remote_pool_destroy(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_destroy(remote_storage(call), call->args[0].pool, err);
}

bool co_remote_pool_delete(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_delete(remote_storage(call), call->args[0].pool, call->args[1].u, err);
}

bool co_remote_pool_undefine(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_undefine(remote_storage(call), call->args[0].pool, err);
}

bool co_remote_pool_refresh(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_refresh(remote_storage(call), call->args[0].pool, call->args[1].u, err);
}

bool co_remote_pool_by_name(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].pool = storage_pool_by_name(remote_storage(call), call->args[0].string, err);
    return call->result[0].pool;
}

bool co_remote_pool_by_uuid(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].pool = storage_pool_by_uuid(remote_storage(call), call->args[0].uuid, err);
    return call->result[0].pool;
}

bool co_remote_pool_by_volume(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].pool = storage_pool_by_volume(remote_storage(call), call->args[0].volume, err);
    return call->result[0].pool;
}

bool co_remote_pool_by_target_path(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].pool = storage_pool_by_target_path(remote_storage(call), call->args[0].string, err);
    return call->result[0].pool;
}

bool co_remote_pool_get_info(struct rpc_call *call, struct pool_error **err)
{
    struct pool_info info;

    if (!storage_pool_get_info(remote_storage(call), call->args[0].pool, &info, err))
        return false;
    call->result[0].u = info.state;
    call->result[1].h = info.capacity;
    call->result[2].h = info.allocation;
    call->result[3].h = info.available;
    return true;
}

bool co_remote_pool_get_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string = storage_pool_get_xml(remote_storage(call), call->args[0].pool, call->args[1].u, err);
    return call->result[0].string;
}

/* The three questions that are answered with yes or no. */
static bool ask(struct rpc_call *call,
                bool (*question)(struct storage *storage, const struct pool_id *pool, bool *ret,
                                 struct pool_error **err),
                struct pool_error **err)
{
    bool yes;

    if (!question(remote_storage(call), call->args[0].pool, &yes, err))
        return false;
    call->result[0].i = yes;
    return true;
}

bool co_remote_pool_get_autostart(struct rpc_call *call, struct pool_error **err)
{
    return ask(call, storage_pool_get_autostart, err);
}

bool co_remote_pool_is_active(struct rpc_call *call, struct pool_error **err)
{
    return ask(call, storage_pool_is_active, err);
}

bool co_remote_pool_is_persistent(struct rpc_call *call, struct pool_error **err)
{
    return ask(call, storage_pool_is_persistent, err);
}

bool co_remote_pool_set_autostart(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_pool_set_autostart(remote_storage(call), call->args[0].pool, call->args[1].i, err);
}
