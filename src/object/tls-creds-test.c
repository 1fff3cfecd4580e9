/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* TLS credentials and sessions over a socket pair; certtool makes the certificates. */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "loop/file.h"
#include "loop/loop.h"
#include "loop/stream.h"
#include "object/object.h"
#include "object/tls-creds.h"
#include "schema/json.h"

/* The folder of all files; made once, by main(). */
struct place {
    char *path;
};

static char *at(const struct place *place, const char *name)
{
    return g_build_filename(place->path, name, NULL);
}

static void write_file(const struct place *place, const char *name, const char *text)
{
    g_autofree char *path = at(place, name);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void run(const struct place *place, const char *command)
{
    g_autofree char *line = g_strdup_printf("sh -c 'cd %s && %s'", place->path, command);
    g_autofree char *out = NULL;
    g_autofree char *complaint = NULL;
    int status;

    g_assert_true(g_spawn_command_line_sync(line, &out, &complaint, &status, NULL));
    if (status)
        g_test_message("%s: %s", command, complaint);
    g_assert_cmpint(status, ==, 0);
}

static void make_key(const struct place *place, const char *path)
{
    g_autofree char *command = g_strdup_printf("certtool --generate-privkey --key-type=ecdsa --outfile %s", path);

    run(place, command);
}

/* An authority of its own in `folder`. */
static void make_authority(const struct place *place, const char *folder)
{
    g_autofree char *folder_path = at(place, folder);
    g_autofree char *key = g_strdup_printf("%s/ca-key.pem", folder);
    g_autofree char *template = g_strdup_printf("%s/ca.info", folder);
    g_autofree char *command = g_strdup_printf("certtool --generate-self-signed --load-privkey %s --template %s "
                                               "--outfile %s/ca-cert.pem",
                                               key, template, folder);

    g_assert_cmpint(g_mkdir_with_parents(folder_path, 0700), ==, 0);
    make_key(place, key);
    write_file(place, template, "cn=Test authority\nca\ncert_signing_key\nexpiration_days=2\n");
    run(place, command);
}

/* A certificate NAME-cert.pem in `folder`, by the authority of `authority`. */
static void make_certificate(const struct place *place, const char *folder, const char *authority, const char *name,
                             const char *template_text)
{
    g_autofree char *folder_path = at(place, folder);
    g_autofree char *key = g_strdup_printf("%s/%s-key.pem", folder, name);
    g_autofree char *template = g_strdup_printf("%s/%s.info", folder, name);
    g_autofree char *command = g_strdup_printf("certtool --generate-certificate --load-ca-certificate %s/ca-cert.pem "
                                               "--load-ca-privkey %s/ca-key.pem --load-privkey %s --template %s "
                                               "--outfile %s/%s-cert.pem",
                                               authority, authority, key, template, folder, name);

    g_assert_cmpint(g_mkdir_with_parents(folder_path, 0700), ==, 0);
    make_key(place, key);
    write_file(place, template, template_text);
    run(place, command);
}

#define SERVER "cn=server\ndns_name=localhost\ntls_www_server\nsigning_key\nencryption_key\n"
#define CLIENT "cn=client\norganization=Masons\ntls_www_client\nsigning_key\nencryption_key\n"
#define VALID "expiration_days=2\n"
#define PAST "activation_date=\"2001-01-01 00:00:00\"\nexpiration_date=\"2002-01-01 00:00:00\"\n"

static void make_files(const struct place *place)
{
    make_authority(place, "ok");
    make_certificate(place, "ok", "ok", "server", SERVER VALID);
    make_certificate(place, "ok", "ok", "client", CLIENT VALID);
    run(place, "cp -r ok expired && cp -r ok stranger && cp -r ok nocert && rm nocert/client-*");
    make_certificate(place, "expired", "ok", "server", SERVER PAST);
    make_certificate(place, "expired", "ok", "client", CLIENT PAST);
    make_authority(place, "other");
    make_certificate(place, "stranger", "other", "client", CLIENT VALID);
    run(place, "cp -r ok revoked && printf expiration_days=2 >crl.info && certtool --generate-crl --load-ca-privkey "
               "ok/ca-key.pem --load-ca-certificate ok/ca-cert.pem --load-certificate ok/client-cert.pem "
               "--template crl.info --outfile revoked/ca-crl.pem");
    run(place, "mkdir psk wrongkey && psktool -u alice -p psk/keys.psk && psktool -u bob -p psk/keys.psk && "
               "psktool -u alice -p wrongkey/keys.psk && psktool -u eve -p wrongkey/keys.psk");
}

/* --- running in a loop --- */

struct test {
    const struct place *place;
    struct object_registry *registry;
};

/* What the object is said to be wrong with, owned; NULL: it is there. %D in `members` is the folder of all files. */
static char *CO_FN co_add(struct test *test, const char *members)
{
    g_auto(GStrv) parts = g_strsplit(members, "%D", -1);
    g_autofree char *filled = g_strjoinv(test->place->path, parts);
    g_autofree char *text = g_strdup_printf("{%s}", filled);
    AUTO(error) error = NULL;
    AUTO(json) json = json_parse(text, strlen(text), &error);
    AUTO(object_options) options = json ? object_options_parse(json, &error) : NULL;

    if (options && co_object_add(test->registry, options, &error))
        return NULL;
    return g_strdup(error_message(error));
}

static void CO_FN co_add_well(struct test *test, const char *members)
{
    g_autofree char *complaint = co_add(test, members);

    g_assert_cmpstr(complaint, ==, NULL);
}

static void CO_FN co_expect_refused(struct test *test, const char *members, const char *expected)
{
    g_autofree char *complaint = co_add(test, members);
    g_auto(GStrv) parts = g_strsplit(expected, "%D", -1);
    g_autofree char *filled = g_strjoinv(test->place->path, parts);

    g_assert_nonnull(complaint);
    if (!g_str_has_prefix(complaint, filled))
        g_assert_cmpstr(complaint, ==, filled);
}

static void CO_FN co_free_registry(void *opaque)
{
    co_object_registry_free(opaque);
}

struct run {
    const struct place *place;
    void (*co_body)(struct test *test);
};

static void CO_FN co_run_body(void *opaque)
{
    struct run *run = opaque;
    struct test test = {.place = run->place, .registry = object_registry_new()};

    run->co_body(&test);
    co_free_registry(test.registry);
}

static void in_loop(const void *opaque)
{
    struct run run = *(const struct run *)opaque;
    struct loop *loop = loop_new(&(struct loop_options){0}, NULL);

    g_assert_nonnull(loop);
    co_run(loop, co_run_body, &run);
    loop_free(loop);
}

/* --- two ends --- */

struct end {
    struct test *test;
    const char *creds;
    const char *host_name;
    const char *authz;
    enum q_crypto_tls_creds_endpoint endpoint;
    int fd;
    bool shut; /* hang up instead of a handshake */
    struct stream *stream;
    char *complaint; /* owned */
    struct co_task *task;
};

static void CO_FN co_open_end(void *opaque)
{
    struct end *end = opaque;
    AUTO(error) error = NULL;
    struct object *creds = tls_creds_hold(end->test->registry, end->creds, end->endpoint, &error);

    g_assert_nonnull(creds);
    end->stream = co_tls_stream_new(stream_new_socket(end->fd), creds, end->host_name, end->authz, &error);
    end->complaint = error ? g_strdup(error_message(error)) : NULL;
    object_release(creds);
    /* For clients that are wanted to read; one that did not want us has hung up by now. */
    if (end->endpoint == Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER && end->stream)
        (void)co_stream_write(end->stream, "hi", 2);
}

static void CO_FN co_open_pair(struct end *server, struct end *client)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
    server->fd = fds[0];
    server->endpoint = Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    client->fd = fds[1];
    client->endpoint = Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    server->task = co_task_start(loop_current(), co_open_end, server);
    client->task = co_task_start(loop_current(), co_open_end, client);
    co_task_join(server->task);
    co_task_join(client->task);
}

