/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the module cipher-nettle has: Twofish with a key of 192 bits, which libgcrypt lacks, in all modes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "crypto/module.h"
#include "gen/types.h"

struct error;

struct cipher_message {
    enum q_crypto_cipher_mode mode;
    bool encrypt;
    const uint8_t *vector; /* a block; ecb: not looked at */
    const uint8_t *from;
    uint8_t *to; /* may be `from` */
    size_t size; /* whole blocks */
};

struct cipher_engine {
    struct module_head head;
    size_t schedule_bytes; /* what set_key() makes of a key takes that much memory */
    void (*set_key)(void *schedule, const uint8_t *key);
    /* `tweak_schedule`: for xts, made of the second half of its key. */
    void (*crypt)(const void *schedule, const void *tweak_schedule, const struct cipher_message *message);
};

/* The table of the module, which is loaded the first time. NULL and the error: it is not there. Any thread. */
const struct cipher_engine *cipher_engine_get(struct error **err) MUST_CHECK;
