/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a parent does with a child node, and what it lets the node's other parents do. Bits as on disk in lock bytes. */
#pragma once

#include <stdbool.h>
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

/*
 * What a parent that its own parents use with `perm` and that they share as `shared` needs of a child in `role` (enum
 * edge_role), and leaves to the child's other parents. `writable`: the parent may be written to some day.
 *  - filtered: the same, both ways;
 *  - backing (EDGE_COW): to read where the parents read; others may write to it where the parents bear that;
 *  - metadata: always to read, and to write and resize where `writable`, as metadata changes by itself; others may
 * read;
 *  - data alone: the same as the parents, and to resize where they write; others may not resize.
 */
void permissions_by_role(unsigned role, bool writable, uint32_t perm, uint32_t shared, uint32_t *ret_perm,
                         uint32_t *ret_shared);
