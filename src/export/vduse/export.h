/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver of VDUSE exports. */
#pragma once

struct export_driver;

extern const struct export_driver vduse_export_driver;
