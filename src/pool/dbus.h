/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * D-Bus, as far as asking a service takes: one connection to the system's bus, and one call at a time on it. Arguments
 * and results are written and read by their types, with the alignment that the bus prescribes. Main loop.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"

struct dbus;
struct error;

enum { DBUS_MESSAGE_MAX = 1 << 20 };

/* --- values --- */

/* The type that each begins with aligns it; `bytes` begins where a body begins. */
void dbus_put_align(GByteArray *bytes, unsigned alignment);
void dbus_put_u32(GByteArray *bytes, uint32_t value);    /* u, i, b */
void dbus_put_u64(GByteArray *bytes, uint64_t value);    /* t, x */
void dbus_put_text(GByteArray *bytes, const char *text); /* s, o */
void dbus_put_signature(GByteArray *bytes, const char *text);
/* An array: begins with the alignment of its elements, and ends with what begin returned. */
size_t dbus_put_array_begin(GByteArray *bytes, unsigned alignment);
void dbus_put_array_end(GByteArray *bytes, size_t at, unsigned alignment);

struct dbus_reader {
    const uint8_t *data;
    size_t at, size;
};
/* Each false where the message ends too early or says what cannot be. Texts are borrowed, and end with NUL. */
bool dbus_get_align(struct dbus_reader *reader, unsigned alignment);
bool dbus_get_u32(struct dbus_reader *reader, uint32_t *ret);
bool dbus_get_text(struct dbus_reader *reader, const char **ret);
bool dbus_get_signature(struct dbus_reader *reader, const char **ret);
/* Where the array that begins here ends. */
bool dbus_get_array(struct dbus_reader *reader, unsigned alignment, size_t *ret_end);

/* --- calls --- */

struct dbus_call {
    const char *service, *path, *interface, *method;
    const char *signature; /* of `arguments` */
    const GByteArray *arguments;
};

struct dbus_reply {
    uint8_t *message; /* owned */
    struct dbus_reader body;
    const char *signature; /* "" for nothing; in `message` */
};
void dbus_reply_clear(struct dbus_reply *reply);

/* Connected to the system's bus: that of DBUS_SYSTEM_BUS_ADDRESS, or the usual socket. NULL: *err. */
struct dbus *CO_FN co_dbus_new(struct error **err) MUST_CHECK;
void dbus_free(struct dbus *dbus); /* NULL is allowed */
AUTO_DEFINE(dbus, struct dbus *, dbus_free)

/* False: *err, as the service or the bus says it; *ret_lost (may be NULL): the connection is of no more use. */
bool CO_FN co_dbus_call(struct dbus *dbus, const struct dbus_call *call, struct dbus_reply *ret, bool *ret_lost,
                        struct error **err) MUST_CHECK;

/* --- for tests --- */

/* The paths in the address that can be connected to, the first first; '@' first: an abstract name. Owned. */
GPtrArray *dbus_address_paths(const char *address);

/* What a message says, without its body. */
struct dbus_header {
    uint8_t type;
    uint32_t reply_to; /* serial; 0: none */
    const char *error; /* name; NULL: none */
    const char *signature;
    size_t body; /* where it begins */
};
/* Of a whole message. */
bool dbus_header_parse(const uint8_t *message, size_t size, struct dbus_header *ret);
