/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS1 volumes (specification 4: "LUKS operations"). A slot holds the master key, split into stripes so that erasing
 * any part of it erases it, encrypted by the volume's own cipher under a key that PBKDF2 makes of a passphrase.
 *
 * Keeps, for whoever loses power: key material is on disk before the header calls its slot active, and overwritten
 * before the header calls it inactive.
 */
#include "crypto/luks.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "crypto/af-split.h"
#include "crypto/block-crypt.h"
#include "crypto/kdf.h"
#include "crypto/library.h"
#include "crypto/luks-internal.h"
#include "crypto/secure-memory.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* What passes between a coroutine and the worker that computes for it. In secure memory. */
struct slot_work {
    const struct luks_header *header;
    const struct luks_slot *slot;
    struct luks_passphrase passphrase;
    uint8_t *key;                    /* LUKS_KEY_BYTES_MAX: the master key */
    uint8_t *material;               /* luks_material_bytes() */
    const struct coroutine *waiting; /* for it: who may have been cancelled meanwhile */
    uint8_t slot_key[LUKS_KEY_BYTES_MAX];
};

static bool nobody_waits(const void *waiting)
{
    return coroutine_is_cancelled(waiting);
}

static void key_free(uint8_t *key)
{
    secure_memory_free(key, LUKS_KEY_BYTES_MAX);
}
AUTO_DEFINE(luks_key, uint8_t *, key_free)

static void work_free(struct slot_work *work)
{
    if (work)
        secure_memory_free(work->material, luks_material_bytes(work->header));
    secure_memory_free(work, sizeof(*work));
}
AUTO_DEFINE(slot_work, struct slot_work *, work_free)

/* NULL: no memory. */
static struct slot_work *CO_FN co_work_new(const struct luks_header *header, unsigned index,
                                           struct luks_passphrase passphrase, uint8_t *key)
{
    struct slot_work *work = secure_memory_new(sizeof(*work));

    if (!work)
        return NULL;
    work->header = header;
    work->slot = &header->slots[index];
    work->passphrase = passphrase;
    work->key = key;
    work->waiting = co_self();
    work->material = secure_memory_new(luks_material_bytes(header));
    if (work->material)
        return work;
    work_free(work);
    return NULL;
}

static int digest_of_key(const struct luks_header *header, const uint8_t *key, const struct coroutine *waiting,
                         uint8_t ret[LUKS_DIGEST_BYTES])
{
    const struct kdf_request request = {
        .hash = header->hash,
        .passphrase = key,
        .passphrase_size = header->key_bytes,
        .salt = header->digest_salt,
        .salt_size = LUKS_SALT_BYTES,
        .iterations = header->digest_iterations,
        .stop = nobody_waits,
        .opaque = waiting,
    };

    return kdf_pbkdf2(&request, ret, LUKS_DIGEST_BYTES);
}

/* The cipher under the slot's key, which `work` has the passphrase of. */
static int slot_crypt(struct slot_work *work, struct block_crypt **ret)
{
    const struct luks_header *header = work->header;
    const struct kdf_request request = {
        .hash = header->hash,
        .passphrase = work->passphrase.bytes,
        .passphrase_size = work->passphrase.size,
        .salt = work->slot->salt,
        .salt_size = LUKS_SALT_BYTES,
        .iterations = work->slot->iterations,
        .stop = nobody_waits,
        .opaque = work->waiting,
    };
    int result = kdf_pbkdf2(&request, work->slot_key, header->key_bytes);

    if (result)
        return result;
    *ret = block_crypt_new(&header->scheme, work->slot_key, NULL);
    return *ret ? 0 : -EINVAL;
}

/* On a worker. 1: it is the key, 0: another passphrase, or -errno. */
static int work_unlock(void *opaque)
{
    struct slot_work *work = opaque;
    const struct luks_header *header = work->header;
    uint8_t digest[LUKS_DIGEST_BYTES];
    struct block_crypt *crypt;
    int result = slot_crypt(work, &crypt);

    if (result)
        return result;
    result = block_crypt_decrypt(crypt, 0, work->material, work->material, luks_material_bytes(header));
    block_crypt_free(crypt);
    if (result)
        return result;
    af_merge(header->hash, work->material, header->key_bytes, LUKS_STRIPES, work->key);
    result = digest_of_key(header, work->key, work->waiting, digest);
    if (result)
        return result;
    return memcmp(digest, header->digest, sizeof(digest)) == 0;
}

uint8_t *CO_FN co_luks_try_slot(const struct luks_io *io, const struct luks_header *header, unsigned index,
                                struct luks_passphrase passphrase, int *ret)
{
    AUTO(luks_key) key = secure_memory_new(LUKS_KEY_BYTES_MAX);
    AUTO(slot_work) work = key ? co_work_new(header, index, passphrase, key) : NULL;

