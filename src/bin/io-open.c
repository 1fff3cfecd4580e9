/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening, closing, and opening again with other options. */
#include <assert.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/io.h"
#include "block/handle.h"
#include "block/node.h"
#include "cli/image-reopen.h"
#include "cli/temporary-image.h"
#include "cli/tool.h"
#include "driver/filter/blkdebug.h"
#include "schema/json.h"
#include "schema/schema.h"

void io_open_clear(struct io_open *open)
{
    g_free(open->filename);
    g_free(open->format);
    g_free(open->aio);
    json_free(open->options);
    *open = (struct io_open){0};
}

bool io_open_set_cache(struct io_open *open, const char *text, struct error **err)
{
    return cache_mode_parse(text, &open->how.cache) || error_set(err, "Invalid cache option: %s", text);
}

bool io_open_set_discard(struct io_open *open, const char *text, struct error **err)
{
    bool unmap = !strcmp(text, "unmap") || !strcmp(text, "on");

    if (!unmap && strcmp(text, "ignore") != 0 && strcmp(text, "off") != 0)
        return error_set(err, "Invalid discard option: %s", text);
    open->how.unmap = unmap;
    return true;
}

bool io_open_set_aio(struct io_open *open, const char *text, struct error **err)
{
    static const char *const modes[] = {"threads", "native", "io_uring"};

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (!strcmp(text, modes[i])) {
            g_free(open->aio);
            open->aio = g_strdup(text);
            return true;
        }
    }
    return error_set(err, "Invalid aio option: %s", text);
}

/* The image is only read; what is written stays in one on top. */
static struct image *CO_FN co_open_temporary(struct io_session *session, struct error **err)
{
    struct image_open how = session->open.how;
    struct image *image;

    how.writable = false;
    session->base = co_image_open(session->tool, &how, err);
    image = session->base ? co_temporary_image_open(session->tool, session->base, err) : NULL;
    if (!image)
        co_image_close(session->tool, TAKE(session->base));
    return image;
}

/* A filter on top of the image. */
static struct image *CO_FN co_open_copy_on_read(struct io_session *session, struct error **err)
{
    struct image_open how = {.writable = session->open.how.writable, .unmap = true, .plain_errors = true};
    AUTO(json) options = json_object();
    struct image *image = NULL;

    /* It is the filter that writes to it. */
    session->base = co_image_open(session->tool, &session->open.how, err);
    if (session->base && co_handle_set_permissions(session->base->handle, PERM_CONSISTENT_READ, PERM_ALL, err)) {
        json_set(options, "driver", json_string("copy-on-read"));
        json_set(options, "file", json_string(session->base->name));
        how.options = options;
        image = co_image_open(session->tool, &how, err);
    }
    if (!image)
        co_image_close(session->tool, TAKE(session->base));
    return image;
}

static struct image *CO_FN co_open_as_asked(struct io_session *session, struct error **err)
{
    if (session->open.temporary)
        return co_open_temporary(session, err);
    if (session->open.copy_on_read)
        return co_open_copy_on_read(session, err);
    return co_image_open(session->tool, &session->open.how, err);
}

bool co_io_image_open(struct io_session *session, struct error **err)
{
    struct io_open *open = &session->open;

    assert(!session->image);
    open->how.filename = open->filename;
    open->how.format = open->format;
    open->how.aio = open->aio;
    open->how.options = open->options;
    open->how.plain_errors = true;
    if (open->temporary && open->copy_on_read)
        error_set(err, "-s and -C cannot be used together");
    else if (open->copy_on_read && !open->how.writable)
        error_set(err, "Can't use copy-on-read on read-only device");
    else if (open->how.force_share && open->how.writable && !open->temporary)
        error_set(err, "force-share=on can only be used with read-only images");
    else
        session->image = co_open_as_asked(session, err);
    if (session->image)
        return true;
    return open->filename && !open->how.image_opts ? error_prefix(err, "can't open device %s: ", open->filename)
                                                   : error_prefix(err, "can't open: ");
}

void co_io_image_close(struct io_session *session)
{
    /* Nobody else would let them go. */
    if (session->image)
        (void)blkdebug_remove_break(session->image->node, NULL);
    co_group_wait(&session->pending);
    co_image_close(session->tool, TAKE(session->image));
    co_image_close(session->tool, TAKE(session->base));
}

/* --- open --- */

static bool parse_options(const char *text, struct json **ret, struct error **err)
{
    struct json *options = keyval_parse(text, NULL, NULL, err);

    if (!options)
        return false;
    if (*ret) {
        for (size_t i = 0; i < json_count(options); i++) {
            const char *key;
            const struct json *value = json_member(options, i, &key);

            json_set(*ret, key, json_clone(value));
        }
        json_free(options);
    } else {
        *ret = options;
    }
    return true;
}

