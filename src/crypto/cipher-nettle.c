/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The module cipher-nettle. */
#include <assert.h>
#include <nettle/cbc.h>
#include <nettle/ctr.h>
#include <nettle/twofish.h>
#include <nettle/xts.h>
#include <string.h>

#include "crypto/cipher-engine.h"

static void nettle_set_key(void *schedule, const uint8_t *key)
{
    twofish192_set_key(schedule, key);
}

/* The library's modes take any cipher, by a function of this type. */
static void encrypt_blocks(const void *schedule, size_t size, uint8_t *to, const uint8_t *from)
{
    twofish_encrypt(schedule, size, to, from);
}

static void decrypt_blocks(const void *schedule, size_t size, uint8_t *to, const uint8_t *from)
{
    twofish_decrypt(schedule, size, to, from);
}

static void nettle_encrypt(const void *schedule, const void *tweak_schedule, const struct cipher_message *message,
                           uint8_t *vector)
{
    switch (message->mode) {
    case Q_CRYPTO_CIPHER_MODE_CBC:
        cbc_encrypt(schedule, encrypt_blocks, TWOFISH_BLOCK_SIZE, vector, message->size, message->to, message->from);
        break;
    case Q_CRYPTO_CIPHER_MODE_XTS:
        xts_encrypt_message(schedule, tweak_schedule, encrypt_blocks, vector, message->size, message->to,
                            message->from);
        break;
    default:
        assert(message->mode == Q_CRYPTO_CIPHER_MODE_ECB);
        encrypt_blocks(schedule, message->size, message->to, message->from);
    }
}

static void nettle_decrypt(const void *schedule, const void *tweak_schedule, const struct cipher_message *message,
                           uint8_t *vector)
{
    switch (message->mode) {
    case Q_CRYPTO_CIPHER_MODE_CBC:
        cbc_decrypt(schedule, decrypt_blocks, TWOFISH_BLOCK_SIZE, vector, message->size, message->to, message->from);
        break;
    case Q_CRYPTO_CIPHER_MODE_XTS:
        xts_decrypt_message(schedule, tweak_schedule, decrypt_blocks, encrypt_blocks, vector, message->size,
                            message->to, message->from);
        break;
    default:
        assert(message->mode == Q_CRYPTO_CIPHER_MODE_ECB);
        decrypt_blocks(schedule, message->size, message->to, message->from);
    }
}

static void nettle_crypt(const void *schedule, const void *tweak_schedule, const struct cipher_message *message)
{
    uint8_t vector[TWOFISH_BLOCK_SIZE] = {0}; /* the library counts on in it */

    assert(message->size % TWOFISH_BLOCK_SIZE == 0);
    if (message->mode != Q_CRYPTO_CIPHER_MODE_ECB)
        memcpy(vector, message->vector, sizeof(vector));
    if (message->mode == Q_CRYPTO_CIPHER_MODE_CTR)
        ctr_crypt(schedule, encrypt_blocks, TWOFISH_BLOCK_SIZE, vector, message->size, message->to, message->from);
    else if (message->encrypt)
        nettle_encrypt(schedule, tweak_schedule, message, vector);
    else
        nettle_decrypt(schedule, tweak_schedule, message, vector);
}

extern const struct cipher_engine ashlar_cipher_nettle;
const struct cipher_engine ashlar_cipher_nettle = {
    .head = {.version = ASHLAR_VERSION},
    .schedule_bytes = sizeof(struct twofish_ctx),
    .set_key = nettle_set_key,
    .crypt = nettle_crypt,
};
