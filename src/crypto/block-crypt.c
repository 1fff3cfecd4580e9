/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encryption of a disk, over libgcrypt.
 *
 * The library's cipher handles keep an initialization vector and so serve one thread at a time: a `context` is a set of
 * them. Each loop has one that only its thread uses, found by the loop's index without any lock; other threads borrow
 * from a list. Contexts are made when first needed, and the key stays in secure memory for that.
 *
 * Keeps: (1) the context of a loop is used by that loop's thread only, and never across a suspension; (2) the key and
 * all contexts lie in secure memory (library.c), and are wiped as they go.
 */
#include "crypto/block-crypt.h"

#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "crypto/algorithm.h"
#include "crypto/library.h"
#include "crypto/secure-memory.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { VECTOR_BYTES_MAX = 16, KEY_BYTES_MAX = 64 };

struct crypt_context {
    struct crypt_context *next; /* in the list: block_crypt.spin */
    gcry_cipher_hd_t cipher;
    gcry_cipher_hd_t essiv; /* NULL: not with this scheme */
};

struct block_crypt {
    struct block_crypt_scheme scheme;         /* const */
    const struct cipher_algorithm *algorithm; /* const */
    size_t key_bytes;                         /* const */
    uint8_t *key;                             /* const; secure */
    struct spin_lock spin;                    /* of the next */
    struct crypt_context *idle;
    struct crypt_context *of_loop[LOOP_COUNT_MAX]; /* each: of that loop's thread; NULL: none yet */
};

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

size_t block_crypt_key_bytes(const struct block_crypt_scheme *scheme)
{
    size_t key_bytes = cipher_algorithm(scheme->cipher)->key_bytes;

    return scheme->mode == Q_CRYPTO_CIPHER_MODE_XTS ? 2 * key_bytes : key_bytes;
}

/* Essiv encrypts the sector's number under a hash of the key: by the cipher of the same family that has such keys. */
static bool essiv_algorithm(const struct block_crypt_scheme *scheme, const struct cipher_algorithm **ret,
                            struct error **err)
{
    const struct cipher_algorithm *of_data = cipher_algorithm(scheme->cipher);
    size_t key_bytes = hash_bytes(scheme->ivgen_hash);
    enum q_crypto_cipher_algorithm found;

    if (!cipher_algorithm_find(of_data->disk_name, key_bytes, &found))
        return error_set(err, "No %s cipher with key size %zu available", of_data->title, key_bytes);
    *ret = cipher_algorithm(found);
    return true;
}

bool block_crypt_scheme_check(const struct block_crypt_scheme *scheme, struct error **err)
{
    const struct cipher_algorithm *algorithm = cipher_algorithm(scheme->cipher);
    const struct cipher_algorithm *of_essiv;

    if (!crypto_library_ready(err))
        return false;
    if (!algorithm->library_id || gcry_cipher_test_algo(algorithm->library_id))
        return error_set(err, "Algorithm '%s' not supported", q_crypto_cipher_algorithm_name(scheme->cipher));
    if (scheme->mode == Q_CRYPTO_CIPHER_MODE_XTS && algorithm->block_bytes != 16)
        return error_set(err, "Unsupported cipher mode xts: it needs blocks of 16 bytes, and those of '%s' have %u",
                         q_crypto_cipher_algorithm_name(scheme->cipher), algorithm->block_bytes);
    if (scheme->ivgen != Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV)
        return true;
    if (!hash_library_id(scheme->ivgen_hash) || gcry_md_test_algo(hash_library_id(scheme->ivgen_hash)))
        return error_set(err, "Hash algorithm '%s' not supported", q_crypto_hash_algorithm_name(scheme->ivgen_hash));
    if (!essiv_algorithm(scheme, &of_essiv, err))
        return false;
    if (!of_essiv->library_id || gcry_cipher_test_algo(of_essiv->library_id))
        return error_set(err, "No %s cipher with key size %u available", of_essiv->title, of_essiv->key_bytes);
    return true;
}

static void context_free(struct crypt_context *context)
{
    if (!context)
        return;
    gcry_cipher_close(context->cipher);
    gcry_cipher_close(context->essiv);
    g_free(context);
}
AUTO_DEFINE(crypt_context, struct crypt_context *, context_free)

static gcry_error_t open_cipher(gcry_cipher_hd_t *ret, int algorithm, int mode, const uint8_t *key, size_t key_bytes)
{
    gcry_error_t failure = gcry_cipher_open(ret, algorithm, mode, GCRY_CIPHER_SECURE);

    return failure ? failure : gcry_cipher_setkey(*ret, key, key_bytes);
}

static gcry_error_t open_essiv(struct block_crypt *crypt, gcry_cipher_hd_t *ret)
{
    const struct cipher_algorithm *algorithm;
    uint8_t digest[HASH_BYTES_MAX];

    if (!essiv_algorithm(&crypt->scheme, &algorithm, NULL))
        return gcry_error(GPG_ERR_CIPHER_ALGO);
    hash_digest(crypt->scheme.ivgen_hash, crypt->key, crypt->key_bytes, digest);
    gcry_error_t failure =
        open_cipher(ret, algorithm->library_id, GCRY_CIPHER_MODE_ECB, digest, hash_bytes(crypt->scheme.ivgen_hash));
    secure_memory_wipe(digest, sizeof(digest));
    return failure;
}

