/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pages of the guest we have changed: a bitmap that the front end shares while it migrates the guest. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct dirty_log;
struct guest_map;
struct shared_memory;

enum { DIRTY_LOG_PAGE_BYTES = 4096 };

/* Takes `memory`: a bit for each page from guest address 0 on. */
struct dirty_log *dirty_log_new(struct shared_memory *memory) MUST_CHECK;
void dirty_log_free(struct dirty_log *log); /* NULL is allowed */
AUTO_DEFINE(dirty_log, struct dirty_log *, dirty_log_free)

/* Marks the pages of `size` bytes of the guest; what is beyond the log is left out. Any thread. */
void dirty_log_mark(struct dirty_log *log, uint64_t guest_address, uint64_t size);

/* The same by where they are mapped here. */
void dirty_log_mark_memory(struct dirty_log *log, const struct guest_map *map, const void *memory, uint64_t size);
