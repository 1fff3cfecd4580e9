/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd: the export of an NBD server as a node. Options:
 *  - server: where it listens; export: which one (default: the server's default);
 *  - tls-creds, tls-hostname: TLS, and the name that the server's certificate must have (default: the host's);
 *  - reconnect-delay: seconds that requests wait when the connection breaks (default: 0: they fail at once);
 *  - open-timeout: seconds for which connecting is tried at first (default: 0: once); these two can be changed while it
 *    is open;
 *  - x-dirty-bitmap: the metadata context whose status is shown instead of base:allocation.
 *
 * Requests go to the server as they come; see nbd/remote.c for connections. An export whose length is no multiple of
 * 512 bytes is shown with zeroes behind its end, which can be written as such and with nothing else.
 */
#include "driver/protocol/nbd.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/node.h"
#include "driver/protocol/nbd/remote.h"
#include "object/object.h"
#include "object/tls-creds.h"

enum { CONTEXT_VALUE_MAX = NBD_STATE_HOLE | NBD_STATE_ZERO };

/* Of what fits 32 bits, aligned to every block size. */
#define RANGE_BYTES_MAX (UINT64_C(0x100000000) - NBD_MIN_BLOCK_BYTES_MAX)

struct nbd_node {
    struct nbd_remote *remote; /* const after open */
    uint64_t length;           /* const after open; the export's, bytes */
    bool depth_context;        /* const after open; what is shown are numbers, not states */
};

static const struct nbd_export_info *export_info(const struct nbd_node *nbd)
{
    return &nbd_remote_terms(nbd->remote)->info;
}

/* --- opening --- */

static bool check_name(const char *what, const char *text, struct error **err)
{
    return !text || strlen(text) <= NBD_STRING_BYTES_MAX ||
           error_set(err, "%s is %zu bytes long, at most %d are allowed", what, strlen(text), NBD_STRING_BYTES_MAX);
}

static bool hold_creds(struct node *node, const struct blockdev_options_nbd *own, struct nbd_remote_options *to,
                       struct error **err)
{
    if (own->tls_hostname && !own->tls_creds)
        return error_set(err, "tls-hostname is given without tls-creds");
    if (!own->tls_creds)
        return true;
    to->tls_creds = tls_creds_hold(node_objects(node), own->tls_creds, Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT, err);
    to->tls_hostname = own->tls_hostname;
    if (!to->tls_hostname && own->server->type == SOCKET_ADDRESS_TYPE_INET)
        to->tls_hostname = own->server->u.inet.host;
    return to->tls_creds;
}

static bool check_access(struct node *node, const struct nbd_node *nbd, const char *export, struct error **err)
{
    if (!(export_info(nbd)->flags & NBD_FLAG_READ_ONLY) || node_read_only(node))
        return true;
    if (!node_auto_read_only(node))
        return error_set_errno(err, EACCES, "NBD export '%s' is read-only", export);
    node_set_read_only(node, true);
    return true;
}

static void set_flags(struct node *node, uint32_t flags)
{
    unsigned fua = flags & NBD_FLAG_SEND_FUA ? IO_FUA : 0;
    unsigned fast = flags & NBD_FLAG_SEND_FAST_ZERO ? IO_NO_FALLBACK : 0;

    node_set_flags(node, fua, fua | IO_MAY_UNMAP | fast);
    if (flags & NBD_FLAG_SEND_CACHE)
        node_set_read_flags(node, IO_PREFETCH);
}

