/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A volume's file comes into being under a passing name in the pool's directory, and takes its place when it is whole:
 * so whatever happens, the place has nothing or all of it. Under the passing name it is locked; what a daemon that died
 * has left is not locked, and removed when somebody lists the directory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct pool_error;
struct volume;

/* Zero: an empty file that waits under its passing name. */
struct new_file_options {
    uint64_t length, allocated; /* bytes; the file reads as zeroes */
    bool at_once;               /* it is whole with that, and takes its place */
    bool folder;                /* a directory, which always does */
    const bool *stop;           /* writing zeroes ends early, with an error, when it has become true; NULL: never */
};

/* Makes the file of `volume`, with owner and mode as that says; at_once: as for co_new_file_place(). The descriptor,
 * owned (>= 0; of nothing in particular for a folder); -1: *err, and nothing is there. Main loop. */
int CO_FN co_new_file_make(struct volume *volume, const struct new_file_options *options,
                           struct pool_error **err) MUST_CHECK;

/* It takes its place, and `volume` has its sizes and times; a place that is taken meanwhile is an error. */
bool CO_FN co_new_file_place(struct volume *volume, struct pool_error **err);

/* After a failure: removes it, where it has not taken its place. */
void CO_FN co_new_file_discard(struct volume *volume);

/* Whether a file in a pool's directory has a passing name; removes one that nobody is working on. The second blocks:
 * for worker threads. */
bool new_file_has_such_name(const char *name);
void new_file_clean_up(int folder, const char *name);
