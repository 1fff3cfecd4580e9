/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mode, owner, group and label of a pool's target or a volume. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"

struct pool_error;
struct stat;
struct xml_writer;

/* -1 and NULL: not known, not asked for. */
struct permissions {
    int32_t mode;
    int64_t owner;
    int64_t group;
    char *label; /* of the security module; owned */
};

#define PERMISSIONS_NONE                                                                                               \
    {                                                                                                                  \
        .mode = -1, .owner = -1, .group = -1                                                                           \
    }

void permissions_init(struct permissions *permissions);
void permissions_clear(struct permissions *permissions);
void permissions_copy(struct permissions *to, const struct permissions *from); /* `to` is cleared first */

/* Reads the element "permissions" below `node` (an element of libxml2), where there is one. */
bool permissions_parse(struct permissions *ret, const void *node, struct pool_error **err) MUST_CHECK;
void permissions_append(const struct permissions *permissions, struct xml_writer *writer);

/* What `status` says; the label is left. */
void permissions_from_stat(struct permissions *permissions, const struct stat *status);

/* The label of the file in `path` (the link's target), owned; NULL: none. Blocks. */
char *file_label(const char *path);
