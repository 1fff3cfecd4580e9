/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/sector-cipher.h"

#include <assert.h>
#include <gcrypt.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "crypto/algorithm.h"
#include "crypto/cipher-engine.h"
#include "crypto/library.h"
#include "crypto/secure-memory.h"

struct sector_cipher {
    enum q_crypto_cipher_mode mode;
    size_t block_bytes;
    gcry_cipher_hd_t handle;            /* NULL: */
    const struct cipher_engine *engine; /* this one does it */
    uint8_t *schedules;                 /* the engine's: two, the second is of the tweak; secure */
};

const struct cipher_engine *cipher_engine_get(struct error **err)
{
    const struct module_head *head = module_table("cipher-nettle", "ashlar_cipher_nettle", "libnettle8", err);

    return head ? container_of(head, struct cipher_engine, head) : NULL;
}

static int library_mode(enum q_crypto_cipher_mode mode)
{
    switch (mode) {
    case Q_CRYPTO_CIPHER_MODE_ECB:
        return GCRY_CIPHER_MODE_ECB;
    case Q_CRYPTO_CIPHER_MODE_CBC:
        return GCRY_CIPHER_MODE_CBC;
    case Q_CRYPTO_CIPHER_MODE_XTS:
        return GCRY_CIPHER_MODE_XTS;
    default:
        assert(mode == Q_CRYPTO_CIPHER_MODE_CTR);
        return GCRY_CIPHER_MODE_CTR;
    }
}

bool sector_cipher_check(enum q_crypto_cipher_algorithm cipher, struct error **err)
{
    const char *name = q_crypto_cipher_algorithm_name(cipher);
    int library_id = cipher_algorithm(cipher)->library_id;

    if (!crypto_library_ready(err))
        return false;
    if (library_id)
        return !gcry_cipher_test_algo(library_id) || error_set(err, "Algorithm '%s' not supported", name);
    return cipher_engine_get(err) || error_prefix(err, "Algorithm '%s' not supported: ", name);
}

void sector_cipher_free(struct sector_cipher *cipher)
{
    if (!cipher)
        return;
    gcry_cipher_close(cipher->handle);
    if (cipher->engine)
        secure_memory_free(cipher->schedules, 2 * cipher->engine->schedule_bytes);
    g_free(cipher);
}
AUTO_DEFINE(sector_cipher, struct sector_cipher *, sector_cipher_free)

static bool open_handle(struct sector_cipher *cipher, int library_id, const uint8_t *key, size_t key_bytes,
                        struct error **err)
{
    gcry_error_t failure =
        gcry_cipher_open(&cipher->handle, library_id, library_mode(cipher->mode), GCRY_CIPHER_SECURE);

    if (!failure)
        failure = gcry_cipher_setkey(cipher->handle, key, key_bytes);
    return !failure || error_set(err, "%s", gcry_strerror(failure));
}

static bool make_schedules(struct sector_cipher *cipher, const uint8_t *key, size_t key_bytes, struct error **err)
{
    const struct cipher_engine *engine = cipher_engine_get(err);

    if (!engine)
        return false;
    cipher->engine = engine;
    cipher->schedules = secure_memory_new(2 * engine->schedule_bytes);
    if (!cipher->schedules)
        return error_set(err, "No memory for what its key comes to");
    engine->set_key(cipher->schedules, key);
    if (cipher->mode == Q_CRYPTO_CIPHER_MODE_XTS)
        engine->set_key(cipher->schedules + engine->schedule_bytes, key + key_bytes / 2);
    return true;
}

struct sector_cipher *sector_cipher_new(enum q_crypto_cipher_algorithm algorithm, enum q_crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_bytes, struct error **err)
{
    AUTO(sector_cipher) cipher = g_new0(struct sector_cipher, 1);
    int library_id = cipher_algorithm(algorithm)->library_id;

    assert(key_bytes == cipher_algorithm(algorithm)->key_bytes * (mode == Q_CRYPTO_CIPHER_MODE_XTS ? 2u : 1u));
    if (!crypto_library_ready(err))
        return NULL;
    cipher->mode = mode;
    cipher->block_bytes = cipher_algorithm(algorithm)->block_bytes;
    if (library_id ? open_handle(cipher, library_id, key, key_bytes, err) : make_schedules(cipher, key, key_bytes, err))
        return TAKE(cipher);
    error_prefix(err, "Unable to initialize cipher '%s': ", q_crypto_cipher_algorithm_name(algorithm));
    return NULL;
}

/* Makes the library's handle ready for a message. */
static gcry_error_t begin_message(struct sector_cipher *cipher, const uint8_t *vector)
{
    if (cipher->mode == Q_CRYPTO_CIPHER_MODE_ECB)
        return 0;
    if (cipher->mode == Q_CRYPTO_CIPHER_MODE_CTR)
        return gcry_cipher_setctr(cipher->handle, vector, cipher->block_bytes);
    return gcry_cipher_setiv(cipher->handle, vector, cipher->block_bytes);
}

static void crypt_message(struct sector_cipher *cipher, bool encrypt, const uint8_t *vector, const uint8_t *from,
                          uint8_t *to, size_t size)
{
    const struct cipher_message message = {
        .mode = cipher->mode, .encrypt = encrypt, .vector = vector, .from = from, .to = to, .size = size};
    const struct cipher_engine *engine = cipher->engine;

    assert(size % cipher->block_bytes == 0);
    if (engine) {
        engine->crypt(cipher->schedules, cipher->schedules + engine->schedule_bytes, &message);
        return;
    }
    gcry_error_t failure = begin_message(cipher, vector);
    /* With NULL the library works in place. */
    const uint8_t *in = from == to ? NULL : from;
    if (!failure && encrypt)
        failure = gcry_cipher_encrypt(cipher->handle, to, size, in, in ? size : 0);
    else if (!failure)
        failure = gcry_cipher_decrypt(cipher->handle, to, size, in, in ? size : 0);
    /* The sizes are right and the key is set, so there is nothing that could fail. */
    assert(!failure);
}

void sector_cipher_encrypt(struct sector_cipher *cipher, const uint8_t *vector, const uint8_t *from, uint8_t *to,
                           size_t size)
{
    crypt_message(cipher, true, vector, from, to, size);
}

void sector_cipher_decrypt(struct sector_cipher *cipher, const uint8_t *vector, const uint8_t *from, uint8_t *to,
                           size_t size)
{
    crypt_message(cipher, false, vector, from, to, size);
}
