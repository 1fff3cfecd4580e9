/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* XML that goes in and comes out again, and XML that is refused. */
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop.h"
#include "pool/pool-def.h"
#include "pool/pool-error.h"
#include "pool/volume.h"
#include "pool/xml/document.h"
#include "pool/xml/schema.h"

#define SIZES                                                                                                          \
    "  <capacity unit='bytes'>0</capacity>\n"                                                                          \
    "  <allocation unit='bytes'>0</allocation>\n"                                                                      \
    "  <available unit='bytes'>0</available>\n"
#define UUID "  <uuid>0290400c-ac6e-4c3c-a3b7-1d4ffe7dfdc7</uuid>\n"

/* Each comes out as it went in. */
static const char *const pools[] = {
    "<pool type='dir'>\n  <name>demo</name>\n" UUID SIZES "  <source>\n  </source>\n  <target>\n"
    "    <path>/srv/demo</path>\n  </target>\n</pool>\n",

    "<pool type='dir'>\n  <name>a&amp;b&apos;&lt;</name>\n" UUID SIZES
    "  <features>\n    <cow state='no'/>\n  </features>\n  <source>\n  </source>\n  <target>\n"
    "    <path>/srv/a&amp;b</path>\n    <permissions>\n      <mode>0755</mode>\n      <owner>7</owner>\n"
    "      <group>10</group>\n      <label>x</label>\n    </permissions>\n  </target>\n</pool>\n",

    "<pool type='netfs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'>\n  <name>nf</name>\n" UUID SIZES
    "  <source>\n    <host name='h.example'/>\n    <dir path='/exp/a'/>\n    <format type='nfs'/>\n"
    "    <protocol ver='4.1'/>\n    <vendor name='V'/>\n    <product name='P'/>\n  </source>\n  <target>\n"
    "    <path>/srv/nf</path>\n  </target>\n  <fs:mount_opts>\n    <fs:option name='sync'/>\n"
    "    <fs:option name='lazytime'/>\n  </fs:mount_opts>\n</pool>\n",

    "<pool type='rbd' xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'>\n  <name>rb</name>\n" UUID SIZES
    "  <source>\n    <host name='a' port='6789'/>\n    <host name='b'/>\n    <name>rbdpool</name>\n"
    "    <auth type='ceph' username='u'>\n      <secret uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87'/>\n    </auth>\n"
    "  </source>\n  <refresh>\n    <volume allocation='capacity'/>\n  </refresh>\n  <rbd:config_opts>\n"
    "    <rbd:option name='client_mount_timeout' value='45'/>\n  </rbd:config_opts>\n</pool>\n",

    "<pool type='logical'>\n  <name>lvp</name>\n" UUID SIZES
    "  <source>\n    <device path='/dev/loop1'/>\n    <name>vg_demo</name>\n    <format type='lvm2'/>\n  </source>\n"
    "  <target>\n    <path>/dev/vg_demo</path>\n  </target>\n</pool>\n",

    "<pool type='disk'>\n  <name>d</name>\n" UUID SIZES
    "  <source>\n    <device path='/dev/sdb' part_separator='no'/>\n    <format type='gpt'/>\n  </source>\n"
    "  <target>\n    <path>/dev</path>\n  </target>\n</pool>\n",

    "<pool type='iscsi-direct'>\n  <name>isd</name>\n" UUID SIZES
    "  <source>\n    <host name='127.0.0.1' port='33260'/>\n    <device path='iqn.2024-01.org.example:disk1'/>\n"
    "    <initiator>\n      <iqn name='iqn.2024-01.org.example:client'/>\n    </initiator>\n  </source>\n</pool>\n",

    "<pool type='scsi'>\n  <name>s</name>\n" UUID SIZES
    "  <source>\n    <adapter type='scsi_host' name='host5'/>\n  </source>\n  <target>\n"
    "    <path>/dev/disk/by-path</path>\n  </target>\n</pool>\n",

    "<pool type='scsi'>\n  <name>s</name>\n" UUID SIZES
    "  <source>\n    <adapter type='fc_host' parent='scsi_host3' managed='yes' wwnn='20000000c9831b4b' "
    "wwpn='10000000c9831b4b'/>\n  </source>\n  <target>\n    <path>/dev/disk/by-path</path>\n  </target>\n</pool>\n",

    "<pool type='gluster'>\n  <name>g</name>\n" UUID SIZES
    "  <source>\n    <host name='h'/>\n    <dir path='/'/>\n    <name>vol</name>\n  </source>\n</pool>\n",

    "<pool type='zfs'>\n  <name>z</name>\n" UUID SIZES
    "  <source>\n    <name>tank</name>\n  </source>\n  <target>\n    <path>/dev/zvol/tank</path>\n  </target>\n"
    "</pool>\n",

    "<pool type='sheepdog'>\n  <name>s</name>\n" UUID SIZES
    "  <source>\n    <host name='h' port='7000'/>\n    <name>n</name>\n  </source>\n</pool>\n",

    "<pool type='mpath'>\n  <name>m</name>\n" UUID SIZES
    "  <source>\n  </source>\n  <target>\n    <path>/dev/mapper</path>\n  </target>\n</pool>\n",
};

