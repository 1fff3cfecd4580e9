/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory of the dirty bitmaps that an image holds: bytes in, structs or an error out, and back. An entry that
 * cannot be used says why and is kept as it is, so that a user can see it and remove it. Any thread, no I/O.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct error;

enum {
    QCOW2_BITMAPS_MAX = 65535,
    QCOW2_BITMAP_DIRECTORY_BYTES_MAX = 64 << 20,
    QCOW2_BITMAP_NAME_MAX = 1023, /* bytes */
    QCOW2_BITMAP_GRANULARITY_BITS_MIN = 9,
    QCOW2_BITMAP_GRANULARITY_BITS_MAX = 31,
    QCOW2_BITMAP_BYTES_MAX = 512 << 20, /* of the bits of one */
    QCOW2_BITMAP_TYPE_DIRTY = 1,
};

enum qcow2_bitmap_flags {
    QCOW2_BITMAP_IN_USE = 1u << 0, /* not up to date */
    QCOW2_BITMAP_AUTO = 1u << 1,   /* records changes */
    QCOW2_BITMAP_EXTRA_COMPATIBLE = 1u << 2,
    QCOW2_BITMAP_FLAGS_KNOWN = (1u << 3) - 1,
};

/* Entries of a bitmap's table. */
#define QCOW2_BITMAP_ENTRY_ONES UINT64_C(1) /* no cluster: all bits are set; 0: all are clear */
#define QCOW2_BITMAP_ENTRY_OFFSET_MASK UINT64_C(0x00fffffffffffe00)

struct qcow2_bitmap_entry {
    uint64_t table_offset; /* bytes */
    uint32_t table_size;   /* entries */
    uint32_t flags;        /* enum qcow2_bitmap_flags, and others */
    uint8_t type;
    uint8_t granularity_bits;
    uint16_t name_bytes;
    uint32_t extra_bytes;
    uint8_t *tail; /* owned: the extra data and then the name, as in the file */
    char *name;    /* owned: of the same bytes, made printable where they are not */
    char *problem; /* owned: why it cannot be used; NULL: it can, as far as the directory says */
    bool stale;    /* that is only that it was not kept up to date */
    bool checked;  /* its table and what that names are its own, so they can be freed; not for the parser to say */
};

struct qcow2_bitmap_directory {
    GPtrArray *entries; /* struct qcow2_bitmap_entry *, owned */
};

struct qcow2_bitmap_directory *qcow2_bitmap_directory_new(void) MUST_CHECK;
void qcow2_bitmap_directory_free(struct qcow2_bitmap_directory *directory); /* NULL is allowed */
AUTO_DEFINE(qcow2_bitmap_directory, struct qcow2_bitmap_directory *, qcow2_bitmap_directory_free)

/* A new entry for a dirty bitmap, owned; and what frees one. */
struct qcow2_bitmap_entry *qcow2_bitmap_entry_new(const char *name, unsigned granularity_bits) MUST_CHECK;
struct qcow2_bitmap_entry *qcow2_bitmap_entry_copy(const struct qcow2_bitmap_entry *entry) MUST_CHECK;
void qcow2_bitmap_entry_free(struct qcow2_bitmap_entry *entry);

/* The first of that name, or NULL. */
struct qcow2_bitmap_entry *qcow2_bitmap_directory_find(const struct qcow2_bitmap_directory *directory,
                                                       const char *name);

/* `count` entries that fill `size` bytes. Owned; NULL and the error: it cannot even be read. */
struct qcow2_bitmap_directory *qcow2_bitmap_directory_parse(const uint8_t *bytes, size_t size, uint32_t count,
                                                            struct error **err) MUST_CHECK;

/* Owned; the number of bytes in *ret_size. */
uint8_t *qcow2_bitmap_directory_serialise(const struct qcow2_bitmap_directory *directory, size_t *ret_size) MUST_CHECK;
uint64_t qcow2_bitmap_entry_bytes(const struct qcow2_bitmap_entry *entry);
uint64_t qcow2_bitmap_directory_bytes(const struct qcow2_bitmap_directory *directory);

/* Bytes of the bits of a disk of `length` bytes, and the entries of the table that names their clusters. */
uint64_t qcow2_bitmap_data_bytes(uint64_t length, unsigned granularity_bits);
uint64_t qcow2_bitmap_table_entries(uint64_t length, unsigned granularity_bits, unsigned cluster_bits);

/* Whether a table's entry makes sense: names a cluster, or says all clear or all set. */
bool qcow2_bitmap_table_entry_ok(uint64_t entry, unsigned cluster_bits);
