/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SCSI hosts, their units, iSCSI sessions and multipath devices, in a tree that looks like the kernel's. */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include "pool/backend/iscsi-session.h"
#include "pool/backend/multipath.h"
#include "pool/backend/scsi-scan.h"
#include "pool/pool-def.h"

static char *tree;

static void put(const char *path, const char *text)
{
    g_autofree char *file = g_build_filename(tree, path, NULL);
    g_autofree char *folder = g_path_get_dirname(file);

    g_assert_cmpint(g_mkdir_with_parents(folder, 0700), ==, 0);
    g_assert_true(g_file_set_contents(file, text, -1, NULL));
}

static void add_unit(const char *name, const char *type, const char *node)
{
    g_autofree char *kind = g_strdup_printf("bus/scsi/devices/%s/type", name);
    g_autofree char *block = g_strdup_printf("bus/scsi/devices/%s/block/%s/size", name, node);

    put(kind, type);
    if (*node)
        put(block, "8\n");
}

static void make_tree(void)
{
    g_autofree char *link = NULL;

    add_unit("2:0:0:1", "0\n", "sdb");
    add_unit("2:0:0:0", "0\n", "sda");
    add_unit("2:0:1:0", "5\n", "sr0");
    add_unit("2:0:2:0", "13\n", "ses0"); /* an enclosure */
    add_unit("2:0:3:0", "0\n", "");      /* not attached yet */
    add_unit("3:0:0:0", "0\n", "sdc");
    add_unit("host2", "0\n", "odd");

    put("devices/pci0000:00/0000:00:1f.2/ata1/host2/scsi_host/host2/unique_id", "1\n");
    put("class/scsi_host/host3/unique_id", "1\n");
    link = g_build_filename(tree, "class/scsi_host/host2", NULL);
    g_assert_cmpint(symlink("../../devices/pci0000:00/0000:00:1f.2/ata1/host2/scsi_host/host2", link), ==, 0);
    put("class/fc_host/host5/node_name", "0x2000000012341234\n");
    put("class/fc_host/host5/port_name", "0x2100000012341234\n");

    put("class/fc_host/host5/port_state", "Linkdown\n");
    put("class/fc_host/host6/node_name", "0x2000000012345678\n");
    put("class/fc_host/host6/port_name", "0x2100000012345678\n");
    for (int host = 5; host <= 8; host++) {
        g_autofree char *fabric = g_strdup_printf("class/fc_host/host%d/fabric_name", host);
        g_autofree char *most = g_strdup_printf("class/fc_host/host%d/max_npiv_vports", host);
        g_autofree char *name = g_strdup_printf("0x100000000000000%d\n", host);

        put(fabric, name);
        put(most, "2\n");
    }
    put("class/fc_host/host6/port_state", "Online\n");
    put("class/fc_host/host6/npiv_vports_inuse", "2\n");
    put("class/fc_host/host7/port_state", "Online\n");
    put("class/fc_host/host7/npiv_vports_inuse", "1\n");
    put("class/fc_host/host8/port_state", "Online\n");

    put("class/iscsi_session/session7/device/target9:0:0/x", "");
    put("class/iscsi_session/session11/ifacename", "ashlar-0123\n");
    put("class/iscsi_session/session11/initiatorname", "iqn.other\n");
    put("class/iscsi_session/session12/ifacename", "default\n");
    put("class/iscsi_session/session12/initiatorname", "iqn.host\n");
    put("class/iscsi_session/session13/ifacename", "eth1\n");
    put("class/iscsi_session/session13/initiatorname", "iqn.third\n");
    put("block/dm-3/dm/uuid", "mpath-360000000000000000e00000000010001\n");
    put("block/dm-3/dm/name", "mpatha\n");
    put("block/dm-12/dm/uuid", "LVM-abcdef\n");
    put("block/dm-12/dm/name", "vg-lv\n");
    put("block/dm-4/dm/uuid", "part1-mpath-360000000000000000e00000000010001\n");
    put("block/dm-4/dm/name", "mpatha-part1\n");
    put("block/dm-10/dm/uuid", "mpath-x\n");
    put("block/dm-10/dm/name", "mpathb\n");
}

