/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The front end's side of the vhost-user protocol. */
#pragma once

#include "base/compiler.h"

struct error;
struct virtio_transport;

/* Connects to the back end that listens on the Unix socket `path`; NULL and the error. */
struct virtio_transport *CO_FN co_vhost_user_connect(const char *path, struct error **err) MUST_CHECK;
