/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

struct block_driver;

extern const struct block_driver virtio_blk_vhost_user_driver;
extern const struct block_driver virtio_blk_vhost_vdpa_driver;
