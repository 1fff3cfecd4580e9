/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The dirty bitmaps that are stored in an image, on their way to another. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct graph;
struct image;
struct node;

/* Whether all stored bitmaps of the node can be copied; `skip_broken`: inconsistent ones are none. */
bool img_bitmaps_check(const struct node *from, bool skip_broken, struct error **err) MUST_CHECK;

/* Copies them to `to`, as they are. */
bool CO_FN co_img_bitmaps_copy(struct graph *graph, const struct image *from, const struct image *to, bool skip_broken,
                               struct error **err) MUST_CHECK;