static gcry_error_t context_new(struct block_crypt *crypt, struct crypt_context **ret)
{
    AUTO(crypt_context) context = g_new0(struct crypt_context, 1);
    gcry_error_t failure = open_cipher(&context->cipher, crypt->algorithm->library_id, library_mode(crypt->scheme.mode),
                                       crypt->key, crypt->key_bytes);

    if (!failure && crypt->scheme.ivgen == Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV)
        failure = open_essiv(crypt, &context->essiv);
    if (!failure)
        *ret = TAKE(context);
    return failure;
}

static void context_put_idle(struct block_crypt *crypt, struct crypt_context *context)
{
    spin_lock(&crypt->spin);
    context->next = crypt->idle;
    crypt->idle = context;
    spin_unlock(&crypt->spin);
}

/* The calling thread's until context_put(); NULL: no memory. */
static struct crypt_context *context_get(struct block_crypt *crypt)
{
    struct loop *loop = loop_current();
    struct crypt_context *context = NULL;

    if (loop && crypt->of_loop[loop_index(loop)])
        return crypt->of_loop[loop_index(loop)];
    spin_lock(&crypt->spin);
    context = crypt->idle;
    if (context)
        crypt->idle = context->next;
    spin_unlock(&crypt->spin);
    /* The key was good when the first one was made: all that can be missing now is memory. */
    if (!context && context_new(crypt, &context))
        return NULL;
    if (loop)
        crypt->of_loop[loop_index(loop)] = context;
    return context;
}

static void context_put(struct block_crypt *crypt, struct crypt_context *context)
{
    if (!loop_current())
        context_put_idle(crypt, context);
}

struct block_crypt *block_crypt_new(const struct block_crypt_scheme *scheme, const uint8_t *key, struct error **err)
{
    struct crypt_context *context;

    if (!block_crypt_scheme_check(scheme, err))
        return NULL;
    struct block_crypt *crypt = g_new0(struct block_crypt, 1);
    crypt->scheme = *scheme;
    crypt->algorithm = cipher_algorithm(scheme->cipher);
    crypt->key_bytes = block_crypt_key_bytes(scheme);
    assert(crypt->key_bytes <= KEY_BYTES_MAX);
    crypt->key = secure_memory_new(crypt->key_bytes);
    if (!crypt->key) {
        error_set(err, "No memory for a key of %zu bytes", crypt->key_bytes);
        block_crypt_free(crypt);
        return NULL;
    }
    memcpy(crypt->key, key, crypt->key_bytes);
    gcry_error_t failure = context_new(crypt, &context);
    if (failure) {
        error_set(err, "Unable to initialize cipher '%s': %s", q_crypto_cipher_algorithm_name(scheme->cipher),
                  gcry_strerror(failure));
        block_crypt_free(crypt);
        return NULL;
    }
    context_put_idle(crypt, context);
    return crypt;
}

void block_crypt_free(struct block_crypt *crypt)
{
    if (!crypt)
        return;
    for (unsigned i = 0; i < LOOP_COUNT_MAX; i++)
        context_free(crypt->of_loop[i]);
    while (crypt->idle) {
        struct crypt_context *context = crypt->idle;

        crypt->idle = context->next;
        context_free(context);
    }
    secure_memory_free(crypt->key, crypt->key_bytes);
    g_free(crypt);
}

/* Makes the handle ready for the sector with that number. */
static gcry_error_t begin_sector(const struct block_crypt *crypt, struct crypt_context *context, uint64_t sector)
{
    size_t block_bytes = crypt->algorithm->block_bytes;
    uint8_t vector[VECTOR_BYTES_MAX] = {0};
    gcry_error_t failure = 0;

    if (crypt->scheme.mode == Q_CRYPTO_CIPHER_MODE_ECB)
        return 0;
    if (crypt->scheme.ivgen == Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN)
        store_le32(vector, (uint32_t)sector);
    else
        store_le64(vector, sector);
    if (context->essiv)
        failure = gcry_cipher_encrypt(context->essiv, vector, block_bytes, NULL, 0);
    if (failure)
        return failure;
    if (crypt->scheme.mode == Q_CRYPTO_CIPHER_MODE_CTR)
        return gcry_cipher_setctr(context->cipher, vector, block_bytes);
    return gcry_cipher_setiv(context->cipher, vector, block_bytes);
}

/* `from` may be `to`. */
static void crypt_sectors(const struct block_crypt *crypt, struct crypt_context *context, bool encrypt, uint64_t offset,
                          const uint8_t *from, uint8_t *to, size_t size)
{
    for (size_t done = 0; done < size; done += BLOCK_CRYPT_SECTOR) {
        gcry_error_t failure = begin_sector(crypt, context, (offset + done) / BLOCK_CRYPT_SECTOR);
        /* With NULL the library works in place. */
        const uint8_t *in = from == to ? NULL : from + done;
        size_t in_size = in ? BLOCK_CRYPT_SECTOR : 0;

        assert(!failure);
        if (encrypt)
            failure = gcry_cipher_encrypt(context->cipher, to + done, BLOCK_CRYPT_SECTOR, in, in_size);
        else
            failure = gcry_cipher_decrypt(context->cipher, to + done, BLOCK_CRYPT_SECTOR, in, in_size);
        /* The sizes are right and the key is set, so there is nothing that could fail. */
        assert(!failure);
    }
}

