/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Saves what is about to be overwritten to another node; what backup jobs and fleecing are made of. */
#pragma once

struct block_copy;
struct block_driver;
struct node;

extern const struct block_driver copy_before_write_driver;

/* What is still to be saved; of a node of that driver. */
struct block_copy *copy_before_write_copy(const struct node *node);

/* Negative errno of the failure by which the saved state was lost; 0: it is whole. Any loop. */
int copy_before_write_lost(const struct node *node);
