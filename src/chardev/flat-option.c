/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The flat form of --chardev, and how it becomes a ChardevBackend. */
#include "chardev/flat-option.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/units.h"
#include "schema/json.h"

enum flat_type { FLAT_STRING, FLAT_BOOL, FLAT_NUMBER, FLAT_SIZE };

struct flat_key {
    const char *name;
    enum flat_type type;
    const char *help;
};

/* All keys; sorted. */
static const struct flat_key flat_keys[] = {
    {"abstract", FLAT_BOOL, "'path' names a socket in the abstract namespace (default: off)"},
    {"append", FLAT_BOOL, "write behind what the file has, instead of emptying it (default: off)"},
    {"backend", FLAT_STRING, "kind of the character device; its key may be left out"},
    {"chardev", FLAT_STRING, "id of the character device below"},
    {"chardevs.0", FLAT_STRING, "id of the first character device below"},
    {"chardevs.1", FLAT_STRING, "id of the second one"},
    {"chardevs.2", FLAT_STRING, "id of the third one"},
    {"chardevs.3", FLAT_STRING, "id of the fourth one"},
    {"cid", FLAT_STRING, "vsock context id; needs 'port'"},
    {"delay", FLAT_BOOL, "the opposite of 'nodelay'"},
    {"fd", FLAT_STRING, "number of an open socket that the daemon has been started with"},
    {"host", FLAT_STRING, "host name or address; empty: any (default of udp: localhost)"},
    {"id", FLAT_STRING, "name of the character device: letters, digits, '-', '.', '_', a letter first"},
    {"input-path", FLAT_STRING, "file that the input comes from (default: there is no input)"},
    {"ipv4", FLAT_BOOL, "whether IPv4 may be used"},
    {"ipv6", FLAT_BOOL, "whether IPv6 may be used"},
    {"keep-alive", FLAT_BOOL, "let the kernel look whether an idle peer is still there (default: off)"},
    {"keep-alive-count", FLAT_NUMBER, "questions to an idle peer that may go unanswered"},
    {"keep-alive-idle", FLAT_NUMBER, "seconds of silence before the first question"},
    {"keep-alive-interval", FLAT_NUMBER, "seconds between questions"},
    {"localaddr", FLAT_STRING, "own host name or address (default: any)"},
    {"localport", FLAT_STRING, "own port (default: any)"},
    {"logappend", FLAT_BOOL, "write behind what the log file has, instead of emptying it (default: off)"},
    {"logfile", FLAT_STRING, "file that gets a copy of all output"},
    {"mptcp", FLAT_BOOL, "use multipath TCP (default: off)"},
    {"mux", FLAT_BOOL, "let several users share it: see backend mux (default: off)"},
    {"nodelay", FLAT_BOOL, "send small pieces at once; always so"},
    {"numeric", FLAT_BOOL, "do not look up names (default: off)"},
    {"path", FLAT_STRING, "path of the file, device, or Unix socket"},
    {"port", FLAT_STRING, "port number or service name; listening: 0 takes a free one"},
    {"reconnect", FLAT_NUMBER, "client: seconds before connecting again; 0: never (default: 0)"},
    {"reconnect-ms", FLAT_NUMBER, "client: the same in milliseconds"},
    {"server", FLAT_BOOL, "listen instead of connecting (default: off)"},
    {"signal", FLAT_BOOL, "Ctrl-C and the like act on the daemon (default: on)"},
    {"size", FLAT_SIZE, "bytes to keep, a power of two (default: 64k)"},
    {"telnet", FLAT_BOOL, "speak the telnet protocol (default: off)"},
    {"tight", FLAT_BOOL, "an abstract socket's name ends with its last character (default: on)"},
    {"tls-authz", FLAT_STRING, "server: id of the object that says who may come in"},
    {"tls-creds", FLAT_STRING, "id of the TLS credentials object; there is no TLS without"},
    {"tn3270", FLAT_BOOL, "speak telnet as 3270 terminals do (default: off)"},
    {"to", FLAT_NUMBER, "server: last port to try, where 'port' is taken"},
    {"wait", FLAT_BOOL, "server: start only when a client has connected (default: on)"},
    {"websocket", FLAT_BOOL, "speak the WebSocket protocol (default: off)"},
};

/* --- words --- */

