/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/nbd/budget.h"

#include <assert.h>
#include <glib.h>
#include <stdatomic.h>

#include "base/checked.h"

/* What the connection may hold in all while the others hold what they do. */
static uint64_t allowance_limit(const struct nbd_allowance *allowance)
{
    uint64_t reserved = atomic_load_explicit(&allowance->budget->reserved, memory_order_relaxed);
    uint64_t others = reserved - allowance->reserved;
    uint64_t left = others < NBD_SERVER_BYTES_MAX ? NBD_SERVER_BYTES_MAX - others : 0;

    return MIN(left / 4, NBD_CLIENT_BYTES_MAX);
}

static void allowance_reserve(struct nbd_allowance *allowance, uint64_t bytes)
{
    /* The sum of two threads' steps may pass a limit by a step; what counts is that it is bounded. */
    atomic_fetch_add_explicit(&allowance->budget->reserved, bytes - allowance->reserved, memory_order_relaxed);
    allowance->reserved = bytes;
}

bool nbd_allowance_take(struct nbd_allowance *allowance, uint64_t bytes)
{
    uint64_t needed = allowance->used + bytes;

    if (needed > allowance->reserved) {
        if (allowance->used && needed > allowance_limit(allowance))
            return false;
        allowance_reserve(allowance, align_up(needed, NBD_ALLOWANCE_STEP));
    }
    allowance->used = needed;
    return true;
}

void nbd_allowance_give(struct nbd_allowance *allowance, uint64_t bytes)
{
    assert(bytes <= allowance->used);
    allowance->used -= bytes;
    if (!allowance->used && allowance->reserved > NBD_ALLOWANCE_STEP)
        allowance_reserve(allowance, NBD_ALLOWANCE_STEP);
}

void nbd_allowance_done(struct nbd_allowance *allowance)
{
    assert(!allowance->used);
    allowance_reserve(allowance, 0);
}
