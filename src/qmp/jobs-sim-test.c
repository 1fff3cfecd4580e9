/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs on the simulated machine: guests read and write a disk all the time, while two clients take snapshots, mirror,
 * back up, stream, commit and reopen beneath it, cancel some of that, and requests fail now and then. A model says for
 * each sector which values may be there; every read is held against it, and so is what jobs leave: a backup has what
 * was there when it began, a copy that was let go what was there then. In every other run the power fails: what had
 * been flushed must be in the image that the guests were on, and backups that were done are whole.
 *
 * A seed says all of a run. --seed=N begins with that one (default 1), --count=N tries so many (default 1000),
 * --verbose tells what happens.
 */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/units.h"
#include "block/graph.h"
#include "block/handle.h"
#include "block/node.h"
#include "driver/format/qcow2/create.h"
#include "gen/types.h"
#include "job/chain.h"
#include "job/job.h"
#include "loop/coroutine.h"
#include "loop/lock.h"
#include "loop/loop.h"
#include "loop/sim.h"
#include "qmp/daemon.h"
#include "qmp/dispatch.h"
#include "schema/json.h"

enum { SECTOR = 512, SECTORS_MAX = 2048, GUESTS = 2, CLIENTS = 2, DEPTH_MAX = 6 };
#define MS NS_PER_MS
/* Virtual time: jobs of this size take much less, whatever happens to them. */
#define PATIENCE_NS (INT64_C(60000) * MS)

static struct {
    gint64 seed;
    gint64 count;
    gboolean verbose;
} settings = {.seed = 1, .count = 1000};

/* A change of some sectors to one value, and when it was made by the run's own count. */
struct change {
    unsigned first;
    unsigned count;
    uint32_t value;
    bool vague; /* made, or not, or in part, for ever: a discard, a write that failed */
    unsigned start, end;
};

struct flush {
    unsigned start, end;
};

struct world {
    uint32_t seed;
    GRand *random;
    struct loop *loop;
    struct sim_disk *disk;
    struct daemon *daemon;
    struct qmp_client client;
    struct handle *guest;
    unsigned sectors;
    GPtrArray *changes; /* struct change * */
    GArray *flushes;    /* struct flush: those that ended well */
    unsigned clock;
    uint32_t next_value;
    unsigned names; /* of nodes, files and jobs, made so far */
    bool faults;    /* requests may fail */
    bool off;       /* the power is off */
    bool done;      /* guests come to an end */
    unsigned clients;
    GPtrArray *kept;          /* struct kept *: backups that are done */
    char *image;              /* when the power went off: the file that the guests were on */
    struct sim_disk *left;    /* of the disk */
    unsigned last;            /* the clock */
    struct co_mutex commands; /* one at a time, as monitors give them */
    struct co_group guests;
    struct co_group helpers;
};

PRINTF_LIKE(2, 3) static void say(const struct world *world, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;

    if (!settings.verbose)
        return;
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_printerr("seed %u, %7.3f ms: %s\n", world->seed, (double)loop_now_ns() / (double)MS, text);
}

static unsigned pick(struct world *world, unsigned count)
{
    return (unsigned)g_rand_int_range(world->random, 0, (int)count);
}

static const char *pick_word(struct world *world, const char *const *words)
{
    return words[pick(world, g_strv_length((char **)(uintptr_t)words))];
}

/* --- the model --- */

static struct change *change_begin(struct world *world, unsigned first, unsigned count, uint32_t value)
{
    struct change *change = g_new0(struct change, 1);

    *change = (struct change){.first = first, .count = count, .value = value, .start = ++world->clock, .end = UINT_MAX};
    g_ptr_array_add(world->changes, change);
    return change;
}

static void change_end(struct world *world, struct change *change, int result)
{
    if (result && !world->faults && !world->off)
        g_error("seed %u: a guest's write of %u sectors at %u failed: %s", world->seed, change->count, change->first,
                g_strerror(-result));
    change->vague |= result != 0;
    change->end = ++world->clock;
}

static bool touches(const struct change *change, unsigned sector)
{
    return sector >= change->first && sector - change->first < change->count;
}

static bool is_durable(const struct world *world, const struct change *change)
{
    for (unsigned i = 0; i < world->flushes->len; i++) {
        const struct flush *flush = &g_array_index(world->flushes, struct flush, i);

        if (flush->start > change->end)
            return true;
    }
    return false;
}