static void close_pair(struct end *server, struct end *client)
{
    stream_free(server->stream);
    stream_free(client->stream);
    g_free(server->complaint);
    g_free(client->complaint);
}

/* Both ends talk, or the server refuses with this reason; NULL: talks. */
static void CO_FN co_meet(struct test *test, const char *server_creds, const char *client_creds, const char *host_name,
                          const char *authz, const char *server_complaint, const char *client_complaint)
{
    struct end server = {.test = test, .creds = server_creds, .authz = authz};
    struct end client = {.test = test, .creds = client_creds, .host_name = host_name};
    char text[2] = "";

    co_open_pair(&server, &client);
    if (server_complaint)
        g_assert_nonnull(server.complaint);
    if (server_complaint)
        g_assert_nonnull(strstr(server.complaint, server_complaint));
    else
        g_assert_cmpstr(server.complaint, ==, NULL);
    if (client_complaint) {
        g_assert_nonnull(client.complaint);
        g_assert_nonnull(strstr(client.complaint, client_complaint));
    } else if (!server_complaint) {
        g_assert_cmpstr(client.complaint, ==, NULL);
        g_assert_cmpint(co_stream_read_exact(client.stream, text, 2), ==, 0);
        g_assert_cmpmem(text, 2, "hi", 2);
    } else if (client.stream) {
        g_assert_cmpint(co_stream_read_exact(client.stream, text, 2), <, 0);
    }
    close_pair(&server, &client);
}

