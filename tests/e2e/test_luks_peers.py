# SPDX-License-Identifier: LGPL-2.1-or-later
"""LUKS volumes between us, qemu-img and cryptsetup: each opens what the others made."""
import json
import re

import pytest
from harness import need, run
from luks_tools import (OTHER, OUR_IMG, OUR_IO, PASSPHRASE, SECRETS, active_slots, cryptsetup, image_opts, io, opens,
                        our_create, patient, their_create)

SCHEMES = [
    {},
    {'cipher_alg': 'aes-128', 'hash_alg': 'sha512'},
    {'cipher_alg': 'aes-192', 'hash_alg': 'sha1'},
    {'cipher_alg': 'aes-256', 'cipher_mode': 'cbc', 'ivgen_alg': 'essiv', 'ivgen_hash_alg': 'sha256'},
    {'cipher_alg': 'aes-256', 'cipher_mode': 'ctr', 'ivgen_alg': 'plain'},
    {'cipher_alg': 'aes-128', 'cipher_mode': 'ecb', 'ivgen_alg': 'plain64'},
    {'ivgen_alg': 'essiv', 'ivgen_hash_alg': 'sha256', 'hash_alg': 'ripemd160'},
    {'cipher_alg': 'serpent-128'},
    {'cipher_alg': 'serpent-192', 'ivgen_alg': 'plain'},
    {'cipher_alg': 'serpent-256', 'cipher_mode': 'cbc', 'ivgen_alg': 'essiv', 'ivgen_hash_alg': 'sha256'},
    {'cipher_alg': 'twofish-128', 'hash_alg': 'sha512'},
    {'cipher_alg': 'twofish-192'},
    {'cipher_alg': 'twofish-192', 'ivgen_alg': 'essiv', 'ivgen_hash_alg': 'sha256'},
    {'cipher_alg': 'twofish-256'},
    {'cipher_alg': 'twofish-256', 'cipher_mode': 'ctr'},
    {'cipher_alg': 'cast5-128', 'cipher_mode': 'cbc'},
    {'cipher_alg': 'cast5-128', 'cipher_mode': 'cbc', 'ivgen_alg': 'plain', 'hash_alg': 'sha1'},
]
NAMES = ['-'.join(scheme.values()) or 'usual' for scheme in SCHEMES]


@pytest.mark.parametrize('scheme', SCHEMES, ids=NAMES)
def test_they_read_ours(tmp_path, scheme):
    path = tmp_path / 'luks'
    our_create(path, **scheme)
    io(OUR_IO, image_opts(path), 'write -P 5 0 1M', 'write -P 7 100001 3333', 'write -P 9 1048000 576')
    io(need('qemu-io'), image_opts(path), 'read -P 5 0 100001', 'read -P 7 100001 3333', 'read -P 5 103334 944666',
       'read -P 9 1048000 576', 'write -P 4 12345 67890')
    io(OUR_IO, image_opts(path), 'read -P 5 0 12345', 'read -P 4 12345 67890', 'read -P 5 80235 1000')


@pytest.mark.parametrize('scheme', SCHEMES[::4], ids=NAMES[::4])
def test_we_read_theirs(tmp_path, scheme):
    path = tmp_path / 'luks'
    their_create(path, **scheme)
    io(need('qemu-io'), image_opts(path), 'write -P 5 0 1M', 'write -P 7 100001 3333', 'write -P 9 1048000 576')
    io(OUR_IO, image_opts(path), 'read -P 5 0 100001', 'read -P 7 100001 3333', 'read -P 5 103334 944666',
       'read -P 9 1048000 576', 'write -P 8 512 512')
    io(need('qemu-io'), image_opts(path), 'read -P 5 0 512', 'read -P 8 512 512', 'read -P 5 1024 1024')


# What cryptsetup can without the kernel's help. The peer has never heard that key material may end inside a sector.
FOR_CRYPTSETUP = [SCHEMES[0], SCHEMES[1], SCHEMES[3], SCHEMES[4], {'cipher_alg': 'aes-192', 'cipher_mode': 'cbc'},
                  {'cipher_alg': 'aes-128', 'cipher_mode': 'ecb'}, {'hash_alg': 'sha1'}, {'hash_alg': 'ripemd160'}]


