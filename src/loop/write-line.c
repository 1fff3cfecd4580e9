/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes of several loops to one file. The kernel makes one after the other, and who has to wait for another's spins
 * meanwhile. So here, too, one loop writes at a time: who comes while another does, leaves its write to that one and
 * goes on with other things. The loop that holds the line makes its own writes of this turn, and what others have left
 * meanwhile at the beginning of the next; all of that is told in one go, so that each loop is woken once.
 *
 * Keeps: (1) who holds the line gives it back in the next turn at the latest, without having waited for anything; (2)
 * entries that wait while nobody holds it have an heir on its way, who was the first of them; (3) the state of an entry
 * changes under the line's spin lock, and its coroutine is claimed under it and queued after it, so an entry is not
 * gone before its waker is through with it.
 */
#include <assert.h>

#include "loop/loop-internal.h"

enum { LOOKS = 128 };

static inline void processor_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void list_append(struct write_entries *list, struct write_entry *entry)
{
    entry->next = NULL;
    if (list->last)
        list->last->next = entry;
    else
        list->first = entry;
    list->last = entry;
}

static struct write_entry *list_take(struct write_entries *list)
{
    struct write_entry *entry = list->first;

    if (!entry)
        return NULL;
    list->first = entry->next;
    if (!list->first)
        list->last = NULL;
    return entry;
}

/* Nobody but this loop gives the line away, so what it reads of itself stays true. */
static bool is_ours(struct write_line *line, const struct loop *loop)
{
    return atomic_load_explicit(&line->holder, memory_order_relaxed) == loop;
}

/*
 * A write takes a few microseconds, and to be woken later many: who would be the first to wait looks for a moment
 * whether the line becomes free. A loop that has much to write holds it for longer, and then this is once for all who
 * come.
 */
static void look_for_a_moment(struct write_line *line)
{
    for (unsigned i = 0; i < LOOKS; i++) {
        if (!atomic_load_explicit(&line->holder, memory_order_relaxed))
            return;
        processor_pause();
    }
}

enum write_turn CO_FN co_write_line_enter(struct write_line *line, struct write_entry *entry)
{
    struct loop *loop = loop_self();

    CO_ASSERT();
    if (is_ours(line, loop))
        return WRITE_PASSES;
    entry->coroutine = co_self();
    entry->state = WRITE_WAITS;
    spin_lock(&line->spin);
    if (atomic_load_explicit(&line->holder, memory_order_relaxed) && !line->waiting.first) {
        spin_unlock(&line->spin);
        look_for_a_moment(line);
        spin_lock(&line->spin);
    }
    if (likely(!atomic_load_explicit(&line->holder, memory_order_relaxed))) {
        atomic_store_explicit(&line->holder, loop, memory_order_relaxed);
        spin_unlock(&line->spin);
        return WRITE_HOLDS;
    }
    list_append(&line->waiting, entry);
    while (entry->state == WRITE_WAITS) {
        spin_unlock(&line->spin);
        co_suspend();
        spin_lock(&line->spin);
    }
    spin_unlock(&line->spin);
    return WRITE_WAITED;
}

bool write_line_wanted(struct write_line *line)
{
    bool wanted;

    spin_lock(&line->spin);
    assert(is_ours(line, loop_self()));
    wanted = line->waiting.first;
    if (!wanted)
        atomic_store_explicit(&line->holder, NULL, memory_order_relaxed);
    spin_unlock(&line->spin);
    return wanted;
}

struct write_entry *write_line_next(struct write_line *line)
{
    struct write_entry *entry;

    spin_lock(&line->spin);
    assert(is_ours(line, loop_self()));
    entry = list_take(&line->waiting);
    spin_unlock(&line->spin);
    return entry;
}

/* Under the line's lock. Where the coroutine is awake, it may leave as soon as that is free. */
static void settle(struct write_entry *entry, enum write_state state, struct write_entries *claimed)
{
    entry->state = state;
    if (coroutine_claim(entry->coroutine))
        list_append(claimed, entry);
}

static void settle_all(struct write_entries *list, enum write_state state, struct write_entries *claimed)
{
    struct write_entry *entry;

    while ((entry = list_take(list)))
        settle(entry, state, claimed);
}

static void queue_all(struct write_entries *claimed)
{
    struct write_entry *entry;

    while ((entry = list_take(claimed)))
        coroutine_queue(entry->coroutine);
}

void write_line_tell(struct write_line *line, struct write_entries *written)
{
    struct write_entries claimed = {0};

    if (!written->first)
        return;
    spin_lock(&line->spin);
    settle_all(written, WRITE_DONE, &claimed);
    spin_unlock(&line->spin);
    queue_all(&claimed);
}

void write_line_leave(struct write_line *line, bool give_up)
{
    struct write_entries claimed = {0};

    spin_lock(&line->spin);
    assert(is_ours(line, loop_self()));
    atomic_store_explicit(&line->holder, NULL, memory_order_relaxed);
    if (give_up)
        settle_all(&line->waiting, WRITE_LEFT, &claimed);
    else if (line->waiting.first)
        settle(list_take(&line->waiting), WRITE_INHERITS, &claimed);
    spin_unlock(&line->spin);
    queue_all(&claimed);
}

void write_line_wrote(struct write_entries *written, struct write_entry *entry, ssize_t result)
{
    entry->result = result;
    list_append(written, entry);
}
