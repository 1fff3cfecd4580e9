/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/units.h"
#include "loop/loop-internal.h"
#include "loop/loop-test.h"

/* A file on a clock of the test's own. */
struct file_model {
    struct write_pace pace;
    int64_t now_ns;
    int64_t waited_ns; /* by the loop, in slow writes */
    unsigned own;      /* writes that the loop has made itself */
    unsigned left;     /* to the back end */
};

/* Writes until `until_ns`, one each 20 µs or as long as the loop takes for it. */
static void model_run(struct file_model *model, int64_t until_ns, int64_t took_ns, bool waited)
{
    while (model->now_ns < until_ns) {
        if (!write_pace_may(&model->pace, model->now_ns)) {
            model->left++;
            model->now_ns += 20 * NS_PER_US;
            continue;
        }
        model->own++;
        model->now_ns += took_ns;
        model->waited_ns += took_ns > NS_PER_MS ? took_ns : 0;
        write_pace_took(&model->pace, model->now_ns, took_ns, waited);
    }
}

static void test_quick_file(void)
{
    struct file_model model = {0};

    model_run(&model, NS_PER_S, 10 * NS_PER_US, true);
    g_assert_cmpuint(model.left, ==, 0);
    g_assert_cmpuint(model.own, ==, 100000);
}

/* Others have the processor: nothing that the file can help. */
static void test_busy_machine(void)
{
    struct file_model model = {0};

    model_run(&model, NS_PER_S, 5 * NS_PER_MS, false);
    g_assert_cmpuint(model.left, ==, 0);
}

static void test_slow_file(void)
{
    static const int64_t took_ns[] = {2 * NS_PER_MS, 20 * NS_PER_MS, 150 * NS_PER_MS};

    for (size_t i = 0; i < G_N_ELEMENTS(took_ns); i++) {
        struct file_model model = {0};

        model_run(&model, INT64_C(60) * NS_PER_S, took_ns[i], true);
        g_assert_cmpint(model.waited_ns, <=, INT64_C(60) * NS_PER_S / 20);
        /* Twice as seldom each time, up to every four seconds. */
        g_assert_cmpuint(model.own, <=, 24);
        g_assert_cmpuint(model.own, >=, 14);
    }
}

/* Once it is quick again, it is found out, and what was is forgotten. */
static void test_recovery(void)
{
    struct file_model model = {0};
    unsigned left;

    model_run(&model, INT64_C(20) * NS_PER_S, 30 * NS_PER_MS, true);
    model_run(&model, INT64_C(25) * NS_PER_S, 10 * NS_PER_US, true);
    left = model.left;
    g_assert_true(write_pace_may(&model.pace, model.now_ns));
    model_run(&model, INT64_C(30) * NS_PER_S, 10 * NS_PER_US, true);
    g_assert_cmpuint(model.left, ==, left);
    /* The next rest is a short one. */
    write_pace_took(&model.pace, model.now_ns, 2 * NS_PER_MS, true);
    g_assert_false(write_pace_may(&model.pace, model.now_ns));
    g_assert_true(write_pace_may(&model.pace, model.now_ns + 50 * NS_PER_MS));
}

/* A hundred days in the kernel are a wait like another. */
static void test_endless(void)
{
    struct write_pace pace = {0};

    write_pace_took(&pace, 1, INT64_C(8640000) * NS_PER_S, true);
    g_assert_false(write_pace_may(&pace, NS_PER_S));
    g_assert_true(write_pace_may(&pace, INT64_C(5) * NS_PER_S));
}

static void test_waited(void)
{
    struct loop_writes writes = {0};

    loop_writes_begin_turn(&writes);
    g_usleep(1);
    g_assert_false(loop_writes_waited(&writes, 1)); /* nobody has looked before */
    g_assert_cmpint(writes.watch_until_ns, >, 1);
    g_usleep(1);
    g_assert_true(loop_writes_waited(&writes, 2));
    loop_writes_begin_turn(&writes);
    g_assert_false(loop_writes_waited(&writes, 3));
}

/* --- on real loops --- */

enum { PIECE = 4096 };

