/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "block/driver.h"

extern const struct block_driver_reopen qcow2_reopen;
