/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What ringbuf-write and ringbuf-read do with ringbuf chardevs. Main loop; neither suspends. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct chardev_registry;
struct error;

/* Appends, dropping the oldest bytes where there is no room. */
bool chardev_ringbuf_append(struct chardev_registry *registry, const char *id, const void *from, size_t size,
                            struct error **err) MUST_CHECK;

struct ringbuf_read_options {
    uint64_t size;         /* bytes, at most */
    bool whole_characters; /* a UTF-8 character that `size` would cut stays for the next time */
};

/* Takes out the oldest bytes; owned, NUL-terminated beyond *ret_size. */
bool chardev_ringbuf_take(struct chardev_registry *registry, const char *id, const struct ringbuf_read_options *options,
                          uint8_t **ret_bytes, size_t *ret_size, struct error **err) MUST_CHECK;
