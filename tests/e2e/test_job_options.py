# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options of jobs that the other files leave out, and what happens around a job: errors, slow targets, clients that leave."""
import nbd
import pytest
from harness import Qmp, need, run
from job_tools import MIB, add_file, allocated, connect, content, more_writes, random_image, raw_image, serve, stage, writing

SIZE = 8 * MIB


@pytest.fixture
def disks(daemon, tmp_path):
    one = daemon()
    one.source, one.target = tmp_path / 'src', tmp_path / 'dst'
    one.before = random_image(one.source, SIZE, (0, 2 * MIB), (4 * MIB, MIB))
    raw_image(one.target, SIZE)
    add_file(one.qmp, 'src', one.source, discard='unmap')
    return one


def test_discard_source(disks):
    """What has been copied is given back; a target that has it all is left."""
    add_file(disks.qmp, 'dst', disks.target)
    disks.qmp.command('blockdev-backup', job_id='j', device='src', target='dst', sync='full', discard_source=True)
    stage(disks.qmp, 'j', 'null')
    assert content(disks.target) == disks.before
    assert allocated(disks.source) < MIB


@pytest.mark.parametrize('on_error', ['break-guest-write', 'break-snapshot'])
def test_saving_takes_too_long(disks, tmp_path, on_error):
    """A second, and a target that lets a byte a second through: either the guest's write fails, or the old state is lost."""
    disks.qmp.command('object-add', qom_type='throttle-group', id='slow', limits={'bps-write': 1000})
    disks.qmp.command('blockdev-add', driver='throttle', node_name='dst', throttle_group='slow',
                      file={'driver': 'file', 'filename': str(disks.target)})
    disks.qmp.command('blockdev-add', driver='copy-before-write', node_name='cbw', file='src', target='dst', cbw_timeout=1,
                      on_cbw_error=on_error)
    disks.qmp.command('blockdev-add', driver='snapshot-access', node_name='old', file='cbw')
    uri = serve(disks.qmp, tmp_path / 'nbd', 'cbw')
    disks.qmp.command('block-export-add', type='nbd', id='old', node_name='old', name='old')
    guest = connect(uri)
    # The first is within what may come at once.
    guest.pwrite(b'1' * 4096, 0)
    if on_error == 'break-guest-write':
        with pytest.raises(nbd.Error):
            guest.pwrite(b'2' * 4096, MIB)
        assert guest.pread(4096, MIB) == disks.before[MIB:MIB + 4096]
    else:
        guest.pwrite(b'2' * 4096, MIB)
        assert guest.pread(4096, MIB) == b'2' * 4096
        with pytest.raises(nbd.Error):
            connect(uri.replace('/x?', '/old?')).pread(4096, 2 * MIB)
    guest.shutdown()
    disks.qmp.command('qom-set', path='/objects/slow', property='limits', value={'bps-write': 0})


