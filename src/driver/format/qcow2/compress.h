/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed clusters. The work is done on worker threads, any number at a time; memory is the caller's until the call
 * returns. A cluster is stored as a bare stream of its kind: raw deflate, or a Zstandard frame.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "driver/format/qcow2/header.h"

struct error;

/* Whether this build has it; the error names the package. Any thread. */
bool qcow2_compression_available(enum qcow2_compression type, struct error **err) MUST_CHECK;

/*
 * `size` > 0 bytes. The compressed size in *ret_size: at most `capacity` bytes of `to`. -ENOSPC: they would not be
 * enough; -ENOTSUP: not in this build; -ENOMEM; -EIO.
 */
int CO_FN co_qcow2_compress(enum qcow2_compression type, const void *from, size_t size, void *to, size_t capacity,
                            size_t *ret_size) MUST_CHECK;

/*
 * Exactly `size` > 0 bytes. What follows the stream in `from`, up to the end of its last sector, does not matter.
 * -EIO: the stream is damaged, or holds more or less than that; `to` is undefined then. -ENOTSUP, -ENOMEM.
 */
int CO_FN co_qcow2_decompress(enum qcow2_compression type, const void *from, size_t from_size, void *to,
                              size_t size) MUST_CHECK;

/* The same at once, on the calling thread. */
int qcow2_compress(enum qcow2_compression type, const void *from, size_t size, void *to, size_t capacity,
                   size_t *ret_size) MUST_CHECK;
int qcow2_decompress(enum qcow2_compression type, const void *from, size_t from_size, void *to, size_t size) MUST_CHECK;
