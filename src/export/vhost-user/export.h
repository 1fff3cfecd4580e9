/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver of vhost-user-blk exports. */
#pragma once

struct export_driver;

extern const struct export_driver vhost_user_export_driver;
