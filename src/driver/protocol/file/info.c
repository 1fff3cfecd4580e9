/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a node tells about itself. */
#include "driver/protocol/file/file.h"

char *file_filename(const struct node *node)
{
    const struct file_node *file = node_state(node);

    return g_strdup(file->path);
}

struct block_stats_specific_file file_get_discard_stats(struct file_node *file)
{
    struct file_discard_stats *stats = &file->discards;

    return (struct block_stats_specific_file){
        .discard_nb_ok = (int64_t)atomic_load_explicit(&stats->ok, memory_order_relaxed),
        .discard_nb_failed = (int64_t)atomic_load_explicit(&stats->failed, memory_order_relaxed),
        .discard_bytes_ok = (int64_t)atomic_load_explicit(&stats->bytes_ok, memory_order_relaxed),
    };
}

/* There is nothing about a file that could be dirty or have clusters: all zero. */
bool CO_FN file_co_get_info(struct node *node, struct node_info *ret, struct error **err)
{
    return true;
}

const char *const file_significant_options[] = {"filename", NULL};
