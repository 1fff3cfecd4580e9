/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of images in their short form. */
#include <string.h>

#include "base/error.h"
#include "block/image.h"
#include "driver/format/qcow2/create.h"
#include "schema/json.h"

/* In the order in which tools announce them. */
const struct image_option qcow2_image_options[] = {
    {"encryption", IMAGE_OPTION_BOOL,
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)", NULL},
    {"encrypt.format", IMAGE_OPTION_STRING, "Encrypt the image, format choices: 'aes', 'luks'", NULL},
    {"encrypt.key-secret", IMAGE_OPTION_STRING, "ID of secret providing qcow AES key or LUKS passphrase",
     "encrypt.key-secret"},
    {"encrypt.cipher-alg", IMAGE_OPTION_STRING, "Name of encryption cipher algorithm", "encrypt.cipher-alg"},
    {"encrypt.cipher-mode", IMAGE_OPTION_STRING, "Name of encryption cipher mode", "encrypt.cipher-mode"},
    {"encrypt.ivgen-alg", IMAGE_OPTION_STRING, "Name of IV generator algorithm", "encrypt.ivgen-alg"},
    {"encrypt.ivgen-hash-alg", IMAGE_OPTION_STRING, "Name of IV generator hash algorithm", "encrypt.ivgen-hash-alg"},
    {"encrypt.hash-alg", IMAGE_OPTION_STRING, "Name of encryption hash algorithm", "encrypt.hash-alg"},
    {"encrypt.iter-time", IMAGE_OPTION_NUMBER, "Time to spend in PBKDF in milliseconds", "encrypt.iter-time",
     .amendable = true},
    {"encrypt.state", IMAGE_OPTION_STRING, "Select new state of affected keyslots (active/inactive)", "encrypt.state",
     .amendable = true, .amend_only = true},
    {"encrypt.new-secret", IMAGE_OPTION_STRING, "New secret to set in the matching keyslots. Empty string to erase",
     "encrypt.new-secret", .amendable = true, .amend_only = true},
    {"encrypt.old-secret", IMAGE_OPTION_STRING, "Select all keyslots that match this password", "encrypt.old-secret",
     .amendable = true, .amend_only = true},
    {"encrypt.keyslot", IMAGE_OPTION_NUMBER, "Select a single keyslot to modify explicitly", "encrypt.keyslot",
     .amendable = true, .amend_only = true},
    {"cluster_size", IMAGE_OPTION_SIZE, "qcow2 cluster size", "cluster-size", .shown_default = "65536"},
    {"extended_l2", IMAGE_OPTION_BOOL, "Extended L2 tables", "extended-l2", .shown_default = "off"},
    {"preallocation", IMAGE_OPTION_STRING, "Preallocation mode (allowed values: off, metadata, falloc, full)",
     "preallocation"},
    {"compression_type", IMAGE_OPTION_STRING, "Compression method used for image cluster compression",
     "compression-type", .shown_default = "zlib"},
    {"size", IMAGE_OPTION_SIZE, "Virtual disk size", "size", .amendable = true},
    {"compat", IMAGE_OPTION_STRING, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL, .amendable = true},
    {"backing_file", IMAGE_OPTION_STRING, "File name of a base image", "backing-file", .amendable = true},
    {"backing_fmt", IMAGE_OPTION_STRING, "Image format of the base image", "backing-fmt", .amendable = true},
    {"data_file", IMAGE_OPTION_STRING, "File name of an external data file", NULL, .amendable = true},
    {"data_file_raw", IMAGE_OPTION_BOOL, "The external data file must stay valid as a raw image", "data-file-raw",
     .amendable = true},
    {"lazy_refcounts", IMAGE_OPTION_BOOL, "Postpone refcount updates", "lazy-refcounts", .amendable = true,
     .shown_default = "off"},
    {"refcount_bits", IMAGE_OPTION_NUMBER, "Width of a reference count entry in bits", "refcount-bits",
     .amendable = true, .shown_default = "16"},
    {NULL},
};

static bool set_encryption_format(struct json *object, const char *format, struct error **err)
{
    struct json *encrypt = json_take(object, "encrypt");
    bool taken;

    if (!encrypt)
        encrypt = json_object();
    taken = json_get(encrypt, "format");
    if (!taken)
        json_set(encrypt, "format", json_string(format));
    json_set(object, "encrypt", encrypt);
    return !taken || error_set(err, "'encrypt.format' and its alias 'encryption' can't be used at the same time");
}

/* The old name of a value, or the value itself: what it may be, the schema knows. */
static const char *value_of(const char *const (*names)[2], const char *value)
{
    for (; (*names)[0]; names++) {
        if (!strcmp((*names)[0], value))
            return (*names)[1];
    }
    return value;
}

bool qcow2_translate(struct json *object, const char *name, const char *value, struct error **err)
{
    static const char *const versions[][2] = {{"0.10", "v2"}, {"1.1", "v3"}, {NULL}};
    static const char *const formats[][2] = {{"aes", "qcow"}, {NULL}};

    if (!strcmp(name, "compat")) {
        json_set(object, "version", json_string(value_of(versions, value)));
        return true;
    }
    if (!strcmp(name, "data_file")) {
        struct json *file = json_object();

        json_set(file, "driver", json_string("file"));
        json_set(file, "filename", json_string(value));
        json_set(object, "data-file", file);
        return true;
    }
    if (!strcmp(name, "encrypt.format"))
        return set_encryption_format(object, value_of(formats, value), err);
    if (!strcmp(name, "encryption")) {
        if (!strcmp(value, "off"))
            return true;
        if (strcmp(value, "on"))
            return error_set(err, "Parameter 'encryption' expects 'on' or 'off'");
        return set_encryption_format(object, "qcow", err);
    }
    return error_set(err, "Invalid parameter '%s'", name);
}
