/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/dbus.h"

#include <string.h>

static void values(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    struct dbus_reader reader;
    const char *text;
    uint32_t number;
    size_t at, end;

    dbus_put_signature(bytes, "us");
    dbus_put_u32(bytes, 7);
    dbus_put_text(bytes, "text");
    at = dbus_put_array_begin(bytes, 8);
    dbus_put_align(bytes, 8);
    dbus_put_text(bytes, "key");
    dbus_put_text(bytes, "value");
    dbus_put_array_end(bytes, at, 8);
    for (size_t size = 0; size <= bytes->len; size++) {
        g_autofree uint8_t *copy = g_memdup2(bytes->data, size);
        bool ok;

        reader = (struct dbus_reader){.data = copy, .size = size};
        ok = dbus_get_signature(&reader, &text) && !strcmp(text, "us") && dbus_get_u32(&reader, &number) &&
             number == 7 && dbus_get_text(&reader, &text) && !strcmp(text, "text") &&
             dbus_get_array(&reader, 8, &end) && end == size && dbus_get_text(&reader, &text) && !strcmp(text, "key") &&
             dbus_get_text(&reader, &text) && !strcmp(text, "value");
        g_assert_true(ok == (size == bytes->len));
    }
}

/* A reply as a bus sends it: an error with a text. */
static GByteArray *error_message(void)
{
    GByteArray *bytes = g_byte_array_new();
    const uint8_t head[] = {G_BYTE_ORDER == G_LITTLE_ENDIAN ? 'l' : 'B', 3, 1, 1};
    const uint8_t name = 4, reply = 5, signature = 8;
    size_t at;

    g_byte_array_append(bytes, head, sizeof(head));
    dbus_put_u32(bytes, 8);
    dbus_put_u32(bytes, 99);
    at = dbus_put_array_begin(bytes, 8);
    g_byte_array_append(bytes, &name, 1);
    dbus_put_signature(bytes, "s");
    dbus_put_text(bytes, "org.example.Error");
    dbus_put_align(bytes, 8);
    g_byte_array_append(bytes, &reply, 1);
    dbus_put_signature(bytes, "u");
    dbus_put_u32(bytes, 5);
    dbus_put_align(bytes, 8);
    g_byte_array_append(bytes, &signature, 1);
    dbus_put_signature(bytes, "g");
    dbus_put_signature(bytes, "s");
    dbus_put_array_end(bytes, at, 8);
    dbus_put_align(bytes, 8);
    dbus_put_text(bytes, "why");
    return bytes;
}

static void headers(void)
{
    g_autoptr(GByteArray) bytes = error_message();
    struct dbus_header header;

    g_assert_true(dbus_header_parse(bytes->data, bytes->len, &header));
    g_assert_cmpuint(header.type, ==, 3);
    g_assert_cmpuint(header.reply_to, ==, 5);
    g_assert_cmpstr(header.error, ==, "org.example.Error");
    g_assert_cmpstr(header.signature, ==, "s");
    g_assert_cmpuint(header.body, ==, bytes->len - 8);
    for (size_t size = 0; size < header.body; size++) {
        g_autofree uint8_t *copy = g_memdup2(bytes->data, size);
        struct dbus_header other;

        g_assert_false(dbus_header_parse(copy, size, &other));
    }
}

/* Whatever a single byte is turned into, nothing is read beyond the message. */
static void headers_that_are_broken(void)
{
    g_autoptr(GByteArray) bytes = error_message();

    for (size_t i = 0; i < bytes->len; i++) {
        for (unsigned value = 0; value <= UINT8_MAX; value++) {
            g_autofree uint8_t *copy = g_memdup2(bytes->data, bytes->len);
            struct dbus_header header;

            copy[i] = (uint8_t)value;
            if (dbus_header_parse(copy, bytes->len, &header))
                g_assert_cmpuint(header.body, <=, bytes->len);
        }
    }
}

static void check_address(const char *address, const char *expected)
{
    g_autoptr(GPtrArray) paths = dbus_address_paths(address);
    g_autoptr(GString) all = g_string_new(NULL);

    for (guint i = 0; i < paths->len; i++)
        g_string_append_printf(all, "%s%s", i ? " " : "", (const char *)paths->pdata[i]);
    g_assert_cmpstr(all->str, ==, expected);
}

static void addresses(void)
{
    check_address("unix:path=/run/bus", "/run/bus");
    check_address("unix:path=/a%20b,guid=123", "/a b");
    check_address("tcp:host=x;unix:abstract=/tmp/x;unix:guid=1,path=/y", "@/tmp/x /y");
    check_address("", "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dbus/values", values);
    g_test_add_func("/dbus/headers", headers);
    g_test_add_func("/dbus/headers-that-are-broken", headers_that_are_broken);
    g_test_add_func("/dbus/addresses", addresses);
    return g_test_run();
}
