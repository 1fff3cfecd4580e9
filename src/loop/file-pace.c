/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that a file nearly always answers from memory, and that may still have to wait for a disk: looking for data and
 * holes. A worker costs many times the call itself; so who has just answered quickly to a worker is asked without one
 * for a while, and who lets the loop wait, is not for a long while. One slow answer in a thousand is the worst.
 */
#include <errno.h>
#include <unistd.h>

#include "loop/file.h"
#include "loop/loop-internal.h"

enum {
    QUICK_NS = 30 * 1000,  /* a worker's call that took no longer earns ... */
    CREDIT = 64,           /* ... so many without one */
    SLOW_NS = 1000 * 1000, /* one without a worker that took longer costs ... */
    PENALTY = 1024,        /* ... so many with one */
};

struct paced_seek {
    int fd;
    int whence;
    int64_t offset;
    int64_t result;
    int64_t took_ns;
};

static int seek_work(void *opaque)
{
    struct paced_seek *seek = opaque;
    int64_t start_ns = clock_monotonic_ns();

    seek->result = lseek(seek->fd, seek->offset, seek->whence);
    if (seek->result < 0)
        seek->result = -errno;
    seek->took_ns = clock_monotonic_ns() - start_ns;
    return 0;
}

int64_t CO_FN co_file_seek_paced(int fd, int64_t offset, int whence, struct file_pace *pace)
{
    struct paced_seek seek = {.fd = fd, .whence = whence, .offset = offset};
    int credit = atomic_load_explicit(&pace->credit, memory_order_relaxed);

    CO_ASSERT();
    if (loop_get_backend(loop_self()) == LOOP_SIM)
        return co_file_seek(fd, offset, whence);
    if (credit > 0) {
        (void)seek_work(&seek);
        credit = seek.took_ns > SLOW_NS ? -PENALTY : credit - 1;
    } else {
        (void)co_worker_run(seek_work, &seek);
        if (credit < 0)
            credit++;
        else if (seek.took_ns <= QUICK_NS)
            credit = CREDIT;
    }
    /* Of two at the same time one may be forgotten: it is a guess in any case. */
    atomic_store_explicit(&pace->credit, credit, memory_order_relaxed);
    return seek.result;
}
