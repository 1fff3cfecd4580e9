/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a file of the simulated disk holds: sparse pages, shared until they are written. */
#include "loop/sim/sim-internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static void page_unref(struct sim_page *page)
{
    assert(page->references > 0);
    if (!--page->references)
        g_free(page);
}

void sim_image_copy(struct sim_image *to, const struct sim_image *from)
{
    *to = (struct sim_image){.count = from->count, .capacity = from->count, .size = from->size};
    to->pages = g_memdup2(from->pages, from->count * sizeof(*from->pages));
    for (size_t i = 0; i < to->count; i++)
        to->pages[i]->references++;
}

void sim_image_done(struct sim_image *image)
{
    for (size_t i = 0; i < image->count; i++)
        page_unref(image->pages[i]);
    g_free(image->pages);
    *image = (struct sim_image){0};
}

/* The position of the first page whose index is not below `index`. */
static size_t image_position(const struct sim_image *image, uint64_t index)
{
    size_t low = 0;
    size_t high = image->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (image->pages[middle]->index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The page `index`, there or not, at *position; NULL: a hole. */
static struct sim_page *image_find(const struct sim_image *image, uint64_t index, size_t *position)
{
    *position = image_position(image, index);
    if (*position < image->count && image->pages[*position]->index == index)
        return image->pages[*position];
    return NULL;
}

/* The page `index` for writing. */
static struct sim_page *image_own(struct sim_image *image, uint64_t index)
{
    size_t position;
    struct sim_page *page = image_find(image, index, &position);
    struct sim_page *own;

    if (page && page->references == 1)
        return page;
    if (page) {
        own = g_memdup2(page, sizeof(*page));
        page_unref(page);
    } else {
        own = g_new0(struct sim_page, 1);
        own->index = index;
        if (image->count == image->capacity) {
            image->capacity = MAX(16, image->capacity * 2);
            image->pages = g_renew(struct sim_page *, image->pages, image->capacity);
        }
        memmove(image->pages + position + 1, image->pages + position,
                (image->count - position) * sizeof(*image->pages));
        image->count++;
    }
    own->references = 1;
    image->pages[position] = own;
    return own;
}

void sim_image_read(const struct sim_image *image, uint64_t offset, void *to, size_t bytes)
{
    unsigned char *at = to;

    assert(offset + bytes <= image->size);
    while (bytes) {
        size_t inside = offset % SIM_PAGE;
        size_t part = MIN(bytes, SIM_PAGE - inside);
        size_t position;
        const struct sim_page *page = image_find(image, offset / SIM_PAGE, &position);

        if (page)
            memcpy(at, page->data + inside, part);
        else
            memset(at, 0, part);
        at += part;
        offset += part;
        bytes -= part;
    }
}

void sim_image_write(struct sim_image *image, uint64_t offset, const void *from, size_t bytes)
{
    const unsigned char *at = from;

    image->size = MAX(image->size, offset + bytes);
    while (bytes) {
        size_t inside = offset % SIM_PAGE;
        size_t part = MIN(bytes, SIM_PAGE - inside);

        memcpy(image_own(image, offset / SIM_PAGE)->data + inside, at, part);
        at += part;
        offset += part;
        bytes -= part;
    }
}

static void image_remove(struct sim_image *image, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        page_unref(image->pages[i]);
    memmove(image->pages + from, image->pages + to, (image->count - to) * sizeof(*image->pages));
    image->count -= to - from;
}

void sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t bytes)
{
    uint64_t end = MIN(offset + bytes, image->size);
    uint64_t first = (offset + SIM_PAGE - 1) / SIM_PAGE; /* of the whole pages */
    uint64_t after = end == image->size ? (end + SIM_PAGE - 1) / SIM_PAGE : end / SIM_PAGE;
    size_t position;

    if (offset >= end)
        return;
    if (offset % SIM_PAGE && image_find(image, offset / SIM_PAGE, &position)) {
        size_t part = MIN(end - offset, SIM_PAGE - offset % SIM_PAGE);

        memset(image_own(image, offset / SIM_PAGE)->data + offset % SIM_PAGE, 0, part);
    }
    if (after >= first && end / SIM_PAGE == after && end % SIM_PAGE && image_find(image, after, &position))
        memset(image_own(image, after)->data, 0, end % SIM_PAGE);
    if (after > first)
        image_remove(image, image_position(image, first), image_position(image, after));
}

void sim_image_resize(struct sim_image *image, uint64_t size)
{
    if (size < image->size) {
        size_t inside = size % SIM_PAGE;
        size_t position;

        image_remove(image, image_position(image, (size + SIM_PAGE - 1) / SIM_PAGE), image->count);
        if (inside && image_find(image, size / SIM_PAGE, &position))
            memset(image_own(image, size / SIM_PAGE)->data + inside, 0, SIM_PAGE - inside);
    }
    image->size = size;
}

size_t sim_image_new_pages(const struct sim_image *image, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset / SIM_PAGE;
    uint64_t after = (offset + bytes + SIM_PAGE - 1) / SIM_PAGE;

    if (!bytes)
        return 0;
    return (size_t)(after - first) - (image_position(image, after) - image_position(image, first));
}

int64_t sim_image_seek(const struct sim_image *image, uint64_t offset, bool data)
{
    uint64_t index = offset / SIM_PAGE;
    size_t position = image_position(image, index);

    if (offset >= image->size)
        return -ENXIO;
    if (data) {
        if (position == image->count)
            return -ENXIO;
        return (int64_t)MAX(offset, image->pages[position]->index * SIM_PAGE);
    }
    while (position < image->count && image->pages[position]->index == index) {
        position++;
        index++;
    }
    return (int64_t)MIN(MAX(offset, index * SIM_PAGE), image->size);
}
