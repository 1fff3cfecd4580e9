/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks: a promise between all programs that open an image. For each permission bit b, whoever uses it holds a
 * shared lock on byte 100 + b of the file, whoever does not let others use it one on byte 200 + b. First the own locks
 * are taken, then one looks whether somebody else's stand against them: of two that come at the same time, at least one
 * sees the other. All locks are shared ones, so that a descriptor for reading suffices; they belong to the open file
 * description and vanish with it.
 */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "base/error.h"
#include "driver/protocol/file/file.h"

enum { LOCK_BYTE_USED = 100, LOCK_BYTE_UNSHARED = 200, LOCK_BITS = 4 };
static_assert(PERM_ALL == (1u << LOCK_BITS) - 1, "each permission has its bytes");

bool CO_FN file_co_locks_open(struct file_node *file, bool required, struct error **err)
{
    pid_t pid;
    int result = file_lock_test(file->lock_fd, LOCK_BYTE_USED, 1, FILE_LOCK_EXCLUSIVE, &pid);

    file->locks = (struct file_locks){.enabled = result >= 0};
    if (result < 0 && required)
        return error_set_errno(err, result, "Could not lock '%s': locking=on, and its file system has no such locks",
                               file->shown_path);
    return true;
}

/* The sentence about who is in the way, after the text that programs know. */
static bool CO_FN co_fail_locked(struct file_node *file, uint64_t byte, const char *text, struct error **err)
{
    g_autofree char *command = NULL;
    pid_t pid;

    if (!co_file_lock_holder(file->lock_fd, byte, 1, &pid, &command))
        error_set(err, "%s", text);
    else if (pid == getpid())
        error_set(err, "%s: in use by another node of this process", text);
    else
        error_set(err, "%s: in use by process %d (%s)", text, (int)pid, command);
    error_hint(err, "Is another process using the image [%s]?", file->shown_path);
    return false;
}

/* Takes the bytes base + b for each bit b of `bits`; on failure, those taken so far are the caller's to let go. */
static bool CO_FN co_lock_bits(struct file_node *file, uint64_t base, uint32_t bits, uint32_t *taken,
                               struct error **err)
{
    for (unsigned b = 0; b < LOCK_BITS; b++) {
        int result;

        if (!(bits & 1u << b))
            continue;
        result = file_lock_set(file->lock_fd, base + b, 1, FILE_LOCK_SHARED);
        if (result == 0) {
            *taken |= 1u << b;
            continue;
        }

        g_autofree char *text = g_strdup_printf("Failed to lock byte %d", (int)(base + b));

        if (result == -EAGAIN || result == -EACCES)
            return co_fail_locked(file, base + b, text, err);
        return error_set_errno(err, result, "%s of '%s'", text, file->shown_path);
    }
    return true;
}

/* Whether nobody holds a byte base + b for any bit b of `bits`. */
static bool CO_FN co_check_bits(struct file_node *file, uint64_t base, uint32_t bits, const char *shared,
                                struct error **err)
{
    for (unsigned b = 0; b < LOCK_BITS; b++) {
        pid_t pid;
        int result;

        if (!(bits & 1u << b))
            continue;
        result = file_lock_test(file->lock_fd, base + b, 1, FILE_LOCK_EXCLUSIVE, &pid);
        if (result == 0)
            continue;

        g_autofree char *text = g_strdup_printf("Failed to get %s\"%s\" lock", shared, permission_name(1u << b));

        if (result > 0)
            return co_fail_locked(file, base + b, text, err);
        return error_set_errno(err, result, "%s of '%s'", text, file->shown_path);
    }
    return true;
}

static void unlock_bits(struct file_node *file, uint64_t base, uint32_t bits)
{
    for (unsigned b = 0; b < LOCK_BITS; b++) {
        /* Letting go of one's own lock can only fail where the system has lost it already. */
        if (bits & 1u << b)
            (void)file_lock_set(file->lock_fd, base + b, 1, FILE_LOCK_NONE);
    }
}

bool CO_FN file_co_locks_acquire(struct file_node *file, uint32_t used, uint32_t unshared, struct error **err)
{
    struct file_locks *locks = &file->locks;
    uint32_t new_used = used & ~locks->used;
    uint32_t new_unshared = unshared & ~locks->unshared;
    uint32_t taken_used = 0;
    uint32_t taken_unshared = 0;

    assert(!(used & ~PERM_ALL));
    assert(!(unshared & ~PERM_ALL));
    if (!locks->enabled)
        return true;
    if (co_lock_bits(file, LOCK_BYTE_USED, new_used, &taken_used, err) &&
        co_lock_bits(file, LOCK_BYTE_UNSHARED, new_unshared, &taken_unshared, err) &&
        co_check_bits(file, LOCK_BYTE_UNSHARED, new_used, "", err) &&
        co_check_bits(file, LOCK_BYTE_USED, new_unshared, "shared ", err)) {
        locks->used |= new_used;
        locks->unshared |= new_unshared;
        return true;
    }
    unlock_bits(file, LOCK_BYTE_USED, taken_used);
    unlock_bits(file, LOCK_BYTE_UNSHARED, taken_unshared);
    return false;
}

void file_locks_reduce(struct file_node *file, uint32_t used, uint32_t unshared)
{
    struct file_locks *locks = &file->locks;

    if (!locks->enabled)
        return;
    unlock_bits(file, LOCK_BYTE_USED, locks->used & ~used);
    unlock_bits(file, LOCK_BYTE_UNSHARED, locks->unshared & ~unshared);
    locks->used &= used;
    locks->unshared &= unshared;
}
