/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two ways ("Data encryption" in the format's document): the old one, AES in CBC mode under the passphrase itself,
 * numbers sectors by guest offset; with LUKS, whose header and key material lie in clusters of their own, it is by host
 * offset. The old one uses keys of 128 bits, whatever the document says.
 */
#include "driver/format/qcow2/crypt.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "block/handle.h"
#include "block/node.h"
#include "crypto/block-crypt.h"
#include "crypto/luks.h"
#include "crypto/secure-memory.h"
#include "driver/format/luks-keys.h"
#include "driver/format/qcow2/qcow2.h"
#include "schema/json.h"

enum { AES_KEY_BYTES = 16 };
static const char key_parameter[] = "encrypt.key-secret";

/* --- the LUKS header in an open image --- */

/* Nothing but the clusters that were set aside for it: the offsets in it come from whoever made the image. */
static bool in_crypto_header(const struct qcow2_image *image, uint64_t offset, size_t size)
{
    return range_fits(offset, size, align_up(image->header->crypto_bytes, image->cluster_size));
}

static int CO_FN co_header_read(void *opaque, uint64_t offset, void *to, size_t size)
{
    struct qcow2_image *image = opaque;

    if (!in_crypto_header(image, offset, size))
        return -EINVAL;
    return co_edge_pread(image->file, image->header->crypto_offset + offset, size, to, 0);
}

static int CO_FN co_header_write(void *opaque, uint64_t offset, const void *from, size_t size)
{
    struct qcow2_image *image = opaque;

    if (!in_crypto_header(image, offset, size))
        return -EINVAL;
    return co_edge_pwrite(image->file, image->header->crypto_offset + offset, size, from, 0);
}

static int CO_FN co_header_flush(void *opaque)
{
    struct qcow2_image *image = opaque;

    return co_edge_flush(image->file);
}

static struct luks_io image_io(struct qcow2_image *image)
{
    return (struct luks_io){
        .co_read = co_header_read, .co_write = co_header_write, .co_flush = co_header_flush, .opaque = image};
}

static bool CO_FN co_load_luks(struct qcow2_image *image, const struct luks_io *io, struct luks_header *ret,
                               struct error **err)
{
    if (!co_luks_load(io, ret, err))
        return false;
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        if (!in_crypto_header(image, ret->slots[i].material_offset, luks_material_bytes(ret)))
            return error_set(err,
                             "Keyslot %u at %" PRIu64
                             " with %zu bytes lies outside of the encryption header of %" PRIu64 " bytes",
                             i, ret->slots[i].material_offset, luks_material_bytes(ret), image->header->crypto_bytes);
    }
    return true;
}

/* --- opening --- */

/* The old way: the passphrase is the key, cut off or filled up with zeroes. */
static struct block_crypt *aes_crypt(struct object_registry *objects, const char *id, struct error **err)
{
    static const struct block_crypt_scheme scheme = {
        .cipher = Q_CRYPTO_CIPHER_ALGORITHM_AES_128,
        .mode = Q_CRYPTO_CIPHER_MODE_CBC,
        .ivgen = Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64,
    };
    struct luks_secret secret = {0};
    uint8_t key[AES_KEY_BYTES] = {0};

    if (!luks_secret_get(objects, id, key_parameter, &secret, err))
        return NULL;
    memcpy(key, secret.bytes, secret.size < sizeof(key) ? secret.size : sizeof(key));
    luks_secret_free(&secret);
    struct block_crypt *crypt = block_crypt_new(&scheme, key, err);
    secure_memory_wipe(key, sizeof(key));
    return crypt;
}

static struct block_crypt *CO_FN co_luks_crypt(struct qcow2_image *image, const char *id, struct error **err)
{
    struct luks_io io = image_io(image);
    struct luks_header header;

    if (!co_load_luks(image, &io, &header, err))
        return NULL;
    return co_luks_open_crypt(&io, &header, node_objects(image->node), id, key_parameter, err);
}

static bool check_format(const struct qcow2_image *image, const struct blockdev_qcow2_encryption *options,
                         struct error **err)
{
    const char *given = options ? blockdev_qcow2_encryption_format_name(options->format) : NULL;
    uint32_t method = image->header->crypt_method;
    const char *found = method == QCOW2_CRYPT_AES ? "aes" : "luks";

    if (!given)
        return true;
    if (method == QCOW2_CRYPT_NONE)
        return error_set(err, "No encryption in image header, but options specified format '%s'", given);
    if (strcmp(given, found) != 0)
        return error_set(err, "Header reported '%s' encryption format but options specify '%s'", found, given);
    return true;
}

bool CO_FN co_qcow2_crypt_open(struct qcow2_image *image, const struct blockdev_qcow2_encryption *options,
                               struct error **err)
{
    uint32_t method = image->header->crypt_method;

    assert(!image->crypt);
    if (!check_format(image, options, err))
        return false;
    image->no_io = method != QCOW2_CRYPT_NONE && node_metadata_only(image->node);
    if (method == QCOW2_CRYPT_NONE || image->no_io)
        return true;
    if (!qcow2_header_check_crypto(image->header, node_length(edge_child(image->file)), err))
        return false;
    if (method == QCOW2_CRYPT_AES)
        image->crypt = aes_crypt(node_objects(image->node), options ? options->u.aes.key_secret : NULL, err);
    else
        image->crypt = co_luks_crypt(image, options ? options->u.luks.key_secret : NULL, err);
    return image->crypt;
}