static void round_trip(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(pools); i++) {
        struct pool_error *error = NULL;
        AUTO(pool_def) def = pool_def_parse(pools[i], false, &error);
        g_autofree char *text = NULL;

        if (error)
            g_test_message("%s: %s", pools[i], error->message);
        g_assert_null(error);
        text = pool_def_format(def);
        g_assert_cmpstr(text, ==, pools[i]);
        g_assert_true(xml_check_pool(pools[i], &error));
    }
}

/* What is written in another way, or left out. */
static void normalised(void)
{
    static const char xml[] =
        "<pool type='netfs'><name>n</name><uuid>0290400CAC6E4C3CA3B71D4FFE7DFDC7</uuid><capacity>5</capacity>"
        "<source><host name='h'/><dir path='//exp//a/'/></source><target><path>//srv///n//</path>"
        "<permissions><owner>-1</owner><mode>0700</mode></permissions></target><zork/></pool>";
    static const char expected[] =
        "<pool type='netfs'>\n  <name>n</name>\n" UUID SIZES
        "  <source>\n    <host name='h'/>\n    <dir path='/exp/a'/>\n    <format type='auto'/>\n  </source>\n"
        "  <target>\n    <path>/srv/n</path>\n    <permissions>\n      <mode>0700</mode>\n    </permissions>\n"
        "  </target>\n</pool>\n";
    struct pool_error *error = NULL;
    AUTO(pool_def) def = pool_def_parse(xml, false, &error);
    g_autofree char *text = pool_def_format(def);

    g_assert_cmpstr(text, ==, expected);
    g_assert_false(xml_check_pool(xml, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_XML_SCHEMA);
    g_assert_nonnull(strstr(error->message, "zork"));
    pool_error_free(error);
}

struct bad {
    const char *xml;
    enum pool_error_code code;
    const char *message; /* its beginning */
};

static const struct bad bad_pools[] = {
    {"", POOL_ERROR_XML_DETAIL, "at line 1: "},
    {"<pool", POOL_ERROR_XML_DETAIL, "at line 1: "},
    {"<foo/>", POOL_ERROR_XML, "XML error: expecting root element of 'pool', not 'foo'"},
    {"<pool/>", POOL_ERROR_XML, "XML error: Missing required attribute 'type' in element 'pool'"},
    {"<pool type='nope'/>", POOL_ERROR_XML, "XML error: Invalid value for attribute 'type' in element 'pool': 'nope'."},
    {"<pool type='dir'/>", POOL_ERROR_XML, "XML error: missing pool source name element"},
    {"<pool type='dir'><name></name></pool>", POOL_ERROR_XML, "XML error: missing pool source name element"},
    {"<pool type='dir'><name>a/b</name></pool>", POOL_ERROR_XML, "XML error: name a/b cannot contain '/'"},
    {"<pool type='dir'><name>..</name></pool>", POOL_ERROR_XML, "XML error: name .. cannot be that of a file"},
    {"<pool type='dir'><name>a</name><uuid>12</uuid></pool>", POOL_ERROR_XML, "XML error: malformed uuid element"},
    {"<pool type='dir'><name>a</name></pool>", POOL_ERROR_XML, "XML error: missing storage pool target path"},
    {"<pool type='fs'><name>a</name></pool>", POOL_ERROR_XML, "XML error: missing storage pool source device name"},
    {"<pool type='netfs'><name>a</name></pool>", POOL_ERROR_XML, "XML error: missing storage pool source host name"},
    {"<pool type='netfs'><name>a</name><source><host name='h' port='x'/></source></pool>", POOL_ERROR_XML,
     "XML error: Invalid value for attribute 'port' in element 'host': 'x'. Expected integer value."},
    {"<pool type='netfs'><name>a</name><source><host name='h'/></source></pool>", POOL_ERROR_XML,
     "XML error: missing storage pool source path"},
    {"<pool type='fs'><name>a</name><source><device path='d'/><format type='zork'/></source></pool>",
     POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported configuration: unknown pool format type zork"},
    {"<pool type='rbd'><name>a</name></pool>", POOL_ERROR_XML, "XML error: element 'name' is mandatory for RBD pool"},
    {"<pool type='scsi'><name>a</name></pool>", POOL_ERROR_XML, "XML error: missing storage pool source adapter"},
    {"<pool type='iscsi-direct'><name>a</name><source><host name='h'/></source></pool>", POOL_ERROR_CONFIG_UNSUPPORTED,
     "unsupported configuration: missing initiator IQN"},
    {"<pool type='logical'><name>a</name><features><cow state='no'/></features></pool>", POOL_ERROR_NO_SUPPORT,
     "this function is not supported by the connection driver: cow feature may only be used for 'fs' and 'dir' pools"},
    {"<pool type='dir'><name>a</name><target><path>/x</path><permissions><mode>1777</mode></permissions></target>"
     "</pool>",
     POOL_ERROR_XML, "XML error: malformed octal mode"},
    {"<pool type='dir'><name>a</name><target><path>/x</path><permissions><owner>joe</owner></permissions></target>"
     "</pool>",
     POOL_ERROR_XML, "XML error: malformed owner element"},
    {"<pool type='iscsi'><name>a</name><source><auth type='chap'/></source></pool>", POOL_ERROR_XML,
     "XML error: missing username for auth"},
    {"<pool type='iscsi'><name>a</name><source><auth username='u'/></source></pool>", POOL_ERROR_CONFIG_UNSUPPORTED,
     "unsupported configuration: storage pool missing auth type"},
    {"<pool type='iscsi'><name>a</name><source><auth username='u' type='chap'><secret uuid='x' usage='y'/></auth>"
     "</source></pool>",
     POOL_ERROR_XML, "XML error: either secret uuid or usage expected"},
    /* P5: what would grow, or reach out. */
    {"<!DOCTYPE pool [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;'>]>"
     "<pool type='dir'><name>&c;</name></pool>",
     POOL_ERROR_XML_DETAIL, "at line 1: a document type is not allowed here"},
    {"<!DOCTYPE pool SYSTEM 'file:///etc/passwd'><pool type='dir'/>", POOL_ERROR_XML_DETAIL,
     "at line 1: a document type is not allowed here"},
    {"<!DOCTYPE pool [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><pool type='dir'><name>&x;</name></pool>",
     POOL_ERROR_XML_DETAIL, "at line 1: a document type is not allowed here"},
    {"<pool type='dir'><name>&undefined;</name></pool>", POOL_ERROR_XML_DETAIL, "at line 1: "},
    {"<pool type='dir'><name>\xff</name></pool>", POOL_ERROR_XML_DETAIL, "the document is not valid UTF-8"},
};

static void refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad_pools); i++) {
        struct pool_error *error = NULL;

        g_assert_null(pool_def_parse(bad_pools[i].xml, false, &error));
        g_assert_nonnull(error);
        if (error->code != bad_pools[i].code || !g_str_has_prefix(error->message, bad_pools[i].message))
            g_error("%s: %d %s", bad_pools[i].xml, error->code, error->message);
        pool_error_free(error);
    }
}