/* One letter of "open"; *ret_usage: it is none. */
static bool take_open_letter(struct io_open *open, int letter, const char *value, bool *ret_usage, struct error **err)
{
    switch (letter) {
    case 's':
        open->temporary = true;
        return true;
    case 'n':
        return io_open_set_cache(open, "none", err);
    case 'r':
        open->how.writable = false;
        return true;
    case 'C':
        open->copy_on_read = true;
        return true;
    case 'k':
        return io_open_set_aio(open, "native", err);
    case 't':
        return io_open_set_cache(open, value, err);
    case 'd':
        return io_open_set_discard(open, value, err);
    case 'i':
        return io_open_set_aio(open, value, err);
    case 'o':
        return parse_options(value, &open->options, err);
    case 'U':
        open->how.force_share = true;
        return true;
    default:
        *ret_usage = true;
        return false;
    }
}

static bool parse_open(struct io_open *open, struct io_words *words, bool *ret_usage, struct error **err)
{
    int letter;

    while ((letter = io_option_next(words, "snCro:ki:t:d:U")) != -1) {
        if (!take_open_letter(open, letter, words->value, ret_usage, err))
            return false;
    }
    if (words->first < words->count - 1 || (words->first == words->count && !open->options)) {
        *ret_usage = true;
        return false;
    }
    if (words->first < words->count)
        open->filename = g_strdup(words->words[words->first]);
    return true;
}

bool co_io_open_command(struct io_session *session, int count, char **words)
{
    struct io_words rest = {.count = count, .words = words};
    struct io_open open = {.how = {.writable = true, .unmap = true}};
    AUTO(error) error = NULL;
    bool usage = false;

    if (!parse_open(&open, &rest, &usage, &error)) {
        io_open_clear(&open);
        if (usage)
            return io_usage(words[0]);
        tool_report(error);
        return false;
    }
    if (session->image) {
        io_open_clear(&open);
        log_error("file open already, try 'help close'");
        return false;
    }
    io_open_clear(&session->open);
    session->open = open;
    if (co_io_image_open(session, &error))
        return true;
    tool_report(error);
    return false;
}

bool co_io_close_command(struct io_session *session, int count, char **words)
{
    co_io_image_close(session);
    return true;
}

/* --- reopen --- */

struct reopen {
    bool read_only;
    bool writable;
    const char *cache;
    struct json *options; /* owned; NULL: none */
};

static bool parse_reopen(struct reopen *reopen, struct io_words *words, bool *ret_usage, struct error **err)
{
    int letter;

    while ((letter = io_option_next(words, "c:o:rw")) != -1) {
        switch (letter) {
        case 'c':
            reopen->cache = words->value;
            break;
        case 'o':
            if (!parse_options(words->value, &reopen->options, err))
                return false;
            break;
        case 'r':
        case 'w':
            if (reopen->read_only || reopen->writable)
                return error_set(err, "Only one -r/-w option may be given");
            reopen->read_only = letter == 'r';
            reopen->writable = letter == 'w';
            break;
        default:
            *ret_usage = true;
            return false;
        }
    }
    *ret_usage = words->first != words->count;
    return !*ret_usage;
}

static bool CO_FN co_reopen(struct io_session *session, const struct reopen *reopen, struct error **err)
{
    /* What the filter for copy-on-read shows is the image beneath. */
    struct image *image = session->open.copy_on_read ? session->base : session->image;
    struct image_reopen change = {
        .options = reopen->options,
        .has_writable = reopen->read_only || reopen->writable,
        .writable = reopen->writable,
        .has_cache = reopen->cache,
    };

    if (session->open.temporary)
        return error_set(err,
                         "An image that was opened with -s cannot be reopened: what was written to it would be lost");
    if (reopen->cache && !cache_mode_parse(reopen->cache, &change.cache))
        return error_set(err, "Invalid cache option: %s", reopen->cache);
    co_group_wait(&session->pending);
    if (!co_image_reopen(session->tool, image, &change, err))
        return false;
    session->open.how.writable = !node_read_only(image->node);
    return true;
}

bool co_io_reopen_command(struct io_session *session, int count, char **words)
{
    struct io_words rest = {.count = count, .words = words};
    struct reopen reopen = {0};
    AUTO(error) error = NULL;
    bool usage = false;
    bool ok = parse_reopen(&reopen, &rest, &usage, &error) && co_reopen(session, &reopen, &error);

    json_free(reopen.options);
    if (usage)
        return io_usage(words[0]);
    if (!ok)
        tool_report(error);
    return ok;
}
