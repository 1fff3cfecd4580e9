/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes are stored compressed. */
#pragma once

struct block_driver;

extern const struct block_driver compress_driver;
