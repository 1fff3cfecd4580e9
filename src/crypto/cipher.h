/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One-off decryption, over libgcrypt. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;

/* Decrypts `size` bytes (a multiple of 16) in place: AES-256 in CBC mode, padding left on. Any thread. */
bool cipher_aes256_cbc_decrypt(const uint8_t key[32], const uint8_t iv[16], uint8_t *bytes, size_t size,
                               struct error **err) MUST_CHECK;
