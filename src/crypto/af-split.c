/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/af-split.h"

#include <assert.h>
#include <gcrypt.h>
#include <string.h>

#include "base/bytes.h"
#include "crypto/algorithm.h"
#include "crypto/secure-memory.h"
#include "loop/loop.h"

enum { KEY_BYTES_MAX = 64 };

static void xor_bytes(uint8_t *to, const uint8_t *with, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to[i] ^= with[i];
}

/* Replaces each piece as long as a digest by the digest of its number and itself; the last one may be shorter. */
static void diffuse(enum q_crypto_hash_algorithm hash, uint8_t *block, size_t size)
{
    size_t piece = hash_bytes(hash);
    uint8_t input[4 + HASH_BYTES_MAX];
    uint8_t digest[HASH_BYTES_MAX];

    for (size_t at = 0; at < size; at += piece) {
        size_t here = size - at < piece ? size - at : piece;

        store_be32(input, (uint32_t)(at / piece));
        memcpy(input + 4, block + at, here);
        hash_digest(hash, input, 4 + here, digest);
        memcpy(block + at, digest, here);
    }
    secure_memory_wipe(input, sizeof(input));
    secure_memory_wipe(digest, sizeof(digest));
}

/* What all stripes but the last come to. */
static void chain(enum q_crypto_hash_algorithm hash, const uint8_t *split, size_t key_bytes, uint32_t stripes,
                  uint8_t *sum)
{
    assert(stripes > 0);
    assert(key_bytes <= KEY_BYTES_MAX);
    memset(sum, 0, key_bytes);
    for (uint32_t i = 0; i + 1 < stripes; i++) {
        xor_bytes(sum, split + (size_t)i * key_bytes, key_bytes);
        diffuse(hash, sum, key_bytes);
    }
}

void af_split(enum q_crypto_hash_algorithm hash, const uint8_t *key, size_t key_bytes, uint32_t stripes, uint8_t *split)
{
    uint8_t *last = split + (size_t)(stripes - 1) * key_bytes;
    uint8_t sum[KEY_BYTES_MAX];

    loop_random_bytes(split, (size_t)(stripes - 1) * key_bytes);
    chain(hash, split, key_bytes, stripes, sum);
    memcpy(last, key, key_bytes);
    xor_bytes(last, sum, key_bytes);
    secure_memory_wipe(sum, sizeof(sum));
}

void af_merge(enum q_crypto_hash_algorithm hash, const uint8_t *split, size_t key_bytes, uint32_t stripes, uint8_t *key)
{
    chain(hash, split, key_bytes, stripes, key);
    xor_bytes(key, split + (size_t)(stripes - 1) * key_bytes, key_bytes);
}
