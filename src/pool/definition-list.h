/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is defined, as the files NAME.xml of a directory have it: pools and secrets. */
#pragma once

#include <glib.h>

#include "base/compiler.h"

/*
 * The names of `directory` without the ending, in order: *ret is owned, and set in any case. 0, also where there is no
 * such directory; or -errno, then *ret has what could be read.
 */
int CO_FN co_definition_list(const char *directory, GStrv *ret) MUST_CHECK;