    assert(header->slots[index].active);
    *ret = work ? 0 : -ENOMEM;
    if (!*ret)
        *ret = io->co_read(io->opaque, work->slot->material_offset, work->material, luks_material_bytes(header));
    if (!*ret)
        *ret = co_worker_run(work_unlock, work);
    if (*ret <= 0)
        return NULL;
    *ret = 0;
    return TAKE(key);
}

uint8_t *CO_FN co_luks_unlock(const struct luks_io *io, const struct luks_header *header,
                              struct luks_passphrase passphrase, struct error **err)
{
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        int result;

        if (!header->slots[i].active)
            continue;
        uint8_t *key = co_luks_try_slot(io, header, i, passphrase, &result);
        if (key)
            return key;
        if (result == -ECANCELED) {
            error_set_errno(err, ECANCELED, "Unlocking the volume");
            return NULL;
        }
        if (result) {
            error_set_errno(err, result, "Failed to read key material of keyslot %u", i);
            return NULL;
        }
    }
    error_set(err, "Invalid password, cannot unlock any keyslot");
    return NULL;
}

bool CO_FN co_luks_load(const struct luks_io *io, struct luks_header *ret, struct error **err)
{
    uint8_t data[LUKS_HEADER_BYTES];
    int result = io->co_read(io->opaque, 0, data, sizeof(data));

    if (result)
        return error_set_errno(err, result, "Unable to read LUKS header");
    return luks_header_parse(data, io->detached, ret, err);
}

bool CO_FN co_luks_store(const struct luks_io *io, const struct luks_header *header, struct error **err)
{
    uint8_t data[LUKS_HEADER_BYTES];

    luks_header_write(header, data);
    int result = io->co_write(io->opaque, 0, data, sizeof(data));
    if (!result)
        result = io->co_flush(io->opaque);
    return !result || error_set_errno(err, result, "Unable to write LUKS header");
}

/* --- filling slots --- */

struct measure_work {
    enum q_crypto_hash_algorithm hash;
    size_t key_bytes;
    uint64_t time_ms;
    uint64_t per_second;
};

static int work_measure(void *opaque)
{
    struct measure_work *work = opaque;

    return kdf_iterations_per_second(work->hash, work->key_bytes, work->time_ms, &work->per_second);
}

/* How many iterations keep this machine busy for `time_ms` making a key of that size. */
static bool CO_FN co_count_iterations(enum q_crypto_hash_algorithm hash, size_t key_bytes, int64_t time_ms,
                                      uint32_t *ret, struct error **err)
{
    struct measure_work work = {.hash = hash, .key_bytes = key_bytes, .time_ms = (uint64_t)time_ms};

    if (time_ms < 0)
        return error_set(err, "Parameter 'iter-time' expects a time that is not negative: it is %" PRId64, time_ms);
    int result = co_worker_run(work_measure, &work);
    if (result)
        return error_set(err, "Hash algorithm '%s' not supported", q_crypto_hash_algorithm_name(hash));
    /* Beyond what the header holds, and beyond what we would open again. */
    double iterations = (double)work.per_second * (double)time_ms / 1000;
    if (iterations > LUKS_ITERATIONS_MAX)
        return error_set_errno(err, ERANGE, "PBKDF iterations %.0f larger than %d for an 'iter-time' of %" PRId64,
                               iterations, LUKS_ITERATIONS_MAX, time_ms);
    *ret = iterations > KDF_ITERATIONS_MIN ? (uint32_t)iterations : KDF_ITERATIONS_MIN;
    return true;
}

/* On a worker: the slot's key material from the master key. */
static int work_fill(void *opaque)
{
    struct slot_work *work = opaque;
    const struct luks_header *header = work->header;
    size_t size = luks_material_bytes(header);
    struct block_crypt *crypt;
    int result = slot_crypt(work, &crypt);

    if (result)
        return result;
    af_split(header->hash, work->key, header->key_bytes, LUKS_STRIPES, work->material);
    result = block_crypt_encrypt(crypt, 0, work->material, work->material, size);
    block_crypt_free(crypt);
    return result;
}

/* What is in memory for the slot goes to the disk. */
static bool CO_FN co_write_material(const struct luks_io *io, const struct luks_header *header, unsigned index,
                                    const uint8_t *material, struct error **err)
{
    int result = io->co_write(io->opaque, header->slots[index].material_offset, material, luks_material_bytes(header));

    if (!result)
        result = io->co_flush(io->opaque);
    return !result || error_set_errno(err, result, "Failed to write key material of keyslot %u", index);
}

