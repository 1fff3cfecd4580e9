/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/throttle-group.h"

#include <errno.h>
#include <glib.h>

#include "base/error.h"
#include "base/units.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* LONG_WAIT: bytes after which, at one byte a second, the next request has to wait longer than any test runs. */
enum { REQUESTS_MAX = 256, LONG_WAIT = 1000 * 1000 };

/* A group with two members, and the order in which requests got through. */
struct scene {
    struct loop *loop;
    struct throttle_group group;
    struct throttle_member members[2];
    struct co_group running;
    char order[REQUESTS_MAX + 1]; /* 'a', 'b': reads of the members; 'A', 'B': writes */
    unsigned count;
};

struct request {
    struct scene *scene;
    int member;
    enum throttle_direction direction;
};

static struct throttle_config limit_of(enum throttle_kind kind, int64_t average)
{
    struct throttle_config config;

    throttle_config_init(&config);
    config.rates[kind].average = average;
    return config;
}

static void CO_FN request_co_run(void *opaque)
{
    struct request *request = opaque;
    struct scene *scene = request->scene;

    co_throttle_wait(&scene->members[request->member], request->direction, 4096);
    scene->order[scene->count++] = (char)((request->direction == THROTTLE_READ ? 'a' : 'A') + request->member);
    co_group_done(&scene->running);
    g_free(request);
}

static struct co_task *request_start(struct scene *scene, int member, enum throttle_direction direction)
{
    struct request *request = g_new(struct request, 1);

    *request = (struct request){scene, member, direction};
    co_group_add(&scene->running, 1);
    return co_task_start(scene->loop, request_co_run, request);
}

static void request_start_many(struct scene *scene, int member, enum throttle_direction direction, int count)
{
    for (int i = 0; i < count; i++)
        co_task_detach(request_start(scene, member, direction));
}

/* Lets all that has been started come to where it waits. */
static void CO_FN co_settle(void)
{
    for (int i = 0; i < 10; i++)
        co_yield ();
}

static void scene_run(enum loop_backend backend, co_entry *entry)
{
    AUTO(error) error = NULL;
    struct scene scene = {0};
    struct loop_options options = {.backend = backend};

    scene.loop = loop_new(&options, &error);
    g_assert_nonnull(scene.loop);
    throttle_member_init(&scene.members[0], &scene.group);
    throttle_member_init(&scene.members[1], &scene.group);
    co_run(scene.loop, entry, &scene);
    throttle_member_done(&scene.members[0]);
    throttle_member_done(&scene.members[1]);
    throttle_group_done(&scene.group);
    loop_free(scene.loop);
}

static void CO_FN co_no_limits(void *opaque)
{
    struct scene *scene = opaque;

    for (int i = 0; i < 100000; i++)
        co_throttle_wait(&scene->members[0], THROTTLE_READ, 1 << 30);
}

static void CO_FN co_members_take_turns(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_IOPS_TOTAL, 1000);

    /* Nobody goes while all of them queue up. */
    config.rates[THROTTLE_BPS_TOTAL].average = 1;
    throttle_group_configure(&scene->group, &config);
    co_throttle_wait(&scene->members[0], THROTTLE_READ, LONG_WAIT);
    request_start_many(scene, 0, THROTTLE_READ, 40);
    request_start_many(scene, 1, THROTTLE_READ, 10);
    co_settle();
    g_assert_cmpuint(scene->count, ==, 0);

    config = limit_of(THROTTLE_IOPS_TOTAL, 1000);
    throttle_group_configure(&scene->group, &config);
    co_group_wait(&scene->running);
    g_assert_cmpstr(scene->order, ==,
                    "abababababababababab"
                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}

static void CO_FN co_directions_take_turns(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_BPS_TOTAL, 1);

    throttle_group_configure(&scene->group, &config);
    co_throttle_wait(&scene->members[0], THROTTLE_READ, LONG_WAIT);
    request_start_many(scene, 0, THROTTLE_READ, 8);
    request_start_many(scene, 0, THROTTLE_WRITE, 4);
    co_settle();
    config = limit_of(THROTTLE_IOPS_TOTAL, 1000);
    throttle_group_configure(&scene->group, &config);
    co_group_wait(&scene->running);
    g_assert_cmpstr(scene->order, ==, "AaAaAaAaaaaa");
}

