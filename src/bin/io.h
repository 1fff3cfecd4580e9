/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ashlar-io: what its files share. One session, on the main loop; commands run one after another as a coroutine. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/io-vector.h"
#include "cli/image-open.h"
#include "loop/lock.h"

struct error;
struct json;
struct tool;

/* How the image is opened, by the command line's options or those of "open"; strings are owned. */
struct io_open {
    struct image_open how;
    char *filename;
    char *format;
    char *aio;
    struct json *options; /* besides the name; NULL: none */
    bool temporary;       /* writes go to a temporary image on top */
    bool copy_on_read;
};

struct io_session {
    struct tool *tool;
    struct image *image; /* NULL: none is open */
    struct image *base;  /* beneath a temporary one; NULL: none */
    struct io_open open; /* how it was opened */
    bool misalign;       /* buffers lie off any alignment */
    bool quit;
    struct co_group pending; /* asynchronous requests */
};

/* --- commands --- */

enum { IO_ARGUMENTS_ANY = -1 };

enum io_needs {
    IO_NEEDS_IMAGE = 1u << 0,
    IO_NEEDS_WRITE = 1u << 1,
};

struct io_command {
    const char *name;
    const char *alias;   /* NULL: none */
    unsigned needs;      /* enum io_needs */
    int arguments_min;   /* words after the name */
    int arguments_max;   /* IO_ARGUMENTS_ANY: no limit */
    const char *usage;   /* the arguments; NULL: none */
    const char *summary; /* one line */
    const char *help;    /* more; NULL: nothing */
    /* `words[0]` is the command's name. Whether it went well; otherwise the reason has been printed. */
    bool (*co_run)(struct io_session *session, int count, char **words);
};

/* Every command in the order of its name; ends with a NULL name. */
extern const struct io_command io_commands[];

/* Runs one line; false: something in it failed. */
bool CO_FN co_io_run_line(struct io_session *session, const char *line);

/* The command's line of the list, for who used it wrongly. Returns false. */
bool io_usage(const char *name);

/*
 * Takes the letters of `options` (getopt(3)'s notation) from the words one by one: the letter, -1 after the last, '?'
 * for one that is wrong, which has been said. `*ret_first`: index of the first word that is no option, once it is over.
 */
struct io_words {
    int count;
    char **words;
    const char *value; /* of the letter last taken */
    int first;
    bool begun;
};
int io_option_next(struct io_words *words, const char *options);

/* Numbers on the command line; otherwise the reason has been printed. */
bool io_parse_size(const char *text, uint64_t *ret);
bool io_parse_pattern(const char *text, uint8_t *ret);

/* --- commands by file --- */

bool CO_FN co_io_read(struct io_session *session, int count, char **words);
bool CO_FN co_io_write(struct io_session *session, int count, char **words);
bool CO_FN co_io_readv(struct io_session *session, int count, char **words);
bool CO_FN co_io_writev(struct io_session *session, int count, char **words);
bool CO_FN co_io_aio_read(struct io_session *session, int count, char **words);
bool CO_FN co_io_aio_write(struct io_session *session, int count, char **words);
bool CO_FN co_io_aio_flush(struct io_session *session, int count, char **words);

bool CO_FN co_io_alloc(struct io_session *session, int count, char **words);
bool CO_FN co_io_discard(struct io_session *session, int count, char **words);
bool CO_FN co_io_flush(struct io_session *session, int count, char **words);
bool CO_FN co_io_info(struct io_session *session, int count, char **words);
bool CO_FN co_io_length(struct io_session *session, int count, char **words);
bool CO_FN co_io_map(struct io_session *session, int count, char **words);
bool CO_FN co_io_truncate(struct io_session *session, int count, char **words);

bool CO_FN co_io_open_command(struct io_session *session, int count, char **words);
bool CO_FN co_io_close_command(struct io_session *session, int count, char **words);
bool CO_FN co_io_reopen_command(struct io_session *session, int count, char **words);

bool CO_FN co_io_break(struct io_session *session, int count, char **words);
bool CO_FN co_io_remove_break(struct io_session *session, int count, char **words);
bool CO_FN co_io_resume(struct io_session *session, int count, char **words);
bool CO_FN co_io_wait_break(struct io_session *session, int count, char **words);

/* --- the image --- */

/* Opens session->image as session->open says; the image before must be closed. On failure the reason is in *err. */
bool CO_FN co_io_image_open(struct io_session *session, struct error **err) MUST_CHECK;

/* Waits for asynchronous requests and closes; harmless where nothing is open. */
void CO_FN co_io_image_close(struct io_session *session);

/* Forgets how to open. */
void io_open_clear(struct io_open *open);

/* The words of "-t", "-d" and "-i"; otherwise the reason is in *err. */
bool io_open_set_cache(struct io_open *open, const char *text, struct error **err) MUST_CHECK;
bool io_open_set_discard(struct io_open *open, const char *text, struct error **err) MUST_CHECK;
bool io_open_set_aio(struct io_open *open, const char *text, struct error **err) MUST_CHECK;

/* --- what is printed --- */

/* A number of bytes for people: "64 KiB", "1.465 KiB"; of bytes a second too. Owned. */
char *io_size_text(double bytes);

/* What a request did and how long it took. */
struct io_report {
    const char *verb; /* "read", "wrote", "discard" */
    int64_t duration_ns;
    uint64_t offset;
    uint64_t requested; /* bytes */
    uint64_t done;      /* bytes */
    bool machine;       /* as numbers with commas */
};
void io_report_print(const struct io_report *report);

/* The bytes in rows of sixteen, from `offset` of the image on. */
void io_dump(const uint8_t *data, size_t size, uint64_t offset);
