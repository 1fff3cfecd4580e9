/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Character devices: one file a backend. A user claims a chardev as its front end and then reads and writes it from
 * coroutines of the main loop; a mux or hub hands bytes on between several.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "gen/types.h"

struct chardev;
struct chardev_frontend;
struct chardev_registry;
struct error;
struct object_registry;

struct chardev_registry *chardev_registry_new(struct object_registry *objects);

/* Whom a person at a mux asks to end the program (Ctrl-A x); without, nothing happens then. */
void chardev_registry_set_quit(struct chardev_registry *registry, void (*quit)(void *opaque), void *opaque);
void CO_FN co_chardev_registry_free(struct chardev_registry *registry);

/* chardev-add, -change, -remove and -send-break; the pty path, if any, in *ret. */
bool CO_FN co_chardev_add(struct chardev_registry *registry, const char *id, const struct chardev_backend *backend,
                          struct chardev_return **ret, struct error **err) MUST_CHECK;
bool CO_FN co_chardev_change(struct chardev_registry *registry, const char *id, const struct chardev_backend *backend,
                             struct chardev_return **ret, struct error **err) MUST_CHECK;
bool CO_FN co_chardev_remove(struct chardev_registry *registry, const char *id, struct error **err) MUST_CHECK;
bool CO_FN co_chardev_send_break(struct chardev_registry *registry, const char *id, struct error **err) MUST_CHECK;
struct chardev_info_array *chardev_query(struct chardev_registry *registry); /* owned */
/* The name of its backend; NULL: there is no such chardev. */
const char *chardev_backend_of(struct chardev_registry *registry, const char *id);
struct chardev_backend_info_array *chardev_query_backends(void); /* owned */

/*
 * A command-line --chardev: JSON or "BACKEND,id=...,key=value..." in the reference's flat form, from which the schema's
 * nested ChardevBackend is made. Help forms print to standard output, with *ret_help set.
 */
bool CO_FN co_chardev_add_option(struct chardev_registry *registry, const char *text, bool *ret_help,
                                 struct error **err) MUST_CHECK;

/* Becomes the front end of chardev `id` (one more front end where it is a mux); the error says if it is in use. */
struct chardev_frontend *chardev_claim(struct chardev_registry *registry, const char *id,
                                       struct error **err) MUST_CHECK;
void CO_FN co_chardev_release(struct chardev_frontend *frontend); /* nobody may be waiting in it */

/* Waits until somebody is at the other end. 0 or -ECANCELED. */
int CO_FN co_chardev_wait_open(struct chardev_frontend *frontend);

/*
 * At least one byte; 0: the other end has said all it will, and perhaps hung up; or -errno. One coroutine at a time.
 * Then answers may still be written. co_chardev_wait_open() lets go of the session, and waits for the next.
 */
ssize_t CO_FN co_chardev_read(struct chardev_frontend *frontend, void *to, size_t size);

/* All of it, before what others write: 0, or -errno; -EPIPE where nobody is there. */
int CO_FN co_chardev_write(struct chardev_frontend *frontend, const void *from, size_t size);

/* Ends the front end's session. Where it can, it hangs up on the peer: a socket server goes back to listening. */
void chardev_hang_up(struct chardev_frontend *frontend);
