/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The anti-forensic splitter of LUKS1 (its specification, 2.4): a key becomes `stripes` times as long, and is lost if
 * any of that is.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gen/types.h"

/* `split`: `stripes` times `key_bytes`. The library must be ready (crypto/library.h). Any thread; takes milliseconds.
 */
void af_split(enum q_crypto_hash_algorithm hash, const uint8_t *key, size_t key_bytes, uint32_t stripes,
              uint8_t *split);
void af_merge(enum q_crypto_hash_algorithm hash, const uint8_t *split, size_t key_bytes, uint32_t stripes,
              uint8_t *key);
