/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The object types of this build, in the order in which help lists them. */
#include "object/iothread.h"
#include "object/object.h"
#include "object/secret.h"
#include "object/throttle-group.h"

const struct object_class *const object_classes[] = {
    &iothread_class,
    &secret_class,
    &secret_keyring_class,
    &throttle_group_class,
    NULL,
};
