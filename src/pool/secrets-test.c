/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Our own secrets: who gets which value, and what is in the files afterwards, whoever has been at them. */
#include "pool/secrets.h"

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "loop/loop.h"
#include "pool/log.h"
#include "pool/pool-error.h"
#include "pool/pool-secret.h"
#include "pool/rpc/value.h"
#include "pool/xml/document.h"

#define UUID "0290400c-ac6e-4c3c-a3b7-1d4ffe7dfdc7"

static char *folder; /* of the secrets; not there at first */
static GString *events;

static void heard(void *opaque, const struct secret_id *secret, enum secret_event event)
{
    g_string_append_printf(events, "%d:%s ", event, secret->usage);
}

static struct pool_secrets *begin(void)
{
    const struct secrets_options options = {.directory = folder, .event = heard};

    return pool_secrets_new(&options);
}

static void clean(void)
{
    g_autoptr(GDir) directory = g_dir_open(folder, 0, NULL);
    const char *name;

    while (directory && (name = g_dir_read_name(directory))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);

        g_unlink(path);
    }
    g_rmdir(folder);
    g_string_truncate(events, 0);
}

static char *xml_of(const char *uuid, bool private, const char *usage)
{
    return g_strdup_printf("<secret ephemeral='no' private='%s'><uuid>%s</uuid><usage type='volume'>"
                           "<volume>%s</volume></usage></secret>",
                           private ? "yes" : "no", uuid, usage);
}

static struct secret_id *CO_FN co_define(struct pool_secrets *secrets, bool private, const char *usage)
{
    g_autofree char *xml = xml_of(UUID, private, usage);
    struct pool_error *error = NULL;
    struct secret_id *id = co_pool_secrets_define(secrets, xml, 0, &error);

    if (error)
        g_error("%s", error->message);
    return id;
}

static void CO_FN co_set_value(struct pool_secrets *secrets, const uint8_t *uuid, const char *text)
{
    struct rpc_bytes value = {(uint8_t *)(uintptr_t)text, strlen(text)};

    g_assert_true(co_pool_secrets_set_value(secrets, uuid, &value, 0, NULL));
}

static void expect_mode(const char *name, unsigned mode)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    struct stat status;

    g_assert_cmpint(stat(path, &status), ==, 0);
    g_assert_cmpuint(status.st_mode & 07777, ==, mode);
}

static void expect_value(struct pool_secrets *secrets, const uint8_t *uuid, bool internal, const char *text)
{
    struct rpc_bytes *bytes = pool_secrets_get_value(secrets, uuid, 0, internal, NULL);
    union rpc_value value = {.bytes = bytes};

    g_assert_nonnull(bytes);
    g_assert_cmpmem(bytes->data, bytes->size, text, strlen(text));
    rpc_values_free("b", &value);
}

