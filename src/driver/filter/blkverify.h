/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compares a node with one that is trusted. */
#pragma once

struct block_driver;

extern const struct block_driver blkverify_driver;
