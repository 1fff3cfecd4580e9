/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bitmap is a tree of blocks with 64 places each: words of bits in the lowest level, blocks below in the others. What
 * is all clear or all set is no block but one of two marks in its parent's place.
 *
 * Keeps: (1) a block has both a set and a clear bit below it, or it would be a mark; (2) `any` and `all` say of each
 * place whether it has a set bit and whether it has no clear one; (3) bits beyond the size are clear; (4) the height is
 * the least that holds the size.
 */
#include "base/bitmap.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"

enum {
    PLACES = 64,
    PLACE_BITS = 6, /* places of a block, as a power of two */
    WORD_BITS = 64,
    LOWEST_SHIFT = 12, /* bits of a lowest block, as a power of two */
};

struct block {
    uint64_t any;
    uint64_t all;
    uint64_t count; /* bits set below */
    union {
        uint64_t words[PLACES];       /* height 0 */
        struct block *blocks[PLACES]; /* others: a block, or CLEAR or SET */
    };
};

/* Marks; nobody looks into them. */
#define CLEAR ((struct block *)NULL)
static const struct block set_mark;
#define SET ((struct block *)(uintptr_t)&set_mark)

struct bitmap {
    struct block *root; /* or a mark */
    unsigned height;    /* of the root */
    uint64_t size;
};

/* Bits below a place of a block at `height`, as a power of two; and below the block. */
static inline unsigned place_shift(unsigned height)
{
    return LOWEST_SHIFT - PLACE_BITS + PLACE_BITS * height;
}

static inline uint64_t block_bits(unsigned height)
{
    return UINT64_C(1) << (LOWEST_SHIFT + PLACE_BITS * height);
}

/* Bits `first` to `last` of a word. */
static inline uint64_t word_mask(unsigned first, unsigned last)
{
    return UINT64_MAX << first & UINT64_MAX >> (WORD_BITS - 1 - last);
}

static inline bool is_mark(const struct block *block)
{
    return block == CLEAR || block == SET;
}

static uint64_t count_below(const struct block *block, unsigned height)
{
    if (block == CLEAR)
        return 0;
    return block == SET ? block_bits(height) : block->count;
}

static void free_below(struct block *block, unsigned height)
{
    if (is_mark(block))
        return;
    for (unsigned i = 0; height && i < PLACES; i++)
        free_below(block->blocks[i], height - 1);
    g_free(block);
}

static struct block *copy_below(const struct block *block, unsigned height)
{
    struct block *copy;

    if (is_mark(block))
        return (struct block *)(uintptr_t)block;
    copy = g_memdup2(block, sizeof(*block));
    for (unsigned i = 0; height && i < PLACES; i++)
        copy->blocks[i] = copy_below(block->blocks[i], height - 1);
    return copy;
}

/* A block in the place of a mark. */
static struct block *unfold(struct block *mark, unsigned height)
{
    struct block *block = g_new0(struct block, 1);

    assert(is_mark(mark));
    if (mark == CLEAR)
        return block;
    block->any = block->all = UINT64_MAX;
    block->count = block_bits(height);
    for (unsigned i = 0; i < PLACES; i++) {
        if (height)
            block->blocks[i] = SET;
        else
            block->words[i] = UINT64_MAX;
    }
    return block;
}

/* A mark in the place of a block that no longer needs to be one. */
static struct block *fold(struct block *block)
{
    struct block *mark = block->all == UINT64_MAX ? SET : CLEAR;

    if (block->any && block->all != UINT64_MAX)
        return block;
    g_free(block);
    return mark;
}

static void set_word(struct block *block, unsigned place, uint64_t word)
{
    uint64_t bit = UINT64_C(1) << place;

    block->count += (uint64_t)__builtin_popcountll(word) - (uint64_t)__builtin_popcountll(block->words[place]);
    block->words[place] = word;
    block->any = word ? block->any | bit : block->any & ~bit;
    block->all = word == UINT64_MAX ? block->all | bit : block->all & ~bit;
}

/* Puts `below` in the place of what was there, which has been freed or become it; that had `old_count` bits set. */
static void set_place(struct block *block, unsigned height, unsigned place, struct block *below, uint64_t old_count)
{
    uint64_t bit = UINT64_C(1) << place;

    assert(height);
    block->count += count_below(below, height - 1) - old_count;
    block->blocks[place] = below;
    block->any = below != CLEAR ? block->any | bit : block->any & ~bit;
    block->all = below == SET ? block->all | bit : block->all & ~bit;
}

/* --- changing ranges --- */

