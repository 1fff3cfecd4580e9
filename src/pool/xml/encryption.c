/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool/xml/encryption.h"

#include <glib.h>
#include <string.h>

#include "pool/pool-error.h"
#include "pool/volume.h"
#include "pool/xml/document.h"
#include "pool/xml/words.h"

enum { SECRETS_MAX = 64 };

static const char *const format_names[] = {"default", "qcow", "luks", "luks2", "luks-any", NULL};

static bool parse_secret(const xmlNode *node, struct volume_encryption *encryption, struct pool_error **err)
{
    g_autofree char *type = xml_attribute(node, NULL, "type");

    if (encryption->secret_count == SECRETS_MAX)
        return pool_error_set(err, POOL_ERROR_XML, "more than %d secrets in the volume's encryption", SECRETS_MAX);
    if (!type)
        return pool_error_set(err, POOL_ERROR_XML, "unknown volume encryption secret type");
    if (strcmp(type, "passphrase") != 0)
        return pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown volume encryption secret type %s", type);
    encryption->secrets = g_renew(struct secret_reference, encryption->secrets, encryption->secret_count + 1);
    memset(&encryption->secrets[encryption->secret_count], 0, sizeof(*encryption->secrets));
    return xml_get_secret_reference(node, &encryption->secrets[encryption->secret_count++], err);
}

static bool parse_cipher(const xmlNode *node, struct volume_encryption *encryption, struct pool_error **err)
{
    const xmlNode *cipher = xml_find(node, "cipher");
    const xmlNode *ivgen = xml_find(node, "ivgen");
    g_autofree char *size = NULL;

    if (!cipher)
        return !ivgen || pool_error_set(err, POOL_ERROR_XML, "ivgen element found, but cipher is missing");
    encryption->cipher_name = xml_attribute(cipher, NULL, "name");
    encryption->cipher_mode = xml_attribute(cipher, NULL, "mode");
    encryption->cipher_hash = xml_attribute(cipher, NULL, "hash");
    size = xml_attribute(cipher, NULL, "size");
    if (!encryption->cipher_name)
        return pool_error_set(err, POOL_ERROR_XML, "cipher info missing 'name' attribute");
    if (!size)
        return pool_error_set(err, POOL_ERROR_XML, "cipher info missing 'size' attribute");
    if (!xml_get_number(cipher, "size", 4096, &encryption->cipher_size, err))
        return false;
    if (!ivgen)
        return true;
    encryption->ivgen_name = xml_attribute(ivgen, NULL, "name");
    encryption->ivgen_hash = xml_attribute(ivgen, NULL, "hash");
    return encryption->ivgen_name || pool_error_set(err, POOL_ERROR_XML, "missing ivgen info name string");
}

struct volume_encryption *encryption_parse(const xmlNode *node, struct pool_error **err)
{
    g_autofree char *format = xml_attribute(node, NULL, "format");
    struct volume_encryption *encryption;
    bool ok = true;
    int value;

    if (!format) {
        pool_error_set(err, POOL_ERROR_XML, "unknown volume encryption format");
        return NULL;
    }
    value = format_value(format_names, format);
    if (value < 0) {
        pool_error_set(err, POOL_ERROR_CONFIG_UNSUPPORTED, "unknown volume encryption format type %s", format);
        return NULL;
    }
    encryption = g_new0(struct volume_encryption, 1);
    encryption->format = (enum encryption_format)value;
    encryption->engine = xml_attribute(node, NULL, "engine");
    if (encryption->engine && strcmp(encryption->engine, "qemu") != 0 && strcmp(encryption->engine, "librbd") != 0)
        ok = xml_invalid_attribute(err, node, "engine", encryption->engine, NULL);
    for (const xmlNode *item = xml_find(node, "secret"); ok && item; item = xml_next(item))
        ok = parse_secret(item, encryption, err);
    if (ok && encryption->format >= ENCRYPTION_LUKS)
        ok = parse_cipher(node, encryption, err);
    if (ok)
        return encryption;
    volume_encryption_free(encryption);
    return NULL;
}

/* " name='value'", or nothing: NULL. Owned. */
static char *optional(const char *name, const char *value)
{
    return value ? g_markup_printf_escaped(" %s='%s'", name, value) : g_strdup("");
}

static void append_cipher(const struct volume_encryption *encryption, struct xml_writer *writer)
{
    g_autofree char *mode = optional("mode", encryption->cipher_mode);
    g_autofree char *hash = optional("hash", encryption->cipher_hash);
    g_autofree char *ivgen_hash = optional("hash", encryption->ivgen_hash);

    if (!encryption->cipher_name)
        return;
    xml_line(writer, "<cipher name='%s' size='%u'", encryption->cipher_name, encryption->cipher_size);
    g_string_truncate(writer->text, writer->text->len - 1);
    g_string_append_printf(writer->text, "%s%s/>\n", mode, hash);
    if (!encryption->ivgen_name)
        return;
    xml_line(writer, "<ivgen name='%s'", encryption->ivgen_name);
    g_string_truncate(writer->text, writer->text->len - 1);
    g_string_append_printf(writer->text, "%s/>\n", ivgen_hash);
}

void encryption_append(const struct volume_encryption *encryption, struct xml_writer *writer)
{
    if (encryption->engine)
        xml_begin(writer, "<encryption format='%s' engine='%s'>", format_names[encryption->format], encryption->engine);
    else
        xml_begin(writer, "<encryption format='%s'>", format_names[encryption->format]);
    for (size_t i = 0; i < encryption->secret_count; i++) {
        g_autofree char *attributes = xml_secret_attributes(&encryption->secrets[i]);

        xml_line(writer, "<secret type='passphrase'");
        g_string_truncate(writer->text, writer->text->len - 1);
        g_string_append_printf(writer->text, "%s/>\n", attributes);
    }
    append_cipher(encryption, writer);
    xml_end(writer, "encryption");
}
