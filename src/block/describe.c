/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/describe.h"

#include <assert.h>
#include <limits.h>

#include "block/dirty-bitmap.h"
#include "block/filename-options.h"
#include "block/graph-internal.h"
#include "block/image.h"
#include "block/latency.h"
#include "loop/loop.h"

/* What is shown of a node that does not say itself is that of the child whose data it shows. */
static bool shows_child(const struct node *node)
{
    return node->primary && (node->driver->passthrough || node->driver->kind == BLOCK_DRIVER_FILTER);
}

/* The next image of the chain as it is shown; for a filter that is what it filters. NULL: none. */
static struct node *next_in_chain(const struct node *node)
{
    const struct edge *edge = node->driver->kind == BLOCK_DRIVER_FILTER ? node->primary : node->backing;

    return edge ? edge->child : NULL;
}

/* --- images --- */

bool CO_FN co_node_get_info(struct node *node, struct node_info *ret)
{
    while (!node->driver->co_get_info) {
        if (!shows_child(node))
            return false;
        node = node->primary->child;
    }
    *ret = (struct node_info){0};
    return node->driver->co_get_info(node, ret, NULL);
}

/* Bytes in use by the node and the children that hold what is its own, or -errno. */
static int64_t CO_FN co_allocated_size(struct node *node)
{
    int64_t sum = 0;

    if (node->driver->co_allocated_size)
        return node->driver->co_allocated_size(node);
    if (!node->children->len)
        return -ENOTSUP;
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);
        int64_t size;

        if (!(edge->role & (EDGE_DATA | EDGE_METADATA | EDGE_FILTERED)))
            continue;
        size = co_allocated_size(edge->child);
        if (size < 0)
            return size;
        sum += size;
    }
    return sum;
}

int64_t CO_FN co_edge_allocated_size(struct edge *edge)
{
    return co_allocated_size(edge->child);
}

int64_t CO_FN co_handle_allocated_size(struct handle *handle)
{
    return co_allocated_size(handle->root.child);
}

static struct block_limits_info *describe_limits(const struct node_limits *limits)
{
    struct block_limits_info *info = g_new0(struct block_limits_info, 1);

    info->request_alignment = limits->request_alignment;
    info->has_max_discard = limits->discard_max > 0;
    info->max_discard = limits->discard_max;
    info->has_discard_alignment = limits->discard_alignment > 0;
    info->discard_alignment = limits->discard_alignment;
    info->has_max_write_zeroes = limits->zeroes_max > 0;
    info->max_write_zeroes = limits->zeroes_max;
    info->has_write_zeroes_alignment = limits->zeroes_alignment > 0;
    info->write_zeroes_alignment = limits->zeroes_alignment;
    info->has_opt_transfer = limits->transfer_optimal > 0;
    info->opt_transfer = limits->transfer_optimal;
    info->has_max_transfer = limits->transfer_max > 0;
    info->max_transfer = limits->transfer_max;
    info->max_iov = IOV_MAX;
    info->min_mem_alignment = limits->memory_alignment;
    info->opt_mem_alignment = MAX(limits->memory_alignment, LOOP_BUFFER_ALIGNMENT);
    return info;
}

/* As the header names it, whatever is open; and else what is open. */
static void describe_backing(const struct node *node, struct image_info *image)
{
    const struct block_driver_image *driver = node->driver->image;

    if (driver && driver->backing_file) {
        g_autofree char *base = node_base_filename(node);

        image->backing_filename = driver->backing_file(node);
        if (!image->backing_filename)
            return;
        image->full_backing_filename = filename_resolve(base, image->backing_filename, NULL);
        image->backing_filename_format = driver->backing_format ? driver->backing_format(node) : NULL;
        return;
    }
    if (!node->backing)
        return;
    image->backing_filename = node_filename(node->backing->child);
    image->full_backing_filename = g_strdup(image->backing_filename);
    image->backing_filename_format = g_strdup(node->backing->child->driver->name);
}

struct image_info *CO_FN co_node_describe_image(struct node *node, bool chain)
{
    struct image_info *image = g_new0(struct image_info, 1);
    int64_t allocated = co_allocated_size(node);
    struct node_info info;