#define X509(id, folder, end)                                                                                          \
    "'qom-type': 'tls-creds-x509', 'id': '" id "', 'dir': '%D/" folder "', 'endpoint': '" end "'"
#define PSK(id, folder, end)                                                                                           \
    "'qom-type': 'tls-creds-psk', 'id': '" id "', 'dir': '%D/" folder "', 'endpoint': '" end "'"

static void CO_FN co_test_x509(struct test *test)
{
    co_add_well(test, X509("server", "ok", "server"));
    co_add_well(test, X509("client", "ok", "client"));
    co_add_well(test, X509("nocert", "nocert", "client"));
    co_add_well(test, X509("expired", "expired", "client") ", 'sanity-check': false");
    co_add_well(test, X509("stranger", "stranger", "client") ", 'sanity-check': false");
    co_add_well(test, X509("trusting", "ok", "server") ", 'verify-peer': false");
    co_add_well(test, X509("strict", "revoked", "server"));

    co_meet(test, "server", "client", "localhost", NULL, NULL, NULL);
    co_meet(test, "trusting", "nocert", "localhost", NULL, NULL, NULL);
    co_meet(test, "server", "nocert", "localhost", NULL, "Verify failed", NULL);
    co_meet(test, "server", "expired", "localhost", NULL, "The certificate has expired: 'O=Masons,CN=client'", NULL);
    co_meet(test, "server", "stranger", "localhost", NULL, "hasn't got a known issuer", NULL);
    co_meet(test, "strict", "client", "localhost", NULL, "The certificate has been revoked", NULL);
}

static void CO_FN co_test_x509_client(struct test *test)
{
    co_add_well(test, X509("server", "ok", "server"));
    co_add_well(test, X509("old", "expired", "server") ", 'sanity-check': false, 'verify-peer': false");
    co_add_well(test, X509("client", "ok", "client"));
    co_add_well(test, X509("elsewhere", "other", "client"));
    co_add_well(test, X509("blind", "other", "client") ", 'verify-peer': false");
    co_add_well(test, X509("trusting", "ok", "server") ", 'verify-peer': false");

    struct end server = {.test = test, .creds = "trusting"};
    struct end client = {.test = test, .creds = "client", .host_name = "example.org"};
    co_open_pair(&server, &client);
    g_assert_cmpstr(client.complaint, ==, "Certificate does not match the hostname example.org");
    close_pair(&server, &client);

    server = (struct end){.test = test, .creds = "trusting"};
    client = (struct end){.test = test, .creds = "client"};
    co_open_pair(&server, &client);
    g_assert_cmpstr(client.complaint, ==, "No hostname for certificate validation");
    close_pair(&server, &client);

    server = (struct end){.test = test, .creds = "trusting"};
    client = (struct end){.test = test, .creds = "elsewhere", .host_name = "localhost"};
    co_open_pair(&server, &client);
    g_assert_nonnull(strstr(client.complaint, "hasn't got a known issuer"));
    close_pair(&server, &client);

    server = (struct end){.test = test, .creds = "old"};
    client = (struct end){.test = test, .creds = "client", .host_name = "localhost"};
    co_open_pair(&server, &client);
    g_assert_cmpstr(client.complaint, ==, "The certificate has expired: 'CN=server'");
    close_pair(&server, &client);

    co_meet(test, "trusting", "blind", NULL, NULL, NULL, NULL);
}

