/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encryption of a disk.
 *
 * Ciphers (sector-cipher.h) serve one thread at a time: a `context` is a set of them. Each loop has one that only its
 * thread uses, found by the loop's index without any lock; other threads borrow from a list. Contexts are made when
 * first needed, and the key stays in secure memory for that.
 *
 * Keeps: (1) the context of a loop is used by that loop's thread only, and never across a suspension; (2) the key and
 * all contexts' ciphers lie in secure memory, and are wiped as they go.
 */
#include "crypto/block-crypt.h"

#include <assert.h>
#include <errno.h>
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
#include "crypto/sector-cipher.h"
#include "crypto/secure-memory.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum { VECTOR_BYTES_MAX = 16, KEY_BYTES_MAX = 64 };

struct crypt_context {
    struct crypt_context *next; /* in the list: block_crypt.spin */
    struct sector_cipher *cipher;
    struct sector_cipher *essiv; /* NULL: not with this scheme */
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

size_t block_crypt_key_bytes(const struct block_crypt_scheme *scheme)
{
    size_t key_bytes = cipher_algorithm(scheme->cipher)->key_bytes;

    return scheme->mode == Q_CRYPTO_CIPHER_MODE_XTS ? 2 * key_bytes : key_bytes;
}

/* Essiv encrypts the sector's number under a hash of the key: by the cipher of the same family that has such keys. */
static bool essiv_cipher(const struct block_crypt_scheme *scheme, enum q_crypto_cipher_algorithm *ret,
                         struct error **err)
{
    const struct cipher_algorithm *of_data = cipher_algorithm(scheme->cipher);
    size_t key_bytes = hash_bytes(scheme->ivgen_hash);

    return cipher_algorithm_find(of_data->disk_name, key_bytes, ret) ||
           error_set(err, "No %s cipher with key size %zu available", of_data->title, key_bytes);
}

static bool check_essiv(const struct block_crypt_scheme *scheme, struct error **err)
{
    enum q_crypto_cipher_algorithm cipher;

    if (!hash_available(scheme->ivgen_hash))
        return error_set(err, "Hash algorithm '%s' not supported", q_crypto_hash_algorithm_name(scheme->ivgen_hash));
    return essiv_cipher(scheme, &cipher, err) && sector_cipher_check(cipher, err);
}

bool block_crypt_scheme_check(const struct block_crypt_scheme *scheme, struct error **err)
{
    const struct cipher_algorithm *algorithm = cipher_algorithm(scheme->cipher);

    if (!sector_cipher_check(scheme->cipher, err))
        return false;
    if (scheme->mode == Q_CRYPTO_CIPHER_MODE_XTS && algorithm->block_bytes != 16)
        return error_set(err, "Unsupported cipher mode xts: it needs blocks of 16 bytes, and those of '%s' have %u",
                         q_crypto_cipher_algorithm_name(scheme->cipher), algorithm->block_bytes);
    return scheme->ivgen != Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV || check_essiv(scheme, err);
}

static void context_free(struct crypt_context *context)
{
    if (!context)
        return;
    sector_cipher_free(context->cipher);
    sector_cipher_free(context->essiv);
    g_free(context);
}
AUTO_DEFINE(crypt_context, struct crypt_context *, context_free)

static bool open_essiv(struct block_crypt *crypt, struct sector_cipher **ret, struct error **err)
{
    enum q_crypto_cipher_algorithm cipher;
    uint8_t digest[HASH_BYTES_MAX];

    if (!essiv_cipher(&crypt->scheme, &cipher, err))
        return false;
    hash_digest(crypt->scheme.ivgen_hash, crypt->key, crypt->key_bytes, digest);
    *ret = sector_cipher_new(cipher, Q_CRYPTO_CIPHER_MODE_ECB, digest, hash_bytes(crypt->scheme.ivgen_hash), err);
    secure_memory_wipe(digest, sizeof(digest));
    return *ret;
}

static struct crypt_context *context_new(struct block_crypt *crypt, struct error **err)
{
    AUTO(crypt_context) context = g_new0(struct crypt_context, 1);

    context->cipher = sector_cipher_new(crypt->scheme.cipher, crypt->scheme.mode, crypt->key, crypt->key_bytes, err);
    if (!context->cipher)
        return NULL;
    if (crypt->scheme.ivgen == Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV && !open_essiv(crypt, &context->essiv, err))
        return NULL;
    return TAKE(context);
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
    if (!context)
        context = context_new(crypt, NULL);
    if (loop && context)
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
    struct crypt_context *context = context_new(crypt, err);
    if (!context) {
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

/* The initialization vector of the sector with that number, a block. */
static void make_vector(const struct block_crypt *crypt, struct crypt_context *context, uint64_t sector,
                        uint8_t vector[VECTOR_BYTES_MAX])
{
    memset(vector, 0, VECTOR_BYTES_MAX);
    if (crypt->scheme.ivgen == Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN)
        store_le32(vector, (uint32_t)sector);
    else
        store_le64(vector, sector);
    if (context->essiv)
        sector_cipher_encrypt(context->essiv, NULL, vector, vector, crypt->algorithm->block_bytes);
}

/* `from` may be `to`. */
static void crypt_sectors(const struct block_crypt *crypt, struct crypt_context *context, bool encrypt, uint64_t offset,
                          const uint8_t *from, uint8_t *to, size_t size)
{
    uint8_t vector[VECTOR_BYTES_MAX];

    for (size_t done = 0; done < size; done += BLOCK_CRYPT_SECTOR) {
        make_vector(crypt, context, (offset + done) / BLOCK_CRYPT_SECTOR, vector);
        if (encrypt)
            sector_cipher_encrypt(context->cipher, vector, from + done, to + done, BLOCK_CRYPT_SECTOR);
        else
            sector_cipher_decrypt(context->cipher, vector, from + done, to + done, BLOCK_CRYPT_SECTOR);
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
