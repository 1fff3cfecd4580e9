/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes are first marked in a bitmap of the loop on which they happen. When a reader asks, these fresh bitmaps are
 * brought together in the newest of a row of epochs. A reader has read all before the epoch `since`; reading takes that
 * one and all later ones, and puts the reader at a new end of the row. An epoch at which no reader stands any more is
 * wanted only by those further back, so it becomes part of the one before it, and goes if it is the first.
 *
 * Keeps: (1) at every epoch stands a reader, so there are never more epochs than readers, and a change costs the same
 * whether one reads or a thousand; (2) an epoch is no coarser than what any reader at it or before it wants: it begins
 * with the finest that is wanted then, and who joins later goes to a later one.
 */
#include "block/dirty-log.h"

#include <assert.h>
#include <glib.h>

#include "base/bitmap.h"
#include "base/checked.h"

struct log_part {
    struct spin_lock spin; /* of both */
    struct bitmap *fresh;  /* NULL: nothing */
    unsigned shift;        /* of `fresh` */
};

struct dirty_epoch {
    struct dirty_epoch *before;
    struct dirty_epoch *after;
    struct bitmap *bits; /* NULL: nothing */
    unsigned shift;
    unsigned readers; /* that stand here */
};

void dirty_log_init(struct dirty_log *log)
{
    per_loop_init(&log->parts, sizeof(struct log_part), NULL);
}

void dirty_log_done(struct dirty_log *log)
{
    struct log_part *part;

    assert(!log->oldest);
    for (unsigned i = 0; (part = per_loop_next(&log->parts, &i));)
        bitmap_free(part->fresh);
    per_loop_done(&log->parts);
}

void dirty_log_record(struct dirty_log *log, uint64_t offset, uint64_t bytes)
{
    struct log_part *part = per_loop_get(&log->parts);
    uint64_t first, last;

    assert(bytes);
    spin_lock(&part->spin);
    if (unlikely(!part->fresh)) {
        part->shift = __atomic_load_n(&log->shift, __ATOMIC_ACQUIRE);
        part->fresh = bitmap_new(0);
        __atomic_store_n(&log->any_fresh, true, __ATOMIC_RELEASE);
    }
    first = offset >> part->shift;
    last = (offset + bytes - 1) >> part->shift;
    if (unlikely(last >= bitmap_size(part->fresh)))
        bitmap_resize(part->fresh, last + 1);
    bitmap_set(part->fresh, first, last - first + 1);
    spin_unlock(&part->spin);
}

/* Sets in `into` what is set in `from`. Both become longer as needed, which adds nothing. */
static void merge(struct bitmap *into, unsigned into_shift, struct bitmap *from, unsigned from_shift)
{
    uint64_t last;

    if (!bitmap_count(from))
        return;
    last = (((bitmap_size(from) - 1) << from_shift) | ((UINT64_C(1) << from_shift) - 1)) >> into_shift;
    if (last >= bitmap_size(into))
        bitmap_resize(into, last + 1);
    if (into_shift == from_shift && bitmap_size(from) < bitmap_size(into))
        bitmap_resize(from, bitmap_size(into));
    bitmap_merge_scaled(into, into_shift, from, from_shift);
}

/* Adds `bits` (taken) to an epoch. */
static void epoch_add(struct dirty_epoch *epoch, struct bitmap *bits, unsigned shift)
{
    if (!epoch->bits && epoch->shift == shift) {
        epoch->bits = bits;
        return;
    }
    if (!epoch->bits)
        epoch->bits = bitmap_new(0);
    merge(epoch->bits, epoch->shift, bits, shift);
    bitmap_free(bits);
}

