/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How far a long piece of work is, for people and scripts. On a terminal a bar with rate and time left; elsewhere lines
 * "    (12.00/100%)\r" as scripts expect them. Where none was asked for, SIGUSR1 shows one on standard error.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "block/image.h"

struct co_task;

struct progress {
    struct image_progress image; /* for drivers that report; units of their own */
    bool shown;
    bool terminal;
    bool ended;     /* its line is through */
    bool cleared;   /* atomic: the line is empty at the moment */
    bool own_units; /* not bytes: no rate of them is shown */
    uint64_t done;
    uint64_t total;
    int64_t started_ns;
    int64_t shown_ns;        /* when a line was last shown */
    double shown_percent;    /* in it; below 0: none yet */
    struct co_task *signals; /* waits for SIGUSR1; NULL: nobody does */
};

/* `shown`: asked for, and not quiet. `total`: bytes, for the rate. The signal is blocked (cli/tool.h). */
void progress_begin(struct progress *progress, bool shown, uint64_t total);
void progress_add(struct progress *progress, uint64_t bytes);

/*
 * Something else is about to be said: on a terminal the bar goes out of its way, and comes back with the next step; or
 * is shown in full for the last time where the work is `complete`. Elsewhere nothing happens. Any thread where not.
 */
void progress_make_way(struct progress *progress, bool complete);

/* What a terminal of so many columns shows; owned. Fits, with the last column free. */
char *progress_line(const struct progress *progress, int64_t now_ns, unsigned columns);

/* The work is through, in full where `complete`; ends the line. */
void CO_FN co_progress_end(struct progress *progress, bool complete);
