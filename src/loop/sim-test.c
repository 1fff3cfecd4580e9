/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated machine: what it promises to the tests that run on it. */
#include "loop/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/socket.h"

enum { SECTOR = 512, BLOCK = 4096 };

static struct loop *new_loop(uint64_t seed)
{
    struct loop_options options = {.backend = LOOP_SIM, .sim_seed = seed};
    struct loop *loop = loop_new(&options, NULL);

    g_assert_nonnull(loop);
    return loop;
}

static void run(uint64_t seed, co_entry *entry, void *opaque)
{
    struct loop *loop = new_loop(seed);

    co_run(loop, entry, opaque);
    loop_free(loop);
}

static int co_write_block(int fd, char fill, uint64_t offset, int rwf_flags)
{
    char data[BLOCK];
    struct iovec iov = {data, BLOCK};
    ssize_t moved;

    memset(data, fill, BLOCK);
    moved = co_file_pwritev(fd, &iov, 1, offset, rwf_flags, FILE_ENGINE_DEFAULT);
    return moved < 0 ? (int)moved : moved == BLOCK ? 0 : -EIO;
}

/* --- time and order --- */

static void co_sleep_a_year(void *opaque)
{
    int64_t year_ns = INT64_C(365) * 24 * 3600 * 1000000000;
    int64_t before_ns = loop_now_ns();
    int64_t before_us = loop_wall_time_us();

    g_assert_cmpint(co_sleep_ns(year_ns), ==, 0);
    g_assert_cmpint(loop_now_ns() - before_ns, ==, year_ns);
    g_assert_cmpint(loop_wall_time_us() - before_us, ==, year_ns / 1000);
}

static void test_time(void)
{
    run(1, co_sleep_a_year, NULL);
}

struct history {
    GString *text;
    struct co_group group;
    unsigned next;
    uint64_t fingerprint;
};

static void co_busy(void *opaque)
{
    struct history *history = opaque;
    unsigned number = history->next++;
    g_autofree char *path = g_strdup_printf("/%u", number % 3);
    AUTO(fd) fd = co_file_open(path, O_RDWR | O_CREAT, 0600);

    for (unsigned i = 0; i < 5; i++) {
        g_assert_cmpint(co_write_block(fd, (char)number, number * BLOCK, 0), ==, 0);
        g_string_append_printf(history->text, "%u@%" PRIi64 " ", number, loop_now_ns());
        co_yield ();
    }
    co_group_done(&history->group);
}

static void co_history(void *opaque)
{
    struct history *history = opaque;

    co_group_add(&history->group, 20);
    for (unsigned i = 0; i < 20; i++)
        co_spawn(loop_current(), co_busy, history);
    co_group_wait(&history->group);
    history->fingerprint = sim_fingerprint(loop_current());
}

static void test_same_seed(void)
{
    struct history histories[3] = {0};

    for (unsigned i = 0; i < 3; i++) {
        histories[i].text = g_string_new(NULL);
        run(i < 2 ? 7 : 8, co_history, &histories[i]);
    }
    g_assert_cmpstr(histories[0].text->str, ==, histories[1].text->str);
    g_assert_cmpuint(histories[0].fingerprint, ==, histories[1].fingerprint);
    g_assert_cmpstr(histories[0].text->str, !=, histories[2].text->str);
    g_assert_cmpuint(histories[0].fingerprint, !=, histories[2].fingerprint);
    for (unsigned i = 0; i < 3; i++)
        g_string_free(histories[i].text, TRUE);
}

struct place {
    GString *order;
    char letter;
};

static void co_place(void *opaque)
{
    struct place *place = opaque;

    g_string_append_c(place->order, place->letter);
}

static void co_places(void *opaque)
{
    struct place a = {opaque, 'a'};
    struct place b = {opaque, 'b'};
    struct place c = {opaque, 'c'};

    co_spawn(loop_current(), co_place, &a);
    co_spawn(loop_current(), co_place, &b);
    co_spawn(loop_current(), co_place, &c);
    co_yield ();
}