/* Brings what is fresh into the newest epoch. */
static void collect(struct dirty_log *log)
{
    struct log_part *part;

    /* Who marks something after this sets it again, or its part is yet to be visited. */
    if (!__atomic_exchange_n(&log->any_fresh, false, __ATOMIC_ACQ_REL))
        return;
    for (unsigned i = 0; (part = per_loop_next(&log->parts, &i));) {
        struct bitmap *fresh;
        unsigned shift;

        spin_lock(&part->spin);
        fresh = part->fresh;
        shift = part->shift;
        part->fresh = NULL;
        spin_unlock(&part->spin);
        if (fresh && log->newest)
            epoch_add(log->newest, fresh, shift);
        else
            bitmap_free(fresh);
    }
}

static unsigned finest_shift(const struct dirty_log *log)
{
    unsigned shift = 0;

    while (shift < DIRTY_SHIFT_MAX && !log->readers[shift])
        shift++;
    return shift;
}

/* A new end of the row. */
static struct dirty_epoch *epoch_new(struct dirty_log *log)
{
    struct dirty_epoch *epoch = g_new0(struct dirty_epoch, 1);

    epoch->shift = log->shift;
    epoch->before = log->newest;
    if (log->newest)
        log->newest->after = epoch;
    else
        log->oldest = epoch;
    log->newest = epoch;
    return epoch;
}

static void epoch_remove(struct dirty_log *log, struct dirty_epoch *epoch)
{
    assert(!epoch->readers);
    if (epoch->before && epoch->bits)
        epoch_add(epoch->before, epoch->bits, epoch->shift);
    else
        bitmap_free(epoch->bits);
    if (epoch->before)
        epoch->before->after = epoch->after;
    else
        log->oldest = epoch->after;
    if (epoch->after)
        epoch->after->before = epoch->before;
    else
        log->newest = epoch->before;
    g_free(epoch);
}

/* Puts the reader at the end, with nothing to read. */
static void stand_at_end(struct dirty_log *log, struct dirty_reader *reader)
{
    struct dirty_epoch *end = log->newest;

    if (!end || end->bits || end->shift != log->shift)
        end = epoch_new(log);
    assert(end->shift <= reader->shift);
    end->readers++;
    reader->since = end;
}

static void stand_no_more(struct dirty_log *log, struct dirty_reader *reader)
{
    struct dirty_epoch *epoch = TAKE(reader->since);

    assert(epoch->readers);
    if (--epoch->readers == 0)
        epoch_remove(log, epoch);
}

static void set_shift(struct dirty_log *log, unsigned shift)
{
    __atomic_store_n(&log->shift, shift, __ATOMIC_RELEASE);
}

void dirty_log_join(struct dirty_log *log, struct dirty_reader *reader, unsigned shift)
{
    assert(!reader->since);
    assert(shift <= DIRTY_SHIFT_MAX);
    reader->shift = shift;
    log->readers[shift]++;
    /* First the granularity: what is marked with the old one from here on only marks more than it need. */
    set_shift(log, finest_shift(log));
    collect(log);
    stand_at_end(log, reader);
}

void dirty_log_leave(struct dirty_log *log, struct dirty_reader *reader)
{
    assert(reader->since);
    stand_no_more(log, reader);
    assert(log->readers[reader->shift]);
    log->readers[reader->shift]--;
    set_shift(log, finest_shift(log));
}

void dirty_log_read(struct dirty_log *log, struct dirty_reader *reader, struct bitmap *into)
{
    uint64_t size = bitmap_size(into);
    bool found = false;

    assert(reader->since);
    collect(log);
    for (const struct dirty_epoch *epoch = reader->since; epoch; epoch = epoch->after) {
        if (!epoch->bits)
            continue;
        found = true;
        merge(into, reader->shift, epoch->bits, epoch->shift);
    }
    if (!found)
        return;
    bitmap_resize(into, size);
    stand_no_more(log, reader);
    stand_at_end(log, reader);
}

void dirty_log_cut(struct dirty_log *log, uint64_t length)
{
    collect(log);
    for (struct dirty_epoch *epoch = log->oldest; epoch; epoch = epoch->after) {
        uint64_t size = length ? ((length - 1) >> epoch->shift) + 1 : 0;

        if (epoch->bits && bitmap_size(epoch->bits) > size)
            bitmap_resize(epoch->bits, size);
    }
}
