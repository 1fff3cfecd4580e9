# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockdev-mirror: the copy follows its source while clients write, and takes its place without their noticing."""
import os

import pytest
from harness import QmpError, need, run
from job_tools import (MIB, add_file, allocated, connect, content, random_image, more_writes, serve, stage, story, writing)

SIZE = 24 * MIB

FOLLOWING = ['created', 'running', 'ready', 'READY']


@pytest.fixture
def disks(daemon, tmp_path):
    one = daemon()
    one.source = tmp_path / 'src'
    one.target = tmp_path / 'dst'
    one.before = random_image(one.source, SIZE, (0, 3 * MIB), (10 * MIB + 4096, MIB))
    random_image(one.target, SIZE)
    add_file(one.qmp, 'src', one.source)
    add_file(one.qmp, 'dst', one.target, discard='unmap')
    return one


def mirror(qmp, **options):
    return qmp.command('blockdev-mirror', **{'job_id': 'j', 'device': 'src', 'target': 'dst', 'sync': 'full', **options})


def root_of(qmp, user):
    """The node that a handle is on."""
    graph = qmp.command('x-debug-query-block-graph')
    names = {node['id']: node['name'] for node in graph['nodes']}
    return next(names[edge['child']] for edge in graph['edges'] if names[edge['parent']] == user)


@pytest.mark.parametrize('options', [{}, {'granularity': 16 * MIB, 'buf_size': MIB}, {'granularity': 0, 'buf_size': 0},
                                     {'replaces': 'src', 'sync': 'top'}], ids=['default', 'coarse', 'zeroes', 'itself'])
def test_idle_source(disks, options):
    mirror(disks.qmp, **options)
    assert story(disks.qmp, 'j', 'ready') == FOLLOWING[:-1]
    disks.qmp.command('job-complete', id='j')
    assert story(disks.qmp, 'j') == ['READY', 'waiting', 'pending', 'COMPLETED', 'concluded', 'null']
    assert content(disks.target) == disks.before
    assert allocated(disks.target) <= 5 * MIB


@pytest.mark.parametrize('options', [{}, {'granularity': 512}, {'copy_mode': 'write-blocking'}],
                         ids=['default', 'fine', 'write-blocking'])
def test_completes_under_writes(disks, tmp_path, options):
    """Clients write all the time; in the end they write to the copy, and nothing they wrote is missing."""
    disks.qmp.command('object-add', qom_type='iothread', id='t')
    uri = serve(disks.qmp, tmp_path / 'nbd', 'src', iothread='t')
    with writing(uri, SIZE) as written:
        mirror(disks.qmp, **options)
        assert len(disks.qmp.command('query-named-block-nodes')) == 3
        stage(disks.qmp, 'j', 'ready')
        disks.qmp.command('job-complete', id='j')
        stage(disks.qmp, 'j', 'null')
        assert root_of(disks.qmp, "block export 'exp'") == 'dst'
        more_writes(written, 20)
    expected = bytearray(disks.before)
    for at, data in written.items():
        expected[at:at + 4096] = data
    assert content(disks.target) == bytes(expected)


def test_completes_under_fio(disks, tmp_path):
    """The same with a client that checks what it wrote."""
    uri = serve(disks.qmp, tmp_path / 'nbd', 'src')
    mirror(disks.qmp, speed=8 * MIB)
    fio = ['--name=v', '--ioengine=nbd', f'--uri={uri}', '--rw=randwrite', '--bs=4k', '--iodepth=16',
           f'--size={SIZE}', '--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--verify_backlog=512']
    disks.qmp.command('block-job-set-speed', device='j', speed=0)
    run(need('fio'), *fio, cwd=tmp_path)
    stage(disks.qmp, 'j', 'ready')
    disks.qmp.command('job-complete', id='j')
    stage(disks.qmp, 'j', 'null')
    assert content(disks.target) == content(disks.source)


