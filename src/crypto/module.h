/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loadable modules: what needs a library that most runs of the program do without. A module exports one constant table,
 * and is loaded when the first object asks for it.
 */
#pragma once

#include "base/compiler.h"

struct error;

/* Starts the table of every module: a module of another build is refused. */
struct module_head {
    const char *version; /* ASHLAR_VERSION */
};

/*
 * The table `symbol` of the module `name` (its file is ashlar-NAME.so), which stays loaded from then on. It is sought
 * in ASHLAR_MODULE_DIR, or else where it was installed or built, seen from the program's own file. NULL and the error,
 * which says that `package` brings what is missing. May be called by any thread, and may block it for some
 * milliseconds.
 */
const struct module_head *module_table(const char *name, const char *symbol, const char *package,
                                       struct error **err) MUST_CHECK;
