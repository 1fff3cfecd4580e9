/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "base/trace.h"
#include "block/graph.h"
#include "loop/loop.h"
#include "object/object.h"

struct run {
    struct tool tool;
    tool_main *co_main;
    void *opaque;
    int status;
};

void tool_report(const struct error *error)
{
    log_error("%s", error_message(error));
    if (error_hint_text(error))
        (void)fprintf(stderr, "%s\n", error_hint_text(error));
}

static void CO_FN co_run_main(void *opaque)
{
    struct run *run = opaque;

    run->tool.objects = object_registry_new();
    run->tool.graph = graph_new(run->tool.objects, NULL);
    run->status = run->co_main(&run->tool, run->opaque);
    co_graph_free(run->tool.graph);
    co_object_registry_free(run->tool.objects);
}

int tool_run(const char *program, bool may_block, tool_main *co_main, void *opaque)
{
    struct loop_options options = {
        .name = "main",
        .may_block = may_block,
        .poll_max_ns = may_block ? 0 : LOOP_POLL_MAX_NS_DEFAULT,
    };
    struct run run = {.tool = {.program = program}, .co_main = co_main, .opaque = opaque};
    AUTO(error) error = NULL;
    struct loop *loop;
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    loop = loop_new(&options, &error);
    if (!loop) {
        tool_report(error);
        return EXIT_FAILURE;
    }
    trace_set_clock(loop_wall_time_us);
    co_run(loop, co_run_main, &run);
    loop_free(loop);
    return run.status;
}
