/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "base/compiler.h"
#include "block/driver.h"

struct node;

extern const struct block_driver blkdebug_driver;

/*
 * Breakpoints: the next request that comes to the event is held up under the tag, a name that the caller chooses, until
 * it is resumed. For the first blkdebug node from `node` down along what each shows. A drain lets go all that is held.
 * Any loop. All return 0, or -ENOTSUP: there is no such node.
 */

/* `on_held` (optional) hears when a request is held, on the request's loop. -ENOENT: there is no such event. */
int blkdebug_break(const struct node *node, const char *event, const char *tag, void (*on_held)(const char *tag));

/* Takes the breakpoints with the tag (NULL: all) away and lets go what they hold. -ENOENT: there was none; who stands
 * at one has used it up, and is let go all the same. */
int blkdebug_remove_break(const struct node *node, const char *tag);

/* Lets go what is held under the tag (NULL: any): the request that has come first, or all. -ENOENT: there is none. */
int blkdebug_resume(const struct node *node, const char *tag, bool all);

/* Waits for a request to be held under the tag. */
int CO_FN co_blkdebug_wait_break(const struct node *node, const char *tag);

/* 1 or 0: whether one is held now. */
int blkdebug_is_held(const struct node *node, const char *tag);
