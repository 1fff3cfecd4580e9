/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stands in the place of the kernel: one device, whose driver a test plays. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "export/vduse/kernel.h"

enum {
    TEST_QUEUES = 2,
    TEST_RING_SIZE = 8,
    TEST_MEMORY_BYTES = 1 << 16,
    TEST_DATA_ADDRESS = 1 << 20, /* where the second half of the memory is for the driver; the first is at 0 */
};

struct vduse_test_queue {
    bool ready;
    uint16_t avail_index; /* as the driver has set it */
    int kick_fd;          /* -1: none */
    atomic_uint interrupts;
};

extern struct vduse_test_kernel {
    int memory_fd;
    uint8_t *memory;
    uint64_t features;
    atomic_bool has_rings; /* the first half is there */
    atomic_bool has_data;  /* the second half is there */
    struct vduse_test_queue queues[TEST_QUEUES];
    unsigned config_interrupts;
    struct vduse_kernel kernel;
} vduse_test;

/* A device that nobody has set up. */
void vduse_test_begin(void);
void vduse_test_end(void);

/* The parts of a queue in the memory. */
uint8_t *vduse_test_descriptors(unsigned queue);
uint8_t *vduse_test_available(unsigned queue);
uint8_t *vduse_test_used(unsigned queue);
