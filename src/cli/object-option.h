/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* "--object TYPE,id=ID[,...]", an option of the tools. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct object_registry;

/* Makes the object. In *ret_help whether it was a question ("help"), which has been answered on standard output. */
bool CO_FN co_object_option_apply(struct object_registry *objects, const char *text, bool *ret_help,
                                  struct error **err) MUST_CHECK;
