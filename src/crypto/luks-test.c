/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crypto/luks.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "crypto/af-split.h"
#include "crypto/kdf.h"
#include "crypto/library.h"
#include "crypto/secure-memory.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* --- a disk in memory --- */

enum { DISK_BYTES = 4 * 1024 * 1024, SECTOR = 512 };

struct memory {
    uint8_t bytes[DISK_BYTES];
    unsigned writes;
    bool unflushed; /* a write that a power cut might lose or tear: one at a time, or the cuts below tell nothing */
    unsigned fail_write; /* the so manieth; 0: none */
    unsigned
        torn_write; /* of this one, [torn_first, torn_end) of its sectors arrive, nothing of those after; 0: none */
    unsigned torn_first, torn_end;
};

static int CO_FN co_memory_read(void *opaque, uint64_t offset, void *to, size_t size)
{
    struct memory *memory = opaque;

    g_assert_true(offset + size <= DISK_BYTES);
    memcpy(to, memory->bytes + offset, size);
    return 0;
}

static int CO_FN co_memory_write(void *opaque, uint64_t offset, const void *from, size_t size)
{
    struct memory *memory = opaque;

    g_assert_true(offset + size <= DISK_BYTES);
    g_assert_false(memory->unflushed);
    if (++memory->writes == memory->fail_write)
        return -EIO;
    memory->unflushed = true;
    if (memory->torn_write && memory->writes >= memory->torn_write) {
        size_t first = MIN(size, (size_t)memory->torn_first * SECTOR),
               end = MIN(size, (size_t)memory->torn_end * SECTOR);

        g_assert_true(offset % SECTOR == 0);
        if (memory->writes == memory->torn_write && first < end)
            memcpy(memory->bytes + offset + first, (const uint8_t *)from + first, end - first);
        return 0;
    }
    memcpy(memory->bytes + offset, from, size);
    return 0;
}

static int CO_FN co_memory_flush(void *opaque)
{
    struct memory *memory = opaque;

    memory->unflushed = false;
    return 0;
}

static struct luks_io io_of(struct memory *memory)
{
    return (struct luks_io){
        .co_read = co_memory_read, .co_write = co_memory_write, .co_flush = co_memory_flush, .opaque = memory};
}

static struct luks_passphrase passphrase(const char *text)
{
    return (struct luks_passphrase){(const uint8_t *)text, strlen(text)};
}

static const struct block_crypt_scheme usual = {
    .cipher = Q_CRYPTO_CIPHER_ALGORITHM_AES_256,
    .mode = Q_CRYPTO_CIPHER_MODE_XTS,
    .ivgen = Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64,
};

/* A volume that `first` opens. */
static struct memory *CO_FN co_new_volume(const struct block_crypt_scheme *scheme, enum q_crypto_hash_algorithm hash,
                                          const char *first, struct luks_header *header)
{
    struct memory *memory = g_new0(struct memory, 1);
    struct luks_io io = io_of(memory);
    AUTO(error) err = NULL;

    g_assert_true(luks_header_make(scheme, hash, false, header, &err));
    uint8_t *key = co_luks_format(&io, header, passphrase(first), 1, &err);
    g_assert_nonnull(key);
    secure_memory_free(key, LUKS_KEY_BYTES_MAX);
    return memory;
}

/* Whether the volume, read anew, opens. */
static bool CO_FN co_opens(struct memory *memory, const char *with)
{
    struct luks_io io = io_of(memory);
    struct luks_header header;
    AUTO(error) err = NULL;

    g_assert_true(co_luks_load(&io, &header, NULL));
    uint8_t *key = co_luks_unlock(&io, &header, passphrase(with), &err);
    if (!key)
        g_assert_cmpstr(error_message(err), ==, "Invalid password, cannot unlock any keyslot");
    secure_memory_free(key, LUKS_KEY_BYTES_MAX);
    return key != NULL;
}

/* --- key derivation --- */