static const struct flat_key *flat_key_find(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(flat_keys); i++) {
        if (!strcmp(flat_keys[i].name, name))
            return &flat_keys[i];
    }
    return NULL;
}

static bool invalid_parameter(const char *name, struct error **err)
{
    return error_set(err, "Invalid parameter '%s'", name);
}

static struct json *flat_bool(const char *name, const char *text, struct error **err)
{
    static const char *const yes[] = {"on", "yes", "true", "y", NULL};
    static const char *const no[] = {"off", "no", "false", "n", NULL};

    if (g_strv_contains(yes, text))
        return json_bool(true);
    if (g_strv_contains(no, text))
        return json_bool(false);
    error_set(err, "Parameter '%s' expects 'on' or 'off'", name);
    return NULL;
}

/* The typed value of a key; NULL and the error where the text does not fit. */
static struct json *flat_value(const struct flat_key *key, const char *text, struct error **err)
{
    uint64_t size;
    int64_t number;

    switch (key->type) {
    case FLAT_STRING:
        if (g_utf8_validate(text, -1, NULL))
            return json_string(text);
        error_set(err, "Parameter '%s' is not valid UTF-8", key->name);
        return NULL;
    case FLAT_BOOL:
        return flat_bool(key->name, text, err);
    case FLAT_NUMBER:
        if (int64_parse(text, &number))
            return json_int(number);
        error_set(err, "Parameter '%s' expects a number", key->name);
        return NULL;
    case FLAT_SIZE:
        if (size_parse(text, &size))
            return json_uint(size);
        error_set(err, "Parameter '%s' expects a non-negative number below 2^64", key->name);
        error_hint(err, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta- and exabytes");
        return NULL;
    }
    g_assert_not_reached();
}

static bool flat_put(struct json *given, const char *name, const char *text, struct error **err)
{
    const struct flat_key *key = flat_key_find(name);
    struct json *value;

    if (!key)
        return invalid_parameter(name, err);
    value = flat_value(key, text, err);
    if (!value)
        return false;
    json_set(given, name, value);
    return true;
}

/* A word without "=": the old way to switch on KEY, or, as noKEY, off. */
static bool flat_put_word(struct json *given, const char *word, struct error **err)
{
    const struct flat_key *key = flat_key_find(word);

    if (key && key->type == FLAT_BOOL)
        return flat_put(given, word, "on", err);
    if (!key && g_str_has_prefix(word, "no")) {
        key = flat_key_find(word + 2);
        if (key && key->type == FLAT_BOOL)
            return flat_put(given, word + 2, "off", err);
    }
    if (key)
        return error_set(err, "Parameter '%s' has no value", word);
    return invalid_parameter(word, err);
}

/* The text up to the next single comma, with ",," as a comma; moves *at behind it. NULL at the end. Owned. */
static char *next_word(const char **at)
{
    GString *word;

    if (!*at)
        return NULL;
    word = g_string_new(NULL);
    for (const char *i = *at;; i++) {
        if (*i == ',' && i[1] == ',') {
            i++;
        } else if (*i == ',') {
            *at = i + 1;
            break;
        } else if (!*i) {
            *at = NULL;
            break;
        }
        g_string_append_c(word, *i);
    }
    return g_string_free(word, FALSE);
}

static bool is_help(const char *word)
{
    return !strcmp(word, "help") || !strcmp(word, "?");
}

/* One word of the line; the first without "=" is the backend. */
static bool flat_read_word(char *word, bool first, struct json *given, struct error **err)
{
    char *equals = strchr(word, '=');

    if (equals) {
        *equals = '\0';
        return flat_put(given, word, equals + 1, err);
    }
    if (!*word)
        return true;
    return first ? flat_put(given, "backend", word, err) : flat_put_word(given, word, err);
}

/* All words into `given`. */
static bool flat_read(const char *text, struct json *given, bool *ret_help, struct error **err)
{
    const char *at = text;

    for (bool first = true;; first = false) {
        g_autofree char *word = next_word(&at);

        if (!word)
            return true;
        if (is_help(word))
            *ret_help = true;
        else if (!flat_read_word(word, first, given, err))
            return false;
    }
}

/* --- backends --- */

/* Moves a key that was given into the data of the backend, under the name that it has there. */
static void move_as(struct json *given, const char *key, struct json *data, const char *name)
{
    struct json *value = json_take(given, key);

    if (value)
        json_set(data, name, value);
}

static void move(struct json *given, const char *key, struct json *data)
{
    move_as(given, key, data, key);
}

static void move_all(struct json *given, const char *const *keys, struct json *data)
{
    for (; *keys; keys++)
        move(given, *keys, data);
}

static bool given_text(const struct json *given, const char *key)
{
    const struct json *value = json_get(given, key);

    return value && *json_get_string(value);
}

static void set_default(struct json *data, const char *name, struct json *value)
{
    if (json_get(data, name))
        json_free(value);
    else
        json_set(data, name, value);
}

/* {"type": TYPE, "data": DATA}; takes `data`. */
static struct json *legacy_union(const char *type, struct json *data)
{
    struct json *whole = json_object();