/* Deeper than anybody's stack should have to be. */
static void deep(void)
{
    GString *text = g_string_new("<pool type='dir'>");
    struct pool_error *error = NULL;

    for (unsigned i = 0; i < 100000; i++)
        g_string_append(text, "<a>");
    g_assert_null(pool_def_parse(text->str, false, &error));
    g_assert_cmpint(error->code, ==, POOL_ERROR_XML_DETAIL);
    pool_error_free(error);
    g_string_free(text, TRUE);
}

/* A file of a running pool wraps the definition. */
static void wrapped(void)
{
    g_autofree char *text = g_strconcat("<!-- c -->\n<poolstate>\n", pools[0], "</poolstate>", NULL);
    struct pool_error *error = NULL;
    AUTO(pool_def) def = pool_def_parse(text, true, &error);

    g_assert_nonnull(def);
    g_assert_cmpstr(def->name, ==, "demo");
    g_assert_null(pool_def_parse("<poolstate/>", true, &error));
    g_assert_cmpstr(error->message, ==, "XML error: no element 'pool'");
    pool_error_free(error);
}

static void volumes(void)
{
    static const char xml[] =
        "<volume type='file'>\n  <name>v</name>\n  <key>k</key>\n  <capacity unit='MiB'>2</capacity>\n"
        "  <allocation unit='KB'>3</allocation>\n  <target>\n    <format type='qcow2'/>\n    <permissions>\n"
        "      <mode>0640</mode>\n    </permissions>\n    <encryption format='luks'>\n"
        "      <secret type='passphrase' usage='/a'/>\n      <cipher name='aes' size='256' mode='xts' hash='sha256'/>\n"
        "      <ivgen name='plain64'/>\n    </encryption>\n    <compat>1.1</compat>\n"
        "    <clusterSize unit='KiB'>128</clusterSize>\n    <features>\n      <lazy_refcounts/>\n      <extended_l2/>\n"
        "    </features>\n    <nocow/>\n  </target>\n  <backingStore>\n    <path>/b</path>\n"
        "    <format type='raw'/>\n  </backingStore>\n</volume>\n";
    static const char expected[] =
        "<volume type='file'>\n  <name>v</name>\n  <capacity unit='bytes'>2097152</capacity>\n"
        "  <allocation unit='bytes'>3000</allocation>\n  <target>\n    <format type='qcow2'/>\n    <permissions>\n"
        "      <mode>0640</mode>\n    </permissions>\n    <encryption format='luks'>\n"
        "      <secret type='passphrase' usage='/a'/>\n      <cipher name='aes' size='256' mode='xts' hash='sha256'/>\n"
        "      <ivgen name='plain64'/>\n    </encryption>\n    <compat>1.1</compat>\n"
        "    <clusterSize unit='B'>131072</clusterSize>\n    <features>\n      <lazy_refcounts/>\n      "
        "<extended_l2/>\n"
        "    </features>\n  </target>\n  <backingStore>\n    <path>/b</path>\n    <format type='raw'/>\n"
        "  </backingStore>\n</volume>\n";
    struct pool_error *error = NULL;
    AUTO(volume) volume = volume_parse(xml, POOL_DIR, false, &error);
    g_autofree char *text = NULL;

    g_assert_null(error);
    g_assert_true(volume->target.nocow);
    text = volume_format_xml(volume, POOL_DIR);
    g_assert_cmpstr(text, ==, expected);
    g_assert_true(xml_check_volume(xml, POOL_DIR, false, &error));
}

