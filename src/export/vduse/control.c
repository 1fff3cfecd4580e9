/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device stays when its server ends while a driver uses it, so that the next server can go on. */
#include "export/vduse/control.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/vduse.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/error.h"
#include "export/vduse/device.h"
#include "export/vduse/kernel.h"
#include "export/virtio/blk.h"
#include "loop/file.h"

#define CONTROL_PATH "/dev/vduse/control"

enum { RING_ALIGNMENT = 4096 };

int vduse_kernel_call(int fd, unsigned long request, void *argument)
{
    int result;

    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

bool vduse_name_check(const char *name, struct error **err)
{
    if (!*name || strlen(name) >= VDUSE_NAME_MAX || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..") ||
        !strcmp(name, "control"))
        return error_set(err, "VDUSE device cannot have the name '%.80s'", name);
    return true;
}

static int CO_FN co_open_control(struct error **err)
{
    uint64_t version = VDUSE_API_VERSION;
    int fd = co_file_open(CONTROL_PATH, O_RDWR, 0);
    int result;

    if (fd == -ENOENT || fd == -ENODEV || fd == -ENXIO) {
        error_set_errno(err, fd,
                        "failed to create vduse device: cannot open '" CONTROL_PATH
                        "': load the kernel modules 'vduse' and, for who uses the device, 'virtio_vdpa' (disk of this "
                        "host) or 'vhost_vdpa' (disk of a virtual machine)");
        return -1;
    }
    if (fd < 0) {
        error_set_errno(err, fd, "failed to create vduse device: cannot open '" CONTROL_PATH "'");
        return -1;
    }
    result = vduse_kernel_call(fd, VDUSE_SET_API_VERSION, &version);
    if (!result)
        return fd;
    error_set_errno(err, result, "failed to create vduse device: kernel without version %d of VDUSE",
                    VDUSE_API_VERSION);
    fd_close(fd);
    return -1;
}

static int destroy(int control, const char *name)
{
    char argument[VDUSE_NAME_MAX] = {0};

    g_strlcpy(argument, name, sizeof(argument));
    return vduse_kernel_call(control, VDUSE_DESTROY_DEV, argument);
}

static struct vduse_dev_config *config_of(const struct vduse_device_plan *plan)
{
    struct vduse_dev_config *config = g_malloc0(sizeof(*config) + VIRTIO_BLK_CONFIG_BYTES);

    g_strlcpy(config->name, plan->name, sizeof(config->name));
    config->device_id = VIRTIO_ID_BLOCK;
    config->features = vduse_device_offered(plan->blk);
    config->vq_num = plan->blk->queues;
    config->vq_align = RING_ALIGNMENT;
    config->config_size = VIRTIO_BLK_CONFIG_BYTES;
    virtio_blk_config(plan->blk, config->config);
    return config;
}

/* 1: there is one already that is in use; 0, or -errno. */
static int create(int control, const struct vduse_device_plan *plan)
{
    g_autofree struct vduse_dev_config *config = config_of(plan);
    int result = vduse_kernel_call(control, VDUSE_CREATE_DEV, config);

    if (result != -EEXIST)
        return result;
    /* One that nobody uses is what a server left that has ended before a driver came. */
    result = destroy(control, plan->name);
    if (result)
        return result == -EBUSY ? 1 : result;
    return vduse_kernel_call(control, VDUSE_CREATE_DEV, config);
}

static int set_up_queues(int fd, const struct vduse_device_plan *plan)
{
    for (unsigned i = 0; i < plan->blk->queues; i++) {
        struct vduse_vq_config queue = {.index = i, .max_size = plan->queue_size};
        int result = vduse_kernel_call(fd, VDUSE_VQ_SETUP, &queue);

        if (result)
            return result;
    }
    return 0;
}

static bool CO_FN co_open_device(const struct vduse_device_plan *plan, bool found, int *ret_fd, struct error **err)
{
    g_autofree char *path = g_strdup_printf("/dev/vduse/%s", plan->name);
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_NONBLOCK, 0);
    int result;

    if (fd == -EBUSY)
        return error_set(err, "failed to create vduse device: '%s' is served by another process", path);
    if (fd < 0)
        return error_set_errno(err, fd, "failed to create vduse device: cannot open '%s'", path);
    result = found ? 0 : set_up_queues(fd, plan);
    if (result)
        return error_set_errno(err, result, "failed to create vduse device: cannot set up %u queues of %u places",
                               plan->blk->queues, plan->queue_size);
    *ret_fd = TAKE_FD(fd);
    return true;
}

bool co_vduse_create(const struct vduse_device_plan *plan, int *ret_fd, bool *ret_found, struct error **err)
{
    AUTO(fd) control = co_open_control(err);
    int result;

    if (control < 0)
        return false;
    result = create(control, plan);
    if (result < 0)
        return error_set_errno(err, result, "failed to create vduse device '%s'", plan->name);
    *ret_found = result;
    if (co_open_device(plan, *ret_found, ret_fd, err))
        return true;
    if (!*ret_found)
        (void)destroy(control, plan->name);
    return false;
}

int co_vduse_destroy(const char *name)
{
    AUTO(fd) control = co_open_control(NULL);

    return control < 0 ? -ENODEV : destroy(control, name);
}
