/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other options for an image that is open. Main loop. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "cli/image-open.h"

struct image_reopen {
    const struct json *options; /* that change, nested; borrowed; NULL: none */
    bool has_writable;
    bool writable;
    bool has_cache;
    struct cache_mode cache;
};

/*
 * All of it or nothing, by one change of the graph: requests of others go on after it. The image has a new handle
 * afterwards, or the old one where it fails; nobody may be using it.
 */
bool CO_FN co_image_reopen(struct tool *tool, struct image *image, const struct image_reopen *change,
                           struct error **err) MUST_CHECK;
