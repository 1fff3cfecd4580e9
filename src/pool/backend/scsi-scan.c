/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/backend/scsi-scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "pool/backend.h"
#include "pool/backend/command.h"
#include "pool/pool-error.h"

enum { TYPE_DISK = 0, TYPE_ROM = 5, LINK_WAIT_MS = 10000 };
enum { NODE_STEP_MS = 20, NEW_NODE_WAIT_MS = 5000, OLD_NODE_WAIT_MS = 1000 };

#define SCSI_ID "/lib/udev/scsi_id"

/* --- hosts --- */

/* Content of a file of one line, without its end; owned, NULL: there is none. */
static char *read_line(const char *folder, const char *name, const char *file)
{
    g_autofree char *path = g_build_filename(folder, name, file, NULL);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_strchomp(text);
}

static int number_of_name(const char *name, unsigned *ret)
{
    const char *digits = name;
    char *end;
    uint64_t number;

    if (g_str_has_prefix(name, "scsi_host"))
        digits += strlen("scsi_host");
    else if (g_str_has_prefix(name, "host"))
        digits += strlen("host");
    if (digits == name || !g_ascii_isdigit(*digits))
        return -EINVAL;
    number = g_ascii_strtoull(digits, &end, 10);
    if (*end || number > INT32_MAX)
        return -EINVAL;
    *ret = (unsigned)number;
    return 0;
}

/* The link of a host leads through the folder of its card: ".../0000:00:1f.2/ata1/host0/scsi_host/host0". */
static bool is_behind(const char *hosts, const char *name, const struct pool_adapter *adapter)
{
    g_autofree char *wanted =
        g_strdup_printf("/%04x:%02x:%02x.%x/", adapter->domain, adapter->bus, adapter->slot, adapter->function);
    g_autofree char *path = g_build_filename(hosts, name, NULL);
    g_autofree char *unique = read_line(hosts, name, "unique_id");
    char *real = realpath(path, NULL);
    bool found = real && strstr(real, wanted) && unique && g_ascii_strtoull(unique, NULL, 10) == adapter->unique_id;

    free(real);
    return found;
}

/* World wide names are written with and without "0x". */
static bool same_wwn(const char *shown, const char *wanted)
{
    if (shown && g_str_has_prefix(shown, "0x"))
        shown += 2;
    return shown && wanted && !g_ascii_strcasecmp(shown, wanted);
}

static bool is_port(const char *hosts, const char *name, const struct pool_adapter *adapter)
{
    g_autofree char *node_name = read_line(hosts, name, "node_name");
    g_autofree char *port_name = read_line(hosts, name, "port_name");

    return same_wwn(node_name, adapter->wwnn) && same_wwn(port_name, adapter->wwpn);
}

int scsi_find_host(const char *sysfs, const struct pool_adapter *adapter, unsigned *ret)
{
    bool is_fc = adapter->type == POOL_ADAPTER_FC_HOST;
    g_autofree char *hosts = g_build_filename(sysfs, "class", is_fc ? "fc_host" : "scsi_host", NULL);
    g_autoptr(GDir) folder = NULL;
    const char *name;

    if (!is_fc && !adapter->has_parent_address)
        return adapter->name ? number_of_name(adapter->name, ret) : -EINVAL;
    folder = g_dir_open(hosts, 0, NULL);
    while (folder && (name = g_dir_read_name(folder))) {
        if (is_fc ? is_port(hosts, name, adapter) : is_behind(hosts, name, adapter))
            return number_of_name(name, ret);
    }
    return -ENOENT;
}

static uint64_t read_number(const char *folder, const char *name, const char *file)
{
    g_autofree char *text = read_line(folder, name, file);

    return text ? g_ascii_strtoull(text, NULL, 10) : 0;
}

/* Ports that can bear others, and have room. The kernel makes its files only in hosts that can. */
static bool has_room(const char *hosts, const char *name)
{
    g_autofree char *state = read_line(hosts, name, "port_state");

    return state && !strcmp(state, "Online") &&
           read_number(hosts, name, "npiv_vports_inuse") < read_number(hosts, name, "max_npiv_vports");
}

