/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files of shared keys: lines of the form USER:HEXKEY, as psktool writes them. */
#pragma once

#include <stddef.h>

#include "base/compiler.h"

/*
 * The key of `username` in the `size` bytes at `text`, as it stands there, owned; NULL where it has none. A name that
 * stands there twice has its first key. Any thread.
 */
char *psk_file_find(const char *text, size_t size, const char *username) MUST_CHECK;
