/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Any file is checked, or refused with a reason. A check alone changes nothing; what a repair says is all right then is
 * so for the next check.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "block/memory-disk-test.h"
#include "driver/format/qcow2/check-internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE_MAX_BYTES = 512 * 1024, CLUSTER_BITS_MAX = 12 };

static const uint8_t *input;
static size_t input_size;

/* What the check says must be allowed to be printed, of any bytes. */
static void take_line(struct image_report *report, const char *text)
{
    assert(strlen(text) > 0);
}

static void CO_FN co_repair(struct edge *file, unsigned repair)
{
    struct image_report report = {.line = take_line};
    struct qcow2_check_result result, again;
    AUTO(error) err = NULL;
    AUTO(error) again_err = NULL;

    if (!co_qcow2_check_windowed(file, repair, &report, 1, &result, &err)) {
        assert(err);
        return;
    }
    if (result.corruptions || result.check_errors)
        return;
    assert(co_qcow2_check_windowed(file, 0, &report, 64 * 1024, &again, &again_err));
    assert(again.corruptions == 0);
    assert(again.check_errors == 0);
    assert(!(repair & IMAGE_REPAIR_LEAKS) || again.leaks == 0);
}

static void CO_FN co_run(struct graph *graph)
{
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'raw', 'node-name': 'image', 'file': {'driver': 'null-co', 'node-name': 'disk', 'size': %zu}}",
        input_size);
    struct node *node = co_test_add_ok(graph, text);
    struct handle *handle = co_test_handle(node, PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE);
    struct memory_disk *disk = memory_disk_of(graph, "disk");
    struct qcow2_check_result result;
    AUTO(error) err = NULL;

    memcpy(disk->data, input, input_size);
    if (co_qcow2_check_windowed(node_child(node, "file"), 0, NULL, 4096, &result, &err))
        assert(result.fragmented_clusters <= result.allocated_clusters);
    else
        assert(err);
    assert(memcmp(disk->data, input, input_size) == 0);

    co_repair(node_child(node, "file"), IMAGE_REPAIR_LEAKS);
    memcpy(disk->data, input, input_size);
    co_repair(node_child(node, "file"), IMAGE_REPAIR_LEAKS | IMAGE_REPAIR_ERRORS);
    co_handle_free(handle);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Repairs add clusters at the end, for which the disk must have room. */
    if (size < QCOW2_V2_HEADER_BYTES || size > SIZE_MAX_BYTES || data[QCOW2_AT_CLUSTER_BITS + 3] > CLUSTER_BITS_MAX)
        return 0;
    input = data;
    input_size = size;
    run_graph_test_simulated(co_run, 1);
    return 0;
}
