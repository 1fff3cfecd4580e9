/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Digests of what each scheme makes of the same three sectors. They were computed with other implementations: the block
 * ciphers of OpenSSL and Nettle, and modes and initialization vectors written from their definitions.
 */
#include "crypto/block-crypt.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/io-vector.h"
#include "loop/loop.h"

enum { DATA_BYTES = 3 * BLOCK_CRYPT_SECTOR };

/* Where the low half of a sector's number is not the whole. */
#define DATA_OFFSET (UINT64_C(0x100000003) * BLOCK_CRYPT_SECTOR)

struct known_answer {
    struct block_crypt_scheme scheme;
    const char *sha256;
};

#define ANSWER(cipher_, mode_, ivgen_, hash, digest)                                                                   \
    {.scheme = {.cipher = Q_CRYPTO_CIPHER_ALGORITHM_##cipher_,                                                         \
                .mode = Q_CRYPTO_CIPHER_MODE_##mode_,                                                                  \
                .ivgen = Q_CRYPTO_IV_GEN_ALGORITHM_##ivgen_,                                                           \
                .ivgen_hash = Q_CRYPTO_HASH_ALGORITHM_##hash},                                                         \
     .sha256 = digest},

/* clang-format off */
static const struct known_answer known_answers[] = {
    ANSWER(AES_128, CBC, PLAIN, SHA256, "a2874930dcb220fa4af28303020a8260b0245d319d530addcad28cabd277aaca")
    ANSWER(AES_128, CBC, PLAIN64, SHA256, "0f11de0fd8de8d22b3e6b2aea18beeddfad5238dd971b1a8576a2f40bc5a4252")
    ANSWER(AES_128, CBC, ESSIV, SHA256, "7a58f55695adf40112c5116d99c84b5880a2ca73c05f9160641e49460e3e79a1")
    ANSWER(AES_128, CBC, ESSIV, MD5, "986671731e7b6a915ef1219d4786a66de5abc382a91ef0bfb804b169ace969ff")
    ANSWER(AES_128, XTS, PLAIN, SHA256, "e1933d0f72571729834d5fef405356c9b08a2b58e0ec3193bb508478ccc0cbaf")
    ANSWER(AES_128, XTS, PLAIN64, SHA256, "6030aa326f5579b53a1277e7ca5c748ba78ec1af5a77ce379990bac31115573a")
    ANSWER(AES_128, XTS, ESSIV, SHA256, "a7adf9bb6d4ffeb9739984e1df521e5731bc13f9a3464bf3b91661c0a393e770")
    ANSWER(AES_128, XTS, ESSIV, MD5, "c28259349d87cc32ed775a42bcd767153d0d8719f527feb2f7982ab17c0a1c13")
    ANSWER(AES_128, CTR, PLAIN, SHA256, "f09b271d20dd7192889fe70c2848e17db6241fb28f2213dce3da97d9b32614d0")
    ANSWER(AES_128, CTR, PLAIN64, SHA256, "90c9a70602eea127eb4b159c209cd0cf9e633e9029ae42232303cdffe77f4aae")
    ANSWER(AES_128, CTR, ESSIV, SHA256, "d548e48f3c87db71757f7394754036290be9c412af559e54e847082b8f961ccc")
    ANSWER(AES_128, CTR, ESSIV, MD5, "cf313f3075731a29756a11207419f946739b2e410b3149c57933625369b190f1")
    ANSWER(AES_128, ECB, PLAIN64, SHA256, "92ce3ded033c3ea4cebab15cf6f53d12d2e49a97e278e15a3f03875bb5d545ac")
    ANSWER(AES_192, CBC, PLAIN, SHA256, "21f2f2ee77597aba2661ced89bf2d9b8059d4e7dab4741677413aea2d2e17c81")
    ANSWER(AES_192, CBC, PLAIN64, SHA256, "ef42277e76ad12df1d836b51929468213c2ff25a755886be15bb95b2d7fe83f5")
    ANSWER(AES_192, CBC, ESSIV, SHA256, "54bffc49b8e931d2bb388c9d63d3a39648ac7d9634023ec1b016928e3b736e16")
    ANSWER(AES_192, CBC, ESSIV, MD5, "2c1c96e8d20d3231a5fe828caa0396c19b6a96ee1ba8540ca949f081d7f35a99")
    ANSWER(AES_192, XTS, PLAIN, SHA256, "01f36721747878716bfabda057989454479b8a00338df53e66275a99d1320722")
    ANSWER(AES_192, XTS, PLAIN64, SHA256, "5b34ca56b94eca7bcbf374195833c3232186a07913007af81c704e0a4d4f7e35")
    ANSWER(AES_192, XTS, ESSIV, SHA256, "979dc5d1ea5932b0f60093ec957c199b93fcdef5243fa0e8eb07fd138758e27a")
    ANSWER(AES_192, XTS, ESSIV, MD5, "b71b9420c86e423f5717e3aef32581ca003de955441aa17b0560ea2738c8c81a")
    ANSWER(AES_192, CTR, PLAIN, SHA256, "8e666d53b2a13ffec15f57c21a0599820a8045144835f8ad94bc1bea4f29016f")
    ANSWER(AES_192, CTR, PLAIN64, SHA256, "4059f1bc17b37168b1544fb438363efdbdd5434f9dfbcf185a4e210faace3173")
    ANSWER(AES_192, CTR, ESSIV, SHA256, "c4e9ff725a9c3986ebe8c88420be936298ab67d184ca8f086514fe0e5bbf1842")
    ANSWER(AES_192, CTR, ESSIV, MD5, "351cc8e4bc181452aab860800253a1870a9c1f4f8fff2160ba9d82ee340c4181")
    ANSWER(AES_192, ECB, PLAIN64, SHA256, "7c1fbcf2295d769b822b0fb7865774941464f0270a81e9b721812be52e737ecb")
    ANSWER(AES_256, CBC, PLAIN, SHA256, "c5c74778f5f0484360d70a870d4a0e9f5bc7baf4e2b10d9348dac7e6ec89056b")
    ANSWER(AES_256, CBC, PLAIN64, SHA256, "4c39650eede8ac54106680f637525fe8f5b8a5f754ad8cee8158e149c8ec36f3")
    ANSWER(AES_256, CBC, ESSIV, SHA256, "7610fc72cbfdba1c75da36561dee768c89fd05885f7d584d12c38705bcf58779")
    ANSWER(AES_256, CBC, ESSIV, MD5, "6f5110e3dd728abad99b7ff6e6d529c84d551683db14e2f818e621be9c5800db")
    ANSWER(AES_256, XTS, PLAIN, SHA256, "1011ece1ce834b55be0d9ab994974f3c2a331c58966414f2185fa8225221deb3")
    ANSWER(AES_256, XTS, PLAIN64, SHA256, "a720d2100323fc2e839bdf6af06f51b7d47c12f03e569e9d43e0701ab50b91e9")
    ANSWER(AES_256, XTS, ESSIV, SHA256, "00fac543af3ad1c2bdd3069ecfc4bba8b8fa03326bdc6f5733e16a0f2b926bbb")
    ANSWER(AES_256, XTS, ESSIV, MD5, "a7cb841067d9c4da46bc799b4d3b7ef0ee3ea93741ed9c22e091ffd9b5c8ea43")
    ANSWER(AES_256, CTR, PLAIN, SHA256, "2ef184a76f8df94c391f501c030131f303ed6fdc32854527df3442c91285af42")
    ANSWER(AES_256, CTR, PLAIN64, SHA256, "96dcd0979f6c0bddde4d931c9a888f6b6edbe04495e7a48144658511d3bcec52")
    ANSWER(AES_256, CTR, ESSIV, SHA256, "bac999ecd96512454adcfaed5c1bf429ed04ac3128d95928e71de59c9ce3bb58")
    ANSWER(AES_256, CTR, ESSIV, MD5, "06cddc7fdaa5532b6ee1305a2c01f077dabdc5ee635c2ccc677bb4f1f6c8418a")
    ANSWER(AES_256, ECB, PLAIN64, SHA256, "5320f6ab39005809dfc046d08e9750f7b415eecaf5ce96bd9c480fde0197d6c1")
    ANSWER(3DES, CBC, PLAIN, SHA256, "898c0bfd37b8ce769cca0b133997e4a1eaa3fbf324da2ed253124f1b4ef3ae8c")
    ANSWER(3DES, CBC, PLAIN64, SHA256, "112b4a4237a163d8da1f401f4cca75369cde56767aeb01f64c3c3bd3baa18503")
    ANSWER(3DES, CTR, PLAIN, SHA256, "f17139207d111767767aa7836718eb30a9cc031ac2def6022c09058c28aeaea8")
    ANSWER(3DES, CTR, PLAIN64, SHA256, "fea16c129532b8ac141f114f45e37d2cc35881cbab78ed6084884506686267ee")
    ANSWER(3DES, ECB, PLAIN64, SHA256, "2a910b2e1c7e29c5c08dffdf8a037c5d4a958fb4debfdc8021ad3723ced4d317")
    ANSWER(CAST5_128, CBC, PLAIN, SHA256, "a0b8cb6564cc7c3f828cfcccb18c6174cf6fb139060c2d0bf11d9273da92d13c")
    ANSWER(CAST5_128, CBC, PLAIN64, SHA256, "7b4c1686d0441b7f2122beac192dd81922bc2867afb9111effba99785377ef3c")
    ANSWER(CAST5_128, CBC, ESSIV, MD5, "3cf57900ae802a2283d9aea09c5849ee379a9e88f70d6f8adb72d30fe4b5ba4f")
    ANSWER(CAST5_128, CTR, PLAIN, SHA256, "a7b4cb2639f01d91adac7577e50cb4d66b0f796f0080906d9fc1dc22afb7d982")
    ANSWER(CAST5_128, CTR, PLAIN64, SHA256, "f4d67306bf3be68110e545a794d72f89eb8567c8e4dcd76faa103baaf98b0d16")
    ANSWER(CAST5_128, CTR, ESSIV, MD5, "19641e54bf1ecf138d1b73e4a7117acc717d08cb0b681969aafe233f2181f68e")
    ANSWER(CAST5_128, ECB, PLAIN64, SHA256, "766bf3c77ebd3134caaefa303d230a7b6a99f7ff61804f9e7d05fdfc78015719")
    ANSWER(SM4, CBC, PLAIN, SHA256, "c56b150f2e8777c5c56457ab7e736f176c904ed797c1889aa52f64faacd4d211")
    ANSWER(SM4, CBC, PLAIN64, SHA256, "7a557884d2394c9bdd7c3693260d94abb5817b4dc3ca1a1e0a58ed7221d1360a")
    ANSWER(SM4, CBC, ESSIV, MD5, "9a117ba1e978847923595827431c60b5c599ee8259ad5ec6ed760e613575e80a")
    ANSWER(SM4, XTS, PLAIN, SHA256, "d7c2a9565a5aeff6f838d081e5a90c6d57b1c91a9bb589252548a8197332d0f6")
    ANSWER(SM4, XTS, PLAIN64, SHA256, "1fd9c06eed3a8e6c5c310d8585d78079072f0e755a71f8f07a771024acf260e1")
    ANSWER(SM4, XTS, ESSIV, MD5, "c7838ee63d9c1c4ba8075187a82d44f23bf27f96c7057cb99263b6b0784b126f")
    ANSWER(SM4, CTR, PLAIN, SHA256, "62dcb3ea7a2ca873b6048b7e8f52283e6ab82094f978a1c1493dd78af4046a75")
    ANSWER(SM4, CTR, PLAIN64, SHA256, "8dd190a06cb7082401b4ac505ea1535f05e5809ccd4d524cf161b91dd53797d3")
    ANSWER(SM4, CTR, ESSIV, MD5, "773c43645b266a75c9c056cca904ba5e5f148e5f0565d0002b162b729333aa22")
    ANSWER(SM4, ECB, PLAIN64, SHA256, "ff9850762aab81524d2d3ea57d40285a9a507694ea983b0f4a6e628d07906851")
    ANSWER(DES, CBC, PLAIN, SHA256, "08aa4d65cc6af9ba1d7cb8e726031eaea2bcbfaf5dcbcca69038d1e92073b9a9")
    ANSWER(DES, CBC, PLAIN64, SHA256, "cc58857f59a1d7d61a0e5c247b616c8b07a80797341e8b5afd03f0f43a68792a")
    ANSWER(DES, CTR, PLAIN, SHA256, "d66f8131b25d04accdcde9d8afbdd633d4bd138241ca25195e09a4c62087f7bd")
    ANSWER(DES, CTR, PLAIN64, SHA256, "f3985a52ff0c80f22200b4df7bb138ea428bf957d685e37ba6a69fde99fb96ec")
    ANSWER(DES, ECB, PLAIN64, SHA256, "3f2dadb7c281ef6ca29133d06ec58f6b08ba21ba15878e2200ee12df0c2b25a2")
    ANSWER(SERPENT_128, CBC, PLAIN, SHA256, "dca2538738577275e3688fb8dacf4448983d30fbd2e312b5c2eb2e81d5134216")
    ANSWER(SERPENT_128, CBC, PLAIN64, SHA256, "7fbe1aa9fca1b99b49d29e729bd79d04f93bba3113da538fd0917de8ae318c3f")
    ANSWER(SERPENT_128, CBC, ESSIV, SHA256, "6421ef52005fda559fa45caba6505fcbc9a1491909fb1556d26a9d80e83f8fe7")
    ANSWER(SERPENT_128, CBC, ESSIV, MD5, "91151d81971d376448432d07b2729390ecec5df367925d7e00f3f95b37a708bc")
    ANSWER(SERPENT_128, XTS, PLAIN, SHA256, "6af022253d4ccf6601d90335391a22143f216012fc4f28ecb7503bae7f946562")
    ANSWER(SERPENT_128, XTS, PLAIN64, SHA256, "4f2b5c559093af57ad55f1ae9aba9933cc90965e255271f24ae92be33d4b2265")
    ANSWER(SERPENT_128, XTS, ESSIV, SHA256, "48f189b23f60794df732dd9d57968297b34eb2cc48447bf6a924f2c50ef482be")
    ANSWER(SERPENT_128, XTS, ESSIV, MD5, "aefaa6ea2fdf44ded9630698659302768023f27ddd97143fd99c2742c6555100")
    ANSWER(SERPENT_128, CTR, PLAIN, SHA256, "c81d5e6b96e077f54d6f2653ccfdf581658f2b6505ad4b4fc67ec4c406c3f1ce")
    ANSWER(SERPENT_128, CTR, PLAIN64, SHA256, "a508fd073755facc9189ed5b85d0d234689a2a04734fb5666202063d368fef3b")
    ANSWER(SERPENT_128, CTR, ESSIV, SHA256, "a6d11d7b1ec5c6a25490c1b05f558a676a35c75fe15f63dbcd9abd6f9bbc26f6")
    ANSWER(SERPENT_128, CTR, ESSIV, MD5, "a4f795424c9ed79856229417766136c110c5e190179610c61bdd2b76e0cd6156")
    ANSWER(SERPENT_128, ECB, PLAIN64, SHA256, "d3fdba89382b3b71fd9e69cdbab3f755e1a31a5a9bdcb3bc02df7e43f37893d3")
    ANSWER(SERPENT_192, CBC, PLAIN, SHA256, "09926cd30a234d9b1707c2c0d61cb21c69f40878393c3d9f97e332e74c892f4f")
    ANSWER(SERPENT_192, CBC, PLAIN64, SHA256, "ac082670550296da27ffcb1a2a8ab6080b602e87ea55923b7f727f49fe4875d9")
    ANSWER(SERPENT_192, CBC, ESSIV, SHA256, "cda8036c887d2600b699fddd24772cf072a7e4db20e4cbf5385275450573c5c7")
    ANSWER(SERPENT_192, CBC, ESSIV, MD5, "b237b815bf328fde64308dd276902e5b1852b72274d4e01d1b84acba38dd63a7")
    ANSWER(SERPENT_192, XTS, PLAIN, SHA256, "8b88358a2c9f1eb654c81734a991f5cf650c182c083ef787615289cf44f013c6")
    ANSWER(SERPENT_192, XTS, PLAIN64, SHA256, "d4009733f08274aba2255279ebcc78a8cb0c8fa3b4180bb5288d5ef59c7a8964")
    ANSWER(SERPENT_192, XTS, ESSIV, SHA256, "f166519fc08d4b87d8923058b12d0c7abae87a942cc23c229618473f3a3304a8")
    ANSWER(SERPENT_192, XTS, ESSIV, MD5, "8c001cfae1c4ce1760c0e37bb7a458c4107f9f647204ee70e8c3604fb200812e")
    ANSWER(SERPENT_192, CTR, PLAIN, SHA256, "0ff800fbb38dba13fcb50f3b9fa308aa3b4d42bee0ff01429392c05c68cc1d29")
    ANSWER(SERPENT_192, CTR, PLAIN64, SHA256, "50fbce6d03c9f27b968ea5d1fd094692d38862dd928fbee1f601415d2f9794df")
    ANSWER(SERPENT_192, CTR, ESSIV, SHA256, "4b740609cec4e20107049e68cde53c603b5c8372f37419f38b2adacda0014bbf")
    ANSWER(SERPENT_192, CTR, ESSIV, MD5, "df6206ec27104052a9a7814b9adc62ef899bb47a11ca822e681789fb4410e401")
    ANSWER(SERPENT_192, ECB, PLAIN64, SHA256, "355fd70ef9ae89a1bab579e30b58aa0efe9611dec0447ffc480bdbc3f34a764e")
    ANSWER(SERPENT_256, CBC, PLAIN, SHA256, "76d7ab509abaa089f4d7b8fbb28369d6414c9d196d27376ff5ce3b3428cdf399")
    ANSWER(SERPENT_256, CBC, PLAIN64, SHA256, "1f6e85b5e7bfc8ee7b442539c1c6c9a71521523fdc12ae3647646c79d8ff3dde")
    ANSWER(SERPENT_256, CBC, ESSIV, SHA256, "ea4c68e1740e363f7037108cc486656e95f15a35c86ffade5a257c91ed6691a3")
    ANSWER(SERPENT_256, CBC, ESSIV, MD5, "e4741a7a8367f82cdd1f0129a7b64cd13046a9bb6a04e678708c5f1c3d571572")
    ANSWER(SERPENT_256, XTS, PLAIN, SHA256, "75aaf8eab1854fa88e68a85b16b96574e1a2244ed505418bb7cf6562afcd0f9d")
    ANSWER(SERPENT_256, XTS, PLAIN64, SHA256, "ada7fd6d195df6e7defdbb5d9a91246d8f66855bafa8e7937543b942f3e1aa17")
    ANSWER(SERPENT_256, XTS, ESSIV, SHA256, "cd483829971a97efdf1bc520e4b2fdccfc80374d785b7cfd6469f1c5786ec8fc")
    ANSWER(SERPENT_256, XTS, ESSIV, MD5, "39726c2aeb6fec2308cbf661d72ebc9c399f10a454a82a55dc8fc6cd7d98bd85")
    ANSWER(SERPENT_256, CTR, PLAIN, SHA256, "b5e09ef365dae4ab1bdfffa872f088a817e87a4ca12b385c797717bb83c0a4fa")
    ANSWER(SERPENT_256, CTR, PLAIN64, SHA256, "92a08cd38633cd68a5246bf18ffad43b17ab55398d6f2748ef909d6be0467dc9")
    ANSWER(SERPENT_256, CTR, ESSIV, SHA256, "d6ed7b667ff7e91ce540ed22600abe21ef03a121dfcd43ae22051bc5be5aaebc")
    ANSWER(SERPENT_256, CTR, ESSIV, MD5, "53edffab5355220a5d90c0573ccfabf6acc0f88e993a2e88b56fd220f64b7c57")
    ANSWER(SERPENT_256, ECB, PLAIN64, SHA256, "68fc384088438c771e8ff60894dd607c8381c9c5b8a5b2c2cafbaea2642c3a5b")
    ANSWER(TWOFISH_128, CBC, PLAIN, SHA256, "e80ddc28196a9f3fa4ed66e9f0ef85b7bac94f9140ee1d177c42c133217150e0")
    ANSWER(TWOFISH_128, CBC, PLAIN64, SHA256, "6ceff9f19b0d85cc9e2bec5afb53bb6df3551a326def5e19388fab4c097a5594")
    ANSWER(TWOFISH_128, CBC, ESSIV, SHA256, "962fb855c6b01b23b637bf5a7f2444f12aec19655966d6aa566d06256f39a85c")
    ANSWER(TWOFISH_128, CBC, ESSIV, MD5, "c7695d984deaa925ab0458f8cbd552ecd1c442565f03c8151394552c41d6f276")
    ANSWER(TWOFISH_128, XTS, PLAIN, SHA256, "1e94bc7d1ff01a8daebb49fb72fa91d5b365b11eaf322ec7faab850dbed1c51c")
    ANSWER(TWOFISH_128, XTS, PLAIN64, SHA256, "290e478ebb7aff4ce89c079442fa8f0c20799e6a0ce86248fb0ce33749e08e1e")
    ANSWER(TWOFISH_128, XTS, ESSIV, SHA256, "247a73ff903ccd8d222f3deefd21c0112a8a4502b6ba292abcf42836d198e45a")
    ANSWER(TWOFISH_128, XTS, ESSIV, MD5, "b70dd0ef765fb1bf38a73d91782245d9f0cd1230fd0909af0fa64de02b63f9c6")
    ANSWER(TWOFISH_128, CTR, PLAIN, SHA256, "df257b1fed5da1045a2dd9f0e977619f8e2593ef91d9563ba4d6f6930266b4a8")
    ANSWER(TWOFISH_128, CTR, PLAIN64, SHA256, "4f3b3d6ea41d2e44c472a52d81304f71b204377ff008b2a0f3b1e7225b4a51d8")
    ANSWER(TWOFISH_128, CTR, ESSIV, SHA256, "386580a3fac8f9558923f800ad7ab66326ed4adbe1f1056a4c633fe3ea640a28")
    ANSWER(TWOFISH_128, CTR, ESSIV, MD5, "85bd85a8333af9f1eacd55140537a6975770c2a352017b876e4f417c42c0c9fd")
    ANSWER(TWOFISH_128, ECB, PLAIN64, SHA256, "2f69841a159c273e825349cb28834a7a8450238bf9b999754a9e73bc44d96d53")
#ifdef ASHLAR_NETTLE
    ANSWER(TWOFISH_192, CBC, PLAIN, SHA256, "28111533df700ccbbfa5ff3b8b6e0c0e800330b21175c49b95fdb58f03f255ac")
    ANSWER(TWOFISH_192, CBC, PLAIN64, SHA256, "47b659111fff429af200da3436230146e8534a6d1133f72029393ae6aae1dedc")
    ANSWER(TWOFISH_192, CBC, ESSIV, SHA256, "4547d9d282349088f3658999d97be796f5cc8cac14e2e8ac3d9fba3c92b4ac49")
    ANSWER(TWOFISH_192, CBC, ESSIV, MD5, "d750aa6ec2de3e1bbd92baf390d68547350b5348dc8dbe25c9a6c0f8e0dddc93")
    ANSWER(TWOFISH_192, XTS, PLAIN, SHA256, "a11dd7ad187f4d03c5d36df24a37d21a057bf6b4ab10b153f906e7c3cddd5e80")
    ANSWER(TWOFISH_192, XTS, PLAIN64, SHA256, "ca25db24db84c9577a9400cc422f4f446a8cb4885b1d88b52bc43d561dd401d4")
    ANSWER(TWOFISH_192, XTS, ESSIV, SHA256, "cf1b1028edc919b370eae2ec93d04c4c3fb09786e90fde6bc947d505e71c0254")
    ANSWER(TWOFISH_192, XTS, ESSIV, MD5, "befd249f4efa08a22c941706763add282632be67ebe26104d084c4f866c38102")
    ANSWER(TWOFISH_192, CTR, PLAIN, SHA256, "8339e61351d0e8a2af7f1e1d095468b0586a2d08d86041dffa11ef5d44d88753")
    ANSWER(TWOFISH_192, CTR, PLAIN64, SHA256, "136189063b36dd9a9107367a20da1089fd5044ba1c73f70418b1e0c8591c1dc2")
    ANSWER(TWOFISH_192, CTR, ESSIV, SHA256, "8be8e09316141f76a7cc2dd3c9b15971d492200ac627ed18194722094003b516")
    ANSWER(TWOFISH_192, CTR, ESSIV, MD5, "a26c4c8faf49589864d77ced80219fc3b277563e95fcad8612beeaf9204350a5")
    ANSWER(TWOFISH_192, ECB, PLAIN64, SHA256, "c9e16f94783c1cd559dfab26cfceec20b42e4f6b53dbe4dba60f4494e51dea3e")
#endif
    ANSWER(TWOFISH_256, CBC, PLAIN, SHA256, "b0aa067153d3936c0d107c212b4ef46815f52f0843fbba3d2296607462a16b56")
    ANSWER(TWOFISH_256, CBC, PLAIN64, SHA256, "3c0b01a9307a2af0dd8d67fab8916bc9d6f9094652f777504f8cdc0d8ef14ac6")
    ANSWER(TWOFISH_256, CBC, ESSIV, SHA256, "bb18f2b40a256f5d210febf7e7fa2b4801e470a88b2f025bb46a090f96322804")
    ANSWER(TWOFISH_256, CBC, ESSIV, MD5, "127f6c28a20b840fa15c9584423defab6d63c736fe6567520a689bc6141f2e5c")
    ANSWER(TWOFISH_256, XTS, PLAIN, SHA256, "8758dbc0a48a05882f1323b403dcd092eca281feec28db726b9f88ba3b524a0c")
    ANSWER(TWOFISH_256, XTS, PLAIN64, SHA256, "c56d7535f604b40c27406799f5676df2824b37b031e078a36771cf9d829f7d78")
    ANSWER(TWOFISH_256, XTS, ESSIV, SHA256, "4e1dfdf1d5a0f2d1cc891ac5d83ce8515e146a00cacb6dc14515e4b1069c61e5")
    ANSWER(TWOFISH_256, XTS, ESSIV, MD5, "bc6e705d12020e857caea225f4ab0fa97b81154771498cb1744c7a7c7827f4ed")
    ANSWER(TWOFISH_256, CTR, PLAIN, SHA256, "ec8a2fb2b120e98d112315fc9b48d3bf28345c41dce978a46978c637602971b9")
    ANSWER(TWOFISH_256, CTR, PLAIN64, SHA256, "456885a148406e909fc66bce9fa79ea5458bf3cff28082fe54728a0b807ab330")
    ANSWER(TWOFISH_256, CTR, ESSIV, SHA256, "9622990aaf2be1e5e4995f1314c317f751d83a0d532190a87ca3ee062e6691c7")
    ANSWER(TWOFISH_256, CTR, ESSIV, MD5, "3e0178949cc1a112291f0013fb21d10588aa852c3cdb72f374dbef2a4c47c8fe")
    ANSWER(TWOFISH_256, ECB, PLAIN64, SHA256, "c4926008dea755e2ae7739ea7e859b45797ba119aa313f4d07d2f055128929b9")
};
/* clang-format on */

static void fill_plain(uint8_t plain[DATA_BYTES])
{
    for (unsigned i = 0; i < DATA_BYTES; i++)
        plain[i] = (uint8_t)((i * 13) ^ (i >> 8));
}

static struct block_crypt *crypt_of(const struct block_crypt_scheme *scheme)
{
    uint8_t key[64];
    AUTO(error) err = NULL;

    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 7 + 1);
    struct block_crypt *crypt = block_crypt_new(scheme, key, &err);
    if (!crypt)
        g_error("%s", error_message(err));
    return crypt;
}