/* Among a few seeds, every order of three coroutines comes up. */
static void test_orders(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (uint64_t seed = 0; seed < 100; seed++) {
        GString *order = g_string_new(NULL);

        run(seed, co_places, order);
        g_hash_table_add(seen, g_string_free(order, FALSE));
    }
    g_assert_cmpuint(g_hash_table_size(seen), ==, 6);
}

static void co_wait_for_nobody(void *opaque)
{
    co_suspend();
}

static void test_deadlock(void)
{
    if (g_test_subprocess()) {
        run(1, co_wait_for_nobody, NULL);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*all coroutines wait for each other*(seed 1)*");
}

/* --- power cuts --- */

/* a: flushed. b: written, not flushed. c: written through. */
static void co_three_writes(void *opaque)
{
    AUTO(fd) fd = co_file_open("/disk", O_RDWR, 0);

    g_assert_cmpint(co_write_block(fd, 'a', 0, 0), ==, 0);
    g_assert_cmpint(co_file_sync(fd, true), ==, 0);
    g_assert_cmpint(co_write_block(fd, 'b', BLOCK, 0), ==, 0);
    g_assert_cmpint(co_write_block(fd, 'c', 2 * BLOCK, RWF_DSYNC), ==, 0);
}

struct outcome {
    bool none;
    bool all;
    bool torn;
};

/* What has become of the block at `offset` that was being overwritten with `fill`. */
static void note_outcome(struct outcome *outcome, const char *data, uint64_t offset, char fill)
{
    unsigned sectors = 0;

    for (unsigned i = 0; i < BLOCK / SECTOR; i++) {
        const char *sector = data + offset + i * SECTOR;

        for (unsigned j = 1; j < SECTOR; j++)
            g_assert_cmpint(sector[j], ==, sector[0]); /* a sector is written whole or not at all */
        g_assert_true(sector[0] == fill || sector[0] == 0);
        sectors += sector[0] == fill;
    }
    outcome->none |= sectors == 0;
    outcome->all |= sectors == BLOCK / SECTOR;
    outcome->torn |= sectors > 0 && sectors < BLOCK / SECTOR;
}

static void assert_filled(const char *data, char fill)
{
    for (unsigned i = 0; i < BLOCK; i++)
        g_assert_cmpint(data[i], ==, fill);
}

static void test_power_cut(void)
{
    static const char zeroes[4 * BLOCK];
    AUTO(sim_disk) disk = sim_disk_new();
    struct loop *loop = new_loop(3);
    struct outcome b = {0};

    sim_disk_put(disk, "/disk", zeroes, sizeof(zeroes));
    sim_loop_set_disk(loop, disk);
    co_run(loop, co_three_writes, NULL);
    loop_free(loop);
    for (uint64_t seed = 0; seed < 200; seed++) {
        AUTO(sim_disk) left = sim_disk_after_cut(disk, seed);
        g_autofree char *data = NULL;
        size_t size;

        data = sim_disk_get(left, "/disk", &size);
        g_assert_cmpuint(size, ==, sizeof(zeroes));
        assert_filled(data, 'a');
        note_outcome(&b, data, BLOCK, 'b');
        assert_filled(data + 2 * BLOCK, 'c');
        assert_filled(data + 3 * BLOCK, 0);
    }
    g_assert_true(b.none);
    g_assert_true(b.all);
    g_assert_true(b.torn);
}

/* Two writes without a flush between: the later may survive alone. */
static void co_two_writes(void *opaque)
{
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);

    g_assert_cmpint(co_write_block(fd, '1', 0, 0), ==, 0);
    g_assert_cmpint(co_write_block(fd, '2', BLOCK, 0), ==, 0);
}

