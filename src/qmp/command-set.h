/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands that monitors of a daemon offer, found by name. */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "qmp/command.h"

struct qmp_command_set;

/* The `count` commands, borrowed; names are unique. */
struct qmp_command_set *qmp_command_set_new(const struct qmp_command *commands, size_t count) MUST_CHECK;
void qmp_command_set_free(struct qmp_command_set *set); /* NULL is allowed */
AUTO_DEFINE(qmp_command_set, struct qmp_command_set *, qmp_command_set_free)

/* NULL where there is none. */
const struct qmp_command *qmp_command_set_find(const struct qmp_command_set *set, const char *name);

size_t qmp_command_set_count(const struct qmp_command_set *set);
const struct qmp_command *qmp_command_set_at(const struct qmp_command_set *set, size_t index);