/* A moment that a reader cannot know better: what had ended before `asked` was made, what began after `until` not. */
struct moment {
    unsigned asked, until;
    bool after_cut; /* only what had been flushed must be there */
};

/* An image that has what was there at a moment. */
struct kept {
    char *file;
    struct moment moment;
};

static void kept_free(void *opaque)
{
    struct kept *kept = opaque;

    g_free(kept->file);
    g_free(kept);
}

static bool may_hold(const struct world *world, unsigned sector, uint32_t value, const struct moment *moment)
{
    for (unsigned i = 0; i < world->changes->len; i++) {
        const struct change *change = g_ptr_array_index(world->changes, i);
        bool replaced = false;

        if (!touches(change, sector) || change->value != value || change->start > moment->until)
            continue;
        for (unsigned j = i; j < world->changes->len && !replaced; j++) {
            const struct change *later = g_ptr_array_index(world->changes, j);

            if (!touches(later, sector) || later->vague || later->start < change->end || later->end > moment->asked)
                continue;
            replaced = !moment->after_cut || is_durable(world, later);
        }
        if (!replaced)
            return true;
    }
    return false;
}

/* What is wrong, and what the sector's changes were. */
static void complain(const struct world *world, const char *what, unsigned sector, uint32_t value,
                     const struct moment *moment)
{
    for (unsigned i = 0; i < world->changes->len; i++) {
        const struct change *change = g_ptr_array_index(world->changes, i);

        if (touches(change, sector))
            g_printerr("%s%#x from %u to %u\n", change->vague ? "perhaps " : "", change->value, change->start,
                       change->end);
    }
    for (unsigned i = 0; i < world->flushes->len; i++) {
        const struct flush *flush = &g_array_index(world->flushes, struct flush, i);

        g_printerr("flush from %u to %u\n", flush->start, flush->end);
    }
    g_error("seed %u: %s: sector %u holds %#x (asked %u, until %u, now %u)", world->seed, what, sector, value,
            moment->asked, moment->until, world->clock);
}

static void check_sectors(const struct world *world, const char *what, const uint8_t *data, unsigned first,
                          unsigned count, const struct moment *moment)
{
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *sector = data + i * SECTOR;
        uint32_t value;

        memcpy(&value, sector, 4);
        for (unsigned at = 4; at < SECTOR; at += 4) {
            if (memcmp(sector, sector + at, 4))
                g_error("seed %u: %s: sector %u is mixed", world->seed, what, first + i);
        }
        if (!may_hold(world, first + i, value, moment))
            complain(world, what, first + i, value, moment);
    }
}

/* --- guests --- */

static void pick_range(struct world *world, unsigned *ret_first, unsigned *ret_count)
{
    unsigned longest = pick(world, 8) ? 16 : 400;

    *ret_first = pick(world, world->sectors);
    *ret_count = 1 + pick(world, MIN(world->sectors - *ret_first, longest));
}

static void CO_FN co_guest_write(struct world *world)
{
    g_autofree uint32_t *data = NULL;
    unsigned first, count;
    struct change *change;

    pick_range(world, &first, &count);
    data = g_malloc(count * SECTOR);
    change = change_begin(world, first, count, ++world->next_value);
    for (unsigned i = 0; i < count * SECTOR / 4; i++)
        data[i] = change->value;
    change_end(
        world, change,
        co_handle_pwrite(world->guest, (uint64_t)first * SECTOR, count * SECTOR, data, pick(world, 8) ? 0 : IO_FUA));
}

static void CO_FN co_guest_zero(struct world *world)
{
    unsigned first, count;
    struct change *change;

    pick_range(world, &first, &count);
    change = change_begin(world, first, count, 0);
    change_end(world, change,
               co_handle_pwrite_zeroes(world->guest, (uint64_t)first * SECTOR, count * SECTOR,
                                       pick(world, 2) ? IO_MAY_UNMAP : 0));
}

static void CO_FN co_guest_discard(struct world *world)
{
    unsigned first, count;
    struct change *change;

    pick_range(world, &first, &count);
    change = change_begin(world, first, count, 0);
    change->vague = true;
    change_end(world, change, co_handle_pdiscard(world->guest, (uint64_t)first * SECTOR, count * SECTOR));
}