/* Whether the loop has made the write itself. */
static bool CO_FN co_write(int fd, size_t size, uint64_t offset, struct write_pace *pace, char byte)
{
    g_autofree char *data = g_malloc(size);
    g_autofree char *got = g_malloc(size);
    struct iovec iov[2] = {{data, size / 2}, {data + size / 2, size - size / 2}};
    struct loop *loop = loop_self();
    bool own;

    memset(data, byte, size);
    co_yield (); /* into a turn in which nobody has written yet */
    g_assert_cmpint(loop->writes.took_ns, ==, 0);
    g_assert_cmpint(co_file_pwritev_paced(fd, iov, 2, offset, pace), ==, (ssize_t)size);
    own = loop->writes.took_ns > 0;
    g_assert_cmpint(co_file_read_exact(fd, got, size, offset), ==, 0);
    g_assert_cmpmem(got, size, data, size);
    return own;
}

static void co_test_ways(void *opaque)
{
    g_autofree char *path = loop_test_path("ways");
    bool real = loop_get_backend(loop_current()) != LOOP_SIM;
    struct write_pace pace = {0};
    struct write_pace resting = {.resting_until_ns = INT64_MAX};
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_CREAT, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(co_write(fd, PIECE, 0, &pace, 'a'), ==, real);
    g_assert_cmpint(co_write(fd, 16 * PIECE, 3 * PIECE, &pace, 'b'), ==, real);
    g_assert_false(co_write(fd, 17 * PIECE, 0, &pace, 'c'));
    g_assert_false(co_write(fd, PIECE, 512, &pace, 'd'));
    g_assert_false(co_write(fd, 512, 0, &pace, 'e'));
    g_assert_false(co_write(fd, PIECE, 0, &resting, 'f'));
}

static void co_test_failure(void *opaque)
{
    g_autofree char *path = loop_test_path("failure");
    char data[PIECE] = {0};
    struct iovec iov = {data, sizeof(data)};
    struct write_pace pace = {0};
    AUTO(fd) made = co_file_open(path, O_RDWR | O_CREAT, 0600);
    AUTO(fd) fd = co_file_open(path, O_RDONLY, 0);

    g_assert_cmpint(co_file_pwritev_paced(fd, &iov, 1, 0, &pace), ==, -EBADF);
    g_assert_cmpint(co_file_pwritev_paced(made, &iov, 1, 0, &pace), ==, PIECE);
}

/* One who always writes leaves room for others: a turn ends after a while. */
struct writer {
    int fd;
    struct write_pace pace;
    struct co_group group;
    bool stop;
};

static void writer_run(void *opaque)
{
    struct writer *writer = opaque;
    char data[PIECE] = {0};
    struct iovec iov = {data, sizeof(data)};

    while (!writer->stop)
        g_assert_cmpint(co_file_pwritev_paced(writer->fd, &iov, 1, 0, &writer->pace), ==, PIECE);
    co_group_done(&writer->group);
}

static void co_test_turns(void *opaque)
{
    g_autofree char *path = loop_test_path("turns");
    struct writer writer = {.fd = co_file_open(path, O_RDWR | O_CREAT, 0600)};

    g_assert_cmpint(writer.fd, >=, 0);
    co_group_add(&writer.group, 4);
    for (unsigned i = 0; i < 4; i++)
        co_spawn(loop_current(), writer_run, &writer);
    /* Each goes through the back end, which is asked only when a turn ends. */
    for (unsigned i = 0; i < 20; i++)
        g_assert_cmpint(co_file_sync(writer.fd, true), ==, 0);
    g_assert_cmpint(co_sleep_ns(NS_PER_MS), ==, 0);
    writer.stop = true;
    co_group_wait(&writer.group);
    fd_close(writer.fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/write-pace/quick-file", test_quick_file);
    g_test_add_func("/write-pace/busy-machine", test_busy_machine);
    g_test_add_func("/write-pace/slow-file", test_slow_file);
    g_test_add_func("/write-pace/recovery", test_recovery);
    g_test_add_func("/write-pace/endless", test_endless);
    g_test_add_func("/write-pace/waited", test_waited);
    loop_test_add("write-pace/ways", co_test_ways);
    loop_test_add("write-pace/failure", co_test_failure);
    loop_test_add_real("write-pace/turns", co_test_turns);
    return loop_test_finish();
}
