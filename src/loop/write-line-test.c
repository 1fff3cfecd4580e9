/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who writes for whom, step by step, and several loops on one file at full speed. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/units.h"
#include "loop/loop-internal.h"
#include "loop/loop-test.h"

enum { RESULT = 77 };

/* One whose write is for the line; on a loop of its own. */
struct visitor {
    struct write_line *line;
    struct write_entry entry;
    enum write_turn turn;
    struct co_task *task;
};

static void visitor_run(void *opaque)
{
    struct visitor *visitor = opaque;

    visitor->turn = co_write_line_enter(visitor->line, &visitor->entry);
}

static void visitor_start(struct visitor *visitor, struct loop *loop, struct write_line *line)
{
    *visitor = (struct visitor){.line = line, .turn = WRITE_PASSES};
    visitor->task = co_task_start(loop, visitor_run, visitor);
}

static unsigned waiting(struct write_line *line)
{
    unsigned count = 0;

    spin_lock(&line->spin);
    for (const struct write_entry *entry = line->waiting.first; entry; entry = entry->next)
        count++;
    spin_unlock(&line->spin);
    return count;
}

static void CO_FN co_expect_waiting(struct write_line *line, unsigned count)
{
    while (waiting(line) != count)
        g_assert_cmpint(co_sleep_ns(NS_PER_MS / 10), ==, 0);
}

static void CO_FN co_hold(struct write_line *line)
{
    struct write_entry entry = {0};

    g_assert_cmpint(co_write_line_enter(line, &entry), ==, WRITE_HOLDS);
}

static void CO_FN co_write_for_all(struct write_line *line)
{
    struct write_entries written = {0};
    struct write_entry *entry;

    while ((entry = write_line_next(line)))
        write_line_wrote(&written, entry, RESULT);
    g_assert_false(write_line_wanted(line));
    write_line_tell(line, &written);
}

static void co_test_alone(void *opaque)
{
    struct write_line line = {0};
    struct write_entry entry = {0};

    co_hold(&line);
    g_assert_cmpint(co_write_line_enter(&line, &entry), ==, WRITE_PASSES);
    g_assert_false(write_line_wanted(&line));
    co_hold(&line);
    write_line_leave(&line, false);
    co_hold(&line);
    write_line_leave(&line, true);
    g_assert_null(atomic_load(&line.holder));
}

/* The first to wait is the first to be served; to be cancelled makes no difference. */
static void co_test_written_for(void *opaque)
{
    struct loop_thread *thread = loop_test_thread();
    struct write_line line = {0};
    struct visitor visitors[3];

    co_hold(&line);
    for (unsigned i = 0; i < G_N_ELEMENTS(visitors); i++) {
        visitor_start(&visitors[i], loop_thread_loop(thread), &line);
        co_expect_waiting(&line, i + 1);
    }
    co_task_cancel(visitors[1].task);
    g_assert_true(write_line_wanted(&line));
    g_assert_true(line.waiting.first == &visitors[0].entry);
    co_write_for_all(&line);
    for (unsigned i = 0; i < G_N_ELEMENTS(visitors); i++) {
        co_task_join(visitors[i].task);
        g_assert_cmpint(visitors[i].turn, ==, WRITE_WAITED);
        g_assert_cmpint(visitors[i].entry.state, ==, WRITE_DONE);
        g_assert_cmpint(visitors[i].entry.result, ==, RESULT);
    }
    g_assert_null(atomic_load(&line.holder));
    co_loop_thread_free(thread);
}

static void co_test_left(void *opaque)
{
    struct loop_thread *thread = loop_test_thread();
    struct write_line line = {0};
    struct visitor visitors[2];

    co_hold(&line);
    for (unsigned i = 0; i < G_N_ELEMENTS(visitors); i++)
        visitor_start(&visitors[i], loop_thread_loop(thread), &line);
    co_expect_waiting(&line, 2);
    write_line_leave(&line, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(visitors); i++) {
        co_task_join(visitors[i].task);
        g_assert_cmpint(visitors[i].entry.state, ==, WRITE_LEFT);
    }
    g_assert_null(atomic_load(&line.holder));
    co_loop_thread_free(thread);
}

