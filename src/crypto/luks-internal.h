/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What luks.c has for luks-amend.c. */
#pragma once

#include "crypto/luks.h"

/* The slot's master key as from co_luks_unlock(); NULL: another passphrase (*ret 0), or -errno in *ret. */
uint8_t *CO_FN co_luks_try_slot(const struct luks_io *io, const struct luks_header *header, unsigned index,
                                struct luks_passphrase passphrase, int *ret);

/* Puts the key into the slot: key material to the disk, the rest to `header`, which is yet to be written. */
bool CO_FN co_luks_fill_slot(const struct luks_io *io, struct luks_header *header, unsigned index, const uint8_t *key,
                             struct luks_passphrase passphrase, int64_t iter_time_ms, struct error **err) MUST_CHECK;

/* Puts into the slot `to` what the active slot `from` has: likewise. */
bool CO_FN co_luks_copy_slot(const struct luks_io *io, struct luks_header *header, unsigned from, unsigned to,
                             struct error **err) MUST_CHECK;

/* Overwrites the slot's key material on the disk, and empties it in `header`. */
bool CO_FN co_luks_wipe_slot(const struct luks_io *io, struct luks_header *header, unsigned index,
                             struct error **err) MUST_CHECK;

bool CO_FN co_luks_store(const struct luks_io *io, const struct luks_header *header, struct error **err) MUST_CHECK;