    json_set(whole, "type", json_string(type));
    json_set(whole, "data", data);
    return whole;
}

static bool build_none(struct json *given, struct json *data, struct error **err)
{
    return true;
}

static bool build_file(struct json *given, struct json *data, struct error **err)
{
    if (!json_get(given, "path"))
        return error_set(err, "chardev: file: no filename given");
    move_as(given, "path", data, "out");
    move_as(given, "input-path", data, "in");
    move(given, "append", data);
    return true;
}

static bool build_device(struct json *given, struct json *data, const char *what, struct error **err)
{
    if (!json_get(given, "path"))
        return error_set(err, "chardev: %s: no device path given", what);
    move_as(given, "path", data, "device");
    return true;
}

static bool build_pipe(struct json *given, struct json *data, struct error **err)
{
    return build_device(given, data, "pipe", err);
}

static bool build_serial(struct json *given, struct json *data, struct error **err)
{
    return build_device(given, data, "serial/tty", err);
}

static bool build_parallel(struct json *given, struct json *data, struct error **err)
{
    return build_device(given, data, "parallel", err);
}

static bool build_pty(struct json *given, struct json *data, struct error **err)
{
    move(given, "path", data);
    return true;
}

static bool build_stdio(struct json *given, struct json *data, struct error **err)
{
    move(given, "signal", data);
    return true;
}

static bool build_ringbuf(struct json *given, struct json *data, struct error **err)
{
    move(given, "size", data);
    return true;
}

static bool build_mux(struct json *given, struct json *data, struct error **err)
{
    if (!json_get(given, "chardev"))
        return error_set(err, "chardev: mux: no chardev given");
    move(given, "chardev", data);
    return true;
}

static bool build_hub(struct json *given, struct json *data, struct error **err)
{
    static const char *const keys[] = {"chardevs.0", "chardevs.1", "chardevs.2", "chardevs.3"};
    struct json *chardevs = json_array();
    size_t count = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        struct json *value = json_take(given, keys[i]);

        if (value && count++ == i)
            json_append(chardevs, value);
        else
            json_free(value);
    }
    json_set(data, "chardevs", chardevs);
    if (!count)
        return error_set(err, "chardev: hub: 'chardevs' list is not defined");
    if (json_count(chardevs) != count)
        return error_set(err, "chardev: hub: 'chardevs' has a gap");
    return true;
}

static const char *const inet_keys[] = {
    "to",    "ipv4", "ipv6", "numeric", "keep-alive", "keep-alive-count", "keep-alive-idle", "keep-alive-interval",
    "mptcp", NULL};
static const char *const unix_keys[] = {"abstract", "tight", NULL};

/* Options of other address families were always let pass, and mean nothing. */
static void drop_all(struct json *given, const char *const *keys)
{
    for (; *keys; keys++)
        json_free(json_take(given, *keys));
}

/* The address of a socket, from 'path', 'fd', 'cid' or 'host'. */
static struct json *build_address(struct json *given, struct error **err)
{
    AUTO(json) data = json_object();
    bool path = json_get(given, "path");
    bool fd = json_get(given, "fd");
    bool cid = json_get(given, "cid");
    const char *type = path ? "unix" : fd ? "fd" : cid ? "vsock" : "inet";

