/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records all writes, so that they can be played back. */
#pragma once

struct block_driver;

extern const struct block_driver blklogwrites_driver;
