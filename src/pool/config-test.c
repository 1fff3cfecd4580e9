/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/config.h"

#include "base/error.h"

static void test_all(void)
{
    static const char text[] = "# comment\n"
                               "unix_sock_group = \"disk\"\n"
                               "unix_sock_rw_perms='0770' # more\n"
                               "\n"
                               "  max_clients = 7\n"
                               "max_anonymous_clients = 3\n"
                               "access_drivers = [ \"none\",\n   'none', ]\n"
                               "sasl_allowed_username_list = []\n"
                               "keepalive_interval = -1\n"
                               "log_filters = \"\"\"1:a\n2:b\"\"\"\n"
                               "poll_max_us = 100\n"
                               "listen_tls = 0\n"
                               "host_uuid = \"00000000-0000-0000-0000-000000000001\"\n";
    AUTO(pool_config) config = pool_config_new();
    AUTO(error) error = NULL;

    if (!pool_config_parse(config, text, "f", &error))
        g_error("%s", error_message(error));
    g_assert_cmpstr(config->unix_sock_group, ==, "disk");
    g_assert_cmpuint(pool_config_mode(config->unix_sock_rw_perms, 0), ==, 0770);
    g_assert_cmpuint(pool_config_mode(config->unix_sock_ro_perms, 0777), ==, 0777);
    g_assert_cmpuint(config->max_clients, ==, 7);
    g_assert_cmpuint(config->max_workers, ==, 20);
    g_assert_cmpuint(g_strv_length(config->access_drivers), ==, 2);
    g_assert_cmpuint(g_strv_length(config->sasl_allowed_username_list), ==, 0);
    g_assert_cmpint(config->keepalive_interval, ==, -1);
    g_assert_cmpuint(config->poll_max_us, ==, 100);
    g_assert_cmpstr(config->log_filters, ==, "1:a\n2:b");
    g_assert_cmpuint(config->warnings->len, ==, 1);
    g_assert_cmpstr(config->warnings->pdata[0], ==, "f:14: listen_tls: there is no such key");
}

static void test_wrong(void)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"\nmax_clients = \"5\"", "f:2: max_clients: expecting a number of 0 or more"},
        {"max_clients = -5", "f:1: max_clients: -5 is not from 1 to 4294967295"},
        {"poll_max_us = 1001", "f:1: poll_max_us: 1001 is not from 0 to 1000"},
        {"max_clients = 5x", "f:1: max_clients: expecting the end of the line after the value"},
        {"unix_sock_dir = 5", "f:1: unix_sock_dir: expecting a string"},
        {"unix_sock_dir = \"run\"", "f:1: unix_sock_dir: 'run' is not an absolute path"},
        {"access_drivers = \"polkit\"", "f:1: access_drivers: expecting a list of strings"},
        {"access_drivers = [\n\"zork\"\n]",
         "f:1: access_drivers: there is no access driver 'zork', only \"none\" and \"polkit\""},
        {"unix_sock_ro_perms = \"0789\"", "f:1: unix_sock_ro_perms: '0789' is not a mode in octal, like \"0770\""},
        {"unix_sock_ro_perms = \"17777\"", "f:1: unix_sock_ro_perms: '17777' is not a mode in octal, like \"0770\""},
        {"auth_unix_rw = \"zork\"", "f:1: auth_unix_rw: unsupported auth 'zork'"},
        {"log_filters = \"x", "f:1: log_filters: unterminated string"},
        {"max_clients 5", "f:1: max_clients: expecting an assignment"},
        {"= 5", "f:1: expecting a name"},
        {"max_clients =\n", "f:1: max_clients: expecting a value"},
        {"access_drivers = [ 5 ]", "f:1: access_drivers: expecting a string or ']' in a list"},
        {"access_drivers = [ 'a' 'b' ]", "f:1: access_drivers: expecting a separator in list"},
        {"max_workers = 0", "f:1: max_workers: 0 is not from 1 to 4294967295"},
        {"max_clients = 5", "f: max_anonymous_clients is 20, more than max_clients, which is 5"},
        {"host_uuid = \"11111111-1111-1111-1111-111111111111\"",
         "f:1: host_uuid: '11111111-1111-1111-1111-111111111111' is the same digit all over"},
        {"host_uuid_source = \"x\"", "f:1: host_uuid_source: invalid UUID source: x"},
        {"#\n#\nhost_uuid = \"x\"", "f:3: host_uuid: 'x' is not a UUID"},
        {"max_clients = 1-2", "f:1: max_clients: '1-2' is not a number"},
        {"keepalive_interval = -", "f:1: keepalive_interval: '-' is not a number"},
        {"keepalive_interval = -2147483649",
         "f:1: keepalive_interval: -2147483649 is not from -2147483648 to 2147483647"},
        {"max_clients = 4294967296", "f:1: max_clients: 4294967296 is not from 1 to 4294967295"},
        {"5 = 3", "f:1: expecting a name"},
        {"log_filters = 'a\nb'", "f:1: log_filters: unterminated string"},
        {"access_drivers = [ 'none',\n 'none'\n", "f:3: access_drivers: expecting a separator in list"},
        {"log_level = 5", "f:1: log_level: 5 is not from 0 to 4"},
        {"ovs_timeout = 99999999999999999999", "f:1: ovs_timeout: the number 99999999999999999999 is too large"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        AUTO(pool_config) config = pool_config_new();
        AUTO(error) error = NULL;

        g_assert_false(pool_config_parse(config, cases[i].text, "f", &error));
        g_assert_cmpstr(error_message(error), ==, cases[i].message);
    }
}