static int crypt_flat(struct block_crypt *crypt, bool encrypt, uint64_t offset, const uint8_t *from, uint8_t *to,
                      size_t size)
{
    assert(is_aligned(offset, BLOCK_CRYPT_SECTOR));
    assert(is_aligned(size, BLOCK_CRYPT_SECTOR));
    struct crypt_context *context = context_get(crypt);
    if (!context)
        return -ENOMEM;
    crypt_sectors(crypt, context, encrypt, offset, from, to, size);
    context_put(crypt, context);
    return 0;
}

int block_crypt_encrypt(struct block_crypt *crypt, uint64_t offset, const uint8_t *from, uint8_t *to, size_t size)
{
    return crypt_flat(crypt, true, offset, from, to, size);
}

int block_crypt_decrypt(struct block_crypt *crypt, uint64_t offset, const uint8_t *from, uint8_t *to, size_t size)
{
    return crypt_flat(crypt, false, offset, from, to, size);
}

/* A request, or what a worker shall do of it. */
struct crypt_job {
    struct block_crypt *crypt;
    bool encrypt;
    uint64_t offset;
    const struct io_vector *vector;
    size_t skip;         /* bytes of the vector before it begins */
    const uint8_t *from; /* decrypting; NULL: in place */
    uint8_t *to;         /* encrypting */
    size_t size;
};

/* `size` bytes of plain memory of the vector, `done` bytes into the job. */
static void job_flat_part(const struct crypt_job *job, struct crypt_context *context, uint8_t *memory, size_t done,
                          size_t size)
{
    const uint8_t *from = memory;
    uint8_t *to = memory;

    if (job->encrypt)
        to = job->to + done;
    else if (job->from)
        from = job->from + done;
    crypt_sectors(job->crypt, context, job->encrypt, job->offset + done, from, to, size);
}

/* A sector that lies in several segments. */
static void job_split_sector(const struct crypt_job *job, struct crypt_context *context, size_t done)
{
    uint8_t sector[BLOCK_CRYPT_SECTOR];
    const uint8_t *from = sector;

    if (job->encrypt || !job->from)
        io_vector_read(job->vector, job->skip + done, sector, sizeof(sector));
    else
        from = job->from + done;
    crypt_sectors(job->crypt, context, job->encrypt, job->offset + done, from, job->encrypt ? job->to + done : sector,
                  sizeof(sector));
    if (!job->encrypt)
        io_vector_write(job->vector, job->skip + done, sector, sizeof(sector));
    secure_memory_wipe(sector, sizeof(sector));
}

static int job_run(void *opaque)
{
    const struct crypt_job *job = opaque;
    const struct iovec *segment = job->vector->segments;
    size_t skip = job->skip;
    size_t done = 0;
    struct crypt_context *context = context_get(job->crypt);

    if (!context)
        return -ENOMEM;
    while (done < job->size) {
        while (skip >= segment->iov_len)
            skip -= (segment++)->iov_len;
        size_t here = segment->iov_len - skip;
        size_t flat = align_down(here < job->size - done ? here : job->size - done, BLOCK_CRYPT_SECTOR);

        if (flat) {
            job_flat_part(job, context, (uint8_t *)segment->iov_base + skip, done, flat);
        } else {
            flat = BLOCK_CRYPT_SECTOR;
            job_split_sector(job, context, done);
        }
        done += flat;
        skip += flat;
    }
    context_put(job->crypt, context);
    return 0;
}

static int CO_FN co_job_run(struct crypt_job *job)
{
    assert(is_aligned(job->offset, BLOCK_CRYPT_SECTOR));
    assert(is_aligned(job->size, BLOCK_CRYPT_SECTOR));
    assert(range_fits(job->skip, job->size, job->vector->size));
    if (job->size < job->crypt->algorithm->slow_bytes)
        return job_run(job);
    return co_worker_run(job_run, job);
}

int CO_FN co_block_crypt_encrypt(struct block_crypt *crypt, uint64_t offset, const struct io_vector *from, size_t skip,
                                 uint8_t *to, size_t size)
{
    struct crypt_job job = {
        .crypt = crypt, .encrypt = true, .offset = offset, .vector = from, .skip = skip, .to = to, .size = size};

    return co_job_run(&job);
}

int CO_FN co_block_crypt_decrypt(struct block_crypt *crypt, uint64_t offset, const uint8_t *from,
                                 const struct io_vector *to, size_t skip, size_t size)
{
    struct crypt_job job = {.crypt = crypt, .offset = offset, .vector = to, .skip = skip, .from = from, .size = size};

    return co_job_run(&job);
}
