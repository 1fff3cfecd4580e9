/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is where in a qcow2 file: the numbers of the format, and its header as a struct. Parsing is strict: what it lets
 * through may be computed with (no shift, product or sum below overflows), and tables lie inside the file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/compiler.h"

struct edge;
struct error;

enum {
    QCOW2_MAGIC = 0x514649fb,
    QCOW2_CLUSTER_BITS_MIN = 9,
    QCOW2_CLUSTER_BITS_MAX = 21,
    QCOW2_CLUSTER_BITS_SUBCLUSTERS_MIN = 14, /* a subcluster is a sector at least */
    QCOW2_CLUSTER_SIZE_MAX = 1 << QCOW2_CLUSTER_BITS_MAX,
    QCOW2_REFCOUNT_ORDER_MAX = 6,
    QCOW2_REFCOUNT_ORDER_V2 = 4,
    QCOW2_SUBCLUSTERS = 32,

    QCOW2_BACKING_FILE_BYTES_MAX = 1023,
    QCOW2_BACKING_FORMAT_BYTES_MAX = 15,
    QCOW2_DATA_FILE_BYTES_MAX = 1023,

    /* What we take at most. */
    QCOW2_L1_BYTES_MAX = 32 << 20,             /* of any L1 table, a snapshot's too */
    QCOW2_REFCOUNT_TABLE_BYTES_MAX = 8 << 20,  /* */
    QCOW2_CRYPTO_HEADER_BYTES_MIN = 592,       /* LUKS, version 1, without its key material */
    QCOW2_CRYPTO_HEADER_BYTES_MAX = 16 << 20,  /* */
    QCOW2_SNAPSHOTS_MAX = 65536,               /* */
    QCOW2_SNAPSHOT_TABLE_BYTES_MAX = 64 << 20, /* */
};

/* Where the header's fields are, in bytes. */
enum qcow2_header_offset {
    QCOW2_AT_MAGIC = 0,
    QCOW2_AT_VERSION = 4,
    QCOW2_AT_BACKING_FILE_OFFSET = 8,
    QCOW2_AT_BACKING_FILE_SIZE = 16,
    QCOW2_AT_CLUSTER_BITS = 20,
    QCOW2_AT_SIZE = 24,
    QCOW2_AT_CRYPT_METHOD = 32,
    QCOW2_AT_L1_SIZE = 36,
    QCOW2_AT_L1_TABLE_OFFSET = 40,
    QCOW2_AT_REFCOUNT_TABLE_OFFSET = 48,
    QCOW2_AT_REFCOUNT_TABLE_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOT_COUNT = 60,
    QCOW2_AT_SNAPSHOTS_OFFSET = 64,
    QCOW2_V2_HEADER_BYTES = 72,
    QCOW2_AT_INCOMPATIBLE_FEATURES = 72,
    QCOW2_AT_COMPATIBLE_FEATURES = 80,
    QCOW2_AT_AUTOCLEAR_FEATURES = 88,
    QCOW2_AT_REFCOUNT_ORDER = 96,
    QCOW2_AT_HEADER_LENGTH = 100,
    QCOW2_V3_HEADER_BYTES = 104,
    QCOW2_AT_COMPRESSION_TYPE = 104,
    QCOW2_HEADER_BYTES = 112, /* all fields that we know, padded */
};

enum qcow2_incompatible {
    QCOW2_DIRTY = 1u << 0,       /* reference counts may be wrong */
    QCOW2_CORRUPT = 1u << 1,     /* anything may be wrong: not to be written to */
    QCOW2_DATA_FILE = 1u << 2,   /* guest data is in another file, at its guest offset */
    QCOW2_COMPRESSION = 1u << 3, /* compression_type counts, and is not zlib */
    QCOW2_EXTENDED_L2 = 1u << 4,
    QCOW2_INCOMPATIBLE_KNOWN = (1u << 5) - 1,
};
enum qcow2_compatible {
    QCOW2_LAZY_REFCOUNTS = 1u << 0,
};
enum qcow2_autoclear {
    QCOW2_BITMAPS_CONSISTENT = 1u << 0,
    QCOW2_DATA_FILE_RAW = 1u << 1,
    QCOW2_AUTOCLEAR_KNOWN = (1u << 2) - 1,
};

