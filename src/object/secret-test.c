/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "object/secret.h"

#include <glib.h>
#include <glib/gstdio.h>
#include <linux/keyctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "object/object-test-run.h"

#define KEY                                                                                                            \
    "'qom-type': 'secret', 'id': 'key', 'format': 'base64', 'data': 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY='"
/* "open sesame, please" under that key. */
#define CIPHERTEXT "Q1W2uhzt43fpPMKTCu/fJiG4tH+U7P2IFt0XRPV0BMM="
#define IV "AAECAwQFBgcICQoLDA0ODw=="
#define ENCRYPTED "'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'key', "

static void expect_bytes(struct object_registry *registry, const char *id, const char *expected, size_t expected_size)
{
    AUTO(error) error = NULL;
    uint8_t *bytes;
    size_t size;

    g_assert_true(secret_get(registry, id, &bytes, &size, &error));
    g_assert_cmpmem(bytes, size, expected, expected_size);
    g_assert_cmpint(bytes[size], ==, 0);
    secret_free(bytes, size);
}

static void CO_FN co_test_raw(struct object_registry *registry)
{
    AUTO(error) error = NULL;
    uint8_t *bytes;
    size_t size;

    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 's', 'data': 'letmein'", NULL);
    expect_bytes(registry, "s", "letmein", 7);
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 'e', 'data': ''", NULL);
    expect_bytes(registry, "e", "", 0);
    g_assert_false(secret_get(registry, "nope", &bytes, &size, &error));
    g_assert_cmpstr(error_message(error), ==, "No secret with id 'nope'");
}

static void CO_FN co_test_base64(struct object_registry *registry)
{
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 's', 'format': 'base64', 'data': 'AP8='", NULL);
    expect_bytes(registry, "s", "\0\xff", 2);
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 'w', 'format': 'base64', 'data': ' bGV0\\nbWVpbg == '",
                          NULL);
    expect_bytes(registry, "w", "letmein", 7);
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 'x', 'format': 'base64', 'data': '!!'",
                          "Base64 data contains invalid characters");
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 'x', 'format': 'base64', 'data': 'bG=V'",
                          "Base64 data contains invalid characters");
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 'x', 'format': 'base64', 'data': 'bGV0b'",
                          "Base64 data is incomplete");
}

static void CO_FN co_test_file(struct object_registry *registry)
{
    g_autofree char *folder = g_dir_make_tmp("ashlar-secret-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "secret", NULL);
    g_autofree char *raw = g_strdup_printf("'qom-type': 'secret', 'id': 'f', 'file': '%s'", path);
    g_autofree char *missing = g_strdup_printf("Unable to read %s: ", path);

    co_object_test_expect(registry, raw, missing);
    g_assert_true(g_file_set_contents(path, "\xff\0\n", 3, NULL));
    co_object_test_expect(registry, raw, NULL);
    expect_bytes(registry, "f", "\xff\0\n", 3);
    g_assert_cmpint(g_unlink(path), ==, 0);
    expect_bytes(registry, "f", "\xff\0\n", 3);
    g_assert_cmpint(g_rmdir(folder), ==, 0);

    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 's'", "Either 'file' or 'data' must be provided");
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 's', 'file': 'x', 'data': 'y'",
                          "'file' and 'data' are mutually exclusive");
}

static void CO_FN co_test_encrypted(struct object_registry *registry)
{
    co_object_test_expect(registry, KEY, NULL);
    co_object_test_expect(registry, ENCRYPTED "'iv': '" IV "', 'data': '" CIPHERTEXT "'", NULL);
    expect_bytes(registry, "s", "open sesame, please", 19);
}

