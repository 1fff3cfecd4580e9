/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* 'drive-mirror', 'drive-backup': the jobs whose target is given as a file, which is made or there already. */
#pragma once

#include "base/compiler.h"
#include "gen/types.h"
#include "job/place.h"

struct error;
struct job;

/* Jobs that are 'created'; to be started or (backup) discarded. */
struct job *CO_FN co_drive_mirror_new(const struct job_place *place, const struct drive_mirror *arg,
                                      struct error **err) MUST_CHECK;
struct job *CO_FN co_drive_backup_new(const struct job_place *place, const struct drive_backup *arg,
                                      struct error **err) MUST_CHECK;
