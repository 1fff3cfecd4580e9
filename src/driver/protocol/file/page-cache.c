/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking an image over from another host: what this host has in memory of it may be older than what the other has
 * written. A node that nobody used becomes used at that moment. On file systems of this host alone there is nothing
 * stale, and everything stays in memory (unless the debugging option asks).
 */
#include <inttypes.h>

#include "base/error.h"
#include "driver/protocol/file/file.h"

bool CO_FN file_co_take_over(struct file_node *file, struct error **err)
{
    int64_t cached;
    int result;

    if (!file->drop_cache || file->direct || file->kind != FILE_REGULAR)
        return true;
    if (!file->check_cache_dropped && !file->is_shared)
        return true;
    result = co_file_drop_cache(file->fd);
    if (result < 0)
        return error_set_errno(err, result, "Could not drop the page cache of '%s'", file->shown_path);
    if (!file->check_cache_dropped)
        return true;
    cached = co_file_cached_bytes(file->fd);
    if (cached < 0)
        return error_set_errno(err, (int)cached, "Could not look into the page cache of '%s'", file->shown_path);
    if (cached > 0)
        return error_set(err, "%" PRId64 " bytes of '%s' are still in the page cache after dropping it", cached,
                         file->shown_path);
    return true;
}