enum qcow2_crypt_method { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };
enum qcow2_compression { QCOW2_COMPRESSION_ZLIB, QCOW2_COMPRESSION_ZSTD };

enum qcow2_extension_type {
    QCOW2_EXTENSION_END = 0,
    QCOW2_EXTENSION_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXTENSION_FEATURE_NAMES = 0x6803f857,
    QCOW2_EXTENSION_BITMAPS = 0x23852875,
    QCOW2_EXTENSION_CRYPTO = 0x0537be77,
    QCOW2_EXTENSION_DATA_FILE = 0x44415441,
};

/* --- table entries --- */

#define QCOW2_COPIED (UINT64_C(1) << 63)     /* L1, L2: the reference count is exactly one */
#define QCOW2_COMPRESSED (UINT64_C(1) << 62) /* L2 */
#define QCOW2_ZERO (UINT64_C(1) << 0)        /* L2, standard, version 3 without subclusters: reads as zeroes */

#define QCOW2_L1_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED_MASK UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)   /* standard descriptors */
#define QCOW2_L2_RESERVED_MASK UINT64_C(0x3f000000000001fe) /* standard descriptors, bit 0 apart */
#define QCOW2_REFCOUNT_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFCOUNT_RESERVED_MASK UINT64_C(0x00000000000001ff)
#define QCOW2_HOST_OFFSET_MAX (UINT64_C(1) << 56) /* what L1 and L2 entries can name lies below */

enum { QCOW2_COMPRESSED_SECTOR = 512 };

/* Where a compressed cluster lies, and how long it may be. */
struct qcow2_compressed_extent {
    uint64_t offset; /* bytes in the file, at any byte */
    uint32_t bytes;  /* from there to the end of its last sector: what has to be read, and not all of it need be used */
};

