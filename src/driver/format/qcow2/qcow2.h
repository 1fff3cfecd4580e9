/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An open qcow2 image from inside. docs/qcow2.md has the design: what is written when, and why a crash at any point
 * leaves an image that opens.
 *
 * Who may touch a field: as in block/graph-internal.h: "const" after opening; "drain": written on the main loop while
 * no request is in the node, read by requests anywhere; "atomic"; or under a named lock.
 *
 * Offsets are bytes. "guest" ones are places of the virtual disk, "host" ones of the image's file (or data file).
 * Functions return 0 or -errno and run on any loop unless said otherwise. -EIO after corruption: the node is fenced by
 * then, and the event sent.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"
#include "block/node.h"
#include "driver/format/qcow2/cache.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/qcow2/overlap.h"
#include "gen/types.h"
#include "loop/lock.h"

struct block_crypt;
struct error;
struct qcow2_bitmaps;
struct qcow2_inflated;
struct qcow2_reopening;
struct qcow2_snapshots;
struct truncate_request;

/* What becomes of the storage of clusters that are freed, by the reason: the pass-discard options. */
enum qcow2_free_reason {
    QCOW2_FREE_REQUEST,  /* a user's discard or zero write */
    QCOW2_FREE_SNAPSHOT, /* with a snapshot */
    QCOW2_FREE_OTHER,
    QCOW2_FREE_NEVER, /* storage is kept whatever the options say */
    QCOW2_FREE__COUNT,
};

/* Options that may change while the image is open. */
struct qcow2_settings {
    bool lazy_refcounts;
    bool discard_no_unref;
    bool pass_discard[QCOW2_FREE__COUNT];
    unsigned overlap_mask; /* enum qcow2_metadata */
    uint64_t l2_cache_bytes;
    uint64_t refcount_cache_bytes;
    uint32_t l2_slice_bytes;
    uint32_t clean_interval_seconds; /* 0: never */
};

/* Clusters that some L2 or L1 table on disk may still name, in the order in which they were dropped. */
struct qcow2_freed {
    uint64_t offset;
    uint64_t bytes;
    enum qcow2_free_reason reason;
};
struct qcow2_freed_list {
    struct qcow2_freed *items; /* owned */
    size_t count;
    size_t capacity;
};

/* What the header in the file says of the counts, while others are in preparation; see shadow.c. */
struct qcow2_shadow {
    uint64_t *table; /* the former table; owned */
    uint64_t entries;
    uint64_t offset; /* of it in the file */
    uint32_t clusters;
};

/* Clusters that are free and about to be handed out: a run inside one refcount block, which is pinned. */
struct qcow2_window {
    struct qcow2_table *block; /* pinned; NULL: there is no window */
    uint64_t next;             /* number of the next cluster */
    uint64_t end;
};

/* L2 tables that were read in one go because somebody goes through them; of images that nobody writes to. */
struct qcow2_ahead {
    struct spin_lock spin; /* of all below; taken last */
    uint64_t expected;     /* the slice that comes next if somebody does */
    uint64_t first;        /* slices in `data`, by number */
    uint64_t count;        /* 0: none */
    uint8_t *data;         /* QCOW2_AHEAD_BYTES; NULL: none */
};

enum { QCOW2_AHEAD_BYTES = 64 << 10 };

