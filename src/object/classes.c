/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The object types of this build, in the order in which help lists them. */
#include "object/iothread.h"
#include "object/object.h"
#include "object/secret.h"

const struct object_class *const object_classes[] = {
    &iothread_class,
    &secret_class,
    &secret_keyring_class,
    NULL,
};
