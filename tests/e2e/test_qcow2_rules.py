# SPDX-License-Identifier: LGPL-2.1-or-later
"""What qcow2 images promise whatever their shape: unknown features by their rules, storage given back as told, requests
that do not wait for others, memory within the caches, every cluster size and width of counts."""
import json
import os
import random
import struct

import pytest

from harness import memory_limit_kib, need, program, run
from job_tools import connect, serve
from qcow2_files import KIB, Qcow2, make

MIB = 1 << 20


def io(image, *commands, tool='ashlar-io', form='qcow2'):
    words = [word for command in commands for word in ('-c', command)]
    done = run(need(tool) if tool == 'qemu-io' else program(tool), '-f', form, *words, image)
    assert 'failed' not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def assert_clean(image):
    for img in need('qemu-img'), program('ashlar-img'):
        assert run(img, 'check', image).stdout.startswith('No errors were found on the image.\n')


def extents(image):
    return json.loads(run(need('qemu-img'), 'map', '--output=json', image).stdout)


# --- features and extensions ---

EXTENSION = struct.pack('>II', 0x12345678, 13) + b'left as it is\0\0\0'
BIT = 1 << 60


def extensions(qcow2):
    """All bytes from the end of the header's fields to the end of its first KiB."""
    return qcow2.read(qcow2['header_length'], KIB)


@pytest.fixture
def unknown(tmp_path):
    """An image with a compatible and an autoclear bit, and an extension, that nobody knows."""
    image = tmp_path / 'image'
    make(image)
    with Qcow2(image) as qcow2:
        qcow2['compatible_features'] = BIT
        qcow2['autoclear_features'] = BIT
        known = extensions(qcow2)
        qcow2.write(qcow2['header_length'], EXTENSION + known)
    return image


def test_unknown_features_are_kept_or_cleared(unknown):
    before = unknown.read_bytes()
    io(unknown, 'read -P 1 0 256k')
    run(program('ashlar-io'), '-r', '-f', 'qcow2', '-c', 'read -P 1 0 256k', unknown)
    run(program('ashlar-img'), 'info', unknown)
    with Qcow2(unknown) as qcow2:
        assert qcow2['compatible_features'] == BIT
        assert EXTENSION in extensions(qcow2)
    unknown.write_bytes(before)
    run(program('ashlar-io'), '-r', '-f', 'qcow2', '-c', 'read -P 1 0 256k', unknown)
    assert unknown.read_bytes() == before
    io(unknown, 'write -P 2 0 64k')
    with Qcow2(unknown) as qcow2:
        assert qcow2['compatible_features'] == BIT
        assert qcow2['autoclear_features'] == 0
        assert EXTENSION in extensions(qcow2)
    assert_clean(unknown)


def test_unknown_extension_outlives_a_new_header(unknown, tmp_path):
    """These write all of the header."""
    below = tmp_path / 'below'
    below.write_bytes(bytes(MIB))
    run(program('ashlar-img'), 'rebase', '-u', '-f', 'qcow2', '-b', below, '-F', 'raw', unknown)
    run(program('ashlar-img'), 'amend', '-f', 'qcow2', '-o', 'lazy_refcounts=on', unknown)
    run(program('ashlar-img'), 'resize', '-q', unknown, '3M')
    with Qcow2(unknown) as qcow2:
        assert qcow2['compatible_features'] == BIT | 1
        assert EXTENSION in extensions(qcow2)
    assert_clean(unknown)
    assert json.loads(run(need('qemu-img'), 'info', '--output=json', unknown).stdout)['backing-filename'] == str(below)


# --- storage that is given back ---

def add(qmp, image, **options):
    qmp.command('blockdev-add', driver='qcow2', node_name='disk', discard='unmap', **options,
                file={'driver': 'file', 'node-name': 'file', 'filename': str(image), 'discard': 'unmap'})


def blocks_kib(path):
    return os.stat(path).st_blocks // 2


@pytest.mark.parametrize('passed', [True, False])
def test_discard_is_passed_on(daemon, tmp_path, passed):
    image = tmp_path / 'image'
    make(image, '16M', writes=('write -P 1 0 8M',))
    qmp = daemon().qmp
    add(qmp, image, pass_discard_request=passed)
    handle = connect(serve(qmp, tmp_path / 'nbd', 'disk'))
    full = blocks_kib(image)
    handle.trim(4 * MIB, 0)
    handle.flush()
    handle.flush()
    handle.shutdown()
    qmp.command('nbd-server-stop')
    qmp.command('blockdev-del', node_name='disk')
    assert full >= 8 * KIB
    assert blocks_kib(image) < full - 3 * KIB if passed else blocks_kib(image) >= full
    assert_clean(image)
    io(image, 'read -P 0 0 4M', 'read -P 1 4M 4M')


