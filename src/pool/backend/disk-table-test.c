/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Partition tables in files, which libfdisk takes as it takes disks. */
#include "pool/backend/disk-table.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "loop/file.h"

#define MIB(n) ((uint64_t)(n) << 20)

static char *make_disk(const char *label)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-disk-XXXXXX", NULL);
    char *path = g_build_filename(folder, "disk", NULL);

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    g_assert_cmpint(truncate(path, (off_t)MIB(300)), ==, 0);
    if (label)
        g_assert_cmpint(disk_table_make(path, label), ==, 0);
    return path;
}

static void remove_disk(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);

    g_unlink(path);
    g_rmdir(folder);
}

/* Adds a partition where there is room; its number, or 0 and why not. */
static unsigned add(const char *path, uint64_t size, bool extended, enum disk_place *ret)
{
    struct disk_table table;
    struct disk_region region;
    unsigned number = 0;

    g_assert_cmpint(disk_table_read(path, &table), ==, 0);
    *ret = disk_table_place(&table, size, extended, &region);
    disk_table_clear(&table);
    if (*ret != DISK_PLACE_FOUND)
        return 0;
    /* The table in a file is written; that the kernel cannot be told is no wonder. */
    (void)disk_table_add(path, &region, NULL, &number);
    g_assert_cmpuint(number, ==, region.number);
    return number;
}

static struct disk_region find(const char *path, unsigned number)
{
    struct disk_table table;
    struct disk_region found = {0};

    g_assert_cmpint(disk_table_read(path, &table), ==, 0);
    for (size_t i = 0; i < table.count; i++) {
        if (table.regions[i].kind != DISK_FREE && table.regions[i].number == number)
            found = table.regions[i];
    }
    disk_table_clear(&table);
    return found;
}

static void test_gpt(void)
{
    g_autofree char *path = make_disk("gpt");
    enum disk_place place;

    g_assert_cmpuint(add(path, MIB(20), false, &place), ==, 1);
    g_assert_cmpuint(add(path, MIB(30) + 1, false, &place), ==, 2);
    g_assert_cmpuint(find(path, 1).end - find(path, 1).start, ==, MIB(20));
    g_assert_cmpuint(find(path, 2).end - find(path, 2).start, ==, MIB(30) + 512);
    g_assert_cmpuint(find(path, 2).start % DISK_GRAIN, ==, 0);
    g_assert_cmpuint(add(path, MIB(300), false, &place), ==, 0);
    g_assert_cmpint(place, ==, DISK_PLACE_NO_ROOM);
    g_assert_cmpuint(add(path, 0, false, &place), ==, 0);
    g_assert_cmpuint(add(path, UINT64_MAX, false, &place), ==, 0);
    g_assert_cmpint(place, ==, DISK_PLACE_NO_ROOM);

    /* The place that a removed one leaves is the smallest that holds the next one. */
    (void)disk_table_remove(path, 1);
    g_assert_cmpuint(find(path, 1).end, ==, 0);
    g_assert_cmpuint(add(path, MIB(20), false, &place), ==, 1);
    g_assert_cmpuint(find(path, 1).start, ==, DISK_GRAIN);
    remove_disk(path);
}

static void test_dos(void)
{
    g_autofree char *path = make_disk("dos");
    enum disk_place place;

    for (unsigned i = 1; i <= 3; i++)
        g_assert_cmpuint(add(path, MIB(20), false, &place), ==, i);
    g_assert_cmpuint(add(path, MIB(150), true, &place), ==, 4);
    g_assert_cmpint(find(path, 4).kind, ==, DISK_EXTENDED);
    add(path, MIB(10), true, &place);
    g_assert_cmpint(place, ==, DISK_PLACE_HAS_EXTENDED);
    g_assert_cmpuint(add(path, MIB(20), false, &place), ==, 5);
    g_assert_cmpuint(add(path, MIB(20), false, &place), ==, 6);
    g_assert_cmpint(find(path, 5).kind, ==, DISK_LOGICAL);
    g_assert_cmpuint(find(path, 6).end - find(path, 6).start, ==, MIB(20));
    g_assert_cmpuint(find(path, 6).start, >, find(path, 5).end);
    add(path, MIB(140), false, &place);
    g_assert_cmpint(place, ==, DISK_PLACE_NO_ROOM);

    (void)disk_table_remove(path, 5);
    g_assert_cmpuint(find(path, 5).end - find(path, 5).start, ==, MIB(20));
    g_assert_cmpuint(find(path, 6).end, ==, 0);
    remove_disk(path);
}