static void CO_FN co_reads_pass_limited_writes(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_BPS_WRITE, 1);

    throttle_group_configure(&scene->group, &config);
    co_throttle_wait(&scene->members[0], THROTTLE_WRITE, LONG_WAIT);
    request_start_many(scene, 0, THROTTLE_WRITE, 2);
    co_settle();
    request_start_many(scene, 0, THROTTLE_READ, 3);
    co_settle();
    g_assert_cmpstr(scene->order, ==, "aaa");

    throttle_config_init(&config);
    throttle_group_configure(&scene->group, &config);
    co_group_wait(&scene->running);
    g_assert_cmpstr(scene->order, ==, "aaaAA");
}

static void CO_FN co_drain_lets_go(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_BPS_TOTAL, 1);

    throttle_group_configure(&scene->group, &config);
    co_throttle_wait(&scene->members[0], THROTTLE_READ, LONG_WAIT);
    request_start_many(scene, 0, THROTTLE_READ, 3);
    request_start_many(scene, 1, THROTTLE_WRITE, 1);
    co_settle();
    g_assert_cmpuint(scene->count, ==, 0);

    throttle_member_drain_begin(&scene->members[0]);
    co_settle();
    g_assert_cmpstr(scene->order, ==, "aaa");
    co_throttle_wait(&scene->members[0], THROTTLE_READ, 1);
    throttle_member_drain_end(&scene->members[0]);

    request_start_many(scene, 0, THROTTLE_READ, 1);
    co_settle();
    g_assert_cmpstr(scene->order, ==, "aaa");
    throttle_member_drain_begin(&scene->members[0]);
    throttle_member_drain_begin(&scene->members[1]);
    co_group_wait(&scene->running);
    throttle_member_drain_end(&scene->members[0]);
    throttle_member_drain_end(&scene->members[1]);
}

static void CO_FN co_cancelled_goes_at_once(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_BPS_TOTAL, 1);
    struct co_task *first;
    struct co_task *second;

    throttle_group_configure(&scene->group, &config);
    co_throttle_wait(&scene->members[0], THROTTLE_READ, LONG_WAIT);
    first = request_start(scene, 0, THROTTLE_READ);
    second = request_start(scene, 1, THROTTLE_READ);
    co_settle();
    co_task_cancel(second);
    co_task_join(second);
    g_assert_cmpstr(scene->order, ==, "b");
    co_task_cancel(first);
    co_task_join(first);
    g_assert_cmpstr(scene->order, ==, "ba");
}

static void CO_FN co_deadline_goes_at_once(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_BPS_TOTAL, 1);
    struct co_deadline deadline;

    throttle_group_configure(&scene->group, &config);
    co_throttle_wait(&scene->members[0], THROTTLE_READ, LONG_WAIT);
    co_deadline_begin(&deadline, 1000000);
    co_throttle_wait(&scene->members[0], THROTTLE_READ, 1);
    co_deadline_end(&deadline);
}

/* --- in virtual time: how much gets through --- */

struct flood {
    struct scene *scene;
    int member;
    enum throttle_direction direction;
    uint64_t bytes;
    uint64_t *count; /* of what got through before the end */
    int64_t end_ns;
};

static void CO_FN flood_co_run(void *opaque)
{
    struct flood *flood = opaque;

    while (loop_now_ns() < flood->end_ns) {
        co_throttle_wait(&flood->scene->members[flood->member], flood->direction, flood->bytes);
        if (loop_now_ns() < flood->end_ns)
            ++*flood->count;
        (void)co_sleep_ns(1000);
    }
    co_group_done(&flood->scene->running);
}

enum { FLOOD_SECONDS = 10, FLOOD_DEPTH = 8 };

/* Floods the group from both members, one of which writes, at some depth; how much each got through. */
static void CO_FN co_flood(struct scene *scene, uint64_t bytes, uint64_t *ret_counts)
{
    struct flood floods[2 * FLOOD_DEPTH];

    ret_counts[0] = ret_counts[1] = 0;
    co_group_add(&scene->running, G_N_ELEMENTS(floods));
    for (int i = 0; i < (int)G_N_ELEMENTS(floods); i++) {
        floods[i] = (struct flood){
            .scene = scene,
            .member = i % 2,
            .direction = i % 2 ? THROTTLE_WRITE : THROTTLE_READ,
            .bytes = bytes,
            .count = &ret_counts[i % 2],
            .end_ns = loop_now_ns() + FLOOD_SECONDS * NS_PER_S,
        };
        co_spawn(scene->loop, flood_co_run, &floods[i]);
    }
    co_group_wait(&scene->running);
}

