# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every cipher, mode, vector and hash of LUKS volumes: between us and the peer, and between us and cryptsetup."""
import pathlib

import pytest
from guest import Machine, make_initramfs
from harness import need, run
from luks_matrix import Opened, all_volumes, each_mode_once, each_scheme_once, make, start_options
from luks_tools import OUR_IMG, OUR_IO, PASSPHRASE, SECRETS, cryptsetup, image_opts, io, opens, our_create
from storage_peer import PeerDaemon

BLOCK, MIB = 4096, 1 << 20
MODULES = ('virtio_pci', 'virtio_blk', 'loop', 'dm_mod', 'dm_crypt', 'algif_skcipher', 'aes_generic', 'serpent_generic', 'twofish_generic',
           'cast5_generic', 'cbc', 'xts', 'ecb', 'ctr', 'essiv', 'md5', 'sha1_generic', 'sha256_generic', 'sha512_generic', 'rmd160')


@pytest.fixture
def ours(daemon, tmp_path):
    """A daemon of ours that serves NBD at `.nbd_path`."""
    one = daemon(*start_options(tmp_path / 'ours'))
    one.nbd_path = tmp_path / 'ours'
    return one


def test_the_product_with_the_peer(ours, tmp_path):
    """The peer reads what we write into volumes of ours, and we what it writes."""
    disk, volumes = tmp_path / 'disk', all_volumes()
    make(ours.qmp, tmp_path, disk, volumes)
    with Opened(ours.qmp, ours.nbd_path, disk, volumes) as opened:
        opened.write()
        opened.expect()
    theirs = [one for one in volumes if not one.ends_the_peer]
    with PeerDaemon(tmp_path, *start_options(tmp_path / 'theirs')) as peer:
        with Opened(peer.qmp, tmp_path / 'theirs', disk, theirs) as opened:
            opened.expect()
            opened.write(1)
    with Opened(ours.qmp, ours.nbd_path, disk, theirs) as opened:
        opened.expect(1)


def cryptsetup_format(path, cipher, key_bits, digest):
    with open(path, 'wb') as file:
        file.truncate(4 * MIB)
    cryptsetup('luksFormat', '--type', 'luks1', '--pbkdf-force-iterations', 1000, '--cipher', cipher, '--key-size', key_bits, '--hash',
               digest, path, '-')


@pytest.mark.parametrize('cipher,key_bits,digest,message', [
    ('aes-xts-plain64be', 512, 'sha256', "IV generator 'plain64be' not supported"),
    ('aes-cbc-benbi', 256, 'sha256', "IV generator 'benbi' not supported"),
    ('aes-cbc-null', 256, 'sha256', "IV generator 'null' not supported"),
    ('aes-cbc-eboiv', 256, 'sha256', "IV generator 'eboiv' not supported"),
    ('aes-xts-plain64', 512, 'whirlpool', "Hash algorithm 'whirlpool' not supported"),
    ('aes-xts-plain64', 512, 'sha3-256', "Hash algorithm 'sha3-256' not supported"),
    ('aes-xts-plain64', 512, 'blake2b-512', "Hash algorithm 'blake2b-512' not supported"),
])
def test_what_only_cryptsetup_has(tmp_path, cipher, key_bits, digest, message):
    cryptsetup_format(tmp_path / 'luks', cipher, key_bits, digest)
    done = io(OUR_IO, image_opts(tmp_path / 'luks'), 'length', check=False)
    assert done.returncode == 1 and message in done.stderr


@pytest.mark.parametrize('cipher,key_bits,digest', [('aes-ecb', 128, 'sha256'), ('aes-xts-plain64', 512, 'sha224'),
                                                    ('aes-xts-plain64', 512, 'sha384'), ('aes-xts-plain64', 512, 'sm3')])
def test_what_both_have_beyond_that(tmp_path, cipher, key_bits, digest):
    path = tmp_path / 'luks'
    cryptsetup_format(path, cipher, key_bits, digest)
    io(OUR_IO, image_opts(path), 'write -P 5 0 64k', 'read -P 5 0 64k')
    assert opens(path, PASSPHRASE)


def test_luks_version_2(tmp_path):
    path = tmp_path / 'luks'
    with open(path, 'wb') as file:
        file.truncate(32 * MIB)
    cryptsetup('luksFormat', '--type', 'luks2', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', 1000, path, '-')
    assert 'LUKS version 2 is not supported' in io(OUR_IO, image_opts(path), 'length', check=False).stderr


@pytest.mark.parametrize('options,message', [
    ('cipher-alg=cast5-128,cipher-mode=xts', "Unsupported cipher mode xts: it needs blocks of 16 bytes, and those of 'cast5-128' have 8"),
    ('ivgen-alg=essiv,ivgen-hash-alg=sha1', 'No AES cipher with key size 20 available'),
    ('ivgen-alg=essiv,ivgen-hash-alg=sha512', 'No AES cipher with key size 64 available'),
    ('ivgen-alg=essiv,ivgen-hash-alg=ripemd160', 'No AES cipher with key size 20 available'),
    ('cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv', 'No CAST5 cipher with key size 32 available'),
    ('cipher-alg=twofish-192,ivgen-alg=essiv,ivgen-hash-alg=sha224', 'No Twofish cipher with key size 28 available'),
])
def test_what_there_is_not(tmp_path, options, message):
    done = run(OUR_IMG, 'create', '-q', '-f', 'luks', *SECRETS, '-o', f'key-secret=sec0,{options}', tmp_path / 'luks', '1M', check=False)
    assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / 'luks').exists()


