/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk in memory for tests of the block layer. It stands for the protocol driver null-co, holds the core to what it
 * promises drivers (alignment, sizes, flags), fails on demand, and gives way to others in the middle of requests.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "block/driver.h"
#include "block/graph.h"
#include "block/node.h"
#include "loop/lock.h"

enum memory_disk_operation {
    MEMORY_DISK_OPEN,
    MEMORY_DISK_READ,
    MEMORY_DISK_WRITE,
    MEMORY_DISK_ZERO,
    MEMORY_DISK_DISCARD,
    MEMORY_DISK_FLUSH,
    MEMORY_DISK_FLUSH_SOON,
    MEMORY_DISK_PERMISSION,
    MEMORY_DISK__COUNT,
};

/* What disks opened from now on are like. Tests set it; zero: byte-aligned, everything supported, never failing. */
struct memory_disk_options {
    uint32_t request_alignment; /* 0: 1 */
    uint32_t memory_alignment;  /* 0: 1 */
    uint32_t transfer_max;
    uint32_t zeroes_alignment;
    uint64_t zeroes_max;
    unsigned write_flags;
    unsigned zero_flags;
    bool no_zero_writes; /* co_pwrite_zeroes is -ENOTSUP */
    bool is_near;        /* see struct block_driver */
    bool yields;         /* requests let others run at odd moments */
};
extern struct memory_disk_options memory_disk_options;

/* Fails the n-th (1: the next) operation of each kind, of all disks together, with -EIO. 0: none. */
extern unsigned memory_disk_fail[MEMORY_DISK__COUNT];

struct memory_disk {
    struct spin_lock spin; /* of `data`: what overlaps in time may overlap in place, block by block */
    struct memory_disk_options options;
    uint8_t *data; /* `capacity` bytes; beyond the length zeroes */
    uint64_t capacity;
    uint64_t length;
    uint64_t calls[MEMORY_DISK__COUNT]; /* atomic */
    uint32_t perm, shared;              /* as last committed */
    unsigned prepared;                  /* co_prepare() without its end */
    unsigned last_write_flags;          /* atomic */
    unsigned active;                    /* atomic: requests inside */
    bool resting;                       /* between drain begin and end */
};

enum { MEMORY_DISK_CAPACITY = 4 * 1024 * 1024 };

/* The drivers under test with the memory disk in the place of null-co. */
extern const struct block_driver *const memory_disk_drivers[];

/* Open disks; tests look for leaks. */
extern int memory_disks_open;

struct memory_disk *memory_disk_of(struct graph *graph, const char *name);

/* Adds a node from options as they come over QMP; NULL and the error, or the node. */
struct node *CO_FN co_test_add(struct graph *graph, const char *json, struct error **err);

/* The same, which must succeed. */
struct node *CO_FN co_test_add_ok(struct graph *graph, const char *json);

/* Runs `test` as a coroutine on a new loop, with a graph of the drivers above: on the real back end, or simulated. */
typedef void graph_test(struct graph *graph);
void run_graph_test(graph_test *test);
void run_graph_test_simulated(graph_test *test, uint64_t seed);

/* Of the run on the simulated back end. */
extern uint64_t graph_test_seed;

/* Events that the graph has sent since the test began, by name. */
unsigned graph_test_events(const char *name);

/* A handle on the node that may do what `perm` says and shares all. */
struct handle *CO_FN co_test_handle(struct node *node, uint32_t perm);
