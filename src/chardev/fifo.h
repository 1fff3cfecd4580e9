/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* FIFOs that we open without waiting for somebody at the other end. Private to this folder. */
#pragma once

#include <sys/types.h>

#include "base/compiler.h"

/*
 * As co_file_open(), but a FIFO is opened for both directions: then neither opening waits, nor does input end, when
 * nobody else has it open. Devices are opened without waiting, too.
 */
int CO_FN co_fifo_or_file_open(const char *path, int flags, mode_t mode);
