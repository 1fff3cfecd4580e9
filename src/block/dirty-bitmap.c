/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A node's bitmaps hang off a set, which the node gets with its first one and keeps. Requests write to the set's log
 * (dirty-log.c), so a write costs the same with one bitmap or a thousand; a bitmap that records reads from there before
 * anybody looks into it.
 *
 * Keeps: (1) a bitmap has a place in the log exactly if it is enabled and on a node; (2) outside of the set's lock its
 * bits may lack what is still in the log, or a length that has changed, but never more; (3) a removed bitmap has all
 * it ever recorded, and its set lives as long as it.
 */
#include "block/dirty-bitmap.h"

#include <assert.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/checked.h"
#include "base/error.h"
#include "block/describe.h"
#include "block/dirty-log.h"
#include "block/graph-internal.h"

struct dirty_bitmaps {
    uint32_t references; /* atomic: the node's, and one for each bitmap */
    GQueue bitmaps;      /* main: struct dirty_bitmap *, oldest first, each with a reference; the links are theirs */
    GHashTable *names;   /* main: name -> struct dirty_bitmap * */
    unsigned enabled;    /* main: how many of them record */
    struct spin_lock spin;
    struct dirty_log log; /* spin */
};

struct dirty_bitmap {
    uint32_t references;       /* atomic */
    struct dirty_bitmaps *set; /* const */
    GList link;                /* main: in set->bitmaps */
    char *name;                /* const; NULL: anonymous */
    unsigned shift;            /* const */

    /* Main loop. */
    char *user; /* NULL: not busy */
    bool enabled;
    bool persistent;
    bool inconsistent;
    bool read_only;

    /* Written on the main loop under set->spin, and read by it or under that. */
    struct node *node; /* NULL: removed */

    /* set->spin */
    uint64_t length; /* bytes: for which the bits are */
    struct bitmap *bits;
    struct bitmap *successor; /* for what is recorded now, while the bits are frozen; NULL: they are not */
    struct dirty_reader reader;
};

/* --- sets --- */

static struct dirty_bitmaps *set_of(struct node *node)
{
    struct dirty_bitmaps *set = __atomic_load_n(&node->dirty_bitmaps, __ATOMIC_ACQUIRE);

    if (set)
        return set;
    set = g_new0(struct dirty_bitmaps, 1);
    set->references = 1;
    set->names = g_hash_table_new(g_str_hash, g_str_equal);
    dirty_log_init(&set->log);
    __atomic_store_n(&node->dirty_bitmaps, set, __ATOMIC_RELEASE);
    return set;
}

static void set_unref(struct dirty_bitmaps *set)
{
    if (__atomic_sub_fetch(&set->references, 1, __ATOMIC_ACQ_REL))
        return;
    assert(!set->bitmaps.length);
    dirty_log_done(&set->log);
    g_hash_table_destroy(set->names);
    g_free(set);
}

void dirty_bitmaps_record(struct node *node, uint64_t offset, uint64_t bytes)
{
    struct dirty_bitmaps *set = __atomic_load_n(&node->dirty_bitmaps, __ATOMIC_ACQUIRE);

    assert(set);
    dirty_log_record(&set->log, offset, bytes);
}

void dirty_bitmaps_record_all(struct node *node)
{
    if (__atomic_load_n(&node->hooks, __ATOMIC_RELAXED) & NODE_HOOK_DIRTY_BITMAPS && node_length(node))
        dirty_bitmaps_record(node, 0, node_length(node));
}

static uint64_t bits_for(const struct dirty_bitmap *bitmap, uint64_t length)
{
    return length ? ((length - 1) >> bitmap->shift) + 1 : 0;
}

/* Brings length and bits up to date. Under set->spin. */
static void catch_up(struct dirty_bitmap *bitmap)
{
    if (!bitmap->node)
        return;
    bitmap->length = node_length(bitmap->node);
    bitmap_resize(bitmap->bits, bits_for(bitmap, bitmap->length));
    if (bitmap->successor)
        bitmap_resize(bitmap->successor, bits_for(bitmap, bitmap->length));
    if (bitmap->reader.since)
        dirty_log_read(&bitmap->set->log, &bitmap->reader, bitmap->successor ? bitmap->successor : bitmap->bits);
}

