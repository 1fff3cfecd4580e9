/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that is shared with another process through a file. The other process may cut the file at any moment, after
 * which touching the memory raises SIGBUS: such pages become zeroes of our own, and the mapping is marked as damaged,
 * so that whoever shares memory with us can harm only what we do for it. Where that happens again and again, all up to
 * the mapping's end is taken for lost.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;
struct shared_memory;

/*
 * `size` bytes (> 0) of the file behind `fd` from `offset` on, for reading and writing; with one reference. `fd` is
 * borrowed; it need not stay open. NULL and the error: the file is too short, of a kind that cannot be mapped, ...
 */
struct shared_memory *shared_memory_map(int fd, uint64_t offset, size_t size, struct error **err) MUST_CHECK;

/*
 * The same of what a device driver lets us map, which no file's end bounds. `shared`: what is written there is seen by
 * others; else it is for us alone, and others need not let us write.
 */
struct shared_memory *shared_memory_map_device(int fd, uint64_t offset, size_t size, bool shared,
                                               struct error **err) MUST_CHECK;

/* A new file of `size` zeroes without a name that others can map: its descriptor, or -errno. */
int shared_memory_file(const char *label, size_t size) MUST_CHECK;

/* References; any thread. The last unref unmaps. NULL is allowed in unref. */
struct shared_memory *shared_memory_ref(struct shared_memory *memory);
void shared_memory_unref(struct shared_memory *memory);
AUTO_DEFINE(shared_memory, struct shared_memory *, shared_memory_unref)

uint8_t *shared_memory_base(const struct shared_memory *memory);
size_t shared_memory_size(const struct shared_memory *memory);

/* Whether the file was found cut. Any thread. */
bool shared_memory_damaged(const struct shared_memory *memory);
