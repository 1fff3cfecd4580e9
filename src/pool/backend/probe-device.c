/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/probe-device.h"

#include <blkid.h>
#include <glib.h>
#include <string.h>

#include "loop/loop.h"
#include "pool/pool-error.h"

enum probe_outcome { PROBE_FOUND, PROBE_NOTHING, PROBE_FAILED, PROBE_MORE };

struct probe {
    const char *device;
    char *type; /* what was found; owned */
    enum probe_outcome outcome;
};

/* The value that the probe has under that name. */
static char *take_value(blkid_probe probe, const char *name)
{
    const char *value = NULL;
    size_t size = 0;

    return blkid_probe_lookup_value(probe, name, &value, &size) ? NULL : g_strdup(value);
}

/* One chain of libblkid's; false: it has found nothing. */
static bool run_chain(struct probe *probe, blkid_probe library, const char *name)
{
    int ret = blkid_do_probe(library);

    if (ret < 0)
        probe->outcome = PROBE_FAILED;
    if (ret)
        return ret < 0;
    probe->type = take_value(library, name);
    probe->outcome = blkid_do_probe(library) == 0 ? PROBE_MORE : PROBE_FOUND;
    if (!probe->type)
        probe->outcome = PROBE_FAILED;
    return true;
}

static int look(void *opaque)
{
    struct probe *probe = opaque;
    blkid_probe library = blkid_new_probe_from_filename(probe->device);

    probe->outcome = PROBE_FAILED;
    if (!library)
        return 0;
    probe->outcome = PROBE_NOTHING;
    blkid_probe_enable_superblocks(library, 1);
    blkid_probe_set_superblocks_flags(library, BLKID_SUBLKS_TYPE);
    if (!run_chain(probe, library, "TYPE")) {
        blkid_probe_enable_superblocks(library, 0);
        blkid_reset_probe(library);
        blkid_probe_enable_partitions(library, 1);
        run_chain(probe, library, "PTTYPE");
    }
    blkid_free_probe(library);
    return 0;
}

static enum probe_outcome CO_FN co_look(const char *device, char **ret_type)
{
    struct probe probe = {.device = device};

    (void)co_worker_run(look, &probe);
    *ret_type = probe.type;
    return probe.outcome;
}

static bool is_same(const char *found, const char *type)
{
    return found && !strcmp(found, type);
}

static bool no_answer(enum probe_outcome outcome, const char *format, struct pool_error **err)
{
    if (outcome == PROBE_FAILED)
        return pool_error_set(err, POOL_ERROR_PROBE_FAILED, "Failed to probe for format type '%s'", format);
    return pool_error_set(err, POOL_ERROR_PROBE_FAILED, "Found additional probes to run, probing may be incorrect");
}

bool CO_FN co_device_check_unused(const char *device, const char *format, const char *type, struct pool_error **err)
{
    g_autofree char *found = NULL;
    enum probe_outcome outcome = co_look(device, &found);

    if (outcome == PROBE_NOTHING)
        return true;
    if (outcome != PROBE_FOUND)
        return no_answer(outcome, format, err);
    if (is_same(found, type))
        return pool_error_set(err, POOL_ERROR_POOL_BUILT, "Device '%s' already formatted using '%s'", device, format);
    return pool_error_set(err, POOL_ERROR_POOL_BUILT,
                          "Format of device '%s' does not match the expected format '%s', forced overwrite is "
                          "necessary",
                          device, format);
}

bool CO_FN co_device_check_format(const char *device, const char *format, const char *type, struct pool_error **err)
{
    g_autofree char *found = NULL;
    enum probe_outcome outcome = co_look(device, &found);

    if (outcome == PROBE_FOUND && is_same(found, type))
        return true;
    if (outcome == PROBE_NOTHING)
        return pool_error_set(err, POOL_ERROR_PROBE_FAILED, "Device '%s' is unrecognized, requires build", device);
    if (outcome != PROBE_FOUND)
        return no_answer(outcome, format, err);
    return pool_error_set(err, POOL_ERROR_OPERATION_INVALID,
                          "Format of device '%s' does not match the expected format '%s'", device, format);
}

char *CO_FN co_device_find_format(const char *device)
{
    char *found = NULL;

    (void)co_look(device, &found);
    return found;
}