@pytest.mark.parametrize('scheme', FOR_CRYPTSETUP, ids=['-'.join(scheme.values()) or 'usual' for scheme in FOR_CRYPTSETUP])
def test_cryptsetup_opens_ours(tmp_path, scheme):
    path = tmp_path / 'luks'
    our_create(path, **scheme)
    io(OUR_IO, image_opts(path), 'write -P 5 0 1M', 'read -P 5 0 1M')
    assert opens(path, PASSPHRASE)
    assert not opens(path, OTHER)
    dump = cryptsetup('luksDump', path).stdout
    assert re.search(r'Hash spec:\s+' + scheme.get('hash_alg', 'sha256'), dump)
    assert re.search(r'Cipher mode:\s+' + scheme.get('cipher_mode', 'xts'), dump)


CRYPTSETUP = {
    'xts': ('aes-xts-plain64', 512, 'sha256'),
    'xts-128': ('aes-xts-plain64', 256, 'sha512'),
    'essiv': ('aes-cbc-essiv:sha256', 256, 'sha1'),
    'plain': ('aes-cbc-plain', 128, 'ripemd160'),
    'aes-192': ('aes-cbc-plain64', 192, 'sha256'),
}


@pytest.mark.parametrize('name', CRYPTSETUP)
def test_we_open_those_of_cryptsetup(tmp_path, name):
    cipher, key_bits, digest = CRYPTSETUP[name]
    path = tmp_path / 'luks'
    path.write_bytes(b'')
    with open(path, 'r+b') as file:
        file.truncate(8 << 20)
    cryptsetup('luksFormat', '--type', 'luks1', '--pbkdf-force-iterations', 1000, '--cipher', cipher, '--key-size', key_bits,
               '--hash', digest, path, '-')
    io(OUR_IO, image_opts(path), 'write -P 5 0 1M', 'read -P 5 0 1M')
    assert opens(path, PASSPHRASE)
    if name != 'aes-192':  # with which the peer ends itself
        io(need('qemu-io'), image_opts(path), 'read -P 5 0 1M')


def test_key_slots_of_cryptsetup(tmp_path):
    """All eight slots, filled by cryptsetup in a volume of ours; each passphrase opens it."""
    path = tmp_path / 'luks'
    our_create(path)
    first = tmp_path / 'first'
    first.write_text(PASSPHRASE)
    for slot in range(1, 8):
        key = tmp_path / f'key{slot}'
        key.write_text(f'passphrase {slot}')
        cryptsetup('luksAddKey', '--pbkdf-force-iterations', 1000, '--key-slot', slot, '--key-file', first, path, key)
    assert active_slots(path) == list(range(8))
    for slot in range(1, 8):
        run(OUR_IO, '--object', f'secret,id=sec0,file={tmp_path}/key{slot}', '--image-opts', image_opts(path), '-c', 'length')
    cryptsetup('luksKillSlot', '--key-file', first, path, 5)
    cryptsetup('luksKillSlot', '--key-file', tmp_path / 'key7', path, 0)
    for secret, ok in ('key5', False), ('first', False), ('key4', True):
        done = run(OUR_IO, '--object', f'secret,id=sec0,file={tmp_path}/{secret}', '--image-opts', image_opts(path), '-c',
                   'length', check=False)
        assert (done.returncode == 0) == ok


def test_header_backup(tmp_path):
    """cryptsetup restores a header of ours over one that is lost."""
    path = tmp_path / 'luks'
    our_create(path, size='4M')
    io(OUR_IO, image_opts(path), 'write -P 5 0 1M')
    cryptsetup('luksHeaderBackup', path, '--header-backup-file', tmp_path / 'backup')
    with open(path, 'r+b') as file:
        file.write(bytes(8192))
    done = io(OUR_IO, image_opts(path), 'length', check=False)
    assert 'Volume is not in LUKS format' in done.stdout + done.stderr
    cryptsetup('luksHeaderRestore', path, '--header-backup-file', tmp_path / 'backup')
    io(OUR_IO, image_opts(path), 'read -P 5 0 1M')


