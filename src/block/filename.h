/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of images, taken apart. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

struct error;
struct json;

/* Length of the protocol that `filename` begins with ("nbd" of "nbd://host"), before the colon; 0: it is a path. */
size_t filename_protocol_length(const char *filename);

/* The options of the protocol node that `filename` (not "json:") names, an object with its driver; owned. */
struct json *CO_FN co_filename_protocol_options(const char *filename, struct error **err) MUST_CHECK;

/* The driver for the path as it is: "file", or "host_device" and "host_cdrom" for devices. */
const char *CO_FN co_filename_path_driver(const char *path);

/* What stands behind "json:", with objects in the place of dotted keys; owned. */
struct json *filename_json_options(const char *filename, struct error **err) MUST_CHECK;
