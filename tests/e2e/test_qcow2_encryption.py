# SPDX-License-Identifier: LGPL-2.1-or-later
"""Encrypted qcow2 images, by LUKS and in the old way, between us and qemu-img."""
import json
import struct

import pytest
from harness import need, run
from luks_tools import OUR_IMG, OUR_IO, PASSPHRASE, SECRETS, amend, io, patient

WAYS = {'luks': {'encrypt.iter-time': 100}, 'aes': {},
        'luks-cbc': {'encrypt.iter-time': 100, 'encrypt.cipher-mode': 'cbc', 'encrypt.ivgen-alg': 'essiv'}}


def image_opts(path, way, secret='sec0'):
    words = f'driver=qcow2,file.filename={path},encrypt.format={way.split("-")[0]}'
    return words + (f',encrypt.key-secret={secret}' if secret else '')


def create(img, path, way, size='16M', **more):
    options = {'encrypt.format': way.split('-')[0], 'encrypt.key-secret': 'sec0', **WAYS[way], **more}
    words = ','.join(f'{name}={value}' for name, value in options.items())
    done = patient(lambda: run(img, 'create', '-q', '-f', 'qcow2', *SECRETS, '-o', words, path, size, check=False))
    assert done.returncode == 0, done.stderr


def check(path, way):
    for img in OUR_IMG, need('qemu-img'):
        done = run(img, 'check', *SECRETS, '--image-opts', image_opts(path, way), check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('maker', ['ours', 'theirs'])
def test_both_ways(tmp_path, way, maker):
    path = tmp_path / 'image'
    image = image_opts(path, way)
    create(OUR_IMG if maker == 'ours' else need('qemu-img'), path, way)
    io(OUR_IO, image, 'read -P 0 0 16M', 'write -P 5 100000 3000000', 'write -P 6 1M 700', 'write -z 2M 64k')
    io(need('qemu-io'), image, 'read -P 0 0 100000', 'read -P 5 100000 948576', 'read -P 6 1M 700', 'read -P 0 2M 64k',
       'write -P 7 8M 1M', 'write -P 8 1500 700', 'discard 3M 64k')
    io(OUR_IO, image, 'read -P 7 8M 1M', 'read -P 8 1500 700', 'read -P 0 2200 97800', 'read -P 5 100000 948576')
    check(path, way)


def test_not_in_the_clear(tmp_path):
    """The data is not in the file as it is, nor is the same data in two places the same."""
    path = tmp_path / 'image'
    create(OUR_IMG, path, 'luks')
    io(OUR_IO, image_opts(path, 'luks'), 'write -P 0x51 0 2M')
    data = path.read_bytes()
    assert b'\x51' * 16 not in data
    sectors = [data[at:at + 512] for at in range(4 << 20, len(data), 512)] or [data[-512:]]
    assert len(set(sectors)) == len([one for one in sectors if one != bytes(512)]) + (bytes(512) in sectors)


@pytest.mark.parametrize('options', [{'cluster_size': '4k'}, {'cluster_size': '2M'}, {'compat': '0.10'}, {'extended_l2': 'on'},
                                     {'refcount_bits': 1}], ids=lambda options: '-'.join(map(str, options.values())))
def test_shapes(tmp_path, options):
    path = tmp_path / 'image'
    image = image_opts(path, 'luks')
    create(OUR_IMG, path, 'luks', **{'encrypt.iter-time': 1}, **options)
    io(OUR_IO, image, 'write -P 5 100000 3000000', 'write -P 6 200000 1000')
    io(need('qemu-io'), image, 'read -P 0 0 100000', 'read -P 5 100000 100000', 'read -P 6 200000 1000', 'write -P 7 9M 100k')
    io(OUR_IO, image, 'read -P 7 9M 100k')
    check(path, 'luks')


def test_over_a_backing_image(tmp_path):
    """What is not encrypted shows through what is, and is encrypted when it is copied."""
    run(OUR_IMG, 'create', '-q', '-f', 'qcow2', tmp_path / 'base', '4M')
    run(OUR_IO, '-f', 'qcow2', '-c', 'write -P 3 0 4M', tmp_path / 'base')
    path = tmp_path / 'image'
    create(OUR_IMG, path, 'luks', size='4M', backing_file=tmp_path / 'base', backing_fmt='qcow2')
    io(OUR_IO, image_opts(path, 'luks'), 'read -P 3 0 4M', 'write -P 4 70000 1000')
    io(need('qemu-io'), image_opts(path, 'luks'), 'read -P 3 0 70000', 'read -P 4 70000 1000', 'read -P 3 71000 4123304')
    assert b'\x03' * 16 not in path.read_bytes()


REFUSED = [
    ('luks', 'encrypt.format=aes,encrypt.key-secret=sec0'),
    ('aes', 'encrypt.format=luks,encrypt.key-secret=sec0'),
    ('luks', 'encrypt.format=luks,encrypt.key-secret=sec1'),
    ('luks', 'encrypt.format=luks,encrypt.key-secret=none'),
    ('luks', 'encrypt.format=luks'),
    ('aes', 'encrypt.format=aes'),
    ('luks', None),
    ('plain', 'encrypt.format=luks,encrypt.key-secret=sec0'),
]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('qcow2')
    create(OUR_IMG, folder / 'luks', 'luks', **{'encrypt.iter-time': 1})
    create(OUR_IMG, folder / 'aes', 'aes')
    run(OUR_IMG, 'create', '-q', '-f', 'qcow2', folder / 'plain', '1M')
    return folder


@pytest.mark.parametrize('way,options', REFUSED, ids=str)
def test_refused_as_by_them(images, way, options):
    image = f'driver=qcow2,file.filename={images / way}' + (f',{options}' if options else '')
    ours, theirs = (io(program, image, 'length', check=False) for program in (OUR_IO, need('qemu-io')))
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr == theirs.stderr


def test_info_without_a_key(images):
    for way in 'luks', 'aes':
        ours, theirs = (json.loads(run(img, 'info', '--output=json', images / way).stdout) for img in (OUR_IMG, need('qemu-img')))
        ours['format-specific']['data']['encrypt'].pop('detached-header', None)
        assert ours['format-specific']['data']['encrypt'] == theirs['format-specific']['data']['encrypt']
        assert ours['encrypted'] is True


def test_amend(tmp_path):
    path = tmp_path / 'image'
    create(OUR_IMG, path, 'luks')
    image = image_opts(path, 'luks')
    io(OUR_IO, image, 'write -P 5 0 1M')
    assert amend(OUR_IMG, image, 'encrypt.state=active', 'encrypt.new-secret=sec1', 'encrypt.iter-time=1') == (0, '')
    io(need('qemu-io'), image_opts(path, 'luks', 'sec1'), 'read -P 5 0 1M')
    assert amend(OUR_IMG, image, 'encrypt.state=inactive', 'encrypt.old-secret=sec0') == (0, '')
    io(OUR_IO, image_opts(path, 'luks', 'sec1'), 'read -P 5 0 1M')
    assert 'Invalid password' in io(OUR_IO, image, 'length', check=False).stderr
    image = image_opts(path, 'luks', 'sec1')
    for options in (['encrypt.state=inactive', 'encrypt.keyslot=1'], ['encrypt.state=active'], ['encrypt.keyslot=1'],
                    ['encrypt.state=inactive', 'encrypt.keyslot=0']):
        assert amend(OUR_IMG, image, *options)[0] == amend(need('qemu-img'), image, *options)[0] == 1


@pytest.mark.parametrize('way', ['aes', 'plain'])
def test_amend_refused_as_by_them(images, way):
    image = f'driver=qcow2,file.filename={images / way}' + (',encrypt.format=aes,encrypt.key-secret=sec0' if way == 'aes' else '')
    options = ['encrypt.state=active', 'encrypt.new-secret=sec1']
    assert amend(OUR_IMG, image, *options) == amend(need('qemu-img'), image, *options)


def test_key_slots_stay_in_their_clusters(tmp_path):
    """A header that puts key material onto other clusters of the image is refused, and nothing is written."""
    path = tmp_path / 'image'
    create(OUR_IMG, path, 'luks', **{'encrypt.iter-time': 1})
    data = path.read_bytes()
    at = data.index(struct.pack('>II', 0x0537be77, 16))
    luks = struct.unpack('>Q', data[at + 8:at + 16])[0]
    with open(path, 'r+b') as file:
        file.seek(luks + 104)
        file.write(struct.pack('>I', 1 << 20))        # the payload, as if the header went on and on,
        file.seek(luks + 208 + 7 * 48 + 40)
        file.write(struct.pack('>I', (4 << 20) >> 9))  # and the last slot with it
    before = path.read_bytes()
    done = io(OUR_IO, image_opts(path, 'luks'), 'length', check=False)
    assert 'Keyslot 7 at 4194304 with 256000 bytes lies outside of the encryption header of 2068480 bytes' in done.stderr
    assert path.read_bytes() == before


def test_convert(tmp_path):
    raw = tmp_path / 'raw'
    raw.write_bytes(b''.join(bytes([n & 255]) * 10000 for n in range(300)) + bytes(4 << 20) + b'x' * (512 * 100 - 3000000 % 512))
    for way in 'luks', 'aes':
        path = tmp_path / way
        create(OUR_IMG, path, way, size=raw.stat().st_size, **({'encrypt.iter-time': 1} if way == 'luks' else {}))
        run(OUR_IMG, 'convert', *SECRETS, '-n', '-f', 'raw', '--target-image-opts', raw, image_opts(path, way))
        run(need('qemu-img'), 'compare', *SECRETS, '--image-opts', f'driver=raw,file.filename={raw}', image_opts(path, way))
    assert {PASSPHRASE.encode() in (tmp_path / way).read_bytes() for way in ('luks', 'aes')} == {False}