/* What libvirt's daemons take, and as they take it; but it is said. */
static void test_odd(void)
{
    static const char text[] = "max_clients = 70\nmax_clients = 80\nlog_filters = 'a'\nlog_filters = 'b'\n"
                               "min_workers = 30\nadmin_min_workers = 7\nadmin_max_workers = 2\n"
                               "max_queued_clients = 0\nadmin_max_clients = 0\nunix_sock_rw_perms = \"00770\"\n";
    AUTO(pool_config) config = pool_config_new();

    g_assert_true(pool_config_parse(config, text, "f", NULL));
    g_assert_cmpuint(config->max_clients, ==, 70);
    g_assert_cmpstr(config->log_filters, ==, "a");
    g_assert_cmpuint(config->min_workers, ==, 20);
    g_assert_cmpuint(config->admin_min_workers, ==, 2);
    g_assert_cmpuint(config->max_queued_clients, ==, 0);
    g_assert_cmpuint(config->admin_max_clients, ==, 0);
    g_assert_cmpuint(pool_config_mode(config->unix_sock_rw_perms, 0), ==, 0770);
    g_assert_cmpuint(config->warnings->len, ==, 4);
    g_assert_cmpstr(config->warnings->pdata[0], ==, "f:2: max_clients: line 1 has set it already, and that counts");
    g_assert_cmpstr(config->warnings->pdata[1], ==, "f:4: log_filters: line 3 has set it already, and that counts");
    g_assert_cmpstr(config->warnings->pdata[2], ==,
                    "f: min_workers is 30, more than max_workers, which is 20 and counts for both");
}

/* As they are in effect for libvirt's daemon, whatever its template says. */
static void test_defaults(void)
{
    AUTO(pool_config) config = pool_config_new();

    g_assert_true(pool_config_parse(config, "", "f", NULL));
    g_assert_cmpuint(config->admin_min_workers, ==, 5);
    g_assert_cmpuint(config->admin_max_workers, ==, 20);
    g_assert_cmpuint(config->admin_max_clients, ==, 5000);
    g_assert_cmpuint(config->admin_max_queued_clients, ==, 20);
    g_assert_cmpuint(config->admin_max_client_requests, ==, 5);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pool-config/all", test_all);
    g_test_add_func("/pool-config/wrong", test_wrong);
    g_test_add_func("/pool-config/odd", test_odd);
    g_test_add_func("/pool-config/defaults", test_defaults);
    return g_test_run();
}