static void test_units(void)
{
    GArray *units;
    static const char *const nodes[] = {"/dev/sda", "/dev/sdb", "/dev/sr0", NULL};

    g_assert_cmpint(scsi_list_units(tree, 2, &units), ==, 0);
    g_assert_cmpuint(units->len, ==, G_N_ELEMENTS(nodes));
    for (guint i = 0; i < units->len; i++)
        g_assert_cmpstr(g_array_index(units, struct scsi_unit, i).node, ==, nodes[i]);
    g_assert_cmpuint(g_array_index(units, struct scsi_unit, 1).lun, ==, 1);
    g_array_unref(units);
    g_assert_cmpint(scsi_list_units("/nonexistent", 2, &units), ==, 0);
    g_assert_cmpuint(units->len, ==, 0);
    g_array_unref(units);
}

static void check_host(const struct pool_adapter *adapter, int expected, unsigned host)
{
    unsigned found = 0;

    g_assert_cmpint(scsi_find_host(tree, adapter, &found), ==, expected);
    if (!expected)
        g_assert_cmpuint(found, ==, host);
}

static void test_hosts(void)
{
    static const char *const bad[] = {"host", "hostx", "host1x", "scsi_host", "eth0", "host99999999999", ""};
    struct pool_adapter adapter = {.type = POOL_ADAPTER_SCSI_HOST, .name = (char *)(uintptr_t) "host2"};
    struct pool_adapter card = {
        .type = POOL_ADAPTER_SCSI_HOST, .has_parent_address = true, .unique_id = 1, .slot = 0x1f, .function = 2};
    struct pool_adapter port = {.type = POOL_ADAPTER_FC_HOST,
                                .wwnn = (char *)(uintptr_t) "2000000012341234",
                                .wwpn = (char *)(uintptr_t) "2100000012341234"};

    check_host(&adapter, 0, 2);
    adapter.name = (char *)(uintptr_t) "scsi_host17";
    check_host(&adapter, 0, 17);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        adapter.name = (char *)(uintptr_t)bad[i];
        check_host(&adapter, -EINVAL, 0);
    }
    check_host(&card, 0, 2);
    card.unique_id = 2;
    check_host(&card, -ENOENT, 0);
    check_host(&port, 0, 5);
    port.wwpn = port.wwnn;
    check_host(&port, -ENOENT, 0);
}

static void check_parent(struct pool_adapter child, int expected, unsigned host)
{
    unsigned found = 0;

    child.type = POOL_ADAPTER_FC_HOST;
    g_assert_cmpint(scsi_find_parent(tree, &child, &found), ==, expected);
    if (!expected)
        g_assert_cmpuint(found, ==, host);
}

#define TEXT(literal) (char *)(uintptr_t)(literal)

/* One that is named is taken as it is; one that is not has to be online and to have room: of host5 to host8 only the
 * last two do. */
static void test_parents(void)
{
    check_parent((struct pool_adapter){.parent = TEXT("scsi_host5")}, 0, 5);
    check_parent((struct pool_adapter){.parent = TEXT("eth0")}, -EINVAL, 0);
    check_parent(
        (struct pool_adapter){.parent_wwnn = TEXT("2000000012345678"), .parent_wwpn = TEXT("2100000012345678")}, 0, 6);
    check_parent(
        (struct pool_adapter){.parent_wwnn = TEXT("2000000012345678"), .parent_wwpn = TEXT("2100000000000000")},
        -ENOENT, 0);
    check_parent((struct pool_adapter){.parent_fabric_wwn = TEXT("1000000000000008")}, 0, 8);
    check_parent((struct pool_adapter){.parent_fabric_wwn = TEXT("1000000000000006")}, -ENOENT, 0);
    check_parent((struct pool_adapter){0}, 0, 7);
}