/* Makes the bits from `first` to `last`, counted from the block's first, the ones of `mark`; what is there then. */
static struct block *fill_below(struct block *block, unsigned height, uint64_t first, uint64_t last, struct block *mark)
{
    unsigned shift = place_shift(height);

    if (block == mark)
        return mark;
    if (!first && last == block_bits(height) - 1) {
        free_below(block, height);
        return mark;
    }
    if (is_mark(block))
        block = unfold(block, height);
    for (uint64_t place = first >> shift; place <= last >> shift; place++) {
        uint64_t base = place << shift;
        uint64_t from = MAX(first, base) - base;
        uint64_t to = MIN(last - base, (UINT64_C(1) << shift) - 1);

        if (height) {
            uint64_t old_count = count_below(block->blocks[place], height - 1);

            set_place(block, height, (unsigned)place, fill_below(block->blocks[place], height - 1, from, to, mark),
                      old_count);
        } else {
            uint64_t mask = word_mask((unsigned)from, (unsigned)to);

            set_word(block, (unsigned)place, mark == SET ? block->words[place] | mask : block->words[place] & ~mask);
        }
    }
    return fold(block);
}

static void bitmap_fill(struct bitmap *bitmap, uint64_t first, uint64_t count, struct block *mark)
{
    assert(first <= bitmap->size);
    assert(count <= bitmap->size - first);
    if (count)
        bitmap->root = fill_below(bitmap->root, bitmap->height, first, first + count - 1, mark);
}

bool bitmap_get(const struct bitmap *bitmap, uint64_t bit)
{
    const struct block *block = bitmap->root;
    unsigned height = bitmap->height;

    assert(bit < bitmap->size);
    while (!is_mark(block)) {
        unsigned place = bit >> place_shift(height) & (PLACES - 1);

        if (!height)
            return block->words[place] >> (bit % WORD_BITS) & 1;
        block = block->blocks[place];
        height--;
    }
    return block == SET;
}

void bitmap_set(struct bitmap *bitmap, uint64_t first, uint64_t count)
{
    /* Most of those who mark what they write mark it again. */
    if (count == 1 && bitmap_get(bitmap, first))
        return;
    bitmap_fill(bitmap, first, count, SET);
}

void bitmap_clear(struct bitmap *bitmap, uint64_t first, uint64_t count)
{
    bitmap_fill(bitmap, first, count, CLEAR);
}

/* --- looking --- */

enum { NOT_FOUND = -1 };

/* The first bit from `from` on that is set (or, of `want` CLEAR, clear), counted from the block's first; NOT_FOUND. */
static int64_t find_below(const struct block *block, unsigned height, uint64_t from, const struct block *want)
{
    unsigned shift = place_shift(height), place = (unsigned)(from >> shift);
    uint64_t candidates;

    if (is_mark(block))
        return block == want ? (int64_t)from : NOT_FOUND;
    candidates = (want == SET ? block->any : ~block->all) & UINT64_MAX << place;
    while (candidates) {
        unsigned at = (unsigned)__builtin_ctzll(candidates);
        uint64_t base = (uint64_t)at << shift;
        uint64_t start = at == place ? from - base : 0;
        int64_t found;

        if (height) {
            found = find_below(block->blocks[at], height - 1, start, want);
        } else {
            uint64_t word = (want == SET ? block->words[at] : ~block->words[at]) & UINT64_MAX << start;

            found = word ? __builtin_ctzll(word) : NOT_FOUND;
        }
        if (found >= 0)
            return (int64_t)base + found;
        /* Only the first place can turn out to have none, before `from`. */
        candidates &= candidates - 1;
    }
    return NOT_FOUND;
}

static uint64_t bitmap_find(const struct bitmap *bitmap, uint64_t from, uint64_t end, const struct block *want)
{
    int64_t found;

    assert(end <= bitmap->size);
    if (from >= end)
        return end;
    found = find_below(bitmap->root, bitmap->height, from, want);
    return found < 0 ? end : MIN((uint64_t)found, end);
}

uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from, uint64_t end)
{
    return bitmap_find(bitmap, from, end, SET);
}

uint64_t bitmap_next_clear(const struct bitmap *bitmap, uint64_t from, uint64_t end)
{
    return bitmap_find(bitmap, from, end, CLEAR);
}

bool bitmap_next_run(const struct bitmap *bitmap, uint64_t from, uint64_t end, uint64_t *ret_first, uint64_t *ret_count)
{
    uint64_t first = bitmap_next_set(bitmap, from, end);

    if (first >= end)
        return false;
    *ret_first = first;
    *ret_count = bitmap_next_clear(bitmap, first, end) - first;
    return true;
}

