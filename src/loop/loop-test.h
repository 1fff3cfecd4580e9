/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running the same test case on each back end. Private to the tests of this folder. */
#pragma once

#include <glib.h>

#include "loop/loop.h"

/* Registers /NAME/BACKEND for each back end, or for those that do real I/O; where the kernel forbids io_uring, that one
 * is passed over. */
void loop_test_add(const char *name, co_entry *entry);
void loop_test_add_real(const char *name, co_entry *entry);

/* Two connected sockets of the running loop's kind. */
void loop_test_socket_pair(int ret_fds[2]);

/* A path for a file of the running loop; owned. The directory is removed by loop_test_finish(). */
char *loop_test_path(const char *name);

/* g_test_run(), then cleans up. */
int loop_test_finish(void);

/* A second loop in a thread of its own, of the running loop's kind. */
struct loop_thread *loop_test_thread(void);
