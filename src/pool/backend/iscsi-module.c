/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The module "iscsi": what iscsi-client.h promises, by libiscsi. */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <string.h>

#include "base/compiler.h"
#include "pool/backend/iscsi-client.h"

enum {
    TIMEOUT_S = 30,
    READY_TRIES = 10,
    UNITS_BYTES = 2056,              /* of a list of 256 units */
    UNITS_BYTES_MAX = 8 + 8 * 65536, /* more a target cannot have that numbers them by 16 bits */
    INQUIRY_BYTES = 64,
    WIPE_BLOCKS = 128,
};

static bool fail(struct iscsi_context *context, const char *what, char **ret_message)
{
    const char *text = iscsi_get_error(context);

    *ret_message = g_strchomp(g_strdup_printf("%s: %s", what, text && *text ? text : "no reason given"));
    return false;
}

/* --- sessions --- */

/* NULL, or what has failed. */
static const char *log_in(struct iscsi_context *context, const struct iscsi_login *login, enum iscsi_session_type type)
{
    if (iscsi_set_session_type(context, type) || iscsi_connect_sync(context, login->portal))
        return "Failed to connect";
    return iscsi_login_sync(context) ? "Failed to login" : NULL;
}

static struct iscsi_context *open_session(const struct iscsi_login *login, enum iscsi_session_type type,
                                          char **ret_message)
{
    struct iscsi_context *context = iscsi_create_context(login->initiator);
    const char *failed;

    if (!context) {
        *ret_message = g_strdup("no memory for an iSCSI session");
        return NULL;
    }
    iscsi_set_timeout(context, TIMEOUT_S);
    iscsi_set_noautoreconnect(context, 1);
    if (login->username)
        iscsi_set_initiator_username_pwd(context, login->username, login->password);
    if (login->target)
        iscsi_set_targetname(context, login->target);
    failed = log_in(context, login, type);
    if (failed) {
        fail(context, failed, ret_message);
        iscsi_destroy_context(context);
        return NULL;
    }
    return context;
}

static void close_session(struct iscsi_context *context)
{
    (void)iscsi_logout_sync(context);
    iscsi_destroy_context(context);
}

/* --- units --- */

/* Why a unit has been reset or is new, it says once each. */
static bool ask_ready(struct iscsi_context *context, unsigned lun)
{
    bool ready = false, asks_again = true;

    for (unsigned tries = 0; asks_again && tries < READY_TRIES; tries++) {
        struct scsi_task *task = iscsi_testunitready_sync(context, (int)lun);

        ready = task && task->status == SCSI_STATUS_GOOD;
        asks_again =
            task && task->status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
        if (task)
            scsi_free_scsi_task(task);
    }
    return ready;
}

static bool ask_kind(struct iscsi_context *context, struct iscsi_unit *unit)
{
    struct scsi_task *task = iscsi_inquiry_sync(context, (int)unit->lun, 0, 0, INQUIRY_BYTES);
    const struct scsi_inquiry_standard *answer = NULL;

    if (task && task->status == SCSI_STATUS_GOOD)
        answer = scsi_datain_unmarshall(task);
    if (answer)
        unit->is_disk = answer->device_type == SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS;
    if (task)
        scsi_free_scsi_task(task);
    return answer;
}

static bool ask_size(struct iscsi_context *context, struct iscsi_unit *unit)
{
    struct scsi_task *task = iscsi_readcapacity16_sync(context, (int)unit->lun);
    const struct scsi_readcapacity16 *answer = NULL;

    if (task && task->status == SCSI_STATUS_GOOD)
        answer = scsi_datain_unmarshall(task);
    if (answer && answer->returned_lba < INT64_MAX) {
        /* It says the last block, which counts. */
        unit->blocks = answer->returned_lba + 1;
        unit->block_size = answer->block_length;
    }
    if (task)
        scsi_free_scsi_task(task);
    return answer;
}

static bool look(struct iscsi_context *context, struct iscsi_unit *unit)
{
    unit->is_ready = ask_ready(context, unit->lun);
    return !unit->is_ready || (ask_kind(context, unit) && (!unit->is_disk || ask_size(context, unit)));
}