struct qcow2_image {
    struct node *node;              /* const */
    struct edge *file;              /* const: header and tables, and guest data unless there is a data file */
    struct edge *data;              /* const: guest data: `file` or the data file */
    struct qcow2_header *header;    /* drain; owned. Feature bits: header_lock */
    struct co_mutex header_lock;    /* of writing the header while requests run */
    bool writable;                  /* main: open for writing */
    bool no_io;                     /* const: opened for its metadata only: without its key or data file */
    unsigned cluster_bits;          /* const, as are the next */
    uint64_t cluster_size;          /* bytes */
    unsigned l2_bits;               /* log2 of the entries of an L2 table */
    unsigned l2_entry_bits;         /* log2 of the bytes of an entry: 3 or 4 */
    unsigned slice_bits;            /* drain: log2 of the entries of a cached slice of an L2 table */
    unsigned subclusters;           /* a cluster has: 1 or QCOW2_SUBCLUSTERS */
    unsigned subcluster_bits;       /* log2 of the bytes of one */
    unsigned refcount_block_bits;   /* log2 of the counts in a refcount block */
    uint64_t refcount_max;          /* largest count that fits */
    bool has_zero_flag;             /* version 3 */
    bool has_data_file;             /* guest data lies at its guest offset in a file of its own */
    bool data_may_be_zero;          /* const: allocated clusters may be holes in the file: ask it */
    bool data_file_raw;             /* ... which shows the disk's content by itself */
    struct qcow2_settings settings; /* drain */
    bool was_corrupt;               /* drain: the corrupt bit was set when it was opened */

    /*
     * The active L1 table: header->l1_size entries, host byte order, read atomically by anybody. Written under l1_lock.
     * Bit 0 (QCOW2_L1_UNWRITTEN) is ours: the entry on disk is another one yet.
     */
    uint64_t *l1;            /* drain; the entries atomic */
    struct co_mutex l1_lock; /* of giving L2 tables their place */
    bool l1_dirty;           /* atomic: some entry is unwritten */
    struct qcow2_cache *l2;  /* drain; keys: guest slices, qcow2_slice_of() */

    struct qcow2_ahead ahead;

    /* The refcount table: refcount_table_entries, host byte order, read atomically. Written under alloc_lock. */
    uint64_t *refcount_table;            /* alloc_lock, and read by requests that hold no lock: entries atomic */
    uint64_t refcount_table_entries;     /* alloc_lock */
    GPtrArray *retired;                  /* alloc_lock: former tables, which somebody may read yet; NULL: none */
    struct co_mutex refcount_write_lock; /* of writing refcount blocks; after alloc_lock */
    uint64_t refcount_dirty_first;       /* alloc_spin: entries that are to be written: none if first >= end */
    uint64_t refcount_dirty_end;         /* alloc_spin */
    struct qcow2_cache *refcounts;       /* drain; keys: indices of the refcount table */
    struct qcow2_shadow *shadow;         /* drain; NULL: the counts are where the header in the file says */

    struct co_mutex alloc_lock;  /* of looking for free clusters */
    struct spin_lock alloc_spin; /* of the next ones; taken before a shard's lock of `refcounts` */
    struct qcow2_window window;
    uint64_t free_hint;       /* number of a cluster below which none is free */
    uint64_t fresh_from;      /* host offset: beyond it nothing was ever written, and the file reads as zeroes */
    uint64_t reserved_to;     /* host offset: up to there the file has been asked to hold room; see reserve.c */
    uint64_t compressed_next; /* host offset at which the next compressed cluster can go on; 0: none */

    struct spin_lock freed_spin;     /* of the lists; taken last */
    struct qcow2_freed_list dropped; /* freed_spin: tables in memory don't name them any more */
    struct qcow2_freed_list durable; /* write_back_lock: neither do those on disk */
    struct qcow2_freed_list resting; /* write_back_lock: as `durable`; their grace period runs */

    struct spin_lock compressed_spin; /* of the next */
    bool told_unavailable;            /* atomic: that this build cannot (de)compress it */
    struct qcow2_inflated *inflated;  /* the compressed cluster that was read last; NULL: none */

    struct co_mutex write_back_lock; /* one write-back at a time */
    bool metadata_dirty;             /* atomic: the dirty bit is set in the file because of us */
    bool keep_dirty;                 /* drain: a repair has failed: who opens it next is to repair it */

    struct co_mutex owners_lock; /* of looking at the tables before the first change */
    bool owners_known;           /* atomic: that is done: what the L1 table leads to is as its flags say */

