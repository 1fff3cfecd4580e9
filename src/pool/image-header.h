/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the first bytes of a file say of the image that it holds, for showing it in a list: far less than opening it,
 * and without following anything. Decoding is pure; nothing of it trusts the file. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/pool-type.h"
#include "pool/volume.h"

struct image_header {
    enum volume_format format;
    uint64_t capacity; /* bytes; 0 and !has_capacity: as large as the file */
    bool has_capacity;
    char *backing_file; /* as it stands there; owned, NULL: none */
    int backing_format; /* enum volume_format; -1: not recorded; -2: recorded with a word that we do not know */
    const char *compat; /* "0.10", "1.1"; NULL: the format has none */
    uint64_t cluster_size;
    unsigned features; /* enum volume_feature */
    bool encrypted;
    enum encryption_format encryption;
    uint64_t payload_offset; /* of a LUKS header: the rest of the file is the disk */
};

enum { IMAGE_HEADER_BYTES = 4096, IMAGE_HEADER_BYTES_MAX = 2 * 1024 * 1024 + 1024 };

/*
 * Decodes the `size` bytes at `head`, the beginning of a file. 0; or how many bytes are needed (more than `size`, at
 * most IMAGE_HEADER_BYTES_MAX) to know all of it, should the file have them. *ret, which is to be cleared, has what
 * could be decoded in any case.
 */
size_t image_header_decode(const uint8_t *head, size_t size, struct image_header *ret);
void image_header_clear(struct image_header *header);

/* The same of the open file. 0 or -errno. Blocks: for worker threads. */
int image_header_read(int fd, struct image_header *ret);
