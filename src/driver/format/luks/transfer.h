/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading and writing the data of a LUKS volume: requests of the node. Any loop. 0 or -errno. */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"

struct node;

int CO_FN luks_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags);
int CO_FN luks_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags);
