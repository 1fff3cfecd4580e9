/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys in the kernel's keyrings. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;

/*
 * The payload of the key `serial`, at most `limit` bytes, in secure memory of *ret_size + 1 bytes, NUL-terminated;
 * freed with secure_memory_free().
 */
bool keyring_read(int32_t serial, size_t limit, uint8_t **ret_payload, size_t *ret_size, struct error **err) MUST_CHECK;
