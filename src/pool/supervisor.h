/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a supervisor such as systemd hands to the daemon and hears from it: sockets that it has made, and how we are. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;

enum pool_socket { POOL_SOCKET_MAIN, POOL_SOCKET_READ_ONLY, POOL_SOCKET_ADMIN, POOL_SOCKET__MAX };

enum { SUPERVISOR_SAME_MAX = 16 };

/* Descriptors by enum pool_socket: a unit may listen in several places, and all of its sockets have one name. */
struct supervisor_sockets {
    bool used; /* at least one was handed over */
    unsigned counts[POOL_SOCKET__MAX];
    int fds[POOL_SOCKET__MAX][SUPERVISOR_SAME_MAX]; /* -1: none, or taken */
};

/*
 * Takes what the environment says, and the variables out of it. A list without names is no activation, as for libvirt's
 * daemons: a warning. False: a name that is none of ours (read-only: of root's daemon only). Before any thread exists.
 */
bool supervisor_take_sockets(bool privileged, struct supervisor_sockets *ret, struct error **err) MUST_CHECK;

/* Tells the supervisor, where there is one. */
void supervisor_tell_ready(void);
void supervisor_tell_reloading(void);
void supervisor_tell_stopping(void);
