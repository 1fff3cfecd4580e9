/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* "--trace [[enable=]PATTERN][,events=FILE][,file=FILE]", an option of every program. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct option_use;

/* Does what it asks for. In *ret_help whether it was a question ("help"), which has been answered on standard output.
 */
bool CO_FN co_trace_option_apply(const struct option_use *use, bool *ret_help, struct error **err) MUST_CHECK;
