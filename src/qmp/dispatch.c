/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp/dispatch.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/trace.h"
#include "gen/types.h"
#include "loop/coroutine.h"
#include "qmp/command-set.h"
#include "qmp/version.h"
#include "schema/json.h"

/* The members of a request; all borrowed from it. */
struct request {
    const char *command;          /* NULL: none */
    const struct json *arguments; /* NULL: none */
    bool oob;
};

static const char *const capabilities_command = "qmp_capabilities";

struct json *qmp_greeting(void)
{
    AUTO(version_info) version = version_info_new();
    struct json *capabilities = json_array();
    struct json *qmp = json_object();
    struct json *greeting = json_object();

    json_append(capabilities, json_string("oob"));
    json_set(qmp, "version", version_info_write(version));
    json_set(qmp, "capabilities", capabilities);
    json_set(greeting, "QMP", qmp);
    return greeting;
}

bool qmp_request_is_oob(const struct qmp_client *client, const struct json *request)
{
    return client->oob && json_get_kind(request) == JSON_OBJECT && json_get(request, "exec-oob");
}

static bool take_command(struct request *request, const char *key, const struct json *value, struct error **err)
{
    if (json_get_kind(value) != JSON_STRING)
        return error_set(err, "QMP input member '%s' must be a string", key);
    if (request->command)
        return error_set(err, "QMP input member 'execute' clashes with 'exec-oob'");
    request->command = json_get_string(value);
    request->oob = !strcmp(key, "exec-oob");
    return true;
}

/* Takes `input` without its id apart. */
static bool take_members(const struct qmp_client *client, const struct json *input, struct request *ret,
                         struct error **err)
{
    struct request request = {0};

    for (size_t i = 0; i < json_count(input); i++) {
        const char *key;
        const struct json *value = json_member(input, i, &key);

        if (!strcmp(key, "execute") || (!strcmp(key, "exec-oob") && client->oob)) {
            if (!take_command(&request, key, value, err))
                return false;
        } else if (!strcmp(key, "arguments")) {
            if (json_get_kind(value) != JSON_OBJECT)
                return error_set(err, "QMP input member 'arguments' must be an object");
            request.arguments = value;
        } else {
            return error_set(err, "QMP input member '%s' is unexpected", key);
        }
    }
    if (!request.command)
        return error_set(err, "QMP input lacks member 'execute'");
    *ret = request;
    return true;
}

/* The command that `client` may execute now. */
static const struct qmp_command *find_command(const struct qmp_client *client, const struct request *request,
                                              struct error **err)
{
    bool negotiates = !strcmp(request->command, capabilities_command);

    if (!client->negotiated && !negotiates) {
        error_set_class(err, ERROR_COMMAND_NOT_FOUND, "Expecting capabilities negotiation with '%s'",
                        capabilities_command);
        return NULL;
    }

    const struct qmp_command *command = qmp_command_set_find(client->commands, request->command);
    if (!command) {
        error_set_class(err, ERROR_COMMAND_NOT_FOUND, "The command %s has not been found", request->command);
        return NULL;
    }
    if (request->oob && !command->allow_oob) {
        error_set(err, "The command %s does not support OOB", command->name);
        return NULL;
    }
    if (client->negotiated && negotiates) {
        error_set_class(err, ERROR_COMMAND_NOT_FOUND, "Capabilities negotiation is already complete, command ignored");
        return NULL;
    }
    return command;
}

/* What the command returns, owned; NULL and the error. */
static struct json *CO_FN co_execute(struct qmp_client *client, const struct json *input, struct error **err)
{
    struct request request = {0};

    if (!take_members(client, input, &request, err))
        return NULL;

    const struct qmp_command *command = find_command(client, &request, err);
    if (!command)
        return NULL;

    AUTO(json) none = request.arguments ? NULL : json_object();
    struct json *result = NULL;
    TRACE(qmp_command_run, "%s oob %d", command->name, request.oob);
    if (!command->co_run(client->daemon, request.arguments ? request.arguments : none, &result, err)) {
        assert(!result);
        return NULL;
    }
    return result ? result : json_object();
}

struct json *qmp_error_reply(struct json *id, const struct error *error)
{
    struct json *reply = json_object();
    struct json *body = json_object();

    if (id)
        json_set(reply, "id", id);
    json_set(body, "class", json_string(error_class_name(error_get_class(error))));
    json_set(body, "desc", json_string(error_message(error)));
    json_set(reply, "error", body);
    return reply;
}

struct json *co_qmp_dispatch(struct qmp_client *client, struct json *request)
{
    AUTO(error) error = NULL;
    AUTO(json) input = request;

    assert(co_active());
    if (json_get_kind(input) != JSON_OBJECT) {
        error_set(&error, "QMP input must be a JSON object");
        return qmp_error_reply(NULL, error);
    }

    AUTO(json) id = json_take(input, "id");
    struct json *result = co_execute(client, input, &error);
    if (!result)
        return qmp_error_reply(TAKE(id), error);

    struct json *reply = json_object();
    json_set(reply, "return", result);
    if (id)
        json_set(reply, "id", TAKE(id));
    return reply;
}