static bool CO_FN nbd_co_open(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct blockdev_options_nbd *own = &options->u.nbd;
    struct nbd_node *nbd = node_state(node);
    struct nbd_remote_options remote = {
        .server = own->server,
        .export = own->export ? own->export : "",
        .context = own->x_dirty_bitmap ? own->x_dirty_bitmap : "base:allocation",
        .reconnect_delay_s = own->has_reconnect_delay ? own->reconnect_delay : 0,
        .open_timeout_s = own->has_open_timeout ? own->open_timeout : 0,
    };

    if (!check_name("export", own->export, err) || !check_name("x-dirty-bitmap", own->x_dirty_bitmap, err) ||
        !hold_creds(node, own, &remote, err))
        return false;
    nbd->remote = co_nbd_remote_new(&remote, err);
    object_release(remote.tls_creds);
    if (!nbd->remote)
        return false;
    nbd->length = export_info(nbd)->size;
    nbd->depth_context = !strcmp(remote.context, "qemu:allocation-depth");
    if (own->x_dirty_bitmap && !export_info(nbd)->has_context)
        error_set(err, "requested x-dirty-bitmap %s not found", own->x_dirty_bitmap);
    else if (check_access(node, nbd, remote.export, err)) {
        set_flags(node, export_info(nbd)->flags);
        node_set_length(node, nbd->length);
        return true;
    }
    co_nbd_remote_free(nbd->remote);
    return false;
}

static void CO_FN nbd_co_close(struct node *node)
{
    struct nbd_node *nbd = node_state(node);

    co_nbd_remote_free(nbd->remote);
}

static bool CO_FN nbd_co_refresh_limits(struct node *node, struct node_limits *limits, struct error **err)
{
    const struct nbd_node *nbd = node_state(node);
    const struct nbd_export_info *info = export_info(nbd);
    bool extended = nbd_remote_terms(nbd->remote)->mode == NBD_MODE_EXTENDED;

    limits->request_alignment = info->has_block_size ? info->min_block : 1;
    limits->memory_alignment = 1;
    limits->transfer_max = NBD_PAYLOAD_BYTES_MAX;
    if (info->has_block_size) {
        limits->transfer_max = MIN(limits->transfer_max, info->max_block);
        limits->transfer_optimal = MIN(info->preferred_block, limits->transfer_max);
    }
    limits->zeroes_max = extended ? 0 : RANGE_BYTES_MAX;
    limits->discard_max = limits->zeroes_max;
    /* The largest block is for zeroes, too, but not for discards; with extended headers it is for data alone. */
    if (!extended && info->has_block_size)
        limits->zeroes_max = MIN(limits->zeroes_max, align_down(info->max_block, info->min_block));
    limits->zeroes_alignment = limits->request_alignment;
    limits->discard_alignment = limits->request_alignment;
    return true;
}

/* --- requests --- */

/* How much of the range lies in the export itself. */
static uint64_t inside(const struct nbd_node *nbd, uint64_t offset, uint64_t bytes)
{
    return offset >= nbd->length ? 0 : MIN(bytes, nbd->length - offset);
}

static int CO_FN nbd_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                               unsigned flags)
{
    struct nbd_node *nbd = node_state(node);
    uint64_t part = inside(nbd, offset, bytes);
    struct nbd_transfer transfer = {
        .call = {.type = flags & IO_PREFETCH ? NBD_CMD_CACHE : NBD_CMD_READ, .offset = offset, .bytes = part},
        .iov = iov,
    };

    if (!(flags & IO_PREFETCH) && part < bytes)
        io_vector_fill(iov, part, 0, bytes - part);
    return part ? co_nbd_remote_call(nbd->remote, &transfer) : 0;
}

static int CO_FN nbd_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                                unsigned flags)
{
    struct nbd_node *nbd = node_state(node);
    uint64_t part = inside(nbd, offset, bytes);
    struct nbd_transfer transfer = {
        .call = {.type = NBD_CMD_WRITE,
                 .flags = flags & IO_FUA ? NBD_CMD_FLAG_FUA : 0,
                 .offset = offset,
                 .bytes = part},
        .iov = iov,
    };

    if (part < bytes && !io_vector_is_zero(iov, part, bytes - part))
        return -ENOSPC;
    return part ? co_nbd_remote_call(nbd->remote, &transfer) : 0;
}

static int CO_FN nbd_co_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct nbd_node *nbd = node_state(node);
    struct nbd_transfer transfer = {
        .call = {.type = NBD_CMD_WRITE_ZEROES, .offset = offset, .bytes = inside(nbd, offset, bytes)},
    };

    if (!(export_info(nbd)->flags & NBD_FLAG_SEND_WRITE_ZEROES))
        return -ENOTSUP;
    if (flags & IO_FUA)
        transfer.call.flags |= NBD_CMD_FLAG_FUA;
    if (!(flags & IO_MAY_UNMAP))
        transfer.call.flags |= NBD_CMD_FLAG_NO_HOLE;
    if (flags & IO_NO_FALLBACK)
        transfer.call.flags |= NBD_CMD_FLAG_FAST_ZERO;
    return transfer.call.bytes ? co_nbd_remote_call(nbd->remote, &transfer) : 0;
}