/* Computed with another implementation. */
static void test_pbkdf2(void)
{
    static const struct {
        enum q_crypto_hash_algorithm hash;
        const char *hex;
    } answers[] = {
        {Q_CRYPTO_HASH_ALGORITHM_SHA1, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"}, /* RFC 6070 */
        {Q_CRYPTO_HASH_ALGORITHM_SHA256, "348c89dbcbd32b2f32d814b8116e84cf2b17347ebc1800181c"},
        {Q_CRYPTO_HASH_ALGORITHM_SHA512, "8c0511f4c6e597c6ac6315d8f0362e225f3c501495ba23b868"},
        {Q_CRYPTO_HASH_ALGORITHM_RIPEMD160, "503b9a069633b261b2d3e4f21c5d0cafeb3f5008aec25ed214"},
    };
    static const char secret[] = "passwordPASSWORDpassword";
    static const char salt[] = "saltSALTsaltSALTsaltSALTsaltSALTsalt";

    for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++) {
        uint8_t key[25];
        g_autoptr(GString) hex = g_string_new(NULL);

        const struct kdf_request request = {
            .hash = answers[i].hash,
            .passphrase = (const uint8_t *)secret,
            .passphrase_size = strlen(secret),
            .salt = (const uint8_t *)salt,
            .salt_size = strlen(salt),
            .iterations = 4096,
        };

        g_assert_cmpint(kdf_pbkdf2(&request, key, sizeof(key)), ==, 0);
        for (unsigned j = 0; j < sizeof(key); j++)
            g_string_append_printf(hex, "%02x", key[j]);
        g_assert_cmpstr(hex->str, ==, answers[i].hex);
    }
}

