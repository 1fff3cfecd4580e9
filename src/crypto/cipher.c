/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/cipher.h"

#include <assert.h>

#include "crypto/sector-cipher.h"

bool cipher_aes256_cbc_decrypt(const uint8_t key[32], const uint8_t iv[16], uint8_t *bytes, size_t size,
                               struct error **err)
{
    struct sector_cipher *cipher =
        sector_cipher_new(Q_CRYPTO_CIPHER_ALGORITHM_AES_256, Q_CRYPTO_CIPHER_MODE_CBC, key, 32, err);

    assert(size % 16 == 0);
    if (!cipher)
        return false;
    sector_cipher_decrypt(cipher, iv, bytes, bytes, size);
    sector_cipher_free(cipher);
    return true;
}
