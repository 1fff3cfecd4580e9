/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bytes of a file as they are. */
#pragma once

struct block_driver;

extern const struct block_driver raw_driver;
