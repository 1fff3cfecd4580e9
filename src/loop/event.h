/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Event descriptors (eventfd(2)) that another process or thread has, too, together with the shared memory that they
 * tell of. Whoever waits is woken by the descriptor or by a look into the memory: the loop looks once a turn, which is
 * cheaper for both sides than a signal; so the other side need be asked for signals only when the loop goes to sleep.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct event_source;

/* A few instructions each, on the source's loop, while somebody waits; nothing may suspend. */
struct event_source_ops {
    bool (*look)(void *opaque); /* whether there is something to do */
    bool (*rest)(void *opaque); /* the loop is about to sleep: asks the other side for a signal, then looks again */
};

/*
 * A source on the calling loop. `fd` is borrowed and must stay open; it is never read. `ops` NULL: only the descriptor
 * counts. NULL and the error: it is no event descriptor.
 */
struct event_source *event_source_new(int fd, const struct event_source_ops *ops, void *opaque,
                                      struct error **err) MUST_CHECK;

/* Waits until there may be something to do: 0; or -ECANCELED, -ETIMEDOUT, -errno. One coroutine at a time. */
int CO_FN co_event_wait(struct event_source *source) MUST_CHECK;

/* Nobody waits. On its loop; NULL is allowed. */
void CO_FN co_event_source_free(struct event_source *source);

/* Whether writing to a descriptor from another process never waits, which makes signalling cheaper. */
bool event_is_nonblocking(int fd);

/*
 * Wakes who waits for the descriptor, at the end of the loop's turn; until then it must stay open (co_yield() sees to
 * that). `nonblocking`: as event_is_nonblocking() said. Whatever the other process does to it meanwhile, nothing waits:
 * at worst, nobody wakes.
 */
void event_signal(int fd, bool nonblocking);
