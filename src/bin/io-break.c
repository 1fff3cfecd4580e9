/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands about breakpoints, which are for images on a driver that has such; none of this build's does. */
#include <errno.h>
#include <glib.h>
#include <stdio.h>

#include "bin/io.h"

static bool fail(const char *what)
{
    printf("%s: %s\n", what, g_strerror(ENOTSUP));
    return false;
}

bool co_io_break(struct io_session *session, int count, char **words)
{
    return fail("Could not set breakpoint");
}

bool co_io_remove_break(struct io_session *session, int count, char **words)
{
    g_autofree char *what = g_strdup_printf("Could not remove breakpoint %s", words[1]);

    return fail(what);
}

bool co_io_resume(struct io_session *session, int count, char **words)
{
    return fail("Could not resume request");
}

/* It would wait for ever. */
bool co_io_wait_break(struct io_session *session, int count, char **words)
{
    g_autofree char *what = g_strdup_printf("Could not wait for breakpoint %s", words[1]);

    return fail(what);
}