static int CO_FN nbd_co_pdiscard(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct nbd_node *nbd = node_state(node);
    struct nbd_transfer transfer = {
        .call = {.type = NBD_CMD_TRIM, .offset = offset, .bytes = inside(nbd, offset, bytes)},
    };

    if (!(export_info(nbd)->flags & NBD_FLAG_SEND_TRIM))
        return -ENOTSUP;
    return transfer.call.bytes ? co_nbd_remote_call(nbd->remote, &transfer) : 0;
}

static int CO_FN nbd_co_flush(struct node *node)
{
    struct nbd_node *nbd = node_state(node);
    struct nbd_transfer transfer = {.call = {.type = NBD_CMD_FLUSH}};

    return export_info(nbd)->flags & NBD_FLAG_SEND_FLUSH ? co_nbd_remote_call(nbd->remote, &transfer) : 0;
}

/* --- what lies where --- */

static unsigned state_flags(const struct nbd_node *nbd, uint64_t value)
{
    /* Depths of 2 and more look alike. */
    if (nbd->depth_context)
        value = MIN(value, 2);
    value &= CONTEXT_VALUE_MAX;
    return (value & NBD_STATE_HOLE ? 0 : BLOCK_DATA) | (value & NBD_STATE_ZERO ? BLOCK_ZERO : 0);
}

static int CO_FN co_ask_status(struct nbd_node *nbd, uint64_t offset, uint64_t bytes, struct block_extent *ret)
{
    uint32_t block = export_info(nbd)->has_block_size ? export_info(nbd)->min_block : 1;
    struct nbd_transfer transfer = {
        .call = {.type = NBD_CMD_BLOCK_STATUS, .flags = NBD_CMD_FLAG_REQ_ONE, .offset = offset, .bytes = bytes},
    };
    int ret_call;

    if (nbd_remote_terms(nbd->remote)->mode != NBD_MODE_EXTENDED)
        transfer.call.bytes = MIN(bytes, RANGE_BYTES_MAX);
    ret_call = co_nbd_remote_call(nbd->remote, &transfer);
    if (ret_call < 0)
        return ret_call;
    ret->bytes = MIN(transfer.extent.bytes, transfer.call.bytes);
    ret->flags |= state_flags(nbd, transfer.extent.flags);
    /* A server that has smaller extents than blocks: the block has data. */
    if (ret->bytes < transfer.call.bytes && !is_aligned(ret->bytes, block)) {
        ret->bytes = align_down(ret->bytes, block);
        if (!ret->bytes) {
            ret->bytes = MIN(block, transfer.call.bytes);
            ret->flags = (ret->flags & ~(unsigned)BLOCK_ZERO) | BLOCK_DATA;
        }
    }
    return 0;
}

static int CO_FN nbd_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                     struct block_extent *ret)
{
    struct nbd_node *nbd = node_state(node);
    uint64_t part = inside(nbd, offset, bytes);

    *ret = (struct block_extent){
        .bytes = part, .flags = BLOCK_ALLOCATED | BLOCK_OFFSET_VALID, .host_offset = offset, .host = node};
    if (!part) {
        ret->bytes = bytes;
        ret->flags |= BLOCK_ZERO;
        return 0;
    }
    if (!export_info(nbd)->has_context || !want_zero) {
        ret->flags |= BLOCK_DATA;
        return 0;
    }
    return co_ask_status(nbd, offset, part, ret);
}

/* --- the rest --- */

static int CO_FN nbd_co_truncate(struct node *node, const struct truncate_request *request, struct error **err)
{
    struct nbd_node *nbd = node_state(node);

    if (request->exact && request->length != nbd->length) {
        error_set(err, "Cannot resize NBD nodes");
        return -ENOTSUP;
    }
    if (request->length > nbd->length) {
        error_set(err, "Cannot grow NBD nodes");
        return -EINVAL;
    }
    return 0;
}

