/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages of the vhost-user protocol with the descriptors that come along. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "driver/protocol/virtio-blk/vhost-user-protocol.h"

struct error;

struct vhost_user_message {
    uint32_t request;
    uint32_t flags;
    uint32_t size; /* of the payload */
    unsigned fd_count;
    int fds[VHOST_USER_FDS_MAX]; /* owned; -1: taken by somebody */
    union {
        uint64_t u64;
        struct vhost_user_vring_state state;
        struct vhost_user_vring_address address;
        struct vhost_user_memory memory;
        struct vhost_user_single_region region;
        struct vhost_user_log log;
        struct vhost_user_config config;
        struct vhost_user_inflight inflight;
        uint8_t bytes[VHOST_USER_PAYLOAD_MAX];
    } payload;
};

/*
 * The next message of the other side, a reply where `replies`, else a request: 1; 0: it has gone; or -errno, and the
 * error for what is no message. Cancellable.
 */
int CO_FN co_vhost_user_receive(int socket, bool replies, struct vhost_user_message *ret,
                                struct error **err) MUST_CHECK;

/* Sends a message, flags and all, of at most VHOST_USER_PAYLOAD_SENT_MAX bytes, with its descriptors, which are
 * borrowed. 0 or -errno. */
enum { VHOST_USER_PAYLOAD_SENT_MAX = 512 };
int CO_FN co_vhost_user_send(int socket, const struct vhost_user_message *message) MUST_CHECK;

/* Closes the descriptors that nobody has taken. */
void vhost_user_message_done(struct vhost_user_message *message);
