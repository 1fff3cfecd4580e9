/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the driver's table (format/qcow2.c) names, as of block/driver.h, and what requests have in common. */
#pragma once

#include "block/driver.h"
#include "driver/format/qcow2/qcow2.h"

bool CO_FN co_qcow2_open(struct node *node, const struct blockdev_options *options, struct error **err);
void CO_FN co_qcow2_close(struct node *node);
int CO_FN co_qcow2_preadv(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                          unsigned flags);
int CO_FN co_qcow2_pwritev(struct node *node, uint64_t offset, uint64_t bytes, const struct io_vector *iov,
                           unsigned flags);
int CO_FN co_qcow2_pwrite_zeroes(struct node *node, uint64_t offset, uint64_t bytes, unsigned flags);
int CO_FN co_qcow2_pdiscard(struct node *node, uint64_t offset, uint64_t bytes);
int CO_FN co_qcow2_reserve(struct node *node, uint64_t offset, uint64_t bytes);
int CO_FN co_qcow2_flush_to_children(struct node *node);
int CO_FN co_qcow2_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                                struct block_extent *ret);
int CO_FN co_qcow2_truncate(struct node *node, const struct truncate_request *request, struct error **err);

/* --- read.c --- */

/* Reads [guest, guest + iov->size), which lies in `extent`. */
int CO_FN co_qcow2_read_extent(struct qcow2_image *image, uint64_t guest, const struct qcow2_extent *extent,
                               const struct io_vector *iov, unsigned flags);

/* Whether the data cluster at `host` begins inside the file; -EIO and fenced where not. */
int CO_FN co_qcow2_check_inside(struct qcow2_image *image, uint64_t guest, uint64_t host) MUST_CHECK;

/* --- write.c --- */

/* Writes, also behind the end of the disk up to the end of its last cluster. */
int CO_FN co_qcow2_write_range(struct qcow2_image *image, uint64_t guest, uint64_t bytes, const struct io_vector *iov,
                               unsigned flags);
/* Encrypted where the image is, to where the image has it. */
int CO_FN co_qcow2_write_data(struct qcow2_image *image, uint64_t guest, uint64_t host, const struct io_vector *iov,
                              unsigned flags);

/* --- zero.c --- */

/* Slot of struct block_driver_image, image.h. */
int CO_FN co_qcow2_make_empty(struct node *node);

/* Whole clusters, aligned: */

/* Unallocated: no longer part of the disk. */
int CO_FN co_qcow2_forget(struct qcow2_image *image, uint64_t guest, uint64_t bytes);
/* -ENOTSUP: not by entries alone. */
int CO_FN co_qcow2_zero_clusters(struct qcow2_image *image, uint64_t guest, uint64_t bytes);

/* --- compressed.c --- */

/* Reads from the compressed cluster of `entry`, from `in_cluster` on. */
int CO_FN co_qcow2_read_compressed(struct qcow2_image *image, uint64_t entry, uint64_t in_cluster,
                                   const struct io_vector *iov);
/* Writes one cluster (or what the disk has of its last one) compressed, or as it is where that saves nothing. */
int CO_FN co_qcow2_write_compressed(struct qcow2_image *image, uint64_t guest, uint64_t bytes,
                                    const struct io_vector *iov);

/* Which offset encryption goes by: the guest's in the old way, the host's with LUKS. */
static inline uint64_t qcow2_crypt_offset(const struct qcow2_image *image, uint64_t guest, uint64_t host)
{
    return image->header->crypt_method == QCOW2_CRYPT_AES ? guest : host;
}