uint64_t bitmap_size(const struct bitmap *bitmap)
{
    return bitmap->size;
}

uint64_t bitmap_count(const struct bitmap *bitmap)
{
    uint64_t count = count_below(bitmap->root, bitmap->height);

    assert(count <= bitmap->size);
    return count;
}

static size_t memory_below(const struct block *block, unsigned height)
{
    size_t sum = sizeof(*block);

    if (is_mark(block))
        return 0;
    for (unsigned i = 0; height && i < PLACES; i++)
        sum += memory_below(block->blocks[i], height - 1);
    return sum;
}

size_t bitmap_memory_bytes(const struct bitmap *bitmap)
{
    return sizeof(*bitmap) + memory_below(bitmap->root, bitmap->height);
}

static bool equal_below(const struct block *a, const struct block *b, unsigned height)
{
    if (is_mark(a) || is_mark(b))
        return a == b;
    if (a->count != b->count || a->any != b->any || a->all != b->all)
        return false;
    if (!height)
        return !memcmp(a->words, b->words, sizeof(a->words));
    for (unsigned i = 0; i < PLACES; i++) {
        if (!equal_below(a->blocks[i], b->blocks[i], height - 1))
            return false;
    }
    return true;
}

bool bitmap_equal(const struct bitmap *a, const struct bitmap *b)
{
    return a->size == b->size && equal_below(a->root, b->root, a->height);
}

/* --- two bitmaps --- */

static struct block *merge_below(struct block *to, const struct block *from, unsigned height)
{
    if (from == CLEAR || to == SET)
        return to;
    if (from == SET || to == CLEAR) {
        free_below(to, height);
        return copy_below(from, height);
    }
    for (uint64_t places = from->any; places; places &= places - 1) {
        unsigned place = (unsigned)__builtin_ctzll(places);

        if (height) {
            uint64_t old_count = count_below(to->blocks[place], height - 1);

            set_place(to, height, place, merge_below(to->blocks[place], from->blocks[place], height - 1), old_count);
        } else {
            set_word(to, place, to->words[place] | from->words[place]);
        }
    }
    return fold(to);
}

void bitmap_merge(struct bitmap *to, const struct bitmap *from)
{
    assert(to->size == from->size);
    assert(to->height == from->height);
    to->root = merge_below(to->root, from->root, to->height);
}

void bitmap_merge_scaled(struct bitmap *to, unsigned to_shift, const struct bitmap *from, unsigned from_shift)
{
    uint64_t first, count, from_end = from->size;
    uint64_t at = 0;

    if (to_shift == from_shift && to->size == from->size) {
        bitmap_merge(to, from);
        return;
    }
    while (at < from_end && bitmap_next_run(from, at, from_end, &first, &count)) {
        uint64_t to_first = first << from_shift >> to_shift;
        uint64_t to_last = (((first + count) << from_shift) - 1) >> to_shift;

        if (to_first >= to->size)
            break;
        bitmap_set(to, to_first, MIN(to_last, to->size - 1) - to_first + 1);
        /* Where one of ours stands for many of theirs, the rest of those add nothing. */
        at = MAX(first + count, (to_last + 1) << to_shift >> from_shift);
    }
}

/* --- size --- */

static unsigned height_for(uint64_t size)
{
    unsigned height = 0;

    while (block_bits(height) < size)
        height++;
    return height;
}

struct bitmap *bitmap_new(uint64_t size)
{
    struct bitmap *bitmap = g_new0(struct bitmap, 1);

    assert(size <= BITMAP_BITS_MAX);
    bitmap->size = size;
    bitmap->height = height_for(size);
    bitmap->root = CLEAR;
    return bitmap;
}

struct bitmap *bitmap_copy(const struct bitmap *bitmap)
{
    struct bitmap *copy = g_memdup2(bitmap, sizeof(*bitmap));

    copy->root = copy_below(bitmap->root, bitmap->height);
    return copy;
}

void bitmap_free(struct bitmap *bitmap)
{
    if (!bitmap)
        return;
    free_below(bitmap->root, bitmap->height);
    g_free(bitmap);
}

/* One level more: the root becomes the first place of a new one. */
static void grow_root(struct bitmap *bitmap)
{
    struct block *root;

    if (bitmap->root != CLEAR) {
        root = unfold(CLEAR, bitmap->height + 1);
        set_place(root, bitmap->height + 1, 0, bitmap->root, 0);
        bitmap->root = root;
    }
    bitmap->height++;
}