@pytest.mark.parametrize('passed', [True, False])
def test_storage_of_a_snapshot_is_given_back(daemon, tmp_path, passed):
    image = tmp_path / 'image'
    make(image, '8M', writes=('write -P 1 0 8M',), snapshots=0)
    run(need('qemu-img'), 'snapshot', '-c', 's', image)
    io(image, 'write -P 2 0 8M', tool='qemu-io')
    full = blocks_kib(image)
    qmp = daemon().qmp
    add(qmp, image, pass_discard_snapshot=passed)
    qmp.command('blockdev-snapshot-delete-internal-sync', device='disk', name='s')
    qmp.command('blockdev-del', node_name='disk')
    assert full >= 16 * KIB
    assert blocks_kib(image) < full - 7 * KIB if passed else blocks_kib(image) > full - KIB
    assert_clean(image)
    io(image, 'read -P 2 0 8M')


@pytest.mark.parametrize('passed', [True, False])
def test_storage_of_what_writes_replace_is_given_back(daemon, tmp_path, passed):
    """A compressed cluster cannot be written in place."""
    image = tmp_path / 'image'
    (tmp_path / 'raw').write_bytes(random.Random(1).randbytes(4 * MIB).hex().encode())
    run(need('qemu-img'), 'convert', '-c', '-f', 'raw', '-O', 'qcow2', tmp_path / 'raw', image)
    compressed = blocks_kib(image)
    assert compressed > 3 * KIB
    qmp = daemon().qmp
    add(qmp, image, pass_discard_other=passed)
    handle = connect(serve(qmp, tmp_path / 'nbd', 'disk'))
    for at in range(0, 8 * MIB, MIB):
        handle.pwrite(bytes([1]) * MIB, at)
    handle.flush()
    handle.flush()
    handle.shutdown()
    qmp.command('nbd-server-stop')
    qmp.command('blockdev-del', node_name='disk')
    assert blocks_kib(image) < 9 * KIB if passed else blocks_kib(image) >= 8 * KIB + compressed - 256
    assert_clean(image)
    io(image, 'read -P 1 0 8M')


def test_compressed_clusters_that_end_with_a_sector(tmp_path):
    """The next begins in the same cluster of the file, right behind; both go, and each takes its reference along."""
    image = tmp_path / 'image'
    (tmp_path / 'raw').write_bytes(random.Random(8).randbytes(2 * MIB).hex().encode())
    run(need('qemu-img'), 'convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', 'cluster_size=4k', tmp_path / 'raw', image)
    io(image, 'write -P 1 0 4M')
    assert_clean(image)


@pytest.mark.parametrize('mode,zeroes', [('off', False), ('on', True), ('unmap', True)])
def test_zeroes_are_detected(daemon, tmp_path, mode, zeroes):
    image = tmp_path / 'image'
    make(image, '4M', writes=('write -P 1 0 2M',))
    qmp = daemon().qmp
    add(qmp, image, detect_zeroes=mode)
    handle = connect(serve(qmp, tmp_path / 'nbd', 'disk'))
    handle.pwrite(bytes(MIB), 0)
    handle.shutdown()
    qmp.command('nbd-server-stop')
    qmp.command('blockdev-del', node_name='disk')
    first = extents(image)[0]
    assert first['length'] >= MIB
    assert first['zero'] == zeroes
    assert first['data'] != zeroes
    # Only where told to, the clusters are gone.
    assert ('offset' in first) == (mode != 'unmap')
    io(image, 'read -P 0 0 1M', 'read -P 1 1M 1M')
    assert_clean(image)


# --- requests that do not wait ---

def broken_off(image, event, first, *others):
    """`first` is held at the event, and all the others, which run meanwhile, end; then it goes on."""
    out = io(f'blkdebug::{image}', 'read -P 1 0 4k', f'break {event} A', first, 'wait_break A', *others, 'resume A',
             'aio_flush')
    assert out.index("Suspended request 'A'") < out.index("Resuming request 'A'")
    return out


@pytest.fixture
def two_tables(tmp_path):
    image = tmp_path / 'image'
    make(image, '64M', 'cluster_size=4k', writes=('write -P 1 0 64k', 'write -P 2 32M 64k'))
    return image


OTHERS = ['read -P 1 8k 4k', 'write -P 3 4k 4k', 'read -P 3 4k 4k', 'read -P 0 1M 4k']


@pytest.mark.parametrize('event,first,others', [
    ('l2_load', 'aio_read -P 2 32M 4k', [*OTHERS, 'write -P 4 256k 4k', 'read -P 4 256k 4k']),
    ('l2_load', 'aio_write -P 5 32M 4k', [*OTHERS, 'write -P 4 256k 4k', 'read -P 4 256k 4k']),
    ('cluster_alloc', 'aio_write -P 5 512k 4k', [*OTHERS, 'read -P 0 512k 4k']),
    ('read_aio', 'aio_read -P 1 32k 4k', [*OTHERS, 'write -P 4 256k 4k', 'read -P 4 256k 4k']),
    ('write_aio', 'aio_write -P 5 512k 4k', [*OTHERS, 'write -P 4 256k 4k', 'read -P 4 256k 4k', 'read -P 0 512k 4k']),
], ids=['table that is read', 'table that is changed', 'allocation', 'read', 'write'])
def test_hits_do_not_wait(two_tables, event, first, others):
    """Whoever finds its table in memory is not held up by somebody who waits for the file."""
    broken_off(two_tables, event, first, *others)
    io(two_tables, 'read -P 3 4k 4k', 'read -P 1 8k 4k')
    assert_clean(two_tables)