static void CO_FN co_guest_read(struct world *world)
{
    struct moment moment = {.asked = ++world->clock};
    g_autofree uint8_t *data = NULL;
    unsigned first, count;
    int ret;

    pick_range(world, &first, &count);
    data = g_malloc(count * SECTOR);
    ret = co_handle_pread(world->guest, (uint64_t)first * SECTOR, count * SECTOR, data, 0);
    if (ret && !world->faults && !world->off)
        g_error("seed %u: a guest's read failed: %s", world->seed, g_strerror(-ret));
    moment.until = ++world->clock;
    if (!ret)
        check_sectors(world, "a guest's read", data, first, count, &moment);
}

static void CO_FN co_guest_flush(struct world *world)
{
    struct flush flush = {.start = ++world->clock};
    int ret = co_handle_flush(world->guest);

    if (ret && !world->faults && !world->off)
        g_error("seed %u: a guest's flush failed: %s", world->seed, g_strerror(-ret));
    flush.end = ++world->clock;
    if (!ret && !world->off)
        g_array_append_val(world->flushes, flush);
}

static void co_guest(void *opaque)
{
    struct world *world = opaque;
    static void (*const steps[])(struct world *) = {co_guest_write, co_guest_write, co_guest_write,
                                                    co_guest_write, co_guest_zero,  co_guest_discard,
                                                    co_guest_read,  co_guest_read,  co_guest_flush};

    while (!world->done) {
        steps[pick(world, G_N_ELEMENTS(steps))](world);
        if (!pick(world, 4))
            (void)co_sleep_ns(pick(world, 3000) * MS / 1000);
    }
    co_group_done(&world->guests);
}

/* --- what clients ask --- */

/* Runs a command, given as JSON; whether it succeeded. */
PRINTF_LIKE(2, 3) static bool CO_FN co_ask(struct world *world, const char *format, ...)
{
    va_list args;
    g_autofree char *text = NULL;
    AUTO(json) reply = NULL;
    AUTO(error) error = NULL;
    struct json *request;
    const struct json *failure;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    request = json_parse(text, strlen(text), &error);
    if (!request)
        g_error("seed %u: %s: %s", world->seed, text, error_message(error));
    co_mutex_lock(&world->commands);
    reply = co_qmp_dispatch(&world->client, request);
    co_mutex_unlock(&world->commands);
    failure = json_get(reply, "error");
    say(world, "%s: %s", text, failure ? json_get_string(json_get(failure, "desc")) : "done");
    return !failure;
}

/* Of a job that has gone all the way; the text is owned, NULL: it ended well. */
static char *CO_FN co_wait_for_end(struct world *world, const char *id, enum job_status status)
{
    int64_t begin_ns = loop_now_ns();

    for (;;) {
        AUTO(job_info_array) list = job_query(world->daemon->jobs);
        const struct job_info *found = NULL;

        for (size_t i = 0; i < list->count; i++) {
            if (!strcmp(list->items[i]->id, id))
                found = list->items[i];
        }
        if (!found)
            return g_strdup("it is gone");
        if (found->status == JOB_STATUS_CONCLUDED || found->status == status)
            return found->error ? g_strdup(found->error) : NULL;
        /* Who ignores errors may meet one that stays, such as of a flush. */
        if (world->off || (world->faults && loop_now_ns() > begin_ns + 500 * MS))
            (void)co_ask(world, "{'execute': 'block-job-cancel', 'arguments': {'device': '%s', 'force': true}}", id);
        else if (found->status == JOB_STATUS_PAUSED && !pick(world, 4))
            (void)co_ask(world, "{'execute': 'job-resume', 'arguments': {'id': '%s'}}", id);
        if (loop_now_ns() > begin_ns + PATIENCE_NS)
            g_error("seed %u: job '%s' does not end: %s, %" PRId64 " of %" PRId64, world->seed, id,
                    job_status_name(found->status), found->current_progress, found->total_progress);
        (void)co_sleep_ns(1 + pick(world, 1000) * MS / 1000);
    }
}

/* A new file with an image of the disk's size, as a node; its name, owned. NULL: that failed. `backing`: the header
 * names it; the node has none yet. */
