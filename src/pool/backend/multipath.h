/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Multipath devices as the kernel shows them below `sysfs` ("/sys"). */
#pragma once

#include <glib.h>

struct multipath {
    unsigned minor;
    char *name; /* of its node in /dev/mapper; owned */
};

/*
 * struct multipath, by number; freed with the array. What kind of map each is says the device mapper at `control`
 * ("/dev/mapper/control"); where it does not, since only root may ask it, the identifiers of multipathd's maps do.
 * Blocks: for worker threads.
 */
GArray *multipath_list(const char *sysfs, const char *control);
