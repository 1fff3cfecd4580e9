/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes to the key slots of LUKS1 volumes. Programs match on the messages: they are those that users know. */
#include <assert.h>
#include <glib.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "crypto/luks-internal.h"
#include "crypto/secure-memory.h"

static unsigned active_slots(const struct luks_header *header)
{
    unsigned count = 0;

    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        count += header->slots[i].active;
    return count;
}

/* LUKS_SLOTS: there is none. */
static unsigned free_slot(const struct luks_header *header)
{
    unsigned index = 0;

    while (index < LUKS_SLOTS && header->slots[index].active)
        index++;
    return index;
}

static bool check_activate(const struct luks_header *header, const struct q_crypto_block_amend_options_luks *options,
                           bool force, struct error **err)
{
    if (!options->new_secret)
        return error_set(err, "'new-secret' is required to activate a keyslot");
    if (options->old_secret)
        return error_set(err, "'old-secret' must not be given when activating keyslots");
    if (!options->has_keyslot)
        return free_slot(header) < LUKS_SLOTS || error_set(err, "Can't add a keyslot - all keyslots are in use");
    if (header->slots[options->keyslot].active && !force)
        return error_set(err, "Refusing to overwrite active keyslot %" PRId64 " - please erase it first",
                         options->keyslot);
    return true;
}

static bool check_erase(const struct luks_header *header, const struct q_crypto_block_amend_options_luks *options,
                        bool force, struct error **err)
{
    if (options->new_secret)
        return error_set(err, "'new-secret' must not be given when erasing keyslots");
    if (options->has_iter_time)
        return error_set(err, "'iter-time' must not be given when erasing keyslots");
    if (!options->has_keyslot)
        return options->old_secret || error_set(err, "To erase keyslot(s), either explicit keyslot index or the "
                                                     "password currently contained in them must be given");
    if (!header->slots[options->keyslot].active && !options->old_secret)
        return error_set(err, "Given keyslot %" PRId64 " is already erased (inactive) ", options->keyslot);
    if (active_slots(header) == 1 && !force && !options->old_secret)
        return error_set(err,
                         "Attempt to erase the only active keyslot %" PRId64 " which will erase all the data in the "
                         "image irreversibly - refusing operation",
                         options->keyslot);
    return true;
}

bool luks_amend_check(const struct luks_header *header, const struct q_crypto_block_amend_options_luks *options,
                      bool force, struct error **err)
{
    bool activate = options->state == Q_CRYPTO_BLOCK_LUKS_KEYSLOT_STATE_ACTIVE;

    if (options->has_keyslot && (options->keyslot < 0 || options->keyslot >= LUKS_SLOTS))
        return error_set(err, "Invalid keyslot %" PRId64 " specified, must be between 0 and %d", options->keyslot,
                         LUKS_SLOTS - 1);
    return activate ? check_activate(header, options, force, err) : check_erase(header, options, force, err);
}

static bool CO_FN co_add(const struct luks_io *io, struct luks_header *header, unsigned index, const uint8_t *key,
                         const struct luks_amend *amend, struct error **err)
{
    const struct q_crypto_block_amend_options_luks *options = amend->options;
    int64_t iter_time_ms = options->has_iter_time ? options->iter_time : LUKS_ITER_TIME_MS;

    return co_luks_fill_slot(io, header, index, key, amend->add, iter_time_ms, err) && co_luks_store(io, header, err);
}

static bool CO_FN co_remove(const struct luks_io *io, struct luks_header *header, unsigned index, struct error **err)
{
    return co_luks_wipe_slot(io, header, index, err) && co_luks_store(io, header, err);
}

/*
 * The new passphrase is to be good for opening the volume before the old one in that slot is lost, which may be the
 * only one: it goes to a spare slot first. Where none is free, there are others that open the volume.
 */
