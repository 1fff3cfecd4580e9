/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What fuzz targets of exports start from: a loop, and a node 'n' of zeroes to be exported. Made for the first input,
 * and kept. */
#pragma once

#include <stdint.h>

#include "loop/coroutine.h"
#include "schema/event.h"

struct export_registry;
struct graph;
struct loop;

struct export_fixture {
    struct loop *loop; /* NULL: not made yet */
    struct event_sink events;
    struct graph *graph;
    struct export_registry *exports;
    char *address; /* for a socket in the abstract namespace, of this process alone */
};

/* Makes it; the first input's turn ends with `co_begin` in the loop. No-op for the others. */
void export_fixture_begin(struct export_fixture *fixture, uint64_t node_bytes, void (*co_begin)(void *opaque));

/* What is to be there, as options of the commands; "%s" in them stands for the address. */
void CO_FN co_export_fixture_serve_nbd(struct export_fixture *fixture, const char *options);
void CO_FN co_export_fixture_export(struct export_fixture *fixture, const char *options);

/* Another connection to the address. */
int CO_FN co_export_fixture_dial(const struct export_fixture *fixture);
