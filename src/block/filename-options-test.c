/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of images to options, formats by content, and the guard of images that are raw by guess. */
#include "block/filename-options.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/filename.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/image.h"
#include "block/node.h"
#include "block/probe.h"
#include "loop/loop.h"
#include "schema/json.h"

static void run(co_entry *entry)
{
    struct loop *loop = loop_new(&(struct loop_options){.name = "test"}, NULL);

    co_run(loop, entry, NULL);
    loop_free(loop);
}

/* The options of `name`, which are `want` in JSON, or the error with that text. */
static void CO_FN co_expect(const struct image_name *name, const char *want)
{
    AUTO(error) error = NULL;
    AUTO(json) options = co_image_options(name, &error);

    if (want[0] == '{') {
        AUTO(json) wanted = json_parse(want, strlen(want), NULL);
        g_autofree char *text = options ? json_format(options, false) : g_strdup(error_message(error));

        if (!options || !json_equal(options, wanted))
            g_error("got %s, wanted %s", text, want);
        return;
    }
    g_assert_null(options);
    g_assert_cmpstr(error_message(error), ==, want);
}

static const struct {
    const char *filename;
    const char *format;
    const char *want;
} names[] = {
    {"/a/b", NULL, "{'file': {'driver': 'file', 'filename': '/a/b'}}"},
    {"/a/b", "qcow2", "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '/a/b'}}"},
    {"/a/b", "file", "{'driver': 'file', 'filename': '/a/b'}"},
    {"a/b:c", "raw", "{'driver': 'raw', 'file': {'driver': 'file', 'filename': 'a/b:c'}}"},
    {"file:b", "raw", "{'driver': 'raw', 'file': {'driver': 'file', 'filename': 'b'}}"},
    {"/dev/null", "raw", "{'driver': 'raw', 'file': {'driver': 'host_device', 'filename': '/dev/null'}}"},
    {"host_device:/x", NULL, "{'file': {'driver': 'host_device', 'filename': '/x'}}"},
    {"null-co://", NULL, "{'file': {'driver': 'null-co'}}"},
    {"foo:bar", NULL, "Unknown protocol 'foo'"},
    {"/a/b", "foo", "Unknown driver 'foo'"},
    {"nbd:unix:/s", "raw", "{'driver': 'raw', 'file': {'driver': 'nbd', 'server': {'type': 'unix', 'path': '/s'}}}"},
    {"nbd:unix:/s:exportname=e:x", "nbd",
     "{'driver': 'nbd', 'server': {'type': 'unix', 'path': '/s'}, 'export': 'e:x'}"},
    {"nbd:[::1]:99:exportname=e", NULL,
     "{'file': {'driver': 'nbd', 'server': {'type': 'inet', 'host': '::1', 'port': '99'}, 'export': 'e'}}"},
    {"nbd+vsock://3/x", NULL,
     "{'file': {'driver': 'nbd', 'server': {'type': 'vsock', 'cid': '3', 'port': '10809'}, 'export': 'x'}}"},
    {"nbd+vsock://here/x", NULL, "No valid URL specified"},
    {"nbds://h/x?tls-creds=c&tls-hostname=n", NULL,
     "{'file': {'driver': 'nbd', 'server': {'type': 'inet', 'host': 'h', 'port': '10809'}, 'export': 'x', 'tls-creds': "
     "'c', 'tls-hostname': 'n'}}"},
    {"nbds+unix:///x?socket=/s&tls-creds=c", NULL,
     "{'file': {'driver': 'nbd', 'server': {'type': 'unix', 'path': '/s'}, 'export': 'x', 'tls-creds': 'c'}}"},
    {"nbds://h/x", NULL, "'nbds://h/x' needs the credentials for TLS: ...?tls-creds=ID"},
    {"nbd://h/x?tls-creds=c", NULL, "No valid URL specified"},
    {"nbd:", NULL, "NBD server address missing"},
    {"nbd:localhost", NULL, "error parsing address 'localhost'"},
    {"nbd://h/", NULL, "{'file': {'driver': 'nbd', 'server': {'type': 'inet', 'host': 'h', 'port': '10809'}}}"},
    {"nbd://h:7/a%20b", NULL,
     "{'file': {'driver': 'nbd', 'server': {'type': 'inet', 'host': 'h', 'port': '7'}, 'export': 'a b'}}"},
    {"nbd+unix:///e?socket=/s%3f", NULL,
     "{'file': {'driver': 'nbd', 'server': {'type': 'unix', 'path': '/s?'}, 'export': 'e'}}"},
    {"nbd+unix:///e", NULL, "No valid URL specified"},
    {"nbd:///e", NULL, "No valid URL specified"},
    {"json:{'driver': 'raw', 'file.driver': 'file', 'file.filename': 'x'}", NULL,
     "{'driver': 'raw', 'file': {'driver': 'file', 'filename': 'x'}}"},
    {"json:{'file.filename': 'x'}", "raw", "{'driver': 'raw', 'file': {'driver': 'file', 'filename': 'x'}}"},
    {"json:{'filename': 'x'}", NULL, "{'file': {'driver': 'file', 'filename': 'x'}}"},
    {"json:{'driver': 'raw', 'file': 'n'}", NULL, "{'driver': 'raw', 'file': 'n'}"},
    {"json:{'driver': 'quorum', 'children.1': 'b', 'children.0': 'a', 'vote-threshold': 1}", NULL,
     "{'driver': 'quorum', 'children': ['a', 'b'], 'vote-threshold': 1}"},
    {"json:{'driver': 'raw', 'file': 'n'}", "raw", "{'driver': 'raw', 'file': 'n'}"},
    {"json:{'driver': 'qcow2', 'file': 'n'}", "raw", "{'driver': 'raw', 'file': 'n'}"},
    {"json:{'driver': 'nbd', 'path': '/s', 'export': 'e'}", NULL,
     "{'driver': 'nbd', 'export': 'e', 'server': {'type': 'unix', 'path': '/s'}}"},
    {"json:{'driver': 'raw', 'file.driver': 'nbd', 'file.host': 'h'}", NULL,
     "{'driver': 'raw', 'file': {'driver': 'nbd', 'server': {'type': 'inet', 'host': 'h', 'port': '10809'}}}"},
    {"json:{'driver': 'nbd', 'host': 'h', 'port': '1'}", NULL,
     "{'driver': 'nbd', 'server': {'type': 'inet', 'host': 'h', 'port': '1'}}"},
    {"json:{'driver': 'nbd', 'host': 'h', 'path': '/s'}", NULL, "path and host may not be used at the same time"},
    {"json:{'driver': 'nbd', 'port': '1', 'path': '/s'}", NULL, "port may not be used without host"},
    {"json:{'driver': 'raw', 'file': {'driver': 'foo'}}", NULL, "Unknown driver 'foo'"},
    {"json:{'file': 'n', 'file.x': 'm'}", NULL, "Parameters 'file.x' used inconsistently"},
    {"json:[]", NULL, "Invalid JSON object given"},
    {"json:{}", NULL, "Must specify either driver or file"},
};

