/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every tool is: a graph and objects of its own on one loop, for as long as one piece of work takes. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct graph;
struct object_registry;

struct tool {
    const char *program; /* for messages; also of log_report() */
    struct object_registry *objects;
    struct graph *graph;
    unsigned images; /* opened so far; for names */
};

/*
 * Runs `co_main` as a coroutine of a new loop, with a tool that has nothing in it yet, and returns the status that it
 * returns. What is left in the graph is closed after it. `program` must stay. SIGUSR1 is blocked, for cli/progress.h.
 * The loop may block (loop.h) where the tool does one thing and ends; it must not where it serves somebody.
 */
typedef int tool_main(struct tool *tool, void *opaque);
int tool_run(const char *program, bool may_block, tool_main *co_main, void *opaque);

/* The message on standard error after the program's name, a hint on a line of its own. */
void tool_report(const struct error *error);
