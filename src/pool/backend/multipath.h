/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Multipath devices as the kernel shows them below `sysfs` ("/sys"). */
#pragma once

#include <glib.h>

struct multipath {
    unsigned minor;
    char *name; /* of its node in /dev/mapper; owned */
};

/* struct multipath, by number; freed with the array. Blocks: for worker threads. */
GArray *multipath_list(const char *sysfs);
