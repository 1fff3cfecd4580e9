/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The element <encryption> of volumes. Any thread. */
#pragma once

#include <libxml/tree.h>

#include "base/compiler.h"

struct pool_error;
struct volume_encryption;
struct xml_writer;

/* `node` is the element itself. Owned; NULL: *err. */
struct volume_encryption *encryption_parse(const xmlNode *node, struct pool_error **err) MUST_CHECK;
void encryption_append(const struct volume_encryption *encryption, struct xml_writer *writer);