static void CO_FN co_test_encrypted_badly(struct object_registry *registry)
{
    co_object_test_expect(registry, KEY, NULL);
    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 'short', 'data': 'x'", NULL);
    co_object_test_expect(registry, ENCRYPTED "'data': '" CIPHERTEXT "'", "IV is required to decrypt secret");
    co_object_test_expect(registry, ENCRYPTED "'iv': 'AAAA', 'data': '" CIPHERTEXT "'",
                          "IV should be 16 bytes in length not 3");
    co_object_test_expect(registry, ENCRYPTED "'iv': '" IV "', 'data': 'YWJj'",
                          "Length 3 must be a multiple of block size 16");
    co_object_test_expect(registry, ENCRYPTED "'iv': '" IV "', 'data': 'MDEyMzQ1Njc4OWFiY2RlZg=='", "Incorrect ");
    co_object_test_expect(
        registry, "'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'short', 'data': '" CIPHERTEXT "'",
        "Key should be 32 bytes in length");
    co_object_test_expect(
        registry, "'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'nope', 'data': '" CIPHERTEXT "'",
        "No secret with id 'nope'");
    g_assert_null(object_find(registry, "s"));
}

/* What is secret lies in pages that no core dump has. */
static void CO_FN co_test_not_dumped(struct object_registry *registry)
{
    AUTO(error) error = NULL;
    uint8_t *bytes;
    size_t size;

    co_object_test_expect(registry, "'qom-type': 'secret', 'id': 's', 'data': 'letmein'", NULL);
    g_assert_true(secret_get(registry, "s", &bytes, &size, &error));
    g_autofree char *smaps = NULL;
    g_assert_true(g_file_get_contents("/proc/self/smaps", &smaps, NULL, NULL));
    /* Neighbours of the same kind share one entry, so it may start before ours. */
    unsigned dumped = 0, hidden = 0;
    g_auto(GStrv) lines = g_strsplit(smaps, "\n", -1);
    bool ours = false;
    for (char **line = lines; *line; line++) {
        unsigned long first, last;

        if (sscanf(*line, "%lx-%lx ", &first, &last) == 2)
            ours = (unsigned long)bytes >= first && (unsigned long)bytes < last;
        else if (ours && g_str_has_prefix(*line, "VmFlags:"))
            strstr(*line, " dd") ? hidden++ : dumped++;
    }
    g_assert_cmpint(hidden, ==, 1);
    g_assert_cmpint(dumped, ==, 0);
    secret_free(bytes, size);
}

static void CO_FN co_test_keyring(struct object_registry *registry)
{
    long serial = syscall(SYS_add_key, "user", "ashlar-secret-test", "letmein", 7, KEY_SPEC_PROCESS_KEYRING);

    co_object_test_expect(registry, "'qom-type': 'secret_keyring', 'id': 'x', 'serial': 1",
                          "Unable to read serial key 00000001: ");
    if (serial < 0) {
        g_test_message("this system has no keyrings");
        return;
    }
    g_autofree char *members = g_strdup_printf("'qom-type': 'secret_keyring', 'id': 'k', 'serial': %ld", serial);
    co_object_test_expect(registry, members, NULL);
    expect_bytes(registry, "k", "letmein", 7);
}

static void test_base64_decode(void)
{
    uint8_t to[16];
    size_t size;

    g_assert_true(secret_base64_decode((const uint8_t *)"", 0, to, &size, NULL));
    g_assert_cmpint(size, ==, 0);
    g_assert_true(secret_base64_decode((const uint8_t *)"YQ==", 4, to, &size, NULL));
    g_assert_cmpmem(to, size, "a", 1);
    g_assert_false(secret_base64_decode((const uint8_t *)"YQ=", 3, to, &size, NULL));
    g_assert_false(secret_base64_decode((const uint8_t *)"YQ===", 5, to, &size, NULL));
    g_assert_false(secret_base64_decode((const uint8_t *)"=", 1, to, &size, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    object_test_add("/secret/raw", co_test_raw);
    object_test_add("/secret/base64", co_test_base64);
    object_test_add("/secret/file", co_test_file);
    object_test_add("/secret/encrypted", co_test_encrypted);
    object_test_add("/secret/encrypted-badly", co_test_encrypted_badly);
    object_test_add("/secret/not-dumped", co_test_not_dumped);
    object_test_add("/secret/keyring", co_test_keyring);
    g_test_add_func("/secret/base64-decode", test_base64_decode);
    return g_test_run();
}