    if (path + fd + cid + !!json_get(given, "host") > 1) {
        error_set(err, "None or one of 'path', 'fd' or 'host' option required.");
        return NULL;
    }
    if (path) {
        move(given, "path", data);
        move_all(given, unix_keys, data);
    } else if (fd) {
        move_as(given, "fd", data, "str");
    } else if (cid || json_get(given, "host") || json_get(given, "port")) {
        if (!json_get(given, "port")) {
            error_set(err, "chardev: socket: no port given");
            return NULL;
        }
        move(given, "cid", data);
        move(given, "host", data);
        move(given, "port", data);
        if (!cid) {
            set_default(data, "host", json_string(""));
            move_all(given, inet_keys, data);
        }
    } else {
        error_set(err, "chardev: socket: no address given: 'path', 'host' and 'port', 'fd', or 'cid' and 'port'");
        return NULL;
    }
    json_free(json_take(given, "port"));
    drop_all(given, inet_keys);
    drop_all(given, unix_keys);
    return legacy_union(type, TAKE(data));
}

static bool build_socket(struct json *given, struct json *data, struct error **err)
{
    static const char *const keys[] = {"server",    "wait",         "nodelay",   "telnet",    "tn3270", "websocket",
                                       "reconnect", "reconnect-ms", "tls-creds", "tls-authz", NULL};
    AUTO(json) delay = json_take(given, "delay");
    struct json *address = build_address(given, err);

    if (!address)
        return false;
    json_set(data, "addr", address);
    move_all(given, keys, data);
    if (delay)
        set_default(data, "nodelay", json_bool(!json_get_bool(delay)));
    /* On the command line a socket connects, and a server waits, unless told otherwise. */
    set_default(data, "server", json_bool(false));
    if (json_get_bool(json_get(data, "server")))
        set_default(data, "wait", json_bool(true));
    else if (json_get(data, "wait") && !json_get_bool(json_get(data, "wait")))
        json_free(json_take(data, "wait"));
    return true;
}

static bool build_udp(struct json *given, struct json *data, struct error **err)
{
    static const char *const families[] = {"ipv4", "ipv6", NULL};
    AUTO(json) remote = json_object();

    if (!given_text(given, "port"))
        return error_set(err, "chardev: udp: remote port not specified");
    if (!given_text(given, "host"))
        json_set(given, "host", json_string("localhost"));
    if (json_get(given, "localaddr") || json_get(given, "localport")) {
        struct json *local = json_object();

        json_set(data, "local", legacy_union("inet", local));
        move_as(given, "localaddr", local, "host");
        move_as(given, "localport", local, "port");
        set_default(local, "host", json_string(""));
        set_default(local, "port", json_string("0"));
    }
    move(given, "host", remote);
    move(given, "port", remote);
    move_all(given, families, remote);
    json_set(data, "remote", legacy_union("inet", TAKE(remote)));
    return true;
}

struct flat_backend {
    const char *name;
    const char *alias; /* an older name */
    const char *help;
    const char *keys; /* of its own, by spaces */
    bool (*build)(struct json *given, struct json *data, struct error **err);
};

static const struct flat_backend flat_backends[] = {
    {"file", NULL, "writes to a file, reads from another", "path input-path append", build_file},
    {"serial", "tty", "serial line or other terminal device", "path", build_serial},
    {"parallel", "parport", "parallel port", "path", build_parallel},
    {"pipe", NULL, "FIFOs PATH.in and PATH.out, or PATH for both", "path", build_pipe},
    {"socket", NULL, "stream socket: Unix, TCP, vsock, or passed descriptor",
     "path abstract tight host port to ipv4 ipv6 numeric keep-alive keep-alive-count "
     "keep-alive-idle keep-alive-interval mptcp cid fd server wait nodelay delay reconnect "
     "reconnect-ms telnet tn3270 websocket tls-creds tls-authz",
     build_socket},
    {"udp", NULL, "UDP datagrams", "host port localaddr localport ipv4 ipv6", build_udp},
    {"pty", NULL, "new pseudo-terminal", "path", build_pty},
    {"null", NULL, "drops output, has no input", "", build_none},
    {"mux", NULL, "several users of one character device", "chardev", build_mux},
    {"hub", NULL, "several character devices for one user", "chardevs.0 chardevs.1 chardevs.2 chardevs.3", build_hub},
    {"stdio", NULL, "standard input and output", "signal", build_stdio},
    {"ringbuf", NULL, "keeps the latest output in memory, for ringbuf-read", "size", build_ringbuf},
    {"memory", NULL, "the same as ringbuf", "size", build_ringbuf},
};

