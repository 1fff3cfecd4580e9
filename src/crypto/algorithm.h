/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ciphers and hash functions: what the schema calls them, what headers on disk call them, and their sizes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;

struct cipher_algorithm {
    const char *disk_name; /* in LUKS headers; several key sizes share one */
    const char *title;     /* for messages */
    int library_id;        /* libgcrypt's; 0: it has none such */
    uint8_t key_bytes;
    uint8_t block_bytes;
    uint32_t slow_bytes; /* from this many on, en- or decrypting holds a loop up for longer than a worker costs */
};

/* Constant. */
const struct cipher_algorithm *cipher_algorithm(enum q_crypto_cipher_algorithm cipher);

/* The one of that name on disk and key size; false: there is none. */
bool cipher_algorithm_find(const char *disk_name, size_t key_bytes, enum q_crypto_cipher_algorithm *ret);

/* Whether any cipher is called so on disk. */
bool cipher_algorithm_known(const char *disk_name);

enum { HASH_BYTES_MAX = 64 };
size_t hash_bytes(enum q_crypto_hash_algorithm hash);

/* Whether the library has it, which must be ready. */
bool hash_available(enum q_crypto_hash_algorithm hash);
int hash_library_id(enum q_crypto_hash_algorithm hash);

/* By the name that the schema and disks alike use. */
bool hash_find(const char *name, enum q_crypto_hash_algorithm *ret);

/* The digest of `size` bytes at `from`; hash_bytes() of them. The library must be ready. Any thread. */
void hash_digest(enum q_crypto_hash_algorithm hash, const void *from, size_t size, uint8_t *ret_digest);
