/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file that tells scripts our process id. It is locked as long as we live, so that there is one of us a file. */
#pragma once

#include <sys/types.h>

#include "base/compiler.h"

struct error;
struct pid_file;

/* Creates `path` with `mode`, or takes over one that nobody holds, and writes our process id; NULL and the error. */
struct pid_file *CO_FN co_pid_file_new(const char *path, mode_t mode, struct error **err) MUST_CHECK;

/* Removes the file, unless another one has taken its place. NULL is allowed. */
void CO_FN co_pid_file_free(struct pid_file *file);