static void bad_volumes(void)
{
    static const struct bad cases[] = {
        {"<volume type='zork'><name>a</name></volume>", POOL_ERROR_CONFIG_UNSUPPORTED,
         "unsupported configuration: unknown volume type 'zork'"},
        {"<volume><name>a</name></volume>", POOL_ERROR_XML, "XML error: missing capacity element"},
        {"<volume><name>a</name><capacity>-1</capacity></volume>", POOL_ERROR_XML,
         "XML error: malformed capacity element"},
        {"<volume><name>a</name><capacity>18446744073709551615</capacity></volume>", POOL_ERROR_OVERFLOW,
         "numerical overflow: value too large: 18446744073709551615"},
        {"<volume><name>a</name><capacity>18446744073709551616</capacity></volume>", POOL_ERROR_XML,
         "XML error: malformed capacity element"},
        {"<volume><name>a</name><capacity>5 </capacity></volume>", POOL_ERROR_XML,
         "XML error: malformed capacity element"},
        {"<volume><name>a</name><capacity>+ 5</capacity></volume>", POOL_ERROR_XML,
         "XML error: malformed capacity element"},
        {"<volume><name>a</name><capacity>1</capacity><allocation>y</allocation></volume>", POOL_ERROR_XML,
         "XML error: malformed allocation element"},
        {"<volume><name>a</name><capacity>1</capacity><target><format type='none'/></target></volume>",
         POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported configuration: unknown volume format type none"},
        {"<volume><name>a</name><capacity>1</capacity><target><compat>x</compat></target></volume>", POOL_ERROR_XML,
         "XML error: forbidden characters in 'compat' attribute"},
        {"<volume><name>a</name><capacity>1</capacity><target><features><zork/></features></target></volume>",
         POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported configuration: unsupported feature zork"},
        {"<volume><name>a</name><capacity>1</capacity><target><encryption format='zork'/></target></volume>",
         POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported configuration: unknown volume encryption format type zork"},
        {"<volume><name>a</name><capacity>1</capacity><target><encryption format='luks'><secret type='zork'/>"
         "</encryption></target></volume>",
         POOL_ERROR_CONFIG_UNSUPPORTED, "unsupported configuration: unknown volume encryption secret type zork"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct pool_error *error = NULL;

        g_assert_null(volume_parse(cases[i].xml, POOL_DIR, false, &error));
        g_assert_cmpint(error->code, ==, cases[i].code);
        g_assert_cmpstr(error->message, ==, cases[i].message);
        pool_error_free(error);
    }
}

/* --- validation --- */

#define DIR_POOL(inner) "<pool type='dir'>" inner "<name>a</name><target><path>/srv</path></target></pool>"
#define SOURCE_POOL(type, inner)                                                                                       \
    "<pool type='" type "'><name>a</name><source>" inner "</source><target><path>/srv</path></target></pool>"
#define VOLUME(inner) "<volume><name>a</name><capacity>1</capacity>" inner "<target/></volume>"
#define TARGET(inner) "<volume><name>a</name><capacity>1</capacity><target>" inner "</target></volume>"

/* What libvirt's schema refuses as well, each for another reason. */
static void validated_pools(void)
{
    static const char *const refused_ones[] = {
        DIR_POOL("<zork/>"),
        DIR_POOL("<uuid>12</uuid>"),
        DIR_POOL("<capacity>x</capacity>"),
        DIR_POOL("<capacity unit='zz'>1</capacity>"),
        DIR_POOL("<capacity zork='1'>1</capacity>"),
        DIR_POOL("<available>-1</available>"),
        DIR_POOL("text"),
        DIR_POOL("<features><cow state='maybe'/></features>"),
        DIR_POOL("<features><cow/></features>"),
        DIR_POOL("<name>b</name>"),
        DIR_POOL("<refresh><volume allocation='zork'/></refresh>"),
        DIR_POOL("<source><format type='zork'/></source>"),
        DIR_POOL("<source><host name='h'/></source>"),
        "<pool type='dir' zork='1'><name>a</name><target><path>/srv</path></target></pool>",
        "<pool type='zork'><name>a</name><target><path>/srv</path></target></pool>",
        "<pool type='dir'><name>a/b</name><target><path>/srv</path></target></pool>",
        "<pool type='dir'><name>a\nb</name><target><path>/srv</path></target></pool>",
        "<pool type='dir'><name>a</name><target><path>srv</path></target></pool>",
        "<pool type='dir'><name>a</name><target/></pool>",
        "<pool type='dir'><name>a</name></pool>",
        "<pool type='dir'><name>a</name><target><path>/srv</path><permissions><mode>0888</mode></permissions></target>"
        "</pool>",
        SOURCE_POOL("netfs", "<host name='h' port='x'/><dir path='/e'/>"),
        SOURCE_POOL("netfs", "<host name='h'/><dir path='/e'/><format type='zork'/>"),
        SOURCE_POOL("netfs", "<host name='h'/><dir path='e'/>"),
        SOURCE_POOL("netfs", "<dir path='/e'/>"),
        SOURCE_POOL("iscsi", "<host name='h'/><device path='i'/><initiator><iqn name='i'/><zork/></initiator>"),
        SOURCE_POOL("scsi", "<adapter type='zork' name='host5'/>"),
        SOURCE_POOL("scsi", "<adapter type='fc_host' wwnn='zz' wwpn='10000000c9831b4b'/>"),
        SOURCE_POOL("disk", "<device path='/dev/x' part_separator='maybe'/>"),
        SOURCE_POOL("disk", "<device path='/dev/x'><freeExtent start='x' end='2'/></device>"),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(refused_ones); i++) {
        struct pool_error *error = NULL;

        if (xml_check_pool(refused_ones[i], &error))
            g_error("passed: %s", refused_ones[i]);
        g_assert_cmpint(error->code, ==, POOL_ERROR_XML_SCHEMA);
        pool_error_free(error);
    }
    g_assert_true(xml_check_pool(DIR_POOL("<source><vendor name='v'/></source>"), NULL));
    g_assert_true(xml_check_pool(SOURCE_POOL("netfs", "<host name='h' port='5'/><dir path='/e'/>"), NULL));
}

static void validated_volumes(void)
{
    static const char *const refused_ones[] = {
        "<volume><name>a</name><capacity>1</capacity></volume>",
        "<volume><name>a</name><target/></volume>",
        "<volume type='zork'><name>a</name><capacity>1</capacity><target/></volume>",
        "<volume zork='1'><name>a</name><capacity>1</capacity><target/></volume>",
        "<volume><name>a/b</name><capacity>1</capacity><target/></volume>",
        "<volume><name>a</name><capacity>-1</capacity><target/></volume>",
        VOLUME("<zork/>"),
        VOLUME("text"),
        VOLUME("<allocation>x</allocation>"),
        VOLUME("<allocation unit='zz'>1</allocation>"),
        VOLUME("<capacity>1</capacity>"),
        VOLUME("<source><device path='/dev/x'><extent start='a' end='1'/></device></source>"),
        VOLUME("<backingStore><path>/b</path><format type='zork'/></backingStore>"),
        TARGET("<zork/>"),
        TARGET("<format type='zork'/>"),
        TARGET("<format type='raw' zork='1'/>"),
        TARGET("<permissions><mode>0999</mode></permissions>"),
        TARGET("<compat>x</compat>"),
        TARGET("<features><zork/></features>"),
        TARGET("<nocow>1</nocow>"),
        TARGET("<clusterSize>x</clusterSize>"),
        TARGET("<encryption format='zork'/>"),
        TARGET("<timestamps><atime>x</atime></timestamps>"),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(refused_ones); i++) {
        struct pool_error *error = NULL;

        if (xml_check_volume(refused_ones[i], POOL_DIR, false, &error))
            g_error("passed: %s", refused_ones[i]);
        g_assert_cmpint(error->code, ==, POOL_ERROR_XML_SCHEMA);
        pool_error_free(error);
    }
    g_assert_true(
        xml_check_volume(TARGET("<timestamps><atime>1.2</atime></timestamps><nocow/>"), POOL_DIR, false, NULL));
    g_assert_true(xml_check_volume("<volume><name>a</name><target/></volume>", POOL_DIR, true, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xml/pool/round-trip", round_trip);
    g_test_add_func("/xml/pool/normalised", normalised);
    g_test_add_func("/xml/pool/refused", refused);
    g_test_add_func("/xml/pool/deep", deep);
    g_test_add_func("/xml/pool/wrapped", wrapped);
    g_test_add_func("/xml/volume/round-trip", volumes);
    g_test_add_func("/xml/volume/refused", bad_volumes);
    g_test_add_func("/xml/pool/validated", validated_pools);
    g_test_add_func("/xml/volume/validated", validated_volumes);
    return g_test_run();
}
