/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* 'block-commit': data of overlays goes down into an image below them, and the overlays go. */
#pragma once

#include "base/compiler.h"
#include "gen/types.h"
#include "job/place.h"

struct error;
struct job;

/* A job that is 'created'; to be started. */
struct job *CO_FN co_commit_new(const struct job_place *place, const struct block_commit_arg *arg,
                                struct error **err) MUST_CHECK;