/* --- making --- */

bool qcow2_crypt_plan(const struct q_crypto_block_create_options *options, struct qcow2_crypt_plan *ret,
                      struct error **err)
{
    struct qcow2_crypt_plan plan = {.method = QCOW2_CRYPT_NONE};

    if (options && options->format == Q_CRYPTO_BLOCK_FORMAT_QCOW) {
        plan.method = QCOW2_CRYPT_AES;
    } else if (options) {
        struct q_crypto_block_create_options_luks luks = options->u.luks;

        plan.method = QCOW2_CRYPT_LUKS;
        if (!luks.has_ivgen_alg)
            luks.ivgen_alg = Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64;
        luks.has_ivgen_alg = true; /* in ecb mode, too: those who read these images want one named */
        if (!luks_header_from_options(&luks, false, &plan.luks, err))
            return false;
        plan.header_bytes = plan.luks.payload_offset;
    }
    *ret = plan;
    return true;
}

static const char *key_secret_of(const struct q_crypto_block_create_options *options)
{
    return options->format == Q_CRYPTO_BLOCK_FORMAT_QCOW ? options->u.qcow.key_secret : options->u.luks.key_secret;
}

bool qcow2_crypt_check_secret(const struct q_crypto_block_create_options *options, struct object_registry *objects,
                              struct error **err)
{
    struct luks_secret secret = {0};

    if (!options)
        return true;
    bool ok = luks_secret_get(objects, key_secret_of(options), key_parameter, &secret, err);
    luks_secret_free(&secret);
    return ok;
}

/* Where the header of a new image goes. */
struct new_place {
    struct handle *file;
    uint64_t offset;
};

static int CO_FN co_new_read(void *opaque, uint64_t offset, void *to, size_t size)
{
    struct new_place *place = opaque;

    return co_handle_pread(place->file, place->offset + offset, size, to, 0);
}

static int CO_FN co_new_write(void *opaque, uint64_t offset, const void *from, size_t size)
{
    struct new_place *place = opaque;

    return co_handle_pwrite(place->file, place->offset + offset, size, from, 0);
}

static int CO_FN co_new_flush(void *opaque)
{
    struct new_place *place = opaque;

    return co_handle_flush(place->file);
}

void qcow2_crypt_announce(const struct qcow2_crypt_plan *plan, uint64_t offset, struct qcow2_header *header)
{
    header->crypt_method = plan->method;
    if (plan->method != QCOW2_CRYPT_LUKS)
        return;
    header->has_crypto = true;
    header->crypto_offset = offset;
    header->crypto_bytes = plan->header_bytes;
}

bool CO_FN co_qcow2_crypt_make(struct qcow2_crypt_plan *plan, const struct q_crypto_block_create_options *options,
                               struct object_registry *objects, struct handle *file, uint64_t offset,
                               struct error **err)
{
    struct new_place place = {.file = file, .offset = offset};
    struct luks_io io = {.co_read = co_new_read, .co_write = co_new_write, .co_flush = co_new_flush, .opaque = &place};

    if (plan->method != QCOW2_CRYPT_LUKS)
        return true;
    return co_luks_format_by_options(&io, &plan->luks, &options->u.luks, objects, key_parameter, err);
}

/* --- changing --- */

/* Id of the secret with which the image is open; NULL: none. */
static const char *opened_with(const struct qcow2_image *image)
{
    const struct blockdev_qcow2_encryption *options = node_options(image->node)->u.qcow2.encrypt;

    return options ? options->u.luks.key_secret : NULL;
}

static bool check_amendable(const struct qcow2_image *image, struct error **err)
{
    if (image->header->crypt_method == QCOW2_CRYPT_NONE)
        return error_set(err, "Can't amend encryption options - encryption not present");
    if (image->header->crypt_method != QCOW2_CRYPT_LUKS)
        return error_set(err, "Only LUKS encryption options can be amended");
    if (!image->writable)
        return error_set(err, "Block node is read-only: node '%s'", node_name(image->node));
    return true;
}

static bool CO_FN co_amend(struct qcow2_image *image, const struct q_crypto_block_amend_options_luks *options,
                           bool force, struct error **err)
{
    struct luks_io io = image_io(image);
    struct luks_header header;

    co_mutex_lock(&image->crypt_lock);
    bool ok =
        co_load_luks(image, &io, &header, err) &&
        co_luks_amend_by_options(&io, &header, options, node_objects(image->node), opened_with(image), force, err);
    co_mutex_unlock(&image->crypt_lock);
    return ok;
}

bool CO_FN co_qcow2_crypt_amend(struct qcow2_image *image, const struct q_crypto_block_amend_options *options,
                                bool force, struct error **err)
{
    if (!check_amendable(image, err))
        return false;
    if (options->format != Q_CRYPTO_BLOCK_FORMAT_LUKS)
        return error_set(err, "Only LUKS encryption options can be amended");
    return co_amend(image, &options->u.luks, force, err);
}

bool CO_FN co_qcow2_crypt_amend_image(struct qcow2_image *image, const struct json *encrypt, bool force,
                                      struct error **err)
{
    AUTO(json) members = json_clone(encrypt);
    AUTO(json) format = json_take(members, "format");

    (void)format;
    if (!check_amendable(image, err))
        return false;
    AUTO(q_crypto_block_amend_options_luks) options = q_crypto_block_amend_options_luks_parse_keyval(members, err);
    return options && co_amend(image, options, force, err);
}
