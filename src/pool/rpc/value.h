/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arguments and results of procedures. A layout is a text with a letter for each, and all of them are read, written and
 * freed by it:
 *
 *   i int           u unsigned        h unsigned hyper    c a char, which takes a word too
 *   s string        n optional string S array of strings  b bytes of any length
 *   p pool          q optional pool   P array of pools    U uuid
 *   v volume        V array of volumes                    I array of int
 *   x secret        y optional secret X array of secrets  t array of typed parameters
 *   a bytes that take a word each
 *   k admin client  K array of admin clients
 *
 * An admin server is a struct of one string, so its letter is s, and S stands for several.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "pool/storage.h"

struct typed_params;
struct xdr_reader;

/* A secret as clients name it. */
struct secret_id {
    uint8_t uuid[STORAGE_UUID_SIZE];
    int32_t usage_type; /* enum secret_usage, or one that only clients know */
    char *usage;
};
void secret_id_free(struct secret_id *id);
AUTO_DEFINE(secret_id, struct secret_id *, secret_id_free)

struct secret_id_array {
    size_t count;
    struct secret_id **items;
};
void secret_id_array_free(struct secret_id_array *array);
AUTO_DEFINE(secret_id_array, struct secret_id_array *, secret_id_array_free)

/* A client as the admin program names it. */
struct admin_client_id {
    char *server;
    uint64_t id;
    uint64_t since_s; /* wall clock */
    uint32_t transport;
};
void admin_client_id_free(struct admin_client_id *id);

struct rpc_bytes {
    uint8_t *data; /* may be NULL where empty */
    size_t size;
};

struct rpc_ints {
    uint32_t values[20];
    size_t count;
};

union rpc_value {
    uint32_t u; /* u, c */
    int32_t i;
    uint64_t h;
    char *string;       /* s, n */
    GPtrArray *strings; /* S: of char * */
    struct rpc_bytes *bytes;
    uint8_t uuid[STORAGE_UUID_SIZE];
    struct pool_id *pool;
    struct pool_id_array *pools;
    struct volume_id *volume;
    struct volume_id_array *volumes;
    struct secret_id *secret;
    struct secret_id_array *secrets;
    struct typed_params *params;
    struct admin_client_id *client;
    GPtrArray *clients; /* K: of struct admin_client_id * */
    struct rpc_ints *ints;
};

enum { RPC_VALUES_MAX = 6 };

/* Reads one value for each letter to `values`, which are zero-filled; false where the input does not fit: what has been
 * read is there to be freed. What follows in the input is not looked at. */
bool rpc_values_decode(const char *layout, struct xdr_reader *reader, union rpc_value *values);

/* Appends `values`, of which pointers to arrays may be NULL for empty ones, other ones not. Once no packet can hold it
 * all, the rest of an array is left out. */
void rpc_values_encode(const char *layout, const union rpc_value *values, GByteArray *to);

void rpc_values_free(const char *layout, union rpc_value *values);

struct rpc_bytes *rpc_bytes_new(const void *data, size_t size);
