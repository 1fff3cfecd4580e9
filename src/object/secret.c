/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * secret and secret_keyring: bytes that others refer to by id.
 *
 * Keeps: (1) plain text lies in locked memory only, wiped when the object goes; (2) no message holds any of it.
 * Where the properties name a key, the given bytes are AES-256-CBC with PKCS#7 padding under that secret.
 */
#include "object/secret.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "crypto/cipher.h"
#include "crypto/secure-memory.h"
#include "loop/file.h"
#include "object/keyring.h"
#include "object/object.h"
#include "schema/json.h"

enum {
    SECRET_BYTES_MAX = 10 << 20, /* of a file, or of a keyring's payload */
    KEY_BYTES = 32,
    IV_BYTES = 16,
};

/* Bytes in secure memory, NUL-terminated beyond `size`. */
struct secret_bytes {
    uint8_t *bytes;
    size_t size;
};

struct secret {
    struct secret_bytes plain;
    struct secret_bytes source; /* what `data` or the file held, as it was given */
    bool from_data;
    enum q_crypto_secret_format format;
    char *file;  /* NULL: none */
    char *keyid; /* NULL: not encrypted */
    char *iv;
    int32_t serial; /* secret_keyring only */
};

static bool bytes_new(struct secret_bytes *ret, size_t size, struct error **err)
{
    ret->bytes = secure_memory_new(size + 1);
    ret->size = size;
    return ret->bytes || error_set(err, "No memory for a secret of %zu bytes", size);
}

static void bytes_free(struct secret_bytes *secret)
{
    secure_memory_free(secret->bytes, secret->size + 1);
    *secret = (struct secret_bytes){0};
}

static bool bytes_copy(struct secret_bytes *ret, const void *from, size_t size, struct error **err)
{
    if (!bytes_new(ret, size, err))
        return false;
    memcpy(ret->bytes, from, size);
    return true;
}

bool secret_base64_decode(const uint8_t *text, size_t size, uint8_t *to, size_t *ret_size, struct error **err)
{
    gint state = 0;
    guint save = 0;
    size_t letters = 0;
    size_t padding = 0;

    for (size_t i = 0; i < size; i++) {
        bool letter = g_ascii_isalnum(text[i]) || text[i] == '+' || text[i] == '/';

        if (g_ascii_isspace(text[i]))
            continue;
        if (text[i] == '=')
            padding++;
        else if (letter && !padding)
            letters++;
        else
            return error_set(err, "Base64 data contains invalid characters");
    }
    if (padding > 2 || (letters + padding) % 4)
        return error_set(err, "Base64 data is incomplete: %zu characters are not a multiple of 4", letters + padding);
    *ret_size = g_base64_decode_step((const char *)text, size, to, &state, &save);
    secure_memory_wipe(&save, sizeof(save));
    return true;
}

static bool decode_base64(struct secret_bytes *bytes, struct error **err)
{
    struct secret_bytes decoded;

    if (!bytes_new(&decoded, bytes->size / 4 * 3 + 3, err))
        return false;
    size_t room = decoded.size;
    size_t size = 0;
    if (!secret_base64_decode(bytes->bytes, bytes->size, decoded.bytes, &size, err)) {
        bytes_free(&decoded);
        return false;
    }
    assert(size <= room);
    bytes_free(bytes);
    bool ok = bytes_copy(bytes, decoded.bytes, size, err);
    bytes_free(&decoded);
    return ok;
}

/* The 16 bytes of the initialization vector, from base64. */
static bool decode_iv(const char *text, uint8_t iv[IV_BYTES], struct error **err)
{
    size_t size = strlen(text);
    g_autofree uint8_t *decoded = g_malloc(size / 4 * 3 + 3);
    size_t found;

    if (!secret_base64_decode((const uint8_t *)text, size, decoded, &found, err))
        return error_prefix(err, "iv: ");
    if (found != IV_BYTES)
        return error_set(err, "IV should be %d bytes in length not %zu", IV_BYTES, found);
    memcpy(iv, decoded, IV_BYTES);
    return true;
}