static void test_reordering(void)
{
    struct loop *loop = new_loop(3);
    bool second_alone = false;
    bool size_differs = false;

    co_run(loop, co_two_writes, NULL);
    for (uint64_t seed = 0; seed < 200; seed++) {
        AUTO(sim_disk) left = sim_disk_after_cut(sim_loop_disk(loop), seed);
        g_autofree char *data = NULL;
        size_t size;

        data = sim_disk_get(left, "/disk", &size);
        second_alone |= size == 2 * BLOCK && data[0] == 0 && data[BLOCK] == '2';
        size_differs |= size < 2 * BLOCK;
    }
    g_assert_true(second_alone);
    g_assert_true(size_differs);
    loop_free(loop);
}

static void co_flushing(void *opaque)
{
    int *fd = opaque;

    g_assert_cmpint(co_file_sync(*fd, true), ==, 0);
}

/* A flush does not speak for a write that completes after it has begun. */
static void co_late_write(void *opaque)
{
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);
    struct co_task *task;

    sim_set_delay(loop_current(), SIM_OPS_ALL, 1000, 1000);
    sim_set_delay(loop_current(), SIM_OP_BIT(SIM_OP_SYNC), 1000000, 1000000);
    task = co_task_start(loop_current(), co_flushing, &fd);
    co_yield ();
    g_assert_cmpint(co_write_block(fd, '1', 0, 0), ==, 0);
    co_task_join(task);
}

static void test_flush_covers_earlier(void)
{
    struct loop *loop = new_loop(3);
    bool lost = false;

    co_run(loop, co_late_write, NULL);
    for (uint64_t seed = 0; seed < 50; seed++) {
        AUTO(sim_disk) left = sim_disk_after_cut(sim_loop_disk(loop), seed);
        size_t size;

        g_free(sim_disk_get(left, "/disk", &size));
        lost |= !size;
    }
    g_assert_true(lost);
    loop_free(loop);
}

struct writing {
    int fd;
    int result;
};

static void co_writing(void *opaque)
{
    struct writing *writing = opaque;

    writing->result = co_write_block(writing->fd, 'w', 0, RWF_DSYNC);
}

static void co_power_off(void *opaque)
{
    struct writing writing = {.fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600)};
    struct co_task *task = co_task_start(loop_current(), co_writing, &writing);

    co_yield ();
    sim_power_off(loop_current());
    co_task_join(task);
    g_assert_cmpint(writing.result, ==, -EIO);
    g_assert_cmpint(co_file_open("/other", O_RDWR | O_CREAT, 0600), ==, -EIO);
    g_assert_cmpint(co_file_sync(writing.fd, false), ==, -EIO);
    fd_close(writing.fd);
}

/* A write under way when the power goes may have been done, in part or not at all. */
static void test_power_off(void)
{
    struct loop *loop = new_loop(5);
    bool nothing = false;
    bool something = false;

    co_run(loop, co_power_off, NULL);
    for (uint64_t seed = 0; seed < 100; seed++) {
        AUTO(sim_disk) left = sim_disk_after_cut(sim_loop_disk(loop), seed);
        size_t size;

        g_free(sim_disk_get(left, "/disk", &size));
        nothing |= !size;
        something |= size > 0;
    }
    g_assert_true(nothing);
    g_assert_true(something);
    loop_free(loop);
}

/* --- replays: a counter that is kept in two alternating blocks, each flushed before the other is touched --- */

enum { UPDATES = 50 };

struct counter {
    size_t acknowledged[UPDATES]; /* positions of the record */
};

static void co_count_up(void *opaque)
{
    struct counter *counter = opaque;
    AUTO(fd) fd = co_file_open("/counter", O_RDWR | O_CREAT, 0600);

    sim_disk_record(sim_loop_disk(loop_current()));
    for (unsigned i = 0; i < UPDATES; i++) {
        g_assert_cmpint(co_write_block(fd, (char)(i + 1), (i % 2) * BLOCK, 0), ==, 0);
        g_assert_cmpint(co_file_sync(fd, true), ==, 0);
        counter->acknowledged[i] = sim_disk_recorded(sim_loop_disk(loop_current()));
    }
    g_assert_cmpint(co_file_rename("/counter", "/done"), ==, 0);
}

