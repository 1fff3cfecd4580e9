/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From packets to calls, streams and signs of life. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

struct rpc_client;

/* Acts on a packet of a client, complete and with a valid length. False: the connection cannot go on. May wait until
 * the client may have another request in flight. */
bool CO_FN co_rpc_packet_accept(struct rpc_client *client, const uint8_t *packet, size_t length);