/* Cuts off the PKCS#7 padding. */
static bool strip_padding(struct secret_bytes *bytes, struct error **err)
{
    unsigned padding = bytes->size ? bytes->bytes[bytes->size - 1] : 0;

    if (padding == 0 || padding > 16 || padding > bytes->size)
        return error_set(err, "Incorrect number of padding bytes found on decrypted data");
    for (unsigned i = 1; i <= padding; i++) {
        if (bytes->bytes[bytes->size - i] != padding)
            return error_set(err, "Incorrect padding found on decrypted data");
    }
    size_t size = bytes->size - padding;
    struct secret_bytes stripped;
    if (!bytes_copy(&stripped, bytes->bytes, size, err))
        return false;
    bytes_free(bytes);
    *bytes = stripped;
    return true;
}

static bool decrypt(struct object_registry *registry, const char *keyid, const char *iv_text,
                    struct secret_bytes *bytes, struct error **err)
{
    uint8_t iv[IV_BYTES];
    uint8_t *key;
    size_t key_size;

    if (!secret_get(registry, keyid, &key, &key_size, err))
        return false;
    bool ok = false;
    if (key_size != KEY_BYTES)
        error_set(err, "Key should be %d bytes in length", KEY_BYTES);
    else if (!iv_text)
        error_set(err, "IV is required to decrypt secret");
    else if (!decode_iv(iv_text, iv, err))
        ok = false;
    else if (bytes->size % IV_BYTES)
        error_set(err, "Length %zu must be a multiple of block size %d", bytes->size, IV_BYTES);
    else
        ok = cipher_aes256_cbc_decrypt(key, iv, bytes->bytes, bytes->size, err) && strip_padding(bytes, err);
    secret_free(key, key_size);
    return ok;
}

/* From `source` to `plain`: encoding off, then encryption off. */
static bool load(struct object *object, struct error **err)
{
    struct secret *secret = object_state(object);

    if (!bytes_copy(&secret->plain, secret->source.bytes, secret->source.size, err))
        return false;
    /* What is encrypted always comes as base64: raw JSON strings can't hold it. */
    bool base64 = secret->format == Q_CRYPTO_SECRET_FORMAT_BASE64;
    if (base64 && !decode_base64(&secret->plain, err))
        return false;
    if (secret->keyid && !decrypt(object_get_registry(object), secret->keyid, secret->iv, &secret->plain, err))
        return false;
    if (secret->format == Q_CRYPTO_SECRET_FORMAT_RAW && !secret->keyid &&
        !g_utf8_validate((const char *)secret->plain.bytes, (gssize)secret->plain.size, NULL) && secret->from_data)
        return error_set(err, "Data from secret %s is not valid UTF-8", object_id(object));
    return true;
}

static void secret_clear(struct secret *secret)
{
    bytes_free(&secret->plain);
    bytes_free(&secret->source);
    g_clear_pointer(&secret->file, g_free);
    g_clear_pointer(&secret->keyid, g_free);
    g_clear_pointer(&secret->iv, g_free);
}

static bool CO_FN co_load_file(struct secret *secret, struct error **err)
{
    char *data;
    size_t size;

    if (!co_file_load(secret->file, SECRET_BYTES_MAX, &data, &size, err))
        return error_prefix(err, "Unable to read %s: ", secret->file);
    bool ok = bytes_copy(&secret->source, data, size, err);
    secure_memory_wipe(data, size);
    g_free(data);
    return ok;
}

static bool CO_FN secret_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct secret *secret = object_state(object);
    const struct secret_properties *wish = &options->u.secret;

    if (wish->data && wish->file)
        return error_set(err, "'file' and 'data' are mutually exclusive");
    if (!wish->data && !wish->file)
        return error_set(err, "Either 'file' or 'data' must be provided");
    secret->format = wish->has_format ? wish->format : Q_CRYPTO_SECRET_FORMAT_RAW;
    secret->from_data = wish->data != NULL;
    secret->file = g_strdup(wish->file);
    secret->keyid = g_strdup(wish->keyid);
    secret->iv = g_strdup(wish->iv);
    bool have =
        wish->data ? bytes_copy(&secret->source, wish->data, strlen(wish->data), err) : co_load_file(secret, err);
    if (have && load(object, err))
        return true;
    secret_clear(secret);
    return false;
}

static bool CO_FN keyring_co_create(struct object *object, const struct object_options *options, struct error **err)
{
    struct secret *secret = object_state(object);
    const struct secret_keyring_properties *wish = &options->u.secret_keyring;
    uint8_t *payload;
    size_t size;

    secret->format = wish->has_format ? wish->format : Q_CRYPTO_SECRET_FORMAT_RAW;
    secret->keyid = g_strdup(wish->keyid);
    secret->iv = g_strdup(wish->iv);
    secret->serial = wish->serial;
    if (keyring_read(wish->serial, SECRET_BYTES_MAX, &payload, &size, err)) {
        bool ok = bytes_copy(&secret->source, payload, size, err) && load(object, err);

        secure_memory_free(payload, size + 1);
        if (ok)
            return true;
    }
    secret_clear(secret);
    return false;
}

