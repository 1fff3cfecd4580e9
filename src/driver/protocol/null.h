/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks that forget. */
#pragma once

struct block_driver;

extern const struct block_driver null_aio_driver;
extern const struct block_driver null_co_driver;