static void test_known_answers(void)
{
    uint8_t plain[DATA_BYTES];
    uint8_t bytes[DATA_BYTES];

    fill_plain(plain);
    for (unsigned i = 0; i < G_N_ELEMENTS(known_answers); i++) {
        struct block_crypt *crypt = crypt_of(&known_answers[i].scheme);

        g_test_message("row %u: %s", i, q_crypto_cipher_algorithm_name(known_answers[i].scheme.cipher));
        g_assert_cmpint(block_crypt_encrypt(crypt, DATA_OFFSET, plain, bytes, sizeof(bytes)), ==, 0);
        g_autofree char *digest = g_compute_checksum_for_data(G_CHECKSUM_SHA256, bytes, sizeof(bytes));
        g_assert_cmpstr(digest, ==, known_answers[i].sha256);
        g_assert_cmpint(block_crypt_decrypt(crypt, DATA_OFFSET, bytes, bytes, sizeof(bytes)), ==, 0);
        g_assert_cmpmem(bytes, sizeof(bytes), plain, sizeof(plain));
        block_crypt_free(crypt);
    }
}

static const struct block_crypt_scheme usual = {
    .cipher = Q_CRYPTO_CIPHER_ALGORITHM_AES_256,
    .mode = Q_CRYPTO_CIPHER_MODE_XTS,
    .ivgen = Q_CRYPTO_IV_GEN_ALGORITHM_PLAIN64,
};