def test_soft_cancel_leaves_a_whole_copy(disks, tmp_path):
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    mirror(disks.qmp)
    stage(disks.qmp, 'j', 'ready')
    handle.pwrite(b'late' * 1024, 5 * MIB)
    disks.qmp.command('block-job-cancel', device='j')
    assert story(disks.qmp, 'j') == ['READY', 'waiting', 'pending', 'COMPLETED', 'concluded', 'null']
    assert root_of(disks.qmp, "block export 'exp'") == 'src'
    assert content(disks.target) == content(disks.source)
    handle.pwrite(b'more' * 1024, 6 * MIB)
    handle.shutdown()
    assert content(disks.target)[6 * MIB:6 * MIB + 4096] == bytes(4096)


def test_write_blocking_is_always_in_sync(disks, tmp_path):
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    mirror(disks.qmp)
    stage(disks.qmp, 'j', 'ready')
    with pytest.raises(QmpError, match="is 'mirror' job, not 'backup'"):
        disks.qmp.command('block-job-change', id='j', type='backup')
    assert not disks.qmp.command('query-block-jobs')[0]['actively-synced']
    disks.qmp.command('block-job-change', id='j', type='mirror', copy_mode='write-blocking')
    handle.pwrite(b'both' * 1000, 7 * MIB + 100)
    handle.zero(65536, 0)
    assert content(disks.target)[:8 * MIB] == content(disks.source)[:8 * MIB]
    assert disks.qmp.command('query-block-jobs')[0]['actively-synced']
    with pytest.raises(QmpError, match="Cannot switch copy mode to 'background'"):
        disks.qmp.command('block-job-change', id='j', type='mirror', copy_mode='background')
    handle.shutdown()
    disks.qmp.command('job-cancel', id='j')
    stage(disks.qmp, 'j', 'null')


def test_none_copies_what_is_written(disks, tmp_path):
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    mirror(disks.qmp, sync='none')
    stage(disks.qmp, 'j', 'ready')
    handle.pwrite(b'late' * 1024, 5 * MIB)
    handle.shutdown()
    disks.qmp.command('block-job-cancel', device='j')
    stage(disks.qmp, 'j', 'null')
    copy = content(disks.target)
    assert copy[5 * MIB:5 * MIB + 4096] == b'late' * 1024
    assert not any(copy[:5 * MIB])


def test_pending_copy_still_follows(disks, tmp_path):
    """Between the end of the work and job-finalize, clients go on writing."""
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    mirror(disks.qmp, auto_finalize=False, auto_dismiss=False)
    stage(disks.qmp, 'j', 'ready')
    disks.qmp.command('job-complete', id='j')
    stage(disks.qmp, 'j', 'pending')
    handle.pwrite(b'late' * 1024, 5 * MIB)
    disks.qmp.command('job-finalize', id='j')
    assert disks.qmp.command('query-jobs')[0]['status'] == 'concluded'
    disks.qmp.command('job-dismiss', id='j')
    handle.pwrite(b'more' * 1024, 6 * MIB)
    handle.shutdown()
    copy = content(disks.target)
    assert copy[5 * MIB:5 * MIB + 4096] == b'late' * 1024
    assert copy[6 * MIB:6 * MIB + 4096] == b'more' * 1024
    disks.qmp.command('blockdev-del', node_name='src')


def test_replaces_a_child(disks, tmp_path):
    """The file below a format is replaced, not the format."""
    random_image(tmp_path / 'other', SIZE)
    add_file(disks.qmp, 'other', tmp_path / 'other')
    disks.qmp.command('blockdev-add', driver='raw', node_name='top', file='src')
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'top'))
    mirror(disks.qmp, device='top', target='other', replaces='src')
    stage(disks.qmp, 'j', 'ready')
    disks.qmp.command('job-complete', id='j')
    stage(disks.qmp, 'j', 'null')
    handle.pwrite(b'late' * 1024, 5 * MIB)
    handle.shutdown()
    assert content(tmp_path / 'other')[5 * MIB:5 * MIB + 4096] == b'late' * 1024
    disks.qmp.command('blockdev-del', node_name='src')


