/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stacks of coroutines: mapped, with a page below that faults, and pooled by the loop. The description lies at the top
 * of the stack itself, in a page that is in use anyway.
 */
#include "loop/loop-internal.h"

#include <assert.h>
#include <glib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(from, to) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

/* AddressSanitizer puts red zones around all locals. */
enum { STACK_BYTES = ASHLAR_ASAN ? 1024 * 1024 : 256 * 1024 };

enum { POOL_KEEP = 16 }; /* stacks that an idle loop keeps */

static struct stack *stack_new(void)
{
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = STACK_BYTES + guard;
    /* The description at the top, in whole cache lines. */
    size_t head = (sizeof(struct stack) + 63) & ~(size_t)63;
    char *mapping = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    struct stack *stack;

    if (mapping == MAP_FAILED)
        return NULL;
    if (mprotect(mapping + guard, STACK_BYTES, PROT_READ | PROT_WRITE) < 0) {
        munmap(mapping, size);
        return NULL;
    }
    stack = (struct stack *)(mapping + size - head);
    stack->mapping = mapping;
    stack->mapping_size = size;
    stack->bottom = mapping + guard;
    stack->valgrind_id = VALGRIND_STACK_REGISTER(stack->bottom, stack);
    return stack;
}

static void stack_free(struct stack *stack)
{
    context_done(&stack->context);
    VALGRIND_STACK_DEREGISTER(stack->valgrind_id);
    munmap(stack->mapping, stack->mapping_size);
}

struct stack *stack_get(struct stack_pool *pool, void (*entry)(void))
{
    struct stack *stack = pool->first;

    if (unlikely(pool->limit && pool->used >= pool->limit))
        return NULL;
    if (likely(stack)) {
        assert(pool->count > 0);
        pool->first = stack->next;
        pool->count--;
        pool->low = MIN(pool->low, pool->count);
    } else {
        stack = stack_new();
        if (!stack)
            return NULL;
    }
    pool->used++;
    context_make(&stack->context, stack->bottom, (size_t)((char *)stack - stack->bottom), entry);
    return stack;
}

void stack_put(struct stack_pool *pool, struct stack *stack)
{
    assert(pool->used > 0);
    stack->next = pool->first;
    pool->first = stack;
    pool->count++;
    pool->used--;
}

static void stack_pool_shrink(struct stack_pool *pool, unsigned keep)
{
    while (pool->count > keep) {
        struct stack *stack = pool->first;

        pool->first = stack->next;
        pool->count--;
        stack_free(stack);
    }
    pool->low = pool->count;
}

void stack_pool_trim(struct stack_pool *pool)
{
    stack_pool_shrink(pool, MAX(pool->count - pool->low, POOL_KEEP));
}

void stack_pool_done(struct stack_pool *pool)
{
    assert(!pool->used);
    stack_pool_shrink(pool, 0);
}
