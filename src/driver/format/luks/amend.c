/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the key slots of a volume in use. */
#include "base/cleanup.h"
#include "base/error.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/format/luks-keys.h"
#include "driver/format/luks/luks.h"
#include "schema/json.h"

static bool CO_FN co_amend(struct node *node, const struct q_crypto_block_amend_options_luks *options, bool force,
                           struct error **err)
{
    struct luks_node *luks = node_state(node);
    struct luks_io io = luks_node_io(luks);
    /* Writing to the header: the data stays what it is. */
    struct handle_options writing = {
        .name = "amend", .perm = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED, .shared = PERM_ALL};
    struct handle *handle = co_handle_new(node, &writing, err);

    if (!handle)
        return false;
    co_mutex_lock(&luks->amending);
    bool ok = co_luks_amend_by_options(&io, &luks->header, options, node_objects(node),
                                       node_options(node)->u.luks.key_secret, force, err);
    co_mutex_unlock(&luks->amending);
    co_handle_free(handle);
    return ok;
}

bool CO_FN luks_co_amend(struct node *node, const struct blockdev_amend_options *all, bool force, struct error **err)
{
    const struct blockdev_amend_options_luks *own = &all->u.luks;
    struct q_crypto_block_amend_options_luks options = {
        .state = own->state,
        .new_secret = own->new_secret,
        .old_secret = own->old_secret,
        .has_iter_time = own->has_iter_time,
        .iter_time = own->iter_time,
        .has_keyslot = own->has_keyslot,
        .keyslot = own->keyslot,
        .secret = own->secret,
    };

    return co_amend(node, &options, force, err);
}

bool CO_FN luks_co_amend_image(struct node *node, const struct json *json, bool force, struct image_progress *progress,
                               struct error **err)
{
    AUTO(q_crypto_block_amend_options_luks) options = q_crypto_block_amend_options_luks_parse_keyval(json, err);

    (void)progress;
    return options && co_amend(node, options, force, err);
}
