/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Other programs, run to their end while the coroutine waits. */
#pragma once

#include <stddef.h>

#include "base/compiler.h"

/* Zero is the default of each but argv. */
struct process_run {
    const char *const *argv;        /* ended by NULL; argv[0] is looked for in PATH */
    const char *const *environment; /* ended by NULL; NULL: empty */
    const void *input;              /* its standard input; NULL: none */
    size_t input_size;
    size_t output_max; /* bytes kept of its output: more ends it with -EFBIG; 0: none is wanted */
    size_t errors_max; /* bytes kept of its standard error; the rest is dropped */
    int timeout_ms;    /* after so long it is killed with all that it has started, and it is -ETIMEDOUT; 0: never */
};

struct process_result {
    int status;   /* exit status; 128 + the number of the signal that ended it */
    char *output; /* owned, NUL-terminated; NULL on failure */
    size_t output_size;
    char *errors; /* owned, NUL-terminated */
};

/* 0 when it has run to its end, or -errno: -ENOENT where there is no such program; -ECANCELED: see below. */
int CO_FN co_process_run(const struct process_run *run, struct process_result *ret);

/*
 * The loop is about to end, and no program may keep it from that. Those that its coroutines run have `grace_ms` left;
 * then they are asked to end (SIGTERM), and a second later killed, with all that they have started: -ECANCELED. The
 * same holds for programs that are started from now on, to tidy up; after three times `grace_ms` none is started any
 * more. For good; only the first call counts. Loop's thread.
 */
void process_stop_all(unsigned grace_ms);
