/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying between files by the system, which may share the blocks or let the storage do it. */
#include <errno.h>

#include "base/checked.h"
#include "driver/protocol/file/file.h"

/* -ENOTSUP for the errors that only say that it cannot be done in this way: ever, or for these two files and ranges. */
static int copy_failed(struct file_node *to, int result)
{
    switch (result) {
    case -EOPNOTSUPP:
    case -ENOSYS:
        file_set_unsupported(to, FILE_COPY);
        return -ENOTSUP;
    case -EXDEV:
    case -EINVAL:
    case -EBADF:
    case -ETXTBSY:
        return -ENOTSUP;
    default:
        return result;
    }
}

static int CO_FN co_copy_all(struct file_node *to, uint64_t offset, uint64_t bytes, struct file_node *from,
                             uint64_t from_offset)
{
    while (bytes) {
        ssize_t done;

        /* The system makes one at a time; those that it lets wait for each other take processor time for nothing. */
        co_mutex_lock(&to->copying);
        done = co_file_copy_range(from->fd, from_offset, to->fd, offset, bytes);
        co_mutex_unlock(&to->copying);
        if (done < 0)
            return copy_failed(to, (int)done);
        /* The source ends here, or the file system does not say why it stopped; reading will. */
        if (done == 0)
            return -ENOTSUP;
        offset += (uint64_t)done;
        from_offset += (uint64_t)done;
        bytes -= (uint64_t)done;
    }
    return 0;
}

int CO_FN file_co_copy_from(struct node *node, uint64_t offset, uint64_t bytes, struct node *from, uint64_t from_offset,
                            unsigned flags)
{
    struct file_node *file = node_state(node);
    struct file_node *source = node_state(from);
    bool grows = offset + bytes > file_known_length(file);
    int result;

    if (file->kind != FILE_REGULAR || source->kind != FILE_REGULAR || !file_supports(file, FILE_COPY))
        return -ENOTSUP;
    if (grows)
        co_rwlock_read_lock(&file->growth);
    result = co_copy_all(file, offset, bytes, source, from_offset);
    if (grows) {
        if (result == 0)
            file_raise_length(file, offset + bytes);
        co_rwlock_unlock(&file->growth);
    }
    file_status_forget(file);
    if (result == 0 && flags & IO_FUA)
        result = file_co_flush(node);
    return result;
}
