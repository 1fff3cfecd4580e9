/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Entries of the snapshot table, decoded and encoded. */
#include "driver/format/qcow2/snapshot-table.h"

#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

static char id[] = "12", name[] = "a name";
static uint8_t unknown[] = "what nobody knows";

static struct qcow2_snapshot example(void)
{
    return (struct qcow2_snapshot){
        .l1_table_offset = UINT64_C(0x123450000),
        .l1_size = 17,
        .date_sec = 1700000000,
        .date_nsec = 999999999,
        .vm_clock_nsec = UINT64_C(86400000000001),
        .vm_state_size = UINT64_C(5) << 32,
        .disk_size = UINT64_C(1) << 40,
        .icount = 12345,
        .extra_bytes = QCOW2_SNAPSHOT_EXTRA_BYTES,
        .has_disk_size = true,
        .id = id,
        .name = name,
    };
}

static void assert_same(const struct qcow2_snapshot *a, const struct qcow2_snapshot *b)
{
    g_assert_cmpuint(a->l1_table_offset, ==, b->l1_table_offset);
    g_assert_cmpuint(a->l1_size, ==, b->l1_size);
    g_assert_cmpuint(a->date_sec, ==, b->date_sec);
    g_assert_cmpuint(a->date_nsec, ==, b->date_nsec);
    g_assert_cmpuint(a->vm_clock_nsec, ==, b->vm_clock_nsec);
    g_assert_cmpuint(a->vm_state_size, ==, b->vm_state_size);
    g_assert_cmpuint(a->disk_size, ==, b->disk_size);
    g_assert_cmpuint(a->icount, ==, b->icount);
    g_assert_cmpstr(a->id, ==, b->id);
    g_assert_cmpstr(a->name, ==, b->name);
    g_assert_cmpmem(a->unknown_extra, a->unknown_extra_bytes, b->unknown_extra, b->unknown_extra_bytes);
}

static void test_there_and_back(void)
{
    struct qcow2_snapshot both[2] = {example(), example()}, found;
    g_autofree uint8_t *table = NULL;
    uint64_t need, first, second;
    size_t bytes;

    both[1].unknown_extra = unknown;
    both[1].unknown_extra_bytes = sizeof(unknown);
    both[1].extra_bytes = QCOW2_SNAPSHOT_EXTRA_BYTES + sizeof(unknown);
    table = qcow2_snapshot_table_encode(both, 2, 0, &bytes, NULL);
    g_assert_nonnull(table);
    first = qcow2_snapshot_decode(table, bytes, &found, &need);
    g_assert_cmpuint(first % 8, ==, 0);
    assert_same(&found, &both[0]);
    qcow2_snapshot_clear(&found);
    second = qcow2_snapshot_decode(table + first, bytes - first, &found, &need);
    g_assert_cmpuint(first + second, ==, bytes);
    assert_same(&found, &both[1]);
    g_assert_cmpuint(found.extra_bytes, ==, both[1].extra_bytes);
    qcow2_snapshot_clear(&found);
}

/* An old entry: no extra data. It gets what version 3 demands. */
static void test_old_entry(void)
{
    uint8_t entry[48] = {0};
    struct qcow2_snapshot found;
    g_autofree uint8_t *table = NULL;
    uint64_t need;
    size_t bytes;

    store_be16(entry + 12, 1);
    store_be16(entry + 14, 2);
    store_be32(entry + 32, 4096);
    memcpy(entry + 40, "7xy", 3);
    g_assert_cmpuint(qcow2_snapshot_decode(entry, sizeof(entry), &found, &need), ==, 48);
    g_assert_cmpstr(found.id, ==, "7");
    g_assert_cmpstr(found.name, ==, "xy");
    g_assert_cmpuint(found.vm_state_size, ==, 4096);
    g_assert_cmpuint(found.icount, ==, QCOW2_SNAPSHOT_NO_ICOUNT);
    g_assert_false(found.has_disk_size);
    table = qcow2_snapshot_table_encode(&found, 1, 777, &bytes, NULL);
    qcow2_snapshot_clear(&found);
    g_assert_cmpuint(qcow2_snapshot_decode(table, bytes, &found, &need), ==, bytes);
    g_assert_cmpuint(found.extra_bytes, ==, QCOW2_SNAPSHOT_EXTRA_BYTES_V3);
    g_assert_cmpuint(found.disk_size, ==, 777);
    g_assert_cmpuint(found.vm_state_size, ==, 4096);
    qcow2_snapshot_clear(&found);
}

/* What is cut anywhere says how much there must be. */
static void test_cut(void)
{
    struct qcow2_snapshot one = example(), found;
    g_autofree uint8_t *table = NULL;
    uint64_t need;
    size_t bytes;

    table = qcow2_snapshot_table_encode(&one, 1, 0, &bytes, NULL);
    for (size_t size = 0; size < bytes; size++) {
        g_autofree uint8_t *part = g_memdup2(table, MAX(size, 1));

        g_assert_cmpuint(qcow2_snapshot_decode(part, size, &found, &need), ==, 0);
        g_assert_cmpuint(need, ==, size < QCOW2_SNAPSHOT_ENTRY_BYTES ? QCOW2_SNAPSHOT_ENTRY_BYTES : bytes);
    }
}

static void test_too_much_extra(void)
{
    uint8_t entry[40 + 1032] = {0};
    struct qcow2_snapshot found;
    uint64_t need;

    store_be32(entry + 36, UINT32_MAX);
    g_assert_cmpuint(qcow2_snapshot_decode(entry, sizeof(entry), &found, &need), ==, 0);
    g_assert_cmpuint(need, ==, (UINT64_C(1) << 32) + 40);
    store_be32(entry + 36, 1032);
    g_assert_cmpuint(qcow2_snapshot_decode(entry, sizeof(entry), &found, &need), ==, sizeof(entry));
    g_assert_cmpuint(found.extra_bytes, ==, 1032);
    g_assert_cmpuint(found.unknown_extra_bytes, ==, 0);
    qcow2_snapshot_clear(&found);
}

static void test_names_too_long(void)
{
    struct qcow2_snapshot one = example();
    g_autofree char *longest = g_strnfill(65536, 'x');
    AUTO(error) err = NULL;
    size_t bytes;

    one.name = longest;
    g_assert_null(qcow2_snapshot_table_encode(&one, 1, 0, &bytes, &err));
    g_assert_nonnull(strstr(error_message(err), "65536"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2-snapshot-table/there-and-back", test_there_and_back);
    g_test_add_func("/qcow2-snapshot-table/old-entry", test_old_entry);
    g_test_add_func("/qcow2-snapshot-table/cut", test_cut);
    g_test_add_func("/qcow2-snapshot-table/too-much-extra", test_too_much_extra);
    g_test_add_func("/qcow2-snapshot-table/names-too-long", test_names_too_long);
    return g_test_run();
}
