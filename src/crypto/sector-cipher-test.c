/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Published examples of each cipher, a block each: those of its standard, or of who submitted it to one. */
#include "crypto/sector-cipher.h"

#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "crypto/algorithm.h"

enum { KEY_BYTES_MAX = 64, BLOCK_BYTES_MAX = 16 };

struct example {
    enum q_crypto_cipher_algorithm cipher;
    const char *key;
    const char *plain;
    const char *coded;
};

static const struct example examples[] = {
    {Q_CRYPTO_CIPHER_ALGORITHM_AES_128, "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff",
     "69c4e0d86a7b0430d8cdb78070b4c55a"},
    {Q_CRYPTO_CIPHER_ALGORITHM_AES_192, "000102030405060708090a0b0c0d0e0f1011121314151617",
     "00112233445566778899aabbccddeeff", "dda97ca4864cdfe06eaf70a0ec0d7191"},
    {Q_CRYPTO_CIPHER_ALGORITHM_AES_256, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089"},
    {Q_CRYPTO_CIPHER_ALGORITHM_DES, "133457799bbcdff1", "0123456789abcdef", "85e813540f0ab405"},
    {Q_CRYPTO_CIPHER_ALGORITHM_3DES, "0123456789abcdef23456789abcdef01456789abcdef0123", "5468652071756663",
     "a826fd8ce53b855f"},
    {Q_CRYPTO_CIPHER_ALGORITHM_CAST5_128, "0123456712345678234567893456789a", "0123456789abcdef", "238b4fe5847e44b2"},
    {Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_128, "00000000000000000000000000000000", "80000000000000000000000000000000",
     "a3b35de7c358ddd82644678c64b8bcbb"},
    {Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_192, "800000000000000000000000000000000000000000000000",
     "00000000000000000000000000000000", "9e274ead9b737bb21efcfca548602689"},
    {Q_CRYPTO_CIPHER_ALGORITHM_SERPENT_256, "8000000000000000000000000000000000000000000000000000000000000000",
     "00000000000000000000000000000000", "a223aa1288463c0e2be38ebd825616c0"},
    {Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_128, "00000000000000000000000000000000", "00000000000000000000000000000000",
     "9f589f5cf6122c32b6bfec2f2ae8c35a"},
#ifdef ASHLAR_NETTLE
    {Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_192, "0123456789abcdeffedcba98765432100011223344556677",
     "00000000000000000000000000000000", "cfd1d2e5a9be9cdf501f13b892bd2248"},
#endif
    {Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_256, "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff",
     "00000000000000000000000000000000", "37527be0052334b89f0cfccae87cfa20"},
    {Q_CRYPTO_CIPHER_ALGORITHM_SM4, "0123456789abcdeffedcba9876543210", "0123456789abcdeffedcba9876543210",
     "681edf34d206965e86b3e94f536e4246"},
};

static void from_hex(const char *hex, uint8_t *to, size_t size)
{
    g_assert_cmpuint(strlen(hex), ==, 2 * size);
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(g_ascii_xdigit_value(hex[2 * i]) << 4 | g_ascii_xdigit_value(hex[2 * i + 1]));
}

static void try_example(const struct example *example)
{
    const struct cipher_algorithm *algorithm = cipher_algorithm(example->cipher);
    uint8_t key[KEY_BYTES_MAX], plain[BLOCK_BYTES_MAX], coded[BLOCK_BYTES_MAX], found[BLOCK_BYTES_MAX];
    size_t size = algorithm->block_bytes;
    AUTO(error) err = NULL;

    from_hex(example->key, key, algorithm->key_bytes);
    from_hex(example->plain, plain, size);
    from_hex(example->coded, coded, size);
    struct sector_cipher *cipher =
        sector_cipher_new(example->cipher, Q_CRYPTO_CIPHER_MODE_ECB, key, algorithm->key_bytes, &err);
    if (!cipher)
        g_error("%s", error_message(err));
    sector_cipher_encrypt(cipher, NULL, plain, found, size);
    g_assert_cmpmem(found, size, coded, size);
    sector_cipher_decrypt(cipher, NULL, found, found, size);
    g_assert_cmpmem(found, size, plain, size);
    sector_cipher_free(cipher);
}

static void test_examples(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(examples); i++) {
        g_test_message("%s", q_crypto_cipher_algorithm_name(examples[i].cipher));
        try_example(&examples[i]);
    }
}

static void test_weak_key(void)
{
    static const uint8_t weak[8] = {0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01};
    AUTO(error) err = NULL;

    g_assert_null(sector_cipher_new(Q_CRYPTO_CIPHER_ALGORITHM_DES, Q_CRYPTO_CIPHER_MODE_CBC, weak, sizeof(weak), &err));
    g_assert_cmpstr(error_message(err), ==, "Unable to initialize cipher 'des': Weak encryption key");
}

/* Where the module is not, the rest works. */
static void test_without_the_module(void)
{
    AUTO(error) err = NULL;

    g_assert_true(g_setenv("ASHLAR_MODULE_DIR", "/nowhere", true));
    g_assert_false(sector_cipher_check(Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_192, &err));
    g_assert_cmpstr(error_message(err), ==,
                    "Algorithm 'twofish-192' not supported: Module 'ashlar-cipher-nettle.so' is not there; it needs "
                    "libnettle8");
    g_assert_true(sector_cipher_check(Q_CRYPTO_CIPHER_ALGORITHM_TWOFISH_256, NULL));
    g_unsetenv("ASHLAR_MODULE_DIR");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sector-cipher/examples", test_examples);
    g_test_add_func("/sector-cipher/weak-key", test_weak_key);
    g_test_add_func("/sector-cipher/without-the-module", test_without_the_module);
    return g_test_run();
}