@pytest.mark.parametrize('whose', ['ours', 'cryptsetup'])
def test_detached_header(tmp_path, whose):
    header, data = tmp_path / 'header', tmp_path / 'data'
    with open(data, 'wb') as file:
        file.truncate(4 << 20)
    if whose == 'ours':
        run(OUR_IMG, 'create', '-q', '-f', 'luks', *SECRETS, '-o', 'key-secret=sec0,iter-time=1,detached-header=on', header, '4M')
    else:
        header.write_bytes(bytes(4 << 20))
        cryptsetup('luksFormat', '--type', 'luks1', '--pbkdf-force-iterations', 1000, '--header', header, data, '-')
    assert opens(data, PASSPHRASE, '--header', header)
    both = image_opts(data, **{'header.driver': 'file', 'header.filename': header})
    io(OUR_IO, both, 'write -P 5 0 4M', 'read -P 5 0 4M')
    info = json.loads(run(OUR_IMG, 'info', '--output=json', *SECRETS, '--image-opts', both).stdout)
    assert info['virtual-size'] == 4 << 20
    assert info['format-specific']['data']['detached-header'] is True
    assert info['format-specific']['data']['payload-offset'] == 0
    # Without its header the data is noise.
    assert 'Volume is not in LUKS format' in io(OUR_IO, image_opts(data), 'length', check=False).stderr


def test_info_is_theirs(tmp_path):
    """The same facts in the same words; a detached header is news to the peer."""
    path = tmp_path / 'luks'
    our_create(path, cipher_mode='cbc', ivgen_alg='essiv')
    ours = run(OUR_IMG, 'info', path).stdout.replace('    detached header: false\n', '')
    assert ours == run(need('qemu-img'), 'info', path).stdout
    ours = json.loads(run(OUR_IMG, 'info', '--output=json', path).stdout)
    theirs = json.loads(run(need('qemu-img'), 'info', '--output=json', path).stdout)
    assert ours['format-specific']['data'].pop('detached-header') is False
    assert ours['format-specific'] == theirs['format-specific']
    assert ours['encrypted'] is theirs['encrypted'] is True


def test_layout_is_theirs(tmp_path):
    for scheme in SCHEMES[0], SCHEMES[-2]:
        our_create(tmp_path / 'ours', **scheme)
        their_create(tmp_path / 'theirs', **scheme)
        facts = []
        for path in tmp_path / 'ours', tmp_path / 'theirs':
            data = json.loads(run(need('qemu-img'), 'info', '--output=json', path).stdout)['format-specific']['data']
            facts.append([data['payload-offset'], [slot['key-offset'] for slot in data['slots']], path.stat().st_size])
        assert facts[0] == facts[1]


@pytest.mark.parametrize('size', [1000, 123456789])
def test_measure_is_theirs(tmp_path, size):
    words = ['measure', '--output=json', '--object', f'secret,id=sec0,data={PASSPHRASE}', '-O', 'luks', '-o', 'key-secret=sec0',
             '--size', size]
    assert json.loads(run(OUR_IMG, *words).stdout) == json.loads(patient(lambda: run(need('qemu-img'), *words, check=False)).stdout)


def test_convert(tmp_path):
    """Into a volume and out again, by us and by them."""
    raw = tmp_path / 'raw'
    raw.write_bytes(b''.join(bytes([n & 255]) * 10000 for n in range(700)) + b'x' * 64)
    for img in OUR_IMG, need('qemu-img'):
        path = tmp_path / f'luks-{img == OUR_IMG}'
        our_create(path, size=raw.stat().st_size)
        run(img, 'convert', *SECRETS, '-n', '-f', 'raw', '--target-image-opts', raw, image_opts(path))
        for back in OUR_IMG, need('qemu-img'):
            run(back, 'convert', *SECRETS, '--image-opts', image_opts(path), '-O', 'raw', tmp_path / 'back')
            assert (tmp_path / 'back').read_bytes() == raw.read_bytes()


def test_resize(tmp_path):
    path = tmp_path / 'luks'
    our_create(path)
    io(OUR_IO, image_opts(path), 'write -P 5 0 1M', 'truncate 3M', 'write -P 6 2M 1M')
    io(need('qemu-io'), image_opts(path), 'read -P 5 0 1M', 'read -P 6 2M 1M')
    io(OUR_IO, image_opts(path), 'truncate 512k')
    assert io(need('qemu-io'), image_opts(path), 'read -P 5 0 512k', 'length').stdout.endswith('512 KiB\n')
