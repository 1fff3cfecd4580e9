/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/secure-memory.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return ((size ? size : 1) + page - 1) / page * page;
}

void *secure_memory_new(size_t size)
{
    size_t pages = whole_pages(size);

    assert(pages >= size);
    void *memory = mmap(NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* A limit on locked memory is no reason to refuse service: then the pages may be swapped, as the system's owner
     * chose. */
    (void)mlock(memory, pages);
    (void)madvise(memory, pages, MADV_DONTDUMP);
    return memory;
}

void secure_memory_wipe(void *memory, size_t size)
{
    explicit_bzero(memory, size);
}

void secure_memory_free(void *memory, size_t size)
{
    if (!memory)
        return;
    secure_memory_wipe(memory, size);
    int result = munmap(memory, whole_pages(size));
    assert(!result);
}