static void CO_FN co_test_names(void *opaque)
{
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        co_expect(&(struct image_name){.filename = names[i].filename, .format = names[i].format}, names[i].want);
}

static void test_names(void)
{
    run(co_test_names);
}

static void expect_resolved(const char *base, const char *name, const char *want)
{
    AUTO(error) error = NULL;
    g_autofree char *resolved = filename_resolve(base, name, &error);

    g_assert_cmpstr(resolved, ==, want);
    g_assert_true(!resolved == !!error);
}

static void test_resolve(void)
{
    expect_resolved("/a/b.qcow2", "c", "/a/c");
    expect_resolved("/a/b.qcow2", "/c", "/c");
    expect_resolved("/a/b.qcow2", "nbd://h/x", "nbd://h/x");
    expect_resolved("/a/b.qcow2", "json:{}", "json:{}");
    expect_resolved("b.qcow2", "d/c", "d/c");
    expect_resolved("file:b", "c", "file:c");
    expect_resolved("nbd://h/x/y", "c", "nbd://h/x/c");
    expect_resolved(NULL, "/c", "/c");
    expect_resolved(NULL, "c", NULL);
}

/* --- by content --- */

static const char *format_of(const char *start, size_t size)
{
    uint8_t head[IMAGE_PROBE_BYTES] = {0};

    memcpy(head, start, size);
    return probe_format(block_drivers, head, sizeof(head), "x");
}

