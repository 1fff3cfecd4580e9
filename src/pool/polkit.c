/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/polkit.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "base/units.h"
#include "loop/file.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "pool/dbus.h"
#include "pool/pool-error.h"

enum { STAT_MAX = 4096, STAT_START_FIELD = 22 };
enum { ALLOW_USER_INTERACTION = 1 };

/* Rules are answered at once; a bus that hangs must not keep calls for ever. */
static const int64_t patience_ns = 30 * NS_PER_S;
/* A person may have to find a password. */
static const int64_t patience_interactive_ns = 300 * NS_PER_S;

struct polkit {
    struct co_mutex lock; /* one question at a time on the connection */
    struct dbus *dbus;    /* lock; kept for the next question; NULL: none */
};

struct polkit *polkit_new(void)
{
    return g_new0(struct polkit, 1);
}

void polkit_free(struct polkit *polkit)
{
    if (!polkit)
        return;
    dbus_free(polkit->dbus);
    co_mutex_done(&polkit->lock);
    g_free(polkit);
}

uint64_t co_process_start(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    size_t size;
    const char *at;

    if (!co_file_load(path, STAT_MAX, &text, &size, NULL))
        return 0;
    at = strrchr(text, ')'); /* after the name, which may hold anything; the field after it is the third */
    for (int field = 2; at && field < STAT_START_FIELD; field++)
        at = strchr(at + 1, ' ');
    return at ? g_ascii_strtoull(at + 1, NULL, 10) : 0;
}

/* --- the question: (sa{sv})sa{ss}us --- */

static void put_member(GByteArray *to, const char *name, const char *type)
{
    dbus_put_align(to, 8);
    dbus_put_text(to, name);
    dbus_put_signature(to, type);
}

static void put_subject(GByteArray *to, const struct polkit_subject *subject)
{
    size_t at;

    dbus_put_align(to, 8);
    dbus_put_text(to, "unix-process");
    at = dbus_put_array_begin(to, 8);
    put_member(to, "pid", "u");
    dbus_put_u32(to, (uint32_t)subject->pid);
    put_member(to, "start-time", "t");
    dbus_put_u64(to, subject->start);
    put_member(to, "uid", "i");
    dbus_put_u32(to, (uint32_t)subject->uid);
    dbus_put_array_end(to, at, 8);
}

static GByteArray *format_question(const struct polkit_question *question)
{
    GByteArray *to = g_byte_array_new();
    size_t at;

    put_subject(to, question->subject);
    dbus_put_text(to, question->action);
    at = dbus_put_array_begin(to, 8);
    for (const char *const *detail = question->details; detail && detail[0]; detail += 2) {
        dbus_put_align(to, 8);
        dbus_put_text(to, detail[0]);
        dbus_put_text(to, detail[1]);
    }
    dbus_put_array_end(to, at, 8);
    dbus_put_u32(to, question->interactive ? ALLOW_USER_INTERACTION : 0);
    dbus_put_text(to, "");
    return to;
}

/* --- the answer: (bba{ss}) --- */

static bool parse_answer(struct dbus_reader *reader, enum polkit_answer *ret)
{
    uint32_t granted, challenge;
    size_t end;

    if (!dbus_get_align(reader, 8) || !dbus_get_u32(reader, &granted) || !dbus_get_u32(reader, &challenge) ||
        !dbus_get_array(reader, 8, &end))
        return false;
    *ret = granted ? POLKIT_GRANTED : challenge ? POLKIT_NO_AGENT : POLKIT_DENIED;
    while (reader->at < end) {
        const char *name, *value;

        if (!dbus_get_align(reader, 8) || !dbus_get_text(reader, &name) || !dbus_get_text(reader, &value))
            return false;
        if (!granted && !strcmp(name, "polkit.dismissed") && *value)
            *ret = POLKIT_DISMISSED;
    }
    return true;
}

static bool CO_FN co_ask(struct dbus *dbus, const struct polkit_question *question, enum polkit_answer *ret,
                         bool *ret_lost, struct error **err)
{
    g_autoptr(GByteArray) arguments = format_question(question);
    const struct dbus_call call = {
        .service = "org.freedesktop.PolicyKit1",
        .path = "/org/freedesktop/PolicyKit1/Authority",
        .interface = "org.freedesktop.PolicyKit1.Authority",
        .method = "CheckAuthorization",
        .signature = "(sa{sv})sa{ss}us",
        .arguments = arguments,
    };
    struct dbus_reply reply;
    bool ok;

    if (!co_dbus_call(dbus, &call, &reply, ret_lost, err))
        return error_prefix(err, "polkit: ");
    ok = !strcmp(reply.signature, "(bba{ss})") && parse_answer(&reply.body, ret);
    dbus_reply_clear(&reply);
    return ok || error_set(err, "polkit: the answer to %s cannot be understood", question->action);
}

/* On the kept connection, or a new one where that has been lost: the bus may have been started again. */
static bool CO_FN co_ask_quickly(struct polkit *polkit, const struct polkit_question *question, enum polkit_answer *ret,
                                 struct error **err)
{
    bool kept = polkit->dbus;
    AUTO(error) error = NULL;
    bool lost = false;

    if (!polkit->dbus)
        polkit->dbus = co_dbus_new(err);
    if (!polkit->dbus)
        return false;
    if (co_ask(polkit->dbus, question, ret, &lost, &error))
        return true;
    if (lost)
        dbus_free(TAKE(polkit->dbus));
    if (lost && kept)
        return co_ask_quickly(polkit, question, ret, err);
    return error_move(err, TAKE(error));
}

static bool CO_FN co_ask_patiently(const struct polkit_question *question, enum polkit_answer *ret, struct error **err)
{
    AUTO(dbus) dbus = co_dbus_new(err);

    return dbus && co_ask(dbus, question, ret, NULL, err);
}

bool co_polkit_ask(struct polkit *polkit, const struct polkit_question *question, enum polkit_answer *ret,
                   struct pool_error **err)
{
    struct co_deadline deadline;
    struct error *error = NULL;
    bool ok;

    assert(question->action);
    if (question->interactive) {
        co_deadline_begin(&deadline, patience_interactive_ns);
        ok = co_ask_patiently(question, ret, &error);
        co_deadline_end(&deadline);
    } else {
        co_mutex_lock(&polkit->lock);
        co_deadline_begin(&deadline, patience_ns);
        ok = co_ask_quickly(polkit, question, ret, &error);
        co_deadline_end(&deadline);
        co_mutex_unlock(&polkit->lock);
    }
    if (ok)
        return true;
    pool_error_set_domain(err, POOL_DOMAIN_POLKIT, POOL_ERROR_AUTH_FAILED, "%s", error_message(error));
    error_free(error);
    return false;
}
