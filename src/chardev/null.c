/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* null: drops all output, and never has any input. */
#include "chardev/chardev-internal.h"

static bool CO_FN co_null_create(struct chardev *chardev, const struct chardev_backend *backend, struct error **err)
{
    chardev_opened(chardev);
    return true;
}

const struct chardev_ops chardev_null_ops = {
    .kind = CHARDEV_BACKEND_KIND_NULL,
    .permanent = true,
    .co_create = co_null_create,
};