static bool CO_FN co_overwrite(const struct luks_io *io, struct luks_header *header, unsigned index, const uint8_t *key,
                               const struct luks_amend *amend, struct error **err)
{
    unsigned spare = free_slot(header);

    assert(header->slots[index].active);
    assert(amend->force);
    if (spare == LUKS_SLOTS)
        return co_remove(io, header, index, err) && co_add(io, header, index, key, amend, err);
    return co_add(io, header, spare, key, amend, err) && co_remove(io, header, index, err) &&
           co_luks_copy_slot(io, header, spare, index, err) && co_luks_store(io, header, err) &&
           co_remove(io, header, spare, err);
}

static bool CO_FN co_activate(const struct luks_io *io, struct luks_header *header, const struct luks_amend *amend,
                              struct error **err)
{
    const struct q_crypto_block_amend_options_luks *options = amend->options;
    unsigned index = options->has_keyslot ? (unsigned)options->keyslot : free_slot(header);

    assert(index < LUKS_SLOTS);
    uint8_t *key = co_luks_unlock(io, header, amend->unlock, err);
    if (!key)
        return false;
    bool ok = header->slots[index].active ? co_overwrite(io, header, index, key, amend, err)
                                          : co_add(io, header, index, key, amend, err);
    secure_memory_free(key, LUKS_KEY_BYTES_MAX);
    return ok;
}

/* Bits of the active slots that the passphrase opens, of those in `among`. */
static bool CO_FN co_match_slots(const struct luks_io *io, const struct luks_header *header,
                                 struct luks_passphrase passphrase, unsigned among, unsigned *ret, struct error **err)
{
    unsigned found = 0;

    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        int result;

        if (!header->slots[i].active || !(among & 1u << i))
            continue;
        uint8_t *key = co_luks_try_slot(io, header, i, passphrase, &result);
        if (result)
            return error_set_errno(err, result, "Failed to read key material of keyslot %u", i);
        found |= (unsigned)!!key << i;
        secure_memory_free(key, LUKS_KEY_BYTES_MAX);
    }
    *ret = found;
    return true;
}

static bool CO_FN co_select_for_erasing(const struct luks_io *io, const struct luks_header *header,
                                        const struct luks_amend *amend, unsigned *ret, struct error **err)
{
    const struct q_crypto_block_amend_options_luks *options = amend->options;
    unsigned among = options->has_keyslot ? 1u << options->keyslot : (1u << LUKS_SLOTS) - 1;
    unsigned active = active_slots(header);

    *ret = among;
    if (!options->old_secret)
        return true;
    if (!co_match_slots(io, header, amend->match, among, ret, err))
        return false;
    if (options->has_keyslot && !*ret)
        return error_set(err, "Given keyslot %" PRId64 " doesn't contain the given old password for erase operation",
                         options->keyslot);
    if (!*ret)
        return error_set(err, "No keyslots match given (old) password for erase operation");
    if (amend->force || (unsigned)__builtin_popcount(*ret) < active)
        return true;
    if (options->has_keyslot)
        return error_set(err,
                         "Attempt to erase the only active keyslot %" PRId64 " which will erase all the data in the "
                         "image irreversibly - refusing operation",
                         options->keyslot);
    return error_set(err, "All the active keyslots match the (old) password that was given and erasing them will erase "
                          "all the data in the image irreversibly - refusing operation");
}

static bool CO_FN co_erase(const struct luks_io *io, struct luks_header *header, const struct luks_amend *amend,
                           struct error **err)
{
    unsigned selected = 0;

    if (!co_select_for_erasing(io, header, amend, &selected, err))
        return false;
    assert(selected);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        if ((selected & 1u << i) && !co_remove(io, header, i, err))
            return false;
    }
    return true;
}

bool CO_FN co_luks_amend(const struct luks_io *io, struct luks_header *header, const struct luks_amend *amend,
                         struct error **err)
{
    if (!luks_amend_check(header, amend->options, amend->force, err))
        return false;
    if (amend->options->state == Q_CRYPTO_BLOCK_LUKS_KEYSLOT_STATE_ACTIVE)
        return co_activate(io, header, amend, err);
    return co_erase(io, header, amend, err);
}
