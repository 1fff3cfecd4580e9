/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A check's view of the file: small pieces, a fixed number of which are remembered. */
#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked.h"
#include "block/node.h"
#include "driver/format/qcow2/check-internal.h"

int CO_FN co_qcow2_check_piece(struct qcow2_check *check, uint64_t offset, const uint8_t **ret)
{
    uint64_t number = offset / QCOW2_CHECK_PIECE_BYTES;
    struct qcow2_check_piece *piece = &check->pieces[number % QCOW2_CHECK_PIECES];
    int result;

    if (!piece->valid || piece->number != number) {
        piece->valid = false;
        result = co_qcow2_check_read(check, number * QCOW2_CHECK_PIECE_BYTES, piece->data, QCOW2_CHECK_PIECE_BYTES);
        if (result < 0)
            return result;
        piece->number = number;
        piece->valid = true;
    }
    *ret = piece->data + offset % QCOW2_CHECK_PIECE_BYTES;
    return 0;
}

int CO_FN co_qcow2_check_load64(struct qcow2_check *check, uint64_t offset, uint64_t *ret)
{
    const uint8_t *data;
    int result;

    assert(is_aligned(offset, 8));
    result = co_qcow2_check_piece(check, offset, &data);
    if (result == 0)
        *ret = load_be64(data);
    return result;
}

int CO_FN co_qcow2_check_read(struct qcow2_check *check, uint64_t offset, uint8_t *to, size_t bytes)
{
    size_t there = offset < check->file_length ? MIN(bytes, check->file_length - offset) : 0;

    memset(to + there, 0, bytes - there);
    return there ? co_edge_pread(check->file, offset, there, to, 0) : 0;
}

int CO_FN co_qcow2_check_write(struct qcow2_check *check, uint64_t offset, const uint8_t *data, size_t bytes)
{
    int ret = co_edge_pwrite(check->file, offset, bytes, data, 0);

    for (size_t i = 0; i < QCOW2_CHECK_PIECES; i++) {
        struct qcow2_check_piece *piece = &check->pieces[i];

        if (piece->valid &&
            ranges_overlap(piece->number * QCOW2_CHECK_PIECE_BYTES, QCOW2_CHECK_PIECE_BYTES, offset, bytes))
            piece->valid = false;
    }
    return ret;
}

int CO_FN co_qcow2_check_store64(struct qcow2_check *check, uint64_t offset, uint64_t value)
{
    uint8_t data[8];

    store_be64(data, value);
    return co_qcow2_check_write(check, offset, data, sizeof(data));
}

void qcow2_check_forget(struct qcow2_check *check)
{
    for (size_t i = 0; i < QCOW2_CHECK_PIECES; i++)
        check->pieces[i].valid = false;
}