static char *CO_FN co_add_image(struct world *world, bool raw, bool clean, const char *backing)
{
    g_autofree char *name = g_strdup_printf("n%u", ++world->names);
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '%s'}, 'size': %u, 'cluster-size': %u%s%s%s}", name,
        world->sectors * SECTOR, 512u << pick(world, 8), backing ? ", 'backing-file': '" : "", backing ? backing : "",
        backing ? "'" : "");
    g_autofree uint8_t *old = g_malloc0(raw ? world->sectors * SECTOR : 1);
    AUTO(json) json = json_parse(text, strlen(text), NULL);
    AUTO(blockdev_create_options) options = blockdev_create_options_parse(json, NULL);

    if (raw && !clean)
        memset(old, 0x5a, world->sectors * SECTOR);
    if (world->off)
        return NULL;
    sim_disk_put(world->disk, name, old, raw ? world->sectors * SECTOR : 0);
    if (raw)
        return co_ask(world,
                      "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': '%s', "
                      "'filename': '%s', 'discard': 'unmap'}}",
                      name, name)
                   ? TAKE(name)
                   : NULL;
    if (!qcow2_co_create(world->daemon->graph, options, NULL))
        return NULL;
    return co_ask(world,
                  "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': '%s', 'discard': 'unmap', "
                  "'backing': null, 'file': {'driver': 'file', 'filename': '%s', 'discard': 'unmap'}}}",
                  name, name)
               ? TAKE(name)
               : NULL;
}

static void CO_FN co_delete(struct world *world, const char *name)
{
    (void)co_ask(world, "{'execute': 'blockdev-del', 'arguments': {'node-name': '%s'}}", name);
}

/* The image that the guests are on, below the filters of jobs. */
static struct node *image_of_guest(struct world *world)
{
    return chain_skip_filters(handle_node(world->guest));
}

/* The file of that image. Owned. */
static char *file_of_guest(struct world *world)
{
    struct node *image = image_of_guest(world);

    return node_filename(node_primary(image) ? edge_child(node_primary(image)) : image);
}

static unsigned depth_of(struct world *world)
{
    unsigned depth = 0;

    for (struct node *node = image_of_guest(world); node; node = chain_next(node))
        depth++;
    return depth;
}

/* The name of one of the chain's images; owned. */
static char *pick_layer(struct world *world)
{
    unsigned below = pick(world, depth_of(world));
    struct node *node = image_of_guest(world);

    while (below--)
        node = chain_next(node);
    return g_strdup(node_name(node));
}

static void CO_FN co_check_image(struct world *world, const char *what, const char *name, const struct moment *moment)
{
    struct handle_options options = {.name = "check", .perm = PERM_CONSISTENT_READ, .shared = PERM_ALL};
    struct node *node = graph_find(world->daemon->graph, name, NULL);
    struct handle *handle = node ? co_handle_new(node, &options, NULL) : NULL;
    g_autofree uint8_t *data = g_malloc(world->sectors * SECTOR);

    if (!handle)
        return;
    if (!co_handle_pread(handle, 0, world->sectors * SECTOR, data, 0))
        check_sectors(world, what, data, 0, world->sectors, moment);
    else if (!world->faults && !world->off)
        g_error("seed %u: %s '%s' cannot be read", world->seed, what, name);
    co_handle_free(handle);
}

/* --- what clients do: each a story of its own --- */

/* Some jobs are disturbed while they run. */
static void CO_FN co_disturb(struct world *world, const char *id)
{
    (void)co_sleep_ns(pick(world, 20000) * MS / 1000);
    switch (pick(world, 6)) {
    case 0:
        (void)co_ask(world, "{'execute': 'job-pause', 'arguments': {'id': '%s'}}", id);
        (void)co_sleep_ns(pick(world, 5000) * MS / 1000);
        (void)co_ask(world, "{'execute': 'job-resume', 'arguments': {'id': '%s'}}", id);
        break;
    case 1:
        (void)co_ask(world, "{'execute': 'block-job-set-speed', 'arguments': {'device': '%s', 'speed': %u}}", id,
                     pick(world, 2) * 50000000);
        break;
    case 2:
        if (!pick(world, 3))
            (void)co_ask(world, "{'execute': 'block-job-cancel', 'arguments': {'device': '%s', 'force': true}}", id);
        break;
    default:
        break;
    }
}

static const char *const policies[] = {"report", "ignore", "stop", "enospc", NULL};

static bool guest_is_on(struct world *world, const char *name)
{
    return !strcmp(node_name(image_of_guest(world)), name);
}

