/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The program for administrators: servers, clients, limits, logging, the end of the daemon. */
#pragma once

#include "pool/rpc/program.h"

extern const struct rpc_program admin_program;