static void CO_FN co_test_authz(struct test *test)
{
    co_add_well(test, X509("server", "ok", "server"));
    co_add_well(test, X509("trusting", "ok", "server") ", 'verify-peer': false");
    co_add_well(test, X509("client", "ok", "client"));
    co_add_well(test, "'qom-type': 'authz-simple', 'id': 'us', 'identity': 'O=Masons,CN=client'");
    co_add_well(test, "'qom-type': 'authz-simple', 'id': 'them', 'identity': 'O=Bakers,CN=client'");
    co_add_well(test, "'qom-type': 'authz-list', 'id': 'list', 'rules': "
                      "[{'match': 'O=Masons,*', 'policy': 'allow', 'format': 'glob'}]");

    co_meet(test, "server", "client", "localhost", "us", NULL, NULL);
    co_meet(test, "server", "client", "localhost", "list", NULL, NULL);
    co_meet(test, "server", "client", "localhost", "them",
            "TLS x509 authz check for O=Masons,CN=client is denied by 'them'", NULL);
    co_meet(test, "server", "client", "localhost", "nobody", "Cannot find QAuthZ object ID nobody", NULL);
    co_meet(test, "server", "client", "localhost", "client", "Object 'client' is not a QAuthZ subclass", NULL);
    co_meet(test, "trusting", "client", "localhost", "us", "no identity to be authorized by 'us'", NULL);
}

static void CO_FN co_test_psk(struct test *test)
{
    co_add_well(test, PSK("server", "psk", "server"));
    co_add_well(test, PSK("alice", "psk", "client") ", 'username': 'alice'");
    co_add_well(test, PSK("forger", "wrongkey", "client") ", 'username': 'alice'");
    co_add_well(test, PSK("eve", "wrongkey", "client") ", 'username': 'eve'");
    co_add_well(test, "'qom-type': 'authz-simple', 'id': 'only-bob', 'identity': 'bob'");
    co_add_well(test, "'qom-type': 'authz-simple', 'id': 'only-alice', 'identity': 'alice'");

    co_meet(test, "server", "alice", NULL, NULL, NULL, NULL);
    co_meet(test, "server", "alice", NULL, "only-alice", NULL, NULL);
    co_meet(test, "server", "alice", NULL, "only-bob", "TLS PSK authz check for alice is denied", NULL);
    co_meet(test, "server", "forger", NULL, NULL, "TLS handshake failed: the key of username 'alice' is another", NULL);
    co_meet(test, "server", "eve", NULL, NULL, "TLS handshake failed: username 'eve' is not in the PSK file", NULL);
}

static void CO_FN co_test_anon(struct test *test)
{
    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'server', 'endpoint': 'server'");
    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'client', 'endpoint': 'client'");
    co_add_well(test, "'qom-type': 'authz-simple', 'id': 'us', 'identity': 'us'");
    co_meet(test, "server", "client", NULL, NULL, NULL, NULL);
    co_meet(test, "server", "client", NULL, "us", "no identity", NULL);
}

/* --- the stream --- */

enum { LOAD_BYTES = 5 << 20 };

struct talker {
    struct stream *stream;
    uint8_t *data;
};

static void CO_FN co_send_load(void *opaque)
{
    struct talker *talker = opaque;
    struct iovec iov[4] = {
        {talker->data, 16},
        {talker->data + 16, 100000},
        {talker->data + 100016, 0},
        {talker->data + 100016, LOAD_BYTES - 100016},
    };

    g_assert_cmpint(co_stream_writev(talker->stream, iov, 4), ==, 0);
    co_stream_shutdown(talker->stream);
}

static void CO_FN co_receive_load(void *opaque)
{
    struct talker *talker = opaque;
    char more;

    g_assert_cmpint(co_stream_read_exact(talker->stream, talker->data, 1000), ==, 0);
    g_assert_cmpint(co_stream_read_exact(talker->stream, talker->data + 1000, LOAD_BYTES - 1000), ==, 0);
    g_assert_cmpint(co_stream_read(talker->stream, &more, 1), ==, 0);
}

