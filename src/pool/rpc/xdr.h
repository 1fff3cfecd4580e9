/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* XDR (RFC 4506), the parts that the protocol uses: reading never goes beyond its input, writing appends. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { XDR_STRING_MAX = 4 << 20 };

/* What is left of the input. */
struct xdr_reader {
    const uint8_t *at;
    size_t left;
};

/* Each returns false where the input ends too early or says what cannot be; then *ret is untouched. */
bool xdr_get_u32(struct xdr_reader *reader, uint32_t *ret);
bool xdr_get_u64(struct xdr_reader *reader, uint64_t *ret);
bool xdr_get_fixed(struct xdr_reader *reader, void *ret, size_t size);
/* Bytes with their length before them, at most `max`; owned, NUL-terminated beyond *ret_size. */
bool xdr_get_bytes(struct xdr_reader *reader, size_t max, uint8_t **ret, size_t *ret_size);
/* Text without NUL; owned. */
bool xdr_get_string(struct xdr_reader *reader, char **ret);
/* A text that may be absent: NULL. */
bool xdr_get_optional_string(struct xdr_reader *reader, char **ret);
/* The word before what may be absent. */
bool xdr_get_present(struct xdr_reader *reader, bool *ret);
/* The number of elements of an array: at most `max`, and no more than could be in what is left. */
bool xdr_get_count(struct xdr_reader *reader, size_t max, size_t *ret);

void xdr_put_u32(GByteArray *to, uint32_t value);
void xdr_put_u64(GByteArray *to, uint64_t value);
void xdr_put_fixed(GByteArray *to, const void *from, size_t size);
void xdr_put_bytes(GByteArray *to, const void *from, size_t size);
void xdr_put_string(GByteArray *to, const char *text);
void xdr_put_optional_string(GByteArray *to, const char *text); /* NULL: absent */
