/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For every type of the interface: any valid JSON is parsed, copied and written as it was, and one with a fault is
 * refused with an error. The values are random, from a fixed seed.
 */
#include "base/error.h"
#include "gen/types.h"
#include "schema/schema-internal.h"

enum { ROUNDS = 8, DEPTH = 4 };

struct maker {
    const struct schema_tables *tables;
    GRand *random;
};

static bool chance(const struct maker *maker, int in)
{
    return g_rand_int_range(maker->random, 0, in) == 0;
}

static struct json *make_value(const struct maker *maker, const struct schema_node *node, unsigned depth);

static struct json *make_int(const struct maker *maker, enum schema_kind kind)
{
    static const int64_t least[] = {INT8_MIN, INT16_MIN, INT32_MIN, INT64_MIN, 0, 0, 0, 0, 0};
    static const uint64_t most[] = {INT8_MAX,   INT16_MAX,  INT32_MAX,  INT64_MAX, UINT8_MAX,
                                    UINT16_MAX, UINT32_MAX, UINT64_MAX, UINT64_MAX};

    switch (g_rand_int_range(maker->random, 0, 3)) {
    case 0:
        return json_int(least[kind - SCHEMA_INT8]);
    case 1:
        return json_uint(most[kind - SCHEMA_INT8]);
    default:
        return json_int(g_rand_int_range(maker->random, 0, 100));
    }
}

static struct json *make_string(const struct maker *maker)
{
    static const char *const strings[] = {"", "a", "0", "on", "\xc3\xa9\xf0\x9f\x98\x80", "{'\"\\\n", "x,=.y"};

    return json_string(strings[g_rand_int_range(maker->random, 0, G_N_ELEMENTS(strings))]);
}

static void make_members(const struct maker *maker, const struct schema_node *node, struct json *object, unsigned depth)
{
    int tag = -1;

    for (unsigned i = 0; i < node->count; i++) {
        const struct schema_member *member = &maker->tables->members[node->first + i];
        const char *name = schema_string(maker->tables, member->name);
        const struct schema_node *type = schema_node_at(maker->tables, member->type);

        if ((member->flags & SCHEMA_OPTIONAL) && (!depth || chance(maker, 2)))
            continue;
        json_set(object, name, make_value(maker, type, depth ? depth - 1 : 0));
        if (i == node->tag)
            tag = schema_node_enum_value(maker->tables, type, json_get_string(json_get(object, name)));
    }
    for (unsigned i = 0; i < node->case_count; i++) {
        const struct schema_case *branch = &maker->tables->cases[node->first_case + i];

        if (branch->value == tag)
            make_members(maker, schema_node_at(maker->tables, branch->type), object, depth);
    }
}

static struct json *make_array(const struct maker *maker, const struct schema_node *node, unsigned depth)
{
    struct json *array = json_array();

    while (depth && !chance(maker, 3))
        json_append(array, make_value(maker, schema_node_at(maker->tables, node->first), depth - 1));
    return array;
}

/* When deep enough, a branch that goes no deeper, if there is one. */
static const struct schema_node *pick_branch(const struct maker *maker, const struct schema_node *node, unsigned depth)
{
    const struct schema_node *branch = NULL;

    for (unsigned i = 0; !depth && i < node->count; i++) {
        branch = schema_node_at(maker->tables, maker->tables->members[node->first + i].type);
        if (branch->kind < SCHEMA_STRUCT)
            return branch;
    }
    return schema_node_at(
        maker->tables,
        maker->tables->members[node->first + (unsigned)g_rand_int_range(maker->random, 0, node->count)].type);
}

static struct json *make_value(const struct maker *maker, const struct schema_node *node, unsigned depth)
{
    struct json *object;
    int value;

    switch ((enum schema_kind)node->kind) {
    case SCHEMA_STRING:
        return make_string(maker);
    case SCHEMA_BOOL:
        return json_bool(chance(maker, 2));
    case SCHEMA_NUMBER:
        return json_double(g_rand_int_range(maker->random, -100, 100) / 4.0);
    case SCHEMA_NULL:
        return json_null();
    case SCHEMA_ENUM:
        value = g_rand_int_range(maker->random, 0, node->count);
        return json_string(schema_string(maker->tables, maker->tables->members[node->first + value].name));
    case SCHEMA_STRUCT:
    case SCHEMA_ANY:
        object = json_object();
        if (node->kind == SCHEMA_STRUCT)
            make_members(maker, node, object, depth);
        return object;
    case SCHEMA_ALTERNATE:
        return make_value(maker, pick_branch(maker, node, depth), depth ? depth - 1 : 0);
    case SCHEMA_ARRAY:
        return make_array(maker, node, depth);
    default:
        return make_int(maker, node->kind);
    }
}

static void assert_round_trip(const struct schema_type *type, const struct json *value)
{
    AUTO(error) err = NULL;
    void *parsed = schema_parse(type, value, &err), *copy;
    AUTO(json) written = NULL;

    if (!parsed) {
        g_autofree char *text = json_format(value, true);

        g_error("%s: %s", error_message(err), text);
    }
    copy = schema_clone(type, parsed);
    schema_free(type, parsed);
    written = schema_write(type, copy);
    schema_free(type, copy);
    g_assert_true(json_equal(written, value));
}

/* Takes away, adds or replaces a member; the types that stay valid then are those that forgive it. */
static void spoil(const struct maker *maker, struct json *object)
{
    const char *key;

    if (chance(maker, 3) || !json_count(object)) {
        json_set(object, "no-such-member", json_null());
        return;
    }
    json_member(object, (size_t)g_rand_int_range(maker->random, 0, (int)json_count(object)), &key);
    if (chance(maker, 2))
        json_free(json_take(object, key));
    else
        json_set(object, key, json_double(0.5));
}

static void assert_survives(const struct schema_type *type, const struct json *value)
{
    AUTO(error) err = NULL;
    void *parsed = schema_parse(type, value, &err);

    g_assert_true(!parsed != !err);
    if (parsed)
        schema_free(type, parsed);
}

static void test_round_trip(void)
{
    const struct schema_tables *tables = blockdev_options_type.tables;
    g_autoptr(GRand) random = g_rand_new_with_seed(1);
    struct maker maker = {.tables = tables, .random = random};
    unsigned structs = 0;

    for (unsigned i = 0; i < tables->node_count; i++) {
        struct schema_type type = {.tables = tables, .node = i};

        if (tables->nodes[i].kind < SCHEMA_STRUCT)
            continue;
        structs++;
        for (unsigned round = 0; round < ROUNDS; round++) {
            AUTO(json) value = make_value(&maker, &tables->nodes[i], DEPTH);

            assert_round_trip(&type, value);
            if (json_get_kind(value) == JSON_OBJECT) {
                spoil(&maker, value);
                assert_survives(&type, value);
            }
        }
    }
    g_assert_cmpuint(structs, >, 200);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/schema/round-trip", test_round_trip);
    return g_test_run();
}