# --- memory ---

def touch_tables(uri, count):
    """A read in the range of each L2 table."""
    handle = connect(uri)
    for number in range(count):
        assert handle.pread(512, number * TABLE_RANGE) == bytes([1]) * 512
    handle.shutdown()


TABLE_RANGE = 512 * MIB


def test_memory_is_what_the_caches_may_have(daemon, tmp_path):
    """16 MiB of L2 tables are gone through, with little and with much room for them."""
    image, tables = tmp_path / 'image', 256
    make(image, tables * TABLE_RANGE, writes=())
    io(image, *[f'write -q -P 1 {number * TABLE_RANGE} 512' for number in range(tables)])
    one = daemon()
    grown = {}
    for cache in 512 * KIB, 32 * MIB:
        add(one.qmp, image, l2_cache_size=cache, l2_cache_entry_size=64 * KIB, cache_clean_interval=0)
        uri = serve(one.qmp, tmp_path / f'nbd-{cache}', 'disk')
        touch_tables(uri, 4)
        before = one.memory_kib()
        touch_tables(uri, tables)
        grown[cache] = one.memory_kib() - before
        one.qmp.command('nbd-server-stop')
        one.qmp.command('blockdev-del', node_name='disk')
    assert grown[512 * KIB] < memory_limit_kib(4 * KIB)
    assert grown[32 * MIB] > 12 * KIB


# --- shapes ---

@pytest.mark.parametrize('cluster_bits', range(9, 22))
def test_every_cluster_size(tmp_path, cluster_bits):
    image, size = tmp_path / 'image', 1 << cluster_bits
    run(program('ashlar-img'), 'create', '-q', '-f', 'qcow2', '-o', f'cluster_size={size}', image, '9M')
    io(image, f'write -P 1 {size - 512} 1024', 'write -P 2 5M 1M', 'write -z 5M 64k', f'write -c -P 3 {8 * MIB - 2 * MIB} 2M')
    assert_clean(image)
    io(image, f'read -P 1 {size - 512} 1024', 'read -P 0 5M 64k', 'read -P 2 5184k 832k', 'read -P 3 6M 2M',
       'write -P 4 7M 512', tool='qemu-io')
    io(image, 'read -P 4 7M 512', 'read -P 3 7340544 1000k', 'discard 5M 1M', 'read -P 3 6M 1M')
    assert_clean(image)


@pytest.mark.parametrize('bits', [1, 2, 4, 8, 16, 32, 64])
def test_every_width_of_counts(tmp_path, bits):
    image = tmp_path / 'image'
    run(program('ashlar-img'), 'create', '-q', '-f', 'qcow2', '-o', f'cluster_size=512,refcount_bits={bits}', image, '4M')
    io(image, 'write -P 1 0 1M', 'write -P 2 1M 1536', 'discard 0 64k', 'write -P 3 3M 700k')
    snapshots = min(2 ** bits - 2, 3)
    for number in range(snapshots):
        run(program('ashlar-img'), 'snapshot', '-c', f's{number}', image)
    if bits <= 2:
        refused = run(program('ashlar-img'), 'snapshot', '-c', 'more', image, check=False)
        assert refused.returncode == 1
        assert f'the highest count that {bits} bits can say, {2 ** bits - 1}' in refused.stderr
        assert 'more' not in run(program('ashlar-img'), 'snapshot', '-l', image).stdout
    assert_clean(image)
    io(image, 'read -P 1 64k 960k', 'read -P 2 1M 1536', 'write -P 5 128k 64k', tool='qemu-io')
    io(image, 'read -P 5 128k 64k', 'read -P 3 3M 700k')
    assert_clean(image)


@pytest.mark.parametrize('mode', ['off', 'metadata', 'falloc', 'full'])
def test_growing_with_preallocation(tmp_path, mode):
    image = tmp_path / 'image'
    make(image, '2M', 'cluster_size=4k', writes=('write -P 1 0 2M',))
    before = blocks_kib(image)
    run(program('ashlar-img'), 'resize', '-q', f'--preallocation={mode}', image, '32M')
    assert_clean(image)
    new = [extent for extent in extents(image) if extent['start'] >= 2 * MIB]
    assert all(('offset' in extent) == (mode != 'off') for extent in new)
    assert (blocks_kib(image) - before >= 30 * KIB) == (mode in ('falloc', 'full'))
    io(image, 'read -P 1 0 2M', 'read -P 0 2M 30M', 'write -P 2 31M 1M', tool='qemu-io')
    run(program('ashlar-img'), 'resize', '-q', '--shrink', image, '1M')
    assert_clean(image)
    io(image, 'read -P 1 0 1M')
