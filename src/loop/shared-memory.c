/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signal handler finds the mapping by a table of all of them. It can take no lock, so a slot is published by its
 * `begin` and withdrawn before its memory is unmapped; nobody touches a mapping without a reference, so no fault of a
 * mapping's own can come after that.
 */
#include "loop/shared-memory.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"

enum {
    MAPPINGS_MAX = 4096,
    REPLACED_SINGLY_MAX = 16, /* of one piece: each is a mapping more, of which a process can only have so many */
};

struct mapping_slot {
    atomic_uintptr_t begin; /* 0: free or being filled */
    atomic_uintptr_t end;
    atomic_size_t page;   /* bytes, a power of two */
    atomic_uint replaced; /* how often something was */
    atomic_bool taken;
    atomic_bool damaged;
};

struct shared_memory {
    atomic_uint references;
    struct mapping_slot *slot;
    uint8_t *map; /* page-aligned, from before `base` */
    size_t map_size;
    uint8_t *base;
    size_t size;
};

/* Process-wide, as signals are. */
static struct mapping_slot slots[MAPPINGS_MAX];
static struct sigaction previous_action;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;

/* Puts zeroes in the place of the page at `address`; after some of these, in that of all to the end. */
static bool replace_page(struct mapping_slot *slot, uintptr_t address, uintptr_t end)
{
    uintptr_t page = atomic_load_explicit(&slot->page, memory_order_relaxed);
    uintptr_t from = address & ~(page - 1);
    unsigned before = atomic_fetch_add_explicit(&slot->replaced, 1, memory_order_relaxed);
    size_t size = before < REPLACED_SINGLY_MAX ? page : end - from;

    atomic_store_explicit(&slot->damaged, true, memory_order_relaxed);
    return mmap((void *)from, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                0) != MAP_FAILED;
}

/* The same for an address that may be of no mapping of ours. */
static bool replace_if_ours(uintptr_t address)
{
    for (size_t i = 0; i < MAPPINGS_MAX; i++) {
        struct mapping_slot *slot = &slots[i];
        uintptr_t begin = atomic_load_explicit(&slot->begin, memory_order_acquire);
        uintptr_t end = atomic_load_explicit(&slot->end, memory_order_relaxed);

        if (begin && address >= begin && address < end)
            return replace_page(slot, address, end);
    }
    return false;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;

    if (!replace_if_ours((uintptr_t)info->si_addr)) {
        /* Not ours: it happens again under whatever was there before us. */
        sigaction(SIGBUS, &previous_action, NULL);
    }
    errno = saved_errno;
}

static void install_handler(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};

    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
}

static struct mapping_slot *slot_take(void)
{
    for (size_t i = 0; i < MAPPINGS_MAX; i++) {
        bool expected = false;

        if (atomic_compare_exchange_strong(&slots[i].taken, &expected, true))
            return &slots[i];
    }
    return NULL;
}

/* The size of its pages in *ret_page: huge ones are mapped, and replaced, as a whole. */
static bool check_file(int fd, uint64_t offset, size_t size, size_t *ret_page, struct error **err)
{
    struct stat status;
    struct statfs system;

    if (fstat(fd, &status) || fstatfs(fd, &system))
        return error_set_errno(err, errno, "Cannot examine shared memory");
    if (!S_ISREG(status.st_mode))
        return error_set(err, "Shared memory must be a regular file or memfd: its mode is %o",
                         (unsigned)status.st_mode);
    if (!range_fits(offset, size, (uint64_t)status.st_size))
        return error_set(err,
                         "Shared memory of %zu bytes at offset %" PRIu64
                         " passes the end of its file, which has %" PRIu64 " bytes",
                         size, offset, (uint64_t)status.st_size);
    *ret_page = (uint32_t)system.f_type == HUGETLBFS_MAGIC ? (size_t)system.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
    return true;
}

static struct shared_memory *map_pages(int fd, uint64_t offset, size_t size, size_t page, int flags, struct error **err)
{
    uint64_t before = offset & (page - 1);
    struct shared_memory *memory;
    struct mapping_slot *slot;
    size_t map_size;
    void *map;

    assert(size && is_power_of_two(page));
    if (size > SIZE_MAX - 2 * page) {
        error_set(err, "Shared memory of %zu bytes is too large", size);
        return NULL;
    }
    (void)pthread_once(&handler_once, install_handler);
    slot = slot_take();
    if (!slot) {
        error_set(err, "More than %d pieces of shared memory", MAPPINGS_MAX);
        return NULL;
    }
    map_size = align_up(size + before, page);
    map = mmap(NULL, map_size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, (off_t)(offset - before));
    if (map == MAP_FAILED) {
        error_set_errno(err, errno, "Cannot map %zu bytes of shared memory at offset %" PRIu64, size, offset);
        atomic_store(&slot->taken, false);
        return NULL;
    }
    memory = g_new0(struct shared_memory, 1);
    *memory = (struct shared_memory){.slot = slot, .map = map, .map_size = map_size, .base = (uint8_t *)map + before};
    memory->size = size;
    atomic_init(&memory->references, 1);
    atomic_store(&slot->damaged, false);
    atomic_store(&slot->replaced, 0);
    atomic_store(&slot->page, page);
    atomic_store_explicit(&slot->end, (uintptr_t)map + map_size, memory_order_relaxed);
    atomic_store_explicit(&slot->begin, (uintptr_t)map, memory_order_release);
    return memory;
}

struct shared_memory *shared_memory_map(int fd, uint64_t offset, size_t size, struct error **err)
{
    size_t page;

    return check_file(fd, offset, size, &page, err) ? map_pages(fd, offset, size, page, MAP_SHARED, err) : NULL;
}

struct shared_memory *shared_memory_map_device(int fd, uint64_t offset, size_t size, bool shared, struct error **err)
{
    return map_pages(fd, offset, size, (size_t)sysconf(_SC_PAGESIZE), shared ? MAP_SHARED : MAP_PRIVATE, err);
}

int shared_memory_file(const char *label, size_t size)
{
    int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int result;

    if (fd < 0)
        return -errno;
    if (!ftruncate(fd, (off_t)size))
        return fd;
    result = -errno;
    close(fd);
    return result;
}

struct shared_memory *shared_memory_ref(struct shared_memory *memory)
{
    unsigned before = atomic_fetch_add_explicit(&memory->references, 1, memory_order_relaxed);

    assert(before);
    return memory;
}

void shared_memory_unref(struct shared_memory *memory)
{
    if (!memory || atomic_fetch_sub_explicit(&memory->references, 1, memory_order_acq_rel) != 1)
        return;
    atomic_store_explicit(&memory->slot->begin, 0, memory_order_release);
    munmap(memory->map, memory->map_size);
    atomic_store(&memory->slot->taken, false);
    g_free(memory);
}

uint8_t *shared_memory_base(const struct shared_memory *memory)
{
    return memory->base;
}

size_t shared_memory_size(const struct shared_memory *memory)
{
    return memory->size;
}

bool shared_memory_damaged(const struct shared_memory *memory)
{
    return atomic_load_explicit(&memory->slot->damaged, memory_order_relaxed);
}
