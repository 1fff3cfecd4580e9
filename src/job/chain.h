/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backing chains as jobs see them: images, and the filters between them. Main loop. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct node;

/* The node itself, or the image below the filters that it is the first of. */
struct node *chain_skip_filters(struct node *node);

/* What stands below in the chain: the backing image of an image, what a filter filters; NULL: nothing. */
struct node *chain_next(const struct node *node);

/* Whether `below` is in the chain that begins with `top`. */
bool chain_contains(struct node *top, const struct node *below);

/* The one in the chain below `top` that was opened as `filename`; NULL: none. */
struct node *chain_find_file(struct node *top, const char *filename);

/*
 * Writes into the header of `node` that its backing image is `backing` (NULL: none), by its file name or by `filename`.
 * The node is made writable for that. `mask`: a protocol is called "raw".
 */
bool CO_FN co_chain_write_backing(struct node *node, struct node *backing, const char *filename, bool mask,
                                  struct error **err) MUST_CHECK;
