/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images with allocation on demand, backing files, snapshots, compression and encryption. See docs/qcow2.md. */
#pragma once

struct block_driver;

extern const struct block_driver qcow2_driver;
