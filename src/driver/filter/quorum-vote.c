/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/filter/quorum-vote.h"

int quorum_vote(struct quorum_answer *answers, unsigned count)
{
    int winner = -1;

    for (unsigned i = 0; i < count; i++) {
        answers[i].votes = 0;
        answers[i].same_as = i;
        if (answers[i].result)
            continue;
        for (unsigned j = 0; j < i; j++) {
            bool first = !answers[j].result && answers[j].same_as == j;

            if (first && io_vector_difference(answers[i].data, answers[j].data) == answers[i].data->size) {
                answers[i].same_as = j;
                break;
            }
        }
        answers[answers[i].same_as].votes++;
    }
    for (unsigned i = 0; i < count; i++) {
        if (answers[i].votes && (winner < 0 || answers[i].votes > answers[winner].votes))
            winner = (int)i;
    }
    return winner;
}

int quorum_vote_error(const struct quorum_answer *answers, unsigned count)
{
    unsigned most = 0;
    int error = 0;

    for (unsigned i = 0; i < count; i++) {
        unsigned votes = 0;

        for (unsigned j = 0; j < count && answers[i].result; j++)
            votes += answers[j].result == answers[i].result;
        if (votes > most) {
            most = votes;
            error = answers[i].result;
        }
    }
    return error;
}
