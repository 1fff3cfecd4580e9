# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 in the daemon: every option acts or is refused, also while clients write; data files; damage met on the way."""
import os
import re

import pytest

from harness import QmpError, background, need, run
from qcow2_files import COPIED, KIB, Qcow2, make

MIB = 1 << 20


@pytest.fixture
def serve(daemon, tmp_path):
    """Starts a daemon with an NBD server; its QMP session."""
    def start():
        return daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock').qmp
    return start


def uri(tmp_path):
    return f'nbd+unix:///disk?socket={tmp_path}/nbd.sock'


def definition(image, **options):
    return {'driver': 'qcow2', 'node-name': 'disk', 'file': 'file',
            **{name.replace('_', '-'): value for name, value in options.items()}}


def add(qmp, image, export=True, **options):
    qmp.command('blockdev-add', driver='file', node_name='file', filename=str(image), discard='unmap')
    qmp.execute('blockdev-del', {'node-name': 'disk'})
    try:
        qmp.command('blockdev-add', **definition(image, **options))
    except QmpError:
        qmp.command('blockdev-del', node_name='file')
        raise
    if export:
        qmp.command('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True)


def drop(qmp):
    qmp.command('block-export-del', id='e', mode='hard')
    qmp.event('BLOCK_EXPORT_DELETED')
    qmp.command('blockdev-del', node_name='disk')
    qmp.command('blockdev-del', node_name='file')


def qemu_io(tmp_path, *commands):
    done = run(need('qemu-io'), '-f', 'raw', *[word for command in commands for word in ('-c', command)], uri(tmp_path))
    assert 'failed' not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def assert_clean(image):
    assert run(need('qemu-img'), 'check', image).stdout.startswith('No errors were found on the image.\n')


ACTING = [
    {'cache-size': 8192}, {'l2-cache-size': 4096, 'l2-cache-entry-size': 512}, {'l2-cache-entry-size': 65536},
    {'refcount-cache-size': 1}, {'cache-size': 1 << 20, 'l2-cache-size': 1 << 19}, {'cache-clean-interval': 1},
    {'lazy-refcounts': True}, {'discard-no-unref': True}, {'pass-discard-request': False}, {'pass-discard-other': True},
    {'overlap-check': 'none'}, {'overlap-check': 'all'}, {'overlap-check': {'template': 'none', 'active-l2': True}},
]


@pytest.mark.parametrize('options', ACTING, ids=lambda options: ','.join(options))
def test_qcow2_option_acts(serve, tmp_path, options):
    image = tmp_path / 'image'
    make(image, '64M')
    qmp = serve()
    add(qmp, image, discard='unmap', **options)
    qemu_io(tmp_path, 'read -P 1 0 256k', *[f'write -P {9 + at} {at * 5}M 10k' for at in range(12)], 'write -z 0 64k',
            'discard 64k 64k', 'flush', 'write -P 8 0 4k', 'read -P 0 4k 60k', 'read -P 0 64k 64k')
    drop(qmp)
    assert_clean(image)
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'read -P 9 0 0', '-c', 'read -P 20 55M 10k', image)


REFUSED = [
    ({'cache-size': 1 << 20, 'l2-cache-size': 1 << 21}, 'l2-cache-size may not exceed cache-size'),
    ({'cache-size': 1 << 20, 'refcount-cache-size': 1 << 21}, 'refcount-cache-size may not exceed cache-size'),
    ({'cache-size': 3, 'l2-cache-size': 1, 'refcount-cache-size': 1}, 'may not be set at the same time'),
    ({'l2-cache-entry-size': 513}, 'L2 cache entry size must be a power of two between 512 and the cluster size (65536)'),
    ({'l2-cache-entry-size': 131072}, 'L2 cache entry size must be a power of two between'),
    ({'l2-cache-size': -1}, "Parameter 'l2-cache-size' expects a non-negative number"),
    ({'cache-clean-interval': 1 << 40}, 'Cache clean interval too big'),
    ({'data-file': 'file'}, "'data-file' can only be set for images with an external data file"),
]


@pytest.mark.parametrize('options, message', REFUSED, ids=[','.join(options) for options, _ in REFUSED])
def test_qcow2_option_refused(serve, tmp_path, options, message):
    image = tmp_path / 'image'
    make(image)
    before = image.read_bytes()
    qmp = serve()
    with pytest.raises(QmpError, match=re.escape(message)):
        add(qmp, image, export=False, **options)
    assert image.read_bytes() == before
    add(qmp, image)
    drop(qmp)


