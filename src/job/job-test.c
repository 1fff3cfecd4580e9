/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The job engine: every verb in every stage, pausing, cancelling, transactions, and the events of each way to the end.
 */
#include "job/job.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/units.h"
#include "job/job-internal.h"
#include "loop/coroutine.h"
#include "loop/loop.h"
#include "schema/event.h"
#include "schema/json.h"

/* Events as text: a stage by its name, others by theirs. */
struct bench {
    struct event_sink sink;
    struct job_registry *jobs;
    GString *log;
};

static void record_event(struct event_sink *sink, const char *name, struct json *data)
{
    struct bench *bench = container_of(sink, struct bench, sink);

    if (bench->log->len)
        g_string_append_c(bench->log, ' ');
    g_string_append(bench->log, strcmp(name, "JOB_STATUS_CHANGE") ? name : json_get_string(json_get(data, "status")));
    json_free(data);
}

static void expect_log(struct bench *bench, const char *expected)
{
    g_assert_cmpstr(bench->log->str, ==, expected);
    g_string_truncate(bench->log, 0);
}

/* What the test tells its job to do. */
enum order { ORDER_NONE, ORDER_READY, ORDER_END, ORDER_FAIL };

struct test_job {
    enum order order;
    bool fail_prepare;
    unsigned *committed, *aborted, *cleaned; /* counters of the test; NULL: none */
};

static bool CO_FN test_co_run(struct job *job, struct error **err)
{
    struct test_job *test = job_state(job);

    job_progress_set_remaining(job, 100);
    while (!job_is_cancelled(job)) {
        enum order order = test->order;

        test->order = ORDER_NONE;
        if (order == ORDER_FAIL)
            return error_set(err, "told to fail");
        if (order == ORDER_END || (job_is_ready(job) && job_should_complete(job))) {
            job_progress_add(job, 100);
            return true;
        }
        if (order == ORDER_READY)
            job_set_ready(job);
        co_job_wait(job, -1);
    }
    return false;
}

static bool CO_FN test_co_prepare(struct job *job, struct error **err)
{
    struct test_job *test = job_state(job);

    co_yield ();
    return !test->fail_prepare || error_set(err, "told not to be prepared");
}

static void CO_FN test_co_commit(struct job *job)
{
    struct test_job *test = job_state(job);

    if (test->committed)
        ++*test->committed;
}

static void CO_FN test_co_abort(struct job *job)
{
    struct test_job *test = job_state(job);

    if (test->aborted)
        ++*test->aborted;
}

static void CO_FN test_co_clean(struct job *job)
{
    struct test_job *test = job_state(job);

    co_yield ();
    if (test->cleaned)
        ++*test->cleaned;
}

static const struct job_driver test_driver = {
    .type = JOB_TYPE_MIRROR,
    .state_size = sizeof(struct test_job),
    .is_block_job = true,
    .cancels_well = true,
    .co_run = test_co_run,
    .co_prepare = test_co_prepare,
    .co_commit = test_co_commit,
    .co_abort = test_co_abort,
    .co_clean = test_co_clean,
};

/* A job that waits for its client at each step. */
static struct job *make(struct bench *bench, const char *id, struct job_transaction *transaction)
{
    struct job_options options = {
        .driver = &test_driver, .id = id, .manual_finalize = true, .manual_dismiss = true, .transaction = transaction};
    AUTO(error) err = NULL;
    struct job *job = job_new(bench->jobs, &options, &err);

    g_assert_null(err);
    g_assert_nonnull(job);
    return job;
}

static void order(struct job *job, enum order what)
{
    ((struct test_job *)job_state(job))->order = what;
    job_kick(job);
}

static void CO_FN co_until(struct job *job, enum job_status status)
{
    while (job->status != status)
        co_condition_wait_always(&job->changed, NULL);
}

static void CO_FN co_pause(struct job *job)
{
    g_assert_true(co_job_user_pause(job, NULL));
    g_assert_true(job->at_rest);
}

