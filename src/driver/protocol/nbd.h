/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nbd: an export of an NBD server. */
#pragma once

struct block_driver;

extern const struct block_driver nbd_driver;
