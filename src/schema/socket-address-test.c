/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schema/socket-address.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "loop/socket.h"
#include "schema/json.h"

static struct socket_address *parse(const char *text)
{
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    struct socket_address *address = json ? socket_address_parse(json, NULL) : NULL;

    g_assert_nonnull(address);
    return address;
}

static void test_inet(void)
{
    AUTO(socket_address)
    address =
        parse("{'type': 'inet', 'host': 'h', 'port': '10809', 'to': 10900, 'keep-alive': true, 'keep-alive-count': 3,"
              " 'keep-alive-idle': 4, 'keep-alive-interval': 5, 'numeric': true, 'mptcp': true}");
    struct socket_endpoint endpoint;

    g_assert_true(socket_address_endpoint(address, &endpoint, NULL));
    g_assert_cmpint(endpoint.family, ==, SOCKET_INET);
    g_assert_cmpstr(endpoint.host, ==, "h");
    g_assert_cmpstr(endpoint.port, ==, "10809");
    g_assert_cmpuint(endpoint.port_to, ==, 10900);
    g_assert_true(endpoint.numeric && endpoint.mptcp && endpoint.keep_alive.on);
    g_assert_cmpuint(endpoint.keep_alive.count, ==, 3);
    g_assert_cmpuint(endpoint.keep_alive.idle_s, ==, 4);
    g_assert_cmpuint(endpoint.keep_alive.interval_s, ==, 5);
    g_assert_false(endpoint.refuse_ipv4 || endpoint.refuse_ipv6);
}

/* What is asked for alone excludes the other; what is switched off is excluded. */
static void test_families(void)
{
    static const struct {
        const char *flags;
        bool refuse_ipv4;
        bool refuse_ipv6;
    } cases[] = {
        {"'ipv4': true", false, true},
        {"'ipv6': true", true, false},
        {"'ipv4': false", true, false},
        {"'ipv6': false", false, true},
        {"'ipv4': true, 'ipv6': true", false, false},
        {"'ipv4': true, 'ipv6': false", false, true},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strdup_printf("{'type': 'inet', 'host': '', 'port': '0', %s}", cases[i].flags);
        AUTO(socket_address) address = parse(text);
        struct socket_endpoint endpoint;

        g_assert_true(socket_address_endpoint(address, &endpoint, NULL));
        g_assert_cmpint(endpoint.refuse_ipv4, ==, cases[i].refuse_ipv4);
        g_assert_cmpint(endpoint.refuse_ipv6, ==, cases[i].refuse_ipv6);
    }
}

static void test_refused(void)
{
    static const char *const texts[] = {
        "{'type': 'inet', 'host': '', 'port': '0', 'ipv4': false, 'ipv6': false}",
        "{'type': 'inet', 'host': 'h', 'port': '65536'}",
        "{'type': 'inet', 'host': 'h', 'port': '99999999999999999999999'}",
        "{'type': 'fd', 'str': ''}",
        "{'type': 'fd', 'str': '-1'}",
        "{'type': 'fd', 'str': ' 1'}",
        "{'type': 'fd', 'str': '1x'}",
        "{'type': 'fd', 'str': '2147483648'}",
        "{'type': 'fd', 'str': '99999999999999999999999'}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        AUTO(socket_address) address = parse(texts[i]);
        AUTO(error) error = NULL;
        struct socket_endpoint endpoint;

        g_assert_false(socket_address_endpoint(address, &endpoint, &error));
        g_assert_nonnull(error);
    }
}

static void test_others(void)
{
    AUTO(socket_address) tight = parse("{'type': 'unix', 'path': 'p', 'abstract': true}");
    AUTO(socket_address) loose = parse("{'type': 'unix', 'path': 'p', 'abstract': true, 'tight': false}");
    AUTO(socket_address) plain = parse("{'type': 'unix', 'path': 'p', 'tight': false}");
    AUTO(socket_address) vsock = parse("{'type': 'vsock', 'cid': '3', 'port': '1234'}");
    AUTO(socket_address) fd = parse("{'type': 'fd', 'str': '2147483647'}");
    struct socket_endpoint endpoint;

    g_assert_true(socket_address_endpoint(tight, &endpoint, NULL));
    g_assert_true(endpoint.family == SOCKET_UNIX && endpoint.abstract && !endpoint.loose);
    g_assert_true(socket_address_endpoint(loose, &endpoint, NULL));
    g_assert_true(endpoint.abstract && endpoint.loose);
    g_assert_true(socket_address_endpoint(plain, &endpoint, NULL));
    g_assert_true(!endpoint.abstract && !endpoint.loose);
    g_assert_true(socket_address_endpoint(vsock, &endpoint, NULL));
    g_assert_cmpstr(endpoint.cid, ==, "3");
    g_assert_cmpstr(endpoint.port, ==, "1234");
    g_assert_true(socket_address_endpoint(fd, &endpoint, NULL));
    g_assert_cmpint(endpoint.fd, ==, 2147483647);
}

static void test_legacy(void)
{
    static const char text[] = "{'type': 'inet', 'data': {'host': 'h', 'port': '1', 'ipv6': false}}";
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(socket_address_legacy) legacy = socket_address_legacy_parse(json, NULL);
    AUTO(socket_address) address = socket_address_from_legacy(legacy);

    g_assert_cmpint(address->type, ==, SOCKET_ADDRESS_TYPE_INET);
    g_assert_cmpstr(address->u.inet.host, ==, "h");
    g_assert_cmpstr(address->u.inet.port, ==, "1");
    g_assert_true(address->u.inet.has_ipv6 && !address->u.inet.ipv6);
    g_assert_false(address->u.inet.has_ipv4);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/socket-address/inet", test_inet);
    g_test_add_func("/socket-address/families", test_families);
    g_test_add_func("/socket-address/refused", test_refused);
    g_test_add_func("/socket-address/others", test_others);
    g_test_add_func("/socket-address/legacy", test_legacy);
    return g_test_run();
}
