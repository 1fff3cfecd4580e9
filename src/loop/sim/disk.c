/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated disk: files by path, what of them is on the medium, and what is only in memory.
 *
 * Keeps, for each file: (1) `current` is `durable` with all of `pending` applied in order; (2) `pending` is in the
 * order of completion; (3) what a power cut leaves is `durable` with an arbitrary part of `pending`, sector by sector,
 * and of `in_flight` applied, and with all of the lasting changes.
 */
#include "loop/sim/sim-internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* --- changes --- */

struct sim_change *sim_change_new(enum sim_change_kind kind, uint64_t offset, uint64_t bytes)
{
    struct sim_change *change = g_new0(struct sim_change, 1);

    *change = (struct sim_change){.references = 1, .kind = kind, .offset = offset, .bytes = bytes};
    if (kind == SIM_CHANGE_WRITE)
        change->data = g_malloc(bytes);
    return change;
}

struct sim_change *sim_change_ref(struct sim_change *change)
{
    change->references++;
    return change;
}

void sim_change_unref(struct sim_change *change)
{
    assert(change->references > 0);
    if (--change->references)
        return;
    g_free(change->data);
    g_free(change);
}

static void change_unref(void *change)
{
    sim_change_unref(change);
}

static void change_apply(const struct sim_change *change, struct sim_image *image)
{
    switch (change->kind) {
    case SIM_CHANGE_WRITE:
        sim_image_write(image, change->offset, change->data, change->bytes);
        break;
    case SIM_CHANGE_ZERO:
        if (!change->keep_size && image->size < change->offset + change->bytes)
            sim_image_resize(image, change->offset + change->bytes);
        sim_image_zero(image, change->offset, change->bytes);
        break;
    case SIM_CHANGE_RESIZE:
        sim_image_resize(image, change->offset);
        break;
    case SIM_CHANGE_GROW:
        if (image->size < change->offset)
            sim_image_resize(image, change->offset);
        break;
    }
}

/* Writes some of its sectors. */
static void change_apply_torn(const struct sim_change *change, struct sim_image *image, struct sim_random *random)
{
    uint64_t at = 0;

    assert(change->kind == SIM_CHANGE_WRITE);
    while (at < change->bytes) {
        uint64_t part = MIN(SIM_SECTOR - (change->offset + at) % SIM_SECTOR, change->bytes - at);

        if (sim_random_below(random, 2))
            sim_image_write(image, change->offset + at, change->data + at, part);
        at += part;
    }
}

/* --- files --- */

static struct sim_file *file_new(uint64_t id, mode_t mode)
{
    struct sim_file *file = g_new0(struct sim_file, 1);

    file->references = 1;
    file->id = id;
    file->mode = mode;
    file->pending = g_ptr_array_new_with_free_func(change_unref);
    file->in_flight = g_ptr_array_new_with_free_func(change_unref);
    file->locks = g_array_new(FALSE, FALSE, sizeof(struct sim_lock_range));
    return file;
}

struct sim_file *sim_file_ref(struct sim_file *file)
{
    file->references++;
    return file;
}

void sim_file_unref(struct sim_file *file)
{
    assert(file->references > 0);
    if (--file->references)
        return;
    assert(!file->locks->len);
    assert(!file->in_flight->len);
    sim_image_done(&file->current);
    sim_image_done(&file->durable);
    g_ptr_array_free(file->pending, TRUE);
    g_ptr_array_free(file->in_flight, TRUE);
    g_array_free(file->locks, TRUE);
    g_free(file);
}

static void file_unref(void *file)
{
    sim_file_unref(file);
}

void sim_file_apply(struct sim_file *file, struct sim_change *change)
{
    file->sequence++;
    /* In a replay it has its number already, and the files there have been through the same. */
    assert(!change->sequence || change->sequence == file->sequence);
    change->sequence = file->sequence;
    change_apply(change, &file->current);
    g_ptr_array_add(file->pending, sim_change_ref(change));
}

void sim_file_flush(struct sim_file *file, uint64_t sequence)
{
    guint count = 0;

    while (count < file->pending->len) {
        const struct sim_change *change = g_ptr_array_index(file->pending, count);

        if (change->sequence > sequence)
            break;
        change_apply(change, &file->durable);
        count++;
    }
    if (count)
        g_ptr_array_remove_range(file->pending, 0, count);
}

/* --- disks --- */

struct sim_disk *sim_disk_new(void)
{
    struct sim_disk *disk = g_new0(struct sim_disk, 1);

    disk->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, file_unref);
    disk->capacity = UINT64_MAX;
    return disk;
}

void sim_disk_free(struct sim_disk *disk)
{
    if (!disk)
        return;
    g_hash_table_destroy(disk->names);
    if (disk->base) {
        sim_disk_free(disk->base);
        g_ptr_array_free(disk->record, TRUE);
    }
    g_free(disk);
}