    struct qcow2_overlap overlap;
    struct qcow2_snapshots *snapshots; /* drain; NULL: none read yet */
    struct qcow2_bitmaps *bitmaps;     /* drain; NULL: none */
    struct block_crypt *crypt;         /* const; NULL: not encrypted */
    struct co_mutex crypt_lock;        /* of changes to key slots */
    struct qcow2_reopening *reopening; /* main: between prepare and commit */
    struct co_task *cleaner;           /* main: trims the caches from time to time; NULL: nobody */
};

#define QCOW2_L1_UNWRITTEN UINT64_C(1)

/* The image of a node of this driver. */
static inline struct qcow2_image *qcow2_image_of(const struct node *node)
{
    return node_state(node);
}

/* --- open.c, options.c --- */

struct qcow2_caches {
    struct qcow2_cache *l2;
    struct qcow2_cache *refcounts;
};
bool qcow2_caches_new(struct qcow2_image *image, const struct qcow2_settings *settings, struct qcow2_caches *ret,
                      struct error **err) MUST_CHECK;
/* Uses these from now on; what was there is freed, and must have been written back. In open, or drained. */
void qcow2_caches_set(struct qcow2_image *image, const struct qcow2_caches *caches);
void qcow2_caches_free(struct qcow2_image *image);
void qcow2_cleaner_start(struct qcow2_image *image);
void CO_FN co_qcow2_cleaner_stop(struct qcow2_image *image);
/* Before the first write: what we do not keep consistent is not to be believed any more. */
bool CO_FN co_qcow2_clear_autoclear(struct qcow2_image *image, struct error **err) MUST_CHECK;
/* Frees `table`, which requests may be reading, when the image is closed. Under alloc_lock. */
void qcow2_retire(struct qcow2_image *image, void *table);

/* Reads all that opening needs again, after `header` has changed at its root (snapshot applied): the L1 table. Drained.
 */
int CO_FN co_qcow2_l1_load(struct qcow2_image *image) MUST_CHECK;

/* --- table-io.c: tables of 8-byte entries, big-endian on disk, host byte order in memory --- */

int CO_FN co_qcow2_table_read(struct qcow2_image *image, uint64_t offset, uint64_t entries, uint64_t *to) MUST_CHECK;
/* `kind`: what is allowed to lie there. Not flushed. */
int CO_FN co_qcow2_table_write(struct qcow2_image *image, uint64_t offset, uint64_t entries, const uint64_t *from,
                               enum qcow2_metadata kind) MUST_CHECK;

/* --- state.c: the header of an image in use --- */

/*
 * Writes header->* to the file: all of it, or the fields alone (one sector: all or nothing). What it names must be
 * durable. Flushes after if `flush`. Takes header_lock.
 */
int CO_FN co_qcow2_header_update(struct qcow2_image *image, bool flush, struct error **err) MUST_CHECK;
int CO_FN co_qcow2_header_update_fields(struct qcow2_image *image, bool flush) MUST_CHECK;

/* Sets the dirty bit, durably, where it is not set: before reference counts may lag behind. */
int CO_FN co_qcow2_mark_dirty(struct qcow2_image *image) MUST_CHECK;
/* Clears it; all reference counts must be durable. */
int CO_FN co_qcow2_mark_clean(struct qcow2_image *image) MUST_CHECK;

/*
 * Corruption: sets the corrupt bit where the image is open for writing, fences the node and sends the event, once.
 * `bytes` 0: nowhere in particular. Always -EIO.
 */
int CO_FN co_qcow2_corrupt(struct qcow2_image *image, uint64_t offset, uint64_t bytes, const char *format, ...)
    PRINTF_LIKE(4, 5);
/* After a repair, durably. */
int CO_FN co_qcow2_mark_repaired(struct qcow2_image *image) MUST_CHECK;

/* --- refcount.c --- */

/* The count of the cluster at `offset` (anywhere inside it); 0 beyond all refcount blocks. */
int CO_FN co_qcow2_refcount_get(struct qcow2_image *image, uint64_t offset, uint64_t *ret) MUST_CHECK;