/* Brings a new job to a stage, the user's way. */
static void CO_FN co_bring_to(struct job *job, enum job_status status)
{
    if (status == JOB_STATUS_CREATED)
        return;
    job_start(job);
    co_yield ();
    if (status == JOB_STATUS_RUNNING)
        return;
    if (status == JOB_STATUS_PAUSED) {
        co_pause(job);
        return;
    }
    if (status == JOB_STATUS_READY || status == JOB_STATUS_STANDBY) {
        order(job, ORDER_READY);
        co_until(job, JOB_STATUS_READY);
        co_yield ();
        if (status == JOB_STATUS_STANDBY)
            co_pause(job);
        return;
    }
    order(job, ORDER_END);
    co_until(job, status == JOB_STATUS_CONCLUDED ? JOB_STATUS_PENDING : status);
    if (status == JOB_STATUS_CONCLUDED)
        g_assert_true(co_job_user_finalize(job, NULL));
}

static bool CO_FN co_ask(struct job *job, enum job_verb verb, struct error **err)
{
    struct block_job_change_options change = {.id = job->id, .type = JOB_TYPE_MIRROR};

    switch (verb) {
    case JOB_VERB_CANCEL:
        return co_job_user_cancel(job, true, err);
    case JOB_VERB_PAUSE:
        return co_job_user_pause(job, err);
    case JOB_VERB_RESUME:
        return job_user_resume(job, err);
    case JOB_VERB_SET_SPEED:
        return job_user_set_speed(job, 1, err);
    case JOB_VERB_COMPLETE:
        return job_user_complete(job, err);
    case JOB_VERB_DISMISS:
        return job_user_dismiss(job, err);
    case JOB_VERB_FINALIZE:
        return co_job_user_finalize(job, err);
    case JOB_VERB_CHANGE:
        return co_job_user_change(job, &change, err);
    default:
        g_assert_not_reached();
    }
}

/* What comes of each verb (CANCEL PAUSE RESUME SET_SPEED COMPLETE DISMISS FINALIZE CHANGE): '+' it is done, '-' the
 * stage does not allow it, another letter: another reason. */
static const struct {
    enum job_status status;
    const char *verdicts;
} table[] = {
    {JOB_STATUS_CREATED, "++n+---c"}, {JOB_STATUS_RUNNING, "++n+---c"},   {JOB_STATUS_PAUSED, "+p++---c"},
    {JOB_STATUS_READY, "++n++--c"},   {JOB_STATUS_STANDBY, "+p+++--c"},   {JOB_STATUS_WAITING, "+-n-----"},
    {JOB_STATUS_PENDING, "+-n---+-"}, {JOB_STATUS_CONCLUDED, "--n--+--"},
};

static char *expected_message(enum job_status status, enum job_verb verb, char verdict)
{
    switch (verdict) {
    case '-':
        return g_strdup_printf("Job 'j' in state '%s' cannot accept command verb '%s'", job_status_name(status),
                               job_verb_name(verb));
    case 'n':
        return g_strdup("Can't resume a job that was not paused");
    case 'p':
        return g_strdup("Job is already paused");
    default:
        return g_strdup("Job type does not support change");
    }
}

/* Everything that is left is cancelled and goes. */
static void CO_FN co_start_over(struct bench *bench)
{
    for (unsigned i = 0; i < bench->jobs->jobs->len; i++) {
        struct job *job = g_ptr_array_index(bench->jobs->jobs, i);

        if (!job->started)
            job_start(job);
    }
    co_job_registry_free(bench->jobs);
    bench->jobs = job_registry_new(&bench->sink);
    g_string_truncate(bench->log, 0);
}

static void CO_FN co_try_verb(struct bench *bench, enum job_status status, enum job_verb verb, char verdict)
{
    struct job_transaction *transaction = job_transaction_new();
    struct job *job = make(bench, "j", transaction);
    g_autofree char *message = verdict == '+' ? NULL : expected_message(status, verb, verdict);
    AUTO(error) err = NULL;

    /* Another one, still running, keeps it waiting. */
    if (status == JOB_STATUS_WAITING)
        job_start(make(bench, "other", transaction));
    job_transaction_release(transaction);
    co_bring_to(job, status);
    g_assert_cmpint(job->status, ==, status);
    g_assert_cmpint(co_ask(job, verb, &err), ==, verdict == '+');
    g_assert_cmpstr(err ? error_message(err) : NULL, ==, message);
    co_start_over(bench);
}

