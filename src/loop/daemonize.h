/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon's process. Going into the background: the process forks, and the parent waits until the child says that it
 * has started, or ends.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "loop/coroutine.h"

struct error;
struct loop_options;

enum daemonize_side { DAEMONIZE_FAILED, DAEMONIZE_PARENT, DAEMONIZE_CHILD };

/*
 * Forks; before any thread or loop exists. In the parent it returns when the child has started, with 0 in *ret_value,
 * or has ended without that, with its exit status. In the child, which leads a session of its own, *ret_value is a
 * descriptor for daemonize_finish().
 */
enum daemonize_side daemonize_fork(int *ret_value, struct error **err) MUST_CHECK;

/*
 * The child has started: it works in "/" from now on, with the null device as its standard streams; its parent ends
 * with status 0. `fd` is taken.
 */
bool daemonize_finish(int fd, struct error **err) MUST_CHECK;

/* Opens the null device for standard streams that are closed, so that no other descriptor gets their numbers. */
void daemonize_ensure_streams(void);

/*
 * Runs `entry` on a loop of these options that the calling thread gets for it, until it has returned. `signals`, ended
 * by 0, come by co_signal_wait() with *ret_set from now on; SIGPIPE is ignored. False: there is no loop.
 */
bool daemonize_run(const struct loop_options *options, const int *signals, sigset_t *ret_set, co_entry *entry,
                   void *opaque, struct error **err) MUST_CHECK;