static void test_formats(void)
{
    static const char descriptor[] = "# Disk DescriptorFile\r\n\n  \nversion=1\r\nCID=1\n";
    uint8_t head[IMAGE_PROBE_BYTES] = {0};

    g_assert_cmpstr(format_of("QFI\xfb\0\0\0\3", 8), ==, "qcow2");
    g_assert_cmpstr(format_of("QFI\xfb\0\0\0\1", 8), ==, "qcow");
    g_assert_cmpstr(format_of("QFI\xfb\0\0\0\0", 8), ==, "raw");
    g_assert_cmpstr(format_of("QED\0", 4), ==, "qed");
    g_assert_cmpstr(format_of("KDMV", 4), ==, "vmdk");
    g_assert_cmpstr(format_of("COWD", 4), ==, "vmdk");
    g_assert_cmpstr(format_of(descriptor, sizeof(descriptor)), ==, "vmdk");
    g_assert_cmpstr(format_of("# Disk DescriptorFile\nversion=9\n", 33), ==, "raw");
    g_assert_cmpstr(format_of("vhdxfile", 8), ==, "vhdx");
    g_assert_cmpstr(format_of("conectix", 8), ==, "vpc");
    g_assert_cmpstr(format_of("WithoutFreeSpace\2\0\0\0", 20), ==, "parallels");
    g_assert_cmpstr(format_of("LUKS\xba\xbe\0\1", 8), ==, "luks");
    g_assert_cmpstr(format_of("LUKS\xba\xbe\0\2", 8), ==, "raw");
    g_assert_cmpstr(probe_format(block_drivers, head, 0, "x.dmg"), ==, "dmg");
    g_assert_cmpstr(probe_format(block_drivers, head, 0, NULL), ==, "raw");
    memcpy(head + 0x40, "\x7f\x10\xda\xbe", 4);
    g_assert_cmpstr(probe_format(block_drivers, head, sizeof(head), NULL), ==, "vdi");
    g_assert_cmpstr(probe_format(block_drivers, head, 0x43, NULL), ==, "raw");
}

/* --- the guard --- */

static char *path; /* of a file of zeroes */

static struct node *CO_FN co_open_guessed(struct graph *graph)
{
    struct image_name name = {.filename = path};
    AUTO(error) error = NULL;
    AUTO(json) options = co_image_options(&name, &error);
    AUTO(blockdev_options) parsed = NULL;
    bool guessed = false;
    bool ok = co_image_options_probe(graph, options, &guessed, &error);

    g_assert_true(ok && guessed);
    json_set(options, "node-name", json_string("image"));
    parsed = image_options_parse(options, &error);
    ok = co_graph_add(graph, parsed, &error);
    g_assert_true(ok);
    g_assert_cmpuint(graph_node_count(graph), ==, 2);
    return graph_find(graph, "image", NULL);
}

static void CO_FN co_test_guard(void *opaque)
{
    struct graph *graph = graph_new(NULL, NULL);
    struct node *node = co_open_guessed(graph);
    struct handle_options how = {.perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL};
    struct handle *handle = co_handle_new(node, &how, NULL);
    char head[8];

    g_assert_false(node_is_guarded(node));
    node_guard_raw(node);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 8, "QFI\xfb\0\0\0\3", 0), ==, -EPERM);
    g_assert_cmpint(co_handle_pwrite(handle, 0, 7, "QFI\xfb\0\0\0", 0), ==, 0);
    g_assert_cmpint(co_handle_pwrite(handle, 7, 1, "\3", 0), ==, -EPERM);
    g_assert_cmpint(co_handle_pwrite(handle, 4096, 8, "QFI\xfb\0\0\0\3", 0), ==, 0);
    g_assert_cmpint(co_handle_copy_range(handle, 4096, handle, 0, 8, 0), ==, -EPERM);
    g_assert_cmpint(co_handle_pread(handle, 0, 8, head, 0), ==, 0);
    g_assert_cmpmem(head, 8, "QFI\xfb\0\0\0\0", 8);
    co_handle_free(handle);
    co_graph_free(graph);
}

static void test_guard(void)
{
    int fd = g_file_open_tmp("ashlar-XXXXXX", &path, NULL);

    g_assert_cmpint(ftruncate(fd, 65536), ==, 0);
    g_close(fd, NULL);
    run(co_test_guard);
    g_unlink(path);
    g_free(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/filename/options", test_names);
    g_test_add_func("/filename/resolve", test_resolve);
    g_test_add_func("/probe/formats", test_formats);
    g_test_add_func("/probe/guard", test_guard);
    return g_test_run();
}
