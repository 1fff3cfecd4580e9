/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which requests are in flight, in a file in memory that outlives the daemon: its successor does again what was begun.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct error;
struct vduse_log;

/*
 * Opens or makes the log of the device `name`. `keep`: a driver uses the device, so a log that fits must be there;
 * else it begins empty.
 */
struct vduse_log *CO_FN co_vduse_log_open(const char *name, uint16_t queues, uint16_t queue_size, bool keep,
                                          struct error **err) MUST_CHECK;

/* The same in memory that nobody else sees; for tests. */
struct vduse_log *vduse_log_anonymous(uint16_t queues, uint16_t queue_size) MUST_CHECK;

/* Closes; `keep`: the file stays for a successor. NULL is allowed. */
void CO_FN co_vduse_log_close(struct vduse_log *log, bool keep);

/* The table of a queue (inflight.h), and whether it has been used since the log was last emptied. */
uint8_t *vduse_log_table(struct vduse_log *log, unsigned queue);
bool vduse_log_used(struct vduse_log *log, unsigned queue, bool packed);

uint16_t vduse_log_queue_size(const struct vduse_log *log);

/* Forgets all: the driver begins anew. No queue may run. */
void vduse_log_clear(struct vduse_log *log);
