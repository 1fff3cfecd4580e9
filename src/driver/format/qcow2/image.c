/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be done with qcow2 images as such; the parts lie in the files of their subjects. */
#include "driver/format/qcow2/image.h"

#include "base/bytes.h"
#include "block/image.h"
#include "driver/format/qcow2/amend.h"
#include "driver/format/qcow2/check.h"
#include "driver/format/qcow2/create.h"
#include "driver/format/qcow2/header.h"
#include "driver/format/qcow2/info.h"
#include "driver/format/qcow2/request.h"
#include "driver/format/qcow2/snapshot.h"
#include "driver/format/qcow2/vm-state.h"

static int qcow2_probe(const uint8_t *head, size_t size, const char *filename)
{
    return size >= 8 && load_be32(head) == QCOW2_MAGIC && load_be32(head + QCOW2_AT_VERSION) >= 2 ? 100 : 0;
}

const struct block_driver_image qcow2_image_slots = {
    .probe = qcow2_probe,
    .co_create = qcow2_co_create,
    .options = qcow2_image_options,
    .translate = qcow2_translate,
    .co_check = co_qcow2_check_node,
    .co_check_file = co_qcow2_check_file,
    .compresses = true,
    .co_measure = qcow2_co_measure,
    .co_amend = qcow2_co_amend,
    .co_amend_image = qcow2_co_amend_image,
    .backing_file = qcow2_backing_file,
    .backing_format = qcow2_backing_format,
    .co_change_backing_file = qcow2_co_change_backing_file,
    .co_snapshot_list = co_qcow2_snapshot_list,
    .co_snapshot_create = co_qcow2_snapshot_create,
    .co_snapshot_apply = co_qcow2_snapshot_apply,
    .co_snapshot_delete = co_qcow2_snapshot_delete,
    .co_snapshot_load = co_qcow2_snapshot_load,
    .co_vm_state_read = co_qcow2_vm_state_read,
    .co_vm_state_write = co_qcow2_vm_state_write,
    .co_make_empty = co_qcow2_make_empty,
};