/* `source`: what was copied, as long as guests are on it, to `target`; NULL: nobody looks at that. */
static void CO_FN co_finish_mirror(struct world *world, const char *id, const char *source, const char *target)
{
    struct moment moment;
    g_autofree char *error = NULL;

    g_free(co_wait_for_end(world, id, JOB_STATUS_READY));
    (void)co_sleep_ns(pick(world, 3000) * MS / 1000);
    if (!pick(world, 3))
        (void)co_ask(world,
                     "{'execute': 'block-job-change', 'arguments': {'id': '%s', 'type': 'mirror', "
                     "'copy-mode': 'write-blocking'}}",
                     id);
    moment.asked = ++world->clock;
    if (pick(world, 3)) {
        (void)co_ask(world, "{'execute': 'job-complete', 'arguments': {'id': '%s'}}", id);
        g_free(co_wait_for_end(world, id, JOB_STATUS_CONCLUDED));
    } else if (co_ask(world, "{'execute': 'block-job-cancel', 'arguments': {'device': '%s'}}", id)) {
        error = co_wait_for_end(world, id, JOB_STATUS_CONCLUDED);
        moment.until = ++world->clock;
        moment.after_cut = false;
        if (!error && target && guest_is_on(world, source))
            co_check_image(world, "a copy that was let go", target, &moment);
    }
}

static void CO_FN co_mirror(struct world *world)
{
    static const char *const modes[] = {"background", "write-blocking", NULL};
    g_autofree char *id = g_strdup_printf("mirror%u", ++world->names);
    bool raw = pick(world, 2), clean = pick(world, 2);
    g_autofree char *target = co_add_image(world, raw, clean, NULL);
    g_autofree char *source = g_strdup(node_name(image_of_guest(world)));

    if (!target)
        return;
    if (co_ask(world,
               "{'execute': 'blockdev-mirror', 'arguments': {'job-id': '%s', 'device': '%s', 'target': '%s', "
               "'sync': 'full', 'copy-mode': '%s', 'granularity': %u, 'target-is-zero': %s, 'on-source-error': '%s', "
               "'on-target-error': '%s', 'auto-dismiss': false}}",
               id, source, target, pick_word(world, modes), 512u << pick(world, 9),
               (!raw || clean) && pick(world, 2) ? "true" : "false", pick_word(world, policies),
               pick_word(world, policies))) {
        co_disturb(world, id);
        co_finish_mirror(world, id, source, target);
        g_free(co_wait_for_end(world, id, JOB_STATUS_CONCLUDED));
        (void)co_ask(world, "{'execute': 'job-dismiss', 'arguments': {'id': '%s'}}", id);
    }
    co_delete(world, target);
}

/* Where errors are ignored, those of flushes may be. NULL: not kept. */
static struct kept *keep(struct world *world, const char *file, const struct moment *moment)
{
    struct kept *kept;

    if (world->faults || world->off)
        return NULL;
    kept = g_new(struct kept, 1);
    *kept = (struct kept){.file = g_strdup(file), .moment = *moment};
    g_ptr_array_add(world->kept, kept);
    return kept;
}

