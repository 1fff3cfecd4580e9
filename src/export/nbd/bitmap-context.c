/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps as metadata contexts. An export takes its bitmaps for as long as it is there: they are busy, so nobody
 * else changes them under its clients.
 */
#include <assert.h>

#include "base/error.h"
#include "block/dirty-bitmap-action.h"
#include "block/dirty-bitmap.h"
#include "block/handle.h"
#include "block/node.h"
#include "export/export.h"
#include "export/nbd/nbd.h"
#include "gen/types.h"

static struct dirty_bitmap *find(struct nbd_export *nbd, const struct block_dirty_bitmap_or_str *wanted,
                                 struct error **err)
{
    struct dirty_bitmap *bitmap;
    struct node *node;

    if (wanted->kind == BLOCK_DIRTY_BITMAP_OR_STR_KIND_EXTERNAL)
        return dirty_bitmap_lookup(export_graph(nbd->export), wanted->u.external->node, wanted->u.external->name, err);
    bitmap = dirty_bitmap_find_below(handle_node(nbd->handle), wanted->u.local);
    if (!bitmap) {
        error_set(err, "Bitmap '%s' is not found", wanted->u.local);
        return NULL;
    }
    /* Clients of a read-only export expect that what they are told stays. */
    node = dirty_bitmap_node(bitmap);
    if (!nbd->writable && dirty_bitmap_enabled(bitmap) && !node_read_only(node)) {
        error_set(err, "Enabled bitmap '%s' incompatible with readonly export", wanted->u.local);
        return NULL;
    }
    return bitmap;
}

static bool take(struct nbd_export *nbd, struct dirty_bitmap *bitmap, struct error **err)
{
    g_autofree char *user = g_strdup_printf("block export '%s'", export_id(nbd->export));
    g_autofree char *context = g_strconcat("qemu:dirty-bitmap:", dirty_bitmap_name(bitmap), NULL);

    for (unsigned i = 0; i < nbd->context_count; i++) {
        if (!strcmp(nbd->contexts[i].name, context))
            return error_set(err, "Bitmap '%s' is named twice: clients could not tell which is meant",
                             dirty_bitmap_name(bitmap));
    }
    if (nbd->context_count == NBD_CONTEXTS_MAX)
        return error_set(err, "Too many bitmaps: an export has at most %d metadata contexts", NBD_CONTEXTS_MAX);
    if (!dirty_bitmap_check(bitmap, DIRTY_BITMAP_ALLOW_READ_ONLY, err))
        return false;
    dirty_bitmap_set_busy(bitmap, user);
    nbd->contexts[nbd->context_count++] = (struct nbd_context){
        .kind = NBD_CONTEXT_DIRTY_BITMAP, .name = TAKE(context), .bitmap = dirty_bitmap_ref(bitmap)};
    return true;
}

bool nbd_export_take_bitmaps(struct nbd_export *nbd, const struct block_dirty_bitmap_or_str_array *wanted,
                             struct error **err)
{
    for (size_t i = 0; wanted && i < wanted->count; i++) {
        struct dirty_bitmap *bitmap = find(nbd, wanted->items[i], err);

        if (!bitmap || !take(nbd, bitmap, err))
            return false;
    }
    return true;
}

void nbd_bitmap_run(const struct nbd_context *context, uint64_t offset, uint64_t bytes, uint64_t *ret_bytes,
                    uint32_t *ret_status)
{
    uint64_t end = offset + bytes;
    uint64_t dirty = dirty_bitmap_next_dirty(context->bitmap, offset, end);

    assert(bytes);
    if (dirty > offset) {
        *ret_bytes = dirty - offset;
        *ret_status = 0;
        return;
    }
    /* Another loop may have cleared it since; the byte that was seen dirty is said to be. */
    *ret_bytes = MAX(dirty_bitmap_next_clean(context->bitmap, offset, end) - offset, 1);
    *ret_status = NBD_STATE_DIRTY;
}