static void assert_rate(double amount, double expected)
{
    g_assert_cmpfloat(amount, >=, expected * FLOOD_SECONDS * 0.98);
    g_assert_cmpfloat(amount, <=, expected * FLOOD_SECONDS * 1.02);
}

static void CO_FN co_exact_operations(void *opaque)
{
    static const int64_t rates[] = {100, 777, 3000};
    struct scene *scene = opaque;

    for (size_t i = 0; i < G_N_ELEMENTS(rates); i++) {
        struct throttle_config config = limit_of(THROTTLE_IOPS_TOTAL, rates[i]);
        uint64_t counts[2];

        throttle_group_configure(&scene->group, &config);
        co_flood(scene, 4096, counts);
        assert_rate((double)(counts[0] + counts[1]), (double)rates[i]);
        assert_rate((double)counts[0], (double)rates[i] / 2);
    }
}

static void CO_FN co_exact_bytes(void *opaque)
{
    static const uint64_t sizes[] = {20000, 65536, 1 << 20};
    struct scene *scene = opaque;

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        struct throttle_config config = limit_of(THROTTLE_BPS_READ, 100 << 20);
        uint64_t counts[2];

        config.rates[THROTTLE_BPS_WRITE].average = 50 << 20;
        throttle_group_configure(&scene->group, &config);
        co_flood(scene, sizes[i], counts);
        assert_rate((double)(counts[0] * sizes[i]), 100 << 20);
        assert_rate((double)(counts[1] * sizes[i]), 50 << 20);
    }
}

static void CO_FN co_exact_bursts(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_IOPS_TOTAL, 100);
    uint64_t counts[2];

    /* Five seconds at 1,000, and what leaks out meanwhile; then 100. */
    config.rates[THROTTLE_IOPS_TOTAL].max = 1000;
    config.rates[THROTTLE_IOPS_TOTAL].max_length_s = 5;
    throttle_group_configure(&scene->group, &config);
    co_flood(scene, 4096, counts);
    assert_rate((double)(counts[0] + counts[1]), (5000 + 10 * 100) / 10.0);
}

static void CO_FN co_exact_sizes(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_IOPS_WRITE, 1000);
    uint64_t counts[2];

    /* 64 KiB count as sixteen; reads are not limited by that, but by their own. */
    config.iops_size = 4096;
    config.rates[THROTTLE_IOPS_READ].average = 320;
    throttle_group_configure(&scene->group, &config);
    co_flood(scene, 65536, counts);
    assert_rate((double)counts[0], 20);
    assert_rate((double)counts[1], 62.5);
    /* One that is no larger counts as one. */
    co_flood(scene, 512, counts);
    assert_rate((double)counts[0], 320);
    assert_rate((double)counts[1], 1000);
}

static void CO_FN change_co_run(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_IOPS_TOTAL, 2000);

    (void)co_sleep_ns(FLOOD_SECONDS * NS_PER_S / 2);
    throttle_group_configure(&scene->group, &config);
    co_group_done(&scene->running);
}

/* Another limit while many wait: what is over stays, and what is to come goes by the new one. */
static void CO_FN co_exact_change(void *opaque)
{
    struct scene *scene = opaque;
    struct throttle_config config = limit_of(THROTTLE_IOPS_TOTAL, 200);
    uint64_t counts[2];

    throttle_group_configure(&scene->group, &config);
    co_group_add(&scene->running, 1);
    co_spawn(scene->loop, change_co_run, scene);
    co_flood(scene, 4096, counts);
    assert_rate((double)(counts[0] + counts[1]), (200 + 2000) / 2.0);
}

/* --- several loops --- */

enum { THREADS = 3, ROUNDS = 300 };

struct crowd {
    struct throttle_group group;
    struct throttle_member members[THREADS];
    struct co_group running;
};

struct crowd_part {
    struct crowd *crowd;
    int index;
};

