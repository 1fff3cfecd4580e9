/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/io-vector.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

struct io_vector io_vector_of(const struct iovec *segments, unsigned count)
{
    struct io_vector vector = {.segments = segments, .count = count};

    for (unsigned i = 0; i < count; i++)
        vector.size += segments[i].iov_len;
    return vector;
}

/* A walk over the pieces of a range of a vector. */
struct walk {
    const struct iovec *segment;
    size_t skip; /* bytes of `segment` that lie before the walk */
    size_t left;
};

static struct walk walk_start(const struct io_vector *vector, size_t offset, size_t size)
{
    struct walk walk = {.segment = vector->segments, .skip = offset, .left = size};

    assert(offset <= vector->size);
    assert(size <= vector->size - offset);
    while (walk.left && walk.skip >= walk.segment->iov_len) {
        walk.skip -= walk.segment->iov_len;
        walk.segment++;
    }
    return walk;
}

/* The next piece in *ret; false at the end. */
static bool walk_next(struct walk *walk, struct iovec *ret)
{
    while (walk->left) {
        size_t here = walk->segment->iov_len - walk->skip;

        ret->iov_base = (char *)walk->segment->iov_base + walk->skip;
        ret->iov_len = here < walk->left ? here : walk->left;
        walk->left -= ret->iov_len;
        walk->skip = 0;
        walk->segment++;
        if (ret->iov_len)
            return true;
    }
    return false;
}

unsigned io_vector_slice_count(const struct io_vector *vector, size_t offset, size_t size)
{
    struct walk walk = walk_start(vector, offset, size);
    struct iovec piece;
    unsigned count = 0;

    while (walk_next(&walk, &piece))
        count++;
    return count;
}

struct io_vector io_vector_slice(const struct io_vector *vector, size_t offset, size_t size, struct iovec *segments)
{
    struct walk walk = walk_start(vector, offset, size);
    unsigned count = 0;

    while (walk_next(&walk, &segments[count]))
        count++;
    return (struct io_vector){.segments = segments, .count = count, .size = size};
}

void io_vector_read(const struct io_vector *vector, size_t offset, void *to, size_t size)
{
    struct walk walk = walk_start(vector, offset, size);
    struct iovec piece;

    for (char *at = to; walk_next(&walk, &piece); at += piece.iov_len)
        memcpy(at, piece.iov_base, piece.iov_len);
}

void io_vector_write(const struct io_vector *vector, size_t offset, const void *from, size_t size)
{
    struct walk walk = walk_start(vector, offset, size);
    struct iovec piece;

    for (const char *at = from; walk_next(&walk, &piece); at += piece.iov_len)
        memcpy(piece.iov_base, at, piece.iov_len);
}

void io_vector_fill(const struct io_vector *vector, size_t offset, int byte, size_t size)
{
    struct walk walk = walk_start(vector, offset, size);
    struct iovec piece;

    while (walk_next(&walk, &piece))
        memset(piece.iov_base, byte, piece.iov_len);
}

bool memory_is_zero(const void *memory, size_t size)
{
    const unsigned char *bytes = memory;
    static const size_t probe_bytes = 16;

    /* Data rarely starts with zeroes: look there first, then compare the buffer with itself, shifted. */
    for (size_t i = 0; i < size && i < probe_bytes; i++) {
        if (bytes[i])
            return false;
    }
    return size <= probe_bytes || !memcmp(bytes, bytes + probe_bytes, size - probe_bytes);
}

bool io_vector_is_zero(const struct io_vector *vector, size_t offset, size_t size)
{
    struct walk walk = walk_start(vector, offset, size);
    struct iovec piece;

    while (walk_next(&walk, &piece)) {
        if (!memory_is_zero(piece.iov_base, piece.iov_len))
            return false;
    }
    return true;
}

/* --- comparing --- */

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

size_t io_vector_difference(const struct io_vector *a, const struct io_vector *b)
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