static void CO_FN co_test_verbs(struct bench *bench)
{
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        for (unsigned verb = 0; verb < JOB_VERB__MAX; verb++)
            co_try_verb(bench, table[i].status, verb, table[i].verdicts[verb]);
    }
}

static void CO_FN co_test_success(struct bench *bench)
{
    struct job_options options = {.driver = &test_driver, .id = "j"};
    struct job *job = job_hold(job_new(bench->jobs, &options, NULL));

    job_start(job);
    expect_log(bench, "created running");
    order(job, ORDER_READY);
    co_until(job, JOB_STATUS_READY);
    expect_log(bench, "ready BLOCK_JOB_READY");
    g_assert_true(job_user_complete(job, NULL));
    co_until(job, JOB_STATUS_NULL);
    expect_log(bench, "waiting pending BLOCK_JOB_COMPLETED concluded null");
    g_assert_null(job_find(bench->jobs, "j", NULL));
    job_release(job);
}

static void CO_FN co_test_manual(struct bench *bench)
{
    struct job *job = make(bench, "j", NULL);

    co_bring_to(job, JOB_STATUS_PENDING);
    co_yield ();
    expect_log(bench, "created running waiting pending BLOCK_JOB_PENDING");
    g_assert_true(co_job_user_finalize(job, NULL));
    expect_log(bench, "BLOCK_JOB_COMPLETED concluded");
    g_assert_true(job_user_dismiss(job, NULL));
    expect_log(bench, "null");
}

static void CO_FN co_test_failure(struct bench *bench)
{
    struct job *job = make(bench, "j", NULL);
    AUTO(block_job_info_array) infos = NULL;

    job_start(job);
    g_assert_cmpint(job_handle_error(job, BLOCKDEV_ON_ERROR_REPORT, true, -EIO), ==, BLOCK_ERROR_ACTION_REPORT);
    order(job, ORDER_FAIL);
    co_until(job, JOB_STATUS_CONCLUDED);
    expect_log(bench, "created running BLOCK_JOB_ERROR aborting BLOCK_JOB_COMPLETED concluded");
    infos = job_query_block_jobs(bench->jobs);
    g_assert_cmpuint(infos->count, ==, 1);
    g_assert_cmpstr(infos->items[0]->error, ==, "told to fail");
}

static void CO_FN co_test_prepare_fails(struct bench *bench)
{
    struct job *job = make(bench, "j", NULL);

    ((struct test_job *)job_state(job))->fail_prepare = true;
    co_bring_to(job, JOB_STATUS_PENDING);
    g_assert_true(co_job_user_finalize(job, NULL));
    expect_log(bench, "created running waiting pending BLOCK_JOB_PENDING aborting BLOCK_JOB_COMPLETED concluded");
    g_assert_cmpstr(error_message(job->error), ==, "told not to be prepared");
}

static void CO_FN co_test_pause(struct bench *bench)
{
    struct job *job = make(bench, "j", NULL);

    co_bring_to(job, JOB_STATUS_PAUSED);
    expect_log(bench, "created running paused");
    g_assert_true(job_user_resume(job, NULL));
    expect_log(bench, "running");
    co_pause(job);
    expect_log(bench, "paused");
    /* It goes on, and gives up. */
    g_assert_true(co_job_user_cancel(job, true, NULL));
    expect_log(bench, "running");
    co_until(job, JOB_STATUS_CONCLUDED);
    expect_log(bench, "aborting BLOCK_JOB_CANCELLED concluded");
}

static void CO_FN co_test_soft_cancel(struct bench *bench)
{
    struct job *job = make(bench, "j", NULL);

    co_bring_to(job, JOB_STATUS_READY);
    g_string_truncate(bench->log, 0);
    g_assert_true(co_job_user_cancel(job, false, NULL));
    co_until(job, JOB_STATUS_PENDING);
    co_yield ();
    expect_log(bench, "waiting pending BLOCK_JOB_PENDING");
    g_assert_true(co_job_user_cancel(job, false, NULL));
    expect_log(bench, "aborting BLOCK_JOB_CANCELLED concluded");
    g_assert_cmpstr(job->error ? error_message(job->error) : NULL, ==, NULL);
}

