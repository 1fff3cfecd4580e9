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

/* Segments that begin and end at different places. */
static void test_difference(void)
{
    char left[] = "0123456789", right[] = "0123456789";
    struct iovec of_left[] = {{left, 3}, {left + 3, 0}, {left + 3, 7}};
    struct iovec of_right[] = {{right, 5}, {right + 5, 5}};
    struct io_vector a = io_vector_of(of_left, 3), b = io_vector_of(of_right, 2);

    g_assert_cmpuint(quorum_first_difference(&a, &b), ==, 10);
    for (size_t at = 0; at < 10; at++) {
        right[at] = 'x';
        g_assert_cmpuint(quorum_first_difference(&a, &b), ==, at);
        right[at] = left[at];
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/quorum-vote/winners", test_winners);
    g_test_add_func("/quorum-vote/errors", test_errors);
    g_test_add_func("/quorum-vote/difference", test_difference);
    return g_test_run();
}
