/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/sasl-module.h"

#include <glib.h>
#include <sasl/sasl.h>

/* The library says its part to the program's log by way of ret_message, and writes to no other. */
static int no_log(void *context, int level, const char *message)
{
    return SASL_OK;
}

static const sasl_callback_t callbacks[] = {
    {SASL_CB_LOG, (int (*)(void))(void (*)(void))no_log, NULL},
    {SASL_CB_LIST_END, NULL, NULL},
};

static char *message_of(sasl_conn_t *connection, int result)
{
    return g_strdup(connection ? sasl_errdetail(connection) : sasl_errstring(result, NULL, NULL));
}

static void *session_new(char **ret_message)
{
    static gsize initialised; /* the library is once for all of the process */
    static int init_result;
    const sasl_security_properties_t properties = {.maxbufsize = 0, .max_ssf = 0};
    sasl_conn_t *connection = NULL;
    int result;

    if (g_once_init_enter(&initialised)) {
        init_result = sasl_server_init(callbacks, "libvirt");
        g_once_init_leave(&initialised, 1);
    }
    result = init_result;
    if (result == SASL_OK)
        result = sasl_server_new("libvirt", NULL, NULL, NULL, NULL, callbacks, SASL_SUCCESS_DATA, &connection);
    /* A Unix socket is as safe as a process's memory, so mechanisms need not encrypt. */
    if (result == SASL_OK)
        result = sasl_setprop(connection, SASL_SEC_PROPS, &properties);
    if (result == SASL_OK)
        return connection;
    *ret_message = message_of(connection, result);
    if (connection)
        sasl_dispose(&connection);
    return NULL;
}

static void session_free(void *session)
{
    sasl_conn_t *connection = session;

    sasl_dispose(&connection);
}

static char *mechanisms(void *session, char **ret_message)
{
    const char *list = NULL;
    int result = sasl_listmech(session, NULL, "", ",", "", &list, NULL, NULL);

    if (result == SASL_OK && list && *list)
        return g_strdup(list);
    *ret_message = result == SASL_OK ? g_strdup("no mechanism is there") : message_of(session, result);
    return NULL;
}

static enum sasl_outcome exchange_step(void *session, struct sasl_exchange *exchange, char **ret_message)
{
    unsigned size = 0;
    int result;

    if (exchange->mechanism)
        result = sasl_server_start(session, exchange->mechanism, exchange->input, (unsigned)exchange->input_size,
                                   &exchange->output, &size);
    else
        result = sasl_server_step(session, exchange->input, (unsigned)exchange->input_size, &exchange->output, &size);
    exchange->output_size = exchange->output ? size : 0;
    if (result == SASL_OK)
        return SASL_OUTCOME_COMPLETE;
    if (result == SASL_CONTINUE)
        return SASL_OUTCOME_CONTINUES;
    *ret_message = message_of(session, result);
    return SASL_OUTCOME_FAILED;
}

static char *user(void *session)
{
    const void *name = NULL;

    return sasl_getprop(session, SASL_USERNAME, &name) == SASL_OK ? g_strdup(name) : NULL;
}

extern const struct sasl_module ashlar_sasl_module;
const struct sasl_module ashlar_sasl_module = {
    .head = {ASHLAR_VERSION},
    .session_new = session_new,
    .session_free = session_free,
    .mechanisms = mechanisms,
    .exchange = exchange_step,
    .user = user,
};