/* Computed with another implementation. */
static void test_af_merge(void)
{
    static const struct {
        enum q_crypto_hash_algorithm hash;
        size_t key_bytes;
        const char *hex;
    } answers[] = {
        {Q_CRYPTO_HASH_ALGORITHM_SHA1, 64,
         "3eacd8cb88fd141b0eb5cc330ab2fc389d6fe3c51420d8c4ad74f8fabbbb3c31"
         "16c51c2bd6df5e5f1328f2eaeb0c2b7cbf60dcb90588d64e83bd5d0d789f0ddd"},
        {Q_CRYPTO_HASH_ALGORITHM_SHA256, 32, "434219d702d6ea1b91ac0a52324dea9b00f7fa5b5991f6ef8d4eed0deffb8a66"},
        {Q_CRYPTO_HASH_ALGORITHM_SHA512, 48,
         "176d6b77012677db40d4289d699eb98352c535ae4ff45a1a8f82d4ef3fe8f506"
         "7233b95f609217e2aed2191ee99c2ff6"},
        {Q_CRYPTO_HASH_ALGORITHM_RIPEMD160, 24, "ce1918e5c7ee37b297ebbe67611c489a98b557f48a0750f9"},
    };

    g_assert_true(crypto_library_ready(NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++) {
        uint8_t split[10 * LUKS_KEY_BYTES_MAX];
        uint8_t key[LUKS_KEY_BYTES_MAX], again[LUKS_KEY_BYTES_MAX];
        size_t key_bytes = answers[i].key_bytes;
        g_autoptr(GString) hex = g_string_new(NULL);

        for (unsigned j = 0; j < sizeof(split); j++)
            split[j] = (uint8_t)(j * 37 + 11);
        af_merge(answers[i].hash, split, key_bytes, 10, key);
        for (unsigned j = 0; j < key_bytes; j++)
            g_string_append_printf(hex, "%02x", key[j]);
        g_assert_cmpstr(hex->str, ==, answers[i].hex);
        af_split(answers[i].hash, key, key_bytes, 10, split);
        af_merge(answers[i].hash, split, key_bytes, 10, again);
        g_assert_cmpmem(again, key_bytes, key, key_bytes);
    }
}

/* --- headers --- */

/* A header that could be on disk. */
static void fill_header(uint8_t data[LUKS_HEADER_BYTES])
{
    struct luks_header header;

    g_assert_true(luks_header_make(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, false, &header, NULL));
    header.digest_iterations = 1000;
    header.slots[0].active = true;
    header.slots[0].iterations = 2000;
    g_strlcpy(header.uuid, "21cc5bc4-8764-4386-868f-f41160c0edc1", sizeof(header.uuid));
    luks_header_write(&header, data);
}

static void test_header(void)
{
    uint8_t data[LUKS_HEADER_BYTES], again[LUKS_HEADER_BYTES];
    struct luks_header header;

    fill_header(data);
    g_assert_true(luks_header_parse(data, false, &header, NULL));
    luks_header_write(&header, again);
    g_assert_cmpmem(again, sizeof(again), data, sizeof(data));
    g_assert_cmpuint(header.payload_offset, ==, 2068480);
    g_assert_cmpuint(header.slots[7].material_offset, ==, 1810432);
    g_assert_cmpuint(header.key_bytes, ==, 64);
    AUTO(q_crypto_block_info_luks) info = luks_header_describe(&header, false);
    g_assert_cmpuint(info->slots->count, ==, 8);
    g_assert_cmpint(info->slots->items[0]->iters, ==, 2000);
    g_assert_false(info->slots->items[1]->has_iters);
}

static void test_bad_headers(void)
{
    static const struct {
        unsigned at;
        const char *bytes;
        unsigned size;
        const char *message;
    } rows[] = {
        {0, "X", 1, "Volume is not in LUKS format"},
        {6, "\0\2", 2, "LUKS version 2 is not supported"},
        {8, "bogus", 6, "Algorithm 'bogus' with key size 32 bytes not supported"},
        {8, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 32, "LUKS header cipher name is not NUL terminated"},
        {8, "b\x1bgus", 6, "Algorithm 'b?gus' with key size 32 bytes not supported"},
        {40, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 32, "LUKS header cipher mode is not NUL terminated"},
        {40, "bogus", 6, "Unexpected cipher mode string format 'bogus'"},
        {40, "", 1, "Unexpected cipher mode string format ''"},
        {40, "bogus-plain64", 14, "Cipher mode 'bogus' not supported"},
        {40, "xts-bogus", 10, "IV generator 'bogus' not supported"},
        {40, "xts-essiv", 10, "Missing IV generator hash specification"},
        {40, "xts-essiv:bogus", 16, "Hash algorithm 'bogus' not supported"},
        {40, "xts-essiv:sha1", 15, "No AES cipher with key size 20 available"},
        {72, "bogus", 6, "Hash algorithm 'bogus' not supported"},
        {72, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 32, "LUKS header hash spec is not NUL terminated"},
        {104, "\0\0\0\0", 4, "LUKS payload is overlapping with the header: it begins at 0"},
        {104, "\0\0\0\x10", 4,
         "Keyslot 0 is overlapping with the encrypted payload: it ends at 260096, and the payload begins at 8192"},
        {108, "\0\0\0\0", 4, "Algorithm 'aes' with key size 0 bytes not supported"},
        {108, "\0\0\0\x41", 4, "Algorithm 'aes' with key size 32 bytes not supported"},
        {108, "\xff\xff\xff\xff", 4, "Algorithm 'aes' with key size 2147483647 bytes not supported"},
        {164, "\0\0\0\0", 4, "LUKS key iteration count is zero"},
        {164, "\xff\xff\xff\xff", 4, "LUKS key iteration count 4294967295 is larger than 1073741824"},
        {208, "\1\2\3\4", 4, "Keyslot 0 state (active/disable) is corrupted: it is 0x01020304"},
        {212, "\0\0\0\0", 4, "Keyslot 0 iteration count is zero"},
        {212, "\xff\xff\xff\xff", 4, "Keyslot 0 iteration count 4294967295 is larger than 1073741824"},
        {248, "\0\0\0\1", 4, "Keyslot 0 is overlapping with the LUKS header: it begins at 512"},
        {248, "\xff\xff\xff\xff", 4,
         "Keyslot 0 is overlapping with the encrypted payload: it ends at 2199023511040, and the payload begins at "
         "2068480"},
        {296, "\0\0\0\x10", 4,
         "Keyslots 0 and 1 are overlapping in the header: they begin at 4096 and 8192 and have 256000 bytes"},
        {252, "\0\0\0\0", 4, "Keyslot 0 is corrupted (stripes 0 != 4000)"},
        {588, "\0\1\0\0", 4, "Keyslot 7 is corrupted (stripes 65536 != 4000)"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        uint8_t data[LUKS_HEADER_BYTES];
        struct luks_header header;
        AUTO(error) err = NULL;

        fill_header(data);
        memcpy(data + rows[i].at, rows[i].bytes, rows[i].size);
        g_assert_false(luks_header_parse(data, false, &header, &err));
        g_assert_cmpstr(error_message(err), ==, rows[i].message);
    }
}

/* Where the payload lies elsewhere, its offset is not held against the header. */
static void test_detached_header(void)
{
    uint8_t data[LUKS_HEADER_BYTES];
    struct luks_header header;

    g_assert_true(luks_header_make(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, true, &header, NULL));
    header.digest_iterations = 1;
    luks_header_write(&header, data);
    g_assert_false(luks_header_parse(data, false, &header, NULL));
    g_assert_true(luks_header_parse(data, true, &header, NULL));
    g_assert_cmpuint(header.payload_offset, ==, 0);
}

/* --- volumes --- */

static void CO_FN co_test_format(void *opaque)
{
    static const struct block_crypt_scheme schemes[] = {
        {Q_CRYPTO_CIPHER_ALGORITHM_AES_256, Q_CRYPTO_CIPHER_MODE_XTS, Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64, 0},
        {Q_CRYPTO_CIPHER_ALGORITHM_AES_192, Q_CRYPTO_CIPHER_MODE_CBC, Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV,
         Q_CRYPTO_HASH_ALGORITHM_SHA256},
        {Q_CRYPTO_CIPHER_ALGORITHM_CAST5_128, Q_CRYPTO_CIPHER_MODE_CBC, Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN, 0},
        {Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_256, Q_CRYPTO_CIPHER_MODE_CTR, Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64, 0},
        {Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_256, Q_CRYPTO_CIPHER_MODE_ECB, Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64, 0},
    };
    static const enum q_crypto_hash_algorithm hashes[] = {
        Q_CRYPTO_HASH_ALGORITHM_SHA256, Q_CRYPTO_HASH_ALGORITHM_SHA1, Q_CRYPTO_HASH_ALGORITHM_SHA512,
        Q_CRYPTO_HASH_ALGORITHM_RIPEMD160, Q_CRYPTO_HASH_ALGORITHM_MD5};

    (void)opaque;
    for (unsigned i = 0; i < G_N_ELEMENTS(schemes); i++) {
        struct luks_header header;
        g_autofree struct memory *memory = co_new_volume(&schemes[i], hashes[i], "first", &header);

        g_assert_true(co_opens(memory, "first"));
        g_assert_false(co_opens(memory, "First"));
        g_assert_false(co_opens(memory, ""));
    }
}

/* What a change comes to: NULL: it works. */
struct change {
    struct q_crypto_block_amend_options_luks options;
    const char *unlock; /* NULL: "first" */
    bool force;
    const char *message;
};

static void CO_FN co_expect_change(struct memory *memory, struct luks_header *header, const struct change *change)
{
    const struct q_crypto_block_amend_options_luks *options = &change->options;
    struct luks_io io = io_of(memory);
    struct luks_amend amend = {
        .options = options, .unlock = passphrase(change->unlock ? change->unlock : "first"), .force = change->force};
    AUTO(error) err = NULL;

    if (options->new_secret)
        amend.add = passphrase(options->new_secret);
    if (options->old_secret)
        amend.match = passphrase(options->old_secret);
    bool ok = co_luks_amend(&io, header, &amend, &err);
    g_assert_cmpstr(ok ? NULL : error_message(err), ==, change->message);
}

#define ADD .options.state = Q_CRYPTO_BLOCK_LUKS_KEYSLOT_STATE_ACTIVE, .options.has_iter_time = true
#define ERASE .options.state = Q_CRYPTO_BLOCK_LUKS_KEYSLOT_STATE_INACTIVE
#define SLOT(n) .options.has_keyslot = true, .options.keyslot = n

static void CO_FN co_test_amend(void *opaque)
{
    static const struct change changes[] = {
        {ADD, .message = "'new-secret' is required to activate a keyslot"},
        {ADD, .options.new_secret = (char *)"x", .options.old_secret = (char *)"y",
         .message = "'old-secret' must not be given when activating keyslots"},
        {ADD, .options.new_secret = (char *)"x", SLOT(8),
         .message = "Invalid keyslot 8 specified, must be between 0 and 7"},
        {ADD, .options.new_secret = (char *)"x", SLOT(0),
         .message = "Refusing to overwrite active keyslot 0 - please erase it first"},
        {ERASE, .message = "To erase keyslot(s), either explicit keyslot index or the password currently contained in "
                           "them must be given"},
        {ERASE, SLOT(5), .message = "Given keyslot 5 is already erased (inactive) "},
        {ERASE, SLOT(-1), .message = "Invalid keyslot -1 specified, must be between 0 and 7"},
        {ERASE, SLOT(0), .options.has_iter_time = true,
         .message = "'iter-time' must not be given when erasing keyslots"},
        {ERASE, SLOT(0), .options.new_secret = (char *)"x",
         .message = "'new-secret' must not be given when erasing keyslots"},
        {ERASE, .options.old_secret = (char *)"x",
         .message = "No keyslots match given (old) password for erase operation"},
        {ERASE, SLOT(0),
         .message = "Attempt to erase the only active keyslot 0 which will erase all the data in the "
                    "image irreversibly - refusing operation"},
        {ERASE, .options.old_secret = (char *)"first",
         .message = "All the active keyslots match the (old) password that was given and erasing them will erase all "
                    "the data in the image irreversibly - refusing operation"},
        {ADD, .options.new_secret = (char *)"second", .unlock = "wrong",
         .message = "Invalid password, cannot unlock any keyslot"},
        {ADD, .options.new_secret = (char *)"second"},
        {ADD, .options.new_secret = (char *)"second", SLOT(7)},
        {ERASE, .options.old_secret = (char *)"second", SLOT(0),
         .message = "Given keyslot 0 doesn't contain the given old password for erase operation"},
        {ADD, .options.new_secret = (char *)"third", SLOT(0), .force = true},
        {ADD, .options.new_secret = (char *)"first", .unlock = "third"},
    };
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);

    (void)opaque;
    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_test_message("change %u", i);
        co_expect_change(memory, &header, &changes[i]);
    }
    /* 0: third, 1 and 7: second, 2: first */
    g_assert_true(co_opens(memory, "first"));
    g_assert_true(co_opens(memory, "second"));
    g_assert_true(co_opens(memory, "third"));
    co_expect_change(memory, &header, &(struct change){ERASE, .options.old_secret = (char *)"second"});
    g_assert_false(co_opens(memory, "second"));
    g_assert_false(header.slots[1].active);
    g_assert_false(header.slots[7].active);
    co_expect_change(memory, &header, &(struct change){ERASE, SLOT(2)});
    co_expect_change(memory, &header, &(struct change){ERASE, SLOT(0), .force = true});
    g_assert_false(co_opens(memory, "third"));
}

