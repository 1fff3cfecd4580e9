# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockdev-backup: the copy is that of the moment in which the job began, whatever is written meanwhile."""
import os

import pytest
from harness import QmpError, wait_for
from job_tools import (MIB, SUCCESS, add_file, allocated, connect, content, random_image, serve, stage, story, writing)

SIZE = 24 * MIB + 512


@pytest.fixture
def disks(daemon, tmp_path):
    """A daemon with 'src' and an empty 'dst' of the same size."""
    one = daemon()
    one.source = tmp_path / 'src'
    one.target = tmp_path / 'dst'
    one.before = random_image(one.source, SIZE, (0, 3 * MIB), (10 * MIB + 4096, MIB), (SIZE - 700, 700))
    random_image(one.target, SIZE)
    add_file(one.qmp, 'src', one.source)
    add_file(one.qmp, 'dst', one.target, discard='unmap')
    return one


def backup(qmp, **options):
    return qmp.command('blockdev-backup', **{'job_id': 'j', 'device': 'src', 'target': 'dst', 'sync': 'full', **options})


def test_full_is_equal_and_sparse(disks):
    backup(disks.qmp)
    assert story(disks.qmp, 'j') == SUCCESS
    assert content(disks.target) == disks.before
    assert allocated(disks.target) <= 5 * MIB


def test_full_while_clients_write(disks, tmp_path):
    uri = serve(disks.qmp, tmp_path / 'nbd', 'src')
    with writing(uri, SIZE - 512) as written:
        backup(disks.qmp, speed=20 * MIB)
        # What a client writes from here on is not in the copy; what it wrote before may be: so its first state counts.
        stage(disks.qmp, 'j', 'null')
    assert written
    copy = content(disks.target)
    source = content(disks.source)
    for at, data in written.items():
        assert source[at:at + 4096] == data
    # All that no client has touched is as it was.
    untouched = bytearray(disks.before)
    for at in written:
        untouched[at:at + 4096] = copy[at:at + 4096]
    assert copy == bytes(untouched)


def test_point_in_time(disks, tmp_path):
    """A job that has hardly begun, and a client that overwrites everything."""
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    backup(disks.qmp, speed=1)
    for at in range(0, SIZE, MIB):
        length = min(MIB, SIZE - at)
        if at % (2 * MIB):
            handle.zero(length, at)
        else:
            handle.pwrite(b'\x5a' * length, at)
    handle.flush()
    handle.shutdown()
    disks.qmp.command('block-job-set-speed', device='j', speed=0)
    stage(disks.qmp, 'j', 'null')
    assert content(disks.target) == disks.before


def test_none_keeps_only_what_is_overwritten(disks, tmp_path):
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    backup(disks.qmp, sync='none')
    handle.pwrite(b'new!' * 1024, MIB + 4096)
    handle.shutdown()
    disks.qmp.command('block-job-cancel', device='j')
    assert story(disks.qmp, 'j') == ['created', 'running', 'aborting', 'CANCELLED', 'concluded', 'null']
    copy = content(disks.target)
    assert copy[MIB:MIB + 65536] == disks.before[MIB:MIB + 65536]
    assert not any(copy[:MIB]) and not any(copy[MIB + 65536:])


@pytest.mark.parametrize('mode, after', [('on-success', 65536), ('never', 2 * 65536), ('always', 65536)])
def test_bitmap(disks, tmp_path, mode, after):
    """Only what is marked is copied; then the bitmap is as its mode says, plus what was written during the job."""
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    disks.qmp.command('block-dirty-bitmap-add', node='src', name='b', granularity=65536)
    handle.pwrite(b'one.' * 1024, MIB)
    backup(disks.qmp, sync='bitmap', bitmap='b', bitmap_mode=mode, auto_finalize=False)
    stage(disks.qmp, 'j', 'pending')
    handle.pwrite(b'two.' * 1024, 4 * MIB)
    handle.shutdown()
    disks.qmp.command('job-finalize', id='j')
    stage(disks.qmp, 'j', 'null')
    expected = bytearray(SIZE)
    expected[MIB:MIB + 65536] = disks.before[MIB:MIB + 65536]
    expected[MIB:MIB + 4096] = b'one.' * 1024
    assert content(disks.target) == bytes(expected)
    nodes = {node['node-name']: node for node in disks.qmp.command('query-named-block-nodes')}
    bitmap, = nodes['src']['dirty-bitmaps']
    assert bitmap['count'] == after and not bitmap['busy']