/* A full backup with a bitmap that begins with it, then one of what has changed: each shows its own moment. */
static void CO_FN co_backup(struct world *world)
{
    g_autofree char *id = g_strdup_printf("backup%u", ++world->names);
    g_autofree char *target = co_add_image(world, pick(world, 2), true, NULL);
    g_autofree char *source = g_strdup(node_name(image_of_guest(world)));
    struct moment moment = {.asked = ++world->clock};
    bool bitmap = target && pick(world, 2);
    struct kept *kept = NULL;

    if (!target)
        return;
    for (unsigned round = 0; round < (bitmap ? 3u : 1u); round++) {
        bool current;
        g_autofree char *error = NULL;
        g_autofree char *job = g_strdup_printf(
            "{'type': 'blockdev-backup', 'data': {'job-id': '%s', 'device': '%s', 'target': '%s', "
            "'sync': '%s', 'auto-dismiss': false, 'on-target-error': '%s', 'on-source-error': '%s'%s%s%s}}",
            id, source, target, round ? "incremental" : "full", pick_word(world, policies), pick_word(world, policies),
            round ? ", 'bitmap': '" : "", round ? id : "", round ? "'" : "");
        g_autofree char *add =
            g_strdup_printf("{'type': 'block-dirty-bitmap-add', 'data': {'node': '%s', 'name': '%s', "
                            "'granularity': %u}}, ",
                            source, id, 512u << pick(world, 8));

        if (bitmap)
            (void)co_sleep_ns(pick(world, 5000) * MS / 1000);
        current = guest_is_on(world, source);
        moment.asked = ++world->clock;
        if (kept)
            g_ptr_array_remove(world->kept, TAKE(kept));
        if (!co_ask(world, "{'execute': 'transaction', 'arguments': {'actions': [%s%s]}}", bitmap && !round ? add : "",
                    job))
            break;
        moment.until = ++world->clock;
        /* Another client may have put an overlay on it at the same time; then it is no more what guests see. */
        current &= guest_is_on(world, source);
        co_disturb(world, id);
        error = co_wait_for_end(world, id, JOB_STATUS_CONCLUDED);
        (void)co_ask(world, "{'execute': 'job-dismiss', 'arguments': {'id': '%s'}}", id);
        if (error || !current)
            break;
        kept = keep(world, target, &moment);
        /* Long enough for the power to fail before somebody else flushes the target. */
        if (kept)
            (void)co_sleep_ns(pick(world, 20000) * MS / 1000);
        co_check_image(world, round ? "an incremental backup" : "a backup", target, &moment);
    }
    if (bitmap)
        (void)co_ask(world, "{'execute': 'block-dirty-bitmap-remove', 'arguments': {'node': '%s', 'name': '%s'}}",
                     source, id);
    co_delete(world, target);
}

static void CO_FN co_snapshot(struct world *world)
{
    g_autofree char *node = g_strdup(node_name(image_of_guest(world)));
    g_autofree char *name = NULL;
    g_autofree char *file = NULL;

    if (depth_of(world) >= DEPTH_MAX)
        return;
    if (pick(world, 2)) {
        name = g_strdup_printf("s%u", ++world->names);
        (void)co_ask(world,
                     "{'execute': 'blockdev-snapshot-sync', 'arguments': {'node-name': '%s', 'snapshot-file': '%s', "
                     "'snapshot-node-name': '%s'}}",
                     node_name(image_of_guest(world)), name, name);
        return;
    }
    file = file_of_guest(world);
    name = co_add_image(world, false, true, file);
    if (name &&
        !co_ask(world, "{'execute': 'blockdev-snapshot', 'arguments': {'node': '%s', 'overlay': '%s'}}", node, name))
        co_delete(world, name);
}

static void CO_FN co_stream(struct world *world)
{
    g_autofree char *id = g_strdup_printf("stream%u", ++world->names);
    g_autofree char *device = pick(world, 2) ? pick_layer(world) : g_strdup(node_name(image_of_guest(world)));
    g_autofree char *base = pick_layer(world);
    bool all = pick(world, 2);

    if (!co_ask(world,
                "{'execute': 'block-stream', 'arguments': {'job-id': '%s', 'device': '%s', 'on-error': '%s', "
                "'auto-dismiss': false%s%s%s}}",
                id, device, pick_word(world, policies), all ? "" : ", 'base-node': '", all ? "" : base, all ? "" : "'"))
        return;
    co_disturb(world, id);
    g_free(co_wait_for_end(world, id, JOB_STATUS_CONCLUDED));
    (void)co_ask(world, "{'execute': 'job-dismiss', 'arguments': {'id': '%s'}}", id);
}

static void CO_FN co_commit(struct world *world)
{
    g_autofree char *id = g_strdup_printf("commit%u", ++world->names);
    g_autofree char *top = pick(world, 2) ? pick_layer(world) : g_strdup(node_name(image_of_guest(world)));
    g_autofree char *base = pick_layer(world);

    if (!co_ask(world,
                "{'execute': 'block-commit', 'arguments': {'job-id': '%s', 'device': '%s', 'top-node': '%s', "
                "'base-node': '%s', 'on-error': '%s', 'auto-dismiss': false}}",
                id, node_name(image_of_guest(world)), top, base, pick_word(world, policies)))
        return;
    co_disturb(world, id);
    co_finish_mirror(world, id, NULL, NULL);
    g_free(co_wait_for_end(world, id, JOB_STATUS_CONCLUDED));
    (void)co_ask(world, "{'execute': 'job-dismiss', 'arguments': {'id': '%s'}}", id);
}