static void CO_FN co_test_all_slots(void *opaque)
{
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);

    (void)opaque;
    for (unsigned i = 1; i < LUKS_SLOTS; i++) {
        g_autofree char *text = g_strdup_printf("passphrase %u", i);

        co_expect_change(memory, &header, &(struct change){ADD, .options.new_secret = text});
        g_assert_true(header.slots[i].active);
        g_assert_true(co_opens(memory, text));
    }
    co_expect_change(memory, &header,
                     &(struct change){ADD, .options.new_secret = (char *)"x",
                                      .message = "Can't add a keyslot - all keyslots are in use"});
    g_assert_true(co_opens(memory, "first"));
    g_assert_true(co_opens(memory, "passphrase 1"));
    g_assert_true(co_opens(memory, "passphrase 7"));
}

/* A slot that could not be written is no reason to lose the others. */
static void CO_FN co_test_failures(void *opaque)
{
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);

    (void)opaque;
    for (unsigned n = 1; n <= 2; n++) {
        struct luks_header copy = header;

        memory->writes = 0;
        memory->fail_write = n;
        co_expect_change(
            memory, &copy,
            &(struct change){ADD, .options.new_secret = (char *)"second",
                             .message = n == 1 ? "Failed to write key material of keyslot 1: Input/output error"
                                               : "Unable to write LUKS header: Input/output error"});
        memory->fail_write = 0;
        g_assert_true(co_opens(memory, "first"));
        g_assert_false(co_opens(memory, "second"));
    }
}