static void CO_FN secret_co_destroy(struct object *object)
{
    secret_clear(object_state(object));
}

bool secret_get(struct object_registry *registry, const char *id, uint8_t **ret_bytes, size_t *ret_size,
                struct error **err)
{
    struct object *object = object_find(registry, id);
    struct secret_bytes copy;

    if (!object || (object_get_class(object) != &secret_class && object_get_class(object) != &secret_keyring_class))
        return error_set(err, "No secret with id '%s'", id);
    struct secret *secret = object_state(object);
    if (!bytes_copy(&copy, secret->plain.bytes, secret->plain.size, err))
        return false;
    *ret_bytes = copy.bytes;
    *ret_size = copy.size;
    return true;
}

void secret_free(uint8_t *bytes, size_t size)
{
    secure_memory_free(bytes, size + 1);
}

/* Properties. */
enum { PROPERTY_LOADED, PROPERTY_FORMAT, PROPERTY_DATA, PROPERTY_FILE, PROPERTY_KEYID, PROPERTY_IV, PROPERTY_SERIAL };

static struct json *secret_property(struct object *object, const struct object_property *property)
{
    struct secret *secret = object_state(object);

    switch (property->index) {
    case PROPERTY_LOADED:
        return json_bool(true);
    case PROPERTY_FORMAT:
        return json_string(q_crypto_secret_format_name(secret->format));
    case PROPERTY_DATA:
        return json_string(secret->from_data ? (const char *)secret->source.bytes : "");
    case PROPERTY_FILE:
        return json_string(secret->file ? secret->file : "");
    case PROPERTY_KEYID:
        return json_string(secret->keyid ? secret->keyid : "");
    case PROPERTY_IV:
        return json_string(secret->iv ? secret->iv : "");
    default:
        assert(property->index == PROPERTY_SERIAL);
        return json_int(secret->serial);
    }
}

#define COMMON_PROPERTIES                                                                                              \
    {.name = "loaded",                                                                                                 \
     .type = "bool",                                                                                                   \
     .description = "always true",                                                                                     \
     .index = PROPERTY_LOADED,                                                                                         \
     .get = secret_property},                                                                                          \
        {.name = "format",                                                                                             \
         .type = "QCryptoSecretFormat",                                                                                \
         .description = "how the bytes were written down",                                                             \
         .index = PROPERTY_FORMAT,                                                                                     \
         .get = secret_property},                                                                                      \
        {.name = "keyid",                                                                                              \
         .type = "string",                                                                                             \
         .description = "secret under which it is encrypted",                                                          \
         .index = PROPERTY_KEYID,                                                                                      \
         .get = secret_property},                                                                                      \
    {                                                                                                                  \
        .name = "iv", .type = "string", .description = "initialization vector of that encryption",                     \
        .index = PROPERTY_IV, .get = secret_property                                                                   \
    }

static const struct object_property secret_properties[] = {
    COMMON_PROPERTIES,
    {.name = "file",
     .type = "string",
     .description = "where it was read",
     .index = PROPERTY_FILE,
     .get = secret_property},
    {.name = "data",
     .type = "string",
     .description = "as it was given",
     .index = PROPERTY_DATA,
     .get = secret_property},
    {.name = NULL},
};

static const struct object_property keyring_properties[] = {
    COMMON_PROPERTIES,
    {.name = "serial",
     .type = "int",
     .description = "key in the kernel",
     .index = PROPERTY_SERIAL,
     .get = secret_property},
    {.name = NULL},
};

const struct object_class secret_class = {
    .type = OBJECT_TYPE_SECRET,
    .state_size = sizeof(struct secret),
    .properties = secret_properties,
    .co_create = secret_co_create,
    .co_destroy = secret_co_destroy,
};

const struct object_class secret_keyring_class = {
    .type = OBJECT_TYPE_SECRET_KEYRING,
    .state_size = sizeof(struct secret),
    .properties = keyring_properties,
    .co_create = keyring_co_create,
    .co_destroy = secret_co_destroy,
};
