/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Space ahead of a growing file. */
#pragma once

struct block_driver;

extern const struct block_driver preallocate_driver;
