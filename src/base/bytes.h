/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Integers at any address, in a stated byte order. */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BYTES_DEFINE(order, bits)                                                                                      \
    static inline uint##bits##_t load_##order##bits(const void *from)                                                  \
    {                                                                                                                  \
        uint##bits##_t value;                                                                                          \
                                                                                                                       \
        memcpy(&value, from, sizeof(value));                                                                           \
        return order##bits##toh(value);                                                                                \
    }                                                                                                                  \
    static inline void store_##order##bits(void *to, uint##bits##_t value)                                             \
    {                                                                                                                  \
        value = hto##order##bits(value);                                                                               \
        memcpy(to, &value, sizeof(value));                                                                             \
    }

/* load_be16(from), store_be16(to, value), load_le16(), ... up to 64 bits. */
BYTES_DEFINE(be, 16)
BYTES_DEFINE(be, 32)
BYTES_DEFINE(be, 64)
BYTES_DEFINE(le, 16)
BYTES_DEFINE(le, 32)
BYTES_DEFINE(le, 64)