static void CO_FN co_test_stop_on_error(struct bench *bench)
{
    struct job *job = make(bench, "j", NULL);

    co_bring_to(job, JOB_STATUS_RUNNING);
    g_string_truncate(bench->log, 0);
    g_assert_cmpint(job_handle_error(job, BLOCKDEV_ON_ERROR_ENOSPC, false, -EIO), ==, BLOCK_ERROR_ACTION_REPORT);
    g_assert_cmpint(job_handle_error(job, BLOCKDEV_ON_ERROR_IGNORE, false, -EIO), ==, BLOCK_ERROR_ACTION_IGNORE);
    g_assert_cmpint(job->io_status, ==, BLOCK_DEVICE_IO_STATUS_OK);
    g_assert_cmpint(job_handle_error(job, BLOCKDEV_ON_ERROR_ENOSPC, false, -ENOSPC), ==, BLOCK_ERROR_ACTION_STOP);
    g_assert_cmpint(job->io_status, ==, BLOCK_DEVICE_IO_STATUS_NOSPACE);
    job_kick(job);
    co_until(job, JOB_STATUS_PAUSED);
    expect_log(bench, "BLOCK_JOB_ERROR BLOCK_JOB_ERROR BLOCK_JOB_ERROR paused");
    g_assert_true(job_user_resume(job, NULL));
    g_assert_cmpint(job->io_status, ==, BLOCK_DEVICE_IO_STATUS_OK);
    expect_log(bench, "running");
}

/* Two in one transaction: `fails`: one of them fails in the end. */
static void CO_FN co_run_pair(struct bench *bench, bool fails, unsigned *counts)
{
    struct job_transaction *transaction = job_transaction_new();
    struct job *a = job_hold(make(bench, "a", transaction));
    struct job *b = job_hold(make(bench, "b", transaction));
    struct test_job *states[] = {job_state(a), job_state(b)};

    job_transaction_release(transaction);
    for (unsigned i = 0; i < 2; i++) {
        states[i]->committed = &counts[0];
        states[i]->aborted = &counts[1];
        states[i]->cleaned = &counts[2];
    }
    job_start(a);
    job_start(b);
    order(a, ORDER_END);
    co_until(a, JOB_STATUS_WAITING);
    order(b, fails ? ORDER_FAIL : ORDER_END);
    if (!fails) {
        co_until(b, JOB_STATUS_PENDING);
        g_assert_true(co_job_user_finalize(b, NULL));
    }
    co_until(a, JOB_STATUS_CONCLUDED);
    co_until(b, JOB_STATUS_CONCLUDED);
    job_release(a);
    job_release(b);
}

static void CO_FN co_test_group(struct bench *bench)
{
    unsigned counts[3] = {0};

    co_run_pair(bench, false, counts);
    g_assert_cmpuint(counts[0], ==, 2);
    g_assert_cmpuint(counts[1], ==, 0);
    g_assert_cmpuint(counts[2], ==, 2);
}

static void CO_FN co_test_group_failure(struct bench *bench)
{
    unsigned counts[3] = {0};

    co_run_pair(bench, true, counts);
    g_assert_cmpuint(counts[0], ==, 0);
    g_assert_cmpuint(counts[1], ==, 2);
    g_assert_cmpuint(counts[2], ==, 2);
    expect_log(bench, "created created running running waiting aborting aborting BLOCK_JOB_CANCELLED concluded "
                      "BLOCK_JOB_COMPLETED concluded");
}

/* A transaction that never came to starting its jobs. */
static void CO_FN co_test_discard(struct bench *bench)
{
    co_job_discard(make(bench, "j", NULL));
    expect_log(bench, "created aborting concluded null");
}

