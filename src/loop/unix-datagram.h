/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Single messages to Unix datagram sockets of the system: its log, and who has started us. */
#pragma once

#include <stddef.h>

/* Sends one message to the socket at `path` ('@' first: an abstract name), and does not wait for room: 0 or -errno. Any
 * thread, with or without a loop. */
int unix_datagram_send(const char *path, const void *message, size_t size);
