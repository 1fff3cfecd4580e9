/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state of a virtual machine in an image. See vm-state.c. */
#pragma once

#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"

struct node;
struct qcow2_image;

/* Slots of driver->image. */
int CO_FN co_qcow2_vm_state_read(struct node *node, uint64_t offset, const struct io_vector *iov);
int CO_FN co_qcow2_vm_state_write(struct node *node, uint64_t offset, const struct io_vector *iov);

/* Where it begins, in bytes, as a guest offset: behind the disk. Follows from the disk's size. */
uint64_t qcow2_vm_state_offset(const struct qcow2_image *image);

/* Gives up what is stored there now (snapshots keep theirs): before the disk takes its place. 0 or -errno. */
int CO_FN co_qcow2_vm_state_drop(struct qcow2_image *image) MUST_CHECK;
