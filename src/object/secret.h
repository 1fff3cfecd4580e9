/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Secrets: bytes that others refer to by the id of a secret or secret_keyring object. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct object_registry;

extern const struct object_class secret_class;
extern const struct object_class secret_keyring_class;

/* A copy of the secret's bytes in locked memory, NUL-terminated beyond *ret_size; freed (and wiped) by secret_free().
 */
bool secret_get(struct object_registry *registry, const char *id, uint8_t **ret_bytes, size_t *ret_size,
                struct error **err) MUST_CHECK;
void secret_free(uint8_t *bytes, size_t size); /* NULL is allowed */

/*
 * Strict base64, white space allowed: at most `size` / 4 * 3 + 3 bytes at `to`, their number in *ret_size. `to` may not
 * overlap `text`.
 */
bool secret_base64_decode(const uint8_t *text, size_t size, uint8_t *to, size_t *ret_size,
                          struct error **err) MUST_CHECK;