/* Locks, with the bitmap up to date. */
static void bitmap_lock(struct dirty_bitmap *bitmap)
{
    spin_lock(&bitmap->set->spin);
    catch_up(bitmap);
}

static void bitmap_unlock(struct dirty_bitmap *bitmap)
{
    spin_unlock(&bitmap->set->spin);
}

void dirty_bitmaps_shrink(struct node *node)
{
    struct dirty_bitmaps *set = __atomic_load_n(&node->dirty_bitmaps, __ATOMIC_ACQUIRE);

    if (!set)
        return;
    spin_lock(&set->spin);
    for (GList *link = set->bitmaps.head; link; link = link->next)
        catch_up(link->data);
    dirty_log_cut(&set->log, node_length(node));
    spin_unlock(&set->spin);
}

/* --- making and removing --- */

struct dirty_bitmap *dirty_bitmap_new(struct node *node, const struct dirty_bitmap_options *options)
{
    struct dirty_bitmap *bitmap = g_new0(struct dirty_bitmap, 1);

    assert(is_power_of_two(options->granularity));
    assert(options->granularity >= DIRTY_BITMAP_GRANULARITY_MIN);
    assert(!options->name || !dirty_bitmap_find(node, options->name, NULL));
    bitmap->references = 1;
    bitmap->set = set_of(node);
    __atomic_add_fetch(&bitmap->set->references, 1, __ATOMIC_RELAXED);
    bitmap->name = g_strdup(options->name);
    bitmap->shift = (unsigned)__builtin_ctz(options->granularity);
    bitmap->persistent = options->persistent;
    bitmap->inconsistent = options->inconsistent;
    bitmap->read_only = options->read_only;
    bitmap->node = node;
    bitmap->bits = bitmap_new(bits_for(bitmap, node_length(node)));
    bitmap->link.data = bitmap;
    spin_lock(&bitmap->set->spin);
    g_queue_push_tail_link(&bitmap->set->bitmaps, &bitmap->link);
    if (bitmap->name)
        g_hash_table_insert(bitmap->set->names, bitmap->name, bitmap);
    catch_up(bitmap);
    spin_unlock(&bitmap->set->spin);
    if (!options->disabled && !options->inconsistent)
        dirty_bitmap_enable(bitmap);
    return bitmap;
}

void dirty_bitmap_remove(struct dirty_bitmap *bitmap)
{
    assert(bitmap->node);
    dirty_bitmap_disable(bitmap);
    spin_lock(&bitmap->set->spin);
    catch_up(bitmap);
    bitmap->node = NULL;
    g_queue_unlink(&bitmap->set->bitmaps, &bitmap->link);
    if (bitmap->name)
        g_hash_table_remove(bitmap->set->names, bitmap->name);
    spin_unlock(&bitmap->set->spin);
    dirty_bitmap_unref(bitmap);
}

struct dirty_bitmap *dirty_bitmap_ref(struct dirty_bitmap *bitmap)
{
    if (bitmap)
        __atomic_add_fetch(&bitmap->references, 1, __ATOMIC_RELAXED);
    return bitmap;
}

void dirty_bitmap_unref(struct dirty_bitmap *bitmap)
{
    if (!bitmap || __atomic_sub_fetch(&bitmap->references, 1, __ATOMIC_ACQ_REL))
        return;
    assert(!bitmap->node);
    assert(!bitmap->reader.since);
    bitmap_free(bitmap->bits);
    bitmap_free(bitmap->successor);
    set_unref(bitmap->set);
    g_free(bitmap->name);
    g_free(bitmap->user);
    g_free(bitmap);
}

void dirty_bitmaps_close(struct node *node)
{
    struct dirty_bitmaps *set = node->dirty_bitmaps;

    if (!set)
        return;
    while (set->bitmaps.tail)
        dirty_bitmap_remove(set->bitmaps.tail->data);
    node->dirty_bitmaps = NULL;
    set_unref(set);
}

