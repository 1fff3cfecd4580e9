/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands as the dispatcher sees them; gen/commands.c makes one of each command in the schema. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

struct daemon;
struct error;
struct json;

struct qmp_command {
    const char *name;
    /* Checks `arguments` (an object), runs the handler, and writes what it returns to *ret, owned. */
    bool (*co_run)(struct daemon *daemon, const struct json *arguments, struct json **ret, struct error **err);
    bool allow_oob; /* may be executed out of band */
    bool deprecated;
    bool unstable;
};

/* Sorted by name. */
extern const struct qmp_command qmp_commands[];
extern const size_t qmp_command_count;

/* For commands without arguments: refuses any member of `arguments`. */
bool qmp_command_takes_none(const struct json *arguments, struct error **err) MUST_CHECK;
