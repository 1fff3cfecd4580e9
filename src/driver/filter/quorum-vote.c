/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/filter/quorum-vote.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

/* A place in a vector. */
struct cursor {
    const struct io_vector *vector;
    unsigned segment;
    size_t at; /* in the segment */
};

/* The bytes that are left of the cursor's segment, skipping empty ones; 0: the vector has ended. */
static size_t cursor_room(struct cursor *cursor)
{
    while (cursor->segment < cursor->vector->count && cursor->at == cursor->vector->segments[cursor->segment].iov_len) {
        cursor->segment++;
        cursor->at = 0;
    }
    if (cursor->segment == cursor->vector->count)
        return 0;
    return cursor->vector->segments[cursor->segment].iov_len - cursor->at;
}

static const uint8_t *cursor_data(const struct cursor *cursor)
{
    return (const uint8_t *)cursor->vector->segments[cursor->segment].iov_base + cursor->at;
}

size_t quorum_first_difference(const struct io_vector *a, const struct io_vector *b)
{
    struct cursor left = {.vector = a}, right = {.vector = b};
    size_t done = 0;

    assert(a->size == b->size);
    while (done < a->size) {
        size_t room = MIN(cursor_room(&left), cursor_room(&right));

        room = MIN(room, a->size - done);
        assert(room);
        if (memcmp(cursor_data(&left), cursor_data(&right), room) != 0) {
            for (size_t i = 0; i < room; i++) {
                if (cursor_data(&left)[i] != cursor_data(&right)[i])
                    return done + i;
            }
        }
        left.at += room;
        right.at += room;
        done += room;
    }
    return done;
}

int quorum_vote(struct quorum_answer *answers, unsigned count)
{
    int winner = -1;

    for (unsigned i = 0; i < count; i++) {
        answers[i].votes = 0;
        answers[i].same_as = i;
        if (answers[i].result)
            continue;
        for (unsigned j = 0; j < i; j++) {
            bool first = !answers[j].result && answers[j].same_as == j;

            if (first && quorum_first_difference(answers[i].data, answers[j].data) == answers[i].data->size) {
                answers[i].same_as = j;
                break;
            }
        }
        answers[answers[i].same_as].votes++;
    }
    for (unsigned i = 0; i < count; i++) {
        if (answers[i].votes && (winner < 0 || answers[i].votes > answers[winner].votes))
            winner = (int)i;
    }
    return winner;
}

int quorum_vote_error(const struct quorum_answer *answers, unsigned count)
{
    unsigned most = 0;
    int error = 0;

    for (unsigned i = 0; i < count; i++) {
        unsigned votes = 0;

        for (unsigned j = 0; j < count && answers[i].result; j++)
            votes += answers[j].result == answers[i].result;
        if (votes > most) {
            most = votes;
            error = answers[i].result;
        }
    }
    return error;
}
