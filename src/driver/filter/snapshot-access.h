/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state that a copy-before-write filter saves, to be read. */
#pragma once

struct block_driver;

extern const struct block_driver snapshot_access_driver;
