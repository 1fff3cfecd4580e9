/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/cipher.h"

#include <assert.h>
#include <gcrypt.h>

#include "base/error.h"
#include "crypto/library.h"

bool cipher_aes256_cbc_decrypt(const uint8_t key[32], const uint8_t iv[16], uint8_t *bytes, size_t size,
                               struct error **err)
{
    gcry_cipher_hd_t handle;

    assert(size % 16 == 0);
    if (!crypto_library_ready(err))
        return false;
    gcry_error_t failure = gcry_cipher_open(&handle, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CBC, 0);
    if (failure)
        return error_set(err, "AES-256 is not to be had: %s", gcry_strerror(failure));
    failure = gcry_cipher_setkey(handle, key, 32);
    if (!failure)
        failure = gcry_cipher_setiv(handle, iv, 16);
    if (!failure && size)
        failure = gcry_cipher_decrypt(handle, bytes, size, NULL, 0);
    gcry_cipher_close(handle);
    return !failure || error_set(err, "Decryption failed: %s", gcry_strerror(failure));
}
