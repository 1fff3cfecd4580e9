/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images that keep what is written for as long as a tool runs. Main loop. */
#pragma once

#include "base/compiler.h"

struct error;
struct image;
struct tool;

/*
 * An image over `base`, which takes all writes and is gone when it is closed; its file, in $TMPDIR or /var/tmp, has no
 * name any more. To be closed before `base`. NULL and the error.
 */
struct image *CO_FN co_temporary_image_open(struct tool *tool, struct image *base, struct error **err) MUST_CHECK;