static void co_life(void *opaque)
{
    struct pool_secrets *secrets = begin();
    AUTO(secret_id) id = co_define(secrets, false, "/images/a");
    AUTO(secret_value) value = NULL;
    struct pool_error *error = NULL;
    uint8_t found[16];

    /* Without a value there is nothing to get. */
    g_assert_null(pool_secrets_get_value(secrets, id->uuid, 0, true, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_NO_SECRET);
    pool_error_free(TAKE(error));
    co_set_value(secrets, id->uuid, "first");
    co_set_value(secrets, id->uuid, "open sesame");
    expect_mode("", 0700);
    expect_mode(UUID ".xml", 0600);
    expect_mode(UUID ".base64", 0600);
    expect_value(secrets, id->uuid, false, "open sesame");
    pool_secrets_free(secrets);

    /* Another daemon finds all of it. */
    secrets = begin();
    co_pool_secrets_load(secrets);
    expect_value(secrets, id->uuid, false, "open sesame");
    g_assert_true(co_pool_secret_find(secrets, SECRET_USAGE_VOLUME, "/images/a", found));
    g_assert_cmpmem(found, sizeof(found), id->uuid, sizeof(found));
    g_assert_false(co_pool_secret_find(secrets, SECRET_USAGE_CEPH, "/images/a", found));
    value = co_pool_secret_get(secrets, NULL, SECRET_USAGE_VOLUME, "/images/a", NULL);
    g_assert_cmpmem(value->data, value->size, "open sesame", 11);
    g_assert_true(co_pool_secrets_undefine(secrets, id->uuid, NULL));
    g_assert_null(co_pool_secret_get(secrets, id->uuid, SECRET_USAGE_NONE, NULL, NULL));
    g_assert_cmpstr(events->str, ==, "0:/images/a 2:/images/a 2:/images/a 1:/images/a ");
    pool_secrets_free(secrets);

    secrets = begin();
    co_pool_secrets_load(secrets);
    g_assert_null(pool_secrets_by_uuid(secrets, found, NULL));
    pool_secrets_free(secrets);
    clean();
}

/* A private one is for our own use alone. */
static void co_private(void *opaque)
{
    struct pool_secrets *secrets = begin();
    AUTO(secret_id) id = co_define(secrets, true, "/images/p");
    struct pool_error *error = NULL;

    co_set_value(secrets, id->uuid, "hidden");
    g_assert_null(pool_secrets_get_value(secrets, id->uuid, 0, false, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_INVALID_SECRET);
    pool_error_free(error);
    expect_value(secrets, id->uuid, true, "hidden");
    pool_secrets_free(secrets);
    clean();
}

static void co_refused(void *opaque)
{
    struct pool_secrets *secrets = begin();
    AUTO(secret_id) id = co_define(secrets, true, "/images/r");
    g_autofree char *same_usage = xml_of("1290400c-ac6e-4c3c-a3b7-1d4ffe7dfdc7", false, "/images/r");
    g_autofree char *other_usage = xml_of(UUID, true, "/images/s");
    g_autofree char *shown = xml_of(UUID, false, "/images/r");
    const char *const documents[] = {
        same_usage,
        other_usage,
        shown,
        "<secret",
        "<zork/>",
        "<secret/>",
        "<!DOCTYPE secret [<!ENTITY a 'b'>]><secret><description>&a;</description></secret>"};

    /* The last but one has all that one needs. */
    for (size_t i = 0; i < G_N_ELEMENTS(documents); i++) {
        AUTO(secret_id) made = co_pool_secrets_define(secrets, documents[i], 0, NULL);

        g_assert_true(!made == (i != 5));
    }
    g_assert_false(co_pool_secrets_set_value(secrets, id->uuid, NULL, 1, NULL));
    g_assert_null(pool_secrets_list(secrets, 1 << 20, NULL));
    pool_secrets_free(secrets);
    clean();
}

static void put(const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

/* What is wrong with one file is no harm to the others. */
static void co_bad_files(void *opaque)
{
    struct pool_secrets *secrets = begin();
    AUTO(secret_id) id = co_define(secrets, false, "/images/good");
    g_autofree char *named = xml_of("2290400c-ac6e-4c3c-a3b7-1d4ffe7dfdc7", false, "/images/other");
    struct secret_id_array *all;

    co_set_value(secrets, id->uuid, "good");
    pool_secrets_free(secrets);
    put("garbage.xml", "\x01\x02<secret");
    put("empty.xml", "");
    put("3290400c-ac6e-4c3c-a3b7-1d4ffe7dfdc7.xml", named); /* of another name */
    put("2290400c-ac6e-4c3c-a3b7-1d4ffe7dfdc7.xml", named); /* without a value */
    put("stray.base64", "AAAA");
    put(UUID ".xml.new", "half");

    secrets = begin();
    co_pool_secrets_load(secrets);
    all = pool_secrets_list(secrets, 0, NULL);
    g_assert_cmpuint(all->count, ==, 2);
    secret_id_array_free(all);
    expect_value(secrets, id->uuid, false, "good");
    pool_secrets_free(secrets);
    clean();
}

static void run(const void *data)
{
    struct loop_options options = {0};
    AUTO(error) error = NULL;
    struct loop *loop = loop_new(&options, &error);
    co_entry *const *entry = data;

    g_assert_nonnull(loop);
    co_run(loop, *entry, NULL);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        co_entry *entry;
    } cases[] = {
        {"/secrets/life", co_life},
        {"/secrets/private", co_private},
        {"/secrets/refused", co_refused},
        {"/secrets/bad-files", co_bad_files},
    };
    g_autofree char *top = g_dir_make_tmp("ashlar-secrets-XXXXXX", NULL);
    int ret;

    g_test_init(&argc, &argv, NULL);
    folder = g_build_filename(top, "secrets", NULL);
    events = g_string_new(NULL);
    g_assert_true(pool_log_set_filters("4:nothing", NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        g_test_add_data_func(cases[i].name, &cases[i].entry, run);
    ret = g_test_run();
    pool_log_close();
    g_string_free(events, TRUE);
    g_rmdir(top);
    g_free(folder);
    return ret;
}
