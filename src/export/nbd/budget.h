/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much memory requests may hold: of one connection, and of a whole server.
 *
 * Each connection has an allowance. It may always hold the memory of one request; beyond that at most
 * NBD_CLIENT_BYTES_MAX, and at most a quarter of what the others leave of the server's budget. So a few connections
 * that stopped reading can never take it all: a newcomer finds the more left, the fewer there are.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum {
    NBD_CLIENT_BYTES_MAX = 4 * 1024 * 1024, /* more in flight only falls out of the processor's caches */
    NBD_SERVER_BYTES_MAX = 256 * 1024 * 1024,
    NBD_ALLOWANCE_STEP = 1024 * 1024, /* taken from and given back to the budget in such steps: seldom */
};

/* Zero-filled is empty. */
struct nbd_budget {
    _Atomic uint64_t reserved; /* bytes; any thread */
};

/* Zero-filled but for `budget`. For one loop. */
struct nbd_allowance {
    struct nbd_budget *budget;
    uint64_t reserved; /* our part of the budget */
    uint64_t used;     /* of it */
};

/* Takes `bytes` (0 is fine) if they may be held now. When refused, it is worth another try after the next give(). */
bool nbd_allowance_take(struct nbd_allowance *allowance, uint64_t bytes) MUST_CHECK;
void nbd_allowance_give(struct nbd_allowance *allowance, uint64_t bytes);

/* Everything has been given back: leaves the budget. */
void nbd_allowance_done(struct nbd_allowance *allowance);
