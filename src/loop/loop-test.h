/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running the same test case on each back end. Private to the tests of this folder. */
#pragma once

#include <glib.h>

#include "loop/loop.h"

/* Runs `entry` as a coroutine on a new loop of `backend`; io_uring is passed over where the kernel forbids it. */
void loop_test_run(enum loop_backend backend, co_entry *entry, void *opaque);

/* Registers /NAME/BACKEND for each of the back ends that do real I/O, or for all. */
void loop_test_add_real(const char *name, co_entry *entry);
void loop_test_add(const char *name, co_entry *entry);