/* The heir finds the line free, and behind it who waited with it. */
static void co_test_inherited(void *opaque)
{
    struct loop_thread *thread = loop_test_thread();
    struct loop *home = loop_current();
    struct write_line line = {0};
    struct visitor visitors[2];

    co_hold(&line);
    for (unsigned i = 0; i < G_N_ELEMENTS(visitors); i++) {
        visitor_start(&visitors[i], loop_thread_loop(thread), &line);
        co_expect_waiting(&line, i + 1);
    }
    write_line_leave(&line, false);
    co_task_join(visitors[0].task);
    g_assert_cmpint(visitors[0].entry.state, ==, WRITE_INHERITS);
    g_assert_cmpuint(waiting(&line), ==, 1);
    co_move_to(loop_thread_loop(thread));
    co_hold(&line);
    co_write_for_all(&line);
    co_move_to(home);
    co_task_join(visitors[1].task);
    g_assert_cmpint(visitors[1].entry.state, ==, WRITE_DONE);
    co_loop_thread_free(thread);
}

/* --- at full speed --- */

enum { LOOPS = 3, WRITERS = 12, WRITES = 100, PIECE = 4096 };

struct crowd {
    int fd;
    struct write_pace pace;
    struct co_group group;
    atomic_uint next; /* number of a writer */
};

static uint64_t place(unsigned writer, unsigned write)
{
    return ((uint64_t)write * WRITERS * LOOPS + writer) * PIECE;
}

static void writer_run(void *opaque)
{
    struct crowd *crowd = opaque;
    unsigned number = atomic_fetch_add(&crowd->next, 1);
    g_autofree uint32_t *data = g_malloc(PIECE);
    struct iovec iov = {data, PIECE};

    for (unsigned i = 0; i < WRITES; i++) {
        for (size_t word = 0; word < PIECE / sizeof(*data); word++)
            data[word] = number << 16 | i;
        g_assert_cmpint(co_file_pwritev_paced(crowd->fd, &iov, 1, place(number, i), &crowd->pace), ==, PIECE);
        /* Now and then it is as if the file had let somebody wait. */
        if (number == 0 && i % 8 == 0)
            atomic_store(&crowd->pace.resting_until_ns, loop_now_ns() + 50 * NS_PER_US);
    }
    co_group_done(&crowd->group);
}

static void co_test_crowd(void *opaque)
{
    g_autofree char *path = loop_test_path("crowd");
    struct crowd crowd = {.fd = co_file_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600)};
    struct loop_thread *threads[LOOPS];
    uint32_t data[PIECE / sizeof(uint32_t)];

    g_assert_cmpint(crowd.fd, >=, 0);
    co_group_add(&crowd.group, LOOPS * WRITERS);
    for (unsigned i = 0; i < LOOPS; i++) {
        threads[i] = loop_test_thread();
        for (unsigned j = 0; j < WRITERS; j++)
            co_spawn(loop_thread_loop(threads[i]), writer_run, &crowd);
    }
    co_group_wait(&crowd.group);
    for (unsigned i = 0; i < LOOPS; i++)
        co_loop_thread_free(threads[i]);
    g_assert_null(crowd.pace.line.waiting.first);
    g_assert_null(atomic_load(&crowd.pace.line.holder));
    for (unsigned number = 0; number < LOOPS * WRITERS; number++) {
        for (unsigned i = 0; i < WRITES; i++) {
            g_assert_cmpint(co_file_read_exact(crowd.fd, data, PIECE, place(number, i)), ==, 0);
            g_assert_cmpuint(data[0], ==, number << 16 | i);
            g_assert_cmpmem(data, PIECE - sizeof(*data), data + 1, PIECE - sizeof(*data));
        }
    }
    fd_close(crowd.fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop_test_add_real("write-line/alone", co_test_alone);
    loop_test_add_real("write-line/written-for", co_test_written_for);
    loop_test_add_real("write-line/left", co_test_left);
    loop_test_add_real("write-line/inherited", co_test_inherited);
    loop_test_add_real("write-line/crowd", co_test_crowd);
    return loop_test_finish();
}
