# SPDX-License-Identifier: LGPL-2.1-or-later
"""What jobs do where a request fails, by their on-error policies: blkdebug makes it fail."""
import contextlib

import pytest
from harness import QmpError, need, raw_image, run
from job_tools import connect, content, serve, story

MIB = 1 << 20
SIZE = 3 * MIB
ERROR, NO_SPACE = 5, 28
TEXT = {ERROR: 'Input/output error', NO_SPACE: 'No space left on device'}
KIND = {'src': 'read', 'dst': 'write'}
COMMANDS = {'backup': 'blockdev-backup', 'mirror': 'blockdev-mirror', 'stream': 'block-stream', 'commit': 'block-commit',
            'commit-below': 'block-commit'}
CASES = [(job, side) for job in COMMANDS for side in ('src', 'dst')]
POLICIES = [('report', ERROR, 'report'), ('report', NO_SPACE, 'report'), ('ignore', ERROR, 'ignore'),
            ('stop', ERROR, 'stop'), ('stop', NO_SPACE, 'stop'), ('enospc', ERROR, 'report'),
            ('enospc', NO_SPACE, 'stop'), ('auto', ERROR, 'report'), ('auto', NO_SPACE, 'stop')]


class Disks:
    """Nodes on files of one folder; requests of one kind to one place of the broken one fail once."""

    def __init__(self, one, folder, broken, errno, sector=100):
        self.qmp, self.folder, self.broken = one.qmp, folder, broken
        self.rule = {'event': 'none', 'once': True, 'iotype': KIND[broken], 'errno': errno, 'sector': sector}
        self.nodes = []
        folder.mkdir()

    def file(self, name, broken):
        file = {'driver': 'file', 'filename': f'{self.folder}/{name}', 'discard': 'unmap'}
        if not broken:
            return file
        return {'driver': 'blkdebug', 'image': file, 'discard': 'unmap', 'inject-error': [self.rule]}

    def add(self, **options):
        self.qmp.command('blockdev-add', **options)
        self.nodes.insert(0, options['node_name'])

    def raw(self, name, data, side):
        raw_image(self.folder / name, SIZE)
        with open(self.folder / name, 'r+b') as image:
            image.write(data)
        self.add(driver='raw', node_name=name, file=self.file(name, side == self.broken), discard='unmap')

    def overlay(self, name, backing, pattern, side):
        """A qcow2 image with its data in a file of their own, in which places are the guest's."""
        image = self.folder / f'{name}.qcow2'
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-o', f'data_file={self.folder / name}', '-b',
            self.folder / (backing if backing == 'base' else f'{backing}.qcow2'), '-F',
            'raw' if backing == 'base' else 'qcow2', image)
        if pattern:
            run(need('qemu-io'), '-f', 'qcow2', '-c', f'write -P {pattern} 0 1M', image)
        self.add(driver='qcow2', node_name=name, file={'driver': 'file', 'filename': str(image)}, backing=backing,
                 data_file=self.file(name, side == self.broken))

    def make(self, job):
        """The nodes of the job, and the arguments of its command."""
        if job in ('backup', 'mirror'):
            self.raw('src', b'\1' * MIB, 'src')
            self.raw('dst', b'', 'dst')
            return {'device': 'src', 'target': 'dst', 'sync': 'full'}
        self.raw('base', b'\2' * MIB, 'src' if job == 'stream' else 'dst')
        if job == 'stream':
            self.overlay('top', 'base', None, 'dst')
            return {'device': 'top'}
        if job == 'commit':
            self.overlay('top', 'base', 3, 'src')
            return {'device': 'top'}
        self.overlay('middle', 'base', 3, 'src')
        self.overlay('top', 'middle', None, None)
        return {'device': 'top', 'top_node': 'middle', 'base_node': 'base'}

    def start(self, job, policy):
        arguments = self.make(job)
        if job in ('backup', 'mirror'):
            arguments['on_source_error' if self.broken == 'src' else 'on_target_error'] = policy
        else:
            arguments['on_error'] = policy
        self.qmp.command(COMMANDS[job], job_id='j', **arguments)

    def check(self, job):
        if job in ('backup', 'mirror'):
            assert content(self.folder / 'dst') == content(self.folder / 'src')
        else:
            name, pattern = ('top', 2) if job == 'stream' else ('base', 3)
            assert content(self.folder / name)[:MIB] == bytes([pattern]) * MIB

    def remove(self):
        for node in self.nodes:
            self.qmp.command('blockdev-del', node_name=node)


def finish(qmp):
    """Up to the end; the error of the job, if it failed."""
    while True:
        status = qmp.event('JOB_STATUS_CHANGE')['data']['status']
        if status == 'ready':
            # One that fails may be gone by now.
            with contextlib.suppress(QmpError):
                qmp.command('block-job-complete', device='j')
        if status in ('aborting', 'null'):
            break
    error = qmp.event('BLOCK_JOB_COMPLETED')['data'].get('error')
    while status != 'null':
        status = qmp.event('JOB_STATUS_CHANGE')['data']['status']
    return error


def until(qmp, status):
    while qmp.event('JOB_STATUS_CHANGE')['data']['status'] != status:
        pass


@pytest.mark.parametrize('job, side', CASES)
def test_policies(daemon, tmp_path, job, side):
    """M8: What the event says, whether the job rests, what it shows then, and that it copies all that it says it has."""
    one = daemon()
    for number, (policy, errno, action) in enumerate(POLICIES):
        disks = Disks(one, tmp_path / str(number), side, errno)
        disks.start(job, policy)
        event = one.qmp.event('BLOCK_JOB_ERROR')['data']
        assert event == {'device': 'j', 'operation': KIND[side], 'action': action}, policy
        if action == 'stop':
            until(one.qmp, 'paused')
            info, = one.qmp.command('query-block-jobs')
            assert (info['paused'], info['io-status']) == (True, 'nospace' if errno == NO_SPACE else 'failed')
            one.qmp.command('block-job-resume', device='j')
            info = one.qmp.command('query-block-jobs')
            assert not info or info[0]['io-status'] == 'ok'
        error = finish(one.qmp)
        if action == 'report' or (job, action) == ('stream', 'ignore'):
            assert error.endswith(TEXT[errno]), policy
        else:
            assert error is None, policy
            disks.check(job)
        disks.remove()