/* Bits of a compressed descriptor that hold the offset; the others, below bit 62, count sectors. */
static inline unsigned qcow2_compressed_offset_bits(unsigned cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

static inline struct qcow2_compressed_extent qcow2_compressed_extent(uint64_t l2_entry, unsigned cluster_bits)
{
    unsigned bits = qcow2_compressed_offset_bits(cluster_bits);
    uint64_t descriptor = l2_entry & (QCOW2_COMPRESSED - 1);
    uint64_t offset = descriptor & ((UINT64_C(1) << bits) - 1);
    uint64_t sectors = descriptor >> bits; /* further ones than the first: below 2^14 */

    return (struct qcow2_compressed_extent){
        .offset = offset,
        .bytes = (uint32_t)((sectors + 1) * QCOW2_COMPRESSED_SECTOR - offset % QCOW2_COMPRESSED_SECTOR),
    };
}

/* The L2 entry for `bytes` > 0 of compressed data at `offset`; both must be within what it can say. */
uint64_t qcow2_compressed_entry(uint64_t offset, uint32_t bytes, unsigned cluster_bits);

/* The subcluster bitmap of an extended L2 entry: allocated in the low half, zero in the high half. */
#define QCOW2_SUBCLUSTERS_ALLOCATED UINT64_C(0x00000000ffffffff)
#define QCOW2_SUBCLUSTERS_ZERO UINT64_C(0xffffffff00000000)
static inline uint64_t qcow2_subcluster_allocated(unsigned index)
{
    return UINT64_C(1) << index;
}
static inline uint64_t qcow2_subcluster_zero(unsigned index)
{
    return UINT64_C(1) << (index + QCOW2_SUBCLUSTERS);
}

/* --- the header --- */

/* As it stands in the extension, checked for nothing but its length. */
struct qcow2_bitmaps_extension {
    uint32_t count;
    uint32_t reserved;
    uint64_t directory_bytes;
    uint64_t directory_offset;
};

struct qcow2_header {
    uint32_t version;      /* 2 or 3 */
    uint32_t cluster_bits; /* QCOW2_CLUSTER_BITS_MIN to _MAX */
    uint64_t size;         /* bytes, of the virtual disk; any number of them */
    uint32_t crypt_method; /* enum qcow2_crypt_method */
    uint32_t l1_size;      /* entries; enough for `size` */
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset; /* only its alignment is checked */

    uint64_t incompatible_features; /* known ones */
    uint64_t compatible_features;   /* unknown ones are kept */
    uint64_t autoclear_features;    /* unknown ones too: who is going to write clears them first */
    uint32_t refcount_order;        /* 0 to QCOW2_REFCOUNT_ORDER_MAX */
    uint32_t header_length;         /* bytes; a multiple of 8 */
    uint8_t compression_type;       /* enum qcow2_compression */

    /* All owned. */
    char *backing_file;   /* NULL: none */
    char *backing_format; /* NULL: not said */
    char *data_file;      /* NULL: not said; counts only with QCOW2_DATA_FILE */

    bool has_bitmaps;
    struct qcow2_bitmaps_extension bitmaps;

    bool has_crypto;        /* only with QCOW2_CRYPT_LUKS */
    uint64_t crypto_offset; /* see qcow2_header_check_crypto() */
    uint64_t crypto_bytes;

    uint8_t *unknown_fields; /* what follows QCOW2_HEADER_BYTES up to header_length */
    size_t unknown_fields_bytes;
    uint8_t *unknown_extensions; /* as in the file, one after the other: type, length, data, padding */
    size_t unknown_extensions_bytes;
};

/*
 * Parses the first cluster. `size`: bytes of it, all that the file has. `file_length`: bytes of the whole file;
 * UINT64_MAX: not known. Owned; NULL and an error that names the field and its value. Any thread, no I/O.
 */
struct qcow2_header *qcow2_header_parse(const uint8_t *cluster, size_t size, uint64_t file_length,
                                        struct error **err) MUST_CHECK;

/*
 * Whether there is an encryption header where one is needed, and lies where it can. Nothing else of the image depends
 * on that, so parsing does not ask. `file_length` as above.
 */
bool qcow2_header_check_crypto(const struct qcow2_header *header, uint64_t file_length, struct error **err) MUST_CHECK;

/*
 * The bytes of the header, its extensions, a table of feature names where there is room, and the backing file's name;
 * at most a cluster. Owned. Sets header_length where it is 0. NULL and the error: they do not fit.
 */
uint8_t *qcow2_header_serialise(struct qcow2_header *header, size_t *ret_size, struct error **err) MUST_CHECK;

/* Frees all of it; NULL is allowed. */
void qcow2_header_free(struct qcow2_header *header);
AUTO_DEFINE(qcow2_header, struct qcow2_header *, qcow2_header_free)

/* Reads and parses the header of the image in `file`. Owned; NULL and the error. */
struct qcow2_header *CO_FN co_qcow2_header_load(struct edge *file, struct error **err) MUST_CHECK;

/*
 * Writes all of the header in place. What it names (tables, bitmaps) must be durable before, and the caller flushes
 * after. No two at a time.
 */
bool CO_FN co_qcow2_header_store(struct edge *file, struct qcow2_header *header, struct error **err) MUST_CHECK;

/*
 * Writes the fields of fixed length alone, in one request inside the first sector, which thus are changed together or
 * not at all: everything but names, extensions and the backing file. Not where the version has changed. 0 or -errno.
 * As above.
 */
int CO_FN co_qcow2_header_store_fields(struct edge *file, const struct qcow2_header *header) MUST_CHECK;

/* --- numbers that follow from it --- */

static inline uint64_t qcow2_cluster_size(const struct qcow2_header *header)
{
    return UINT64_C(1) << header->cluster_bits;
}

static inline bool qcow2_has_subclusters(const struct qcow2_header *header)
{
    return header->incompatible_features & QCOW2_EXTENDED_L2;
}

/* 8, or 16 with subclusters. */
static inline unsigned qcow2_l2_entry_bytes(const struct qcow2_header *header)
{
    return qcow2_has_subclusters(header) ? 16 : 8;
}

/* The logarithm of the number of entries of an L2 table. */
static inline unsigned qcow2_l2_bits(const struct qcow2_header *header)
{
    return header->cluster_bits - (qcow2_has_subclusters(header) ? 4 : 3);
}

/* The logarithm of the number of entries of a refcount block. */
static inline unsigned qcow2_refcount_block_bits(const struct qcow2_header *header)
{
    return header->cluster_bits + 3 - header->refcount_order;
}

/* Entries that an L1 table needs for a disk of `size` bytes; without overflow for any size. */
uint64_t qcow2_l1_entries(uint64_t size, unsigned cluster_bits, bool subclusters);