/* The flags of the image that the guests are on, and back. */
static void CO_FN co_reopen(struct world *world)
{
    g_autofree char *name = g_strdup(node_name(image_of_guest(world)));
    bool qcow2 = !strcmp(node_driver_name(image_of_guest(world)), "qcow2");
    struct node *below = chain_next(image_of_guest(world));
    g_autofree char *backing = below ? g_strdup_printf("'%s'", node_name(below)) : g_strdup("null");
    g_autofree char *file = file_of_guest(world);

    if (qcow2)
        (void)co_ask(world,
                     "{'execute': 'blockdev-reopen', 'arguments': {'options': [{'driver': 'qcow2', 'node-name': '%s', "
                     "'backing': %s, 'discard': '%s', 'lazy-refcounts': %s, 'file': {'driver': 'file', "
                     "'filename': '%s'}}]}}",
                     name, backing, pick(world, 2) ? "unmap" : "ignore", pick(world, 2) ? "true" : "false", file);
    else
        (void)co_ask(world,
                     "{'execute': 'blockdev-reopen', 'arguments': {'options': [{'driver': 'file', 'node-name': '%s', "
                     "'filename': '%s', 'detect-zeroes': '%s'}]}}",
                     name, file, pick(world, 2) ? "on" : "off");
}

static void co_client(void *opaque)
{
    struct world *world = opaque;
    static void (*const stories[])(struct world *) = {co_mirror,   co_mirror, co_backup, co_backup, co_snapshot,
                                                      co_snapshot, co_stream, co_commit, co_commit, co_reopen};
    unsigned count = 2 + pick(world, 4);

    for (unsigned i = 0; i < count && !world->off; i++) {
        (void)co_sleep_ns(pick(world, 2000) * MS / 1000);
        stories[pick(world, G_N_ELEMENTS(stories))](world);
    }
    if (--world->clients == 0)
        world->done = true;
    co_group_done(&world->helpers);
}

/* Requests that fail, each alone, and the end of the power. */
static void co_fate(void *opaque)
{
    struct world *world = opaque;
    static const unsigned kinds[] = {SIM_OP_BIT(SIM_OP_READ), SIM_OP_BIT(SIM_OP_WRITE), SIM_OP_BIT(SIM_OP_ALLOCATE),
                                     SIM_OP_BIT(SIM_OP_COPY), SIM_OP_BIT(SIM_OP_READ) | SIM_OP_BIT(SIM_OP_WRITE)};
    bool cut = world->seed % 2;

    for (unsigned i = 0; world->faults && i < 4 && !world->done; i++) {
        struct sim_fault fault = {.ops = kinds[pick(world, G_N_ELEMENTS(kinds))],
                                  .nth = 1 + pick(world, 200),
                                  .errno_value = pick(world, 2) ? EIO : ENOSPC,
                                  .torn = pick(world, 2)};

        sim_set_fault(world->loop, &fault);
        (void)co_sleep_ns(pick(world, 20000) * MS / 1000);
    }
    if (cut && !world->done) {
        (void)co_sleep_ns(pick(world, 80000) * MS / 1000);
        if (!world->done) {
            world->image = file_of_guest(world);
            world->last = ++world->clock;
            world->off = true;
            say(world, "the power fails; guests are on '%s'", world->image);
            world->left = sim_disk_after_cut(world->disk, world->seed);
            sim_power_off(world->loop);
        }
    }
    co_group_done(&world->helpers);
}

/* --- a run --- */

static void CO_FN co_start(struct world *world)
{
    struct handle_options options = {
        .name = "guest", .perm = PERM_CONSISTENT_READ | PERM_WRITE, .shared = PERM_ALL, .follows_length = true};
    g_autofree char *name = co_add_image(world, pick(world, 3) == 0, true, NULL);

    g_assert_nonnull(name);
    world->guest = co_handle_new(graph_find(world->daemon->graph, name, NULL), &options, NULL);
    g_assert_nonnull(world->guest);
    change_end(world, change_begin(world, 0, SECTORS_MAX, 0), 0);
    co_guest_flush(world);
}

