/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/algorithm.h"

#include <assert.h>
#include <gcrypt.h>
#include <string.h>

enum { KIB = 1024 };

#define ALGORITHM(family, name, id, key, block, slow)                                                                  \
    {                                                                                                                  \
        .disk_name = family, .title = name, .library_id = id, .key_bytes = key, .block_bytes = block,                  \
        .slow_bytes = slow                                                                                             \
    }

static const struct cipher_algorithm ciphers[Q_CRYPTO_CIPHER_ALGORITHM__MAX] = {
    [Q_CRYPTO_CIPHER_ALGORITHM_AES_128] = ALGORITHM("aes", "AES", GCRY_CIPHER_AES128, 16, 16, 128 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_AES_192] = ALGORITHM("aes", "AES", GCRY_CIPHER_AES192, 24, 16, 128 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_AES_256] = ALGORITHM("aes", "AES", GCRY_CIPHER_AES256, 32, 16, 128 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_DES] = ALGORITHM("des", "DES", GCRY_CIPHER_DES, 8, 8, 4 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_3DES] = ALGORITHM("des3_ede", "3DES", GCRY_CIPHER_3DES, 24, 8, 2 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_CAST5_128] = ALGORITHM("cast5", "CAST5", GCRY_CIPHER_CAST5, 16, 8, 16 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_128] = ALGORITHM("serpent", "Serpent", GCRY_CIPHER_SERPENT128, 16, 16, 32 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_192] = ALGORITHM("serpent", "Serpent", GCRY_CIPHER_SERPENT192, 24, 16, 32 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_256] = ALGORITHM("serpent", "Serpent", GCRY_CIPHER_SERPENT256, 32, 16, 32 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_128] = ALGORITHM("twofish", "Twofish", GCRY_CIPHER_TWOFISH128, 16, 16, 16 * KIB),
    /* Not in that library. */
    [Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_192] = ALGORITHM("twofish", "Twofish", 0, 24, 16, 16 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_256] = ALGORITHM("twofish", "Twofish", GCRY_CIPHER_TWOFISH, 32, 16, 16 * KIB),
    [Q_CRYPTO_CIPHER_ALGORITHM_SM4] = ALGORITHM("sm4", "SM4", GCRY_CIPHER_SM4, 16, 16, 16 * KIB),
};

static const struct {
    int library_id;
    uint8_t bytes;
} hashes[Q_CRYPTO_HASH_ALGORITHM__MAX] = {
    [Q_CRYPTO_HASH_ALGORITHM_MD5] = {GCRY_MD_MD5, 16},          [Q_CRYPTO_HASH_ALGORITHM_SHA1] = {GCRY_MD_SHA1, 20},
    [Q_CRYPTO_HASH_ALGORITHM_SHA224] = {GCRY_MD_SHA224, 28},    [Q_CRYPTO_HASH_ALGORITHM_SHA256] = {GCRY_MD_SHA256, 32},
    [Q_CRYPTO_HASH_ALGORITHM_SHA384] = {GCRY_MD_SHA384, 48},    [Q_CRYPTO_HASH_ALGORITHM_SHA512] = {GCRY_MD_SHA512, 64},
    [Q_CRYPTO_HASH_ALGORITHM_RIPEMD160] = {GCRY_MD_RMD160, 20}, [Q_CRYPTO_HASH_ALGORITHM_SM3] = {GCRY_MD_SM3, 32},
};

const struct cipher_algorithm *cipher_algorithm(enum q_crypto_cipher_algorithm cipher)
{
    assert(cipher < Q_CRYPTO_CIPHER_ALGORITHM__MAX);
    return &ciphers[cipher];
}

bool cipher_algorithm_find(const char *disk_name, size_t key_bytes, enum q_crypto_cipher_algorithm *ret)
{
    for (unsigned i = 0; i < Q_CRYPTO_CIPHER_ALGORITHM__MAX; i++) {
        if (!strcmp(ciphers[i].disk_name, disk_name) && ciphers[i].key_bytes == key_bytes) {
            *ret = (enum q_crypto_cipher_algorithm)i;
            return true;
        }
    }
    return false;
}

bool cipher_algorithm_known(const char *disk_name)
{
    for (unsigned i = 0; i < Q_CRYPTO_CIPHER_ALGORITHM__MAX; i++) {
        if (!strcmp(ciphers[i].disk_name, disk_name))
            return true;
    }
    return false;
}

size_t hash_bytes(enum q_crypto_hash_algorithm hash)
{
    assert(hash < Q_CRYPTO_HASH_ALGORITHM__MAX);
    return hashes[hash].bytes;
}

int hash_library_id(enum q_crypto_hash_algorithm hash)
{
    assert(hash < Q_CRYPTO_HASH_ALGORITHM__MAX);
    return hashes[hash].library_id;
}

bool hash_available(enum q_crypto_hash_algorithm hash)
{
    return hash_library_id(hash) && !gcry_md_test_algo(hash_library_id(hash));
}

bool hash_find(const char *name, enum q_crypto_hash_algorithm *ret)
{
    int value = q_crypto_hash_algorithm_value(name);

    if (value < 0)
        return false;
    *ret = (enum q_crypto_hash_algorithm)value;
    return true;
}

void hash_digest(enum q_crypto_hash_algorithm hash, const void *from, size_t size, uint8_t *ret_digest)
{
    assert(gcry_md_get_algo_dlen(hash_library_id(hash)) == hash_bytes(hash));
    gcry_md_hash_buffer(hash_library_id(hash), ret_digest, from, size);
}