/* The larger of the blocks that are whole. */
static unsigned read_counter(const struct sim_disk *disk)
{
    size_t size = 0;
    g_autofree char *data = sim_disk_get(disk, "/counter", &size);
    unsigned value = 0;

    if (!data)
        data = sim_disk_get(disk, "/done", &size);
    for (size_t block = 0; block + BLOCK <= size; block += BLOCK) {
        bool whole = true;

        for (unsigned i = 0; i < BLOCK; i++)
            whole &= data[block + i] == data[block];
        if (whole)
            value = MAX(value, (unsigned)data[block]);
    }
    return value;
}

static void test_replay(void)
{
    struct counter counter = {0};
    struct loop *loop = new_loop(11);
    AUTO(sim_replay) replay = NULL;
    unsigned done = 0;
    unsigned cuts = 0;

    co_run(loop, co_count_up, &counter);
    replay = sim_replay_new(sim_loop_disk(loop));
    do {
        AUTO(sim_disk) whole = sim_replay_disk(replay);

        while (done < UPDATES && counter.acknowledged[done] <= sim_replay_position(replay))
            done++;
        g_assert_cmpuint(read_counter(whole), >=, done);
        g_assert_cmpuint(read_counter(whole), <=, done + 1);
        for (uint64_t seed = 0; seed < 20; seed++, cuts++) {
            AUTO(sim_disk) left = sim_replay_cut(replay, seed);

            g_assert_cmpuint(read_counter(left), >=, done);
            g_assert_cmpuint(read_counter(left), <=, done + 1);
        }
    } while (sim_replay_step(replay));
    g_assert_cmpuint(done, ==, UPDATES);
    g_assert_cmpuint(sim_replay_position(replay), ==, sim_disk_recorded(sim_loop_disk(loop)));
    g_assert_cmpuint(cuts, >, 2000);
    loop_free(loop);
}

/* --- faults --- */

static void co_fail_each(void *opaque)
{
    struct loop *loop = loop_current();
    struct sim_fault fault = {.ops = SIM_OP_BIT(SIM_OP_WRITE), .nth = 2, .errno_value = EDQUOT};
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);
    uint64_t before = sim_op_count(loop, SIM_OP_BIT(SIM_OP_WRITE));
    struct stat st;

    sim_set_fault(loop, &fault);
    g_assert_cmpint(co_write_block(fd, 'a', 0, 0), ==, 0);
    g_assert_cmpint(co_file_stat(fd, &st), ==, 0);
    g_assert_cmpint(co_write_block(fd, 'b', 0, 0), ==, -EDQUOT);
    g_assert_cmpint(co_write_block(fd, 'c', BLOCK, 0), ==, 0);
    g_assert_cmpuint(sim_op_count(loop, SIM_OP_BIT(SIM_OP_WRITE)) - before, ==, 3);
    fault.lasting = true;
    sim_set_fault(loop, &fault);
    g_assert_cmpint(co_write_block(fd, 'a', 0, 0), ==, 0);
    g_assert_cmpint(co_write_block(fd, 'b', 0, 0), ==, -EDQUOT);
    g_assert_cmpint(co_write_block(fd, 'b', 0, 0), ==, -EDQUOT);
    fault = (struct sim_fault){.ops = SIM_OP_BIT(SIM_OP_BUFFER), .nth = 1, .errno_value = ENOMEM};
    sim_set_fault(loop, &fault);
    g_assert_null(loop_buffer_get(BLOCK));
    loop_buffer_put(loop_buffer_get(BLOCK), BLOCK);
}

static void test_fault(void)
{
    run(1, co_fail_each, NULL);
}

/* A workload that copes: each of its operations fails once, and nothing is left open. */
struct coping {
    uint64_t nth;
    bool done;
};

