/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/library.h"

#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "crypto/secure-memory.h"

#define LIBGCRYPT_VERSION_NEEDED "1.9.0"

/* What stands before each piece of memory of the library; as large as what any type needs to be aligned. */
struct memory_header {
    size_t size;
    bool secure;
};
enum { HEADER_BYTES = 64 };
static_assert(sizeof(struct memory_header) <= HEADER_BYTES, "the header fits before the memory");

static void *memory_new(size_t size, bool secure)
{
    struct memory_header *header = NULL;

    if (size <= SIZE_MAX - HEADER_BYTES)
        header = secure ? secure_memory_new(size + HEADER_BYTES) : malloc(size + HEADER_BYTES);
    if (!header) {
        errno = ENOMEM;
        return NULL;
    }
    header->size = size;
    header->secure = secure;
    return (uint8_t *)header + HEADER_BYTES;
}

static void *memory_new_plain(size_t size)
{
    return memory_new(size, false);
}

static void *memory_new_secure(size_t size)
{
    return memory_new(size, true);
}

static struct memory_header *memory_header(void *memory)
{
    return (struct memory_header *)(void *)((uint8_t *)memory - HEADER_BYTES);
}

static void memory_free(void *memory)
{
    if (!memory)
        return;
    struct memory_header *header = memory_header(memory);
    if (header->secure)
        secure_memory_free(header, header->size + HEADER_BYTES);
    else
        free(header);
}

static void *memory_resize(void *memory, size_t size)
{
    void *larger = memory_new(size, !memory || memory_header(memory)->secure);

    if (!larger || !memory)
        return larger;
    size_t had = memory_header(memory)->size;
    memcpy(larger, memory, had < size ? had : size);
    memory_free(memory);
    return larger;
}

/*
 * The library asks this of what callers hand it, to know where to put what it makes of that on the way. Key derivation
 * would then allocate and free secure pages in each of its millions of steps; what it leaves elsewhere it wipes.
 */
static int memory_is_secure(const void *memory)
{
    (void)memory;
    return 0;
}

static void library_initialise(void)
{
    /* Somebody else in the process may have come first. Then the memory is as that one wanted it. */
    if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
        return;
    gcry_set_allocation_handler(memory_new_plain, memory_new_secure, memory_is_secure, memory_resize, memory_free);
    gcry_check_version(NULL);
    /* Its own secure memory is not disabled, or it would not ask for ours either; it is never made. */
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

bool crypto_library_ready(struct error **err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, library_initialise);
    return gcry_check_version(LIBGCRYPT_VERSION_NEEDED) ||
           error_set(err, "libgcrypt %s is older than %s, which is needed", gcry_check_version(NULL),
                     LIBGCRYPT_VERSION_NEEDED);
}