struct sim_disk *sim_disk_derive(const struct sim_disk *disk,
                                 void (*choose)(const struct sim_file *file, struct sim_image *to, void *opaque),
                                 void *opaque)
{
    struct sim_disk *derived = sim_disk_new();
    g_autoptr(GList) paths = g_hash_table_get_keys(disk->names);

    derived->next_id = disk->next_id;
    derived->capacity = disk->capacity;
    /* In an order of its own, so that random choices do not depend on the hash table's. */
    paths = g_list_sort(paths, (GCompareFunc)strcmp);
    for (const GList *i = paths; i; i = i->next) {
        const struct sim_file *from = sim_disk_find(disk, i->data);
        struct sim_file *to = file_new(from->id, from->mode);

        choose(from, &to->durable, opaque);
        sim_image_copy(&to->current, &to->durable);
        to->links = 1;
        to->sequence = from->sequence;
        derived->used_pages += to->current.count;
        g_hash_table_insert(derived->names, g_strdup(i->data), to);
    }
    return derived;
}

static void choose_current(const struct sim_file *file, struct sim_image *to, void *opaque)
{
    sim_image_copy(to, &file->current);
}

struct sim_disk *sim_disk_clone(const struct sim_disk *disk)
{
    return sim_disk_derive(disk, choose_current, NULL);
}

static void choose_change(const struct sim_change *change, struct sim_image *to, struct sim_random *random)
{
    enum { KEEP, DROP, TEAR, CHOICES } choice = change->lasting ? KEEP : sim_random_below(random, CHOICES);

    if (choice == KEEP || (choice == TEAR && change->kind != SIM_CHANGE_WRITE))
        change_apply(change, to);
    else if (choice == TEAR)
        change_apply_torn(change, to, random);
}

void sim_disk_choose_cut(const struct sim_file *file, struct sim_image *to, void *opaque)
{
    struct sim_random *random = opaque;
    /* Often nothing but what was flushed, and often everything, has survived: both are cases of their own. */
    uint64_t style = sim_random_below(random, 8);

    sim_image_copy(to, style == 0 ? &file->current : &file->durable);
    if (style == 0)
        return;
    for (guint i = 0; i < file->pending->len; i++) {
        const struct sim_change *change = g_ptr_array_index(file->pending, i);

        if (style != 1 || change->lasting)
            choose_change(change, to, random);
    }
    for (guint i = 0; i < file->in_flight->len && style != 1; i++) {
        struct sim_change change = *(const struct sim_change *)g_ptr_array_index(file->in_flight, i);

        change.lasting = false; /* nobody has been told yet */
        choose_change(&change, to, random);
    }
}

struct sim_disk *sim_disk_after_cut(const struct sim_disk *disk, uint64_t seed)
{
    struct sim_random random = {.state = seed};

    return sim_disk_derive(disk, sim_disk_choose_cut, &random);
}

void sim_disk_set_capacity(struct sim_disk *disk, uint64_t bytes)
{
    disk->capacity = bytes;
}

/* --- recording --- */

static void record_free(void *opaque)
{
    struct sim_record *record = opaque;

    if (record->change)
        sim_change_unref(record->change);
    g_free(record->path);
    g_free(record->other_path);
    g_free(record);
}

void sim_disk_record(struct sim_disk *disk)
{
    assert(!disk->base);
    disk->base = sim_disk_clone(disk);
    disk->record = g_ptr_array_new_with_free_func(record_free);
}

size_t sim_disk_recorded(const struct sim_disk *disk)
{
    return disk->record ? disk->record->len : 0;
}

static struct sim_record *disk_record(struct sim_disk *disk, enum sim_record_kind kind, uint64_t file_id)
{
    struct sim_record *record;

    if (!disk->record)
        return NULL;
    record = g_new0(struct sim_record, 1);
    record->kind = kind;
    record->file_id = file_id;
    g_ptr_array_add(disk->record, record);
    return record;
}

/* --- names --- */

struct sim_file *sim_disk_find(const struct sim_disk *disk, const char *path)
{
    return g_hash_table_lookup(disk->names, path);
}

struct sim_file *sim_disk_create(struct sim_disk *disk, const char *path, mode_t mode)
{
    struct sim_file *file = file_new(disk->next_id++, mode);
    struct sim_record *record = disk_record(disk, SIM_RECORD_LINK, file->id);

    assert(!sim_disk_find(disk, path));
    if (record) {
        record->path = g_strdup(path);
        record->mode = mode;
    }
    file->links = 1;
    g_hash_table_insert(disk->names, g_strdup(path), file);
    return file;
}