static int co_save(const char *path)
{
    AUTO(fd) fd = co_file_open("/new", O_RDWR | O_CREAT | O_TRUNC, 0600);
    int result;

    if (fd < 0)
        return fd;
    result = co_write_block(fd, 'n', 0, 0);
    if (!result)
        result = co_file_sync(fd, true);
    return result ? result : co_file_rename("/new", path);
}

static void co_cope(void *opaque)
{
    struct coping *coping = opaque;
    struct sim_fault fault = {.ops = SIM_OPS_ALL, .nth = coping->nth, .errno_value = EIO};
    struct sim_disk *disk = sim_loop_disk(loop_current());
    g_autofree char *old = g_malloc(BLOCK);
    g_autofree char *found = NULL;
    size_t size;
    int result;

    memset(old, 'o', BLOCK);
    sim_disk_put(disk, "/file", old, BLOCK);
    sim_set_fault(loop_current(), &fault);
    result = co_save("/file");
    coping->done = !result;
    found = sim_disk_get(disk, "/file", &size);
    g_assert_cmpuint(size, ==, BLOCK);
    assert_filled(found, result ? 'o' : 'n');
}

static void test_fail_each(void)
{
    struct coping coping = {0};

    while (!coping.done) {
        coping.nth++;
        run(1, co_cope, &coping);
    }
    g_assert_cmpuint(coping.nth, ==, 5); /* open, write, sync, rename */
}

static void co_torn_fault(void *opaque)
{
    struct sim_fault fault = {.ops = SIM_OP_BIT(SIM_OP_WRITE), .nth = 1, .errno_value = EIO, .torn = true};
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);
    struct outcome *outcome = opaque;
    char data[BLOCK];

    g_assert_cmpint(co_file_truncate(fd, BLOCK), ==, 0);
    sim_set_fault(loop_current(), &fault);
    g_assert_cmpint(co_write_block(fd, 't', 0, 0), ==, -EIO);
    g_assert_cmpint(co_file_read_exact(fd, data, BLOCK, 0), ==, 0);
    note_outcome(outcome, data, 0, 't');
    /* What comes later can be flushed all the same. */
    g_assert_cmpint(co_write_block(fd, 'u', 0, 0), ==, 0);
    g_assert_cmpint(co_file_sync(fd, false), ==, 0);
    AUTO(sim_disk) left = sim_disk_after_cut(sim_loop_disk(loop_current()), 1);
    size_t size;
    g_autofree char *kept = sim_disk_get(left, "/disk", &size);

    assert_filled(kept, 'u');
}

static void test_torn_fault(void)
{
    struct outcome outcome = {0};

    for (uint64_t seed = 0; seed < 20; seed++)
        run(seed, co_torn_fault, &outcome);
    g_assert_true(outcome.torn);
}

static void co_fill(void *opaque)
{
    struct sim_disk *disk = sim_loop_disk(loop_current());
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);

    sim_disk_set_capacity(disk, 3 * BLOCK);
    for (unsigned i = 0; i < 3; i++)
        g_assert_cmpint(co_write_block(fd, 'x', i * BLOCK, 0), ==, 0);
    g_assert_cmpint(co_write_block(fd, 'x', 3 * BLOCK, 0), ==, -ENOSPC);
    g_assert_cmpint(co_write_block(fd, 'y', 2 * BLOCK, 0), ==, 0);
    g_assert_cmpint(co_file_truncate(fd, BLOCK), ==, 0);
    g_assert_cmpint(co_write_block(fd, 'x', 3 * BLOCK, 0), ==, 0);
    g_assert_cmpint(co_file_unlink("/disk"), ==, 0);
    fd_close(fd);
    fd = co_file_open("/next", O_RDWR | O_CREAT, 0600);
    for (unsigned i = 0; i < 3; i++)
        g_assert_cmpint(co_write_block(fd, 'x', i * BLOCK, 0), ==, 0);
}

static void test_capacity(void)
{
    run(1, co_fill, NULL);
}

