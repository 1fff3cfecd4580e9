/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header of a LUKS1 volume ("LUKS1 On-Disk Format Specification", 1.2.3), as pure functions on bytes. Sectors on
 * disk are of 512 bytes; everything here is in bytes, counted from where the header begins.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "crypto/block-crypt.h"
#include "gen/types.h"

struct error;

enum {
    LUKS_HEADER_BYTES = 592,
    LUKS_SLOTS = 8,
    LUKS_STRIPES = 4000,
    LUKS_SALT_BYTES = 32,
    LUKS_DIGEST_BYTES = 20,
    LUKS_NAME_BYTES = 32,
    LUKS_UUID_BYTES = 40,
    LUKS_KEY_BYTES_MAX = 64,
    LUKS_ALIGNMENT = 4096,         /* of key material, in what we make */
    LUKS_ITERATIONS_MAX = 1 << 30, /* minutes of computing: whoever asks for more wants to keep us busy */
};

struct luks_slot {
    bool active;
    uint32_t iterations;
    uint8_t salt[LUKS_SALT_BYTES];
    uint64_t material_offset; /* of its LUKS_STRIPES times `key_bytes` */
};

struct luks_header {
    struct block_crypt_scheme scheme;
    enum q_crypto_hash_algorithm hash; /* of the key slots and the digest */
    char cipher_name[LUKS_NAME_BYTES]; /* as they stand on disk, NUL-terminated */
    char cipher_mode[LUKS_NAME_BYTES];
    uint64_t payload_offset;
    uint32_t key_bytes; /* of the master key */
    uint8_t digest[LUKS_DIGEST_BYTES];
    uint8_t digest_salt[LUKS_SALT_BYTES];
    uint32_t digest_iterations;
    char uuid[LUKS_UUID_BYTES + 1]; /* as it stands on disk, NUL-terminated: from a stranger, maybe not printable */
    struct luks_slot slots[LUKS_SLOTS];
};

/*
 * `detached`: the payload lies elsewhere, so its offset says nothing of the header's size. All is checked but whether
 * things lie within the file. False and the error: it is not one, or not one that we can use.
 */
bool luks_header_parse(const uint8_t data[LUKS_HEADER_BYTES], bool detached, struct luks_header *ret,
                       struct error **err) MUST_CHECK;
void luks_header_write(const struct luks_header *header, uint8_t data[LUKS_HEADER_BYTES]);

/*
 * A new header without keys, digest or UUID: the scheme, the hash and where everything lies. `detached`: the payload
 * begins at 0 of its own file.
 */
bool luks_header_make(const struct block_crypt_scheme *scheme, enum q_crypto_hash_algorithm hash, bool detached,
                      struct luks_header *ret, struct error **err) MUST_CHECK;

/* How much of the disk a slot's key material takes: whole sectors. */
size_t luks_material_bytes(const struct luks_header *header);

/* Where the last slot's key material ends. */
uint64_t luks_slots_end(const struct luks_header *header);

/* The same, rounded up to LUKS_ALIGNMENT: the payload of what we make begins there. */
uint64_t luks_header_end(const struct luks_header *header);

/* For queries; owned. */
struct q_crypto_block_info_luks *luks_header_describe(const struct luks_header *header, bool detached);
