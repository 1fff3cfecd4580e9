/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that keep to the limits of a throttle group. */
#pragma once

struct block_driver;

extern const struct block_driver throttle_filter_driver;