uint32_t CO_FN co_dirty_bitmap_default_granularity(struct node *node)
{
    enum { LEAST = 4096, MOST = 65536 };
    struct node_info info;

    if (!co_node_get_info(node, &info) || !is_power_of_two(info.cluster_size))
        return MOST;
    return CLAMP(info.cluster_size, LEAST, MOST);
}

/* --- finding and describing --- */

struct dirty_bitmap *dirty_bitmap_next(const struct node *node, const struct dirty_bitmap *after)
{
    const struct dirty_bitmaps *set = node->dirty_bitmaps;
    const GList *link = after ? after->link.next : set ? set->bitmaps.head : NULL;

    while (link && !((const struct dirty_bitmap *)link->data)->name)
        link = link->next;
    return link ? link->data : NULL;
}

struct dirty_bitmap *dirty_bitmap_find(const struct node *node, const char *name, struct error **err)
{
    const struct dirty_bitmaps *set = node->dirty_bitmaps;
    struct dirty_bitmap *bitmap = set ? g_hash_table_lookup(set->names, name) : NULL;

    if (!bitmap)
        error_set(err, "Dirty bitmap '%s' not found", name);
    return bitmap;
}

struct dirty_bitmap *dirty_bitmap_find_below(const struct node *node, const char *name)
{
    while (node) {
        struct dirty_bitmap *bitmap = dirty_bitmap_find(node, name, NULL);
        const struct edge *edge = node->driver->kind == BLOCK_DRIVER_FILTER ? node->primary : node->backing;

        if (bitmap)
            return bitmap;
        node = edge ? edge->child : NULL;
    }
    return NULL;
}

static struct block_dirty_info *describe(struct dirty_bitmap *bitmap)
{
    struct block_dirty_info *info = g_new0(struct block_dirty_info, 1);

    info->name = g_strdup(bitmap->name);
    info->count = (int64_t)dirty_bitmap_count(bitmap);
    info->granularity = dirty_bitmap_granularity(bitmap);
    info->recording = bitmap->enabled;
    info->busy = dirty_bitmap_busy(bitmap);
    info->persistent = bitmap->persistent;
    info->has_inconsistent = info->inconsistent = bitmap->inconsistent;
    return info;
}

struct block_dirty_info_array *dirty_bitmaps_describe(const struct node *node)
{
    const struct dirty_bitmaps *set = node->dirty_bitmaps;
    struct block_dirty_info_array *array;

    if (!dirty_bitmap_next(node, NULL))
        return NULL;
    array = g_new0(struct block_dirty_info_array, 1);
    array->items = g_new0(struct block_dirty_info *, set->bitmaps.length);
    for (const GList *link = set->bitmaps.tail; link; link = link->prev) {
        struct dirty_bitmap *bitmap = link->data;

        if (bitmap->name)
            array->items[array->count++] = describe(bitmap);
    }
    return array;
}

const char *dirty_bitmap_name(const struct dirty_bitmap *bitmap)
{
    return bitmap->name;
}

struct node *dirty_bitmap_node(const struct dirty_bitmap *bitmap)
{
    return bitmap->node;
}

uint32_t dirty_bitmap_granularity(const struct dirty_bitmap *bitmap)
{
    return UINT32_C(1) << bitmap->shift;
}

uint64_t dirty_bitmap_length(struct dirty_bitmap *bitmap)
{
    uint64_t length;

    bitmap_lock(bitmap);
    length = bitmap->length;
    bitmap_unlock(bitmap);
    return length;
}

/* --- states --- */

bool dirty_bitmap_enabled(const struct dirty_bitmap *bitmap)
{
    return bitmap->enabled;
}

void dirty_bitmap_enable(struct dirty_bitmap *bitmap)
{
    if (bitmap->enabled)
        return;
    assert(bitmap->node);
    assert(!bitmap->inconsistent);
    bitmap->enabled = true;
    spin_lock(&bitmap->set->spin);
    dirty_log_join(&bitmap->set->log, &bitmap->reader, bitmap->shift);
    spin_unlock(&bitmap->set->spin);
    if (bitmap->set->enabled++ == 0)
        node_set_hook(bitmap->node, NODE_HOOK_DIRTY_BITMAPS, true);
}