static void CO_FN crowd_part_co_run(void *opaque)
{
    struct crowd_part *part = opaque;

    for (int i = 0; i < ROUNDS; i++)
        co_throttle_wait(&part->crowd->members[(part->index + i / 7) % THREADS], i % 3 ? THROTTLE_READ : THROTTLE_WRITE,
                         512);
    co_group_done(&part->crowd->running);
}

static void CO_FN co_crowd_run(void *opaque)
{
    struct crowd *crowd = opaque;
    struct loop_thread *threads[THREADS];
    struct crowd_part parts[THREADS * 4];
    AUTO(error) error = NULL;
    struct throttle_config config = limit_of(THROTTLE_IOPS_TOTAL, 20000);

    throttle_group_configure(&crowd->group, &config);
    co_group_add(&crowd->running, G_N_ELEMENTS(parts));
    for (int i = 0; i < THREADS; i++) {
        throttle_member_init(&crowd->members[i], &crowd->group);
        threads[i] = loop_thread_new(&(struct loop_options){0}, &error);
        g_assert_nonnull(threads[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        parts[i] = (struct crowd_part){crowd, (int)i % THREADS};
        co_spawn(loop_thread_loop(threads[i % THREADS]), crowd_part_co_run, &parts[i]);
    }
    for (int i = 0; i < 100; i++) {
        config.rates[THROTTLE_IOPS_TOTAL].average = i % 2 ? 20000 : 40000;
        throttle_group_configure(&crowd->group, &config);
        throttle_member_drain_begin(&crowd->members[i % THREADS]);
        co_yield ();
        throttle_member_drain_end(&crowd->members[i % THREADS]);
    }
    co_group_wait(&crowd->running);
    for (int i = 0; i < THREADS; i++) {
        co_loop_thread_free(threads[i]);
        throttle_member_done(&crowd->members[i]);
    }
    throttle_group_done(&crowd->group);
}

static void test_several_loops_share_a_group(void)
{
    AUTO(error) error = NULL;
    struct crowd crowd = {0};
    struct loop *loop = loop_new(&(struct loop_options){0}, &error);

    g_assert_nonnull(loop);
    co_run(loop, co_crowd_run, &crowd);
    loop_free(loop);
}

#define TEST(name)                                                                                                     \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        scene_run(LOOP_AUTO, co_##name);                                                                               \
        scene_run(LOOP_SIM, co_##name);                                                                                \
    }
#define TEST_REAL(name)                                                                                                \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        scene_run(LOOP_AUTO, co_##name);                                                                               \
    }
#define TEST_SIM(name)                                                                                                 \
    static void test_##name(void)                                                                                      \
    {                                                                                                                  \
        scene_run(LOOP_SIM, co_##name);                                                                                \
    }
/* Their order is that of a run queue, which the simulated machine shuffles. */
TEST_REAL(members_take_turns)
TEST_REAL(directions_take_turns)
TEST_SIM(exact_operations)
TEST_SIM(exact_bytes)
TEST_SIM(exact_bursts)
TEST_SIM(exact_sizes)
TEST_SIM(exact_change)
TEST(no_limits)
TEST(reads_pass_limited_writes)
TEST(drain_lets_go)
TEST(cancelled_goes_at_once)
TEST(deadline_goes_at_once)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle-group/no-limits", test_no_limits);
    g_test_add_func("/throttle-group/members-take-turns", test_members_take_turns);
    g_test_add_func("/throttle-group/directions-take-turns", test_directions_take_turns);
    g_test_add_func("/throttle-group/reads-pass-limited-writes", test_reads_pass_limited_writes);
    g_test_add_func("/throttle-group/drain-lets-go", test_drain_lets_go);
    g_test_add_func("/throttle-group/cancelled-goes-at-once", test_cancelled_goes_at_once);
    g_test_add_func("/throttle-group/deadline-goes-at-once", test_deadline_goes_at_once);
    g_test_add_func("/throttle-group/exact-operations", test_exact_operations);
    g_test_add_func("/throttle-group/exact-bytes", test_exact_bytes);
    g_test_add_func("/throttle-group/exact-bursts", test_exact_bursts);
    g_test_add_func("/throttle-group/exact-sizes", test_exact_sizes);
    g_test_add_func("/throttle-group/exact-change", test_exact_change);
    g_test_add_func("/throttle-group/several-loops-share-a-group", test_several_loops_share_a_group);
    return g_test_run();
}
