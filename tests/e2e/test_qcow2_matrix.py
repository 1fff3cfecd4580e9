# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images that go back and forth between us and qemu-img/qemu-io: whoever has made them, both write to them, both
find them in order, and both read the same.

Every pair of values of any two options occurs in some case.
"""
import itertools
import random

import pytest
from harness import need, program, run
from job_tools import add_file, connect, content, serve, stage

KIB = 1 << 10
SIZE = 3 * (1 << 20) + 3 * 512
BACKING_SIZE = 2 * (1 << 20) + 512

OPTIONS = {
    'version': ('v3', 'v2'),
    'cluster_size': (65536, 512, 4096, 2097152),
    'refcount_bits': (16, 1, 8, 64),
    'extended_l2': (False, True),
    'data_file': (None, 'data', 'raw'),
    'compression': ('zlib', 'zstd'),
    'backing': (None, 'raw', 'qcow2'),
}


def possible(case):
    """Whether the format has such an image; of options that are not there yet anything may come."""
    if case.get('version') == 'v2' and (case.get('refcount_bits', 16) != 16 or case.get('extended_l2') or
                                        case.get('data_file') or case.get('compression', 'zlib') != 'zlib'):
        return False
    if case.get('extended_l2') and case.get('cluster_size', 65536) < 16384:
        return False
    return not (case.get('data_file') == 'raw' and case.get('backing'))


def pairs(case):
    return {((a, case[a]), (b, case[b])) for a, b in itertools.combinations(OPTIONS, 2)}


def cover():
    """Cases, each the one that has most of the pairs which no case before it has."""
    everything = [case for values in itertools.product(*OPTIONS.values())
                  if possible(case := dict(zip(OPTIONS, values)))]
    missing = set().union(*map(pairs, everything))
    while missing:
        best = max(everything, key=lambda case: len(pairs(case) & missing))
        missing -= pairs(best)
        yield best


def name_of(case):
    return '-'.join(f'{value}'.lower() for value in case.values())


CASES = list(cover())


class Model:
    """What the disk must hold."""

    def __init__(self, seed, below=b''):
        self.source = random.Random(seed)
        self.bytes = bytearray(below.ljust(SIZE, b'\0'))

    def places(self, count, first, align=1):
        for _ in range(count):
            offset = self.source.randrange(first // align, SIZE // align) * align
            length = min(SIZE - offset, align * self.source.randrange(1, 1 + 160 * KIB // align))
            yield offset, length

    def take(self, offset, data):
        self.bytes[offset:offset + len(data)] = data


def change_ours(model, uri, first=0):
    """Writes and zeroes from `first` on, aligned to nothing at all."""
    handle = connect(uri)
    for number, (offset, length) in enumerate(model.places(12, first)):
        if number % 4 == 3:
            handle.zero(length, offset)
            model.take(offset, bytes(length))
        else:
            data = model.source.randbytes(min(length, 9000))
            handle.pwrite(data, offset)
            model.take(offset, data)
    handle.flush()
    handle.shutdown()


def change_theirs(model, path, cluster, compressed):
    """The same, with the first cluster compressed: nobody must have written to that before."""
    commands = []
    for number, (offset, length) in enumerate(model.places(8, cluster, 512)):
        byte = model.source.randrange(1, 256)
        if number % 4 == 3:
            commands += ['-c', f'write -z {offset} {length}']
            byte = 0
        else:
            commands += ['-c', f'write -P {byte} {offset} {length}']
        model.take(offset, bytes([byte]) * length)
    if compressed:
        commands += ['-c', f'write -c -P 77 0 {cluster}']
        model.take(0, b'\x4d' * cluster)
    done = run(need('qemu-io'), '-f', 'qcow2', *commands, path)
    assert 'rror' not in done.stdout + done.stderr, done.stdout + done.stderr


def read_ours(uri):
    handle = connect(uri)
    data = b''.join(handle.pread(min(SIZE - at, 1 << 20), at) for at in range(0, SIZE, 1 << 20))
    handle.shutdown()
    return data


class Images:
    """The files of a case, and a daemon that makes and serves them."""

    def __init__(self, folder, qmp, case):
        self.folder, self.qmp, self.case = folder, qmp, case
        self.path = folder / 'image.qcow2'
        self.data = folder / 'image.data'
        self.below = b''
        if case['backing']:
            self.make_backing(case['backing'])

    def make_backing(self, backing_format):
        source = random.Random(11)
        raw = self.folder / 'below.raw'
        self.below = source.randbytes(BACKING_SIZE // 2).ljust(BACKING_SIZE - 100, b'\0') + b'end!' * 25
        raw.write_bytes(self.below)
        self.backing = raw
        if backing_format == 'qcow2':
            self.backing = self.folder / 'below.qcow2'
            run(need('qemu-img'), 'convert', '-f', 'raw', '-O', 'qcow2', raw, self.backing)

    def make_theirs(self):
        case = self.case
        options = [f'compat={case["version"]}', f'cluster_size={case["cluster_size"]}',
                   f'refcount_bits={case["refcount_bits"]}', f'compression_type={case["compression"]}',
                   f'extended_l2={"on" if case["extended_l2"] else "off"}']
        if case['data_file']:
            options += [f'data_file={self.data}', f'data_file_raw={"on" if case["data_file"] == "raw" else "off"}']
        if case['backing']:
            options += [f'backing_file={self.backing}', f'backing_fmt={case["backing"]}']
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-o', ','.join(options), self.path, SIZE)

    def job(self, options):
        self.qmp.command('blockdev-create', job_id='make', options=options)
        stage(self.qmp, 'make', 'concluded')
        assert 'error' not in (job := self.qmp.command('query-jobs')[0]), job
        self.qmp.command('job-dismiss', id='make')

    def make_ours(self):
        case = self.case
        options = {'driver': 'qcow2', 'file': 'new', 'size': SIZE, 'version': case['version'],
                   'cluster-size': case['cluster_size'], 'refcount-bits': case['refcount_bits'],
                   'compression-type': case['compression'], 'extended-l2': case['extended_l2']}
        files = {'new': self.path}
        if case['data_file']:
            files['data'] = self.data
            options |= {'data-file': 'data', 'data-file-raw': case['data_file'] == 'raw'}
        if case['backing']:
            options |= {'backing-file': str(self.backing), 'backing-fmt': case['backing']}
        for name, path in files.items():
            self.job({'driver': 'file', 'filename': str(path), 'size': 0})
            add_file(self.qmp, name, path)
        self.job(options)
        for name in files:
            self.qmp.command('blockdev-del', node_name=name)

    def serve(self):
        self.qmp.command('blockdev-add', driver='qcow2', node_name='disk',
                         file={'driver': 'file', 'filename': str(self.path)})
        return serve(self.qmp, self.folder / 'nbd', 'disk')

    def stop(self):
        self.qmp.command('nbd-server-stop')
        self.qmp.command('blockdev-del', node_name='disk')

    def check(self, model):
        """Both find it in order, and the content that it must have; ours last, for its look at what theirs left."""
        assert run(need('qemu-img'), 'check', '-q', '-f', 'qcow2', self.path, check=False).returncode == 0
        assert run(program('ashlar-img'), 'check', '-q', '-f', 'qcow2', self.path, check=False).returncode == 0
        wanted = self.folder / 'wanted'
        wanted.write_bytes(model.bytes)
        run(need('qemu-img'), 'compare', '-q', '-f', 'raw', '-F', 'qcow2', wanted, self.path)
        assert read_ours(self.serve()) == model.bytes
        self.stop()
        if self.case['data_file'] == 'raw':
            assert content(self.data)[:SIZE] == model.bytes


@pytest.mark.parametrize('case', CASES, ids=name_of)
def test_made_by_us(case, daemon, tmp_path):
    images = Images(tmp_path, daemon().qmp, case)
    model = Model(name_of(case), images.below)
    images.make_ours()
    images.check(model)
    change_ours(model, images.serve(), case['cluster_size'])
    images.stop()
    images.check(model)
    change_theirs(model, images.path, case['cluster_size'], compressed=not case['data_file'])
    images.check(model)


@pytest.mark.parametrize('case', CASES, ids=name_of)
def test_made_by_them(case, daemon, tmp_path):
    images = Images(tmp_path, daemon().qmp, case)
    model = Model(name_of(case), images.below)
    images.make_theirs()
    change_theirs(model, images.path, case['cluster_size'], compressed=not case['data_file'])
    change_ours(model, images.serve())
    images.stop()
    images.check(model)
