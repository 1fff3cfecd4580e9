/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Going through what was recorded of a disk. The model at a position is a disk of its own, on which each record is
 * applied to the file that had its id when it was made.
 */
#include "loop/sim/sim-internal.h"

#include <assert.h>

struct sim_replay {
    const struct sim_disk *source;
    struct sim_disk *disk;
    GHashTable *files; /* id -> struct sim_file, owned references */
    size_t position;
};

static void file_unref(void *file)
{
    sim_file_unref(file);
}

struct sim_replay *sim_replay_new(const struct sim_disk *disk)
{
    struct sim_replay *replay = g_new0(struct sim_replay, 1);
    GHashTableIter iter;
    void *file;

    assert(disk->base);
    replay->source = disk;
    replay->disk = sim_disk_clone(disk->base);
    replay->files = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, file_unref);
    g_hash_table_iter_init(&iter, replay->disk->names);
    while (g_hash_table_iter_next(&iter, NULL, &file))
        g_hash_table_insert(replay->files, &((struct sim_file *)file)->id, sim_file_ref(file));
    return replay;
}

void sim_replay_free(struct sim_replay *replay)
{
    if (!replay)
        return;
    g_hash_table_destroy(replay->files);
    sim_disk_free(replay->disk);
    g_free(replay);
}

size_t sim_replay_position(const struct sim_replay *replay)
{
    return replay->position;
}

static void replay_link(struct sim_replay *replay, const struct sim_record *record)
{
    struct sim_file *file = sim_disk_create(replay->disk, record->path, record->mode);

    file->id = record->file_id;
    g_hash_table_insert(replay->files, &file->id, sim_file_ref(file));
}

bool sim_replay_step(struct sim_replay *replay)
{
    const struct sim_record *record;
    struct sim_file *file;

    if (replay->position == replay->source->record->len)
        return false;
    record = g_ptr_array_index(replay->source->record, replay->position++);
    if (record->kind == SIM_RECORD_LINK) {
        replay_link(replay, record);
        return true;
    }
    file = g_hash_table_lookup(replay->files, &record->file_id);
    assert(file);
    switch (record->kind) {
    case SIM_RECORD_CHANGE:
        sim_file_apply(file, record->change);
        break;
    case SIM_RECORD_SYNC:
        sim_file_flush(file, record->sequence);
        break;
    case SIM_RECORD_UNLINK:
        sim_disk_unlink(replay->disk, record->path);
        break;
    case SIM_RECORD_RENAME:
        sim_disk_rename(replay->disk, record->path, record->other_path);
        break;
    case SIM_RECORD_LINK:
        g_assert_not_reached();
    }
    return true;
}

struct sim_disk *sim_replay_disk(const struct sim_replay *replay)
{
    return sim_disk_clone(replay->disk);
}

/* Puts the changes that were on their way at this position among those of their files, or takes them out again. */
static void replay_in_flight(const struct sim_replay *replay, bool add)
{
    const GPtrArray *records = replay->source->record;

    for (size_t i = replay->position; i < records->len; i++) {
        const struct sim_record *record = g_ptr_array_index(records, i);
        struct sim_file *file = g_hash_table_lookup(replay->files, &record->file_id);

        if (record->kind != SIM_RECORD_CHANGE || !file || record->change->submitted_at > replay->position)
            continue;
        if (add)
            g_ptr_array_add(file->in_flight, sim_change_ref(record->change));
        else
            g_ptr_array_remove(file->in_flight, record->change);
    }
}

struct sim_disk *sim_replay_cut(const struct sim_replay *replay, uint64_t seed)
{
    struct sim_disk *disk;

    replay_in_flight(replay, true);
    disk = sim_disk_after_cut(replay->disk, seed);
    replay_in_flight(replay, false);
    return disk;
}
