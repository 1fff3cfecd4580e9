/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/fuse/mount.h"

const struct fuse_mounter *fuse_mounter_get(struct error **err)
{
    const struct module_head *head = module_table("fuse", "ashlar_fuse", "libfuse3-3", err);

    return head ? container_of(head, struct fuse_mounter, head) : NULL;
}
