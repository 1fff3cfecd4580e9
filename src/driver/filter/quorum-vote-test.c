/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/filter/quorum-vote.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

enum { ANSWERS = 4 };

static struct iovec segments[ANSWERS];
static struct io_vector vectors[ANSWERS];

/* Answers with these texts; one that begins with '!' is an error: "!E" -EIO, "!N" -ENOSPC. */
static unsigned make(struct quorum_answer *answers, const char *const *texts)
{
    unsigned count = 0;

    for (; texts[count]; count++) {
        const char *text = texts[count];

        segments[count] = (struct iovec){.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
        vectors[count] = io_vector_of(&segments[count], 1);
        answers[count] = (struct quorum_answer){.data = &vectors[count]};
        if (text[0] == '!')
            answers[count].result = text[1] == 'E' ? -EIO : -ENOSPC;
    }
    return count;
}

static void test_winners(void)
{
    static const struct {
        const char *texts[ANSWERS + 1];
        int winner;
        unsigned votes;
    } cases[] = {
        {{"aa", "aa", "aa"}, 0, 3},
        {{"aa", "ab", "ab"}, 1, 2},
        {{"aa", "ab", "aa"}, 0, 2},
        {{"aa", "ab", "ac"}, 0, 1},
        {{"!E", "ab", "ab"}, 1, 2},
        {{"!E", "ab", "ac"}, 1, 1},
        {{"!E", "!E"}, -1, 0},
        {{"aa", "ab", "ab", "aa"}, 0, 2},
        {{"!E", "!E", "!E", "ax"}, 3, 1},
        {{"aa"}, 0, 1},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct quorum_answer answers[ANSWERS];
        unsigned count = make(answers, cases[i].texts);
        int winner = quorum_vote(answers, count);

        g_assert_cmpint(winner, ==, cases[i].winner);
        if (winner >= 0)
            g_assert_cmpuint(answers[winner].votes, ==, cases[i].votes);
    }
}

static void test_errors(void)
{
    static const struct {
        const char *texts[ANSWERS + 1];
        int error;
    } cases[] = {
        {{"aa", "aa"}, 0},
        {{"aa", "!E"}, -EIO},
        {{"!N", "!E"}, -ENOSPC},
        {{"!N", "!E", "!E"}, -EIO},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct quorum_answer answers[ANSWERS];
        unsigned count = make(answers, cases[i].texts);

        g_assert_cmpint(quorum_vote_error(answers, count), ==, cases[i].error);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/quorum-vote/winners", test_winners);
    g_test_add_func("/quorum-vote/errors", test_errors);
    return g_test_run();
}
