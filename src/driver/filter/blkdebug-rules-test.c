/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/filter/blkdebug-rules.h"

#include <errno.h>

#include "base/error.h"

static struct blkdebug_rules rules_of(const char *text)
{
    struct blkdebug_rules rules;
    AUTO(error) error = NULL;
    bool ok;

    blkdebug_rules_init(&rules);
    ok = blkdebug_rules_add_text(&rules, text, &error);
    g_assert_cmpstr(error ? error_message(error) : NULL, ==, NULL);
    g_assert_true(ok);
    return rules;
}

static int check(struct blkdebug_rules *rules, enum blkdebug_io_type type, uint64_t offset, uint64_t bytes)
{
    bool immediately;

    return blkdebug_rules_check(rules, type, offset, bytes, &immediately);
}

/* A rule works from its event on, for everything but questions for the state of a range. */
static void test_arming(void)
{
    struct blkdebug_rules rules = rules_of("[inject-error]\nevent = \"write_aio\"\nerrno = \"28\"\n");

    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 512), ==, 0);
    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_READ_AIO);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 512), ==, 0);
    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_WRITE_AIO);
    for (unsigned type = 0; type < BLKDEBUG_IO_TYPE__MAX; type++)
        g_assert_cmpint(check(&rules, (enum blkdebug_io_type)type, 4096, 512), ==,
                        type == BLKDEBUG_IO_TYPE_BLOCK_STATUS ? 0 : -ENOSPC);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 512), ==, -ENOSPC);
    blkdebug_rules_done(&rules);
}

/* Rules of another event take the place of those that are armed. */
static void test_disarming(void)
{
    struct blkdebug_rules rules = rules_of("[inject-error]\nevent=\"l2_load\"\nerrno=\"5\"\niotype=\"read\"\n"
                                           "[inject-error]\nevent=\"l2_update\"\nerrno=\"28\"\niotype=\"write\"\n");

    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_L2_LOAD);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_READ, 0, 1), ==, -EIO);
    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_WRITE_AIO);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_READ, 0, 1), ==, -EIO);
    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_L2_UPDATE);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_READ, 0, 1), ==, 0);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 1), ==, -ENOSPC);
    blkdebug_rules_done(&rules);
}

static void test_sector(void)
{
    struct blkdebug_rules rules = rules_of("[inject-error]\nevent = \"none\"\nsector = \"8\"\nimmediately = \"on\"\n");
    bool immediately;

    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_NONE);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_READ, 0, 4096), ==, 0);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_READ, 0, 4097), ==, -EIO);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_READ, 4097, 4096), ==, 0);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_FLUSH, 0, 0), ==, 0);
    g_assert_cmpint(blkdebug_rules_check(&rules, BLKDEBUG_IO_TYPE_READ, 4096, 1, &immediately), ==, -EIO);
    g_assert_true(immediately);
    blkdebug_rules_done(&rules);
}

static void test_once(void)
{
    struct blkdebug_rules rules = rules_of("[inject-error]\nevent = \"flush_to_disk\"\nonce = \"on\"\n");

    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_FLUSH_TO_DISK);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_FLUSH, 0, 0), ==, -EIO);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_FLUSH, 0, 0), ==, 0);
    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_FLUSH_TO_DISK);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_FLUSH, 0, 0), ==, 0);
    blkdebug_rules_done(&rules);
}

/* The second write fails: at the first one the state changes, after its rules have been looked at. */
static void test_states(void)
{
    struct blkdebug_rules rules = rules_of("[set-state]\nevent=\"write_aio\"\nstate=\"1\"\nnew_state=\"2\"\n"
                                           "[inject-error]\nevent=\"write_aio\"\nstate=\"2\"\nerrno=\"5\"\n");

    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_WRITE_AIO);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 512), ==, 0);
    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_WRITE_AIO);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 512), ==, -EIO);
    blkdebug_rules_done(&rules);
}

/* The rule armed with errno 0 makes what would fail succeed. */
static void test_zero(void)
{
    struct blkdebug_rules rules = rules_of("[inject-error]\nevent=\"none\"\nerrno=\"0\"\n");

    blkdebug_rules_event(&rules, BLKDEBUG_EVENT_NONE);
    g_assert_cmpint(check(&rules, BLKDEBUG_IO_TYPE_WRITE, 0, 512), ==, 0);
    blkdebug_rules_done(&rules);
}

static void test_bad_texts(void)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"[foo]\n", "There is no option group 'foo'*line 1*"},
        {"\n[inject-error\n", "There is no option group 'inject-error'*line 2*"},
        {"event = \"none\"\n", "no group defined*line 1*"},
        {"[inject-error]\nevent\n", "Invalid parameter 'event'*line 2*"},
        {"[inject-error]\nevent = none\n", "Invalid parameter 'event = none'*line 2*"},
        {"[inject-error]\nerrno = \"5\"\n", "*section of line 1*'event' is missing"},
        {"[inject-error]\nevent = \"nothing\"\n", "*section of line 1*nothing*"},
        {"[inject-error]\nevent = \"none\"\nfoo = \"1\"\n", "*'foo'*"},
        {"[inject-error]\nevent = \"none\"\nerrno = \"4096\"\n", "*'errno'*4096*"},
        {"[inject-error]\nevent = \"none\"\nerrno = \"-5\"\n", "*'errno'*-5*"},
        {"[inject-error]\nevent = \"none\"\nsector = \"-2\"\n", "*'sector'*-2*"},
        {"[set-state]\nevent = \"none\"\n", "*'new_state' is missing"},
        {"\xff", "*not UTF-8*"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct blkdebug_rules rules;
        AUTO(error) error = NULL;
        bool ok;

        blkdebug_rules_init(&rules);
        ok = blkdebug_rules_add_text(&rules, cases[i].text, &error);
        g_assert_false(ok);
        if (!g_pattern_match_simple(cases[i].message, error_message(error)))
            g_error("'%s' instead of '%s'", error_message(error), cases[i].message);
        blkdebug_rules_done(&rules);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/blkdebug-rules/arming", test_arming);
    g_test_add_func("/blkdebug-rules/disarming", test_disarming);
    g_test_add_func("/blkdebug-rules/sector", test_sector);
    g_test_add_func("/blkdebug-rules/once", test_once);
    g_test_add_func("/blkdebug-rules/states", test_states);
    g_test_add_func("/blkdebug-rules/zero", test_zero);
    g_test_add_func("/blkdebug-rules/bad-texts", test_bad_texts);
    return g_test_run();
}
