/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cryptsetup for many volumes in one process, where starting a process is what takes long: each lies at an offset of a
 * disk, and is opened or made by libcryptsetup. For each one a line says how the device mapper decrypts its data, as
 * cryptsetup would have told it; all lines together are the table of one device, with one volume behind the other.
 *
 *   luks_opener open|format DISK PASSPHRASE < list, of lines "OFFSET BYTES DATA-BYTES CIPHER MODE KEY-BYTES HASH"
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libcryptsetup.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { SECTOR = 512, NAME = 64, KEY_BYTES_MAX = 64 };

struct volume {
    uint64_t offset;
    uint64_t bytes;
    uint64_t data_bytes; /* what of its data the table is to have */
    char cipher[NAME];
    char mode[NAME];
    size_t key_bytes;
    char hash[NAME];
};

static void check(int result, const struct volume *volume, const char *what)
{
    if (result >= 0)
        return;
    fprintf(stderr, "%s of the volume at %" PRIu64 " (%s-%s, %zu, %s): %s\n", what, volume->offset, volume->cipher,
            volume->mode, volume->key_bytes, volume->hash, strerror(-result));
    exit(1);
}

/* The volume as a device of its own, whose path is put into `path`; it goes when what is returned is closed. */
static int attach(int disk, const struct volume *volume, char path[NAME])
{
    struct loop_config config = {
        .fd = (unsigned)disk,
        .info = {.lo_offset = volume->offset, .lo_sizelimit = volume->bytes, .lo_flags = LO_FLAGS_AUTOCLEAR}};
    int control = open("/dev/loop-control", O_RDWR);
    int loop = -1;

    /* Another process may be given the same free one, and be quicker. */
    while (loop < 0) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);

        check(number < 0 ? -errno : 0, volume, "finding a loop device");
        snprintf(path, NAME, "/dev/loop%d", number);
        loop = open(path, O_RDWR);
        check(loop < 0 ? -errno : 0, volume, path);
        if (!ioctl(loop, LOOP_CONFIGURE, &config))
            break;
        check(errno == EBUSY ? 0 : -errno, volume, path);
        close(loop);
        loop = -1;
    }
    close(control);
    return loop;
}

static void format(struct crypt_device *device, const struct volume *volume, const char *passphrase)
{
    const struct crypt_pbkdf_type few = {
        .type = CRYPT_KDF_PBKDF2, .hash = volume->hash, .iterations = 1000, .flags = CRYPT_PBKDF_NO_BENCHMARK};
    struct crypt_params_luks1 params = {.hash = volume->hash};

    crypt_set_rng_type(device, CRYPT_RNG_URANDOM);
    check(crypt_set_pbkdf_type(device, &few), volume, "setting iterations");
    check(crypt_format(device, CRYPT_LUKS1, volume->cipher, volume->mode, NULL, NULL, volume->key_bytes, &params),
          volume, "formatting");
    check(crypt_keyslot_add_by_volume_key(device, 0, NULL, 0, passphrase, strlen(passphrase)), volume, "adding a key");
}

/* A volume that is there must be what the list says. */
static void load(struct crypt_device *device, const struct volume *volume)
{
    check(crypt_load(device, CRYPT_LUKS1, NULL), volume, "loading");
    if (strcmp(crypt_get_cipher(device), volume->cipher) != 0 ||
        strcmp(crypt_get_cipher_mode(device), volume->mode) != 0 ||
        (size_t)crypt_get_volume_key_size(device) != volume->key_bytes)
        check(-EINVAL, volume, crypt_get_cipher_mode(device));
}

/* Adds the volume's line; the table goes on at `start`. */
static uint64_t tell(struct crypt_device *device, const struct volume *volume, const char *disk, const char *passphrase,
                     uint64_t start)
{
    char key[KEY_BYTES_MAX];
    size_t key_bytes = sizeof(key);
    uint64_t payload = crypt_get_data_offset(device);
    uint64_t sectors = volume->data_bytes / SECTOR;

    check(crypt_volume_key_get(device, CRYPT_ANY_SLOT, key, &key_bytes, passphrase, strlen(passphrase)), volume,
          "unlocking");
    printf("%" PRIu64 " %" PRIu64 " crypt %s-%s ", start, sectors, crypt_get_cipher(device),
           crypt_get_cipher_mode(device));
    for (size_t i = 0; i < key_bytes; i++)
        printf("%02x", (unsigned char)key[i]);
    printf(" 0 %s %" PRIu64 "\n", disk, volume->offset / SECTOR + payload);
    return start + sectors;
}

int main(int argc, char **argv)
{
    struct volume volume;
    uint64_t start = 0;
    int disk = argc == 4 ? open(argv[2], O_RDWR) : -1;

    if (disk < 0) {
        fprintf(stderr, "%s open|format DISK PASSPHRASE\n", argv[0]);
        return 2;
    }
    while (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64 " %63s %63s %zu %63s", &volume.offset, &volume.bytes,
                 &volume.data_bytes, volume.cipher, volume.mode, &volume.key_bytes, volume.hash) == 7) {
        struct crypt_device *device = NULL;
        char path[NAME];
        int loop = attach(disk, &volume, path);

        check(crypt_init(&device, path), &volume, "opening");
        if (strcmp(argv[1], "format") == 0)
            format(device, &volume, argv[3]);
        else
            load(device, &volume);
        start = tell(device, &volume, argv[2], argv[3], start);
        crypt_free(device);
        close(loop);
    }
    return 0;
}
