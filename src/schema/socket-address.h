/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Addresses as options name them, for the loop's sockets. */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "gen/types.h"

struct error;
struct socket_endpoint;

/* What to listen on or connect to; its strings are those of `address`. False for what contradicts itself. */
bool socket_address_endpoint(const struct socket_address *address, struct socket_endpoint *ret,
                             struct error **err) MUST_CHECK;

/* The same address in its newer form; owned. */
struct socket_address *socket_address_from_legacy(const struct socket_address_legacy *legacy) MUST_CHECK;
