/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "chardev/flat-option.h"

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "schema/json.h"

struct sample {
    const char *text;
    const char *expected; /* the backend, or the error */
};

static const struct sample accepted[] = {
    {"null,id=x", "{'type': 'null', 'data': {}}"},
    {"backend=null,id=x,logfile=/l,logappend=on", "{'type': 'null', 'data': {'logfile': '/l', 'logappend': true}}"},
    {"socket,id=x,path=/a,,b,server=on,wait=off",
     "{'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': '/a,b'}}, 'server': true, 'wait': false}}"},
    {"socket,id=x,path=/a,server,nowait",
     "{'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': '/a'}}, 'server': true, 'wait': false}}"},
    {"socket,id=x,path=/a,server=on",
     "{'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': '/a'}}, 'server': true, 'wait': true}}"},
    {"socket,id=x,path=a,abstract=on,tight=off,reconnect=5",
     "{'type': 'socket', 'data': {'addr': {'type': 'unix', 'data': {'path': 'a', 'abstract': true, 'tight': false}},"
     " 'reconnect': 5, 'server': false}}"},
    {"socket,id=x,host=h,port=1,to=9,ipv4=on,ipv6=off,nodelay=on,telnet=on",
     "{'type': 'socket', 'data': {'addr': {'type': 'inet', 'data': {'host': 'h', 'port': '1', 'to': 9, 'ipv4': true,"
     " 'ipv6': false}}, 'nodelay': true, 'telnet': true, 'server': false}}"},
    {"socket,id=x,port=0,server=on,wait=off,delay=on",
     "{'type': 'socket', 'data': {'addr': {'type': 'inet', 'data': {'port': '0', 'host': ''}}, 'server': true,"
     " 'wait': false, 'nodelay': false}}"},
    {"socket,id=x,host=h,port=1,keep-alive=on,keep-alive-idle=5",
     "{'type': 'socket', 'data': {'addr': {'type': 'inet', 'data': {'host': 'h', 'port': '1', 'keep-alive': true,"
     " 'keep-alive-idle': 5}}, 'server': false}}"},
    {"socket,id=x,fd=3,server=on,wait=off,ipv4=on",
     "{'type': 'socket', 'data': {'addr': {'type': 'fd', 'data': {'str': '3'}}, 'server': true, 'wait': false}}"},
    {"socket,id=x,cid=2,port=1234",
     "{'type': 'socket', 'data': {'addr': {'type': 'vsock', 'data': {'cid': '2', 'port': '1234'}}, 'server': false}}"},
    {"file,id=x,path=/o,input-path=/i,append=yes",
     "{'type': 'file', 'data': {'out': '/o', 'in': '/i', 'append': true}}"},
    {"pipe,id=x,path=/p", "{'type': 'pipe', 'data': {'device': '/p'}}"},
    {"tty,id=x,path=/dev/ttyS0", "{'type': 'serial', 'data': {'device': '/dev/ttyS0'}}"},
    {"parport,id=x,path=/dev/parport0", "{'type': 'parallel', 'data': {'device': '/dev/parport0'}}"},
    {"udp,id=x,port=1",
     "{'type': 'udp', 'data': {'remote': {'type': 'inet', 'data': {'host': 'localhost', 'port': '1'}}}}"},
    {"udp,id=x,host=h,port=1,localport=2",
     "{'type': 'udp', 'data': {'local': {'type': 'inet', 'data': {'port': '2', 'host': ''}},"
     " 'remote': {'type': 'inet', 'data': {'host': 'h', 'port': '1'}}}}"},
    {"ringbuf,id=x,size=64k", "{'type': 'ringbuf', 'data': {'size': 65536}}"},
    {"mux,id=x,chardev=y", "{'type': 'mux', 'data': {'chardev': 'y'}}"},
    {"hub,id=x,chardevs.0=a,chardevs.1=b", "{'type': 'hub', 'data': {'chardevs': ['a', 'b']}}"},
    {"stdio,id=x,signal=off", "{'type': 'stdio', 'data': {'signal': false}}"},
    {"pty,id=x,path=/link", "{'type': 'pty', 'data': {'path': '/link'}}"},
};