def test_md5_protects_no_keys(tmp_path):
    """qemu-img takes it, and so do we; cryptsetup says that it is too short."""
    path = tmp_path / 'luks'
    our_create(path, hash_alg='md5')
    io(need('qemu-io'), image_opts(path), 'length')
    assert 'hash md5 is not supported' in cryptsetup('luksOpen', '--test-passphrase', '--key-file', '-', path, check=False).stderr


@pytest.fixture
def guest_with(tmp_path):
    """Starts a machine whose kernel has the device mapper and all ciphers, with cryptsetup, and the file as /dev/vda."""
    opener = tmp_path / 'luks_opener'
    run(need('cc'), '-O1', '-o', opener, pathlib.Path(__file__).with_name('luks_opener.c'), '-lcryptsetup')
    make_initramfs(tmp_path, MODULES, [opener, pathlib.Path(need('cryptsetup')), pathlib.Path(need('dmsetup'))], 'dmesg -n 1; export DM_DISABLE_UDEV=1')
    machines = []

    def start(disk):
        machines.append(Machine(tmp_path, ['-drive', f'if=virtio,format=raw,file={disk},cache=unsafe,file.locking=off'], memory='512M'))
        machine = machines[-1].__enter__()
        machine.do('while ! [ -b /dev/vda ]; do usleep 10000; done')
        return machine

    yield start
    for machine in machines:
        machine.__exit__()


class Disk:
    """The file with all volumes; behind them is what the guest shall have in its /tmp, half of it under each of two names."""

    def __init__(self, path):
        self.path = path
        self.places = {}

    def add(self, name, parts):
        middle = len(parts) // 2
        for half, some in enumerate((parts[:middle], parts[middle:])):
            data = b''.join(some)
            with open(self.path, 'r+b') as file:
                at = file.seek(0, 2)
                file.write(data + bytes(-len(data) % BLOCK))
            self.places[f'/tmp/{name}{half}'] = at, len(data)

    def fetch(self, guest):
        for path, (at, size) in self.places.items():
            guest.do(f'dd if=/dev/vda bs={BLOCK} skip={at // BLOCK} count={-(-size // BLOCK)} 2>/dev/null | head -c {size} >{path}')


def both(guest, *commands):
    """Does it to both halves at the same time; $n is which."""
    guest.do(f'for n in 0 1; do ({" && ".join(commands)}) & eval p$n=$!; done; wait $p0 && wait $p1')


def test_each_scheme_with_cryptsetup(ours, guest_with, tmp_path):
    """
    What we make and fill, libcryptsetup unlocks and the kernel decrypts; then libcryptsetup makes and the kernel fills volumes, and
    we read those, and change them for the kernel to see.
    """
    disk, volumes = Disk(tmp_path / 'disk'), each_scheme_once()
    some = each_mode_once(volumes)
    make(ours.qmp, tmp_path, disk.path, volumes)
    with Opened(ours.qmp, ours.nbd_path, disk.path, volumes) as opened:
        opened.write()
    disk.add('all', [one.line().encode() for one in volumes])
    disk.add('some', [one.line().encode() for one in some])
    disk.add('ours', [one.data() for one in volumes])
    disk.add('theirs', [one.data(1) for one in some])
    disk.add('changed', [one.data(2) for one in some])
    guest = guest_with(disk.path)
    disk.fetch(guest)
    map_them, same_as = 'dmsetup create volumes$n /tmp/table$n', 'cmp /dev/mapper/volumes$n /tmp/'
    unmap_them = 'dmsetup remove volumes$n'
    both(guest, f'luks_opener open /dev/vda "{PASSPHRASE}" </tmp/all$n >/tmp/table$n', map_them, f'{same_as}ours$n', unmap_them)
    both(guest, f'luks_opener format /dev/vda "{PASSPHRASE}" </tmp/some$n >/tmp/table$n', map_them,
         'dd if=/tmp/theirs$n of=/dev/mapper/volumes$n bs=64k conv=fsync 2>/dev/null', unmap_them)
    guest.do('sync')
    with Opened(ours.qmp, ours.nbd_path, disk.path, some) as opened:
        opened.expect(1)
        opened.write(2)
    guest.do('echo 3 >/proc/sys/vm/drop_caches')
    both(guest, map_them, f'{same_as}changed$n')
