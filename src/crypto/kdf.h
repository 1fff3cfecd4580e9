/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys from passphrases: PBKDF2 (RFC 8018). These functions compute for long: they are for worker threads. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

enum { KDF_ITERATIONS_MIN = 1000 }; /* of what we make: less protects nothing */

/* All borrowed. */
struct kdf_request {
    enum q_crypto_hash_algorithm hash;
    const uint8_t *passphrase;
    size_t passphrase_size;
    const uint8_t *salt;
    size_t salt_size;
    uint32_t iterations; /* at least 1 */
    /* Asked every few milliseconds, on the same thread, whether to give up; NULL: never. */
    bool (*stop)(const void *opaque);
    const void *opaque;
};

/* 0, or -ENOMEM, -ENOTSUP (no such hash in this build), -ECANCELED: `stop` said so, and `to` has nothing of use. */
int kdf_pbkdf2(const struct kdf_request *request, uint8_t *to, size_t size) MUST_CHECK;

/*
 * How many iterations this machine does in a second of processor time for a key of `key_bytes`: at least 1. Takes as
 * long as what is to be computed later (`time_ms`), and no more than some tens of milliseconds. Result as above.
 */
int kdf_iterations_per_second(enum q_crypto_hash_algorithm hash, size_t key_bytes, uint64_t time_ms,
                              uint64_t *ret) MUST_CHECK;
