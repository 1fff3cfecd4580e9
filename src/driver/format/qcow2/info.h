/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What users are told of an open qcow2 image: slots of the driver and of its `image` group. Main loop; owned results.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"

struct error;
struct image_info_specific;
struct node;

struct image_info_specific *CO_FN qcow2_co_get_specific_info(struct node *node);

char *qcow2_backing_file(const struct node *node);
char *qcow2_backing_format(const struct node *node);
bool CO_FN qcow2_co_change_backing_file(struct node *node, const char *file, const char *format, struct error **err);
