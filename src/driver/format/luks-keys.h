/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Passphrases of secret objects for LUKS headers: what the luks driver and encrypted qcow2 images share. Main loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "crypto/luks.h"
#include "gen/types.h"

struct block_crypt;
struct error;
struct object_registry;

/* The passphrase that a secret holds; freed by luks_secret_free(). */
struct luks_secret {
    uint8_t *bytes; /* NULL: none */
    size_t size;
};

/* `id` NULL: "Parameter '`parameter`' is required for cipher". */
bool luks_secret_get(struct object_registry *objects, const char *id, const char *parameter, struct luks_secret *ret,
                     struct error **err) MUST_CHECK;
void luks_secret_free(struct luks_secret *secret);

/* The cipher of the volume whose header has been loaded, with the key that the secret `id` unlocks; owned. */
struct block_crypt *CO_FN co_luks_open_crypt(const struct luks_io *io, const struct luks_header *header,
                                             struct object_registry *objects, const char *id, const char *parameter,
                                             struct error **err) MUST_CHECK;

/* A header as `options` say, with defaults for what they leave out. Without keys. */
bool luks_header_from_options(const struct q_crypto_block_create_options_luks *options, bool detached,
                              struct luks_header *ret, struct error **err) MUST_CHECK;

/* Makes what luks_header_from_options() has laid out, unlocked by the options' secret. */
bool CO_FN co_luks_format_by_options(const struct luks_io *io, struct luks_header *header,
                                     const struct q_crypto_block_create_options_luks *options,
                                     struct object_registry *objects, const char *parameter,
                                     struct error **err) MUST_CHECK;

/*
 * Changes key slots. `opened_with`: id of the secret with which the volume is open, for where the options name no other
 * one; may be NULL. `header` is read anew first, and is as it stands on disk afterwards. One change at a time.
 */
bool CO_FN co_luks_amend_by_options(const struct luks_io *io, struct luks_header *header,
                                    const struct q_crypto_block_amend_options_luks *options,
                                    struct object_registry *objects, const char *opened_with, bool force,
                                    struct error **err) MUST_CHECK;
