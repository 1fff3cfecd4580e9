/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/luks-header.h"

#include <assert.h>
#include <ctype.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "base/error.h"
#include "crypto/algorithm.h"
#include "crypto/library.h"

/* Where the fields lie (2.3, figures 1 and 3). */
enum {
    AT_VERSION = 6,
    AT_CIPHER_NAME = 8,
    AT_CIPHER_MODE = 40,
    AT_HASH = 72,
    AT_PAYLOAD = 104,
    AT_KEY_BYTES = 108,
    AT_DIGEST = 112,
    AT_DIGEST_SALT = 132,
    AT_DIGEST_ITERATIONS = 164,
    AT_UUID = 168,
    AT_SLOTS = 208,
    SLOT_BYTES = 48,
    SLOT_AT_ITERATIONS = 4,
    SLOT_AT_SALT = 8,
    SLOT_AT_MATERIAL = 40,
    SLOT_AT_STRIPES = 44,
    SECTOR = BLOCK_CRYPT_SECTOR,
};
static_assert(AT_SLOTS + LUKS_SLOTS * SLOT_BYTES == LUKS_HEADER_BYTES, "the slots end the header");

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

#define SLOT_ACTIVE UINT32_C(0x00ac71f3)
#define SLOT_INACTIVE UINT32_C(0x0000dead)

/* --- names --- */

/* Text from disk, for messages: what can't be printed is replaced. */
static void make_printable(char *text)
{
    for (; *text; text++) {
        if (!isprint((unsigned char)*text))
            *text = '?';
    }
}

static bool read_name(const uint8_t *at, const char *what, char ret[LUKS_NAME_BYTES], struct error **err)
{
    if (!memchr(at, '\0', LUKS_NAME_BYTES))
        return error_set(err, "LUKS header %s is not NUL terminated", what);
    memcpy(ret, at, LUKS_NAME_BYTES);
    make_printable(ret);
    return true;
}

/* "plain64", "essiv:sha256" */
static bool parse_ivgen(const char *text, struct block_crypt_scheme *scheme, struct error **err)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", 2);
    int ivgen = q_crypto_iv_gen_algorithm_value(parts[0] ? parts[0] : "");

    if (ivgen < 0)
        return error_set(err, "IV generator '%s' not supported", parts[0] ? parts[0] : "");
    scheme->ivgen = (enum q_crypto_iv_gen_algorithm)ivgen;
    if (scheme->ivgen != Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV)
        return true;
    if (!parts[1])
        return error_set(err, "Missing IV generator hash specification");
    return hash_find(parts[1], &scheme->ivgen_hash) || error_set(err, "Hash algorithm '%s' not supported", parts[1]);
}

/* "xts-plain64", "cbc-essiv:sha256", "ecb" */
static bool parse_mode(const char *text, struct block_crypt_scheme *scheme, struct error **err)
{
    g_auto(GStrv) parts = g_strsplit(text, "-", 2);
    int mode = parts[0] ? q_crypto_cipher_mode_value(parts[0]) : -1;

    /* Without a vector generator only ecb makes sense, which needs none; the specification names it so. */
    if (!parts[0] || (!parts[1] && mode != Q_CRYPTO_CIPHER_MODE_ECB))
        return error_set(err, "Unexpected cipher mode string format '%s'", text);
    if (mode < 0)
        return error_set(err, "Cipher mode '%s' not supported", parts[0]);
    scheme->mode = (enum q_crypto_cipher_mode)mode;
    scheme->ivgen = Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64;
    return !parts[1] || parse_ivgen(parts[1], scheme, err);
}

static bool parse_scheme(const uint8_t *data, struct luks_header *header, struct error **err)
{
    struct block_crypt_scheme *scheme = &header->scheme;
    char hash[LUKS_NAME_BYTES];

    if (!read_name(data + AT_CIPHER_NAME, "cipher name", header->cipher_name, err) ||
        !read_name(data + AT_CIPHER_MODE, "cipher mode", header->cipher_mode, err) ||
        !read_name(data + AT_HASH, "hash spec", hash, err) || !parse_mode(header->cipher_mode, scheme, err))
        return false;
    if (!hash_find(hash, &header->hash))
        return error_set(err, "Hash algorithm '%s' not supported", hash);
    header->key_bytes = load_be32(data + AT_KEY_BYTES);
    bool halves = scheme->mode == Q_CRYPTO_CIPHER_MODE_XTS;
    uint32_t cipher_bytes = halves ? header->key_bytes / 2 : header->key_bytes;
    if ((halves && header->key_bytes % 2) || !cipher_algorithm_find(header->cipher_name, cipher_bytes, &scheme->cipher))
        return error_set(err, "Algorithm '%s' with key size %" PRIu32 " bytes not supported", header->cipher_name,
                         cipher_bytes);
    assert(header->key_bytes <= LUKS_KEY_BYTES_MAX);
    return block_crypt_scheme_check(scheme, err);
}

/* --- numbers --- */

