/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "export/vduse/kernel-test.h"

#include <errno.h>
#include <glib.h>
#include <linux/vduse.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loop/shared-memory.h"

enum { QUEUE_BYTES = 8192, AVAILABLE_OFFSET = 2048, USED_OFFSET = 4096, HALF = TEST_MEMORY_BYTES / 2 };

struct vduse_test_kernel vduse_test;

static int get_region(struct vduse_iotlb_entry *entry)
{
    static const uint64_t starts[] = {0, TEST_DATA_ADDRESS};

    for (unsigned i = 0; i < G_N_ELEMENTS(starts); i++) {
        if (!(i ? vduse_test.has_data : vduse_test.has_rings) || entry->last < starts[i] ||
            entry->start >= starts[i] + HALF)
            continue;
        *entry = (struct vduse_iotlb_entry){
            .offset = i * HALF, .start = starts[i], .last = starts[i] + HALF - 1, .perm = VDUSE_ACCESS_RW};
        return dup(vduse_test.memory_fd);
    }
    return -EINVAL;
}

static int get_info(struct vduse_vq_info *info)
{
    const struct vduse_test_queue *queue;

    if (info->index >= TEST_QUEUES)
        return -EINVAL;
    queue = &vduse_test.queues[info->index];
    info->num = TEST_RING_SIZE;
    info->desc_addr = info->index * QUEUE_BYTES;
    info->driver_addr = info->desc_addr + AVAILABLE_OFFSET;
    info->device_addr = info->desc_addr + USED_OFFSET;
    info->split.avail_index = queue->avail_index;
    info->ready = queue->ready;
    return 0;
}

static int set_kicks(const struct vduse_vq_eventfd *argument)
{
    struct vduse_test_queue *queue = &vduse_test.queues[argument->index];

    if (queue->kick_fd >= 0)
        close(queue->kick_fd);
    queue->kick_fd = argument->fd < 0 ? -1 : dup(argument->fd);
    return 0;
}

static int call(int fd, unsigned long request, void *argument)
{
    switch (request) {
    case VDUSE_IOTLB_GET_FD:
        return get_region(argument);
    case VDUSE_DEV_GET_FEATURES:
        memcpy(argument, &vduse_test.features, sizeof(vduse_test.features));
        return 0;
    case VDUSE_VQ_GET_INFO:
        return get_info(argument);
    case VDUSE_VQ_SETUP_KICKFD:
        return set_kicks(argument);
    case VDUSE_VQ_INJECT_IRQ:
        atomic_fetch_add(&vduse_test.queues[*(const uint32_t *)argument].interrupts, 1);
        return 0;
    case VDUSE_DEV_SET_CONFIG:
        return 0;
    case VDUSE_DEV_INJECT_CONFIG_IRQ:
        vduse_test.config_interrupts++;
        return 0;
    default:
        return -EINVAL;
    }
}

void vduse_test_begin(void)
{
    memset(&vduse_test, 0, sizeof(vduse_test));
    vduse_test.memory_fd = shared_memory_file("test", TEST_MEMORY_BYTES);
    g_assert_cmpint(vduse_test.memory_fd, >=, 0);
    vduse_test.memory = mmap(NULL, TEST_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vduse_test.memory_fd, 0);
    g_assert_true(vduse_test.memory != MAP_FAILED);
    vduse_test.has_rings = true;
    vduse_test.kernel = (struct vduse_kernel){.fd = -1, .call = call};
    for (unsigned i = 0; i < TEST_QUEUES; i++)
        vduse_test.queues[i].kick_fd = -1;
}

void vduse_test_end(void)
{
    for (unsigned i = 0; i < TEST_QUEUES; i++)
        g_assert_cmpint(vduse_test.queues[i].kick_fd, ==, -1);
    munmap(vduse_test.memory, TEST_MEMORY_BYTES);
    close(vduse_test.memory_fd);
}

uint8_t *vduse_test_descriptors(unsigned queue)
{
    return vduse_test.memory + queue * QUEUE_BYTES;
}

uint8_t *vduse_test_available(unsigned queue)
{
    return vduse_test_descriptors(queue) + AVAILABLE_OFFSET;
}

uint8_t *vduse_test_used(unsigned queue)
{
    return vduse_test_descriptors(queue) + USED_OFFSET;
}
