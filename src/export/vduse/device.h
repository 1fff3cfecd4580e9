/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device of the kernel's vDPA bus that we serve: what its messages do, and its queues. All here is on the main loop
 * but the queues that run.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "export/vduse/kernel.h"
#include "export/virtio/blk-queue.h"

struct co_task;
struct error;
struct guest_map;
struct vduse_dev_request;
struct vduse_dev_response;
struct vduse_log;

struct vduse_queue {
    struct virtio_blk_queue work;
    struct vduse_device *device;
    uint32_t base; /* where it went on when it last stopped */
};

struct vduse_device {
    struct virtio_blk *blk;
    const char *name; /* of the export */
    struct vduse_kernel kernel;
    struct vduse_log *log;
    uint64_t features; /* that the driver has accepted */
    uint8_t status;
    struct guest_map *map;
    unsigned queue_count;
    struct vduse_queue *queues;
    struct co_task *server;
};

/* What a disk offers over VDUSE, where a driver cannot write to the configuration. */
uint64_t vduse_device_offered(const struct virtio_blk *blk);

/* A device on `kernel`, whose descriptor and `log` are borrowed; its queues are served by `loops`, in turn. */
struct vduse_device *vduse_device_new(struct virtio_blk *blk, const char *name, const struct vduse_kernel *kernel,
                                      struct vduse_log *log, struct loop *const *loops, unsigned loop_count) MUST_CHECK;

/* Whether a driver has set up a queue, so that it must be gone on with. */
bool vduse_kernel_in_use(const struct vduse_kernel *kernel, unsigned queues);

/* Goes on where a predecessor ended: with the queues that are ready. */
bool CO_FN co_vduse_device_resume(struct vduse_device *device, struct error **err) MUST_CHECK;

/* Begins to answer messages. */
void vduse_device_serve(struct vduse_device *device);

/* Does what a message says; the answer in *ret. */
void CO_FN co_vduse_device_handle(struct vduse_device *device, const struct vduse_dev_request *request,
                                  struct vduse_dev_response *ret);

/* The configuration is another one: the driver hears of it. */
void vduse_device_changed(struct vduse_device *device);

/* Whether a driver uses it. */
bool vduse_device_in_use(const struct vduse_device *device);

/* Answers no more, waits for what is in flight, and frees. */
void CO_FN co_vduse_device_free(struct vduse_device *device);