    image->filename = node_filename(node);
    image->format = g_strdup(node->driver->name);
    image->virtual_size = (int64_t)node_length(node);
    image->has_actual_size = allocated >= 0;
    image->actual_size = MAX(allocated, 0);
    if (co_node_get_info(node, &info)) {
        image->has_dirty_flag = true;
        image->dirty_flag = info.dirty;
        image->has_cluster_size = info.cluster_size > 0;
        image->cluster_size = info.cluster_size;
        image->has_encrypted = info.encrypted;
        image->encrypted = info.encrypted;
        image->has_compressed = info.compressed;
        image->compressed = info.compressed;
    }
    if (node->driver->co_get_specific_info)
        image->format_specific = node->driver->co_get_specific_info(node);
    image->limits = describe_limits(&node->limits);
    describe_backing(node, image);
    if (node->driver->image && node->driver->image->co_snapshot_list) {
        image->snapshots = node->driver->image->co_snapshot_list(node, NULL);
        if (image->snapshots && !image->snapshots->count)
            g_clear_pointer(&image->snapshots, snapshot_info_array_free);
    }
    if (chain && next_in_chain(node))
        image->backing_image = co_node_describe_image(next_in_chain(node), true);
    return image;
}

/* --- nodes --- */

static struct blockdev_child_array *describe_children(const struct node *node)
{
    struct blockdev_child_array *array = g_new0(struct blockdev_child_array, 1);

    array->items = g_new0(struct blockdev_child *, node->children->len);
    for (unsigned i = 0; i < node->children->len; i++) {
        const struct edge *edge = g_ptr_array_index(node->children, i);
        struct blockdev_child *child = g_new0(struct blockdev_child, 1);

        child->child = g_strdup(edge->name);
        child->node_name = g_strdup(edge->child->name);
        array->items[array->count++] = child;
    }
    return array;
}

static unsigned backing_depth(const struct node *node)
{
    unsigned depth = 0;

    while ((node = next_in_chain(node)))
        depth++;
    return depth;
}

static struct block_device_info *CO_FN co_describe_node(struct node *node, bool flat)
{
    struct block_device_info *info = g_new0(struct block_device_info, 1);

    info->file = node_filename(node);
    info->node_name = g_strdup(node->name);
    info->children = describe_children(node);
    info->ro = node->read_only;
    info->active = !node->inactive;
    info->drv = g_strdup(node->driver->name);
    if (node->backing)
        info->backing_file = node_filename(node->backing->child);
    info->backing_file_depth = flat ? 0 : backing_depth(node);
    info->detect_zeroes = node->detect_zeroes;
    info->write_threshold = (int64_t)node_get_write_threshold(node);
    info->cache = g_new0(struct blockdev_cache_info, 1);
    info->cache->writeback = true;
    info->cache->direct = node->cache_direct;
    info->cache->no_flush = node->no_flush;
    info->image = co_node_describe_image(node, !flat);
    info->dirty_bitmaps = dirty_bitmaps_describe(node);
    info->encrypted = info->image->has_encrypted && info->image->encrypted;
    return info;
}

struct block_device_info_array *CO_FN co_graph_describe(struct graph *graph, bool flat)
{
    struct block_device_info_array *array = g_new0(struct block_device_info_array, 1);
    g_autoptr(GPtrArray) nodes = NULL;

    /* Under the lock no node closes; new ones may open meanwhile, and are not of these. */
    co_graph_lock(graph);
    nodes = g_ptr_array_copy(graph->nodes, NULL, NULL);
    array->items = g_new0(struct block_device_info *, nodes->len);
    for (unsigned i = nodes->len; i > 0; i--)
        array->items[array->count++] = co_describe_node(g_ptr_array_index(nodes, i - 1), flat);
    graph_unlock(graph);
    return array;
}

/* --- statistics --- */

static struct block_device_stats *describe_counters(const struct io_statistics *statistics)
{
    const struct io_counters *read = &statistics->kinds[IO_KIND_READ];
    const struct io_counters *write = &statistics->kinds[IO_KIND_WRITE];
    const struct io_counters *flush = &statistics->kinds[IO_KIND_FLUSH];
    const struct io_counters *unmap = &statistics->kinds[IO_KIND_UNMAP];
    struct block_device_stats *stats = g_new0(struct block_device_stats, 1);

