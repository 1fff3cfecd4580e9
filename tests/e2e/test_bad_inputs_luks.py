# SPDX-License-Identifier: LGPL-2.1-or-later
"""LUKS headers that are not what they should be: in volumes, beside them, and in qcow2 images. Nothing is written to any."""
import pathlib
import shutil
import struct

import pytest
from harness import QmpError, run, wait_for
from luks_tools import OUR_IMG, OUR_IO, PASSPHRASE, SECRETS, cryptsetup, opens
from test_luks_slots import Kept


def be32(number):
    return struct.pack('>I', number)


# Where in the header, what, and what is said of it.
F18 = {
    'F18-version-2': (6, b'\0\2', 'LUKS version 2 is not supported'),
    'F18-version-max': (6, b'\xff\xff', 'LUKS version 65535 is not supported'),
    'F18-cipher-without-nul': (8, b'a' * 32, 'cipher name is not NUL terminated'),
    'F18-mode-without-nul': (40, b'a' * 32, 'cipher mode is not NUL terminated'),
    'F18-hash-without-nul': (72, b'a' * 32, 'hash spec is not NUL terminated'),
    'F18-payload-in-header': (104, be32(1), 'begins at 512'),
    'F18-payload-in-keys': (104, be32(9), 'payload begins at 4608'),
    'F18-slots-overlap': (296, be32(8), 'Keyslots 0 and 1 are overlapping in the header: they begin at 4096 and 4096'),
    'F18-slot-in-header': (248, be32(1), 'Keyslot 0 is overlapping with the LUKS header: it begins at 512'),
    'F18-slot-past-end': (248, be32(0x7fffffff), '1099511883264'),
    'F18-iterations-0': (212, be32(0), 'Keyslot 0 iteration count is zero'),
    'F18-iterations-max': (212, be32(0xffffffff), 'Keyslot 0 iteration count 4294967295 is larger than 1073741824'),
    'F18-digest-iterations-0': (164, be32(0), 'LUKS key iteration count is zero'),
    'F18-digest-iterations-max': (164, be32(0xffffffff), 'LUKS key iteration count 4294967295 is larger than 1073741824'),
    'F18-stripes-0': (252, be32(0), 'stripes 0 != 4000'),
    'F18-stripes-3999': (252, be32(3999), 'stripes 3999 != 4000'),
    'F18-stripes-max': (252, be32(0xffffffff), 'stripes 4294967295 != 4000'),
    'F18-cipher-unknown': (8, b'rot13\0', "Algorithm 'rot13' with key size 32 bytes not supported"),
    'F18-cipher-escaped': (8, b'\x1b[31m\0', "Algorithm '?[31m' with key size 32 bytes not supported"),
    'F18-mode-unknown': (40, b'cfb-plain\0', "Cipher mode 'cfb' not supported"),
    'F18-hash-unknown': (72, b'crc32\0', "Hash algorithm 'crc32' not supported"),
    'F18-key-bytes-0': (108, be32(0), 'key size 0 bytes not supported'),
    'F18-key-bytes-max': (108, be32(0xffffffff), 'key size 2147483647 bytes not supported'),
    'F18-slot-state': (208, be32(0x01020304), 'Keyslot 0 state (active/disable) is corrupted: it is 0x01020304'),
}


@pytest.fixture(scope='module', params=['luks', 'detached', 'qcow2'])
def good(request, tmp_path_factory):
    return Kept(tmp_path_factory.mktemp('luks'), request.param)


def copy_of(good, folder):
    """The volume, to be damaged; and where its header lies."""
    one = object.__new__(Kept)
    one.__dict__.update(good.__dict__, folder=folder, path=folder / 'volume', header=folder / 'header')
    for path in good.path, good.header:
        if path.exists():
            shutil.copy(path, folder / path.name)
    holder = one.header if one.kind == 'detached' else one.path
    return one, holder, holder.read_bytes().index(b'LUKS\xba\xbe')


def put(path, at, data):
    with open(path, 'r+b') as file:
        file.seek(at)
        file.write(data)


def contents(one):
    return [path.read_bytes() for path in (one.path, one.header) if path.exists()]


@pytest.mark.parametrize('name', F18)
def test_header_is_refused(tmp_path, good, name):
    one, holder, start = copy_of(good, tmp_path)
    at, data, message = F18[name]
    put(holder, start + at, data)
    before = contents(one)
    done = run(OUR_IO, *SECRETS, '-c', 'read 0 512', '-c', 'write 0 512', one.image('sec0'), check=False)
    if one.kind == 'detached' and 'payload' in name:
        # The payload lies elsewhere: this says nothing of it but where it begins.
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert message in done.stderr and all(one.isprintable() for one in done.stderr.rstrip('\n'))
    done = run(OUR_IMG, 'amend', *SECRETS, '-o', f'{one.prefix}state=active,{one.prefix}new-secret=sec1', one.image('sec0'), check=False)
    assert done.returncode == 1 and message in done.stderr
    assert contents(one) == before
    if one.kind == 'qcow2':
        assert 'virtual size: 1 MiB' in run(OUR_IMG, 'info', one.path).stdout


@pytest.mark.parametrize('size', [592, 4096, 5000, 260095, 1810432, 2065920])
def test_F18_detached_header_is_short(tmp_path, size):
    one = Kept(tmp_path, 'detached')
    with open(one.header, 'r+b') as file:
        file.truncate(size)
    done = run(OUR_IO, *SECRETS, '-c', 'length', one.image('sec0'), check=False)
    assert done.returncode == 1
    assert f"LUKS keyslots end at 2066432, beyond the end of the header's file at {(size + 511) // 512 * 512}" in done.stderr


