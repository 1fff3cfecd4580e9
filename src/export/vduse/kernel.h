/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's side of a VDUSE device (its header linux/vduse.h): requests at the device's descriptor. Tests stand in
 * its place. None of the requests made here waits for anything.
 */
#pragma once

struct vduse_kernel {
    int fd; /* of the device: messages are read and answered there */
    /* As ioctl(2), but -errno. Any thread. */
    int (*call)(int fd, unsigned long request, void *argument);
};

static inline int vduse_call(const struct vduse_kernel *kernel, unsigned long request, void *argument)
{
    return kernel->call(kernel->fd, request, argument);
}

/* The real one. */
int vduse_kernel_call(int fd, unsigned long request, void *argument);
