/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/rpc/packet.h"

#include "base/bytes.h"

bool rpc_length_valid(uint32_t length)
{
    return length >= RPC_HEADER_SIZE && length <= RPC_PACKET_MAX;
}

void rpc_header_decode(struct rpc_header *ret, const uint8_t *bytes)
{
    *ret = (struct rpc_header){
        .length = load_be32(bytes),
        .program = load_be32(bytes + 4),
        .version = load_be32(bytes + 8),
        .procedure = (int32_t)load_be32(bytes + 12),
        .type = load_be32(bytes + 16),
        .serial = load_be32(bytes + 20),
        .status = load_be32(bytes + 24),
    };
}

void rpc_header_encode(const struct rpc_header *header, uint8_t *bytes)
{
    store_be32(bytes, header->length);
    store_be32(bytes + 4, header->program);
    store_be32(bytes + 8, header->version);
    store_be32(bytes + 12, (uint32_t)header->procedure);
    store_be32(bytes + 16, header->type);
    store_be32(bytes + 20, header->serial);
    store_be32(bytes + 24, header->status);
}
