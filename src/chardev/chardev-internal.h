/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a chardev is inside: its state, and what a backend has to give. Private to this folder.
 *
 * A chardev is open while somebody is at the other end. Each time that it opens, a new session begins; a front end
 * takes part in one session at a time, and sees its end even when the next has begun before it looked.
 */
#pragma once

#include "base/cleanup.h"
#include "chardev/chardev.h"
#include "loop/lock.h"

enum {
    CHARDEV_FRONTENDS_MAX = 4, /* of one mux */
    CHARDEV_HUB_MAX = 4,       /* backends of one hub */
};

struct chardev_ops {
    enum chardev_backend_kind kind;
    size_t state_size;
    unsigned frontends_max; /* 0: one */
    bool permanent;         /* it has one session only, from its creation on */

    /*
     * Fills chardev->state, zero-filled before, and ends with chardev_opened() where the other end needs nobody. On
     * failure co_destroy() is not called.
     */
    bool (*co_create)(struct chardev *chardev, const struct chardev_backend *backend, struct error **err);
    void (*co_destroy)(struct chardev *chardev); /* no front end is left; optional */

    /* A front end has come, or is about to go (nobody waits in it); optional. */
    void (*attach)(struct chardev_frontend *frontend);
    void (*detach)(struct chardev_frontend *frontend);

    /* As co_chardev_read(), within a session; NULL: there is never any input. */
    ssize_t (*co_read)(struct chardev_frontend *frontend, void *to, size_t size);

    /* All of it, never two at once; NULL: output is dropped. */
    int (*co_write)(struct chardev *chardev, const void *from, size_t size);

    /* Ends the session that `frontend` is in, soon; NULL: the other end cannot be hung up on. */
    void (*hang_up)(struct chardev_frontend *frontend);

    void (*co_send_break)(struct chardev *chardev);   /* NULL: not possible, and nothing is done */
    char *(*describe)(const struct chardev *chardev); /* `filename` of query-chardev; NULL: the backend's name */
};

struct chardev {
    struct chardev_registry *registry;
    char *id;
    const struct chardev_ops *ops;
    void *state;                 /* the backend's */
    char *pty;                   /* path of the other side's terminal; NULL: none */
    int log_fd;                  /* gets a copy of all output; -1: none */
    bool open;                   /* somebody is at the other end */
    bool input_ended;            /* of a permanent one: its input has come to the end */
    uint64_t session;            /* number of the latest, from 1; 0: none yet */
    uint64_t break_count;        /* breaks that the other end has sent */
    struct co_condition changed; /* open, session and the front ends */
    struct co_mutex write_mutex;
    struct chardev_frontend *frontends[CHARDEV_FRONTENDS_MAX];
    unsigned frontend_count;
};

struct chardev_frontend {
    struct chardev *chardev;
    struct chardev *relay; /* the mux or hub that is this front end; NULL: somebody outside */
    void *port;            /* the backend's, where it has several front ends */
    uint64_t session;      /* that it takes part in; 0: none */
    uint64_t last_session; /* that it took part in; 0: none yet */
    bool input_ended;      /* it has read to the end of that; it may go on writing */
};

struct chardev_registry {
    struct object_registry *objects;
    void (*quit)(void *opaque); /* NULL: nobody can end the program from here */
    void *quit_opaque;
    GPtrArray *chardevs; /* in order of creation */
    bool stdio_in_use;
};

/* Every backend of this build; ends with NULL. */
extern const struct chardev_ops *const chardev_backends[];

/* The backend; NULL and the error where this build has none of that kind. */
const struct chardev_ops *chardev_backend_find(enum chardev_backend_kind kind, struct error **err) MUST_CHECK;

/* NULL where there is none of that name. */
struct chardev *chardev_find(struct chardev_registry *registry, const char *id);

/* The beginning and the end of a session. Ending without a beginning does nothing. */
void chardev_opened(struct chardev *chardev);
void chardev_closed(struct chardev *chardev);

/* The other end has sent a break. */
void chardev_note_break(struct chardev *chardev);

/* Whether anybody outside is its front end, be it through a mux or a hub. */
bool chardev_in_use(const struct chardev *chardev);

/* As chardev_claim(), for a relay. */
struct chardev_frontend *chardev_claim_for(struct chardev *chardev, struct chardev *relay,
                                           struct error **err) MUST_CHECK;

/* For backends without input: waits for the end of the session. 0 or -ECANCELED. */
ssize_t CO_FN co_frontend_wait_end(struct chardev_frontend *frontend);

/* Adds the chardev; the error has no prefix. `ret_chardev` may be NULL. */
bool CO_FN co_chardev_create(struct chardev_registry *registry, const char *id, const struct chardev_backend *backend,
                             struct chardev **ret_chardev, struct error **err) MUST_CHECK;

/* All of it to a descriptor that blocks: 0 or -errno. */
int CO_FN co_fd_write_all(int fd, const void *from, size_t size);

extern const struct chardev_ops chardev_file_ops;
extern const struct chardev_ops chardev_hub_ops;
extern const struct chardev_ops chardev_memory_ops;
extern const struct chardev_ops chardev_mux_ops;
extern const struct chardev_ops chardev_null_ops;
extern const struct chardev_ops chardev_parallel_ops;
extern const struct chardev_ops chardev_pipe_ops;
extern const struct chardev_ops chardev_pty_ops;
extern const struct chardev_ops chardev_ringbuf_ops;
extern const struct chardev_ops chardev_serial_ops;
extern const struct chardev_ops chardev_socket_ops;
extern const struct chardev_ops chardev_stdio_ops;
extern const struct chardev_ops chardev_udp_ops;
