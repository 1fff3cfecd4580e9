/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands about breakpoints, which are for images on blkdebug. */
#include <errno.h>
#include <glib.h>
#include <stdio.h>

#include "bin/io.h"
#include "driver/filter/blkdebug.h"

static const struct node *node_of(const struct io_session *session)
{
    return session->image->node;
}

/* Whether `result` is 0; else it is said. */
static bool report(const char *what, int result)
{
    if (result < 0)
        printf("%s: %s\n", what, g_strerror(-result));
    return result >= 0;
}

static void say_held(const char *tag)
{
    printf("blkdebug: Suspended request '%s'\n", tag);
    fflush(stdout);
}

bool co_io_break(struct io_session *session, int count, char **words)
{
    return report("Could not set breakpoint", blkdebug_break(node_of(session), words[1], words[2], say_held));
}

static void say_resumed(const struct io_session *session, const char *tag)
{
    if (blkdebug_is_held(node_of(session), tag) > 0)
        printf("blkdebug: Resuming request '%s'\n", tag);
}

bool co_io_remove_break(struct io_session *session, int count, char **words)
{
    g_autofree char *what = g_strdup_printf("Could not remove breakpoint %s", words[1]);

    say_resumed(session, words[1]);
    return report(what, blkdebug_remove_break(node_of(session), words[1]));
}

bool co_io_resume(struct io_session *session, int count, char **words)
{
    say_resumed(session, words[1]);
    return report("Could not resume request", blkdebug_resume(node_of(session), words[1], false));
}

bool CO_FN co_io_wait_break(struct io_session *session, int count, char **words)
{
    g_autofree char *what = g_strdup_printf("Could not wait for breakpoint %s", words[1]);

    return report(what, co_blkdebug_wait_break(node_of(session), words[1]));
}
