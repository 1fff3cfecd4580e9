/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Elections: which of several answers most agree on. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/io-vector.h"

/* One child's answer. */
struct quorum_answer {
    int result;                   /* 0, or a negative errno: it has none */
    const struct io_vector *data; /* what it has read; all are of one size */
    unsigned votes;               /* out: of the answers that are equal, counted at the first of them; 0 at others */
    unsigned same_as;             /* out: index of the first answer that is equal */
};

/* Counts. The first of the answers that have the most votes; -1: there is none without an error. */
int quorum_vote(struct quorum_answer *answers, unsigned count);

/* The error that most have; of several the first one's. 0: none has. */
int quorum_vote_error(const struct quorum_answer *answers, unsigned count);
