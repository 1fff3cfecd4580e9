/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the simulation share. */
#pragma once

#include <glib.h>

#include "loop/loop-internal.h"
#include "loop/sim.h"

enum { SIM_SECTOR = 512, SIM_PAGE = 4096, SIM_FD_BASE = 1 << 20 };

/* --- a sequence of random numbers --- */

struct sim_random {
    uint64_t state;
};
uint64_t sim_random_next(struct sim_random *random);
uint64_t sim_random_below(struct sim_random *random, uint64_t limit); /* limit > 0 */

/* --- images: what a file holds --- */

/* Pages are shared between images and copied when one of several writes. */
struct sim_page {
    unsigned references;
    uint64_t index;
    unsigned char data[SIM_PAGE];
};

/* Sorted by index; a page that is missing is a hole. */
struct sim_image {
    struct sim_page **pages;
    size_t count;
    size_t capacity;
    uint64_t size;
};
void sim_image_copy(struct sim_image *to, const struct sim_image *from); /* `to` is uninitialised */
void sim_image_done(struct sim_image *image);
void sim_image_read(const struct sim_image *image, uint64_t offset, void *to, size_t bytes);    /* zeroes in holes */
void sim_image_write(struct sim_image *image, uint64_t offset, const void *from, size_t bytes); /* grows it */
void sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t bytes); /* within the size; whole pages go */
void sim_image_resize(struct sim_image *image, uint64_t size);
size_t sim_image_new_pages(const struct sim_image *image, uint64_t offset, uint64_t bytes); /* that a write makes */
int64_t sim_image_seek(const struct sim_image *image, uint64_t offset, bool data);

/* --- files --- */

enum sim_change_kind { SIM_CHANGE_WRITE, SIM_CHANGE_ZERO, SIM_CHANGE_RESIZE, SIM_CHANGE_GROW };

/* One change of a file's contents. Shared by the file's lists and the record. */
struct sim_change {
    unsigned references;
    enum sim_change_kind kind;
    bool lasting;        /* survives a power cut by itself: RWF_DSYNC */
    bool keep_size;      /* ZERO */
    uint64_t offset;     /* RESIZE: the new size; GROW: the least size */
    uint64_t bytes;      /* WRITE, ZERO */
    uint64_t sequence;   /* in the order of completion, on its file */
    size_t submitted_at; /* position of the record */
    unsigned char *data; /* WRITE; owned */
};
struct sim_change *sim_change_new(enum sim_change_kind kind, uint64_t offset, uint64_t bytes) MUST_CHECK;
struct sim_change *sim_change_ref(struct sim_change *change);
void sim_change_unref(struct sim_change *change);

struct sim_file {
    unsigned references; /* names and handles */
    uint64_t id;
    mode_t mode;
    unsigned links;
    struct sim_image current;
    struct sim_image durable;
    GPtrArray *pending;   /* completed since the last flush, in order: owned references */
    GPtrArray *in_flight; /* submitted, not completed */
    uint64_t sequence;    /* of the last completed change */
    GArray *locks;        /* struct sim_lock_range */
};
struct sim_file *sim_file_ref(struct sim_file *file);
void sim_file_unref(struct sim_file *file);

/* --- disks --- */

enum sim_record_kind { SIM_RECORD_CHANGE, SIM_RECORD_SYNC, SIM_RECORD_LINK, SIM_RECORD_UNLINK, SIM_RECORD_RENAME };

struct sim_record {
    enum sim_record_kind kind;
    uint64_t file_id;
    struct sim_change *change; /* CHANGE */
    uint64_t sequence;         /* SYNC: everything up to it is on the medium */
    mode_t mode;               /* LINK */
    char *path;                /* LINK, UNLINK, RENAME */
    char *other_path;          /* RENAME: to */
};

struct sim_disk {
    GHashTable *names; /* path -> struct sim_file, both owned; never iterated where order matters */
    uint64_t next_id;
    uint64_t capacity;
    uint64_t used_pages;
    struct sim_disk *base; /* as it was when recording began; NULL: no record */
    GPtrArray *record;     /* struct sim_record */
};
struct sim_file *sim_disk_find(const struct sim_disk *disk, const char *path); /* borrowed; NULL: none */
struct sim_file *sim_disk_create(struct sim_disk *disk, const char *path, mode_t mode);
void sim_disk_unlink(struct sim_disk *disk, const char *path);
void sim_disk_rename(struct sim_disk *disk, const char *from, const char *to);