/*
 * Adds `delta` (positive or negative) to the counts of all clusters that the range touches; in the cache. Makes
 * refcount blocks as needed. -EINVAL: a count would be below zero (-EIO and fenced) or above refcount_max (-EINVAL);
 * then those before it have been undone. Lowering takes place at once: for what no table on disk names (else
 * co_qcow2_free_clusters()).
 */
int CO_FN co_qcow2_refcount_add(struct qcow2_image *image, uint64_t offset, uint64_t bytes, int64_t delta) MUST_CHECK;

/* Sets the count, whatever it was; for repair. Drained. */
int CO_FN co_qcow2_refcount_set(struct qcow2_image *image, uint64_t offset, uint64_t count) MUST_CHECK;

/* Loads the refcount table again, after it has been moved; drops the cached blocks. Drained. */
int CO_FN co_qcow2_refcount_table_load(struct qcow2_image *image) MUST_CHECK;

/* Inside of the refcount code. The entry for block `index`; 0: there is none. */
uint64_t qcow2_refcount_table_entry(const struct qcow2_image *image, uint64_t index);
/* Under the block's shard's lock. */
uint64_t qcow2_refcount_of(const struct qcow2_image *image, const struct qcow2_table *block, uint64_t cluster);
void qcow2_refcount_change(struct qcow2_image *image, struct qcow2_shard *shard, struct qcow2_table *block,
                           uint64_t cluster, uint64_t count);
int CO_FN co_qcow2_refcount_block_load(struct qcow2_image *image, uint64_t index, uint8_t *to);
/* Under alloc_lock: that there be a table with the entry; and a block; a block of zeroes at `offset`. */
int CO_FN co_qcow2_refcount_table_reserve(struct qcow2_image *image, uint64_t index) MUST_CHECK;
int CO_FN co_qcow2_refcount_block_ensure(struct qcow2_image *image, uint64_t index) MUST_CHECK;
int CO_FN co_qcow2_refcount_block_write(struct qcow2_image *image, uint64_t index, uint64_t offset, uint64_t first,
                                        uint64_t end) MUST_CHECK;
/* Enters it in the table. Under alloc_lock. */
void qcow2_refcount_block_name(struct qcow2_image *image, uint64_t index, uint64_t offset);

/* --- shadow.c: counts that become valid with a write of the header; drained --- */

/*
 * From here on counts are changed in copies. All that was changed before is in the file by then. On failure nothing has
 * changed but for leaks.
 */
int CO_FN co_qcow2_shadow_begin(struct qcow2_image *image) MUST_CHECK;
/*
 * Writes the fields of the header, durably, with the counts as they are now, which must be durable (settled); the
 * former ones are freed. Where that fails, the shadow is still there. Without one, only the header.
 */
int CO_FN co_qcow2_shadow_switch(struct qcow2_image *image) MUST_CHECK;
/* The counts are what they were at the beginning. Without a shadow, nothing. */
void qcow2_shadow_drop(struct qcow2_image *image);

/* --- owners.c --- */

/* The work of the next one, where it is still to be done. */
int CO_FN co_qcow2_owners_survey(struct qcow2_image *image) MUST_CHECK;

/*
 * Before data is written in place, and before an L2 table is changed: that no cluster that is called the image's own
 * has another name. Reads tables the first time, in an image that has some. -EIO: it is not so, and the node is fenced.
 */
static inline int CO_FN co_qcow2_owners_check(struct qcow2_image *image)
{
    return likely(__atomic_load_n(&image->owners_known, __ATOMIC_ACQUIRE)) ? 0 : co_qcow2_owners_survey(image);
}

/* --- allocate.c --- */

/* Contiguous clusters for `bytes`, with count 1 (in the cache), contents undefined. */
int CO_FN co_qcow2_alloc_clusters(struct qcow2_image *image, uint64_t bytes, uint64_t *ret_offset) MUST_CHECK;

/*
 * From 1 to `wanted` contiguous clusters for guest data, whatever is there at once. *ret_fresh: they read as zeroes
 * (were never written).
 */
struct qcow2_run {
    uint64_t offset;
    uint64_t clusters;
    bool fresh;
};
int CO_FN co_qcow2_alloc_run(struct qcow2_image *image, uint64_t wanted, struct qcow2_run *ret) MUST_CHECK;

