/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encryption of qcow2 images: getting at the key, making new ones, changing who can unlock. The data itself is en- and
 * decrypted by src/crypto/block-crypt.h where it is written and read. Main loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "crypto/luks-header.h"
#include "gen/types.h"

struct error;
struct handle;
struct json;
struct object_registry;
struct qcow2_header;
struct qcow2_image;

/*
 * Sets image->crypt, or image->no_io where the node is opened for its metadata only; for images that are not encrypted,
 * neither. `options`: as the user gave them, NULL: none. The header and the file must be there.
 */
bool CO_FN co_qcow2_crypt_open(struct qcow2_image *image, const struct blockdev_qcow2_encryption *options,
                               struct error **err) MUST_CHECK;

/* How a new image is to be encrypted. */
struct qcow2_crypt_plan {
    uint32_t method;         /* enum of header.h: QCOW2_CRYPT_NONE where `options` is NULL */
    uint64_t header_bytes;   /* what the image has to have room for; 0: nothing */
    struct luks_header luks; /* of QCOW2_CRYPT_LUKS */
};
bool qcow2_crypt_plan(const struct q_crypto_block_create_options *options, struct qcow2_crypt_plan *ret,
                      struct error **err) MUST_CHECK;

/* Whether there is a key for it: to be asked before anything is lost. */
bool qcow2_crypt_check_secret(const struct q_crypto_block_create_options *options, struct object_registry *objects,
                              struct error **err) MUST_CHECK;

/* Says in `header` how the image is encrypted; the encryption header will be at `offset`. */
void qcow2_crypt_announce(const struct qcow2_crypt_plan *plan, uint64_t offset, struct qcow2_header *header);

/* Writes the encryption header, if there is one, to `file` at `offset`, where there are zeroes, and flushes. */
bool CO_FN co_qcow2_crypt_make(struct qcow2_crypt_plan *plan, const struct q_crypto_block_create_options *options,
                               struct object_registry *objects, struct handle *file, uint64_t offset,
                               struct error **err) MUST_CHECK;

/* Changes key slots while the image is in use; it must be open for writing. */
bool CO_FN co_qcow2_crypt_amend(struct qcow2_image *image, const struct q_crypto_block_amend_options *options,
                                bool force, struct error **err) MUST_CHECK;

/* The same from the members of "encrypt" of the short form; "format" may be missing. */
bool CO_FN co_qcow2_crypt_amend_image(struct qcow2_image *image, const struct json *encrypt, bool force,
                                      struct error **err) MUST_CHECK;