static void CO_FN co_test_ids(struct bench *bench)
{
    static const char *const bad[] = {"", "1", "a b", "_", "a/b", "\xc3\xa4"};
    struct job_options options = {.driver = &test_driver, .id = "j"};
    AUTO(error) err = NULL;
    struct job *job;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        struct job_options with_id = {.driver = &test_driver, .id = bad[i]};

        g_assert_null(job_new(bench->jobs, &with_id, NULL));
    }
    job = make(bench, "j", NULL);
    g_assert_null(job_new(bench->jobs, &options, &err));
    g_assert_cmpstr(error_message(err), ==, "Job ID 'j' already in use");
    co_job_discard(job);
}

/* Ten units at a hundred a second take a tenth of a second, but for the first. */
static bool CO_FN speed_co_run(struct job *job, struct error **err)
{
    for (unsigned i = 0; i < 11 && !job_is_cancelled(job); i++)
        co_job_throttle(job, 1);
    return true;
}

static const struct job_driver speed_driver = {.type = JOB_TYPE_STREAM, .co_run = speed_co_run};

static void CO_FN co_test_speed(struct bench *bench)
{
    struct job_options options = {.driver = &speed_driver, .id = "j", .speed = 100};
    struct job *job = job_hold(job_new(bench->jobs, &options, NULL));
    int64_t start_ns = loop_now_ns();

    job_start(job);
    co_until(job, JOB_STATUS_NULL);
    /* The clock of the simulation says exactly how long. */
    g_assert_cmpint(loop_now_ns() - start_ns, >=, INT64_C(100000000));
    g_assert_cmpint(loop_now_ns() - start_ns, <, INT64_C(101000000));
    job_release(job);
}

/* A job that would wait for a year is not waited for when the limit goes, nor when it is cancelled. */
static void CO_FN co_test_speed_change(struct bench *bench)
{
    struct job_options options = {.driver = &speed_driver, .id = "j", .speed = 1};
    struct job *job = job_hold(job_new(bench->jobs, &options, NULL));
    int64_t start_ns = loop_now_ns();

    job_start(job);
    co_yield ();
    g_assert_true(job->idle);
    g_assert_false(job_user_set_speed(job, -1, NULL));
    g_assert_true(job_user_set_speed(job, 0, NULL));
    co_until(job, JOB_STATUS_NULL);
    job_release(job);
    job = job_hold(job_new(bench->jobs, &options, NULL));
    job_start(job);
    co_yield ();
    g_assert_true(co_job_user_cancel(job, false, NULL));
    co_until(job, JOB_STATUS_NULL);
    job_release(job);
    g_assert_cmpint(loop_now_ns() - start_ns, <, INT64_C(100000000));
}

struct test {
    void (*co_run)(struct bench *bench);
};

static void test_run(void *opaque)
{
    const struct test *test = opaque;
    struct bench bench = {.sink = {.send = record_event}, .log = g_string_new(NULL)};

    bench.jobs = job_registry_new(&bench.sink);
    test->co_run(&bench);
    co_job_registry_free(bench.jobs);
    g_string_free(bench.log, true);
}

/* On the simulated loop: its clock is exact. */
static void run_test(const void *data)
{
    struct test test = {.co_run = (void (*)(struct bench *))(uintptr_t)data};
    struct loop_options options = {.backend = LOOP_SIM, .sim_seed = 1};
    struct loop *loop = loop_new(&options, NULL);

    co_run(loop, test_run, &test);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*co_run)(struct bench *bench);
    } tests[] = {
        {"verbs", co_test_verbs},
        {"success", co_test_success},
        {"manual", co_test_manual},
        {"failure", co_test_failure},
        {"prepare", co_test_prepare_fails},
        {"pause", co_test_pause},
        {"soft-cancel", co_test_soft_cancel},
        {"stop", co_test_stop_on_error},
        {"group", co_test_group},
        {"group-failure", co_test_group_failure},
        {"discard", co_test_discard},
        {"ids", co_test_ids},
        {"speed", co_test_speed},
        {"speed-change", co_test_speed_change},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/job/%s", tests[i].name);

        g_test_add_data_func(path, (const void *)(uintptr_t)tests[i].co_run, run_test);
    }
    return g_test_run();
}
