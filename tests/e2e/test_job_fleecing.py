# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fleecing: a backup program reads over NBD what a disk was at one moment, while its user goes on writing."""
import random

import nbd
import pytest
from harness import QmpError, need, run
from job_tools import MIB, add_file, connect, content, more_writes, random_image, serve, stage, writing

SIZE = 16 * MIB


@pytest.fixture
def fleecing(daemon, tmp_path):
    """A disk 'src' below the filter 'cbw', exported as 'x'; its old state is 'old', exported as 'y'."""
    def start(**options):
        one = daemon()
        one.before = random_image(tmp_path / 'src', SIZE, (0, 6 * MIB), (8 * MIB, MIB))
        random_image(tmp_path / 'tmp', SIZE)
        add_file(one.qmp, 'src', tmp_path / 'src')
        add_file(one.qmp, 'tmp', tmp_path / 'tmp')
        one.qmp.command('block-dirty-bitmap-add', node='src', name='b', granularity=65536)
        one.uri = serve(one.qmp, tmp_path / 'nbd', 'src')
        handle = connect(one.uri)
        handle.pwrite(b'mark' * 1024, 2 * MIB)
        handle.shutdown()
        one.qmp.command('block-export-del', id='exp', mode='hard')
        one.before = content(tmp_path / 'src')
        one.qmp.command('blockdev-add', driver='copy-before-write', node_name='cbw', file='src', target='tmp', **options)
        one.qmp.command('block-export-add', type='nbd', id='exp', node_name='cbw', name='x', writable=True)
        one.qmp.command('blockdev-add', driver='snapshot-access', node_name='old', file='cbw')
        one.qmp.command('block-export-add', type='nbd', id='old', node_name='old', name='y')
        one.old_uri = one.uri.replace('/x?', '/y?')
        return one
    return start


def test_old_state_under_writes(fleecing):
    one = fleecing()
    source = random.Random(3)
    with writing(one.uri, SIZE) as written:
        handle = connect(one.old_uri)
        while written.operations < 500:
            at = source.randrange(SIZE - 70000)
            assert handle.pread(70000, at) == one.before[at:at + 70000]
        for at in range(0, SIZE, MIB):
            assert handle.pread(MIB, at) == one.before[at:at + MIB]
        handle.shutdown()


def test_only_what_the_bitmap_marks(fleecing):
    one = fleecing(bitmap={'node': 'src', 'name': 'b'})
    handle = connect(one.uri)
    handle.pwrite(b'new.' * 1024, 2 * MIB)
    old = connect(one.old_uri)
    assert old.pread(65536, 2 * MIB) == one.before[2 * MIB:2 * MIB + 65536]
    with pytest.raises(nbd.Error):
        old.pread(65536, 4 * MIB)
    old.shutdown()
    handle.shutdown()


def test_copied_by_a_job(fleecing, tmp_path):
    """The old state is the source of a job, while the disk is written to."""
    one = fleecing()
    random_image(tmp_path / 'copy', SIZE)
    add_file(one.qmp, 'copy', tmp_path / 'copy')
    with writing(one.uri, SIZE):
        one.qmp.command('blockdev-backup', job_id='j', device='old', target='copy', sync='full')
        stage(one.qmp, 'j', 'null')
    assert content(tmp_path / 'copy') == one.before


def test_needs_the_filter(fleecing):
    with pytest.raises(QmpError, match="Node 'tmp' has no snapshot to access"):
        fleecing().qmp.command('blockdev-add', driver='snapshot-access', node_name='o', file='tmp')


def dirty_extents(uri, bitmap, size):
    """The ranges (offset, bytes) that a bitmap's context marks, as a backup client asks for them."""
    client = nbd.NBD()
    context = f'qemu:dirty-bitmap:{bitmap}'
    client.add_meta_context(context)
    client.connect_uri(uri)
    found = []
    at = 0
    while at < size:
        run_of = []
        client.block_status(size - at, at, lambda name, offset, entries, error: run_of.extend(entries))
        for length, dirty in zip(run_of[::2], run_of[1::2]):
            if dirty:
                found.append((at, length))
            at += length
    client.shutdown()
    return found


def pull(uri, ranges, image):
    """Reads the ranges over NBD into a copy of the disk, a bytearray."""
    client = connect(uri)
    for offset, length in ranges:
        for at in range(offset, offset + length, MIB):
            count = min(MIB, offset + length - at)
            image[at:at + count] = client.pread(count, at)
    client.shutdown()