static bool parse_slot(const uint8_t *data, unsigned index, struct luks_slot *slot, struct error **err)
{
    const uint8_t *at = data + AT_SLOTS + index * SLOT_BYTES;
    uint32_t state = load_be32(at);
    uint32_t stripes = load_be32(at + SLOT_AT_STRIPES);

    slot->active = state == SLOT_ACTIVE;
    slot->iterations = load_be32(at + SLOT_AT_ITERATIONS);
    memcpy(slot->salt, at + SLOT_AT_SALT, sizeof(slot->salt));
    slot->material_offset = (uint64_t)load_be32(at + SLOT_AT_MATERIAL) * SECTOR;
    if (stripes != LUKS_STRIPES)
        return error_set(err, "Keyslot %u is corrupted (stripes %" PRIu32 " != %d)", index, stripes, LUKS_STRIPES);
    if (state != SLOT_ACTIVE && state != SLOT_INACTIVE)
        return error_set(err, "Keyslot %u state (active/disable) is corrupted: it is %#010" PRIx32, index, state);
    if (slot->active && !slot->iterations)
        return error_set(err, "Keyslot %u iteration count is zero", index);
    if (slot->active && slot->iterations > LUKS_ITERATIONS_MAX)
        return error_set(err, "Keyslot %u iteration count %" PRIu32 " is larger than %d", index, slot->iterations,
                         LUKS_ITERATIONS_MAX);
    return true;
}

size_t luks_material_bytes(const struct luks_header *header)
{
    return align_up((size_t)header->key_bytes * LUKS_STRIPES, SECTOR);
}

static bool check_layout(const struct luks_header *header, bool detached, struct error **err)
{
    uint64_t bytes = luks_material_bytes(header);

    if (!detached && header->payload_offset < LUKS_HEADER_BYTES)
        return error_set(err, "LUKS payload is overlapping with the header: it begins at %" PRIu64,
                         header->payload_offset);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        uint64_t offset = header->slots[i].material_offset;

        if (offset < LUKS_HEADER_BYTES)
            return error_set(err, "Keyslot %u is overlapping with the LUKS header: it begins at %" PRIu64, i, offset);
        if (!detached && offset + bytes > header->payload_offset)
            return error_set(err,
                             "Keyslot %u is overlapping with the encrypted payload: it ends at %" PRIu64
                             ", and the payload begins at %" PRIu64,
                             i, offset + bytes, header->payload_offset);
        for (unsigned j = i + 1; j < LUKS_SLOTS; j++) {
            if (ranges_overlap(offset, bytes, header->slots[j].material_offset, bytes))
                return error_set(err,
                                 "Keyslots %u and %u are overlapping in the header: they begin at %" PRIu64
                                 " and %" PRIu64 " and have %" PRIu64 " bytes",
                                 i, j, offset, header->slots[j].material_offset, bytes);
        }
    }
    return true;
}

static bool parse_digest(const uint8_t *data, struct luks_header *header, struct error **err)
{
    memcpy(header->digest, data + AT_DIGEST, sizeof(header->digest));
    memcpy(header->digest_salt, data + AT_DIGEST_SALT, sizeof(header->digest_salt));
    header->digest_iterations = load_be32(data + AT_DIGEST_ITERATIONS);
    if (!header->digest_iterations)
        return error_set(err, "LUKS key iteration count is zero");
    if (header->digest_iterations > LUKS_ITERATIONS_MAX)
        return error_set(err, "LUKS key iteration count %" PRIu32 " is larger than %d", header->digest_iterations,
                         LUKS_ITERATIONS_MAX);
    return true;
}

bool luks_header_parse(const uint8_t data[LUKS_HEADER_BYTES], bool detached, struct luks_header *ret,
                       struct error **err)
{
    struct luks_header header = {0};

    if (memcmp(data, magic, sizeof(magic)) != 0)
        return error_set(err, "Volume is not in LUKS format");
    if (load_be16(data + AT_VERSION) != 1)
        return error_set(err, "LUKS version %u is not supported", load_be16(data + AT_VERSION));
    header.payload_offset = (uint64_t)load_be32(data + AT_PAYLOAD) * SECTOR;
    memcpy(header.uuid, data + AT_UUID, LUKS_UUID_BYTES);
    if (!parse_scheme(data, &header, err) || !parse_digest(data, &header, err))
        return false;
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        if (!parse_slot(data, i, &header.slots[i], err))
            return false;
    }
    if (!check_layout(&header, detached, err))
        return false;
    *ret = header;
    return true;
}

