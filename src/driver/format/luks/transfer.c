/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Data goes in pieces: what is read is decrypted where it lies, what is written is encrypted into a buffer. The pieces
 * of a large request are worked on at the same time, so that the disk is busy while a worker computes; how many they
 * are, and so how much memory a request takes, is bounded.
 */
#include "driver/format/luks/transfer.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>

#include "block/driver.h"
#include "block/node.h"
#include "crypto/block-crypt.h"
#include "driver/format/luks/luks.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"

enum {
    PIECE_BYTES = 256 * 1024,
    PIECES_AT_ONCE = 4,
    SEGMENTS_ON_STACK = 64,
};

/* A request on its way; all of it on one loop. */
struct transfer {
    struct luks_node *luks;
    bool write;
    uint64_t offset;
    const struct io_vector *iov;
    unsigned flags;
    uint64_t next; /* bytes that somebody has taken on */
    int result;
    struct co_group helpers;
};

static int CO_FN co_read_piece(struct transfer *transfer, uint64_t done, size_t size, const struct io_vector *piece)
{
    struct luks_node *luks = transfer->luks;
    uint64_t offset = transfer->offset + done;
    int result = co_edge_preadv(luks->file, luks->payload + offset, size, piece, transfer->flags);

    return result ? result : co_block_crypt_decrypt(luks->crypt, offset, NULL, piece, 0, size);
}

static int CO_FN co_write_piece(struct transfer *transfer, uint64_t done, size_t size)
{
    struct luks_node *luks = transfer->luks;
    uint64_t offset = transfer->offset + done;
    uint8_t *buffer = loop_buffer_get(size);

    if (!buffer)
        return -ENOMEM;
    int result = co_block_crypt_encrypt(luks->crypt, offset, transfer->iov, done, buffer, size);
    if (!result)
        result = co_edge_pwrite(luks->file, luks->payload + offset, size, buffer, transfer->flags);
    loop_buffer_put(buffer, size);
    return result;
}

static int CO_FN co_piece(struct transfer *transfer, uint64_t done, size_t size)
{
    struct iovec on_stack[SEGMENTS_ON_STACK];
    struct iovec *segments = on_stack;

    if (transfer->write)
        return co_write_piece(transfer, done, size);
    if (done == 0 && size == transfer->iov->size)
        return co_read_piece(transfer, done, size, transfer->iov);
    unsigned count = io_vector_slice_count(transfer->iov, done, size);
    size_t memory = count * sizeof(*segments);
    assert(count <= IOV_MAX);
    if (count > SEGMENTS_ON_STACK)
        segments = loop_alloc(memory);
    struct io_vector piece = io_vector_slice(transfer->iov, done, size, segments);
    int result = co_read_piece(transfer, done, size, &piece);
    if (segments != on_stack)
        loop_release(segments, memory);
    return result;
}

static void CO_FN co_pieces(struct transfer *transfer)
{
    while (transfer->next < transfer->iov->size && !transfer->result) {
        uint64_t done = transfer->next;
        uint64_t left = transfer->iov->size - done;
        size_t size = left < PIECE_BYTES ? left : PIECE_BYTES;

        transfer->next += size;
        int result = co_piece(transfer, done, size);
        if (result && !transfer->result)
            transfer->result = result;
    }
}

static void CO_FN co_help(void *opaque)
{
    struct transfer *transfer = opaque;

    co_pieces(transfer);
    co_group_done(&transfer->helpers);
}

static int CO_FN co_transfer(struct transfer *transfer)
{
    uint64_t pieces = (transfer->iov->size + PIECE_BYTES - 1) / PIECE_BYTES;
    unsigned helpers = (unsigned)(pieces < PIECES_AT_ONCE ? pieces : PIECES_AT_ONCE);

    if (!transfer->luks->crypt)
        return -EIO;
    if (pieces > 1) {
        co_group_add(&transfer->helpers, helpers - 1);
        for (unsigned i = 1; i < helpers; i++)
            co_spawn(loop_current(), co_help, transfer);
    }
    co_pieces(transfer);
    if (pieces > 1)
        co_group_wait(&transfer->helpers);
    return transfer->result;
}

int CO_FN luks_co_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                         unsigned flags)
{
    struct transfer transfer = {.luks = node_state(node), .offset = offset, .iov = iov, .flags = flags};

    assert(iov->size == bytes);
    return co_transfer(&transfer);
}

int CO_FN luks_co_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags)
{
    struct transfer transfer = {.luks = node_state(node), .write = true, .offset = offset, .iov = iov, .flags = flags};

    assert(iov->size == bytes);
    return co_transfer(&transfer);
}
