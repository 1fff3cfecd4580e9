/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A loop's free lists. Small objects come in multiples of a cache line, I/O buffers in powers of two from a page on.
 * What is released goes to the list of the releasing thread's loop, up to a limit; a loop that has had nothing to do
 * for a while gives everything back. AddressSanitizer sees plain allocations instead.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <glib.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

struct memory_free {
    struct memory_free *next;
};

enum {
    SMALL_UNIT = 64,
    SMALL_MAX = SMALL_UNIT * (MEMORY_CLASSES - 1), /* larger ones are not pooled */
    SMALL_POOL_BYTES = 4 * 1024 * 1024,
    BUFFER_POOL_BYTES = 64 * 1024 * 1024,
    BUFFER_MAP_MIN = 128 * 1024, /* from this size on, mapped */
};

static bool pooled(struct loop *loop)
{
    return loop && !ASHLAR_ASAN;
}

static size_t small_class(size_t size)
{
    return (size + SMALL_UNIT - 1) / SMALL_UNIT;
}

void *loop_alloc(size_t size)
{
    struct loop *loop = loop_current();
    size_t class = small_class(size);
    void *object = NULL;

    if (likely(size <= SMALL_MAX && pooled(loop)) && loop->memory.small[class]) {
        struct memory_free *first = loop->memory.small[class];

        loop->memory.small[class] = first->next;
        loop->memory.small_bytes -= class * SMALL_UNIT;
        return first;
    }
    if (posix_memalign(&object, SMALL_UNIT, ASHLAR_ASAN ? size : MAX(class, 1) * SMALL_UNIT))
        abort();
    return object;
}

void loop_release(void *object, size_t size)
{
    struct loop *loop = loop_current();
    size_t class = small_class(size);
    struct memory_free *item = object;

    if (!object)
        return;
    if (unlikely(size > SMALL_MAX || !pooled(loop) || loop->memory.small_bytes >= SMALL_POOL_BYTES)) {
        free(object);
        return;
    }
    item->next = loop->memory.small[class];
    loop->memory.small[class] = item;
    loop->memory.small_bytes += class * SMALL_UNIT;
    loop->trimmed = false;
}

/* The power of two of a buffer for `size` bytes. */
static unsigned buffer_class(size_t size)
{
    unsigned class = 12;

    static_assert(LOOP_BUFFER_ALIGNMENT == 1 << 12, "the smallest buffer is as large as its alignment");
    if (size > LOOP_BUFFER_ALIGNMENT)
        class = 64 - (unsigned)__builtin_clzll(size - 1);
    return class;
}

static void *buffer_new(unsigned class)
{
    size_t size = (size_t)1 << class;
    void *buffer = NULL;

    if (size < BUFFER_MAP_MIN || ASHLAR_ASAN)
        return posix_memalign(&buffer, LOOP_BUFFER_ALIGNMENT, size) ? NULL : buffer;
    buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return buffer == MAP_FAILED ? NULL : buffer;
}

static void buffer_free(void *buffer, unsigned class)
{
    size_t size = (size_t)1 << class;

    if (size < BUFFER_MAP_MIN || ASHLAR_ASAN)
        free(buffer);
    else
        munmap(buffer, size);
}

void *loop_buffer_get(size_t size)
{
    struct loop *loop = loop_current();
    unsigned class;

    if (size > SIZE_MAX / 4)
        return NULL;
    if (unlikely(loop && loop->ops->buffer_fails) && loop->ops->buffer_fails(loop))
        return NULL;
    class = buffer_class(size);
    if (class < MEMORY_CLASSES && pooled(loop) && loop->memory.buffers[class]) {
        struct memory_free *first = loop->memory.buffers[class];

        loop->memory.buffers[class] = first->next;
        loop->memory.buffer_bytes -= (size_t)1 << class;
        return first;
    }
    return buffer_new(class);
}

void loop_buffer_put(void *buffer, size_t size)
{
    struct loop *loop = loop_current();
    unsigned class = buffer_class(size);
    struct memory_free *item = buffer;

    if (!buffer)
        return;
    assert(((uintptr_t)buffer & (LOOP_BUFFER_ALIGNMENT - 1)) == 0);
    if (class >= MEMORY_CLASSES || !pooled(loop) ||
        loop->memory.buffer_bytes + ((size_t)1 << class) > BUFFER_POOL_BYTES) {
        buffer_free(buffer, class);
        return;
    }
    item->next = loop->memory.buffers[class];
    loop->memory.buffers[class] = item;
    loop->memory.buffer_bytes += (size_t)1 << class;
    loop->trimmed = false;
}

void memory_lists_trim(struct memory_lists *lists)
{
    for (unsigned class = 0; class < MEMORY_CLASSES; class ++) {
        while (lists->small[class]) {
            struct memory_free *item = lists->small[class];

            lists->small[class] = item->next;
            free(item);
        }
        while (lists->buffers[class]) {
            struct memory_free *item = lists->buffers[class];

            lists->buffers[class] = item->next;
            buffer_free(item, class);
        }
    }
    lists->small_bytes = 0;
    lists->buffer_bytes = 0;
    malloc_trim(0);
}