static bool may_bear(const char *hosts, const char *name, const struct pool_adapter *child)
{
    g_autofree char *fabric = NULL;

    if (child->parent_wwnn) {
        const struct pool_adapter parent = {.wwnn = child->parent_wwnn, .wwpn = child->parent_wwpn};

        return is_port(hosts, name, &parent);
    }
    fabric = read_line(hosts, name, "fabric_name");
    return has_room(hosts, name) && (!child->parent_fabric_wwn || same_wwn(fabric, child->parent_fabric_wwn));
}

int scsi_find_parent(const char *sysfs, const struct pool_adapter *child, unsigned *ret)
{
    g_autofree char *hosts = g_build_filename(sysfs, "class", "fc_host", NULL);
    g_autoptr(GDir) folder = NULL;
    const char *name;
    bool found = false;

    if (child->parent)
        return number_of_name(child->parent, ret);
    folder = g_dir_open(hosts, 0, NULL);
    while (folder && (name = g_dir_read_name(folder))) {
        unsigned number;

        /* Of several the first, so that it is the same one each time. */
        if (!number_of_name(name, &number) && (!found || number < *ret) && may_bear(hosts, name, child)) {
            *ret = number;
            found = true;
        }
    }
    return found ? 0 : -ENOENT;
}

/* --- units --- */

static void unit_clear(void *unit)
{
    g_free(((struct scsi_unit *)unit)->node);
}

static int compare_units(const void *left, const void *right)
{
    const struct scsi_unit *a = left, *b = right;

    if (a->bus != b->bus)
        return a->bus < b->bus ? -1 : 1;
    if (a->target != b->target)
        return a->target < b->target ? -1 : 1;
    return a->lun < b->lun ? -1 : a->lun > b->lun;
}

/* The kernel's name of the block device of a unit; owned, NULL: it has none. */
static char *find_node(const char *devices, const char *name)
{
    g_autofree char *path = g_build_filename(devices, name, "block", NULL);
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    const char *node = folder ? g_dir_read_name(folder) : NULL;

    return node ? g_build_filename("/dev", node, NULL) : NULL;
}

static bool is_storage(const char *devices, const char *name)
{
    g_autofree char *type = read_line(devices, name, "type");
    uint64_t number = type ? g_ascii_strtoull(type, NULL, 10) : UINT64_MAX;

    return number == TYPE_DISK || number == TYPE_ROM;
}

int scsi_list_units(const char *sysfs, unsigned host, GArray **ret)
{
    g_autofree char *devices = g_build_filename(sysfs, "bus", "scsi", "devices", NULL);
    g_autoptr(GDir) folder = g_dir_open(devices, 0, NULL);
    const char *name;

    *ret = g_array_new(FALSE, FALSE, sizeof(struct scsi_unit));
    g_array_set_clear_func(*ret, unit_clear);
    while (folder && (name = g_dir_read_name(folder))) {
        struct scsi_unit unit = {0};
        unsigned number;

        if (sscanf(name, "%u:%u:%u:%" SCNu64, &number, &unit.bus, &unit.target, &unit.lun) != 4 || number != host ||
            !is_storage(devices, name))
            continue;
        unit.node = find_node(devices, name);
        g_array_append_val(*ret, unit);
    }
    g_array_sort(*ret, compare_units);
    return 0;
}

/* --- as volumes --- */

struct listing {
    unsigned host;
    GArray *units;
};

static int list(void *opaque)
{
    struct listing *listing = opaque;

    return scsi_list_units("/sys", listing->host, &listing->units);
}

/* What the unit calls itself, else where it is. */
static char *CO_FN co_find_key(const char *node, const char *path)
{
    const char *argv[] = {SCSI_ID, "--replace-whitespace", "--whitelisted", "--device", node, NULL};
    struct command_result result = {0};
    char *key = NULL;

    if (g_file_test(SCSI_ID, G_FILE_TEST_IS_EXECUTABLE) && co_command_run(argv, &result, NULL)) {
        g_strchomp(result.output);
        if (*result.output && g_utf8_validate(result.output, -1, NULL))
            key = g_strdup(result.output);
    }
    command_result_clear(&result);
    return key ? key : g_strdup(path);
}

/* Once one's link has been waited for in vain, those of the others are not any more. */
static void CO_FN co_add_unit(struct pool *pool, const struct scsi_unit *unit, unsigned *wait_ms,
                              struct pool_scan *scan)
{
    AUTO(pool_error) error = NULL;
    AUTO(volume) volume = volume_new();
    bool found;