void dirty_bitmap_disable(struct dirty_bitmap *bitmap)
{
    if (!bitmap->enabled)
        return;
    assert(bitmap->node);
    bitmap->enabled = false;
    spin_lock(&bitmap->set->spin);
    catch_up(bitmap);
    dirty_log_leave(&bitmap->set->log, &bitmap->reader);
    spin_unlock(&bitmap->set->spin);
    assert(bitmap->set->enabled);
    if (--bitmap->set->enabled == 0)
        node_set_hook(bitmap->node, NODE_HOOK_DIRTY_BITMAPS, false);
}

bool dirty_bitmap_persistent(const struct dirty_bitmap *bitmap)
{
    return bitmap->persistent;
}

void dirty_bitmap_set_persistent(struct dirty_bitmap *bitmap, bool persistent)
{
    bitmap->persistent = persistent;
}

bool dirty_bitmap_inconsistent(const struct dirty_bitmap *bitmap)
{
    return bitmap->inconsistent;
}

void dirty_bitmap_set_inconsistent(struct dirty_bitmap *bitmap)
{
    assert(bitmap->persistent);
    dirty_bitmap_disable(bitmap);
    bitmap->inconsistent = true;
}

bool dirty_bitmap_read_only(const struct dirty_bitmap *bitmap)
{
    return bitmap->read_only;
}

void dirty_bitmap_set_read_only(struct dirty_bitmap *bitmap, bool read_only)
{
    bitmap->read_only = read_only;
}

void dirty_bitmap_set_busy(struct dirty_bitmap *bitmap, const char *user)
{
    assert(!user || !bitmap->user);
    g_free(bitmap->user);
    bitmap->user = g_strdup(user);
}

bool dirty_bitmap_busy(const struct dirty_bitmap *bitmap)
{
    return bitmap->user;
}

bool dirty_bitmap_check(const struct dirty_bitmap *bitmap, unsigned allow, struct error **err)
{
    if (bitmap->user) {
        error_set(err, "Bitmap '%s' is currently in use by another operation and cannot be used", bitmap->name);
        error_hint(err, "It is in use by %s", bitmap->user);
        return false;
    }
    if (bitmap->read_only && !(allow & DIRTY_BITMAP_ALLOW_READ_ONLY))
        return error_set(err, "Bitmap '%s' is readonly and cannot be modified", bitmap->name);
    if (bitmap->inconsistent && !(allow & DIRTY_BITMAP_ALLOW_INCONSISTENT)) {
        error_set(err, "Bitmap '%s' is inconsistent and cannot be used", bitmap->name);
        error_hint(err, "Try block-dirty-bitmap-remove to delete this bitmap from disk");
        return false;
    }
    return true;
}

void dirty_bitmap_freeze(struct dirty_bitmap *bitmap)
{
    bitmap_lock(bitmap);
    assert(!bitmap->successor);
    bitmap->successor = bitmap_new(bitmap_size(bitmap->bits));
    bitmap_unlock(bitmap);
}

void dirty_bitmap_thaw(struct dirty_bitmap *bitmap, enum dirty_bitmap_thaw how)
{
    struct bitmap *old;

    bitmap_lock(bitmap);
    assert(bitmap->successor);
    if (how == DIRTY_BITMAP_KEEP)
        bitmap_merge(bitmap->successor, bitmap->bits);
    old = bitmap->bits;
    bitmap->bits = TAKE(bitmap->successor);
    bitmap_unlock(bitmap);
    bitmap_free(old);
}

bool dirty_bitmap_frozen(struct dirty_bitmap *bitmap)
{
    bool frozen;

    bitmap_lock(bitmap);
    frozen = bitmap->successor;
    bitmap_unlock(bitmap);
    return frozen;
}

/* --- content --- */

