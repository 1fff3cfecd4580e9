/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* driver->image of qcow2. */
#pragma once

struct block_driver_image;

extern const struct block_driver_image qcow2_image_slots;
