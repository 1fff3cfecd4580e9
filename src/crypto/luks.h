/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS1 volumes: unlocking, making, and changing who can unlock. What takes long runs on worker threads. Keys and
 * passphrases lie in secure memory; no message has any of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "crypto/luks-header.h"

struct error;

/*
 * Where a header and its key material lie: a file of their own, the start of a volume, a part of a qcow2 image. Offsets
 * count from the header's first byte. The functions return 0 or -errno, and read zeroes beyond the end.
 */
struct luks_io {
    int (*co_read)(void *opaque, uint64_t offset, void *to, size_t size);
    int (*co_write)(void *opaque, uint64_t offset, const void *from, size_t size);
    int (*co_flush)(void *opaque);
    void *opaque;
    bool detached; /* the payload lies elsewhere */
};

/* Borrowed. */
struct luks_passphrase {
    const uint8_t *bytes;
    size_t size;
};

enum { LUKS_ITER_TIME_MS = 2000 }; /* where nobody says */

bool CO_FN co_luks_load(const struct luks_io *io, struct luks_header *ret, struct error **err) MUST_CHECK;

/*
 * The master key, `header->key_bytes` of it in LUKS_KEY_BYTES_MAX of secure memory, to be freed as such. Tries the
 * active slots in turn. NULL: "Invalid password, cannot unlock any keyslot", or it cannot be read.
 */
uint8_t *CO_FN co_luks_unlock(const struct luks_io *io, const struct luks_header *header,
                              struct luks_passphrase passphrase, struct error **err) MUST_CHECK;

/*
 * Completes a header of luks_header_make() with a new master key, which `passphrase` unlocks in slot 0, and writes it.
 * Clearing the space up to luks_header_end() before is up to the caller. The master key as above.
 */
uint8_t *CO_FN co_luks_format(const struct luks_io *io, struct luks_header *header, struct luks_passphrase passphrase,
                              int64_t iter_time_ms, struct error **err) MUST_CHECK;

/*
 * Changes key slots and writes the header; `header` is as it then stands. `bytes` of a passphrase NULL: not given.
 * Unless `force`, neither the last active slot goes nor an active one is overwritten.
 */
struct luks_amend {
    const struct q_crypto_block_amend_options_luks *options;
    struct luks_passphrase unlock; /* for adding: opens it now */
    struct luks_passphrase add;    /* new-secret */
    struct luks_passphrase match;  /* old-secret */
    bool force;
};
bool CO_FN co_luks_amend(const struct luks_io *io, struct luks_header *header, const struct luks_amend *amend,
                         struct error **err) MUST_CHECK;

/* Whether the options go together, before any passphrase is asked for. */
bool luks_amend_check(const struct luks_header *header, const struct q_crypto_block_amend_options_luks *options,
                      bool force, struct error **err) MUST_CHECK;