static void co_short(void *opaque)
{
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);
    char data[BLOCK];
    struct iovec iov = {data, BLOCK};
    bool short_one = false;

    g_assert_cmpint(co_write_block(fd, 's', 0, 0), ==, 0);
    sim_set_short_transfers(loop_current(), true);
    for (unsigned i = 0; i < 50; i++) {
        ssize_t moved = co_file_preadv(fd, &iov, 1, 0, FILE_ENGINE_DEFAULT);

        g_assert_cmpint(moved, >, 0);
        g_assert_cmpint(moved % SECTOR, ==, 0);
        short_one |= moved < BLOCK;
    }
    g_assert_true(short_one);
    g_assert_cmpint(co_file_read_exact(fd, data, BLOCK, 0), ==, 0);
    assert_filled(data, 's');
}

static void test_short(void)
{
    run(1, co_short, NULL);
}

/* --- images --- */

/* Random changes on a sparse file and on plain memory come to the same. */
static void co_compare(void *opaque)
{
    enum { SIZE = 40 * BLOCK, STEPS = 2000 };
    AUTO(fd) fd = co_file_open("/disk", O_RDWR | O_CREAT, 0600);
    g_autofree unsigned char *model = g_malloc0(SIZE);
    g_autofree unsigned char *data = g_malloc0(SIZE);

    sim_set_delay(loop_current(), SIM_OPS_ALL, 0, 0);
    g_assert_cmpint(co_file_truncate(fd, SIZE), ==, 0);
    for (unsigned i = 0; i < STEPS; i++) {
        uint16_t random[3];
        size_t offset;
        size_t size;

        loop_random_bytes(random, sizeof(random));
        offset = (size_t)random[0] * SIZE / 65536;
        size = MIN((size_t)random[1] % (3 * BLOCK) + 1, SIZE - offset);
        if (random[2] % 2) {
            memset(data, random[2] >> 8, size);
            memset(model + offset, random[2] >> 8, size);
            g_assert_cmpint(co_file_write_exact(fd, data, size, offset), ==, 0);
        } else {
            memset(model + offset, 0, size);
            g_assert_cmpint(co_file_allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size), ==, 0);
        }
        if (i % 50 == 0) {
            g_assert_cmpint(co_file_read_exact(fd, data, SIZE, 0), ==, 0);
            g_assert_cmpmem(data, SIZE, model, SIZE);
        }
        if (i % 300 == 0) {
            g_assert_cmpint(co_file_truncate(fd, offset), ==, 0);
            g_assert_cmpint(co_file_truncate(fd, SIZE), ==, 0);
            memset(model + offset, 0, SIZE - offset);
        }
    }
    g_assert_cmpint(co_file_sync(fd, true), ==, 0);
    AUTO(sim_disk) left = sim_disk_after_cut(sim_loop_disk(loop_current()), 1);
    size_t size;
    g_autofree char *kept = sim_disk_get(left, "/disk", &size);

    g_assert_cmpmem(kept, size, model, SIZE);
}

static void test_image(void)
{
    run(99, co_compare, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sim/time", test_time);
    g_test_add_func("/sim/same-seed", test_same_seed);
    g_test_add_func("/sim/orders", test_orders);
    g_test_add_func("/sim/deadlock", test_deadlock);
    g_test_add_func("/sim/power-cut", test_power_cut);
    g_test_add_func("/sim/reordering", test_reordering);
    g_test_add_func("/sim/flush-covers-earlier", test_flush_covers_earlier);
    g_test_add_func("/sim/power-off", test_power_off);
    g_test_add_func("/sim/replay", test_replay);
    g_test_add_func("/sim/fault", test_fault);
    g_test_add_func("/sim/fail-each", test_fail_each);
    g_test_add_func("/sim/torn-fault", test_torn_fault);
    g_test_add_func("/sim/capacity", test_capacity);
    g_test_add_func("/sim/short", test_short);
    g_test_add_func("/sim/image", test_image);
    return g_test_run();
}