/* One level less: nothing is set but in the first place. */
static void shrink_root(struct bitmap *bitmap)
{
    struct block *root = bitmap->root;

    assert(bitmap->height);
    assert(root != SET);
    if (root != CLEAR) {
        assert(!(root->any & ~UINT64_C(1)));
        bitmap->root = root->blocks[0];
        g_free(root);
    }
    bitmap->height--;
}

void bitmap_resize(struct bitmap *bitmap, uint64_t size)
{
    unsigned height = height_for(size);

    assert(size <= BITMAP_BITS_MAX);
    if (size < bitmap->size)
        bitmap_clear(bitmap, size, bitmap->size - size);
    while (bitmap->height < height)
        grow_root(bitmap);
    while (bitmap->height > height)
        shrink_root(bitmap);
    bitmap->size = size;
}

/* --- bytes --- */

/* The lowest block, or mark, that holds `bit`. */
static const struct block *lowest_block(const struct bitmap *bitmap, uint64_t bit)
{
    const struct block *block = bitmap->root;

    for (unsigned height = bitmap->height; height && !is_mark(block); height--)
        block = block->blocks[bit >> place_shift(height) & (PLACES - 1)];
    return block;
}

static void store_word(uint8_t *to, uint64_t word, uint64_t bits)
{
    uint8_t bytes[sizeof(word)];

    if (bits < WORD_BITS)
        word &= word_mask(0, (unsigned)bits - 1);
    store_le64(bytes, word);
    memcpy(to, bytes, (bits + 7) / 8);
}

/* `bits` bits from `bit` on, inside one word. */
static uint64_t block_word(const struct block *block, uint64_t bit)
{
    if (is_mark(block))
        return block == SET ? UINT64_MAX : 0;
    return block->words[bit / WORD_BITS % PLACES] >> (bit % WORD_BITS);
}

void bitmap_store(const struct bitmap *bitmap, uint64_t first, uint64_t count, uint8_t *to)
{
    uint64_t end = first + count;

    assert(!(first % 8));
    assert(first <= bitmap->size);
    assert(count <= bitmap->size - first);
    while (first < end) {
        const struct block *block = lowest_block(bitmap, first);
        uint64_t block_end = MIN(end, (first | (block_bits(0) - 1)) + 1);

        while (first < block_end) {
            uint64_t bits = MIN(WORD_BITS - first % WORD_BITS, block_end - first);

            store_word(to, block_word(block, first), bits);
            to += (bits + 7) / 8;
            first += bits;
        }
    }
}

/* Puts `words` in the place of all bits of the lowest block at `bit`; what is there then. */
static struct block *put_words(struct block *block, unsigned height, uint64_t bit, const uint64_t *words)
{
    if (is_mark(block))
        block = unfold(block, height);
    if (height) {
        unsigned place = bit >> place_shift(height) & (PLACES - 1);
        uint64_t old_count = count_below(block->blocks[place], height - 1);

        set_place(block, height, place, put_words(block->blocks[place], height - 1, bit, words), old_count);
    } else {
        for (unsigned i = 0; i < PLACES; i++)
            set_word(block, i, words[i]);
    }
    return fold(block);
}

static uint64_t load_word(const uint8_t *from, uint64_t bits)
{
    uint8_t bytes[sizeof(uint64_t)] = {0};
    uint64_t word;

    memcpy(bytes, from, (bits + 7) / 8);
    word = load_le64(bytes);
    return bits < WORD_BITS ? word & word_mask(0, (unsigned)bits - 1) : word;
}

void bitmap_load(struct bitmap *bitmap, uint64_t first, uint64_t count, const uint8_t *from)
{
    uint64_t words[PLACES];
    uint64_t end = first + count;

    assert(!(first % 8));
    assert(first <= bitmap->size);
    assert(count <= bitmap->size - first);
    while (first < end) {
        uint64_t base = first & ~(block_bits(0) - 1);
        uint64_t block_end = MIN(end, base + block_bits(0));
        const struct block *block = lowest_block(bitmap, first);

        for (unsigned i = 0; i < PLACES; i++)
            words[i] = block_word(block, (uint64_t)i * WORD_BITS);
        while (first < block_end) {
            unsigned skew = first % WORD_BITS;
            uint64_t bits = MIN(WORD_BITS - skew, block_end - first);
            uint64_t *word = &words[first / WORD_BITS % PLACES];

            *word &= ~word_mask(skew, skew + (unsigned)bits - 1);
            *word |= load_word(from, bits) << skew;
            from += (bits + 7) / 8;
            first += bits;
        }
        bitmap->root = put_words(bitmap->root, bitmap->height, base, words);
    }
}