static void expect_refusal(const struct block_crypt_scheme *scheme, const char *message)
{
    static const uint8_t key[64];
    AUTO(error) err = NULL;

    g_assert_null(block_crypt_new(scheme, key, &err));
    g_assert_cmpstr(error_message(err), ==, message);
}

static void test_no_such_scheme(void)
{
    struct block_crypt_scheme scheme = usual;

    scheme.cipher = Q_CRYPTO_CIPHER_ALGORITHM_CAST5_128;
    expect_refusal(&scheme,
                   "Unsupported cipher mode xts: it needs blocks of 16 bytes, and those of 'cast5-128' have 8");
    scheme = usual;
    scheme.ivgen = Q_CRYPTO_IV_GEN_ALGORITHM_ESSIV;
    scheme.ivgen_hash = Q_CRYPTO_HASH_ALGORITHM_SHA1;
    expect_refusal(&scheme, "No AES cipher with key size 20 available");
}

/* --- requests --- */

enum { REQUEST_BYTES = 512 * 1024 };

struct request {
    struct loop *loop;
    struct block_crypt *crypt;
    uint8_t *plain; /* REQUEST_BYTES */
    uint8_t *expected;
    size_t segment; /* bytes of each but the last */
    size_t skip;
    size_t size;
};

/* The memory from `memory` on in segments of `segment` bytes. */
static struct io_vector in_segments(uint8_t *memory, size_t segment, GArray *segments)
{
    for (size_t done = 0; done < REQUEST_BYTES; done += segment) {
        struct iovec part = {memory + done, MIN(segment, REQUEST_BYTES - done)};

        g_array_append_val(segments, part);
    }
    return io_vector_of((const struct iovec *)(void *)segments->data, segments->len);
}

