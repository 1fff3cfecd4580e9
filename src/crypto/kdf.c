/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/kdf.h"

#include <assert.h>
#include <errno.h>
#include <gcrypt.h>

#include "crypto/algorithm.h"
#include "crypto/library.h"
#include "crypto/secure-memory.h"
#include "loop/loop.h"

enum { KEY_BYTES_MAX = 64 };
#define NS_PER_SECOND UINT64_C(1000000000)
#define MEASURE_NS (NS_PER_SECOND / 50)

int kdf_pbkdf2(enum q_crypto_hash_algorithm hash, const uint8_t *passphrase, size_t passphrase_size,
               const uint8_t *salt, size_t salt_size, uint32_t iterations, uint8_t *to, size_t size)
{
    assert(iterations > 0);
    if (!crypto_library_ready(NULL) || !hash_library_id(hash))
        return -ENOTSUP;
    gcry_error_t failure = gcry_kdf_derive(passphrase, passphrase_size, GCRY_KDF_PBKDF2, hash_library_id(hash), salt,
                                           salt_size, iterations, size, to);
    if (!failure)
        return 0;
    return gcry_err_code(failure) == GPG_ERR_ENOMEM ? -ENOMEM : -ENOTSUP;
}

int kdf_iterations_per_second(enum q_crypto_hash_algorithm hash, size_t key_bytes, uint64_t *ret)
{
    static const uint8_t sample[32];
    uint8_t key[KEY_BYTES_MAX];

    assert(key_bytes <= sizeof(key));
    for (uint32_t iterations = KDF_ITERATIONS_MIN;; iterations *= 2) {
        int64_t begin = loop_thread_cpu_ns();
        int result = kdf_pbkdf2(hash, sample, sizeof(sample), sample, sizeof(sample), iterations, key, key_bytes);
        uint64_t took = (uint64_t)(loop_thread_cpu_ns() - begin);

        if (result)
            return result;
        /* A clock that stands still is no reason to go on for ever. */
        if (took >= MEASURE_NS || iterations >= UINT32_MAX / 256) {
            *ret = took ? iterations * NS_PER_SECOND / took : iterations;
            *ret = *ret ? *ret : 1;
            return 0;
        }
    }
}