static int64_t CO_FN nbd_co_length(struct node *node)
{
    return (int64_t)((struct nbd_node *)node_state(node))->length;
}

static int64_t CO_FN nbd_co_allocated_size(struct node *node)
{
    return -ENOTSUP;
}

static char *nbd_filename(const struct node *node)
{
    const struct blockdev_options_nbd *own = &node_options(node)->u.nbd;
    const struct socket_address *server = own->server;
    g_autofree char *export = own->export ? g_uri_escape_string(own->export, "/", TRUE) : g_strdup("");
    const char *slash = *export ? "/" : "";

    if (own->tls_creds || own->x_dirty_bitmap)
        return NULL;
    if (server->type == SOCKET_ADDRESS_TYPE_UNIX && !(server->u.unix_.has_abstract && server->u.unix_.abstract)) {
        g_autofree char *path = g_uri_escape_string(server->u.unix_.path, "/", TRUE);

        return g_strdup_printf("nbd+unix://%s%s?socket=%s", slash, export, path);
    }
    if (server->type == SOCKET_ADDRESS_TYPE_INET) {
        bool colons = strchr(server->u.inet.host, ':');

        return g_strdup_printf("nbd://%s%s%s:%s%s%s", colons ? "[" : "", server->u.inet.host, colons ? "]" : "",
                               server->u.inet.port, slash, export);
    }
    return NULL;
}

/* --- other options --- */

static const char *const nbd_reopen_options[] = {"reconnect-delay", "open-timeout", NULL};

static bool CO_FN nbd_co_reopen_prepare(struct node *node, const struct blockdev_options *options, struct error **err)
{
    const struct nbd_node *nbd = node_state(node);

    return check_access(node, nbd, options->u.nbd.export ? options->u.nbd.export : "", err);
}

static void CO_FN nbd_co_reopen_commit(struct node *node)
{
    struct nbd_node *nbd = node_state(node);
    const struct blockdev_options_nbd *own = &node_options(node)->u.nbd;

    nbd_remote_set_reconnect_delay(nbd->remote, own->has_reconnect_delay ? own->reconnect_delay : 0);
}

static void CO_FN nbd_co_reopen_abort(struct node *node)
{
    /* Nothing has changed. */
}

static const struct block_driver_reopen nbd_reopen = {
    .options = nbd_reopen_options,
    .co_prepare = nbd_co_reopen_prepare,
    .co_commit = nbd_co_reopen_commit,
    .co_abort = nbd_co_reopen_abort,
};

static const char *const nbd_significant_options[] = {"server",       "export",         "tls-creds",
                                                      "tls-hostname", "x-dirty-bitmap", NULL};

static void nbd_drain_begin(struct node *node)
{
    nbd_remote_hurry(((struct nbd_node *)node_state(node))->remote, true);
}

static void nbd_drain_end(struct node *node)
{
    nbd_remote_hurry(((struct nbd_node *)node_state(node))->remote, false);
}

static const struct block_driver_drain nbd_drain = {
    .begin = nbd_drain_begin,
    .end = nbd_drain_end,
};

const struct block_driver nbd_driver = {
    .name = "nbd",
    .kind = BLOCK_DRIVER_PROTOCOL,
    .state_size = sizeof(struct nbd_node),
    .co_open = nbd_co_open,
    .co_close = nbd_co_close,
    .co_preadv = nbd_co_preadv,
    .co_pwritev = nbd_co_pwritev,
    .co_pwrite_zeroes = nbd_co_pwrite_zeroes,
    .co_pdiscard = nbd_co_pdiscard,
    .co_flush = nbd_co_flush,
    .co_block_status = nbd_co_block_status,
    .co_truncate = nbd_co_truncate,
    .co_length = nbd_co_length,
    .co_allocated_size = nbd_co_allocated_size,
    .co_refresh_limits = nbd_co_refresh_limits,
    .filename = nbd_filename,
    .significant_options = nbd_significant_options,
    .drain = &nbd_drain,
    .reopen = &nbd_reopen,
};
