/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A loop's free lists. Small objects come in multiples of a cache line, I/O buffers in powers of two from a page on.
 * What is released goes to the list of the releasing thread's loop, up to a limit. What has not been needed for a
 * second goes back to the system, and everything when there was nothing to do for as long. AddressSanitizer sees plain
 * allocations instead.
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

static void *list_pop(struct memory_list *list)
{
    struct memory_free *item = list->first;

    assert(list->count > 0);
    list->first = item->next;
    list->count--;
    if (list->low > list->count)
        list->low = list->count;
    return item;
}

static void list_push(struct memory_list *list, void *memory)
{
    struct memory_free *item = memory;

    item->next = list->first;
    list->first = item;
    list->count++;
}

/* --- small objects --- */

static size_t small_class(size_t size)
{
    return (size + SMALL_UNIT - 1) / SMALL_UNIT;
}

void *loop_alloc(size_t size)
{
    struct loop *loop = loop_current();
    size_t class = small_class(size);
    void *object = NULL;

    if (likely(size <= SMALL_MAX && pooled(loop)) && loop->memory.small[class].first) {
        loop->memory.small_bytes -= class * SMALL_UNIT;
        return list_pop(&loop->memory.small[class]);
    }
    if (posix_memalign(&object, SMALL_UNIT, ASHLAR_ASAN ? size : MAX(class, 1) * SMALL_UNIT))
        abort();
    return object;
}

void loop_release(void *object, size_t size)
{
    struct loop *loop = loop_current();
    size_t class = small_class(size);

    if (!object)
        return;
    if (unlikely(size > SMALL_MAX || !pooled(loop) || loop->memory.small_bytes >= SMALL_POOL_BYTES)) {
        free(object);
        return;
    }
    list_push(&loop->memory.small[class], object);
    loop->memory.small_bytes += class * SMALL_UNIT;
    loop->trimmed = false;
}

/* --- I/O buffers --- */

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
    if (class < MEMORY_CLASSES && pooled(loop) && loop->memory.buffers[class].first) {
        loop->memory.buffer_bytes -= (size_t)1 << class;
        return list_pop(&loop->memory.buffers[class]);
    }
    return buffer_new(class);
}

void loop_buffer_put(void *buffer, size_t size)
{
    struct loop *loop = loop_current();
    unsigned class = buffer_class(size);

    if (!buffer)
        return;
    assert(((uintptr_t)buffer & (LOOP_BUFFER_ALIGNMENT - 1)) == 0);
    if (class >= MEMORY_CLASSES || !pooled(loop) ||
        loop->memory.buffer_bytes + ((size_t)1 << class) > BUFFER_POOL_BYTES) {
        buffer_free(buffer, class);
        return;
    }
    list_push(&loop->memory.buffers[class], buffer);
    loop->memory.buffer_bytes += (size_t)1 << class;
    loop->trimmed = false;
}

void *loop_table_get(size_t size)
{
    struct loop *loop = loop_current();
    void *table = NULL;

    if (unlikely(loop && loop->ops->buffer_fails) && loop->ops->buffer_fails(loop))
        return NULL;
    return posix_memalign(&table, LOOP_TABLE_ALIGNMENT, size) ? NULL : table;
}

void loop_table_put(void *table)
{
    free(table);
}

/* --- giving back --- */

void memory_lists_trim(struct memory_lists *lists, bool all)
{
    for (unsigned class = 0; class < MEMORY_CLASSES; class ++) {
        struct memory_list *small = &lists->small[class];
        struct memory_list *buffers = &lists->buffers[class];

        for (uint32_t i = all ? small->count : small->low; i; i--) {
            free(list_pop(small));
            lists->small_bytes -= class * SMALL_UNIT;
        }
        for (uint32_t i = all ? buffers->count : buffers->low; i; i--) {
            buffer_free(list_pop(buffers), class);
            lists->buffer_bytes -= (size_t)1 << class;
        }
        small->low = small->count;
        buffers->low = buffers->count;
    }
    assert(!all || (!lists->small_bytes && !lists->buffer_bytes));
    if (all)
        malloc_trim(0);
}