/* A megabyte-sized load in each direction at once, read and written by four coroutines. */
static void CO_FN co_test_both_ways(struct test *test)
{
    struct end server = {.test = test, .creds = "server"};
    struct end client = {.test = test, .creds = "client"};
    g_autofree uint8_t *sent = g_malloc(LOAD_BYTES);
    g_autofree uint8_t *at_client = g_malloc(LOAD_BYTES);
    g_autofree uint8_t *at_server = g_malloc(LOAD_BYTES);
    struct co_task *tasks[4];
    char text[2];

    for (unsigned i = 0; i < LOAD_BYTES; i++)
        sent[i] = (uint8_t)(i * 2654435761u >> 24);
    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'server', 'endpoint': 'server'");
    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'client', 'endpoint': 'client'");
    co_open_pair(&server, &client);
    g_assert_cmpint(co_stream_read_exact(client.stream, text, 2), ==, 0);

    struct talker talkers[4] = {
        {client.stream, sent}, {server.stream, sent}, {client.stream, at_client}, {server.stream, at_server}};
    for (unsigned i = 0; i < 4; i++)
        tasks[i] = co_task_start(loop_current(), i < 2 ? co_send_load : co_receive_load, &talkers[i]);
    for (unsigned i = 0; i < 4; i++)
        co_task_join(tasks[i]);
    g_assert_cmpmem(at_client, LOAD_BYTES, sent, LOAD_BYTES);
    g_assert_cmpmem(at_server, LOAD_BYTES, sent, LOAD_BYTES);
    close_pair(&server, &client);
}

/* An end without a goodbye may be an attacker's cut, and is told apart from a real one. */
static void CO_FN co_test_cut(struct test *test)
{
    struct end server = {.test = test, .creds = "server"};
    struct end client = {.test = test, .creds = "client"};
    char text[3];

    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'server', 'endpoint': 'server'");
    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'client', 'endpoint': 'client'");
    co_open_pair(&server, &client);
    stream_free(server.stream);
    server.stream = NULL;
    g_assert_cmpint(co_stream_read_exact(client.stream, text, 2), ==, 0);
    g_assert_cmpint(co_stream_read(client.stream, text, 1), ==, -ECONNABORTED);
    close_pair(&server, &client);
}

/* A client that sends this instead of a handshake, and then closes. */
static void CO_FN co_meet_bytes(struct test *test, const char *bytes, size_t size, const char *expected)
{
    struct end server = {.test = test, .creds = "server", .endpoint = Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER};
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
    struct stream *client = stream_new_socket(fds[1]);
    if (size)
        g_assert_cmpint(co_stream_write(client, bytes, size), ==, 0);
    stream_free(client);
    server.fd = fds[0];
    co_open_end(&server);
    g_assert_nonnull(server.complaint);
    g_assert_nonnull(strstr(server.complaint, expected));
    g_free(server.complaint);
}

static void CO_FN co_test_no_handshake(struct test *test)
{
    /* A hello that promises more than comes. */
    static const char half[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, (char)0xfc, 0x03, 0x03};

    co_add_well(test, X509("server", "ok", "server"));
    co_meet_bytes(test, "", 0, "TLS handshake failed");
    co_meet_bytes(test, half, sizeof(half), "TLS handshake failed");
    co_meet_bytes(test, "IHAVEOPT and so on, in the clear", 32, "TLS handshake failed");
}

/* A peer that says nothing is waited for no longer than the caller wants to. */
static void CO_FN co_test_deadline(struct test *test)
{
    struct end server = {.test = test, .creds = "server", .endpoint = Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER};
    struct co_deadline deadline;
    int fds[2];

    co_add_well(test, X509("server", "ok", "server"));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
    server.fd = fds[0];
    co_deadline_begin(&deadline, 1000000);
    co_open_end(&server);
    co_deadline_end(&deadline);
    g_assert_cmpstr(server.complaint, ==, "TLS handshake failed: Connection timed out");
    g_free(server.complaint);
    fd_close(fds[1]);
}

/* --- the objects --- */

