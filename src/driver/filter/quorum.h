/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several copies of the same data, which vote. */
#pragma once

struct block_driver;

extern const struct block_driver quorum_driver;