void sim_disk_unlink(struct sim_disk *disk, const char *path)
{
    struct sim_file *file = sim_disk_find(disk, path);
    struct sim_record *record = disk_record(disk, SIM_RECORD_UNLINK, file->id);

    if (record)
        record->path = g_strdup(path);
    file->links = 0;
    /* Who still has it open keeps its pages; they are not counted any more. */
    disk->used_pages -= file->current.count;
    g_hash_table_remove(disk->names, path);
}

void sim_disk_rename(struct sim_disk *disk, const char *from, const char *to)
{
    struct sim_file *file = sim_file_ref(sim_disk_find(disk, from));
    struct sim_record *record;

    if (sim_disk_find(disk, to))
        sim_disk_unlink(disk, to);
    g_hash_table_remove(disk->names, from);
    g_hash_table_insert(disk->names, g_strdup(to), file);
    record = disk_record(disk, SIM_RECORD_RENAME, file->id);
    if (record) {
        record->path = g_strdup(from);
        record->other_path = g_strdup(to);
    }
}

/* --- contents --- */

void sim_disk_change_begin(struct sim_disk *disk, struct sim_file *file, struct sim_change *change)
{
    change->submitted_at = sim_disk_recorded(disk);
    g_ptr_array_add(file->in_flight, sim_change_ref(change));
}

void sim_disk_change_drop(struct sim_file *file, struct sim_change *change)
{
    gboolean found = g_ptr_array_remove(file->in_flight, change);

    assert(found);
}

void sim_disk_change_lose(struct sim_file *file, struct sim_change *change)
{
    /* A power cut may still leave some of it: what that is, is chosen from this list. */
    g_ptr_array_add(file->pending, sim_change_ref(change));
    sim_disk_change_drop(file, change);
    change->lasting = false;
    change->sequence = UINT64_MAX;
}

int sim_disk_change_complete(struct sim_disk *disk, struct sim_file *file, struct sim_change *change)
{
    size_t before = file->current.count;
    size_t more =
        change->kind == SIM_CHANGE_WRITE ? sim_image_new_pages(&file->current, change->offset, change->bytes) : 0;
    struct sim_record *record;

    sim_disk_change_drop(file, change);
    if (disk->capacity != UINT64_MAX && more && (disk->used_pages + more) * SIM_PAGE > disk->capacity)
        return -ENOSPC;
    record = disk_record(disk, SIM_RECORD_CHANGE, file->id);
    if (record)
        record->change = sim_change_ref(change);
    sim_file_apply(file, change);
    if (file->links)
        disk->used_pages += file->current.count - before;
    return 0;
}

void sim_disk_change_tear(struct sim_disk *disk, struct sim_file *file, struct sim_change *change,
                          struct sim_random *random)
{
    uint64_t at = 0;

    assert(change->kind == SIM_CHANGE_WRITE);
    sim_disk_change_drop(file, change);
    while (at < change->bytes) {
        uint64_t bytes = MIN(SIM_SECTOR - (change->offset + at) % SIM_SECTOR, change->bytes - at);

        if (sim_random_below(random, 2)) {
            struct sim_change *part = sim_change_new(SIM_CHANGE_WRITE, change->offset + at, bytes);

            memcpy(part->data, change->data + at, bytes);
            sim_disk_change_begin(disk, file, part);
            (void)sim_disk_change_complete(disk, file, part);
            sim_change_unref(part);
        }
        at += bytes;
    }
}

void sim_disk_sync(struct sim_disk *disk, struct sim_file *file, uint64_t sequence)
{
    struct sim_record *record = disk_record(disk, SIM_RECORD_SYNC, file->id);

    if (record)
        record->sequence = sequence;
    sim_file_flush(file, sequence);
}

void sim_disk_put(struct sim_disk *disk, const char *path, const void *data, size_t size)
{
    struct sim_file *file = sim_disk_find(disk, path);
    struct sim_change *change = sim_change_new(SIM_CHANGE_WRITE, 0, size);
    struct sim_change *resize = sim_change_new(SIM_CHANGE_RESIZE, size, 0);

    if (!file)
        file = sim_disk_create(disk, path, 0600);
    if (size)
        memcpy(change->data, data, size);
    sim_disk_change_begin(disk, file, resize);
    (void)sim_disk_change_complete(disk, file, resize);
    sim_disk_change_begin(disk, file, change);
    (void)sim_disk_change_complete(disk, file, change);
    sim_disk_sync(disk, file, file->sequence);
    sim_change_unref(change);
    sim_change_unref(resize);
}

char *sim_disk_get(const struct sim_disk *disk, const char *path, size_t *ret_size)
{
    const struct sim_file *file = sim_disk_find(disk, path);
    char *data;

    if (!file)
        return NULL;
    data = g_malloc(file->current.size + 1);
    sim_image_read(&file->current, 0, data, file->current.size);
    data[file->current.size] = 0;
    *ret_size = file->current.size;
    return data;
}