/* The life of a change: begin when it is submitted; then complete, drop, tear or lose. 0 or -errno. */
void sim_disk_change_begin(struct sim_disk *disk, struct sim_file *file, struct sim_change *change);
int sim_disk_change_complete(struct sim_disk *disk, struct sim_file *file, struct sim_change *change);
void sim_disk_change_drop(struct sim_file *file, struct sim_change *change);
void sim_disk_change_lose(struct sim_file *file, struct sim_change *change); /* the power has gone off */
void sim_disk_change_tear(struct sim_disk *disk, struct sim_file *file, struct sim_change *change,
                          struct sim_random *random); /* a write that fails half-way */
void sim_disk_sync(struct sim_disk *disk, struct sim_file *file, uint64_t sequence);

/* Applies to `file`, without recording: the change itself, and what a flush means. */
void sim_file_apply(struct sim_file *file, struct sim_change *change);
void sim_file_flush(struct sim_file *file, uint64_t sequence);

/* A disk with the same names whose files hold what `choose` makes of each. */
struct sim_disk *sim_disk_derive(const struct sim_disk *disk,
                                 void (*choose)(const struct sim_file *file, struct sim_image *to, void *opaque),
                                 void *opaque) MUST_CHECK;
void sim_disk_choose_cut(const struct sim_file *file, struct sim_image *to, void *random);

/* --- locks --- */

struct sim_handle;
struct sim_lock_range {
    const struct sim_handle *owner;
    uint64_t start;
    uint64_t end; /* exclusive */
    bool exclusive;
};
int sim_lock_set(int fd, uint64_t start, uint64_t length, enum file_lock lock);
int sim_lock_test(int fd, uint64_t start, uint64_t length, enum file_lock lock, pid_t *ret_pid);
void sim_lock_drop_all(struct sim_handle *handle);

/* --- descriptors --- */

struct sim;
struct sim_socket;
struct sim_listener;
struct sim_handle {
    struct sim_file *file;
    struct sim_socket *socket;
    struct sim_listener *listener;
    int flags;
    uint64_t position;
    unsigned users; /* operations under way */
};
int sim_handle_add(struct sim *sim, const struct sim_handle *handle);
struct sim_handle *sim_handle_get(int fd); /* NULL: not open */
void sim_close(int fd);

/* --- the machine --- */

struct sim {
    struct loop *loop;
    uint64_t seed;
    struct sim_random random;
    int64_t now_ns;
    struct sim_disk *disk;
    struct sim_disk *own_disk;
    bool power_off;
    bool short_transfers;
    struct sim_fault fault;
    uint64_t fault_seen;
    uint64_t counts[SIM_OP__MAX];
    int64_t delay_min_ns[SIM_OP__MAX];
    int64_t delay_max_ns[SIM_OP__MAX];
    uint64_t fingerprint;
    GPtrArray *handles;    /* by descriptor; NULL: free */
    GHashTable *listeners; /* name -> struct sim_listener, borrowed */
};
struct sim *sim_of(struct loop *loop);
struct sim *sim_self(void);
void sim_note(struct sim *sim, uint64_t what); /* into the fingerprint */

/* Counts an operation; whether it is to fail: 0 or -errno. */
int sim_op_count_in(struct sim *sim, enum sim_op op);

/* The same, and lets its time pass. */
int CO_FN co_sim_op(struct sim *sim, enum sim_op op);

/* Less than or as much as `size`, in multiples of `unit` where less. */
size_t sim_part(struct sim *sim, size_t size, size_t unit);

extern const struct loop_file_ops sim_file_ops;

int CO_FN sim_co_accept(int fd);
int CO_FN sim_co_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t CO_FN sim_co_transfer(const struct socket_request *request);
ssize_t CO_FN sim_co_read(int fd, void *to, size_t size);
ssize_t CO_FN sim_co_write(int fd, const void *from, size_t size);
void sim_signal(struct loop *loop, int fd, bool nonblocking);
int CO_FN sim_co_poll(int fd, int events);
void sim_shutdown(int fd, int how);
int sim_listen(const char *name, int backlog);
int CO_FN sim_co_dial(const char *name);
void sim_socket_close(struct sim_socket *socket);
void sim_listener_close(struct sim *sim, struct sim_listener *listener);

/* Sequential access to a file, for sim_co_read() and sim_co_write(). */
ssize_t CO_FN co_sim_file_stream(int fd, void *data, size_t size, bool write);
