/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a pool is by its XML. All strings are owned; NULL: not given. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/compiler.h"
#include "pool/permissions.h"
#include "pool/pool-type.h"

struct pool_error;
struct xml_writer;

/* What XML can say yes or no to, or leave open. */
enum tristate { TRISTATE_ABSENT, TRISTATE_YES, TRISTATE_NO };

struct pool_host {
    char *name;
    int port; /* 0: the usual one */
};

/* Bytes of a device, the end not included. */
struct pool_extent {
    uint64_t start, end;
};

struct pool_device {
    char *path;
    enum tristate part_separator;
    struct pool_extent *free_extents; /* of disk pools, found by a refresh */
    size_t free_extent_count;
};

enum pool_adapter_type { POOL_ADAPTER_NONE, POOL_ADAPTER_SCSI_HOST, POOL_ADAPTER_FC_HOST };

struct pool_adapter {
    enum pool_adapter_type type;
    char *name; /* scsi_host: "host5", "scsi_host5" */
    bool has_parent_address;
    unsigned unique_id, domain, bus, slot, function;                            /* of the parent's address */
    char *parent, *parent_wwnn, *parent_wwpn, *parent_fabric_wwn, *wwnn, *wwpn; /* fc_host */
    enum tristate managed;
};

enum pool_auth_type { POOL_AUTH_NONE, POOL_AUTH_CHAP, POOL_AUTH_CEPH };

/* A secret by its uuid, or by what it is used for. */
struct secret_reference {
    bool has_uuid;
    uint8_t uuid[16];
    char *usage;
};

struct pool_auth {
    enum pool_auth_type type;
    char *username;
    char *secret_type;
    struct secret_reference secret;
};

struct pool_source {
    struct pool_host *hosts;
    size_t host_count;
    struct pool_device *devices;
    size_t device_count;
    char *dir;
    struct pool_adapter adapter;
    char *name;
    char *initiator; /* IQN */
    int format;      /* of the type's source formats */
    struct pool_auth auth;
    char *protocol_version;
    char *vendor;
    char *product;
};

struct pool_option {
    char *name;
    char *value; /* NULL for options of mounting */
};

enum pool_refresh_allocation { POOL_REFRESH_ABSENT, POOL_REFRESH_DEFAULT, POOL_REFRESH_CAPACITY };

struct pool_def {
    enum pool_type type;
    char *name;
    uint8_t uuid[16];
    uint64_t capacity, allocation, available; /* bytes, as the last refresh found them */
    enum tristate cow;
    struct pool_source source;
    char *target_path;
    struct permissions permissions;
    enum pool_refresh_allocation refresh_allocation;
    bool has_options;
    struct pool_option *options; /* of mounting (fs, netfs), or of the cluster's client (rbd) */
    size_t option_count;
};

void pool_source_clear(struct pool_source *source);
void pool_def_free(struct pool_def *def); /* NULL is allowed */
AUTO_DEFINE(pool_def, struct pool_def *, pool_def_free)

/* Of a whole document, whose root is <pool>; `file`: of a file that wraps it, in which the first <pool> is taken. */
struct pool_def *pool_def_parse(const char *xml, bool file, struct pool_error **err) MUST_CHECK;

/* Owned. append: as part of a larger document. */
char *pool_def_format(const struct pool_def *def);
void pool_def_append(const struct pool_def *def, struct xml_writer *writer);

/* A <source> document for finding sources of that type; a source without anything where `xml` is NULL. */
bool pool_source_parse(const char *xml, enum pool_type type, struct pool_source *ret, struct pool_error **err);
void pool_source_append(const struct pool_source *source, enum pool_type type, struct xml_writer *writer);

/* `path` with runs of slashes squeezed and none at its end; owned. */
char *path_squeeze(const char *path);
