/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small writes into the page cache, by the loop's own thread: handing one to another thread and back costs more than
 * the write. The system may make any of them wait (too much is dirty, the journal is full, the disk is slow), and then
 * everybody on the loop waits. So each is timed, and a file that has let us wait is left to the back end for a while.
 *
 * Keeps: (1) of a file that lets us wait each time, waiting takes less than one part in REST_FACTOR; (2) a turn of the
 * loop does not write for longer than TURN_NS and one call.
 */
#include <assert.h>
#include <glib.h>
#include <sys/resource.h>

#include "base/units.h"
#include "loop/file.h"
#include "loop/loop-internal.h"

enum {
    BYTES_MAX = 64 * 1024, /* larger ones are worth another thread */
    PAGE_BYTES = 4096,     /* a write to part of a page may have to read the rest of it */
    SLOW_NS = NS_PER_MS,
    REST_FACTOR = 20,             /* a rest is so many times as long as the wait that it is for, ... */
    REST_MIN_NS = 20 * NS_PER_MS, /* ... and no shorter than this, and twice as long as the last */
    QUICK_ENOUGH = 256,           /* so many quick writes, and the last rest is forgotten */
    TURN_NS = 200 * NS_PER_US,
};
#define REST_MAX_NS (INT64_C(4) * NS_PER_S)
#define WATCH_NS (INT64_C(10) * NS_PER_S)

bool write_pace_may(const struct write_pace *pace, int64_t now_ns)
{
    return now_ns >= atomic_load_explicit(&pace->resting_until_ns, memory_order_relaxed);
}

/* Of two loops at the same time one may be forgotten: it is a guess in any case. */
void write_pace_took(struct write_pace *pace, int64_t end_ns, int64_t took_ns, bool waited)
{
    int64_t rest_ns = atomic_load_explicit(&pace->rest_ns, memory_order_relaxed);
    unsigned quick;

    if (took_ns <= SLOW_NS || !waited) {
        if (likely(!rest_ns))
            return;
        quick = atomic_fetch_add_explicit(&pace->quick, 1, memory_order_relaxed) + 1;
        if (quick >= QUICK_ENOUGH)
            atomic_store_explicit(&pace->rest_ns, 0, memory_order_relaxed);
        return;
    }
    rest_ns = MAX(MAX(2 * rest_ns, REST_MIN_NS), MIN(took_ns, REST_MAX_NS) * REST_FACTOR);
    rest_ns = MIN(rest_ns, REST_MAX_NS);
    atomic_store_explicit(&pace->quick, 0, memory_order_relaxed);
    atomic_store_explicit(&pace->rest_ns, rest_ns, memory_order_relaxed);
    atomic_store_explicit(&pace->resting_until_ns, end_ns + rest_ns, memory_order_relaxed);
}

static bool is_small(const struct file_request *request)
{
    size_t bytes = 0;

    for (int i = 0; i < request->iov_count && bytes <= BYTES_MAX; i++)
        bytes += request->iov[i].iov_len;
    return bytes <= BYTES_MAX && !((request->offset | bytes) & (PAGE_BYTES - 1));
}

/* How often the thread has given the processor away itself, in other words has waited. */
static int64_t waits_of_thread(void)
{
    struct rusage usage;
    int failed = getrusage(RUSAGE_THREAD, &usage);

    assert(!failed);
    return usage.ru_nvcsw;
}

/*
 * A write that took long has waited, or others had the processor meanwhile, which is no fault of the file's. Asking
 * costs a call of the system before and after; so that is begun when something has taken long, and ended when nothing
 * has for a while. Of the first it is not known, and it goes unpunished.
 */
bool loop_writes_waited(struct loop_writes *writes, int64_t end_ns)
{
    bool known = writes->waits >= 0;
    int64_t before = writes->waits;

    writes->watch_until_ns = end_ns + WATCH_NS;
    writes->waits = waits_of_thread();
    return known && writes->waits != before;
}

/* `writes->now_ns` is the time: read before the first write, and after each. */
static ssize_t write_now(struct loop_writes *writes, const struct file_request *request, struct write_pace *pace)
{
    int64_t start_ns = writes->now_ns;
    ssize_t written;
    int64_t took_ns;

    if (unlikely(start_ns < writes->watch_until_ns && writes->waits < 0))
        writes->waits = waits_of_thread();
    written = posix_transfer(request);
    writes->now_ns = clock_monotonic_ns();
    took_ns = writes->now_ns - start_ns;
    writes->took_ns += took_ns;
    write_pace_took(pace, writes->now_ns, took_ns, took_ns > SLOW_NS && loop_writes_waited(writes, writes->now_ns));
    return written;
}

/* What others wait for, as long as the turn lasts and the file does not let us wait; then the line is left. */
static void write_for_others(struct loop_writes *writes, struct write_pace *pace)
{
    struct write_entries written = {0};
    bool may;

    writes->now_ns = clock_monotonic_ns();
    while ((may = write_pace_may(pace, writes->now_ns)) && writes->took_ns < TURN_NS) {
        struct write_entry *entry = write_line_next(&pace->line);

        if (!entry)
            break;
        write_line_wrote(&written, entry, write_now(writes, entry->request, pace));
    }
    write_line_leave(&pace->line, !may);
    write_line_tell(&pace->line, &written);
}

/* True: it has been made, by this loop or another; false: the back end has to make it. */
static bool CO_FN co_write_in_line(struct loop *loop, const struct file_request *request, struct write_pace *pace,
                                   ssize_t *ret_written)
{
    struct write_entry entry = {.request = request};

    do {
        enum write_turn turn;
        bool may;

        while (unlikely(loop->writes.took_ns >= TURN_NS))
            co_yield ();
        loop->writes.now_ns = clock_monotonic_ns();
        may = write_pace_may(pace, loop->writes.now_ns);
        if (!may && entry.state != WRITE_INHERITS)
            return false;
        turn = co_write_line_enter(&pace->line, &entry);
        if (turn == WRITE_WAITED)
            continue;
        if (may)
            *ret_written = write_now(&loop->writes, request, pace);
        if (turn == WRITE_HOLDS && write_line_wanted(&pace->line)) {
            /* First what this loop has to write in this turn. */
            if (loop->ready.first)
                co_yield ();
            write_for_others(&loop->writes, pace);
        }
        return may;
    } while (entry.state == WRITE_INHERITS);
    *ret_written = entry.result;
    return entry.state == WRITE_DONE;
}

ssize_t CO_FN co_file_pwritev_paced(int fd, const struct iovec *iov, int count, uint64_t offset,
                                    struct write_pace *pace)
{
    struct file_request request = {.fd = fd, .write = true, .iov = iov, .iov_count = count, .offset = offset};
    struct loop *loop = loop_self();
    uint32_t batch_hint;
    ssize_t written = 0;

    CO_ASSERT();
    if (loop->may_block || loop->backend == LOOP_SIM || !is_small(&request))
        return co_file_pwritev(fd, iov, count, offset, 0, FILE_ENGINE_AT_ONCE);
    batch_hint = loop->batch_hint;
    loop->batch_hint = 0;
    if (co_write_in_line(loop, &request, pace, &written))
        return written;
    loop->batch_hint = batch_hint;
    return co_file_pwritev(fd, iov, count, offset, 0, FILE_ENGINE_DEFAULT);
}
