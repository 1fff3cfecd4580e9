/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "driver/protocol/nbd/coverage.h"

#include <assert.h>

enum { PARTS_MAX = 4096 };

struct nbd_part {
    uint64_t start;
    uint64_t end;
};

static struct nbd_part *part_at(const struct nbd_coverage *coverage, unsigned index)
{
    return &g_array_index(coverage->later, struct nbd_part, index);
}

/* Takes into the prefix what has come to touch it. */
static void absorb(struct nbd_coverage *coverage)
{
    while (coverage->later && coverage->later->len && part_at(coverage, 0)->start == coverage->prefix) {
        coverage->prefix = part_at(coverage, 0)->end;
        g_array_remove_index(coverage->later, 0);
    }
}

bool nbd_coverage_add(struct nbd_coverage *coverage, uint64_t offset, uint64_t bytes)
{
    struct nbd_part part = {.start = offset, .end = offset + bytes};
    unsigned at = 0;

    assert(bytes);
    assert(part.end > part.start);
    if (offset < coverage->prefix)
        return false;
    if (coverage->later) {
        while (at < coverage->later->len && part_at(coverage, at)->end <= offset)
            at++;
        if (at < coverage->later->len && part_at(coverage, at)->start < part.end)
            return false;
    }
    if (offset == coverage->prefix) {
        coverage->prefix = part.end;
        absorb(coverage);
        return true;
    }
    if (!coverage->later)
        coverage->later = g_array_new(FALSE, FALSE, sizeof(struct nbd_part));
    if (coverage->later->len == PARTS_MAX)
        return false;
    g_array_insert_val(coverage->later, at, part);
    return true;
}

void nbd_coverage_done(struct nbd_coverage *coverage)
{
    if (coverage->later)
        g_array_unref(coverage->later);
    *coverage = (struct nbd_coverage){0};
}
