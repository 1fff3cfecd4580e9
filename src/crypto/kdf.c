/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/kdf.h"

#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "base/bytes.h"
#include "base/units.h"
#include "crypto/algorithm.h"
#include "crypto/library.h"
#include "crypto/secure-memory.h"
#include "loop/loop.h"

enum { KEY_BYTES_MAX = 64, STOP_ITERATIONS = 4096 };
#define MEASURE_MS_MAX 20

static int failure_of(gcry_error_t failure)
{
    return gcry_err_code(failure) == GPG_ERR_ENOMEM ? -ENOMEM : -ENOTSUP;
}

/* HMAC of `first` and then of `counter` (NULL: nothing) under the key that `mac` has. */
static void mac_of(gcry_md_hd_t mac, const uint8_t *first, size_t size, const uint8_t counter[4], uint8_t *to,
                   size_t digest_bytes)
{
    gcry_md_reset(mac);
    gcry_md_write(mac, first, size);
    if (counter)
        gcry_md_write(mac, counter, 4);
    memcpy(to, gcry_md_read(mac, 0), digest_bytes);
}

/* One block of the key, of `digest_bytes`: the exclusive or of all iterations (RFC 8018, 5.2). */
static int derive_block(gcry_md_hd_t mac, size_t digest_bytes, const struct kdf_request *request, uint32_t index,
                        uint8_t *block)
{
    uint8_t counter[4], last[HASH_BYTES_MAX];
    int result = 0;

    store_be32(counter, index);
    mac_of(mac, request->salt, request->salt_size, counter, last, digest_bytes);
    memcpy(block, last, digest_bytes);
    for (uint32_t i = 1; i < request->iterations && !result; i++) {
        mac_of(mac, last, digest_bytes, NULL, last, digest_bytes);
        for (size_t j = 0; j < digest_bytes; j++)
            block[j] ^= last[j];
        if (i % STOP_ITERATIONS == 0 && request->stop && request->stop(request->opaque))
            result = -ECANCELED;
    }
    secure_memory_wipe(last, sizeof(last));
    return result;
}

int kdf_pbkdf2(const struct kdf_request *request, uint8_t *to, size_t size)
{
    size_t digest_bytes = hash_bytes(request->hash);
    uint8_t block[HASH_BYTES_MAX];
    gcry_md_hd_t mac;
    int result = 0;

    assert(request->iterations > 0);
    if (!crypto_library_ready(NULL) || !hash_library_id(request->hash))
        return -ENOTSUP;
    /* Its secure memory would be locked and unlocked anew for each iteration; the library wipes what it had, too. */
    gcry_error_t failure = gcry_md_open(&mac, hash_library_id(request->hash), GCRY_MD_FLAG_HMAC);
    if (failure)
        return failure_of(failure);
    failure = gcry_md_setkey(mac, request->passphrase, request->passphrase_size);
    result = failure ? failure_of(failure) : 0;
    for (uint32_t index = 1; size && !result; index++) {
        size_t bytes = MIN(size, digest_bytes);

        result = derive_block(mac, digest_bytes, request, index, block);
        memcpy(to, block, bytes);
        to += bytes;
        size -= bytes;
    }
    gcry_md_close(mac);
    secure_memory_wipe(block, sizeof(block));
    return result;
}

int kdf_iterations_per_second(enum q_crypto_hash_algorithm hash, size_t key_bytes, uint64_t time_ms, uint64_t *ret)
{
    static const uint8_t sample[32];
    uint8_t key[KEY_BYTES_MAX];
    uint64_t enough_ns = MIN(time_ms, MEASURE_MS_MAX) * (NS_PER_S / 1000);

    assert(key_bytes <= sizeof(key));
    for (uint32_t iterations = KDF_ITERATIONS_MIN;; iterations *= 2) {
        int64_t begin = loop_thread_cpu_ns();
        const struct kdf_request request = {
            .hash = hash,
            .passphrase = sample,
            .passphrase_size = sizeof(sample),
            .salt = sample,
            .salt_size = sizeof(sample),
            .iterations = iterations,
        };
        int result = kdf_pbkdf2(&request, key, key_bytes);
        uint64_t took = (uint64_t)(loop_thread_cpu_ns() - begin);

        if (result)
            return result;
        /* A clock that stands still is no reason to go on for ever. */
        if (took >= enough_ns || iterations >= UINT32_MAX / 256) {
            *ret = took ? iterations * NS_PER_S / took : iterations;
            *ret = *ret ? *ret : 1;
            return 0;
        }
    }
}
