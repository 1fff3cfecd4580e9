/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encryption of a disk, sector by sector: each sector of 512 bytes is a message of its own, whose initialization vector
 * follows from its number. Any number of threads may use one block_crypt at the same time. No I/O happens here.
 *
 * Positions and sizes are bytes, multiples of BLOCK_CRYPT_SECTOR. Functions return 0 or -ENOMEM.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct block_crypt;
struct error;
struct io_vector;

enum { BLOCK_CRYPT_SECTOR = 512 };

struct block_crypt_scheme {
    enum q_crypto_cipher_algorithm cipher;
    enum q_crypto_cipher_mode mode;
    enum q_crypto_iv_gen_algorithm ivgen;
    enum q_crypto_hash_algorithm ivgen_hash; /* only for essiv */
};

/* How many bytes of key the scheme takes: twice the cipher's for xts. */
size_t block_crypt_key_bytes(const struct block_crypt_scheme *scheme);

/* Whether that combination exists; and works in this build. Any thread. */
bool block_crypt_scheme_check(const struct block_crypt_scheme *scheme, struct error **err) MUST_CHECK;

/*
 * `key`: block_crypt_key_bytes() of them, copied to secure memory. Freed by block_crypt_free() (NULL is allowed), which
 * wipes it. NULL and the error: no such scheme, or the cipher refuses the key.
 */
struct block_crypt *block_crypt_new(const struct block_crypt_scheme *scheme, const uint8_t *key,
                                    struct error **err) MUST_CHECK;
void block_crypt_free(struct block_crypt *crypt);

/* From `from` to `to`, which may be the same and must not overlap otherwise. Never suspends. Any thread. */
int block_crypt_encrypt(struct block_crypt *crypt, uint64_t offset, const uint8_t *from, uint8_t *to, size_t size);
int block_crypt_decrypt(struct block_crypt *crypt, uint64_t offset, const uint8_t *from, uint8_t *to, size_t size);

/*
 * The same for requests: large ones are done on a worker thread, small ones at once. `offset` is that of the first byte
 * that is taken, which lies `skip` bytes into the vector.
 *
 * Encrypting takes `size` bytes of `from`, and writes to `to`. Decrypting takes `size` bytes at `from`, and writes to
 * the vector; `from` NULL: in place.
 */
int CO_FN co_block_crypt_encrypt(struct block_crypt *crypt, uint64_t offset, const struct io_vector *from, size_t skip,
                                 uint8_t *to, size_t size);
int CO_FN co_block_crypt_decrypt(struct block_crypt *crypt, uint64_t offset, const uint8_t *from,
                                 const struct io_vector *to, size_t skip, size_t size);