void luks_header_write(const struct luks_header *header, uint8_t data[LUKS_HEADER_BYTES])
{
    const char *hash = q_crypto_hash_algorithm_name(header->hash);

    assert(is_aligned(header->payload_offset, SECTOR));
    assert(header->payload_offset / SECTOR <= UINT32_MAX);
    memset(data, 0, LUKS_HEADER_BYTES);
    memcpy(data, magic, sizeof(magic));
    store_be16(data + AT_VERSION, 1);
    memcpy(data + AT_CIPHER_NAME, header->cipher_name, strlen(header->cipher_name));
    memcpy(data + AT_CIPHER_MODE, header->cipher_mode, strlen(header->cipher_mode));
    memcpy(data + AT_HASH, hash, strlen(hash));
    store_be32(data + AT_PAYLOAD, (uint32_t)(header->payload_offset / SECTOR));
    store_be32(data + AT_KEY_BYTES, header->key_bytes);
    memcpy(data + AT_DIGEST, header->digest, LUKS_DIGEST_BYTES);
    memcpy(data + AT_DIGEST_SALT, header->digest_salt, LUKS_SALT_BYTES);
    store_be32(data + AT_DIGEST_ITERATIONS, header->digest_iterations);
    memcpy(data + AT_UUID, header->uuid, LUKS_UUID_BYTES);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const struct luks_slot *slot = &header->slots[i];
        uint8_t *at = data + AT_SLOTS + i * SLOT_BYTES;

        assert(is_aligned(slot->material_offset, SECTOR));
        store_be32(at, slot->active ? SLOT_ACTIVE : SLOT_INACTIVE);
        store_be32(at + SLOT_AT_ITERATIONS, slot->iterations);
        memcpy(at + SLOT_AT_SALT, slot->salt, LUKS_SALT_BYTES);
        store_be32(at + SLOT_AT_MATERIAL, (uint32_t)(slot->material_offset / SECTOR));
        store_be32(at + SLOT_AT_STRIPES, LUKS_STRIPES);
    }
}

/* --- new ones --- */

bool luks_header_make(const struct block_crypt_scheme *scheme, enum q_crypto_hash_algorithm hash, bool detached,
                      struct luks_header *ret, struct error **err)
{
    struct luks_header header = {.scheme = *scheme, .hash = hash};
    const char *mode = q_crypto_cipher_mode_name(scheme->mode);
    const char *ivgen = q_crypto_iv_gen_algorithm_name(scheme->ivgen);

    if (!block_crypt_scheme_check(scheme, err))
        return false;
    g_strlcpy(header.cipher_name, cipher_algorithm(scheme->cipher)->disk_name, LUKS_NAME_BYTES);
    if (scheme->ivgen == Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV)
        g_snprintf(header.cipher_mode, LUKS_NAME_BYTES, "%s-%s:%s", mode, ivgen,
                   q_crypto_hash_algorithm_name(scheme->ivgen_hash));
    else
        g_snprintf(header.cipher_mode, LUKS_NAME_BYTES, "%s-%s", mode, ivgen);
    header.key_bytes = (uint32_t)block_crypt_key_bytes(scheme);
    uint64_t slot_bytes = align_up(luks_material_bytes(&header), LUKS_ALIGNMENT);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        header.slots[i].material_offset = LUKS_ALIGNMENT + i * slot_bytes;
    header.payload_offset = detached ? 0 : luks_header_end(&header);
    *ret = header;
    return true;
}

uint64_t luks_slots_end(const struct luks_header *header)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        uint64_t slot_end = header->slots[i].material_offset + luks_material_bytes(header);

        end = slot_end > end ? slot_end : end;
    }
    return end;
}

uint64_t luks_header_end(const struct luks_header *header)
{
    return align_up(luks_slots_end(header), LUKS_ALIGNMENT);
}

/* --- queries --- */

struct q_crypto_block_info_luks *luks_header_describe(const struct luks_header *header, bool detached)
{
    struct q_crypto_block_info_luks *info = g_new0(struct q_crypto_block_info_luks, 1);
    struct q_crypto_block_info_luks_slot_array *slots = g_new0(struct q_crypto_block_info_luks_slot_array, 1);

    info->cipher_alg = header->scheme.cipher;
    info->cipher_mode = header->scheme.mode;
    info->ivgen_alg = header->scheme.ivgen;
    info->has_ivgen_hash_alg = header->scheme.ivgen == Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV;
    info->ivgen_hash_alg = header->scheme.ivgen_hash;
    info->hash_alg = header->hash;
    info->detached_header = detached;
    info->payload_offset = (int64_t)header->payload_offset;
    info->master_key_iters = header->digest_iterations;
    info->uuid = g_strdup(header->uuid);
    make_printable(info->uuid);
    slots->items = g_new0(struct q_crypto_block_info_luks_slot *, LUKS_SLOTS);
    slots->count = LUKS_SLOTS;
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        struct q_crypto_block_info_luks_slot *slot = g_new0(struct q_crypto_block_info_luks_slot, 1);

        slot->active = header->slots[i].active;
        slot->key_offset = (int64_t)header->slots[i].material_offset;
        slot->has_iters = slot->has_stripes = slot->active;
        slot->iters = header->slots[i].iterations;
        slot->stripes = LUKS_STRIPES;
        slots->items[i] = slot;
    }
    info->slots = slots;
    return info;
}