    *stats = (struct block_device_stats){
        .rd_bytes = (int64_t)read->bytes,
        .wr_bytes = (int64_t)write->bytes,
        .unmap_bytes = (int64_t)unmap->bytes,
        .rd_operations = (int64_t)read->operations,
        .wr_operations = (int64_t)write->operations,
        .flush_operations = (int64_t)flush->operations,
        .unmap_operations = (int64_t)unmap->operations,
        .rd_total_time_ns = (int64_t)read->time_ns,
        .wr_total_time_ns = (int64_t)write->time_ns,
        .flush_total_time_ns = (int64_t)flush->time_ns,
        .unmap_total_time_ns = (int64_t)unmap->time_ns,
        .failed_rd_operations = (int64_t)read->failed,
        .failed_wr_operations = (int64_t)write->failed,
        .failed_flush_operations = (int64_t)flush->failed,
        .failed_unmap_operations = (int64_t)unmap->failed,
        .invalid_rd_operations = (int64_t)read->invalid,
        .invalid_wr_operations = (int64_t)write->invalid,
        .invalid_flush_operations = (int64_t)flush->invalid,
        .invalid_unmap_operations = (int64_t)unmap->invalid,
        .wr_highest_offset = (int64_t)statistics->highest,
        .has_idle_time_ns = statistics->last_ns > 0,
        .timed_stats = g_new0(struct block_device_timed_stats_array, 1),
    };
    if (stats->has_idle_time_ns)
        stats->idle_time_ns = MAX(loop_now_ns() - (int64_t)statistics->last_ns, 0);
    return stats;
}

static struct block_latency_histogram_info *describe_histogram(struct latency *latency, enum io_kind kind)
{
    struct block_latency_histogram_info *info;
    uint64_t *boundaries, *bins;
    size_t count = latency_get_histogram(latency, kind, &boundaries, &bins);

    if (!count)
        return NULL;
    info = g_new0(struct block_latency_histogram_info, 1);
    info->boundaries = g_new0(struct uint64_array, 1);
    *info->boundaries = (struct uint64_array){.count = count, .items = boundaries};
    info->bins = g_new0(struct uint64_array, 1);
    *info->bins = (struct uint64_array){.count = count + 1, .items = bins};
    return info;
}

static struct block_device_timed_stats *describe_interval(struct latency *latency, size_t index)
{
    struct block_device_timed_stats *stats = g_new0(struct block_device_timed_stats, 1);
    struct latency_summary kinds[LATENCY_KINDS];

    stats->interval_length = latency_get_interval(latency, index, loop_now_ns(), kinds);
    stats->min_rd_latency_ns = (int64_t)kinds[IO_KIND_READ].min_ns;
    stats->max_rd_latency_ns = (int64_t)kinds[IO_KIND_READ].max_ns;
    stats->avg_rd_latency_ns = (int64_t)kinds[IO_KIND_READ].mean_ns;
    stats->avg_rd_queue_depth = kinds[IO_KIND_READ].queue_depth;
    stats->min_wr_latency_ns = (int64_t)kinds[IO_KIND_WRITE].min_ns;
    stats->max_wr_latency_ns = (int64_t)kinds[IO_KIND_WRITE].max_ns;
    stats->avg_wr_latency_ns = (int64_t)kinds[IO_KIND_WRITE].mean_ns;
    stats->avg_wr_queue_depth = kinds[IO_KIND_WRITE].queue_depth;
    stats->min_flush_latency_ns = (int64_t)kinds[IO_KIND_FLUSH].min_ns;
    stats->max_flush_latency_ns = (int64_t)kinds[IO_KIND_FLUSH].max_ns;
    stats->avg_flush_latency_ns = (int64_t)kinds[IO_KIND_FLUSH].mean_ns;
    return stats;
}

static void describe_latency(struct latency *latency, struct block_device_stats *stats)
{
    struct block_device_timed_stats_array *timed = stats->timed_stats;
    size_t count = latency_interval_count(latency);

    stats->rd_latency_histogram = describe_histogram(latency, IO_KIND_READ);
    stats->wr_latency_histogram = describe_histogram(latency, IO_KIND_WRITE);
    stats->flush_latency_histogram = describe_histogram(latency, IO_KIND_FLUSH);
    timed->items = g_new0(struct block_device_timed_stats *, count);
    while (timed->count < count) {
        timed->items[timed->count] = describe_interval(latency, timed->count);
        timed->count++;
    }
}

/* A node with the one that stores its data inside, and so on: no deeper than GRAPH_DEPTH_MAX. */
static struct block_stats *describe_statistics(const struct node *node)
{
    struct block_stats *stats = g_new0(struct block_stats, 1);
    struct io_statistics statistics;

