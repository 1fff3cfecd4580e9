/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The "nbd" export: a name at the NBD server under which clients find a node. */
#include "export/export.h"

#include <assert.h>

#include "base/checked.h"
#include "base/error.h"
#include "block/dirty-bitmap.h"
#include "block/handle.h"
#include "export/nbd/nbd.h"
#include "export/nbd/server.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

enum { PREFERRED_BLOCK_BYTES = 4096 };

uint32_t nbd_export_flags(const struct nbd_export *export, enum nbd_mode mode)
{
    uint32_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;

    if (export->writable)
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    else
        flags |= NBD_FLAG_READ_ONLY;
    /* All connections share one handle and all caches below it, so a flush on any of them covers the writes of all. */
    if (export->server->connections_max != 1)
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    if (mode >= NBD_MODE_STRUCTURED)
        flags |= NBD_FLAG_SEND_DF;
    if (mode >= NBD_MODE_EXTENDED)
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    return flags;
}

uint32_t nbd_export_min_block(const struct nbd_export *export)
{
    uint32_t alignment = handle_limits(export->handle)->request_alignment;

    return alignment && alignment <= NBD_MIN_BLOCK_BYTES_MAX ? alignment : 1;
}

uint32_t nbd_export_preferred_block(const struct nbd_export *export)
{
    const struct node_limits *limits = handle_limits(export->handle);
    uint32_t preferred = MAX(PREFERRED_BLOCK_BYTES, nbd_export_min_block(export));

    if (is_power_of_two(limits->transfer_optimal) && limits->transfer_optimal <= NBD_PAYLOAD_BYTES_MAX)
        preferred = MAX(preferred, limits->transfer_optimal);
    return preferred;
}

struct loop *nbd_export_pick_loop(struct nbd_export *export)
{
    unsigned count;
    struct loop *const *loops = export_loops(export->export, &count);

    return loops[export->next_loop++ % count];
}

static bool check_text(const char *what, const char *text, struct error **err)
{
    g_autofree char *short_text = NULL;

    if (!text || strlen(text) <= NBD_STRING_BYTES_MAX)
        return true;
    short_text = nbd_name_shorten(text, strlen(text));
    return error_set(err, "%s '%s' too long: %zu bytes, at most %d are allowed", what, short_text, strlen(text),
                     NBD_STRING_BYTES_MAX);
}

static void add_context(struct nbd_export *nbd, enum nbd_context_kind kind, const char *name)
{
    assert(nbd->context_count < NBD_CONTEXTS_MAX);
    nbd->contexts[nbd->context_count++] = (struct nbd_context){.kind = kind, .name = g_strdup(name)};
}

static void drop_contexts(struct nbd_export *nbd)
{
    for (unsigned i = 0; i < nbd->context_count; i++) {
        struct nbd_context *context = &nbd->contexts[i];

        if (context->bitmap)
            dirty_bitmap_set_busy(context->bitmap, NULL);
        dirty_bitmap_unref(context->bitmap);
        g_free(context->name);
    }
    nbd->context_count = 0;
}

static bool CO_FN co_start(struct export *export, const struct block_export_options *options, struct error **err)
{
    struct nbd_export *nbd = export_state(export);
    const struct block_export_options_nbd *own = &options->u.nbd;
    const char *name = own->name ? own->name : options->node_name;

    nbd->export = export;
    nbd->server = export_nbd_server(export);
    if (!nbd->server)
        return error_set(err, "NBD server not running");
    if (!check_text("export name", name, err) || !check_text("description", own->description, err))
        return false;
    if (nbd_server_find_export(nbd->server, name, strlen(name)))
        return error_set(err, "NBD server already has export named '%s'", name);
    nbd->handle = export_handle(export);
    nbd->writable = options->has_writable && options->writable;
    add_context(nbd, NBD_CONTEXT_ALLOCATION, "base:allocation");
    if (own->has_allocation_depth && own->allocation_depth)
        add_context(nbd, NBD_CONTEXT_ALLOCATION_DEPTH, "qemu:allocation-depth");
    if (!nbd_export_take_bitmaps(nbd, own->bitmaps, err)) {
        drop_contexts(nbd);
        return false;
    }
    nbd->serial = ++nbd->server->next_serial;
    nbd->name = g_strdup(name);
    nbd->short_name = nbd_name_shorten(name, strlen(name));
    nbd->description = g_strdup(own->description);
    nbd->clients = g_ptr_array_new();
    g_ptr_array_add(nbd->server->exports, nbd);
    return true;
}

static bool in_use(struct export *export)
{
    struct nbd_export *nbd = export_state(export);

    return nbd->clients->len;
}

static void CO_FN co_stop(struct export *export)
{
    struct nbd_export *nbd = export_state(export);

    /* From now on nobody finds it; then those go who have. */
    g_ptr_array_remove(nbd->server->exports, nbd);
    for (unsigned i = 0; i < nbd->clients->len; i++)
        nbd_client_drop(g_ptr_array_index(nbd->clients, i));
    while (nbd->clients->len) {
        co_handle_drain(nbd->handle);
        co_nbd_wait_for_client(&nbd->idle);
    }
    co_condition_done(&nbd->idle);
    drop_contexts(nbd);
    g_ptr_array_unref(nbd->clients);
    g_free(nbd->name);
    g_free(nbd->short_name);
    g_free(nbd->description);
}

const struct export_driver nbd_export_driver = {
    .type = BLOCK_EXPORT_TYPE_NBD,
    .state_size = sizeof(struct nbd_export),
    .co_start = co_start,
    .in_use = in_use,
    .co_stop = co_stop,
};