def test_incremental_chain(disks, tmp_path):
    """Full, then increments onto the same copy: in the end it equals the source."""
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    disks.qmp.command('block-dirty-bitmap-add', node='src', name='b')
    backup(disks.qmp)
    stage(disks.qmp, 'j', 'null')
    for step in range(3):
        handle.pwrite(bytes([step + 1]) * 4096, step * 5 * MIB)
        handle.zero(65536, step * MIB)
        backup(disks.qmp, sync='incremental', bitmap='b')
        stage(disks.qmp, 'j', 'null')
        assert content(disks.target) == content(disks.source)
    handle.shutdown()


def test_cancelled_bitmap_is_as_before(disks, tmp_path):
    handle = connect(serve(disks.qmp, tmp_path / 'nbd', 'src'))
    disks.qmp.command('block-dirty-bitmap-add', node='src', name='b', granularity=65536)
    handle.pwrite(b'one.' * 1024, MIB)
    handle.pwrite(b'one.' * 1024, 8 * MIB)
    backup(disks.qmp, sync='incremental', bitmap='b', auto_finalize=False)
    stage(disks.qmp, 'j', 'pending')
    with pytest.raises(QmpError, match='is currently in use'):
        disks.qmp.command('block-dirty-bitmap-remove', node='src', name='b')
    handle.pwrite(b'two.' * 1024, 4 * MIB)
    handle.shutdown()
    disks.qmp.command('job-cancel', id='j')
    stage(disks.qmp, 'j', 'null')
    nodes = {node['node-name']: node for node in disks.qmp.command('query-named-block-nodes')}
    assert nodes['src']['dirty-bitmaps'][0]['count'] == 3 * 65536


def test_pause_speed_and_cancel(disks):
    """A limit holds, a pause stops, a new limit counts at once."""
    backup(disks.qmp, speed=1)
    disks.qmp.command('job-pause', id='j')
    stage(disks.qmp, 'j', 'paused')
    info, = disks.qmp.command('query-block-jobs')
    assert (info['status'], info['paused'], info['speed'], info['busy']) == ('paused', True, 1, False)
    assert info['offset'] <= 2 * MIB
    disks.qmp.command('block-job-set-speed', device='j', speed=0)
    disks.qmp.command('job-resume', id='j')
    stage(disks.qmp, 'j', 'null')
    assert content(disks.target) == disks.before


def thread_names(pid):
    names = []
    for task in os.listdir(f'/proc/{pid}/task'):
        try:
            with open(f'/proc/{pid}/task/{task}/comm') as comm:
                names.append(comm.read().strip())
        except OSError:
            pass  # it has ended meanwhile
    return names


def test_copying_has_a_thread_of_its_own(disks):
    """It comes with the job's first request, and goes with the job."""
    assert 'copy' not in thread_names(disks.pid)
    backup(disks.qmp, speed=1)
    wait_for(lambda: 'copy' in thread_names(disks.pid), 'the thread that copies')
    disks.qmp.command('job-cancel', id='j')
    stage(disks.qmp, 'j', 'null')
    wait_for(lambda: 'copy' not in thread_names(disks.pid), 'its end')


def fsize_limit():
    """For the daemon: files end at 4 MiB."""
    import resource
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))


def test_failing_target(daemon, tmp_path):
    one = daemon(preexec_fn=fsize_limit)
    random_image(tmp_path / 'src', 8 * MIB, (0, 8 * MIB))
    random_image(tmp_path / 'dst', 8 * MIB)
    add_file(one.qmp, 'src', tmp_path / 'src')
    add_file(one.qmp, 'dst', tmp_path / 'dst')
    backup(one.qmp, **{'x-perf': {'max-workers': 1}})
    assert story(one.qmp, 'j') == ['created', 'running', 'ERROR', 'aborting', 'COMPLETED', 'concluded', 'null']
    # 'stop' waits until somebody says to go on, or gives up.
    backup(one.qmp, on_target_error='stop', **{'x-perf': {'max-workers': 1}})
    assert story(one.qmp, 'j', 'paused') == ['created', 'running', 'ERROR', 'paused']
    info, = one.qmp.command('query-block-jobs')
    assert info['io-status'] == 'failed'
    one.qmp.command('job-resume', id='j')
    assert story(one.qmp, 'j', 'paused') == ['running', 'ERROR', 'paused']
    one.qmp.command('job-cancel', id='j')
    assert story(one.qmp, 'j') == ['running', 'aborting', 'CANCELLED', 'concluded', 'null']