@pytest.mark.parametrize('mode', ['background', 'write-blocking'])
@pytest.mark.parametrize('policy', ['report', 'stop'])
def test_a_mirror_that_was_ready(daemon, tmp_path, mode, policy):
    """A guest's write cannot be copied: its writer hears nothing of that; the job stands by until it is resumed."""
    one = daemon()
    disks = Disks(one, tmp_path / 'disks', 'dst', NO_SPACE, sector=2 * MIB // 512)
    arguments = disks.make('mirror')
    # What is zero already is not written.
    one.qmp.command('blockdev-mirror', job_id='j', copy_mode=mode, on_target_error=policy, target_is_zero=True, **arguments)
    guest = connect(serve(one.qmp, tmp_path / 'nbd', 'src'))
    until(one.qmp, 'ready')
    guest.pwrite(b'late' * 1024, 2 * MIB)
    event = one.qmp.event('BLOCK_JOB_ERROR')['data']
    assert event == {'device': 'j', 'operation': 'write', 'action': policy}
    if policy == 'report':
        assert finish(one.qmp).endswith(TEXT[NO_SPACE])
        assert guest.pread(4096, 2 * MIB) == b'late' * 1024
    else:
        until(one.qmp, 'standby')
        guest.pwrite(b'more' * 1024, MIB)
        assert one.qmp.command('query-block-jobs')[0]['io-status'] == 'nospace'
        with pytest.raises(QmpError, match="The block job for device 'j' is currently paused"):
            one.qmp.command('block-job-cancel', device='j')
        one.qmp.command('block-job-resume', device='j')
        assert finish(one.qmp) is None
        disks.check('mirror')
    guest.shutdown()


@pytest.mark.parametrize('job', ['mirror', 'commit'])
def test_the_last_of_it_cannot_be_written(daemon, tmp_path, job):
    """While it is pending a guest writes where the target fails: the job fails, and the guest stays where it is."""
    one = daemon()
    disks = Disks(one, tmp_path / 'disks', 'dst', ERROR, sector=2 * MIB // 512)
    arguments = disks.make(job)
    source = arguments['device']
    if job == 'mirror':
        arguments['target_is_zero'] = True
    one.qmp.command(COMMANDS[job], job_id='j', auto_finalize=False, **arguments)
    guest = connect(serve(one.qmp, tmp_path / 'nbd', source))
    until(one.qmp, 'ready')
    one.qmp.command('job-complete', id='j')
    until(one.qmp, 'pending')
    guest.pwrite(b'late' * 1024, 2 * MIB)
    with contextlib.suppress(QmpError):
        one.qmp.command('job-finalize', id='j')
    assert story(one.qmp, 'j')[-4:] == ['aborting', 'COMPLETED', 'concluded', 'null']
    assert one.qmp.command('query-block-exports')[0]['node-name'] == source
    assert guest.pread(4096, 2 * MIB) == b'late' * 1024
    guest.shutdown()


@pytest.mark.parametrize('job', ['backup', 'mirror', 'commit', 'commit-below'])
@pytest.mark.parametrize('policy', ['report', 'stop', 'ignore'])
def test_the_target_is_flushed(daemon, tmp_path, job, policy):
    """It cannot be: before that the job is neither ready nor done. What could not be flushed once is not tried again."""
    one = daemon()
    disks = Disks(one, tmp_path / 'disks', 'dst', NO_SPACE)
    disks.rule = {'event': 'none', 'once': True, 'iotype': 'flush', 'errno': NO_SPACE}
    disks.start(job, policy)
    if policy == 'stop':
        assert story(one.qmp, 'j', 'paused') == ['created', 'running', 'ERROR', 'paused']
        info, = one.qmp.command('query-block-jobs')
        assert info['offset'] == info['len']
        assert not info['ready']
        one.qmp.command('job-resume', id='j')
        assert story(one.qmp, 'j', 'paused') == ['running', 'ERROR', 'paused']
        one.qmp.command('job-cancel', id='j')
        assert story(one.qmp, 'j')[-4:] == ['aborting', 'CANCELLED', 'concluded', 'null']
        return
    event = one.qmp.event('BLOCK_JOB_ERROR')['data']
    assert event == {'device': 'j', 'operation': 'write', 'action': policy}
    error = finish(one.qmp)
    if policy == 'report':
        assert error == f'Could not write to the target: {TEXT[NO_SPACE]}'
    else:
        assert error is None
        disks.check(job)


def test_the_image_of_a_stream_is_flushed(daemon, tmp_path):
    """It cannot be: the job fails, and its header still names the backing image."""
    one = daemon()
    disks = Disks(one, tmp_path / 'disks', 'dst', NO_SPACE)
    disks.rule = {'event': 'none', 'iotype': 'flush', 'errno': NO_SPACE}
    disks.start('stream', 'report')
    assert finish(one.qmp).endswith(f"Could not flush node 'top': {TEXT[NO_SPACE]}")
    shown = {node['node-name']: node for node in one.qmp.command('query-named-block-nodes')}
    assert shown['top']['backing_file_depth'] == 1
    assert 'backing file:' in run(need('qemu-img'), 'info', '-U', tmp_path / 'disks' / 'top.qcow2').stdout


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
