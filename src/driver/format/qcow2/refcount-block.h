/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts in a refcount block as it is in the file; pure, any thread. */
#pragma once

#include <stdint.h>

/* The count at `index`, each 2^order bits wide (0 to QCOW2_REFCOUNT_ORDER_MAX). */
uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index);
/* `count` must fit. */
void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t count);
