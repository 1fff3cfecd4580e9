# SPDX-License-Identifier: LGPL-2.1-or-later
"""What blockdev-reopen may change of each driver's nodes, and what it refuses by its name: as the peer does, where that
knows the driver's reopening at all."""
import pytest
from harness import QmpError, need, raw_image, run

MIB = 1 << 20


def changeless(name):
    return f"Cannot change the option '{name}'"


FILE = {'driver': 'file', 'filename': 'f0'}
RAW = {'driver': 'raw', 'file': 'f1'}
QCOW2 = {'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'q1', 'node-name': 'below'}}
OVERLAY = {**QCOW2, 'backing': 'q2'}
THROTTLE = {'driver': 'throttle', 'throttle-group': 'g1', 'file': 'f1'}
ON_READ = {'driver': 'copy-on-read', 'file': QCOW2 | {'node-name': 'image'}}
QUORUM = {'driver': 'quorum', 'children': ['f1', 'f2', 'f3'], 'vote-threshold': 2}
BLKDEBUG = {'driver': 'blkdebug', 'image': 'f1'}
VERIFY = {'driver': 'blkverify', 'test': 'f1', 'raw': 'f2'}
PREALLOCATE = {'driver': 'preallocate', 'file': 'f1'}
NULL = {'driver': 'null-co', 'size': MIB}
BEFORE_WRITE = {'driver': 'copy-before-write', 'file': 'f1', 'target': 'f2'}
COMPRESS = {'driver': 'compress', 'file': 'q2'}
LOG = {'driver': 'blklogwrites', 'file': 'f1', 'log': 'f2'}

# The node's options, those that may change (each alone), and those that may not with what is said of it.
RULES = {
    'file': (FILE, [{'read-only': True}, {'auto-read-only': True}, {'discard': 'unmap'}, {'detect-zeroes': 'on'},
                    {'cache': {'direct': True}}, {'cache': {'no-flush': True}}, {'drop-cache': False},
                    {'x-check-cache-dropped': True}],
             {'locking': ('on', changeless('locking')), 'aio': ('io_uring', changeless('aio')),
              'aio-max-batch': (5, changeless('aio-max-batch')), 'pr-manager': ('pm', changeless('pr-manager')),
              'filename': ('f9', changeless('filename'))}),
    'raw': (RAW, [{'offset': 512}, {'size': 512}, {'offset': 512, 'size': 1024}, {'file': 'f2'}],
            {'size': (2 * MIB, 'has to be smaller or equal to the  actual size of the containing file (1048576)')}),
    'qcow2': (QCOW2, [{'lazy-refcounts': True}, {'pass-discard-request': True}, {'pass-discard-snapshot': False},
                      {'pass-discard-other': True}, {'discard-no-unref': True}, {'overlap-check': 'none'},
                      {'overlap-check': {'template': 'all'}}, {'cache-size': MIB}, {'l2-cache-size': 65536},
                      {'l2-cache-entry-size': 4096}, {'refcount-cache-size': 262144}, {'cache-clean-interval': 5},
                      {'backing': 'q2'}, {'backing': None}, {'read-only': True}, {'file': 'below'}],
              {'data-file': ('f3', changeless('data-file')),
               'encrypt': ({'format': 'luks', 'key-secret': 'x'}, changeless('encrypt'))}),
    'overlay': (OVERLAY, [{'backing': None}, {'backing': 'q3'}],
                {'backing': ('nope', "Cannot find device='' nor node-name='nope'")}),
    'throttle': (THROTTLE, [{'throttle-group': 'g2'}, {'file': 'f2'}],
                 {'throttle-group': ('nope', "Throttle group 'nope' does not exist")}),
    'copy-on-read': (ON_READ, [{'file': 'q3'}], {'bottom': ('image', changeless('bottom'))}),
    'quorum': (QUORUM, [], {name: (value, changeless(name)) for name, value in {
        'vote-threshold': 1, 'children': ['f1', 'f2'], 'rewrite-corrupted': True, 'read-pattern': 'fifo',
        'blkverify': True}.items()}),
    'blkdebug': (BLKDEBUG, [], {name: (value, changeless(name)) for name, value in {
        'image': 'f2', 'align': 512, 'max-transfer': 65536, 'opt-discard': 0,
        'inject-error': [{'event': 'none'}]}.items()}),
    'blkverify': (VERIFY, [], {'test': ('f3', changeless('test')), 'raw': ('f3', changeless('raw'))}),
    'preallocate': (PREALLOCATE, [{'file': 'f2'}, {'prealloc-size': MIB}, {'prealloc-align': 65536}], {}),
    'null-co': (NULL, [], {name: (value, changeless(name)) for name, value in {
        'size': 2 * MIB, 'latency-ns': 5, 'read-zeroes': True}.items()}),
    'copy-before-write': (BEFORE_WRITE, [{'file': 'f3'}], {name: (value, changeless(name)) for name, value in {
        'target': 'f3', 'on-cbw-error': 'break-snapshot', 'cbw-timeout': 5,
        'bitmap': {'node': 'f1', 'name': 'b'}}.items()}),
    'compress': (COMPRESS, [{'file': 'q3'}, {'discard': 'unmap'}], {}),
    'blklogwrites': (LOG, [{'file': 'f3'}], {name: (value, changeless(name)) for name, value in {
        'log': 'f3', 'log-sector-size': 4096, 'log-append': True}.items()}),
}


@pytest.fixture
def qmp(daemon, tmp_path):
    one = daemon().qmp
    raw_image(tmp_path / 'f0', MIB)
    for number in (1, 2, 3):
        one.command('blockdev-add', driver='file', node_name=f'f{number}',
                    filename=str(raw_image(tmp_path / f'f{number}', MIB)))
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', tmp_path / f'q{number}', MIB)
    for number in (2, 3):
        one.command('blockdev-add', driver='qcow2', node_name=f'q{number}',
                    file={'driver': 'file', 'filename': str(tmp_path / f'q{number}')})
        one.command('object-add', **{'qom-type': 'throttle-group', 'id': f'g{number - 1}'})
    return one


def placed(options, folder):
    """The options with whole paths."""
    return {name: f'{folder}/{value}' if name == 'filename' else placed(value, folder) if isinstance(value, dict) else value
            for name, value in options.items()}


@pytest.mark.parametrize('driver', RULES)
def test_rules(qmp, tmp_path, driver):
    options, may, may_not = RULES[driver]
    node = {**placed(options, tmp_path), 'node-name': 'x'}
    for change in [{}, *may]:
        qmp.command('blockdev-add', **node)
        qmp.command('blockdev-reopen', options=[{**node, **change}])
        qmp.command('blockdev-del', node_name='x')
    qmp.command('blockdev-add', **node)
    before = qmp.command('query-named-block-nodes')
    for name, (value, complaint) in may_not.items():
        with pytest.raises(QmpError) as refused:
            qmp.command('blockdev-reopen', options=[{**node, name: value}])
        assert complaint in refused.value.desc
        assert qmp.command('query-named-block-nodes') == before
    # Whatever was refused, it may be named once more as it is.
    qmp.command('blockdev-reopen', options=[node])
