# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may be asked of a job in each of its stages, by both families of commands, and what is said where it may not."""
import contextlib

import pytest
from harness import QmpError, wait_for

GIB = 1 << 30
VERBS = {
    'job-cancel': {}, 'job-pause': {}, 'job-resume': {}, 'job-complete': {}, 'job-finalize': {}, 'job-dismiss': {},
    'block-job-cancel': {}, 'block-job-pause': {}, 'block-job-resume': {}, 'block-job-complete': {},
    'block-job-finalize': {}, 'block-job-dismiss': {}, 'block-job-set-speed': {'speed': 5},
    'block-job-change': {'type': 'mirror', 'copy-mode': 'write-blocking'},
}
REFUSED = "Job 'j' in state '{}' cannot accept command verb '{}'"


class Stage:
    """Jobs between nodes without data, which are brought to a stage and away again."""

    def __init__(self, qmp):
        self.qmp = qmp
        for name, size in (('src', 1 << 20), ('dst', 1 << 20), ('large', GIB), ('copy', GIB), ('dst2', 1 << 20)):
            qmp.command('blockdev-add', driver='null-co', node_name=name, size=size, read_zeroes=False)

    def status(self):
        return next((job['status'] for job in self.qmp.command('query-jobs') if job['id'] == 'j'), None)

    def until(self, status):
        wait_for(lambda: self.status() == status, f'the job to be {status}')

    def start(self, kind='mirror', large=False, **options):
        self.qmp.command(f'blockdev-{kind}', job_id='j', device='large' if large else 'src',
                         target='copy' if large else 'dst', sync='full', auto_dismiss=False,
                         **({'speed': 1} if large else {}), **options)

    def reach(self, stage):
        if stage == 'waiting':
            shared = {'sync': 'full', 'auto-dismiss': False}
            self.qmp.command('transaction', properties={'completion-mode': 'grouped'}, actions=[
                {'type': 'blockdev-backup', 'data': {'job-id': 'j', 'device': 'src', 'target': 'dst', **shared}},
                {'type': 'blockdev-backup', 'data': {'job-id': 'k', 'device': 'large', 'target': 'copy', 'speed': 1,
                                                     **shared}}])
        else:
            self.start('backup' if stage == 'pending' else 'mirror', large=stage in ('running', 'paused'),
                       **({'auto_finalize': False} if stage == 'pending' else {}))
        if stage in ('standby', 'concluded'):
            self.until('ready')
        if stage in ('paused', 'standby'):
            self.qmp.command('job-pause', id='j')
        if stage == 'concluded':
            self.qmp.command('job-complete', id='j')
        self.until(stage)

    def ask(self, verb):
        """What is said; None: it is done."""
        name = 'device' if verb.startswith('block-job') and verb not in (
            'block-job-finalize', 'block-job-dismiss', 'block-job-change') else 'id'
        try:
            self.qmp.command(verb, **{name: 'j', **VERBS[verb]})
        except QmpError as refused:
            return refused.desc
        return None

    def leave(self):
        for job in ('j', 'k'):
            with contextlib.suppress(QmpError):
                self.qmp.command('block-job-cancel', device=job, force=True)
        for _ in range(2):
            wait_for(lambda: all(job['status'] == 'concluded' for job in self.qmp.command('query-jobs')), 'the end')
            for job in self.qmp.command('query-jobs'):
                self.qmp.command('job-dismiss', id=job['id'])
        assert self.qmp.command('query-jobs') == []


def verb_of(command):
    return {'job-change': 'change'}.get(command, command.replace('block-', '').replace('job-', ''))


# What is allowed; what is refused otherwise than by its stage is said here, too.
HELD = "The block job for device 'j' is currently paused"
NOT_PAUSED = "Can't resume a job that was not paused"
CANCEL, PAUSE, RESUME = ('job-cancel', 'block-job-cancel'), ('job-pause', 'block-job-pause'), ('job-resume', 'block-job-resume')
COMPLETE, TUNE = ('job-complete', 'block-job-complete'), ('block-job-set-speed', 'block-job-change')
FINALIZE, DISMISS = ('job-finalize', 'block-job-finalize'), ('job-dismiss', 'block-job-dismiss')


def group(commands, answer=None):
    return {command: answer for command in commands}


STAGES = {
    'running': {**group(CANCEL + PAUSE + TUNE), **group(RESUME, NOT_PAUSED)},
    'paused': {**group(RESUME + TUNE), 'job-cancel': None, 'block-job-cancel': HELD, **group(PAUSE, 'Job is already paused')},
    'ready': {**group(CANCEL + PAUSE + COMPLETE + TUNE), **group(RESUME, NOT_PAUSED)},
    'standby': {**group(RESUME + TUNE + COMPLETE), 'job-cancel': None, 'block-job-cancel': HELD,
                **group(PAUSE, 'Job is already paused')},
    'waiting': {**group(CANCEL), **group(RESUME, NOT_PAUSED)},
    'pending': {**group(CANCEL + FINALIZE), **group(RESUME, NOT_PAUSED)},
    'concluded': {**group(DISMISS), **group(RESUME, NOT_PAUSED)},
}


@pytest.mark.parametrize('stage', STAGES)
def test_verbs(daemon, stage):
    """M6"""
    scene = Stage(daemon().qmp)
    for verb in VERBS:
        scene.reach(stage)
        answer = scene.ask(verb)
        assert answer == STAGES[stage].get(verb, REFUSED.format(stage, verb_of(verb))), verb
        if answer:
            assert scene.status() == stage
        scene.leave()


def test_completed_in_standby(daemon):
    """It ends as soon as it is resumed; cancelling is refused before, but for force."""
    scene = Stage(daemon().qmp)
    scene.reach('standby')
    assert scene.ask('job-complete') is None
    assert scene.status() == 'standby'
    assert scene.ask('job-resume') is None
    scene.until('concluded')
    assert 'error' not in scene.qmp.command('query-jobs')[0]


@pytest.mark.parametrize('verb', VERBS)
def test_no_such_job(daemon, verb):
    """M6"""
    qmp = daemon().qmp
    scene = Stage(qmp)
    block = verb.startswith('block-')
    assert scene.ask(verb) == ("Block job 'j' not found" if block else 'Job not found')
    # One that is no block job is not known to the commands of those.
    qmp.command('blockdev-create', job_id='j', options={'driver': 'qcow2', 'file': 'nowhere', 'size': 1 << 20})
    scene.until('concluded')
    if block:
        assert scene.ask(verb) == "Block job 'j' not found"
        assert qmp.command('query-block-jobs') == []
    qmp.command('job-dismiss', id='j')
