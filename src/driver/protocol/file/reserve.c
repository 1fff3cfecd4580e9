/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Room for what is about to be written, had from the file system in one call rather than block by block as the data
 * comes in. What was not used of it beyond the end of the file is given back when the file is closed.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/checked.h"
#include "driver/protocol/file/file.h"

enum { RESERVE_BYTES_MIN = 128 * 1024 }; /* below this the call costs more than it saves (measured on ext4) */

static void note_reserved(struct file_node *file, uint64_t end)
{
    uint_fast64_t known = atomic_load(&file->reserved_to);

    while (known < end && !atomic_compare_exchange_weak(&file->reserved_to, &known, end))
        ;
}

int CO_FN file_co_reserve(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct file_node *file = node_state(node);
    int result;

    /* Direct I/O allocates by itself, in whole runs. */
    if (!file->allocates_cheaply || file->direct || !file_supports(file, FILE_ALLOCATE))
        return -ENOTSUP;
    if (bytes < RESERVE_BYTES_MIN)
        return 0;
    if (offset + bytes > file_known_length(file))
        note_reserved(file, offset + bytes);
    result = co_file_allocate(file->fd, FALLOC_FL_KEEP_SIZE, offset, bytes);
    if (result == -EOPNOTSUPP || result == -ENOSYS)
        file_set_unsupported(file, FILE_ALLOCATE);
    /* Whatever is wrong, writing will find out. */
    return result < 0 ? -ENOTSUP : 1;
}

void CO_FN file_co_release_reserved(struct file_node *file)
{
    struct stat stat;

    if (!atomic_load(&file->reserved_to) || !fd_is_writable(file->fd) || co_file_stat(file->fd, &stat) < 0)
        return;
    /* Cut to the length that it has, a file loses what it has beyond. If it does not, that is only room. */
    if (atomic_load(&file->reserved_to) > (uint64_t)stat.st_size)
        (void)co_file_truncate(file->fd, (uint64_t)stat.st_size);
}
