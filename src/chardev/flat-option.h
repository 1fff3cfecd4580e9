/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The flat form of --chardev: "BACKEND,key=value,...", where all backends share one list of keys, and how it becomes a
 * ChardevBackend. Pure functions. Private to this folder.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct json;

/* What an option line asks for. */
struct flat_option {
    char *id;             /* owned */
    struct json *backend; /* owned: a ChardevBackend */
    bool mux;             /* a mux on top of it is to have the id */
    bool help;            /* only an explanation is wanted: of `type`, or of all */
    char *type;           /* owned; may be NULL with `help` */
};
void flat_option_done(struct flat_option *option);

/* Zero-filled *ret; on failure nothing has to be freed. */
bool flat_option_parse(const char *text, struct flat_option *ret, struct error **err) MUST_CHECK;

/* What "help" prints: the backends, or the options of one (NULL where there is no such backend). Owned. */
char *flat_option_help(const char *type);
