/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sets of processors, and the system's notation of them: "0-3,8,10-11". */
#pragma once

#include <sched.h>
#include <stdbool.h>

#include "base/compiler.h"

struct cpu_list {
    cpu_set_t set;
};

/* False where the number is more than a set can hold. */
bool cpu_list_add(struct cpu_list *list, unsigned long cpu) MUST_CHECK;

/* Adds what `text` names (white space at its end is allowed); false where it is no such list. */
bool cpu_list_parse(struct cpu_list *list, const char *text) MUST_CHECK;
