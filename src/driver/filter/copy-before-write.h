/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Saves what is about to be overwritten to another node; what backup jobs and fleecing are made of. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct block_copy;
struct block_driver;
struct block_extent;
struct io_vector;
struct node;

extern const struct block_driver copy_before_write_driver;

/* What is still to be saved; of a node of that driver. */
struct block_copy *copy_before_write_copy(const struct node *node);

/* Negative errno of the failure by which the saved state was lost; 0: it is whole. Any loop. */
int copy_before_write_lost(const struct node *node);

/* Reads the saved state, and says what lies there; inside a request of a node above. As I/O functions of drivers. */
int CO_FN co_copy_before_write_read(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov);
int CO_FN co_copy_before_write_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                      struct block_extent *ret);