/* --- tables that lie --- */

enum {
    SECTOR = 512,
    ENTRY_BYTES = 128,
    HEADER_CRC = 16,
    ENTRIES_CRC = 88,
    ENTRY_COUNT = 80,
    ENTRY_FIRST = 32,
    ENTRY_LAST = 40
};

static uint32_t crc32_of(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

/* Says of the first partition of a GPT that it has these sectors, with all checksums right. */
static void set_sectors(const char *path, uint64_t first, uint64_t last)
{
    uint8_t header[SECTOR];
    AUTO(fd) fd = open(path, O_RDWR | O_CLOEXEC);
    g_autofree uint8_t *entries = NULL;
    uint32_t header_bytes;
    size_t size;

    g_assert_cmpint(pread(fd, header, SECTOR, SECTOR), ==, SECTOR);
    size = (size_t)load_le32(header + ENTRY_COUNT) * ENTRY_BYTES;
    entries = g_malloc(size);
    g_assert_cmpint(pread(fd, entries, size, 2 * SECTOR), ==, (ssize_t)size);
    store_le64(entries + ENTRY_FIRST, first);
    store_le64(entries + ENTRY_LAST, last);
    store_le32(header + ENTRIES_CRC, crc32_of(entries, size));
    header_bytes = load_le32(header + 12);
    store_le32(header + HEADER_CRC, 0);
    store_le32(header + HEADER_CRC, crc32_of(header, header_bytes));
    g_assert_cmpint(pwrite(fd, entries, size, 2 * SECTOR), ==, (ssize_t)size);
    g_assert_cmpint(pwrite(fd, header, SECTOR, SECTOR), ==, SECTOR);
}

/* Places in bytes that are no numbers any more, or not on the disk: what is on it counts. */
static void test_beyond_the_disk(void)
{
    g_autofree char *path = make_disk("gpt");
    enum disk_place place;

    g_assert_cmpuint(add(path, MIB(20), false, &place), ==, 1);
    set_sectors(path, 2048, MIB(1024) / SECTOR);
    g_assert_cmpuint(find(path, 1).start, ==, DISK_GRAIN);
    g_assert_cmpuint(find(path, 1).end, ==, MIB(300));
    set_sectors(path, (UINT64_C(1) << 55) - 1, UINT64_C(1) << 55);
    g_assert_cmpuint(find(path, 1).end, ==, 0);
    set_sectors(path, 2048, UINT64_MAX >> 1);
    g_assert_cmpuint(find(path, 1).end, <=, MIB(300));
    set_sectors(path, 4096, 2048);
    g_assert_cmpuint(find(path, 1).start, <=, find(path, 1).end);
    remove_disk(path);
}

static void test_four_primary(void)
{
    g_autofree char *path = make_disk("dos");
    enum disk_place place;

    for (unsigned i = 1; i <= 4; i++)
        g_assert_cmpuint(add(path, MIB(20), false, &place), ==, i);
    add(path, MIB(20), false, &place);
    g_assert_cmpint(place, ==, DISK_PLACE_NO_NUMBER);
    remove_disk(path);
}

static void test_no_table(void)
{
    g_autofree char *path = make_disk(NULL);
    struct disk_table table;

    g_assert_cmpint(disk_table_read(path, &table), ==, -EINVAL);
    g_assert_cmpint(disk_table_read("/nonexistent/disk", &table), ==, -ENOENT);
    g_assert_cmpint(disk_table_make(path, "pc98"), ==, -ENOTSUP);
    remove_disk(path);
}

static void test_node_names(void)
{
    g_autofree char *letter = disk_partition_node("/dev/sda", 2, false);
    g_autofree char *digit = disk_partition_node("/dev/nvme0n1", 12, false);
    g_autofree char *asked = disk_partition_node("/dev/mapper/mpatha", 1, true);

    g_assert_cmpstr(letter, ==, "/dev/sda2");
    g_assert_cmpstr(digit, ==, "/dev/nvme0n1p12");
    g_assert_cmpstr(asked, ==, "/dev/mapper/mpathap1");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pool/disk-table/gpt", test_gpt);
    g_test_add_func("/pool/disk-table/dos", test_dos);
    g_test_add_func("/pool/disk-table/beyond-the-disk", test_beyond_the_disk);
    g_test_add_func("/pool/disk-table/four-primary", test_four_primary);
    g_test_add_func("/pool/disk-table/no-table", test_no_table);
    g_test_add_func("/pool/disk-table/node-names", test_node_names);
    return g_test_run();
}
