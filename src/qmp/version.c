/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/version.h"

#include "gen/types.h"

const char version_package[] = "ashlar " ASHLAR_VERSION;

struct version_info *version_info_new(void)
{
    struct version_info *version = g_new0(struct version_info, 1);

    version->qemu = g_new0(struct version_triple, 1);
    version->qemu->major = VERSION_INTERFACE_MAJOR;
    version->qemu->minor = VERSION_INTERFACE_MINOR;
    version->qemu->micro = VERSION_INTERFACE_MICRO;
    version->package = g_strdup(version_package);
    return version;
}