/* Room for `bytes` of compressed data at any byte; counts the clusters that it touches. */
int CO_FN co_qcow2_alloc_bytes(struct qcow2_image *image, uint32_t bytes, uint64_t *ret_offset) MUST_CHECK;

/* No window, no compressed cluster to be gone on with: for a drain, and before the file is cut. */
void qcow2_alloc_reset(struct qcow2_image *image);

/* There may be a free cluster. */
void qcow2_alloc_hint(struct qcow2_image *image, uint64_t cluster);
/* No further compressed data goes to these clusters. */
void CO_FN co_qcow2_alloc_stop_sharing(struct qcow2_image *image, uint64_t offset, uint64_t bytes);

/* Number of the first cluster behind the last one in use (count not 0). Drained. */
int CO_FN co_qcow2_last_cluster(struct qcow2_image *image, uint64_t *ret_end) MUST_CHECK;

/* --- free.c: clusters that are no longer named --- */

/*
 * The range (clusters that it touches) is no longer named by tables in memory. Its counts are lowered when that is
 * durable, after some later flush, and when no request uses it any more. Cannot fail.
 */
void qcow2_free_clusters(struct qcow2_image *image, uint64_t offset, uint64_t bytes, enum qcow2_free_reason reason);

/* Whether some wait for that. */
bool qcow2_has_dropped(struct qcow2_image *image);
/* They stay leaks. Drained; for who forgets the counts, too. */
void qcow2_freed_forget(struct qcow2_image *image);
/* For the write-back: takes the list before it begins; and gives it back where it could not make the rest durable. */
struct qcow2_freed_list qcow2_take_dropped(struct qcow2_image *image);
void qcow2_return_dropped(struct qcow2_image *image, struct qcow2_freed_list *taken);
/* These are durable, too; lowers the counts of those whose grace period is over. Under write_back_lock. */
void CO_FN co_qcow2_release_durable(struct qcow2_image *image, struct qcow2_freed_list *taken);

/* --- compressed.c --- */

/* Decompressed data in memory may be out of date. */
void qcow2_compressed_forget(struct qcow2_image *image);

/* --- write-back.c --- */

int CO_FN co_qcow2_l2_clean(struct qcow2_image *image);
int CO_FN co_qcow2_refcount_blocks_write(struct qcow2_image *image) MUST_CHECK;

/*
 * Writes what the caches hold, in the order that a crash bears; does not wait for it to be durable. For
 * co_flush_to_children(). With `durable`: flushes at the end, and lets go what was freed.
 */
int CO_FN co_qcow2_write_back(struct qcow2_image *image, bool durable) MUST_CHECK;

/*
 * In a drain: everything is in the file and durable, nothing is held back: counts of what was freed are lowered, too.
 * Afterwards the file alone says all there is, and caches may be dropped.
 */
int CO_FN co_qcow2_settle(struct qcow2_image *image) MUST_CHECK;

/* Forgets all that is cached of tables; after co_qcow2_settle(), for who changes tables in the file. Drained. */
void qcow2_caches_drop(struct qcow2_image *image);

/* --- l2-entry.c: what L2 entries say; no I/O, any thread --- */

enum qcow2_extent_kind {
    QCOW2_EXTENT_UNALLOCATED, /* the backing image's, or zeroes; `host` may be set: subclusters of an allocated cluster
                               */
    QCOW2_EXTENT_ZERO,        /* reads as zeroes; `host` may be set */
    QCOW2_EXTENT_NORMAL,      /* at `host` */
    QCOW2_EXTENT_COMPRESSED,  /* one cluster; see `entry` */
    QCOW2_EXTENT_INVALID,     /* the entry makes no sense; one (sub)cluster */
};
struct qcow2_extent {
    enum qcow2_extent_kind kind;
    uint64_t bytes; /* from the guest offset asked for: contiguous in the host where `has_host` */
    uint64_t host;  /* of the guest offset asked for */
    bool has_host;
    bool copied;    /* every cluster's count is one: may be written in place */
    uint64_t entry; /* of the first cluster */
};