def test_target_is_zero(daemon, tmp_path):
    """A target that cannot say that it is zero is spared zeroes when somebody else says so."""
    one = daemon()
    before = random_image(tmp_path / 'src', SIZE, (MIB, MIB))
    random_image(tmp_path / 'dst', SIZE)
    add_file(one.qmp, 'src', tmp_path / 'src')
    add_file(one.qmp, 'dst', tmp_path / 'dst')
    mirror(one.qmp, target_is_zero=True)
    stage(one.qmp, 'j', 'ready')
    assert one.qmp.command('query-block-jobs')[0]['offset'] <= 3 * MIB
    one.qmp.command('job-complete', id='j')
    stage(one.qmp, 'j', 'null')
    assert content(tmp_path / 'dst') == before


def test_errors_and_stop(disks):
    os.truncate(disks.source, 2 * MIB)
    mirror(disks.qmp, on_source_error='stop')
    assert story(disks.qmp, 'j', 'paused')[-2:] == ['ERROR', 'paused']
    os.truncate(disks.source, SIZE)
    disks.qmp.command('job-resume', id='j')
    stage(disks.qmp, 'j', 'ready')
    disks.qmp.command('job-complete', id='j')
    stage(disks.qmp, 'j', 'null')
    assert content(disks.target) == content(disks.source)
    os.truncate(disks.source, 2 * MIB)
    mirror(disks.qmp)
    assert story(disks.qmp, 'j')[-6:] == ['running', 'ERROR', 'aborting', 'COMPLETED', 'concluded', 'null']


@pytest.mark.parametrize('options, message', [
    ({'device': 'no'}, "Cannot find device='no' nor node-name='no'"),
    ({'target': 'no'}, "Cannot find device='no' nor node-name='no'"),
    ({'target': 'src'}, "Can't mirror node into itself"),
    ({'target': 'small'}, 'Source and target image have different sizes'),
    ({'granularity': 3}, "Parameter 'granularity' expects a value in range [512B, 64MB]"),
    ({'granularity': 128 * MIB}, "Parameter 'granularity' expects a value in range [512B, 64MB]"),
    ({'granularity': 4097}, "Parameter 'granularity' expects a power of 2"),
    ({'buf_size': -1}, "Invalid parameter 'buf-size'"),
    ({'speed': -1}, "Parameter 'speed' expects a non-negative value"),
    ({'sync': 'incremental'}, "Sync mode 'incremental' not supported"),
    ({'sync': 'bitmap'}, "Sync mode 'bitmap' not supported"),
    ({'replaces': 'low', 'sync': 'none'}, "Parameter 'replaces' needs sync mode 'full', and it is 'none'"),
    ({'replaces': 'zz'}, "Failed to find node with node-name='zz'"),
    ({'replaces': 'dst'}, "Cannot replace 'dst' by a node mirrored from 'src'"),
    ({'filter_node_name': 'dst'}, "Duplicate nodes with node-name='dst'"),
    ({'job_id': '!'}, "Invalid job ID '!'"),
])
def test_refusals(disks, tmp_path, options, message):
    random_image(tmp_path / 'small', MIB)
    add_file(disks.qmp, 'small', tmp_path / 'small')
    disks.qmp.command('blockdev-add', driver='null-co', node_name='low', size=SIZE)
    with pytest.raises(QmpError) as failure:
        mirror(disks.qmp, **options)
    assert message in failure.value.desc
    assert disks.qmp.command('query-jobs') == []
    for node in ['src', 'dst', 'small']:
        disks.qmp.command('blockdev-del', node_name=node)


def test_two_at_once_and_quit(disks, tmp_path):
    """A mirror of what is being mirrored, and both end with the daemon."""
    random_image(tmp_path / 'third', SIZE)
    add_file(disks.qmp, 'third', tmp_path / 'third')
    mirror(disks.qmp, filter_node_name='f')
    mirror(disks.qmp, job_id='k', device='f', target='third')
    stage(disks.qmp, 'k', 'ready')
    disks.qmp.command('quit')
    assert story(disks.qmp, 'k')[-3:] == ['CANCELLED', 'concluded', 'null']
    assert content(tmp_path / 'third') == disks.before