static void co_world(void *opaque)
{
    struct world *world = opaque;
    struct moment moment;

    world->daemon = daemon_new();
    world->client =
        (struct qmp_client){.daemon = world->daemon, .commands = world->daemon->commands, .negotiated = true};
    daemon_started(world->daemon);
    co_start(world);
    world->faults = pick(world, 3) == 0;
    world->clients = CLIENTS;
    co_group_add(&world->guests, GUESTS);
    co_group_add(&world->helpers, CLIENTS + 1);
    for (unsigned i = 0; i < GUESTS; i++)
        co_spawn(world->loop, co_guest, world);
    for (unsigned i = 0; i < CLIENTS; i++)
        co_spawn(world->loop, co_client, world);
    co_spawn(world->loop, co_fate, world);
    co_group_wait(&world->guests);
    co_group_wait(&world->helpers);
    sim_set_fault(world->loop, &(struct sim_fault){0});
    moment = (struct moment){.asked = world->clock, .until = world->clock + 1};
    if (!world->off)
        co_check_image(world, "the disk in the end", node_name(handle_node(world->guest)), &moment);
    co_handle_free(world->guest);
    co_daemon_free(world->daemon);
}

/* The image opens by its name, and has what was there at a moment. */
static void CO_FN co_check_left(struct world *world, const char *what, const char *file, const struct moment *moment)
{
    size_t size;
    g_autofree char *content = sim_disk_get(world->disk, file, &size);
    bool qcow2 = content && size > 4 && !memcmp(content, "QFI\xfb", 4);

    if (!co_ask(
            world,
            "{'execute': 'blockdev-add', 'arguments': {'driver': '%s', 'node-name': 'after', %s'filename': '%s'%s}}",
            qcow2 ? "qcow2" : "file", qcow2 ? "'file': {'driver': 'file', " : "", file, qcow2 ? "}" : ""))
        g_error("seed %u: '%s' does not open after the power failed", world->seed, file);
    co_check_image(world, what, "after", moment);
    co_delete(world, "after");
}

static void co_after_cut(void *opaque)
{
    struct world *world = opaque;
    struct moment moment = {.asked = world->last, .until = world->last, .after_cut = true};

    world->daemon = daemon_new();
    world->client =
        (struct qmp_client){.daemon = world->daemon, .commands = world->daemon->commands, .negotiated = true};
    daemon_started(world->daemon);
    co_check_left(world, "after the power failed", world->image, &moment);
    for (unsigned i = 0; i < world->kept->len; i++) {
        const struct kept *kept = g_ptr_array_index(world->kept, i);

        co_check_left(world, "a backup, after the power failed", kept->file, &kept->moment);
    }
    co_daemon_free(world->daemon);
}

static void run_loop(struct world *world, co_entry *entry)
{
    world->loop = loop_new(&(struct loop_options){.backend = LOOP_SIM, .sim_seed = world->seed}, NULL);
    g_assert_nonnull(world->loop);
    sim_loop_set_disk(world->loop, world->disk);
    co_run(world->loop, entry, world);
    loop_free(TAKE(world->loop));
}

static void run_seed(uint32_t seed)
{
    struct world world = {
        .seed = seed,
        .random = g_rand_new_with_seed(seed),
        .disk = sim_disk_new(),
        .changes = g_ptr_array_new_with_free_func(g_free),
        .kept = g_ptr_array_new_with_free_func(kept_free),
        .flushes = g_array_new(false, false, sizeof(struct flush)),
    };

    world.sectors = 200 + pick(&world, SECTORS_MAX - 200);
    run_loop(&world, co_world);
    if (world.off) {
        sim_disk_free(world.disk);
        world.disk = TAKE(world.left);
        world.off = world.faults = false;
        run_loop(&world, co_after_cut);
    }
    g_free(world.image);
    g_ptr_array_free(world.changes, true);
    g_ptr_array_free(world.kept, true);
    g_array_free(world.flushes, true);
    g_rand_free(world.random);
    sim_disk_free(world.disk);
}

static void test_seeds(void)
{
    for (gint64 i = 0; i < settings.count; i++)
        run_seed((uint32_t)(settings.seed + i));
}

int main(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"seed", 0, 0, G_OPTION_ARG_INT64, &settings.seed, "the first seed", "N"},
        {"count", 0, 0, G_OPTION_ARG_INT64, &settings.count, "how many seeds", "N"},
        {"verbose", 0, 0, G_OPTION_ARG_NONE, &settings.verbose, "tell what happens", NULL},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) failure = NULL;

    /* First: the test framework has words of its own that look the same. */
    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_ignore_unknown_options(context, true);
    if (!g_option_context_parse(context, &argc, &argv, &failure))
        g_error("%s", failure->message);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/jobs-sim/seeds", test_seeds);
    return g_test_run();
}
