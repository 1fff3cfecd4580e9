/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libgcrypt, made ready for use. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;

/*
 * To be called before anything else of libgcrypt; initialises it the first time. Where it asks for secure memory
 * (cipher handles with GCRY_CIPHER_SECURE, key derivation), it then gets ours. False: the library is too old. Any
 * thread.
 */
bool crypto_library_ready(struct error **err) MUST_CHECK;
