# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any two jobs, or a job and a change of the graph, on the same chain, its neighbours and its ends, while a guest writes.

Either the second is refused, for the nodes that the first counts on; or both run, and everything is right in the end:
what the guest reads, what the image's own headers lead to, each copy.
"""
import contextlib
import random
import shutil

import pytest
from harness import QmpError, need, raw_image, run
from job_tools import MIB, connect, content

SIZE = MIB
CLUSTER = 65536
LAYERS = 4

# n3 is what the guest is on; n2, n1, n0 lie below. Each job has a target of its own.
JOBS = {
    'stream n3': ('block-stream', {'device': 'n3'}),
    'stream n3..n1': ('block-stream', {'device': 'n3', 'base-node': 'n1'}),
    'stream n1': ('block-stream', {'device': 'n1'}),
    'commit n3': ('block-commit', {'device': 'n3'}),
    'commit n3..n1': ('block-commit', {'device': 'n3', 'base-node': 'n1'}),
    'commit n1..n0': ('block-commit', {'device': 'n3', 'top-node': 'n1', 'base-node': 'n0'}),
    'commit n2..n1': ('block-commit', {'device': 'n3', 'top-node': 'n2', 'base-node': 'n1'}),
    'mirror n3': ('blockdev-mirror', {'device': 'n3', 'target': None, 'sync': 'full'}),
    'mirror n1': ('blockdev-mirror', {'device': 'n1', 'target': None, 'sync': 'full'}),
    'backup n3': ('blockdev-backup', {'device': 'n3', 'target': None, 'sync': 'full'}),
    'backup n1': ('blockdev-backup', {'device': 'n1', 'target': None, 'sync': 'full'}),
}
OTHERS = {
    'amend n3': ('x-blockdev-amend', {'node-name': 'n3', 'options': {'driver': 'qcow2'}}),
    'create': ('blockdev-create', {'options': {'driver': 'qcow2', 'file': 'o', 'size': MIB}}),
    'snapshot n3': ('blockdev-snapshot', {'node': 'n3', 'overlay': 'over3'}),
    'snapshot n1': ('blockdev-snapshot', {'node': 'n1', 'overlay': 'over1'}),
    'internal n3': ('blockdev-snapshot-internal-sync', {'device': 'n3', 'name': 's'}),
    'header n3': ('change-backing-file', {'device': 'n3', 'image-node-name': 'n3', 'backing-file': 'n2'}),
    'header n1': ('change-backing-file', {'device': 'n3', 'image-node-name': 'n1', 'backing-file': 'n0'}),
    'resize n3': ('block_resize', {'node-name': 'n3', 'size': 2 * MIB}),
}
# A line for each job that runs already: those that may begin ('+') or not ('.'), in the order of JOBS and OTHERS.
ALLOWED = {
    'stream n3': '........... ++......',
    'stream n3..n1': '..+..+..+.+ ++.+..+.',
    'stream n1': '.+.....+.+. +++.++.+',
    'commit n3': '........... ++......',
    'commit n3..n1': '........... ++......',
    'commit n1..n0': '.+.....+.+. +++.++.+',
    'commit n2..n1': '.......+.+. +++.++.+',
    'mirror n3': '..+..++.+.+ ++.+..+.',
    'mirror n1': '.+.....+.+. +++.++.+',
    'backup n3': '+++....++++ +++++++.',
    'backup n1': '+++....++++ ++++++++',
}


def layer_data(layer, cluster):
    return bytes([layer * 16 + cluster + 1]) * CLUSTER


def has(layer, cluster):
    return not (cluster + layer) % 3


def view(layer):
    """What an image shows, with all below it."""
    data = bytearray(SIZE)
    for below in range(layer + 1):
        for cluster in range(SIZE // CLUSTER):
            if has(below, cluster):
                data[cluster * CLUSTER:(cluster + 1) * CLUSTER] = layer_data(below, cluster)
    return data


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder with the files of the chain, to be copied."""
    folder = tmp_path_factory.mktemp('images')
    for layer in range(LAYERS):
        backing = ['-b', f'n{layer - 1}', '-F', 'qcow2'] if layer else []
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *backing, folder / f'n{layer}', *([] if layer else [SIZE]))
        writes = [word for cluster in range(SIZE // CLUSTER) if has(layer, cluster)
                  for word in ('-c', f'write -P {layer_data(layer, cluster)[0]} {cluster * CLUSTER} {CLUSTER}')]
        run(need('qemu-io'), '-f', 'qcow2', *writes, folder / f'n{layer}')
    for layer in (1, 3):
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-b', f'n{layer}', '-F', 'qcow2', folder / f'over{layer}')
    return folder


class Pair:
    """One chain with its guest, from the first job to the end of both."""

    def __init__(self, one, tmp_path, images, number):
        self.qmp, self.number = one.qmp, number
        self.folder = tmp_path / str(number)
        shutil.copytree(images, self.folder)
        self.nodes = []
        self.model = view(LAYERS - 1)
        self.random = random.Random(number)
        self.running, self.copies = {}, {}
        for name in ('t0', 't1', 'o'):
            raw_image(self.folder / name, SIZE)
            self.add(driver='file', node_name=name, filename=str(self.folder / name))
        for layer in range(LAYERS):
            self.add_image(f'n{layer}', f'n{layer - 1}' if layer else None)
        self.add_image('over1', None)
        self.add_image('over3', None)
        self.qmp.command('block-export-add', type='nbd', id='exp', node_name='n3', name=f'x{number}', writable=True)
        self.guest = connect(f'nbd+unix:///x{number}?socket={tmp_path}/nbd')

    def add(self, **options):
        self.qmp.command('blockdev-add', **options)
        self.nodes.append(options['node_name'])

    def add_image(self, name, backing):
        self.add(driver='qcow2', node_name=name, backing=backing,
                 file={'driver': 'file', 'filename': str(self.folder / name), 'discard': 'unmap'}, discard='unmap')

    def write(self):
        """Some data, some zeroes, some of it discarded first."""
        for _ in range(4):
            at = self.random.randrange(SIZE // 4096) * 4096
            data = self.random.choice([bytes(4096), self.random.randbytes(4096)])
            if any(data):
                self.guest.pwrite(data, at)
            else:
                self.guest.zero(4096, at)
            self.model[at:at + 4096] = data

    def start(self, what, job):
        """Starts it, slowly where it is a job; whether it runs on. QmpError: refused."""
        command, arguments = {**JOBS, **OTHERS}[what]
        arguments = dict(arguments)
        if what in JOBS:
            # What has been copied by then stays without effect until it is finalized.
            arguments.update({'speed': 1, 'auto-finalize': False})
        if 'target' in arguments:
            arguments['target'] = job.replace('j', 't')
        if what in JOBS or what in ('amend n3', 'create'):
            arguments['job-id'] = job
        shown = view(1) if what.endswith('n1') else bytes(self.model)
        self.qmp.command(command, **arguments)
        if 'job-id' in arguments:
            self.running[job] = what
        if 'target' in arguments and what != 'mirror n3':
            self.copies[job.replace('j', 't')] = bytes(shown)
        if what == 'resize n3':
            self.model += bytes(MIB)

    def finish(self):
        """All jobs end, and end well; the guest writes on."""
        for job, what in self.running.items():
            if what in JOBS:
                # One with little to do may be past that.
                with contextlib.suppress(QmpError):
                    self.qmp.command('block-job-set-speed', device=job, speed=0)
        while self.running:
            event = self.qmp.event('JOB_STATUS_CHANGE')['data']
            job, status = event['id'], event['status']
            if status == 'ready':
                self.write()
                self.qmp.command('job-complete', id=job)
            elif status == 'pending' and self.running[job] in JOBS:
                self.write()
                self.qmp.command('job-finalize', id=job)
            elif status == 'concluded' and self.running[job] in OTHERS:
                assert 'error' not in next(info for info in self.qmp.command('query-jobs') if info['id'] == job)
                self.qmp.command('job-dismiss', id=job)
            elif status == 'null':
                what = self.running.pop(job)
                if what in JOBS:
                    ended = self.qmp.event('BLOCK_JOB_COMPLETED')['data']
                    assert 'error' not in ended, (what, ended)
            else:
                assert status != 'aborting', self.running[job]
        self.write()

    def check(self):
        """What the guest reads, and what its image's file leads to."""
        data = b''.join(bytes(self.guest.pread(65536, at)) for at in range(0, SIZE, 65536))
        assert data == self.model[:SIZE]
        root = self.qmp.command('query-block-exports')[0]['node-name']
        self.close()
        for name, shown in self.copies.items():
            assert content(self.folder / name) == shown, name
        if root in ('t0', 't1'):
            assert content(self.folder / root) == self.model
        else:
            run(need('qemu-img'), 'convert', '-f', 'qcow2', '-O', 'raw', self.folder / root, self.folder / 'flat')
            assert content(self.folder / 'flat') == self.model
            run(need('qemu-img'), 'check', '-q', self.folder / root)

    def give_up(self):
        for job in list(self.running):
            self.qmp.command('job-cancel', id=job)
        while self.running:
            event = self.qmp.event('JOB_STATUS_CHANGE')['data']
            if event['status'] == 'null':
                self.running.pop(event['id'])

    def close(self):
        self.guest.shutdown()
        self.qmp.command('block-export-del', id='exp', mode='hard')
        while self.qmp.command('query-block-exports'):
            pass
        left = list(self.nodes)
        while left:
            before = len(left)
            for name in list(left):
                try:
                    self.qmp.command('blockdev-del', node_name=name)
                except QmpError:
                    continue
                left.remove(name)
            assert len(left) < before, left


def try_pair(pair, first, second):
    """Whether both run."""
    pair.write()
    pair.start(first, 'j0')
    pair.write()
    try:
        pair.start(second, 'j1')
    except QmpError as refused:
        assert 'block device is in use by block job: ' in refused.desc or 'Permission conflict on node' in refused.desc
        # It has left nothing behind.
        assert [info['id'] for info in pair.qmp.command('query-jobs')] == ['j0']
        pair.write()
        pair.give_up()
        pair.check()
        return False
    pair.write()
    pair.finish()
    pair.check()
    return True


@pytest.mark.parametrize('first', JOBS)
def test_pairs(daemon, tmp_path, images, first):
    one = daemon()
    one.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
    found = ''
    for number, second in enumerate([*JOBS, *OTHERS]):
        pair = Pair(one, tmp_path, images, number)
        found += '+' if try_pair(pair, first, second) else '.'
        shutil.rmtree(pair.folder)
    assert found == ALLOWED[first].replace(' ', '')
