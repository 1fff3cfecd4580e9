/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A vDPA device of the kernel's, by its character device. */
#pragma once

#include "base/compiler.h"

struct error;
struct virtio_transport;

/* Opens /dev/vhost-vdpa-N; NULL and the error. */
struct virtio_transport *CO_FN co_vhost_vdpa_connect(const char *path, struct error **err) MUST_CHECK;
