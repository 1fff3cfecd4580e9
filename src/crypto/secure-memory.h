/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory for keys and passphrases: never swapped where the system allows it, not in core dumps, wiped when freed. */
#pragma once

#include <stddef.h>

#include "base/compiler.h"

/* Zero-filled pages for `size` bytes (at least one); NULL when the system has no more. Any thread. */
void *secure_memory_new(size_t size) MUST_CHECK;

/* Wipes and frees what secure_memory_new(size) gave; NULL is allowed. */
void secure_memory_free(void *memory, size_t size);

/* Overwrites memory in a way that the compiler keeps. */
void secure_memory_wipe(void *memory, size_t size);
