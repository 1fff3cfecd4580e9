/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* LUKS1 volumes, with their header in front of the data or in a node of its own. */
#pragma once

struct block_driver;

extern const struct block_driver luks_driver;