/* One L2 entry; `bitmap` 0 without subclusters. */
struct qcow2_l2_entry {
    uint64_t entry;
    uint64_t bitmap;
};
struct qcow2_l2_entry qcow2_l2_entry_load(const struct qcow2_image *image, const uint8_t *slice, unsigned index);
void qcow2_l2_entry_store(const struct qcow2_image *image, uint8_t *slice, unsigned index, struct qcow2_l2_entry entry);

/* The extent that begins at `guest`, at most `bytes` (which must lie inside the slice). */
struct qcow2_extent qcow2_extent_find(const struct qcow2_image *image, const uint8_t *slice, uint64_t guest,
                                      uint64_t bytes);

/* --- l2.c: from guest offsets to extents --- */

static inline uint64_t qcow2_slice_of(const struct qcow2_image *image, uint64_t guest)
{
    return guest >> image->cluster_bits >> image->slice_bits;
}

/* Bytes from `guest` to the end of what its slice maps. */
static inline uint64_t qcow2_slice_rest(const struct qcow2_image *image, uint64_t guest)
{
    uint64_t span = UINT64_C(1) << (image->cluster_bits + image->slice_bits);

    return span - (guest & (span - 1));
}

static inline unsigned qcow2_slice_index(const struct qcow2_image *image, uint64_t guest)
{
    return (unsigned)(guest >> image->cluster_bits) & ((1u << image->slice_bits) - 1);
}

/* The active L1 entry for a guest offset, without our bit; 0 beyond the table. */
uint64_t qcow2_l1_entry(const struct qcow2_image *image, uint64_t guest);

/*
 * While a request uses host clusters that it found in a table, it holds the shard in which it found them: what is freed
 * meanwhile is not handed out before the hold ends.
 */
struct qcow2_hold {
    uint32_t *count; /* NULL: none */
};
static inline void qcow2_hold_end(struct qcow2_hold *hold)
{
    if (hold->count)
        __atomic_sub_fetch(hold->count, 1, __ATOMIC_RELEASE);
    hold->count = NULL;
}

/* Under the shard's lock: holds what `extent` says, where it names host clusters that could be freed. */
void qcow2_hold_begin(const struct qcow2_image *image, struct qcow2_shard *shard, const struct qcow2_extent *extent,
                      struct qcow2_hold *hold);

/* Whether an L1 entry that is not 0 names a place for an L2 table; -EIO and fenced where not. */
int CO_FN co_qcow2_l2_check(struct qcow2_image *image, uint64_t l1_entry) MUST_CHECK;
/* Fences because of an INVALID extent: -EIO. */
int CO_FN co_qcow2_extent_invalid(struct qcow2_image *image, uint64_t guest, const struct qcow2_extent *extent);
/* Forgets what was read ahead. */
void qcow2_ahead_drop(struct qcow2_image *image);
/* Loads a slice (for the cache): zeroes where there is no L2 table. */
int CO_FN co_qcow2_slice_load(struct qcow2_image *image, uint64_t slice, uint8_t *to);

/* The extent at `guest`, held. Corrupt entries: -EIO. */
int CO_FN co_qcow2_extent_get(struct qcow2_image *image, uint64_t guest, uint64_t bytes, struct qcow2_extent *ret,
                              struct qcow2_hold *hold) MUST_CHECK;

/* --- resize.c --- */

/* L1 entries for a disk of `size` bytes, at least; what there is stays. *err where the size is too large, and else. */
int CO_FN co_qcow2_l1_reserve(struct qcow2_image *image, uint64_t size, struct error **err) MUST_CHECK;

/* Maps [from, to) to clusters of its own, whose contents then are undefined or zero by `mode`. Drained or in open. */
int CO_FN co_qcow2_preallocate(struct qcow2_image *image, uint64_t from, uint64_t to, enum prealloc_mode mode,
                               struct error **err) MUST_CHECK;
