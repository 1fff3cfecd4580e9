/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mounting, which libfuse does, as an ordinary user too: a module, as most runs mount nothing. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "crypto/module.h"

struct error;

struct fuse_mount;

/* The table of the module. All may block for some milliseconds; none may run twice at the same time. */
struct fuse_mounter {
    struct module_head head;
    /*
     * Mounts on the file `mountpoint`; `options` as of mount(8). The device's descriptor in *ret_fd, borrowed until
     * unmount(). NULL: it could not, and libfuse has said why on stderr.
     */
    struct fuse_mount *(*mount)(const char *mountpoint, const char *options, int *ret_fd);
    /* Unmounts, unless somebody else already has, closes the descriptor and frees. false: the system did not let us. */
    bool (*unmount)(struct fuse_mount *mount);
    /* Takes away a mount whose server has died. */
    bool (*clean)(const char *mountpoint);
    /* Whether an export, of whichever process, is mounted there: a second one above it would hide it. */
    bool (*is_taken)(const char *mountpoint);
};

/* NULL and the error, which names the package, where the module is missing. */
const struct fuse_mounter *fuse_mounter_get(struct error **err) MUST_CHECK;
