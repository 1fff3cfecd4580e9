/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asking polkit, over the system's message bus, whether a process may do something. Main loop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct polkit;
struct pool_error;

/* A process, beyond doubt: numbers of processes are used again. */
struct polkit_subject {
    pid_t pid;
    uint64_t start; /* when it began, in the kernel's ticks */
    uid_t uid;
};

struct polkit_question {
    const struct polkit_subject *subject;
    const char *action;
    const char *const *details; /* name, value, ..., NULL; may be NULL */
    bool interactive;           /* the user may be asked for a password, which takes its time */
};

enum polkit_answer { POLKIT_GRANTED, POLKIT_DENIED, POLKIT_NO_AGENT, POLKIT_DISMISSED };

struct polkit *polkit_new(void);
void polkit_free(struct polkit *polkit); /* NULL is allowed */

/* False: *err, there is no answer. */
bool CO_FN co_polkit_ask(struct polkit *polkit, const struct polkit_question *question, enum polkit_answer *ret,
                         struct pool_error **err) MUST_CHECK;

/* When the process began; 0: it is gone. */
uint64_t CO_FN co_process_start(pid_t pid);