uint64_t dirty_bitmap_count(struct dirty_bitmap *bitmap)
{
    uint64_t count;

    bitmap_lock(bitmap);
    count = bitmap_count(bitmap->bits) << bitmap->shift;
    bitmap_unlock(bitmap);
    return count;
}

bool dirty_bitmap_get(struct dirty_bitmap *bitmap, uint64_t offset)
{
    uint64_t bit = offset >> bitmap->shift;
    bool dirty;

    bitmap_lock(bitmap);
    dirty = bit < bitmap_size(bitmap->bits) && bitmap_get(bitmap->bits, bit);
    bitmap_unlock(bitmap);
    return dirty;
}

/* The bit at which a search up to `end` bytes stops. */
static uint64_t end_bit(const struct dirty_bitmap *bitmap, uint64_t end)
{
    return MIN(bits_for(bitmap, end), bitmap_size(bitmap->bits));
}

uint64_t dirty_bitmap_next_dirty(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end)
{
    uint64_t found, stop;

    bitmap_lock(bitmap);
    stop = end_bit(bitmap, end);
    found = bitmap_next_set(bitmap->bits, offset >> bitmap->shift, stop);
    bitmap_unlock(bitmap);
    return found < stop ? MAX(found << bitmap->shift, offset) : end;
}

uint64_t dirty_bitmap_next_clean(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end)
{
    uint64_t found;

    bitmap_lock(bitmap);
    found = bitmap_next_clear(bitmap->bits, offset >> bitmap->shift, end_bit(bitmap, end));
    bitmap_unlock(bitmap);
    return MIN(MAX(found << bitmap->shift, offset), end);
}

bool dirty_bitmap_next_area(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t end, uint64_t max_bytes,
                            uint64_t *ret_offset, uint64_t *ret_bytes)
{
    uint64_t first, count, start, stop;
    bool found;

    bitmap_lock(bitmap);
    end = MIN(end, bitmap->length);
    found =
        offset < end && bitmap_next_run(bitmap->bits, offset >> bitmap->shift, end_bit(bitmap, end), &first, &count);
    bitmap_unlock(bitmap);
    if (!found)
        return false;
    start = MAX(first << bitmap->shift, offset);
    stop = MIN((first + count) << bitmap->shift, end);
    *ret_offset = start;
    *ret_bytes = max_bytes ? MIN(stop - start, max_bytes) : stop - start;
    return true;
}

void dirty_bitmap_set(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> bitmap->shift, end;

    bitmap_lock(bitmap);
    end = bytes ? end_bit(bitmap, offset + bytes) : first;
    if (first < end)
        bitmap_set(bitmap->bits, first, end - first);
    bitmap_unlock(bitmap);
}

void dirty_bitmap_clear(struct dirty_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t first = bits_for(bitmap, offset), end;

    bitmap_lock(bitmap);
    if (offset + bytes >= bitmap->length)
        end = bitmap_size(bitmap->bits);
    else
        end = (offset + bytes) >> bitmap->shift;
    if (first < end)
        bitmap_clear(bitmap->bits, first, end - first);
    bitmap_unlock(bitmap);
}

void dirty_bitmap_merge(struct dirty_bitmap *to, struct dirty_bitmap *from)
{
    /* By a copy: the locks of two nodes are never held at once. */
    AUTO(bitmap) bits = dirty_bitmap_copy_bits(from);

    bitmap_lock(to);
    bitmap_merge_scaled(to->bits, to->shift, bits, from->shift);
    bitmap_unlock(to);
}

struct bitmap *dirty_bitmap_copy_bits(struct dirty_bitmap *bitmap)
{
    struct bitmap *copy;

    bitmap_lock(bitmap);
    copy = bitmap_copy(bitmap->bits);
    bitmap_unlock(bitmap);
    return copy;
}

void dirty_bitmap_replace_bits(struct dirty_bitmap *bitmap, struct bitmap *bits)
{
    struct bitmap *old;

    bitmap_lock(bitmap);
    old = bitmap->bits;
    bitmap_resize(bits, bitmap_size(old));
    bitmap->bits = bits;
    bitmap_unlock(bitmap);
    bitmap_free(old);
}
