/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes in XML: a number in an element, its unit in an attribute. Any thread. */
#pragma once

#include <libxml/tree.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct pool_error;

/* Bytes of the element `name` below `node`; *ret_found false and *ret left where it is not there. */
bool xml_get_size(const xmlNode *node, const char *name, uint64_t *ret, bool *ret_found, struct pool_error **err);

/* What `unit` (NULL: bytes) stands for, in bytes; 0: unknown. */
uint64_t size_unit(const char *unit);
