/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How JSON values lie in memory: for json.c, json-reader.c and json-writer.c. */
#pragma once

#include "schema/json.h"

struct json_pair {
    char *key;
    struct json *value;
};

/*
 * The members of an object with more than JSON_SMALL of them have an index: their numbers in the order of their keys,
 * behind the pairs in the same allocation.
 */
enum { JSON_SMALL = 16 };

struct json {
    uint8_t kind;   /* enum json_kind */
    bool unindexed; /* a big object whose index is still to be made */
    bool typed;     /* a root that was JSON on a command line, so that its scalars are not all strings */
    uint32_t count;
    union {
        bool boolean;
        int64_t integer;
        uint64_t natural;
        double number;
        char *string;
        struct json **items;
        struct json_pair *pairs;
    };
    union {
        uint32_t capacity;
        struct json *next; /* while it is being freed */
    };
};

/* json_string() of a text that is handed over. */
struct json *json_string_take(char *value);

/*
 * For a reader: adds a member (both taken) without looking for an equal key, if the object is big or will be. Returns
 * false, and takes nothing, if it sees that the key is there. After the last one json_object_finish() tells of an equal
 * key that was not seen, or returns NULL.
 */
bool json_object_add(struct json *object, char *key, struct json *value) MUST_CHECK;
const char *json_object_finish(struct json *object);
