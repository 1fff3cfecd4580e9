/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver of FUSE exports. */
#pragma once

struct export_driver;

extern const struct export_driver fuse_export_driver;
