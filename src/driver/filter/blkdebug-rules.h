/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of blkdebug: an event arms those that make requests fail and that stand at it, and changes the state, a
 * number that begins as 1. Armed rules fail requests until another event arms others. Any thread.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "gen/types.h"
#include "loop/lock.h"

struct error;

struct blkdebug_rule {
    enum blkdebug_event event;
    int64_t state;       /* that the rule needs; 0: any */
    bool injects;        /* else it sets the state */
    int64_t new_state;   /* sets */
    unsigned io_types;   /* injects: bits 1 << enum blkdebug_io_type */
    int error;           /* injects: an errno; 0: requests succeed after all */
    int64_t sector;      /* injects: in units of 512 bytes; -1: any */
    bool once;           /* injects: works once */
    bool immediately;    /* injects: before the request has been suspended */
    uint64_t armed_turn; /* injects: 0: it is not armed; else the later the higher */
};

struct blkdebug_rules {
    struct spin_lock spin; /* of all the rest */
    GArray *rules;         /* struct blkdebug_rule */
    int64_t state;
    uint64_t turn;
};

void blkdebug_rules_init(struct blkdebug_rules *rules);
void blkdebug_rules_done(struct blkdebug_rules *rules);

/* Those of the options, besides those that are there. False: a value is out of range. */
bool blkdebug_rules_add_options(struct blkdebug_rules *rules, const struct blockdev_options_blkdebug *options,
                                struct error **err) MUST_CHECK;

/*
 * Those of a configuration file: "[inject-error]" and "[set-state]", each followed by lines KEY = "VALUE" with the
 * members of the options of these names; empty lines, and comments after '#'.
 */
bool blkdebug_rules_add_text(struct blkdebug_rules *rules, const char *text, struct error **err) MUST_CHECK;

void blkdebug_rules_event(struct blkdebug_rules *rules, enum blkdebug_event event);

/* Whether the request is to fail: 0 or the negative errno. `bytes` 0: it concerns no place. *ret_immediately as of the
 * rule. */
int blkdebug_rules_check(struct blkdebug_rules *rules, enum blkdebug_io_type type, uint64_t offset, uint64_t bytes,
                         bool *ret_immediately);
