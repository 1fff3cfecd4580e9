/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a file has data and where holes.
 *
 * Looking for the end of a long extent costs the file system a walk, and clients ask in small steps. So the extent that
 * was found last is kept; and where one ends, the other kind begins, which saves the question what lies there. A cached
 * hole may only be used while nobody else may write; taking a hole for data would only cost time, but taking data for a
 * hole would lose it. Hence:
 *  1. `watched` is set before the system is asked, and as long as a hole is cached. Writers look at it after their data
 *     is in the file: either they see it and drop what is cached or on its way, or the question comes after the write
 *     and gets the right answer.
 *  2. An answer is kept only if nothing changed while it was on its way.
 *  3. What makes holes of data (discard, zeroes, a new length) drops everything.
 */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "base/checked.h"
#include "driver/protocol/file/file.h"

/* An extent of the file; `end` is UINT64_MAX for a hole up to the end of the file and beyond. */
struct extent {
    bool is_data;
    uint64_t start;
    uint64_t end;
};

void file_status_forget(struct file_node *file)
{
    struct file_status_cache *cache = &file->status;

    spin_lock(&cache->spin);
    cache->changes++;
    cache->valid = false;
    atomic_store(&cache->watched, cache->fills > 0);
    spin_unlock(&cache->spin);
}

/* Others may write to the file: what was a hole need not be one any more. */
static bool others_may_write(const struct file_node *file)
{
    return !file->locks.enabled || !(file->locks.unshared & PERM_WRITE);
}

/*
 * Looks into the cache. True: *ret is the extent that holds `offset`. False: *ret_hint says what to look for first,
 * SEEK_HOLE where there should be data, or else SEEK_DATA.
 */
static bool cache_find(struct file_node *file, uint64_t offset, struct extent *ret, int *ret_hint)
{
    struct file_status_cache *cache = &file->status;
    bool found = false;

    *ret_hint = SEEK_DATA;
    spin_lock(&cache->spin);
    if (cache->valid && offset >= cache->start && offset < cache->end) {
        found = cache->is_data || !others_may_write(file);
        *ret = (struct extent){cache->is_data, cache->start, cache->end};
    } else if (cache->valid && offset == cache->end) {
        *ret_hint = cache->is_data ? SEEK_DATA : SEEK_HOLE;
    }
    spin_unlock(&cache->spin);
    return found;
}

static uint64_t fill_begin(struct file_node *file)
{
    struct file_status_cache *cache = &file->status;
    uint64_t changes;

    spin_lock(&cache->spin);
    cache->fills++;
    changes = cache->changes;
    atomic_store(&cache->watched, true);
    spin_unlock(&cache->spin);
    return changes;
}

/* Keeps `extent` (NULL: none was found) if nothing has changed since fill_begin() returned `changes`. */
static void fill_end(struct file_node *file, uint64_t changes, const struct extent *extent)
{
    struct file_status_cache *cache = &file->status;

    spin_lock(&cache->spin);
    assert(cache->fills > 0);
    cache->fills--;
    if (extent && cache->changes == changes) {
        cache->valid = true;
        cache->is_data = extent->is_data;
        cache->start = extent->start;
        cache->end = extent->end;
    }
    atomic_store(&cache->watched, cache->fills > 0 || (cache->valid && !cache->is_data));
    spin_unlock(&cache->spin);
}

static int64_t CO_FN co_seek(struct file_node *file, int64_t offset, int whence)
{
    return file->is_shared ? co_file_seek(file->fd, offset, whence)
                           : co_file_seek_paced(file->fd, offset, whence, &file->pace);
}

/* No data follows. Where somebody has cut the file, what is lost counts as data: reading it shall tell. */
static int CO_FN co_find_past_data(struct file_node *file, uint64_t offset, struct extent *ret)
{
    int64_t end = co_seek(file, 0, SEEK_END);
    bool is_cut = end >= 0 && (uint64_t)end < file_known_length(file);

    if (end < 0)
        return (int)end;
    if (is_cut && offset < (uint64_t)end)
        *ret = (struct extent){false, offset, (uint64_t)end};
    else
        *ret = (struct extent){is_cut, offset, UINT64_MAX};
    return 0;
}

/* Asks the system for the extent that holds `offset`. */
static int CO_FN co_find(struct file_node *file, uint64_t offset, int hint, struct extent *ret)
{
    int64_t found = hint == SEEK_DATA ? co_seek(file, (int64_t)offset, SEEK_DATA) : (int64_t)offset;

    if (found == -ENXIO)
        return co_find_past_data(file, offset, ret);
    if (found < 0)
        return (int)found;
    if ((uint64_t)found > offset) {
        *ret = (struct extent){false, offset, (uint64_t)found};
        return 0;
    }
    found = co_seek(file, (int64_t)offset, SEEK_HOLE);
    if (found == -ENXIO)
        return co_find_past_data(file, offset, ret);
    if (found < 0)
        return (int)found;
    /* It was not what the hint said, or has become a hole between the two questions. */
    if ((uint64_t)found <= offset)
        return hint == SEEK_HOLE ? co_find(file, offset, SEEK_DATA, ret) : -EAGAIN;
    *ret = (struct extent){true, offset, (uint64_t)found};
    return 0;
}

/* Cuts `found` to what was asked, with borders on sectors: a sector that is partly data is data. */
static void extent_answer(const struct file_node *file, const struct extent *found, uint64_t offset, uint64_t bytes,
                          struct block_extent *ret)
{
    uint32_t alignment = file->request_alignment;
    bool is_data = found->is_data;
    uint64_t left = found->end - offset;

    if (left > bytes)
        left = bytes;
    else if (is_data)
        left = align_up(left, alignment);
    else
        left = align_down(left, alignment);
    if (!left) {
        is_data = true;
        left = alignment;
    }
    ret->bytes = left < bytes ? left : bytes;
    ret->flags = (is_data ? BLOCK_DATA : BLOCK_ZERO) | BLOCK_OFFSET_VALID | BLOCK_ALLOCATED;
    ret->host_offset = offset;
}

int CO_FN file_co_block_status(struct node *node, uint64_t offset, uint64_t bytes, bool want_zero,
                               struct block_extent *ret)
{
    struct file_node *file = node_state(node);
    struct extent found = {0};
    int hint;
    int result;

    ret->host = node;
    if (!want_zero || file->kind != FILE_REGULAR || !file_supports(file, FILE_SEEK_HOLE)) {
        extent_answer(file, &(struct extent){true, 0, UINT64_MAX}, offset, bytes, ret);
        return 0;
    }
    if (!cache_find(file, offset, &found, &hint)) {
        uint64_t changes = fill_begin(file);

        result = co_find(file, offset, hint, &found);
        if (result < 0) {
            /* Whatever the system says: that it is data is always a true answer. */
            if (result == -EINVAL || result == -EOPNOTSUPP)
                file_set_unsupported(file, FILE_SEEK_HOLE);
            found = (struct extent){true, 0, result == -EAGAIN ? offset + 1 : UINT64_MAX};
        }
        fill_end(file, changes, result == 0 ? &found : NULL);
    }
    extent_answer(file, &found, offset, bytes, ret);
    return 0;
}
