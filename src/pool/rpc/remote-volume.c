/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls about volumes: each hands on to the function of storage.h that stands for it. */
#include "pool/pool-error.h"
#include "pool/rpc/client.h"
#include "pool/rpc/remote.h"
#include "pool/rpc/stream.h"
#include "pool/storage.h"

enum { STREAM_SPARSE = 1 }; /* a flag of uploads and downloads */

bool co_remote_volume_count(struct rpc_call *call, struct pool_error **err)
{
    AUTO(volume_id_array) volumes = storage_volume_list(remote_storage(call), call->args[0].pool, 0, err);

    if (!volumes)
        return false;
    call->result[0].i = (int32_t)volumes->count;
    return true;
}

bool co_remote_volume_names(struct rpc_call *call, struct pool_error **err)
{
    AUTO(volume_id_array) volumes = NULL;

    if (!remote_check_max("maxnames", call->args[1].i, "REMOTE_STORAGE_VOL_LIST_MAX", err))
        return false;
    volumes = storage_volume_list(remote_storage(call), call->args[0].pool, 0, err);
    if (!volumes)
        return false;
    call->result[0].strings = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < volumes->count && i < (size_t)call->args[1].i; i++)
        g_ptr_array_add(call->result[0].strings, g_strdup(volumes->items[i]->name));
    return true;
}

bool co_remote_volume_list(struct rpc_call *call, struct pool_error **err)
{
    AUTO(volume_id_array)
    volumes = storage_volume_list(remote_storage(call), call->args[0].pool, call->args[2].u, err);

    if (!volumes)
        return false;
    call->result[1].u = (uint32_t)volumes->count;
    if (!call->args[1].u)
        return true;
    if (!remote_check_count("storage_vols", volumes->count, err))
        return false;
    call->result[0].volumes = TAKE(volumes);
    return true;
}

bool co_remote_volume_create_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].volume = co_storage_volume_create_xml(remote_storage(call), call->args[0].pool,
                                                          call->args[1].string, call->args[2].u, err);
    return call->result[0].volume;
}

bool co_remote_volume_create_xml_from(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].volume = co_storage_volume_create_xml_from(
        remote_storage(call), call->args[0].pool, call->args[1].string, call->args[2].volume, call->args[3].u, err);
    return call->result[0].volume;
}

bool co_remote_volume_delete(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_volume_delete(remote_storage(call), call->args[0].volume, call->args[1].u, err);
}

bool co_remote_volume_by_name(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].volume =
        storage_volume_by_name(remote_storage(call), call->args[0].pool, call->args[1].string, err);
    return call->result[0].volume;
}

bool co_remote_volume_by_key(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].volume = storage_volume_by_key(remote_storage(call), call->args[0].string, err);
    return call->result[0].volume;
}

bool co_remote_volume_by_path(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].volume = co_storage_volume_by_path(remote_storage(call), call->args[0].string, err);
    return call->result[0].volume;
}

static bool CO_FN co_get_info(struct rpc_call *call, unsigned flags, struct pool_error **err)
{
    struct volume_info info;

    if (!co_storage_volume_get_info(remote_storage(call), call->args[0].volume, flags, &info, err))
        return false;
    call->result[0].u = info.type;
    call->result[1].h = info.capacity;
    call->result[2].h = info.allocation;
    return true;
}

bool co_remote_volume_get_info(struct rpc_call *call, struct pool_error **err)
{
    return co_get_info(call, 0, err);
}

bool co_remote_volume_get_info_flags(struct rpc_call *call, struct pool_error **err)
{
    return co_get_info(call, call->args[1].u, err);
}

bool co_remote_volume_get_xml(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string =
        co_storage_volume_get_xml(remote_storage(call), call->args[0].volume, call->args[1].u, err);
    return call->result[0].string;
}

bool co_remote_volume_get_path(struct rpc_call *call, struct pool_error **err)
{
    call->result[0].string = storage_volume_get_path(remote_storage(call), call->args[0].volume, err);
    return call->result[0].string;
}

bool co_remote_volume_wipe(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_volume_wipe(remote_storage(call), call->args[0].volume, 0, call->args[1].u, err);
}

bool co_remote_volume_wipe_pattern(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_volume_wipe(remote_storage(call), call->args[0].volume, call->args[1].u, call->args[2].u, err);
}

bool co_remote_volume_resize(struct rpc_call *call, struct pool_error **err)
{
    return co_storage_volume_resize(remote_storage(call), call->args[0].volume, call->args[1].h, call->args[2].u, err);
}

/* What both directions share: the function that opens the volume. */
static bool CO_FN co_open_stream(struct rpc_call *call, bool upload,
                                 struct volume_stream *(*co_open)(struct storage *storage,
                                                                  const struct volume_id *volume, uint64_t offset,
                                                                  uint64_t length, unsigned flags,
                                                                  struct pool_error **err),
                                 struct pool_error **err)
{
    struct volume_stream *stream = NULL;

    if (!rpc_stream_may_open(call->client, err))
        return false;
    stream =
        co_open(remote_storage(call), call->args[0].volume, call->args[1].h, call->args[2].h, call->args[3].u, err);
    if (!stream)
        return false;
    rpc_stream_open(call->client, &call->header, stream, upload, call->args[3].u & STREAM_SPARSE);
    return true;
}

bool co_remote_volume_upload(struct rpc_call *call, struct pool_error **err)
{
    return co_open_stream(call, true, co_storage_volume_upload, err);
}

bool co_remote_volume_download(struct rpc_call *call, struct pool_error **err)
{
    return co_open_stream(call, false, co_storage_volume_download, err);
}