class PullBackups:
    """Backups that a client pulls: what has been overwritten since their moment lies in an overlay, which is exported with a bitmap."""

    def __init__(self, one, tmp_path):
        self.one = one
        self.path = tmp_path
        self.count = 0

    def begin(self, node, bitmap, following, **options):
        """One moment: the old bitmap stops, another one begins, and the old state is kept. Returns its URI."""
        self.count += 1
        name = f'fleece{self.count}'
        image = self.path / f'fleece{self.count}.qcow2'
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', image, SIZE)
        self.one.qmp.command('blockdev-add', driver='qcow2', node_name=name, file={'driver': 'file', 'filename': str(image)},
                             backing=node)
        actions = [{'type': 'block-dirty-bitmap-add', 'data': {'node': node, 'name': following}}]
        if bitmap:
            actions.append({'type': 'block-dirty-bitmap-disable', 'data': {'node': node, 'name': bitmap}})
        actions.append({'type': 'blockdev-backup', 'data': {'job-id': name, 'device': node, 'target': name, 'sync': 'none', **options}})
        self.one.qmp.command('transaction', actions=actions)
        self.one.qmp.command('block-export-add', type='nbd', id=name, node_name=name, name=name,
                             **({'bitmaps': [{'node': node, 'name': bitmap}]} if bitmap else {}))
        return f'nbd+unix:///{name}?socket={self.path}/nbd'

    def end(self, node, bitmap):
        name = f'fleece{self.count}'
        self.one.qmp.command('block-export-del', id=name, mode='hard')
        self.one.qmp.event('BLOCK_EXPORT_DELETED')
        self.one.qmp.command('job-cancel', id=name)
        stage(self.one.qmp, name, 'null')
        self.one.qmp.command('blockdev-del', node_name=name)
        if bitmap:
            self.one.qmp.command('block-dirty-bitmap-remove', node=node, name=bitmap)


def test_pulled_full_then_increments_then_restored(daemon, tmp_path):
    """A whole life: a full backup and two increments, pulled under writes; the sum of them is the disk of the last moment."""
    one = daemon()
    random_image(tmp_path / 'base.raw', SIZE, (0, 6 * MIB), (8 * MIB, MIB))
    run(need('qemu-img'), 'convert', '-O', 'qcow2', tmp_path / 'base.raw', tmp_path / 'disk.qcow2')
    one.qmp.command('blockdev-add', driver='qcow2', node_name='disk', file={'driver': 'file', 'filename': str(tmp_path / 'disk.qcow2')})
    uri = serve(one.qmp, tmp_path / 'nbd', 'disk')
    backups = PullBackups(one, tmp_path)
    with writing(uri, SIZE // 2) as written:
        full = backups.begin('disk', None, 'b0')
        more_writes(written, 50)
        run(need('nbdcopy'), full, tmp_path / 'full.raw')
        backups.end('disk', None)
        copy = bytearray(content(tmp_path / 'full.raw'))
        for number in range(2):
            more_writes(written, 20)
            increment = backups.begin('disk', f'b{number}', f'b{number + 1}')
            more_writes(written, 20)
            dirty = dirty_extents(increment, f'b{number}', SIZE)
            assert 0 < sum(length for _, length in dirty) < SIZE
            pull(increment, dirty, copy)
            whole = bytearray(SIZE)
            pull(increment, [(0, SIZE)], whole)
            assert copy == whole
            backups.end('disk', f'b{number}')
    # The last one, of a disk that nobody writes to: restored, it is the disk.
    last = backups.begin('disk', 'b2', 'b3')
    pull(last, dirty_extents(last, 'b2', SIZE), copy)
    backups.end('disk', 'b2')
    (tmp_path / 'restored.raw').write_bytes(copy)
    one.qmp.command('block-export-del', id='exp', mode='hard')
    one.stop()
    run(need('qemu-img'), 'compare', '-f', 'raw', '-F', 'qcow2', tmp_path / 'restored.raw', tmp_path / 'disk.qcow2')


def test_increment_by_the_filter(fleecing):
    """The same with the filters alone: only what the bitmap marks is kept, and only that can be read."""
    one = fleecing(bitmap={'node': 'src', 'name': 'b'})
    one.qmp.command('block-export-add', type='nbd', id='marks', node_name='old', name='marks', bitmaps=[{'node': 'src', 'name': 'b'}])
    marks = one.uri.replace('/x?', '/marks?')
    dirty = dirty_extents(marks, 'b', SIZE)
    assert dirty == [(2 * MIB, 65536)]
    with writing(one.uri, 4 * MIB) as written:
        more_writes(written, 200)
        copy = bytearray(SIZE)
        pull(marks, dirty, copy)
    assert copy[2 * MIB:2 * MIB + 65536] == one.before[2 * MIB:2 * MIB + 65536]
