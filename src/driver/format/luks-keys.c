/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/format/luks-keys.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "crypto/block-crypt.h"
#include "crypto/secure-memory.h"
#include "object/secret.h"

bool luks_secret_get(struct object_registry *objects, const char *id, const char *parameter, struct luks_secret *ret,
                     struct error **err)
{
    if (!id)
        return error_set(err, "Parameter '%s' is required for cipher", parameter);
    return secret_get(objects, id, &ret->bytes, &ret->size, err);
}

void luks_secret_free(struct luks_secret *secret)
{
    secret_free(secret->bytes, secret->size);
    *secret = (struct luks_secret){0};
}

static struct luks_passphrase passphrase_of(const struct luks_secret *secret)
{
    return (struct luks_passphrase){.bytes = secret->bytes, .size = secret->size};
}

struct block_crypt *CO_FN co_luks_open_crypt(const struct luks_io *io, const struct luks_header *header,
                                             struct object_registry *objects, const char *id, const char *parameter,
                                             struct error **err)
{
    struct luks_secret secret = {0};
    struct block_crypt *crypt = NULL;

    if (!luks_secret_get(objects, id, parameter, &secret, err))
        return NULL;
    uint8_t *key = co_luks_unlock(io, header, passphrase_of(&secret), err);
    luks_secret_free(&secret);
    if (key)
        crypt = block_crypt_new(&header->scheme, key, err);
    secure_memory_free(key, LUKS_KEY_BYTES_MAX);
    return crypt;
}

bool luks_header_from_options(const struct q_crypto_block_create_options_luks *options, bool detached,
                              struct luks_header *ret, struct error **err)
{
    struct block_crypt_scheme scheme = {
        .cipher = options->has_cipher_alg ? options->cipher_alg : Q_CRYPTO_CIPHER_ALGORITHM_AES_256,
        .mode = options->has_cipher_mode ? options->cipher_mode : Q_CRYPTO_CIPHER_MODE_XTS,
        .ivgen = options->has_ivgen_alg ? options->ivgen_alg : Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64,
        .ivgen_hash = options->has_ivgen_hash_alg ? options->ivgen_hash_alg : Q_CRYPTO_HASH_ALGORITHM_SHA256,
    };
    enum q_crypto_hash_algorithm hash = options->has_hash_alg ? options->hash_alg : Q_CRYPTO_HASH_ALGORITHM_SHA256;

    if (!luks_header_make(&scheme, hash, detached, ret, err))
        return false;
    /* There are no vectors in this mode. cryptsetup opens volumes that do not speak of any, others want one named. */
    if (scheme.mode == Q_CRYPTO_CIPHER_MODE_ECB && !options->has_ivgen_alg)
        g_strlcpy(ret->cipher_mode, q_crypto_cipher_mode_name(scheme.mode), sizeof(ret->cipher_mode));
    return true;
}

bool CO_FN co_luks_format_by_options(const struct luks_io *io, struct luks_header *header,
                                     const struct q_crypto_block_create_options_luks *options,
                                     struct object_registry *objects, const char *parameter, struct error **err)
{
    struct luks_secret secret = {0};

    if (!luks_secret_get(objects, options->key_secret, parameter, &secret, err))
        return false;
    uint8_t *key = co_luks_format(io, header, passphrase_of(&secret),
                                  options->has_iter_time ? options->iter_time : LUKS_ITER_TIME_MS, err);
    luks_secret_free(&secret);
    secure_memory_free(key, LUKS_KEY_BYTES_MAX);
    return key != NULL;
}

/* What a change needs of passphrases. */
struct amend_secrets {
    struct luks_secret unlock;
    struct luks_secret add;
    struct luks_secret match;
};

static bool get_secrets(struct amend_secrets *secrets, const struct q_crypto_block_amend_options_luks *options,
                        struct object_registry *objects, const char *opened_with, struct error **err)
{
    if (options->old_secret && !luks_secret_get(objects, options->old_secret, "old-secret", &secrets->match, err))
        return false;
    if (options->state != Q_CRYPTO_BLOCK_LUKS_KEYSLOT_STATE_ACTIVE)
        return true;
    return luks_secret_get(objects, options->new_secret, "new-secret", &secrets->add, err) &&
           luks_secret_get(objects, options->secret ? options->secret : opened_with, "secret", &secrets->unlock, err);
}

bool CO_FN co_luks_amend_by_options(const struct luks_io *io, struct luks_header *header,
                                    const struct q_crypto_block_amend_options_luks *options,
                                    struct object_registry *objects, const char *opened_with, bool force,
                                    struct error **err)
{
    struct amend_secrets secrets = {0};
    struct luks_amend amend = {.options = options, .force = force};

    /* Somebody else may have changed it since. */
    if (!co_luks_load(io, header, err) || !luks_amend_check(header, options, force, err))
        return false;
    bool ok = get_secrets(&secrets, options, objects, opened_with, err);
    amend.unlock = passphrase_of(&secrets.unlock);
    amend.add = passphrase_of(&secrets.add);
    amend.match = passphrase_of(&secrets.match);
    ok = ok && co_luks_amend(io, header, &amend, err);
    luks_secret_free(&secrets.unlock);
    luks_secret_free(&secrets.add);
    luks_secret_free(&secrets.match);
    /* What fails halfway must not be taken for what is on disk. */
    if (!ok)
        (void)!co_luks_load(io, header, NULL);
    return ok;
}
