/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread-context: a thread on processors of one's choice. Whatever it starts runs there too. */
#include "object/thread-context.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>

#include "base/error.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "object/cpu-list.h"
#include "object/object.h"
#include "schema/json.h"

struct thread_context {
    struct loop_thread *thread;
};

static bool pin(struct thread_context *context, const struct cpu_list *cpus, struct error **err)
{
    if (sched_setaffinity(loop_thread_id(context->thread), sizeof(cpus->set), &cpus->set) == 0)
        return true;
    return error_set_errno(err, errno, "Setting CPU affinity failed");
}

static bool pin_to_cpus(struct thread_context *context, const struct uint16_array *numbers, struct error **err)
{
    struct cpu_list cpus = {0};

    if (!numbers->count)
        return error_set(err, "CPU list is empty");
    for (size_t i = 0; i < numbers->count; i++) {
        if (!cpu_list_add(&cpus, numbers->items[i]))
            return error_set_errno(err, EINVAL, "Setting CPU affinity failed: processor %u", numbers->items[i]);
    }
    return pin(context, &cpus, err);
}

/* Adds the processors of a NUMA node; one that is not there has none. */
static bool CO_FN co_add_node(struct cpu_list *cpus, unsigned node, struct error **err)
{
    enum { CPU_LIST_BYTES_MAX = 64 << 10 };
    g_autofree char *path = g_strdup_printf("/sys/devices/system/node/node%u/cpulist", node);
    g_autofree char *text = NULL;
    AUTO(error) failure = NULL;
    size_t size;

    if (!co_file_load(path, CPU_LIST_BYTES_MAX, &text, &size, &failure))
        return error_get_errno(failure) == ENOENT || error_move(err, TAKE(failure));
    return cpu_list_parse(cpus, text) || error_set(err, "'%s' does not hold a list of processors", path);
}

static bool CO_FN co_pin_to_nodes(struct thread_context *context, const struct uint16_array *nodes, struct error **err)
{
    struct cpu_list cpus = {0};

    if (!nodes->count)
        return error_set(err, "Node list is empty");
    for (size_t i = 0; i < nodes->count; i++) {
        if (!co_add_node(&cpus, nodes->items[i], err))
            return false;
    }
    if (CPU_COUNT(&cpus.set) == 0)
        return error_set(err, "The nodes select no CPUs");
    return pin(context, &cpus, err);
}

static void CO_FN context_co_destroy(struct object *object)
{
    struct thread_context *context = object_state(object);

    co_loop_thread_free(context->thread);
}

static bool CO_FN context_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct thread_context *context = object_state(object);
    const struct thread_context_properties *wish = &options->u.thread_context;
    g_autofree char *name = g_strdup_printf("TC %s", object_id(object));

    if (wish->cpu_affinity && wish->node_affinity)
        return error_set(err, "Mixing CPU and node affinity not supported");
    context->thread = loop_thread_new(&(struct loop_options){.name = name}, err);
    if (!context->thread)
        return false;
    bool ok = (!wish->cpu_affinity || pin_to_cpus(context, wish->cpu_affinity, err)) &&
              (!wish->node_affinity || co_pin_to_nodes(context, wish->node_affinity, err));
    if (!ok)
        context_co_destroy(object);
    return ok;
}

static struct json *get_thread_id(struct object *object, const struct object_property *property)
{
    const struct thread_context *context = object_state(object);

    return json_int(loop_thread_id(context->thread));
}

static struct json *get_cpus(struct object *object, const struct object_property *property)
{
    const struct thread_context *context = object_state(object);
    struct cpu_list cpus;

    if (sched_getaffinity(loop_thread_id(context->thread), sizeof(cpus.set), &cpus.set) != 0)
        return NULL;
    struct json *list = json_array();
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &cpus.set))
            json_append(list, json_int(cpu));
    }
    return list;
}

/* The value of a property, parsed as the option of that name, so that messages name it; NULL and the error. */
static struct thread_context_properties *parse_property(const struct object_property *property,
                                                        const struct json *value, struct error **err)
{
    AUTO(json) whole = json_object();

    json_set(whole, property->name, json_clone(value));
    return thread_context_properties_parse(whole, err);
}

static bool set_cpus(struct object *object, const struct object_property *property, const struct json *value,
                     struct error **err)
{
    AUTO(thread_context_properties) wish = parse_property(property, value, err);

    return wish && pin_to_cpus(object_state(object), wish->cpu_affinity, err);
}

static bool CO_FN co_set_nodes(struct object *object, const struct object_property *property, const struct json *value,
                               struct error **err)
{
    AUTO(thread_context_properties) wish = parse_property(property, value, err);

    return wish && co_pin_to_nodes(object_state(object), wish->node_affinity, err);
}

static const struct object_property properties[] = {
    {.name = "thread-id", .type = "int", .description = "the system's number of the thread", .get = get_thread_id},
    {.name = "cpu-affinity",
     .type = "int",
     .description = "numbers of the processors",
     .get = get_cpus,
     .co_set = set_cpus},
    {.name = "node-affinity",
     .type = "int",
     .description = "numbers of NUMA nodes, in place of their processors",
     .co_set = co_set_nodes},
    {.name = NULL},
};

const struct object_class thread_context_class = {
    .type = OBJECT_TYPE_THREAD_CONTEXT,
    .state_size = sizeof(struct thread_context),
    .properties = properties,
    .co_create = context_co_create,
    .co_destroy = context_co_destroy,
};