def test_qcow2_options_change_under_load(serve, tmp_path):
    """Caches are made anew, and the image becomes read-only and writable again, while a client goes on."""
    image = tmp_path / 'image'
    make(image, '256M')
    qmp = serve()
    add(qmp, image)
    writes = [word for at in range(60) for word in ('-c', f'write -P {at + 1} {at * 4}M 20k', '-c', f'read -P {at + 1} {at * 4}M 20k')]
    with background(need('qemu-io'), '-f', 'raw', *writes, uri(tmp_path)) as client:
        for options in ACTING * 2:
            qmp.command('blockdev-reopen', options=[definition(image, **options)])
        assert client.wait(120) == 0
    with pytest.raises(QmpError, match='may not exceed'):
        qmp.command('blockdev-reopen', options=[definition(image, cache_size=1, l2_cache_size=2)])
    qemu_io(tmp_path, *[f'read -P {at + 1} {at * 4}M 20k' for at in range(60)])
    drop(qmp)
    assert_clean(image)


@pytest.mark.parametrize('raw', ['off', 'on'])
def test_qcow2_data_file(serve, tmp_path, raw):
    image, data = tmp_path / 'image', tmp_path / 'data'
    make(image, '4M', f'data_file={data},data_file_raw={raw}', writes=('write -P 1 0 256k',))
    with Qcow2(image) as qcow2:
        name = qcow2.extension(0x44415441)
        assert qcow2.read(name, len(str(data))) == str(data).encode()
    qmp = serve()
    add(qmp, image, discard='unmap')
    qemu_io(tmp_path, 'read -P 1 0 256k', 'write -P 2 1M 100k', 'write -z 0 64k', 'discard 64k 64k', 'flush')
    drop(qmp)
    assert_clean(image)
    content = bytearray(data.read_bytes().ljust(4 * MIB, b'\0'))
    assert content[MIB:MIB + 100 * KIB] == b'\2' * 100 * KIB
    if raw == 'on':
        shown = tmp_path / 'shown'
        run(need('qemu-img'), 'convert', '-f', 'qcow2', '-O', 'raw', image, shown)
        assert shown.read_bytes() == content
        assert content[:64 * KIB] == bytes(64 * KIB)


DAMAGE = {
    'unaligned': lambda qcow2: COPIED | qcow2.cluster * 40 + 512,
    'reserved': lambda qcow2: COPIED | qcow2.cluster * 5 | 1 << 58,
    'header': lambda qcow2: COPIED | qcow2.l1,
    'beyond the end': lambda qcow2: COPIED | qcow2.cluster << 20,
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_qcow2_damage_is_fenced(serve, tmp_path, damage):
    """A bad entry fails its own range; the first who writes there stops all writes, and the image says so."""
    image = tmp_path / 'image'
    make(image)
    with Qcow2(image) as qcow2:
        qcow2.put(qcow2.l2 + 8, DAMAGE[damage](qcow2))
        l1 = qcow2.read(qcow2.l1, 512)
    qmp = serve()
    add(qmp, image)
    run(need('qemu-io'), '-f', 'raw', '-c', 'write -P 7 64k 4k', '-c', 'read 64k 4k', uri(tmp_path), check=False)
    event = qmp.event('BLOCK_IMAGE_CORRUPTED')['data']
    assert event['node-name'] == 'disk' and event['fatal']
    qemu_io(tmp_path, 'read -P 1 0 64k', 'read -P 1 128k 128k')
    refused = run(need('qemu-io'), '-f', 'raw', '-c', 'write 0 4k', uri(tmp_path), check=False)
    assert 'failed' in refused.stdout + refused.stderr
    drop(qmp)
    with Qcow2(image) as qcow2:
        assert qcow2['incompatible_features'] & 2
        assert qcow2.read(qcow2.l1, 512) == l1
    with pytest.raises(QmpError, match='Image is corrupt; cannot be opened read/write'):
        add(qmp, image)
    add(qmp, image, export=False, read_only=True)


def test_qcow2_grows_by_what_is_written(serve, tmp_path):
    """Small writes to an empty image: one cluster each, and nothing around them is written."""
    image = tmp_path / 'image'
    make(image, '1G', writes=())
    qmp = serve()
    add(qmp, image)
    qemu_io(tmp_path, *[f'write -P 3 {at * 8}M 4k' for at in range(64)], 'flush')
    drop(qmp)
    assert_clean(image)
    assert os.stat(image).st_size < (64 + 16) * 64 * KIB
    assert os.stat(image).st_blocks * 512 < 2 * MIB