bool CO_FN co_luks_fill_slot(const struct luks_io *io, struct luks_header *header, unsigned index, const uint8_t *key,
                             struct luks_passphrase passphrase, int64_t iter_time_ms, struct error **err)
{
    struct luks_slot *slot = &header->slots[index];

    if (!co_count_iterations(header->hash, header->key_bytes, iter_time_ms, &slot->iterations, err))
        return false;
    loop_random_bytes(slot->salt, sizeof(slot->salt));
    AUTO(slot_work) work = co_work_new(header, index, passphrase, (uint8_t *)key);
    if (!work)
        return error_set(err, "No memory for the key material of keyslot %u", index);
    int result = co_worker_run(work_fill, work);
    if (result)
        return error_set_errno(err, result, "Failed to make key material of keyslot %u", index);
    slot->active = co_write_material(io, header, index, work->material, err);
    return slot->active;
}

bool CO_FN co_luks_copy_slot(const struct luks_io *io, struct luks_header *header, unsigned from, unsigned to,
                             struct error **err)
{
    const struct luks_slot *source = &header->slots[from];
    struct luks_slot *slot = &header->slots[to];
    size_t size = luks_material_bytes(header);
    g_autofree uint8_t *material = g_try_malloc(size);

    assert(source->active);
    assert(!slot->active);
    if (!material)
        return error_set(err, "No memory for the key material of keyslot %u", to);
    int result = io->co_read(io->opaque, source->material_offset, material, size);
    if (result)
        return error_set_errno(err, result, "Failed to read key material of keyslot %u", from);
    if (!co_write_material(io, header, to, material, err))
        return false;
    slot->active = true;
    slot->iterations = source->iterations;
    memcpy(slot->salt, source->salt, sizeof(slot->salt));
    return true;
}

bool CO_FN co_luks_wipe_slot(const struct luks_io *io, struct luks_header *header, unsigned index, struct error **err)
{
    struct luks_slot *slot = &header->slots[index];
    size_t size = luks_material_bytes(header);
    g_autofree uint8_t *noise = g_try_malloc(size);

    if (!noise)
        return error_set(err, "No memory for overwriting keyslot %u", index);
    loop_random_bytes(noise, size);
    if (!co_write_material(io, header, index, noise, err))
        return error_prefix(err, "Keyslot %u is not erased: ", index);
    slot->active = false;
    slot->iterations = 0;
    memset(slot->salt, 0, sizeof(slot->salt));
    return true;
}

/* --- making --- */

static void make_uuid(char uuid[LUKS_UUID_BYTES + 1])
{
    uint8_t bytes[16];

    loop_random_bytes(bytes, sizeof(bytes));
    bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40); /* RFC 4122: version 4, */
    bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80); /* and its variant */
    g_snprintf(uuid, LUKS_UUID_BYTES + 1, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
               bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7], bytes[8], bytes[9],
               bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]);
}

struct digest_work {
    struct luks_header *header;
    const uint8_t *key;
    const struct coroutine *waiting;
};

static int work_digest(void *opaque)
{
    const struct digest_work *work = opaque;

    return digest_of_key(work->header, work->key, work->waiting, work->header->digest);
}

/* The digest is for telling a right key from a wrong one: it gets an eighth of the time. */
static bool CO_FN co_make_digest(struct luks_header *header, const uint8_t *key, int64_t iter_time_ms,
                                 struct error **err)
{
    struct digest_work work = {.header = header, .key = key, .waiting = co_self()};

    loop_random_bytes(header->digest_salt, sizeof(header->digest_salt));
    if (!co_count_iterations(header->hash, LUKS_DIGEST_BYTES, iter_time_ms / 8, &header->digest_iterations, err))
        return false;
    int result = co_worker_run(work_digest, &work);
    return !result || error_set_errno(err, result, "Unable to make the digest of the master key");
}

uint8_t *CO_FN co_luks_format(const struct luks_io *io, struct luks_header *header, struct luks_passphrase passphrase,
                              int64_t iter_time_ms, struct error **err)
{
    AUTO(luks_key) key = secure_memory_new(LUKS_KEY_BYTES_MAX);

    assert(luks_header_end(header) <= SIZE_MAX);
    if (!key) {
        error_set(err, "No memory for a master key");
        return NULL;
    }
    loop_random_bytes(key, header->key_bytes);
    make_uuid(header->uuid);
    if (!co_make_digest(header, key, iter_time_ms, err) ||
        !co_luks_fill_slot(io, header, 0, key, passphrase, iter_time_ms, err) || !co_luks_store(io, header, err))
        return NULL;
    return TAKE(key);
}
