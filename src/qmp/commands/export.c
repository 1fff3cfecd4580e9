/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP commands on exports and the NBD server. */
#include "export/export.h"
#include "base/error.h"
#include "gen/commands.h"
#include "gen/types.h"
#include "qmp/daemon.h"
#include "schema/socket-address.h"

bool CO_FN co_qmp_block_export_add(struct daemon *daemon, const struct block_export_options *arg, struct error **err)
{
    return co_export_add(daemon->exports, arg, err);
}

bool CO_FN co_qmp_block_export_del(struct daemon *daemon, const struct block_export_del_arg *arg, struct error **err)
{
    return co_export_delete(daemon->exports, arg->id, arg->has_mode ? arg->mode : BLOCK_EXPORT_REMOVE_MODE_SAFE, err);
}

bool CO_FN co_qmp_query_block_exports(struct daemon *daemon, struct block_export_info_array **ret, struct error **err)
{
    *ret = export_query(daemon->exports);
    return true;
}

bool CO_FN co_qmp_nbd_server_start(struct daemon *daemon, const struct nbd_server_start_arg *arg, struct error **err)
{
    AUTO(socket_address) address = socket_address_from_legacy(arg->addr);
    struct nbd_server_options options = {
        .addr = address,
        .has_handshake_max_seconds = arg->has_handshake_max_seconds,
        .handshake_max_seconds = arg->handshake_max_seconds,
        .tls_creds = arg->tls_creds,
        .tls_authz = arg->tls_authz,
        .has_max_connections = arg->has_max_connections,
        .max_connections = arg->max_connections,
    };

    return co_nbd_server_start(daemon->exports, &options, err);
}

bool CO_FN co_qmp_nbd_server_stop(struct daemon *daemon, struct error **err)
{
    return co_nbd_server_stop(daemon->exports, err);
}

bool CO_FN co_qmp_nbd_server_add(struct daemon *daemon, const struct nbd_server_add_options *arg, struct error **err)
{
    const char *name = arg->name ? arg->name : arg->device;
    struct block_dirty_bitmap_or_str bitmap = {.kind = BLOCK_DIRTY_BITMAP_OR_STR_KIND_LOCAL};
    struct block_dirty_bitmap_or_str *bitmap_items[] = {&bitmap};
    struct block_dirty_bitmap_or_str_array bitmaps = {.count = 1, .items = bitmap_items};
    struct block_export_options options = {
        .type = BLOCK_EXPORT_TYPE_NBD,
        .id = (char *)name,
        .node_name = arg->device,
        .has_writable = arg->has_writable,
        .writable = arg->writable,
    };

    options.u.nbd.name = (char *)name;
    options.u.nbd.description = arg->description;
    bitmap.u.local = arg->bitmap;
    if (arg->bitmap)
        options.u.nbd.bitmaps = &bitmaps;
    return co_export_add(daemon->exports, &options, err);
}

bool CO_FN co_qmp_nbd_server_remove(struct daemon *daemon, const struct nbd_server_remove_arg *arg, struct error **err)
{
    return co_export_delete(daemon->exports, arg->name, arg->has_mode ? arg->mode : BLOCK_EXPORT_REMOVE_MODE_SAFE, err);
}
