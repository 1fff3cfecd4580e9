/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the options of a qcow2 node mean for an image. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct blockdev_options_qcow2;
struct error;
struct qcow2_header;
struct qcow2_settings;

/* `discard_unmap`: discards of users go on to the file unless the options say otherwise. Pure. */
bool qcow2_settings_parse(const struct blockdev_options_qcow2 *options, const struct qcow2_header *header,
                          bool discard_unmap, struct qcow2_settings *ret, struct error **err) MUST_CHECK;
