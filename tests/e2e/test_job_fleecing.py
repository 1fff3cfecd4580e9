# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fleecing: a backup program reads over NBD what a disk was at one moment, while its user goes on writing."""
import random

import nbd
import pytest
from harness import QmpError
from job_tools import MIB, add_file, connect, content, random_image, serve, stage, writing

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