static const struct flat_backend *flat_backend_find(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(flat_backends); i++) {
        if (!strcmp(flat_backends[i].name, name) || !g_strcmp0(flat_backends[i].alias, name))
            return &flat_backends[i];
    }
    return NULL;
}

/* --- the whole --- */

static bool id_is_wellformed(const char *id)
{
    if (!g_ascii_isalpha(*id))
        return false;
    for (; *id; id++) {
        if (!g_ascii_isalnum(*id) && !strchr("-._", *id))
            return false;
    }
    return true;
}

static char *take_text(struct json *given, const char *key)
{
    AUTO(json) value = json_take(given, key);

    return value ? g_strdup(json_get_string(value)) : NULL;
}

static bool check_id(const char *id, struct error **err)
{
    if (!id)
        return error_set(err, "chardev: no id specified");
    if (id_is_wellformed(id))
        return true;
    error_set(err, "Parameter 'id' expects an identifier");
    error_hint(err, "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
    return false;
}

/* Makes the ChardevBackend of what was given, all of which has to find a place. */
static bool flat_build(struct json *given, struct flat_option *option, struct error **err)
{
    const struct flat_backend *backend = flat_backend_find(option->type);
    AUTO(json) data = json_object();
    const char *left;

    if (!backend)
        return error_set(err, "'%s' is not a valid char driver name", option->type);
    if (!backend->build(given, data, err))
        return false;
    move(given, "logfile", data);
    move(given, "logappend", data);
    if (json_count(given)) {
        json_member(given, 0, &left);
        return error_set(err, "Invalid parameter '%s': backend '%s' has no such option", left, backend->name);
    }
    option->backend = legacy_union(backend->name, TAKE(data));
    return true;
}

void flat_option_done(struct flat_option *option)
{
    g_free(option->id);
    g_free(option->type);
    json_free(option->backend);
    *option = (struct flat_option){0};
}

bool flat_option_parse(const char *text, struct flat_option *ret, struct error **err)
{
    AUTO(json) given = json_object();
    AUTO(json) mux = NULL;
    struct flat_option option = {0};
    bool done;

    if (!flat_read(text, given, &option.help, err))
        return false;
    mux = json_take(given, "mux");
    option.mux = mux && json_get_bool(mux);
    option.id = take_text(given, "id");
    option.type = take_text(given, "backend");
    done = option.help || check_id(option.id, err);
    if (done && !option.help)
        done = option.type && *option.type ? flat_build(given, &option, err)
                                           : error_set(err, "chardev: \"%s\" missing backend", option.id);
    if (done)
        *ret = option;
    else
        flat_option_done(&option);
    return done;
}

/* --- help --- */

static void help_key(GString *text, const char *name)
{
    static const char *const types[] = {
        [FLAT_STRING] = "str",
        [FLAT_BOOL] = "bool (on/off)",
        [FLAT_NUMBER] = "num",
        [FLAT_SIZE] = "size",
    };
    const struct flat_key *key = flat_key_find(name);
    g_autofree char *left = NULL;

    assert(key);
    left = g_strdup_printf("%s=<%s>", key->name, types[key->type]);
    g_string_append_printf(text, "  %-31s - %s\n", left, key->help);
}

char *flat_option_help(const char *type)
{
    static const char *const common[] = {"id", "logfile", "logappend", "mux"};
    const struct flat_backend *backend = type ? flat_backend_find(type) : NULL;
    GString *text = g_string_new(NULL);
    g_auto(GStrv) keys = NULL;

    if (type && !backend)
        return g_string_free(text, TRUE);
    if (!backend) {
        g_string_append(text, "Available chardev backend types:\n");
        for (size_t i = 0; i < G_N_ELEMENTS(flat_backends); i++)
            g_string_append_printf(text, "  %-8s - %s\n", flat_backends[i].name, flat_backends[i].help);
        return g_string_free(text, FALSE);
    }
    g_string_append_printf(text, "%s: %s; options:\n", backend->name, backend->help);
    keys = g_strsplit(backend->keys, " ", 0);
    for (char **key = keys; *key; key++) {
        if (**key)
            help_key(text, *key);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(common); i++)
        help_key(text, common[i]);
    return g_string_free(text, FALSE);
}