static void CO_FN co_test_refused(struct test *test)
{
    co_expect_refused(test, X509("o", "nowhere", "server"),
                      "Unable to access credentials %D/nowhere/ca-cert.pem: No such file or directory");
    co_expect_refused(test, X509("o", "expired", "server"),
                      "The server certificate %D/expired/server-cert.pem has expired");
    co_expect_refused(test, X509("o", "expired", "client"),
                      "The client certificate %D/expired/client-cert.pem has expired");
    co_expect_refused(test, X509("o", "stranger", "client"),
                      "Our own certificate %D/stranger/client-cert.pem failed validation against "
                      "%D/stranger/ca-cert.pem: The certificate hasn't got a known issuer");
    co_expect_refused(test, X509("o", "ok", "server") ", 'priority': 'NONSENSE'",
                      "Unable to set TLS session priority NONSENSE: ");
    co_expect_refused(test, X509("o", "ok", "server") ", 'passwordid': 'none'", "No secret with id 'none'");
    co_expect_refused(test, "'qom-type': 'tls-creds-x509', 'id': 'o'", "Missing 'dir' property value");
    co_expect_refused(test, PSK("o", "ok", "server"),
                      "Unable to access credentials %D/ok/keys.psk: No such file or directory");
    co_expect_refused(test, PSK("o", "psk", "client"), "Username qemu not found in PSK file %D/psk/keys.psk");
    co_expect_refused(test, PSK("o", "psk", "server") ", 'username': 'alice'",
                      "username should not be set when endpoint=server");
    g_assert_cmpint(object_count(test->registry), ==, 0);
}

static void CO_FN co_test_encrypted_key(struct test *test)
{
    run(test->place, "rm -rf enc && cp -r ok enc && certtool --to-p8 --load-privkey ok/server-key.pem "
                     "--password=sesame --outfile enc/server-key.pem");
    co_add_well(test, "'qom-type': 'secret', 'id': 'right', 'data': 'sesame'");
    co_add_well(test, "'qom-type': 'secret', 'id': 'wrong', 'data': 'mustard'");
    co_expect_refused(test, X509("o", "enc", "server"), "Cannot load certificate '%D/enc/server-cert.pem' & key");
    co_expect_refused(test, X509("o", "enc", "server") ", 'passwordid': 'wrong'",
                      "Cannot load certificate '%D/enc/server-cert.pem' & key '%D/enc/server-key.pem': "
                      "Decryption has failed");
    co_add_well(test, X509("o", "enc", "server") ", 'passwordid': 'right'");
}

static void CO_FN co_test_hold(struct test *test)
{
    AUTO(error) error = NULL;

    co_add_well(test, "'qom-type': 'tls-creds-anon', 'id': 'anon'");
    g_assert_null(tls_creds_hold(test->registry, "nope", Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER, &error));
    g_assert_cmpstr(error_message(error), ==, "No TLS credentials with id 'nope'");
    g_clear_pointer(&error, error_free);
    g_assert_null(tls_creds_hold(test->registry, "anon", Q_CRYPTO_TLS_CREDS_ENDPOINT_SERVER, &error));
    g_assert_cmpstr(error_message(error), ==, "Expected TLS credentials for a server endpoint");

    /* Deleting takes the name; who holds it goes on. */
    struct object *held = tls_creds_hold(test->registry, "anon", Q_CRYPTO_TLS_CREDS_ENDPOINT_CLIENT, NULL);
    g_assert_nonnull(held);
    g_assert_true(co_object_delete(test->registry, "anon", NULL));
    g_assert_null(object_find(test->registry, "anon"));
    g_assert_cmpstr(object_id(held), ==, "anon");
    object_release(held);
}

#define CASE(name)                                                                                                     \
    {                                                                                                                  \
        "/tls/" #name, co_test_##name                                                                                  \
    }

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*co_body)(struct test *test);
    } cases[] = {
        CASE(x509), CASE(x509_client),  CASE(authz),    CASE(psk),     CASE(anon),          CASE(both_ways),
        CASE(cut),  CASE(no_handshake), CASE(deadline), CASE(refused), CASE(encrypted_key), CASE(hold),
    };
    struct run runs[G_N_ELEMENTS(cases)];
    struct place place = {.path = g_dir_make_tmp("ashlar-tls-XXXXXX", NULL)};

    g_test_init(&argc, &argv, NULL);
    g_assert_nonnull(place.path);
    make_files(&place);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        runs[i] = (struct run){.place = &place, .co_body = cases[i].co_body};
        g_test_add_data_func(cases[i].name, &runs[i], in_loop);
    }
    int status = g_test_run();
    run(&place, "rm -rf -- *");
    g_rmdir(place.path);
    g_free(place.path);
    return status;
}