static void CO_FN co_request(void *opaque)
{
    struct request *request = opaque;
    g_autofree uint8_t *cipher = g_malloc(REQUEST_BYTES);
    g_autofree uint8_t *back = g_malloc0(REQUEST_BYTES);
    g_autoptr(GArray) from_segments = g_array_new(FALSE, FALSE, sizeof(struct iovec));
    g_autoptr(GArray) to_segments = g_array_new(FALSE, FALSE, sizeof(struct iovec));
    struct io_vector from = in_segments(request->plain, request->segment, from_segments);
    struct io_vector to = in_segments(back, request->segment, to_segments);
    uint64_t offset = DATA_OFFSET + request->skip;
    size_t size = request->size;

    g_assert_cmpint(co_block_crypt_encrypt(request->crypt, offset, &from, request->skip, cipher, size), ==, 0);
    g_assert_cmpmem(cipher, size, request->expected + request->skip, size);
    g_assert_cmpint(co_block_crypt_decrypt(request->crypt, offset, cipher, &to, request->skip, size), ==, 0);
    g_assert_cmpmem(back + request->skip, size, request->plain + request->skip, size);
    io_vector_write(&to, request->skip, cipher, size);
    g_assert_cmpint(co_block_crypt_decrypt(request->crypt, offset, NULL, &to, request->skip, size), ==, 0);
    g_assert_cmpmem(back + request->skip, size, request->plain + request->skip, size);
}