static const struct sample refused[] = {
    {"", "chardev: no id specified"},
    {"null", "chardev: no id specified"},
    {"id=x", "chardev: \"x\" missing backend"},
    {"null,id=1x", "Parameter 'id' expects an identifier"},
    {"null,id=", "Parameter 'id' expects an identifier"},
    {"null,id=a b", "Parameter 'id' expects an identifier"},
    {"nosuch,id=x", "'nosuch' is not a valid char driver name"},
    {"null,id=x,foo=bar", "Invalid parameter 'foo'"},
    {"null,id=x,foo", "Invalid parameter 'foo'"},
    {"null,id=x,path", "Parameter 'path' has no value"},
    {"null,id=x,port=1", "Invalid parameter 'port': backend 'null' has no such option"},
    {"socket,id=x,path=/a,server=maybe", "Parameter 'server' expects 'on' or 'off'"},
    {"socket,id=x,path=/a,reconnect=1M", "Parameter 'reconnect' expects a number"},
    {"socket,id=x,host=1", "chardev: socket: no port given"},
    {"socket,id=x,host=1,path=/tmp/a", "None or one of 'path', 'fd' or 'host' option required."},
    {"socket,id=x", "chardev: socket: no address given: 'path', 'host' and 'port', 'fd', or 'cid' and 'port'"},
    {"file,id=x", "chardev: file: no filename given"},
    {"pipe,id=x", "chardev: pipe: no device path given"},
    {"serial,id=x", "chardev: serial/tty: no device path given"},
    {"udp,id=x,host=a,port=", "chardev: udp: remote port not specified"},
    {"ringbuf,id=x,size=-1", "Parameter 'size' expects a non-negative number below 2^64"},
    {"mux,id=x", "chardev: mux: no chardev given"},
    {"hub,id=x", "chardev: hub: 'chardevs' list is not defined"},
    {"hub,id=x,chardevs.1=a", "chardev: hub: 'chardevs' has a gap"},
    {"file,id=x,path=\xff", "Parameter 'path' is not valid UTF-8"},
};

static void test_accepted(gconstpointer data)
{
    const struct sample *sample = data;
    AUTO(json) expected = json_parse(sample->expected, strlen(sample->expected), NULL);
    struct flat_option option = {0};
    AUTO(error) err = NULL;

    g_assert_nonnull(expected);
    if (!flat_option_parse(sample->text, &option, &err))
        g_error("%s", error_message(err));
    g_assert_cmpstr(option.id, ==, "x");
    if (!json_equal(option.backend, expected))
        g_error("%s", json_format(option.backend, false));
    flat_option_done(&option);
}

static void test_refused(gconstpointer data)
{
    const struct sample *sample = data;
    struct flat_option option = {0};
    AUTO(error) err = NULL;

    g_assert_false(flat_option_parse(sample->text, &option, &err));
    g_assert_cmpstr(error_message(err), ==, sample->expected);
}

static void test_help(void)
{
    struct flat_option option = {0};
    g_autofree char *all = flat_option_help(NULL);
    g_autofree char *socket = flat_option_help("socket");

    g_assert_nonnull(strstr(all, "  ringbuf "));
    g_assert_nonnull(strstr(socket, "  reconnect=<num> "));
    g_assert_null(strstr(socket, "  size=<"));
    g_assert_null(flat_option_help("nosuch"));
    g_assert_true(flat_option_parse("help", &option, NULL));
    g_assert_true(option.help);
    flat_option_done(&option);
    g_assert_true(flat_option_parse("socket,id=x,?", &option, NULL));
    g_assert_true(option.help);
    g_assert_cmpstr(option.type, ==, "socket");
    flat_option_done(&option);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(accepted); i++) {
        g_autofree char *path = g_strdup_printf("/flat-option/accepted/%zu", i);

        g_test_add_data_func(path, &accepted[i], test_accepted);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autofree char *path = g_strdup_printf("/flat-option/refused/%zu", i);

        g_test_add_data_func(path, &refused[i], test_refused);
    }
    g_test_add_func("/flat-option/help", test_help);
    return g_test_run();
}
