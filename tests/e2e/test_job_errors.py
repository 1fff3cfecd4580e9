# SPDX-License-Identifier: LGPL-2.1-or-later
"""What jobs do where a request fails, by their on-error policies: blkdebug makes it fail."""
import contextlib

import pytest
from harness import QmpError, raw_image
from job_tools import content

MIB = 1 << 20
SIZE = 3 * MIB
ERROR, NO_SPACE = 5, 28
JOBS = {  # where a request can fail, the option that says what to do then, and which kind of request it is
    ('blockdev-backup', 'src'): ('on_source_error', 'read'),
    ('blockdev-backup', 'dst'): ('on_target_error', 'write'),
    ('blockdev-mirror', 'src'): ('on_source_error', 'read'),
    ('blockdev-mirror', 'dst'): ('on_target_error', 'write'),
}
CASES = [(job, side) for job, side in JOBS]


def add(one, name, broken, rule):
    """A raw node, whose requests to one place fail once where it is the broken one."""
    file = {'driver': 'file', 'filename': f'{one.folder}/{name}', 'discard': 'unmap'}
    if broken:
        file = {'driver': 'blkdebug', 'image': file, 'discard': 'unmap',
                'inject-error': [{'event': 'none', 'once': True, **rule}]}
    one.qmp.command('blockdev-add', driver='raw', node_name=name, file=file, discard='unmap')


def start(one, job, side, policy, errno):
    option, kind = JOBS[job, side]
    rule = {'iotype': kind, 'errno': errno, 'sector': 100}
    for name in ('src', 'dst'):
        add(one, name, name == side, rule)
    one.qmp.command(job, job_id='j', device='src', target='dst', sync='full', **{option: policy})


@pytest.fixture
def disks(daemon, tmp_path):
    one = daemon()
    one.folder = tmp_path
    for name in ('src', 'dst'):
        raw_image(tmp_path / name, SIZE)
    with open(tmp_path / 'src', 'r+b') as image:
        image.write(b'\1' * MIB)
    return one


def job_error(one, action, side, job):
    event = one.qmp.event('BLOCK_JOB_ERROR')['data']
    assert event == {'device': 'j', 'operation': JOBS[job, side][1], 'action': action}


def finish(one):
    """Up to the end; the error of the job, if it failed."""
    while True:
        status = one.qmp.event('JOB_STATUS_CHANGE')['data']['status']
        if status == 'ready':
            # One that fails may be gone by now.
            with contextlib.suppress(QmpError):
                one.qmp.command('block-job-complete', device='j')
        if status in ('aborting', 'null'):
            break
    return one.qmp.event('BLOCK_JOB_COMPLETED')['data'].get('error')


def check_copy(one):
    assert content(one.folder / 'dst') == content(one.folder / 'src')


@pytest.mark.parametrize('job, side', CASES)
def test_report(disks, job, side):
    start(disks, job, side, 'report', ERROR)
    job_error(disks, 'report', side, job)
    assert finish(disks).endswith('Input/output error')


@pytest.mark.parametrize('job, side', CASES)
def test_ignore(disks, job, side):
    """The place is tried again."""
    start(disks, job, side, 'ignore', ERROR)
    job_error(disks, 'ignore', side, job)
    assert finish(disks) is None
    check_copy(disks)


@pytest.mark.parametrize('job, side', CASES)
@pytest.mark.parametrize('policy, errno, state', [('stop', ERROR, 'failed'), ('enospc', NO_SPACE, 'nospace')])
def test_stop(disks, job, side, policy, errno, state):
    start(disks, job, side, policy, errno)
    job_error(disks, 'stop', side, job)
    while disks.qmp.event('JOB_STATUS_CHANGE')['data']['status'] != 'paused':
        pass
    info, = disks.qmp.command('query-block-jobs')
    assert (info['paused'], info['io-status']) == (True, state)
    disks.qmp.command('block-job-resume', device='j')
    assert finish(disks) is None
    check_copy(disks)


@pytest.mark.parametrize('job, side', CASES)
def test_enospc_is_for_that_alone(disks, job, side):
    start(disks, job, side, 'enospc', ERROR)
    job_error(disks, 'report', side, job)
    assert finish(disks).endswith('Input/output error')


def test_copies_do_not_go_around_filters(daemon, tmp_path):
    """What a job reads comes through the throttle filter, not from the file below it."""
    one = daemon()
    for name in ('src', 'dst'):
        raw_image(tmp_path / name, MIB, b'data' if name == 'src' else None)
    one.qmp.command('object-add', **{'qom-type': 'throttle-group', 'id': 't'}, limits={})
    one.qmp.command('blockdev-add', driver='throttle', node_name='src', throttle_group='t',
                    file={'driver': 'file', 'filename': f'{tmp_path}/src', 'node-name': 'below'})
    one.qmp.command('blockdev-add', driver='file', node_name='dst', filename=f'{tmp_path}/dst')
    one.qmp.command('blockdev-mirror', job_id='j', device='src', target='dst', sync='full')
    ready = one.qmp.event('BLOCK_JOB_READY')['data']
    assert ready['offset'] == ready['len'] == MIB
    one.qmp.command('block-job-complete', device='j')
    while one.qmp.event('JOB_STATUS_CHANGE')['data']['status'] != 'null':
        pass
    stats = {node['node-name']: node['stats'] for node in one.qmp.command('query-blockstats', query_nodes=True)}
    assert stats['src']['rd_bytes'] >= MIB and stats['below']['rd_bytes'] >= MIB
    assert content(tmp_path / 'dst') == content(tmp_path / 'src')