static void test_sessions(void)
{
    static const char text[] = "tcp: [3] 192.0.2.1:3260,1 iqn.2024-01.example:one (non-flash)\n"
                               "tcp: [7] 192.0.2.1:3260,1 iqn.2024-01.example:two (non-flash)\nodd line\n";
    static const char targets[] =
        "192.0.2.1:3260,1 iqn.a:1\n[2001:db8::1]:3260,1 iqn.a:1\n192.0.2.1:3260,1 iqn.a:2\n\n";
    g_autofree char *two = iscsi_session_find(tree, text, "iqn.2024-01.example:two", NULL);
    g_autoptr(GPtrArray) found = iscsi_session_targets(targets);
    unsigned host;

    g_assert_cmpstr(two, ==, "7");
    g_assert_null(iscsi_session_find(tree, text, "iqn.2024-01.example:tw", NULL));
    g_assert_null(iscsi_session_find(tree, "", "x", NULL));
    g_assert_cmpint(iscsi_session_host(tree, two, &host), ==, 0);
    g_assert_cmpuint(host, ==, 9);
    g_assert_cmpint(iscsi_session_host(tree, "8", &host), ==, -ENOENT);
    g_assert_cmpuint(found->len, ==, 2);
    g_assert_cmpstr(found->pdata[1], ==, "iqn.a:2");
}

/* Of three sessions with a target: that of the host, that of a pool with a name of its own, and an administrator's. */
static void test_initiators(void)
{
    static const char text[] = "tcp: [11] 192.0.2.1:3260,1 iqn.a:1 (non-flash)\ntcp: [12] 192.0.2.1:3260,1 iqn.a:1 "
                               "(non-flash)\ntcp: [13] 192.0.2.1:3260,1 iqn.a:1 (non-flash)\n";
    g_autofree char *host = iscsi_session_find(tree, text, "iqn.a:1", NULL);
    g_autofree char *same = iscsi_session_find(tree, text, "iqn.a:1", "iqn.host");
    g_autofree char *others = iscsi_session_find(tree, text, "iqn.a:1", "iqn.other");

    g_assert_cmpstr(host, ==, "12");
    g_assert_cmpstr(same, ==, "12");
    g_assert_cmpstr(others, ==, "11");
    g_assert_null(iscsi_session_find(tree, text, "iqn.a:1", "iqn.nobody"));
}

static void test_multipath(void)
{
    GArray *maps = multipath_list(tree, "/nowhere");

    g_assert_cmpuint(maps->len, ==, 2);
    g_assert_cmpuint(g_array_index(maps, struct multipath, 0).minor, ==, 3);
    g_assert_cmpstr(g_array_index(maps, struct multipath, 0).name, ==, "mpatha");
    g_assert_cmpstr(g_array_index(maps, struct multipath, 1).name, ==, "mpathb");
    g_array_unref(maps);
}

int main(int argc, char **argv)
{
    const char *words[] = {"rm", "-rf", NULL, NULL};
    int ret;

    g_test_init(&argc, &argv, NULL);
    tree = g_dir_make_tmp("ashlar-sysfs-XXXXXX", NULL);
    make_tree();
    g_test_add_func("/pool/sysfs/units", test_units);
    g_test_add_func("/pool/sysfs/hosts", test_hosts);
    g_test_add_func("/pool/sysfs/parents", test_parents);
    g_test_add_func("/pool/sysfs/sessions", test_sessions);
    g_test_add_func("/pool/sysfs/initiators", test_initiators);
    g_test_add_func("/pool/sysfs/multipath", test_multipath);
    ret = g_test_run();
    words[2] = tree;
    g_assert_true(
        g_spawn_sync(NULL, (char **)(uintptr_t)words, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
    g_free(tree);
    return ret;
}