/* Small and large ones, in one piece and in segments that end inside of sectors, many at a time. */
static void CO_FN co_all_requests(void *opaque)
{
    static const size_t segments[] = {100, 512, 700, 4096, 65536 + 100, REQUEST_BYTES};
    static const size_t sizes[] = {512, 4096, 65536, 200 * 1024, REQUEST_BYTES - 4096};
    struct request all[G_N_ELEMENTS(segments) * G_N_ELEMENTS(sizes)];
    struct co_task *tasks[G_N_ELEMENTS(all)];
    struct request *common = opaque;

    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        all[i] = *common;
        all[i].segment = segments[i % G_N_ELEMENTS(segments)];
        all[i].size = sizes[i / G_N_ELEMENTS(segments)];
        all[i].skip = i % 3 * 512;
        tasks[i] = co_task_start(common->loop, co_request, &all[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        co_task_join(tasks[i]);
}

static void test_requests(void)
{
    AUTO(error) err = NULL;
    struct loop *loop = loop_new(&(struct loop_options){0}, &err);
    g_autofree uint8_t *plain = g_malloc(REQUEST_BYTES);
    g_autofree uint8_t *expected = g_malloc(REQUEST_BYTES);
    struct block_crypt *crypt = crypt_of(&usual);

    g_assert_nonnull(loop);
    for (unsigned i = 0; i < REQUEST_BYTES; i++)
        plain[i] = (uint8_t)(i * 31 ^ (i >> 7));
    g_assert_cmpint(block_crypt_encrypt(crypt, DATA_OFFSET, plain, expected, REQUEST_BYTES), ==, 0);
    struct request common = {.loop = loop, .crypt = crypt, .plain = plain, .expected = expected};
    co_run(loop, co_all_requests, &common);
    block_crypt_free(crypt);
    loop_free(loop);
}

/* --- several threads --- */

static void *thread_main(void *opaque)
{
    const struct request *request = opaque;
    g_autofree uint8_t *bytes = g_malloc(REQUEST_BYTES);

    for (unsigned i = 0; i < 20; i++) {
        g_assert_cmpint(block_crypt_encrypt(request->crypt, DATA_OFFSET, request->plain, bytes, REQUEST_BYTES), ==, 0);
        g_assert_cmpmem(bytes, REQUEST_BYTES, request->expected, REQUEST_BYTES);
    }
    return NULL;
}

static void test_threads(void)
{
    g_autofree uint8_t *plain = g_malloc0(REQUEST_BYTES);
    g_autofree uint8_t *expected = g_malloc(REQUEST_BYTES);
    struct block_crypt *crypt = crypt_of(&usual);
    struct request request = {.crypt = crypt, .plain = plain, .expected = expected};
    GThread *threads[4];

    g_assert_cmpint(block_crypt_encrypt(crypt, DATA_OFFSET, plain, expected, REQUEST_BYTES), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("crypt", thread_main, &request);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
    block_crypt_free(crypt);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/block-crypt/known-answers", test_known_answers);
    g_test_add_func("/block-crypt/no-such-scheme", test_no_such_scheme);
    g_test_add_func("/block-crypt/requests", test_requests);
    g_test_add_func("/block-crypt/threads", test_threads);
    return g_test_run();
}
