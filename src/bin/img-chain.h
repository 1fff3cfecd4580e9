/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An image and those below it, by the names in their headers. */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct image_info;
struct image_open;
struct tool;

/*
 * What the image and, where `whole`, each of its backing images is, the top one first: each is opened by itself, with
 * `top` as it says for the first. Owned array of struct image_info *, at least one; NULL and the error: one of them
 * cannot be opened, or the chain has no end.
 */
GPtrArray *CO_FN co_img_chain(struct tool *tool, const struct image_open *top, bool whole,
                              struct error **err) MUST_CHECK;
