/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scattered memory that a request reads into or writes from. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Borrowed segments, and the sum of their lengths in `size`. */
struct io_vector {
    const struct iovec *segments;
    unsigned count;
    size_t size;
};

/* A vector of the `count` segments. */
struct io_vector io_vector_of(const struct iovec *segments, unsigned count);

/* How many segments the part [offset, offset + size) of `vector` touches. */
unsigned io_vector_slice_count(const struct io_vector *vector, size_t offset, size_t size);

/*
 * The part [offset, offset + size) of `vector`, its segments in `segments`, which has room for
 * io_vector_slice_count() of them.
 */
struct io_vector io_vector_slice(const struct io_vector *vector, size_t offset, size_t size, struct iovec *segments);

/* Copy between the vector, from `offset` on, and plain memory. The range must lie inside. */
void io_vector_read(const struct io_vector *vector, size_t offset, void *to, size_t size);
void io_vector_write(const struct io_vector *vector, size_t offset, const void *from, size_t size);
void io_vector_fill(const struct io_vector *vector, size_t offset, int byte, size_t size);

/* Whether all bytes of the range are zero. */
bool io_vector_is_zero(const struct io_vector *vector, size_t offset, size_t size);
bool memory_is_zero(const void *memory, size_t size);

/* Where the two begin to differ, bytes; their size: nowhere. Both are of one size. */
size_t io_vector_difference(const struct io_vector *a, const struct io_vector *b);
