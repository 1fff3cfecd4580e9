/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files and devices of the host as block drivers. */
#pragma once

struct block_driver;

extern const struct block_driver file_driver;
extern const struct block_driver host_device_driver;
extern const struct block_driver host_cdrom_driver;
