/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a parent does with a child node, and what it lets the node's other parents do. Bits as on disk in lock bytes. */
#pragma once

#include <stdint.h>

enum permission {
    PERM_CONSISTENT_READ = 1u << 0, /* data that makes sense */
    PERM_WRITE = 1u << 1,
    PERM_WRITE_UNCHANGED = 1u << 2, /* writes that leave the visible data as it is */
    PERM_RESIZE = 1u << 3,
    PERM_ALL = (1u << 4) - 1,
};

/* "consistent read", "write", ...: of one bit. */
const char *permission_name(enum permission bit);