    volume->target.path = co_device_stable_path(pool, unit->node, *wait_ms, &found);
    if (!found) {
        *wait_ms = 0;
        log_warning("pool '%s': no link in '%s' leads to '%s'", pool->def->name, pool->def->target_path, unit->node);
        return;
    }
    volume->name = g_strdup_printf("unit:%u:%u:%" PRIu64, unit->bus, unit->target, unit->lun);
    volume->key = co_find_key(unit->node, volume->target.path);
    volume->type = VOLUME_BLOCK;
    /* A drive without a disc is no volume. */
    if (!co_device_volume_refresh(pool, volume, &error)) {
        log_warning("pool '%s': %s", pool->def->name, error->message);
        return;
    }
    scan->capacity += volume->capacity;
    scan->allocation += volume->allocation;
    pool_scan_add(scan, TAKE(volume));
}

/* All channels, targets and units. */
static bool CO_FN co_rescan(unsigned host, struct pool_error **err)
{
    static const char all[] = "- - -";
    g_autofree char *path = g_strdup_printf("/sys/class/scsi_host/host%u/scan", host);
    AUTO(fd) fd = co_file_open(path, O_WRONLY, 0);
    int ret;

    if (fd < 0)
        return pool_error_set_errno(err, fd, "Could not open '%s' to trigger host scan", path);
    ret = co_file_write_exact(fd, all, sizeof(all) - 1, 0);
    return !ret || pool_error_set_errno(err, ret, "Write to '%s' to trigger host scan failed", path);
}

static bool contains(const GArray *units, const struct scsi_unit *unit)
{
    for (guint i = 0; i < units->len; i++) {
        if (!compare_units(unit, &g_array_index(units, struct scsi_unit, i)))
            return true;
    }
    return false;
}

/*
 * How long to wait for the nodes that are missing: the kernel attaches the driver of a unit that it has just found on
 * its own time. Units that were there before may never have one, like members of an array that its card keeps hidden,
 * and must not make each look slow.
 */
static unsigned patience_ms(const GArray *units, const GArray *before)
{
    unsigned patience = 0;

    for (guint i = 0; i < units->len; i++) {
        const struct scsi_unit *unit = &g_array_index(units, struct scsi_unit, i);

        if (!unit->node)
            patience = MAX(patience, contains(before, unit) ? OLD_NODE_WAIT_MS : NEW_NODE_WAIT_MS);
    }
    return patience;
}

/* Units come and go meanwhile; those of `before` were there before the host was asked to look. */
static void CO_FN co_wait_for_nodes(unsigned host, const GArray *before)
{
    for (unsigned waited = 0;; waited += NODE_STEP_MS) {
        struct listing now = {.host = host};
        unsigned patience;

        (void)co_worker_run(list, &now);
        patience = patience_ms(now.units, before);
        g_array_unref(now.units);
        if (waited >= patience || co_sleep_ns(NODE_STEP_MS * NS_PER_MS))
            return;
    }
}

static void CO_FN co_add_units(struct pool *pool, unsigned host, struct pool_scan *scan)
{
    struct listing listing = {.host = host};
    unsigned wait_ms = LINK_WAIT_MS;

    (void)co_worker_run(list, &listing);
    for (guint i = 0; i < listing.units->len; i++) {
        const struct scsi_unit *unit = &g_array_index(listing.units, struct scsi_unit, i);

        if (unit->node)
            co_add_unit(pool, unit, &wait_ms, scan);
    }
    g_array_unref(listing.units);
}

bool CO_FN co_scsi_scan(struct pool *pool, unsigned host, struct pool_scan *scan, struct pool_error **err)
{
    struct listing before = {.host = host};
    const char *target = pool->def->target_path;
    bool ok;

    (void)co_worker_run(list, &before);
    ok = co_rescan(host, err);
    if (ok && strcmp(target, "/dev") != 0 && !g_str_has_prefix(target, "/dev/"))
        ok = pool_error_set(err, POOL_ERROR_INVALID_ARG, "unable to use target path '%s' for dev 'host%u'", target,
                            host);
    if (ok) {
        co_wait_for_nodes(host, before.units);
        co_command_settle();
        co_add_units(pool, host, scan);
    }
    g_array_unref(before.units);
    return ok;
}
