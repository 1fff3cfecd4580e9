/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps what is read from backing images. */
#pragma once

struct block_driver;

extern const struct block_driver copy_on_read_driver;
