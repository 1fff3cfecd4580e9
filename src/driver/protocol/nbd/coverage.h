/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which parts of a read have come: a server may send them in any order, but none twice, and has to send all. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

/* Zero-filled memory: nothing has come. */
struct nbd_coverage {
    uint64_t prefix; /* bytes from the start on without a gap */
    GArray *later;   /* of struct nbd_part, beyond a gap, in order; NULL: none */
};

/* The part [offset, offset + bytes), at least a byte, has come. False: some of it had come before, or there are too
 * many parts. */
bool nbd_coverage_add(struct nbd_coverage *coverage, uint64_t offset, uint64_t bytes) MUST_CHECK;
void nbd_coverage_done(struct nbd_coverage *coverage);
