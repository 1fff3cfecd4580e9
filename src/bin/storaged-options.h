/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the options of ashlar-storaged are, and what each does to a daemon. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "cli/option.h"

struct daemon;
struct error;

enum storaged_option {
    STORAGED_HELP,
    STORAGED_VERSION,
    STORAGED_TRACE,
    STORAGED_BLOCKDEV,
    STORAGED_CHARDEV,
    STORAGED_DAEMONIZE,
    STORAGED_EXPORT,
    STORAGED_MONITOR,
    STORAGED_NBD_SERVER,
    STORAGED_OBJECT,
    STORAGED_PIDFILE,
};

extern const struct option storaged_options[];

/*
 * Does what one option that is neither about the process nor a question asks for. In *ret_help whether it was a
 * question after all ("help"), which has been answered on standard output.
 */
bool CO_FN co_storaged_option_apply(struct daemon *daemon, const struct option_use *use, bool *ret_help,
                                    struct error **err) MUST_CHECK;

/* Whether the option makes a character device of the standard streams. */
bool storaged_option_uses_streams(const struct option_use *use);

/* How messages name the option: as it stood on the command line, but for the bytes of a secret; owned. */
char *storaged_option_shown(const struct option_use *use);