    node_get_statistics(node, &statistics);
    stats->node_name = g_strdup(node->name);
    stats->stats = describe_counters(&statistics);
    if (node->latency)
        describe_latency(node->latency, stats->stats);
    if (node->driver->get_specific_stats)
        stats->driver_specific = node->driver->get_specific_stats((struct node *)node);
    if (node->primary)
        stats->parent = describe_statistics(node->primary->child);
    return stats;
}

struct block_stats_array *graph_describe_statistics(struct graph *graph)
{
    struct block_stats_array *array = g_new0(struct block_stats_array, 1);

    array->items = g_new0(struct block_stats *, graph->nodes->len);
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        array->items[array->count++] = describe_statistics(g_ptr_array_index(graph->nodes, i));
    }
    return array;
}

/* --- edges --- */

static struct block_permission_array *describe_permissions(uint32_t bits)
{
    static const struct {
        uint32_t bit;
        enum block_permission value;
    } table[] = {
        {PERM_CONSISTENT_READ, BLOCK_PERMISSION_CONSISTENT_READ},
        {PERM_WRITE, BLOCK_PERMISSION_WRITE},
        {PERM_WRITE_UNCHANGED, BLOCK_PERMISSION_WRITE_UNCHANGED},
        {PERM_RESIZE, BLOCK_PERMISSION_RESIZE},
    };
    struct block_permission_array *array = g_new0(struct block_permission_array, 1);

    array->items = g_new0(enum block_permission, G_N_ELEMENTS(table));
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        if (bits & table[i].bit)
            array->items[array->count++] = table[i].value;
    }
    return array;
}

static struct x_dbg_block_graph_node *describe_vertex(GHashTable *ids, const void *object,
                                                      enum x_dbg_block_graph_node_type type, const char *name)
{
    struct x_dbg_block_graph_node *vertex = g_new0(struct x_dbg_block_graph_node, 1);

    vertex->id = g_hash_table_size(ids) + 1;
    vertex->type = type;
    vertex->name = g_strdup(name ? name : "");
    g_hash_table_insert(ids, (void *)(uintptr_t)object, GSIZE_TO_POINTER(vertex->id));
    return vertex;
}

static struct x_dbg_block_graph_edge *describe_edge(GHashTable *ids, const struct edge *edge)
{
    const void *parent = edge->parent ? (const void *)edge->parent : (const void *)edge->handle;
    struct x_dbg_block_graph_edge *description = g_new0(struct x_dbg_block_graph_edge, 1);

    description->parent = GPOINTER_TO_SIZE(g_hash_table_lookup(ids, parent));
    description->child = GPOINTER_TO_SIZE(g_hash_table_lookup(ids, edge->child));
    description->name = g_strdup(edge->name);
    description->perm = describe_permissions(edge->perm);
    description->shared_perm = describe_permissions(edge->shared);
    return description;
}

struct x_dbg_block_graph *graph_describe_edges(struct graph *graph)
{
    g_autoptr(GHashTable) ids = g_hash_table_new(NULL, NULL);
    struct x_dbg_block_graph *result = g_new0(struct x_dbg_block_graph, 1);
    size_t edges = 0;

    result->nodes = g_new0(struct x_dbg_block_graph_node_array, 1);
    result->edges = g_new0(struct x_dbg_block_graph_edge_array, 1);
    result->nodes->items = g_new0(struct x_dbg_block_graph_node *, graph->nodes->len + graph->handles->len);
    for (unsigned i = 0; i < graph->handles->len; i++) {
        const struct handle *handle = g_ptr_array_index(graph->handles, i);

        result->nodes->items[result->nodes->count++] =
            describe_vertex(ids, handle, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_BACKEND, handle->name);
    }
    for (unsigned i = graph->nodes->len; i > 0; i--) {
        const struct node *node = g_ptr_array_index(graph->nodes, i - 1);

        result->nodes->items[result->nodes->count++] =
            describe_vertex(ids, node, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_DRIVER, node->name);
        edges += node->parents->len;
    }
    result->edges->items = g_new0(struct x_dbg_block_graph_edge *, edges);
    for (unsigned i = graph->nodes->len; i > 0; i--) {
        const struct node *node = g_ptr_array_index(graph->nodes, i - 1);

        for (unsigned j = 0; j < node->parents->len; j++) {
            const struct edge *edge = g_ptr_array_index(node->parents, j);

            /* A parent that is still opening is not among the nodes. */
            if (edge->handle || !edge->parent->hidden)
                result->edges->items[result->edges->count++] = describe_edge(ids, edge);
        }
    }
    return result;
}
