/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* 'block-stream': data of backing images comes up into an image, and the backing images go. */
#pragma once

#include "base/compiler.h"
#include "gen/types.h"
#include "job/place.h"

struct error;
struct job;

/* A job that is 'created'; to be started. */
struct job *CO_FN co_stream_new(const struct job_place *place, const struct block_stream_arg *arg,
                                struct error **err) MUST_CHECK;
