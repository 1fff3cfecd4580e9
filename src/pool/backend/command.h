/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Running other programs: found in PATH, or by an absolute path, with a clean environment (PATH, LC_ALL=C, HOME), no
 * input, and a bounded output. A program runs while its coroutine waits; others go on. Main loop or any other loop's
 * coroutine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct json;
struct pool_error;

enum { COMMAND_OUTPUT_MAX = 64 * 1024 * 1024 };

/* What takes longer hangs, and is killed: a server is gone, or a device does not answer. When the daemon ends, all have
 * little time left (process_stop_all()): POOL_ERROR_ABORTED. */
enum { COMMAND_TIME_MAX_S = 180 };

/* What a program that has run left behind. Zero-filled at first; command_result_clear(). */
struct command_result {
    int status;   /* exit status; 128 + the signal's number where one ended it */
    char *output; /* NUL-terminated beyond output_size */
    size_t output_size;
    char *errors; /* what it wrote to its standard error, at most 64 KiB of it */
};
void command_result_clear(struct command_result *result);

/*
 * Runs `argv` (ended by NULL). False: it could not be started ("Cannot find 'x' in path", POOL_ERROR_SYSTEM) or did not
 * end with status 0 ("Child process (x y) unexpected exit status 1: text"), and `ret` is empty. `ret` may be NULL.
 */
bool CO_FN co_command_run(const char *const *argv, struct command_result *ret, struct pool_error **err);

/* The same for work that takes as long as the device is large: nothing but the daemon's end cuts it short. */
bool CO_FN co_command_work(const char *const *argv, struct pool_error **err);

/* The same as co_command_run(), but any exit status is a success; see `ret->status`. */
bool CO_FN co_command_try(const char *const *argv, struct command_result *ret, struct pool_error **err);

/* co_command_run(), and its output as JSON (lvs --reportformat json). Owned; NULL: *err. */
struct json *CO_FN co_command_json(const char *const *argv, struct pool_error **err);

/* Whether there is such a program; blocks for as long as looking into the directories of PATH takes. */
bool command_exists(const char *name);

/* Waits until udev has made the nodes of all devices that the kernel knows; does nothing where there is no udev. */
void CO_FN co_command_settle(void);