def test_failing_source(disks):
    """Somebody has cut the file behind our back."""
    os.truncate(disks.source, 2 * MIB)
    backup(disks.qmp, on_source_error='ignore')
    event = disks.qmp.event('BLOCK_JOB_ERROR')
    assert event['data'] == {'device': 'j', 'operation': 'read', 'action': 'ignore'}
    os.truncate(disks.source, SIZE)
    stage(disks.qmp, 'j', 'null')
    expected = bytearray(disks.before)
    expected[2 * MIB:] = bytes(SIZE - 2 * MIB)
    assert content(disks.target) == bytes(expected)


def test_broken_snapshot_or_write(daemon, tmp_path):
    """A filter of our own that cannot save: the write fails, or the saved state is lost."""
    for mode, works in [('break-guest-write', False), ('break-snapshot', True)]:
        one = daemon(preexec_fn=fsize_limit)
        random_image(tmp_path / 'src', 4 * MIB, (0, 4 * MIB))
        random_image(tmp_path / 'dst', 4 * MIB)
        os.truncate(tmp_path / 'dst', 8 * MIB)
        os.truncate(tmp_path / 'src', 8 * MIB)
        add_file(one.qmp, 'src', tmp_path / 'src')
        add_file(one.qmp, 'dst', tmp_path / 'dst')
        one.qmp.command('blockdev-add', driver='copy-before-write', node_name='cbw', file='src', target='dst',
                        on_cbw_error=mode)
        handle = connect(serve(one.qmp, tmp_path / f'nbd-{mode}', 'cbw'))
        handle.pwrite(bytes(4096), 0)
        os.truncate(tmp_path / 'dst', 0)
        import nbd
        try:
            os.truncate(tmp_path / 'src', 0)
            handle.pwrite(b'x' * 4096, MIB)
            result = True
        except nbd.Error:
            result = False
        assert result == works
        handle.shutdown()
        one.stop()


@pytest.mark.parametrize('options, message', [
    ({'device': 'no'}, "Cannot find device='no' nor node-name='no'"),
    ({'target': 'no'}, "Cannot find device='no' nor node-name='no'"),
    ({'target': 'src'}, 'Source and target cannot be the same'),
    ({'target': 'small'}, 'Source and target image have different sizes'),
    ({'sync': 'incremental'}, "must provide a valid bitmap name for 'incremental' sync mode"),
    ({'sync': 'bitmap', 'bitmap': 'x'}, "Bitmap 'x' could not be found"),
    ({'bitmap_mode': 'never'}, 'Cannot specify bitmap sync mode without a bitmap'),
    ({'compress': True}, 'Compression is not supported for this drive'),
    ({'x-perf': {'max-workers': 0}}, 'max-workers must be between 1 and 2147483647'),
    ({'x-perf': {'max-chunk': -1}}, 'max-chunk must be zero (which means no limit) or positive'),
    ({'x-perf': {'max-chunk': 1}}, 'Required max-chunk (1) is less than backup cluster size (65536)'),
    ({'speed': -1}, "Parameter 'speed' expects a non-negative value"),
    ({'job_id': '1'}, "Invalid job ID '1'"),
    ({'filter_node_name': 'dst'}, "Duplicate nodes with node-name='dst'"),
])
def test_refusals(disks, tmp_path, options, message):
    random_image(tmp_path / 'small', MIB)
    add_file(disks.qmp, 'small', tmp_path / 'small')
    with pytest.raises(QmpError) as failure:
        backup(disks.qmp, **options)
    assert message in failure.value.desc
    assert disks.qmp.command('query-jobs') == []
    assert len(disks.qmp.command('query-named-block-nodes')) == 3
    disks.qmp.command('blockdev-del', node_name='src')


def test_target_in_use(disks):
    backup(disks.qmp, speed=1)
    with pytest.raises(QmpError, match="Node 'dst' is busy: block device is in use by block job: backup"):
        backup(disks.qmp, job_id='k')
    with pytest.raises(QmpError, match="Job ID 'j' already in use"):
        backup(disks.qmp)
    with pytest.raises(QmpError, match="Node dst is in use: by block job: backup"):
        disks.qmp.command('blockdev-del', node_name='dst')


def test_quit_cancels(disks):
    backup(disks.qmp, speed=1)
    disks.qmp.command('quit')
    assert story(disks.qmp, 'j') == ['created', 'running', 'aborting', 'CANCELLED', 'concluded', 'null']
