/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What bitmap-load.c, bitmap-store.c and bitmap.c share. */
#pragma once

#include "driver/format/qcow2/bitmap-directory.h"
#include "driver/format/qcow2/bitmap.h"
#include "driver/format/qcow2/qcow2.h"

/* Main loop. */
struct qcow2_bitmaps {
    struct qcow2_bitmap_directory *directory; /* as on disk, flags included */
    uint64_t offset;                          /* of the directory on disk */
    uint64_t bytes;                           /* 0: there is none */
    struct co_mutex lock;                     /* one change of the directory at a time */
};

/* A table's entries, owned, of which there are `entry->table_size`; NULL and -errno. */
uint64_t *CO_FN co_qcow2_bitmap_table_load(struct qcow2_image *image, const struct qcow2_bitmap_entry *entry,
                                           int *ret_error);

/* Writes the directory in place, durably: only flags have changed. */
int CO_FN co_qcow2_bitmap_flags_write(struct qcow2_image *image) MUST_CHECK;

/*
 * Makes `directory` (taken) the image's. What it names has been written; it becomes durable here. The old directory's
 * clusters are freed, those of bitmaps are left to the caller.
 */
bool CO_FN co_qcow2_bitmap_directory_switch(struct qcow2_image *image, struct qcow2_bitmap_directory *directory,
                                            struct error **err) MUST_CHECK;

/* Frees table and clusters of a bitmap that no directory names any more; keeps them where that is not safe. */
void CO_FN co_qcow2_bitmap_clusters_free(struct qcow2_image *image, const struct qcow2_bitmap_entry *entry);