/* --- the power fails --- */

struct step {
    struct change change;
    const char *keep[7];   /* open the volume all the time */
    const char *either[2]; /* one or the other does, or both */
};

/* The step is taken while the power fails in its so manieth write. False: there is no such write. */
static bool CO_FN co_cut(const struct memory *before, const struct luks_header *header, const struct step *step,
                         unsigned write, const unsigned arrives[2])
{
    g_autofree struct memory *memory = g_memdup2(before, sizeof(*before));
    struct luks_header copy = *header;

    memory->torn_write = memory->writes + write;
    memory->torn_first = arrives[0];
    memory->torn_end = arrives[1];
    co_expect_change(memory, &copy, &step->change);
    if (memory->writes < memory->torn_write)
        return false;
    memory->torn_write = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(step->keep) && step->keep[i]; i++)
        g_assert_true(co_opens(memory, step->keep[i]));
    if (step->either[0])
        g_assert_true(co_opens(memory, step->either[0]) || co_opens(memory, step->either[1]));
    return true;
}

/* Every step while the power fails in each of its writes, and then without. */
static void CO_FN co_cut_each(struct memory *memory, struct luks_header *header, const struct step *steps, size_t count)
{
    /* A header has two sectors, between which the last slot but one lies; a slot's material has 500 of them. */
    static const unsigned arrives[][2] = {{0, 0}, {0, 1}, {1, 2}, {0, 250}, {250, 500}};

    for (size_t i = 0; i < count; i++) {
        bool there = true;

        for (unsigned write = 1; there; write++) {
            g_test_message("step %zu, write %u", i, write);
            for (unsigned j = 0; j < G_N_ELEMENTS(arrives) && there; j++)
                there = co_cut(memory, header, &steps[i], write, arrives[j]);
        }
        co_expect_change(memory, header, &steps[i].change);
    }
}

