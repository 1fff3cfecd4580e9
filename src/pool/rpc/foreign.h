/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

struct pool_error;

/* Sets *err where `number` is a procedure of libvirt that is none of ours; else leaves it. */
void rpc_foreign_refuse(int32_t number, struct pool_error **err);