def test_detached_header_without_a_byte_to_spare(tmp_path):
    """As long as cryptsetup makes them, and exactly as long as need be."""
    one = Kept(tmp_path, 'detached')
    with open(one.header, 'r+b') as file:
        file.truncate(2066432)
    run(OUR_IO, *SECRETS, '-c', 'length', one.image('sec0'))
    cryptsetup('luksHeaderBackup', '--header-backup-file', tmp_path / 'backup', one.header)
    shutil.copy(tmp_path / 'backup', one.header)
    run(OUR_IO, *SECRETS, '-c', 'length', one.image('sec0'))


def test_F18_key_derivation_is_interruptible(tmp_path, daemon):
    """A header that asks for minutes of computing: the daemon ends when it is told to."""
    one = Kept(tmp_path, 'luks')
    put(one.path, 212, be32(1 << 30))
    served = daemon(*SECRETS)
    served.qmp.send_raw('{"execute": "blockdev-add", "arguments": {"driver": "luks", "node-name": "disk", "key-secret": "sec0", '
                        f'"file": {{"driver": "file", "filename": "{one.path}"}}}}}}')
    stat = pathlib.Path(f'/proc/{served.pid}/stat')

    def seconds():
        fields = stat.read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100
    idle = seconds()
    wait_for(lambda: seconds() > idle + 0.2, 'it to compute')
    served.stop()


@pytest.mark.parametrize('kind', ['luks', 'detached', 'qcow2'])
def test_F19_wrong_passphrase(tmp_path, daemon, kind):
    one = Kept(tmp_path, kind)
    before = contents(one)
    done = run(OUR_IO, *SECRETS, '-c', 'length', one.image('sec1'), check=False)
    assert done.returncode == 1 and 'Invalid password, cannot unlock any keyslot' in done.stderr
    with pytest.raises(QmpError) as caught:
        daemon(*SECRETS).qmp.command('blockdev-add', **{'node-name': 'disk', **one.node('sec1'),
                                                        'file': {'driver': 'file', 'filename': str(one.path)}})
    assert caught.value.desc == 'Invalid password, cannot unlock any keyslot'
    assert contents(one) == before


@pytest.mark.parametrize('kind', ['luks', 'detached', 'qcow2'])
def test_F19_last_slot(tmp_path, kind):
    one = Kept(tmp_path, kind)
    before = contents(one)
    for how in 'old-secret=sec0', 'keyslot=0':
        done = run(OUR_IMG, 'amend', *SECRETS, '-o', f'{one.prefix}state=inactive,{one.prefix}{how}', one.image('sec0'), check=False)
        assert done.returncode == 1 and 'irreversibly - refusing operation' in done.stderr
    assert contents(one) == before
    assert opens(one.seen, PASSPHRASE)


# Where in the extension of a qcow2 image that says where its LUKS header lies, what, and what is said of it.
Q21 = {
    'Q21-crypto-unaligned': (0, struct.pack('>Q', 65536 * 4 + 512), '262656'),
    'Q21-crypto-beyond-end': (0, struct.pack('>Q', 1 << 40), '0x10000000000'),
    'Q21-crypto-offset-max': (0, struct.pack('>Q', (1 << 64) - 65536), '0xffffffffffff0000'),
    'Q21-crypto-length-huge': (8, struct.pack('>Q', 1 << 60), '1152921504606846976'),
    'Q21-crypto-length-max': (8, struct.pack('>Q', (1 << 64) - 1), '18446744073709551615'),
    'Q21-crypto-length-small': (8, struct.pack('>Q', 512), '512'),
    'Q21-crypto-length-0': (8, struct.pack('>Q', 0), '0 bytes'),
    'Q21-extension-short': (-4, be32(8), '8'),
}


@pytest.fixture(scope='module')
def encrypted(tmp_path_factory):
    return Kept(tmp_path_factory.mktemp('luks'), 'qcow2')


@pytest.mark.parametrize('name', Q21)
def test_qcow2_crypto_header(tmp_path, encrypted, name):
    one, holder, _start = copy_of(encrypted, tmp_path)
    offset, data, word = Q21[name]
    put(holder, holder.read_bytes().index(struct.pack('>II', 0x0537be77, 16)) + 8 + offset, data)
    before = contents(one)
    for command in (OUR_IO, '-c', 'read 0 512'), (OUR_IO, '-c', 'write 0 512'), (OUR_IMG, 'check'):
        done = run(*command, *SECRETS, one.image('sec0'), check=False)
        assert done.returncode == 1 and word in done.stderr
    done = run(OUR_IMG, 'check', '-f', 'qcow2', one.path, check=False)
    # Where it lies is a finding of the check if it is beyond the end.
    assert done.returncode == 2 if 'beyond-end' in name else done.returncode == 1 and word in done.stderr
    done = run(OUR_IMG, 'info', '-f', 'qcow2', one.path, check=False)
    if name == 'Q21-extension-short':
        assert done.returncode == 1 and word in done.stderr
    else:
        assert 'virtual size: 1 MiB' in done.stdout
    assert contents(one) == before


def test_Q21_plain_info_prints_the_rest(tmp_path):
    """A way of encryption without its header: what the header says otherwise is shown."""
    path = tmp_path / 'image'
    run(OUR_IMG, 'create', '-q', '-f', 'qcow2', path, '1M')
    put(path, 32, be32(2))
    assert 'virtual size: 1 MiB' in run(OUR_IMG, 'info', path).stdout
    assert run(OUR_IO, '-f', 'qcow2', '-c', 'read 0 512', path, check=False).returncode == 1


def test_check_takes_an_encrypted_image_by_json(tmp_path):
    one = Kept(tmp_path, 'qcow2')
    assert 'No errors were found on the image.' in run(OUR_IMG, 'check', *SECRETS, one.image('sec0')).stdout