static void CO_FN co_test_power_cuts(void *opaque)
{
    static const struct step steps[] = {
        {{ADD, .options.new_secret = (char *)"second"}, {"first"}, {NULL}},
        {{ADD, .options.new_secret = (char *)"sixth", SLOT(6)}, {"first", "second"}, {NULL}},
        {{ADD, .options.new_secret = (char *)"seventh", SLOT(7)}, {"first", "second", "sixth"}, {NULL}},
        {{ERASE, .options.old_secret = (char *)"first"}, {"second", "sixth", "seventh"}, {NULL}},
        {{ERASE, SLOT(6)}, {"second", "seventh"}, {NULL}},
        {{ADD, .options.new_secret = (char *)"again", SLOT(6), .unlock = "second"}, {"second", "seventh"}, {NULL}},
        {{ADD, .options.new_secret = (char *)"instead", SLOT(6), .unlock = "second", .force = true},
         {"second", "seventh"},
         {"again", "instead"}},
    };
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);

    (void)opaque;
    co_cut_each(memory, &header, steps, G_N_ELEMENTS(steps));
    g_assert_true(co_opens(memory, "instead"));
    g_assert_false(co_opens(memory, "again"));
}

static unsigned active_slots(const struct luks_header *header)
{
    unsigned slots = 0;

    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        slots |= (unsigned)header->slots[i].active << i;
    return slots;
}

/* The only passphrase is changed in its slot: at no time is there none. */
static void CO_FN co_test_overwriting_the_only_slot(void *opaque)
{
    static const struct step overwrite[] = {
        {{ADD, .options.new_secret = (char *)"second", SLOT(0), .force = true}, {NULL}, {"first", "second"}},
        {{ADD, .options.new_secret = (char *)"third", SLOT(0), .unlock = "second", .force = true},
         {NULL},
         {"second", "third"}},
    };
    static const struct step to_the_sixth[] = {
        {{ADD, .options.new_secret = (char *)"sixth", SLOT(6), .unlock = "third"}, {"third"}, {NULL}},
        {{ERASE, SLOT(0)}, {"sixth"}, {NULL}},
        {{ADD, .options.new_secret = (char *)"last", SLOT(6), .unlock = "sixth", .force = true},
         {NULL},
         {"sixth", "last"}},
    };
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);

    (void)opaque;
    co_cut_each(memory, &header, overwrite, G_N_ELEMENTS(overwrite));
    g_assert_cmphex(active_slots(&header), ==, 1 << 0);
    g_assert_true(co_opens(memory, "third"));
    g_assert_false(co_opens(memory, "first"));
    co_cut_each(memory, &header, to_the_sixth, G_N_ELEMENTS(to_the_sixth));
    g_assert_cmphex(active_slots(&header), ==, 1 << 6);
    g_assert_true(co_opens(memory, "last"));
    g_assert_false(co_opens(memory, "sixth"));
}

