/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Telnet on top of a stream. Private to this folder. */
#pragma once

#include "base/compiler.h"
#include "chardev/telnet.h"

struct chardev;
struct stream;

/* Takes `lower` in any case; NULL where it breaks at once. Breaks that come in are noted at `chardev`. */
struct stream *CO_FN co_telnet_stream_new(struct stream *lower, const struct telnet_role *role,
                                          struct chardev *chardev) MUST_CHECK;

/* 0 or -errno. */
int CO_FN co_telnet_stream_send_break(struct stream *stream);
