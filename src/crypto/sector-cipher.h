/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A block cipher in a mode, under a key: what en- and decrypts one sector. libgcrypt does it, or, where that lacks the
 * cipher, the module cipher-nettle. A sector_cipher serves one thread at a time. Keys lie in secure memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct sector_cipher;

/* Whether there is something in this build that does it. Any thread; may block it for milliseconds, to load a module.
 */
bool sector_cipher_check(enum q_crypto_cipher_algorithm cipher, struct error **err) MUST_CHECK;

/*
 * `key_bytes` is twice the cipher's for xts. Freed by sector_cipher_free() (NULL is allowed). NULL and the error: as
 * above, the mode does not go with the cipher, or the key is one of its weak ones.
 */
struct sector_cipher *sector_cipher_new(enum q_crypto_cipher_algorithm cipher, enum q_crypto_cipher_mode mode,
                                        const uint8_t *key, size_t key_bytes, struct error **err) MUST_CHECK;
void sector_cipher_free(struct sector_cipher *cipher);

/*
 * One message of `size` bytes, whole blocks, from `from` to `to`, which may be the same. `vector`: a block; the
 * initialization vector, first counter or tweak. ecb has no use for it.
 */
void sector_cipher_encrypt(struct sector_cipher *cipher, const uint8_t *vector, const uint8_t *from, uint8_t *to,
                           size_t size);
void sector_cipher_decrypt(struct sector_cipher *cipher, const uint8_t *vector, const uint8_t *from, uint8_t *to,
                           size_t size);