/* With no slot to spare, the other seven are left alone. */
static void CO_FN co_test_overwriting_in_a_full_header(void *opaque)
{
    static const struct step overwrite[] = {
        {{ADD, .options.new_secret = (char *)"instead", SLOT(3), .force = true},
         {"first", "1", "2", "4", "5", "6", "7"},
         {NULL}},
    };
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);

    (void)opaque;
    for (unsigned i = 1; i < LUKS_SLOTS; i++) {
        char text[] = {(char)('0' + i), '\0'};

        co_expect_change(memory, &header, &(struct change){ADD, .options.new_secret = text});
    }
    co_cut_each(memory, &header, overwrite, G_N_ELEMENTS(overwrite));
    g_assert_cmphex(active_slots(&header), ==, 0xff);
    g_assert_true(co_opens(memory, "instead"));
    g_assert_false(co_opens(memory, "3"));
}

/* --- giving up --- */

static bool stop_at_third(const void *opaque)
{
    unsigned *asked = (unsigned *)(uintptr_t)opaque;

    return ++*asked == 3;
}

static void test_stopping(void)
{
    unsigned asked = 0;
    const struct kdf_request request = {
        .hash = Q_CRYPTO_HASH_ALGORITHM_SHA256,
        .passphrase = (const uint8_t *)"p",
        .passphrase_size = 1,
        .salt = (const uint8_t *)"s",
        .salt_size = 1,
        .iterations = UINT32_MAX,
        .stop = stop_at_third,
        .opaque = &asked,
    };
    uint8_t key[64];

    g_assert_cmpint(kdf_pbkdf2(&request, key, sizeof(key)), ==, -ECANCELED);
    g_assert_cmpuint(asked, ==, 3);
}

static void CO_FN co_unlock_for_long(void *opaque)
{
    struct luks_header header;
    g_autofree struct memory *memory = co_new_volume(&usual, Q_CRYPTO_HASH_ALGORITHM_SHA256, "first", &header);
    struct luks_io io = io_of(memory);
    AUTO(error) err = NULL;
    unsigned *step = opaque;

    /* Minutes of computing. */
    header.slots[0].iterations = LUKS_ITERATIONS_MAX;
    *step = 1;
    g_assert_null(co_luks_unlock(&io, &header, passphrase("first"), &err));
    g_assert_cmpstr(error_message(err), ==, "Unlocking the volume: Operation canceled");
    *step = 2;
}

static void CO_FN co_test_cancelling(void *opaque)
{
    unsigned step = 0;
    struct co_task *task = co_task_start(loop_current(), co_unlock_for_long, &step);

    (void)opaque;
    while (step < 1)
        g_assert_cmpint(co_sleep_ns(1000000), ==, 0);
    co_task_cancel(task);
    co_task_join(task);
    g_assert_cmpuint(step, ==, 2);
}

static void run(co_entry *entry)
{
    AUTO(error) err = NULL;
    struct loop *loop = loop_new(&(struct loop_options){0}, &err);

    g_assert_nonnull(loop);
    co_run(loop, entry, NULL);
    loop_free(loop);
}

static void test_format(void)
{
    run(co_test_format);
}

static void test_amend(void)
{
    run(co_test_amend);
}

static void test_all_slots(void)
{
    run(co_test_all_slots);
}

static void test_failures(void)
{
    run(co_test_failures);
}

static void test_power_cuts(void)
{
    run(co_test_power_cuts);
}

static void test_overwriting_the_only_slot(void)
{
    run(co_test_overwriting_the_only_slot);
}

static void test_overwriting_in_a_full_header(void)
{
    run(co_test_overwriting_in_a_full_header);
}

static void test_cancelling(void)
{
    run(co_test_cancelling);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/luks/pbkdf2", test_pbkdf2);
    g_test_add_func("/luks/af-merge", test_af_merge);
    g_test_add_func("/luks/header", test_header);
    g_test_add_func("/luks/bad-headers", test_bad_headers);
    g_test_add_func("/luks/detached-header", test_detached_header);
    g_test_add_func("/luks/format", test_format);
    g_test_add_func("/luks/amend", test_amend);
    g_test_add_func("/luks/all-slots", test_all_slots);
    g_test_add_func("/luks/failures", test_failures);
    g_test_add_func("/luks/power-cuts", test_power_cuts);
    g_test_add_func("/luks/overwriting-the-only-slot", test_overwriting_the_only_slot);
    g_test_add_func("/luks/overwriting-in-a-full-header", test_overwriting_in_a_full_header);
    g_test_add_func("/luks/stopping", test_stopping);
    g_test_add_func("/luks/cancelling", test_cancelling);
    return g_test_run();
}