static bool look_at_all(struct iscsi_context *context, const struct scsi_reportluns_list *list, GArray *units,
                        char **ret_message)
{
    for (uint32_t i = 0; i < list->num; i++) {
        struct iscsi_unit unit = {.lun = list->luns[i]};

        if (!look(context, &unit))
            return fail(context, "cannot look at a unit", ret_message);
        g_array_append_val(units, unit);
    }
    return true;
}

static bool list_units(const struct iscsi_login *login, GArray *units, char **ret_message)
{
    struct iscsi_context *context = open_session(login, ISCSI_SESSION_NORMAL, ret_message);
    const struct scsi_reportluns_list *list = NULL;
    struct scsi_task *task;
    bool ok;

    if (!context)
        return false;
    task = iscsi_reportluns_sync(context, 0, UNITS_BYTES);
    /* A target with more of them than fit says how many bytes it needs. */
    if (task && task->status == SCSI_STATUS_GOOD && scsi_datain_getfullsize(task) > UNITS_BYTES) {
        int needed = MIN(scsi_datain_getfullsize(task), UNITS_BYTES_MAX);

        scsi_free_scsi_task(task);
        task = iscsi_reportluns_sync(context, 0, needed);
    }
    if (task && task->status == SCSI_STATUS_GOOD)
        list = scsi_datain_unmarshall(task);
    ok = list ? look_at_all(context, list, units, ret_message) : fail(context, "cannot list units", ret_message);
    if (task)
        scsi_free_scsi_task(task);
    close_session(context);
    return ok;
}

/* --- targets --- */

static bool list_targets(const struct iscsi_login *login, GPtrArray *targets, char **ret_message)
{
    struct iscsi_context *context = open_session(login, ISCSI_SESSION_DISCOVERY, ret_message);
    struct iscsi_discovery_address *all;
    bool ok;

    if (!context)
        return false;
    all = iscsi_discovery_sync(context);
    ok = all || fail(context, "cannot ask for targets", ret_message);
    for (const struct iscsi_discovery_address *one = all; one; one = one->next)
        g_ptr_array_add(targets, g_strdup(one->target_name));
    if (all)
        iscsi_free_discovery_data(context, all);
    close_session(context);
    return ok;
}

/* --- wiping --- */

static bool write_zeroes(struct iscsi_context *context, const struct iscsi_unit *unit, uint8_t *zeroes)
{
    bool ok = true;

    for (uint64_t block = 0; ok && block < unit->blocks; block += WIPE_BLOCKS) {
        uint32_t count = (uint32_t)MIN((uint64_t)WIPE_BLOCKS, unit->blocks - block);
        struct scsi_task *task = iscsi_write16_sync(context, (int)unit->lun, block, zeroes, count * unit->block_size,
                                                    (int)unit->block_size, 0, 0, 0, 0, 0);

        ok = task && task->status == SCSI_STATUS_GOOD;
        if (task)
            scsi_free_scsi_task(task);
    }
    return ok;
}

static bool flush(struct iscsi_context *context, unsigned lun)
{
    struct scsi_task *task = iscsi_synchronizecache16_sync(context, (int)lun, 0, 0, 0, 0);
    /* One without a cache need not know the command. */
    bool ok = task && (task->status == SCSI_STATUS_GOOD || task->sense.key == SCSI_SENSE_ILLEGAL_REQUEST);

    if (task)
        scsi_free_scsi_task(task);
    return ok;
}

static bool wipe(const struct iscsi_login *login, unsigned lun, char **ret_message)
{
    struct iscsi_context *context = open_session(login, ISCSI_SESSION_NORMAL, ret_message);
    struct iscsi_unit unit = {.lun = lun};
    g_autofree uint8_t *zeroes = NULL;
    bool ok;

    if (!context)
        return false;
    ok = look(context, &unit) && unit.is_ready && unit.is_disk && unit.block_size && unit.block_size <= G_MAXUINT16 + 1;
    if (ok) {
        zeroes = g_malloc0((size_t)WIPE_BLOCKS * unit.block_size);
        ok = write_zeroes(context, &unit, zeroes) && flush(context, lun);
    }
    if (!ok)
        fail(context, "cannot write to the unit", ret_message);
    close_session(context);
    return ok;
}

extern const struct iscsi_module ashlar_iscsi_module;
const struct iscsi_module ashlar_iscsi_module = {
    .head = {ASHLAR_VERSION},
    .list_units = list_units,
    .list_targets = list_targets,
    .wipe = wipe,
};