def failing_chain(one, tmp_path, once):
    """'top' on a base that cannot be read at its second MiB."""
    base = tmp_path / 'base'
    random_image(base, SIZE, (0, SIZE))
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', tmp_path / 'top')
    one.qmp.command('blockdev-add', driver='raw', node_name='base', file={
        'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(base)},
        'inject-error': [{'event': 'none', 'iotype': 'read', 'errno': 5, 'sector': MIB // 512, 'once': once, 'immediately': True}]})
    one.qmp.command('blockdev-add', driver='qcow2', node_name='top', file={'driver': 'file', 'filename': str(tmp_path / 'top')},
                    backing='base')
    return content(base)


def test_stream_ignores_errors(daemon, tmp_path):
    """The rest is copied all the same; in the end the job fails, and the image keeps its backing image."""
    one = daemon()
    failing_chain(one, tmp_path, once=False)
    one.qmp.command('block-stream', job_id='j', device='top', on_error='ignore')
    event = one.qmp.event('BLOCK_JOB_ERROR')['data']
    assert event['action'] == 'ignore'
    assert event['operation'] == 'read'
    completed = one.qmp.event('BLOCK_JOB_COMPLETED')['data']
    assert completed['error']
    stage(one.qmp, 'j', 'null')
    one.stop()
    copied = [line for line in run(need('qemu-img'), 'map', '-U', '-f', 'qcow2', tmp_path / 'top').stdout.splitlines() if line.endswith('/top')]
    assert sum(int(line.split()[1], 16) for line in copied) >= SIZE - 2 * MIB
    assert 'backing file' in run(need('qemu-img'), 'info', '-U', tmp_path / 'top').stdout


def test_stream_stops_and_goes_on(daemon, tmp_path):
    one = daemon()
    before = failing_chain(one, tmp_path, once=True)
    one.qmp.command('block-stream', job_id='j', device='top', on_error='stop')
    assert one.qmp.event('BLOCK_JOB_ERROR')['data']['action'] == 'stop'
    stage(one.qmp, 'j', 'paused')
    assert one.qmp.command('query-block-jobs')[0]['io-status'] == 'failed'
    one.qmp.command('job-resume', id='j')
    stage(one.qmp, 'j', 'null')
    one.stop()
    run(need('qemu-img'), 'convert', '-O', 'raw', tmp_path / 'top', tmp_path / 'flat')
    assert content(tmp_path / 'flat') == before


def test_client_leaves(disks):
    """A job goes on without the client that started it; another one finds it, and ends it."""
    add_file(disks.qmp, 'dst', disks.target)
    disks.qmp.command('blockdev-mirror', job_id='j', device='src', target='dst', sync='full', speed=MIB, auto_dismiss=False)
    disks.qmp.close()
    disks.qmp = Qmp.connect(disks.qmp_path)
    assert [job['id'] for job in disks.qmp.command('query-jobs')] == ['j']
    disks.qmp.command('block-job-set-speed', device='j', speed=0)
    stage(disks.qmp, 'j', 'ready')
    disks.qmp.command('job-complete', id='j')
    stage(disks.qmp, 'j', 'concluded')
    disks.qmp.command('job-dismiss', id='j')
    assert content(disks.target) == disks.before


def test_reopen_and_threads_under_a_mirror(disks, tmp_path):
    """What may change beneath a job does: flags of both its ends, the thread that somebody wishes for, bitmaps, while guests write."""
    add_file(disks.qmp, 'dst', disks.target)
    disks.qmp.command('object-add', qom_type='iothread', id='t')
    uri = serve(disks.qmp, tmp_path / 'nbd', 'src', iothread='t')
    with writing(uri, SIZE) as written:
        disks.qmp.command('blockdev-mirror', job_id='j', device='src', target='dst', sync='full')
        for step in range(10):
            for node, path in (('src', disks.source), ('dst', disks.target)):
                disks.qmp.command('blockdev-reopen', options=[{
                    'driver': 'file', 'node-name': node, 'filename': str(path), 'discard': 'ignore' if step % 2 else 'unmap',
                    'detect-zeroes': 'on' if step % 2 else 'off'}])
                disks.qmp.command('x-blockdev-set-iothread', node_name=node, iothread='t' if step % 2 else None, force=True)
            disks.qmp.command('block-dirty-bitmap-add', node='src', name=f'b{step}')
        more_writes(written, 20)
        stage(disks.qmp, 'j', 'ready')
        disks.qmp.command('job-complete', id='j')
        stage(disks.qmp, 'j', 'null')
        # Bitmaps stay with the node that they are of.
        bitmaps = {node['node-name']: len(node.get('dirty-bitmaps', [])) for node in disks.qmp.command('query-named-block-nodes')}
        assert bitmaps == {'src': 10, 'dst': 0}
    image = bytearray(disks.before)
    for at, data in written.items():
        image[at:at + 4096] = data
    assert content(disks.target) == bytes(image)


def test_jobs_beside_jobs(disks, tmp_path):
    """Two backups of a disk that is then mirrored, under writes: each shows its own moment, and the mirror the last."""
    for name in ('dst', 'b1', 'b2'):
        raw_image(tmp_path / name, SIZE)
        add_file(disks.qmp, name, tmp_path / name)
    uri = serve(disks.qmp, tmp_path / 'nbd', 'src')
    disks.qmp.command('blockdev-backup', job_id='j1', device='src', target='b1', sync='full', speed=2 * MIB)
    with writing(uri, SIZE) as written:
        more_writes(written, 30)
    middle = bytearray(disks.before)
    for at, data in written.items():
        middle[at:at + 4096] = data
    disks.qmp.command('blockdev-backup', job_id='j2', device='src', target='b2', sync='full', speed=2 * MIB)
    disks.qmp.command('blockdev-mirror', job_id='j3', device='src', target='dst', sync='full')
    last = bytearray(middle)
    with writing(uri, SIZE, seed=9) as written:
        stage(disks.qmp, 'j3', 'ready')
        for job in ('j1', 'j2'):
            disks.qmp.command('block-job-set-speed', device=job, speed=0)
        for job in ('j1', 'j2'):
            stage_of_any(disks.qmp, job)
        disks.qmp.command('job-complete', id='j3')
        stage(disks.qmp, 'j3', 'null')
        more_writes(written, 20)
    for at, data in written.items():
        last[at:at + 4096] = data
    assert content(tmp_path / 'b1') == disks.before
    assert content(tmp_path / 'b2') == bytes(middle)
    assert content(tmp_path / 'dst') == bytes(last)


def stage_of_any(qmp, job):
    """Waits until the job is gone, whatever else happens."""
    while any(one['id'] == job for one in qmp.command('query-jobs')):
        qmp.event('JOB_STATUS_CHANGE')
