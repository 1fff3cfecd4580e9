/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SCSI hosts and their units as the kernel shows them below `sysfs` ("/sys"). What has no co_ before its name blocks,
 * and is for worker threads.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct pool;
struct pool_adapter;
struct pool_error;
struct pool_scan;

/* The number of the host: by its name, by the address of the card behind it, or by the two names of a Fibre Channel
 * port. -ENOENT: there is none; -EINVAL: the name is none of a host. */
int scsi_find_host(const char *sysfs, const struct pool_adapter *adapter, unsigned *ret);

/* The same of the host that bears the Fibre Channel port `child`: as that names it by name, by the two names of a port
 * or by its fabric; where it names none, any that is online and has room. */
int scsi_find_parent(const char *sysfs, const struct pool_adapter *child, unsigned *ret);

/* A disk or a drive that reads discs. */
struct scsi_unit {
    unsigned bus, target;
    uint64_t lun;
    char *node; /* "/dev/sda"; owned; NULL: it has none (yet) */
};

/* struct scsi_unit of all units of that host, by bus, target and lun; freed with the array. 0 or -errno. */
int scsi_list_units(const char *sysfs, unsigned host, GArray **ret);

/* Looks for new units of the host, and adds them all to `scan` as volumes. The nodes of new ones are waited for, some
 * seconds at most. A unit without a node, or to which no link in the pool's target leads, is left out. */
bool CO_FN co_scsi_scan(struct pool *pool, unsigned host, struct pool_scan *scan, struct pool_error **err);
