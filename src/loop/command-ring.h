/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands to drivers of the kernel over io_uring (IORING_OP_URING_CMD), in entries of 128 bytes, which need a ring of
 * their own. A ring belongs to the loop on which it was made.
 */
#pragma once

#include <stdint.h>

#include "base/compiler.h"

struct command_ring;
struct error;

enum { COMMAND_RING_DATA_BYTES = 80 };

/* What it all means is the driver's business. */
struct ring_command {
    int fd;
    uint32_t operation;
    uint64_t address;
    uint32_t length;
    uint8_t data[COMMAND_RING_DATA_BYTES];
};

/* For up to `depth` commands at once. NULL and the error: the kernel cannot do it, or the loop is not on io_uring. In a
 * coroutine. */
struct command_ring *command_ring_new(unsigned depth, struct error **err) MUST_CHECK;

/*
 * Gives the command with others of the turn, and waits for its result: that of the driver, or -ECANCELED from when the
 * ring is closed. What the command refers to may be used by the driver until then.
 */
int CO_FN co_ring_command(struct command_ring *ring, const struct ring_command *command) MUST_CHECK;

/* Takes back what is under way: it ends with -ECANCELED. The driver may still be in the middle of a piece of it. */
void CO_FN co_command_ring_close(struct command_ring *ring);

/* It has been closed, and nobody is in co_ring_command(). NULL is allowed. */
void command_ring_free(struct command_ring *ring);
