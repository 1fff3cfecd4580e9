# SPDX-License-Identifier: LGPL-2.1-or-later
"""quorum: votes, errors and their events, and children that come and go under I/O."""
import json
import threading

import pytest
from harness import QmpError, raw_image
from job_tools import connect, content, more_writes, serve, writing

MIB = 1 << 20
SIZE = 2 * MIB


@pytest.fixture
def disks(daemon, tmp_path):
    """A daemon, and equal images a, b, c, d."""
    one = daemon()
    one.folder = tmp_path
    for name in 'abcd':
        raw_image(tmp_path / name, SIZE)
        with open(tmp_path / name, 'r+b') as image:
            image.write(b'\1' * 65536)
    return one


def file(one, name, **options):
    return {'driver': 'file', 'filename': f'{one.folder}/{name}', 'node-name': f'n{name}', **options}


def broken(one, name, kind, errno=5, **rule):
    """A child whose requests of the kind fail."""
    return {'driver': 'blkdebug', 'node-name': f'd{name}', 'image': file(one, name),
            'inject-error': [{'event': 'none', 'iotype': kind, 'errno': errno, **rule}]}


def add(one, children, threshold, **options):
    one.qmp.command('blockdev-add', driver='quorum', children=children, **{'node-name': 'q', 'vote-threshold': threshold},
                    **options)


def use(one, children, threshold, **options):
    add(one, children, threshold, **options)
    return connect(serve(one.qmp, one.folder / 'nbd', 'q'))


def spoil(one, name, byte):
    with open(one.folder / name, 'r+b') as image:
        image.write(bytes([byte]) * 4096)


def bad(node, kind, error=None, sector=0, count=2):
    data = {'node-name': node, 'type': kind, 'sector-num': sector, 'sectors-count': count}
    return {**data, 'error': error} if error else data


def next_data(one, name):
    return one.qmp.event(name)['data']


def files(one, names):
    return [file(one, name) for name in names]


@pytest.mark.parametrize('names, threshold, options, complaint', [
    ('ab', 3, {}, 'threshold may not exceed children count'),
    ('ab', 0, {}, "Parameter 'vote-threshold' expects a value >= 1"),
    ('', 1, {}, 'Number of provided children must be 1 or more'),
    ('abc', 2, {'blkverify': True}, 'blkverify=on can only be set if there are exactly two files and vote-threshold is 2'),
    ('ab', 2, {'blkverify': True, 'rewrite-corrupted': True}, 'rewrite-corrupted=on cannot be used with blkverify=on'),
])
def test_refused(disks, names, threshold, options, complaint):
    with pytest.raises(QmpError, match=complaint):
        add(disks, files(disks, names), threshold, **options)


def test_lengths_differ(disks):
    raw_image(disks.folder / 'a', MIB)
    with pytest.raises(QmpError, match='Could not refresh total sector count: Input/output error'):
        add(disks, files(disks, 'ab'), 1)


def test_outvoted(disks):
    spoil(disks, 'b', 2)
    client = use(disks, files(disks, 'abc'), 2)
    assert client.pread(1024, 0) == b'\1' * 1024
    assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('nb', 'read')
    assert content(disks.folder / 'b')[0] == 2


def test_rewritten(disks):
    spoil(disks, 'a', 2)
    client = use(disks, files(disks, 'abc'), 2, **{'rewrite-corrupted': True})
    assert client.pread(1024, 0) == b'\1' * 1024
    assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('na', 'read')
    assert content(disks.folder / 'a')[:1025] == b'\1' * 1024 + b'\2'


def test_no_agreement(disks):
    spoil(disks, 'b', 2)
    spoil(disks, 'c', 3)
    client = use(disks, files(disks, 'abc'), 2)
    with pytest.raises(Exception, match='Input/output error'):
        client.pread(1024, 512)
    assert next_data(disks, 'QUORUM_FAILURE') == {'reference': 'q', 'sector-num': 1, 'sectors-count': 2}


def test_read_errors(disks):
    client = use(disks, [broken(disks, 'a', 'read'), file(disks, 'b'), broken(disks, 'c', 'read', 28, once=True)], 2)
    with pytest.raises(Exception, match='Input/output error'):
        client.pread(1024, 0)
    assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('da', 'read', 'Input/output error')
    assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('dc', 'read', 'No space left on device')
    assert next_data(disks, 'QUORUM_FAILURE') == {'reference': 'q', 'sector-num': 0, 'sectors-count': 2}
    assert client.pread(1024, 0) == b'\1' * 1024


def test_write_errors(disks):
    client = use(disks, [broken(disks, 'a', 'write', 28), file(disks, 'b'), broken(disks, 'c', 'write', 28, once=True)], 2)
    with pytest.raises(Exception, match='No space left on device'):
        client.pwrite(b'x' * 1024, 4096)
    for name in 'ac':
        assert next_data(disks, 'QUORUM_REPORT_BAD') == bad(f'd{name}', 'write', 'No space left on device', 8)
    assert next_data(disks, 'QUORUM_FAILURE') == {'reference': 'q', 'sector-num': 8, 'sectors-count': 2}
    client.pwrite(b'y' * 1024, 4096)
    assert client.pread(1024, 4096) == b'y' * 1024


@pytest.mark.parametrize('kind', ['flush', 'write-zeroes'])
def test_vote_of_others(disks, kind):
    """One failing child of three does not fail a flush or a zero write, two do."""
    client = use(disks, [broken(disks, 'a', kind), file(disks, 'b'), broken(disks, 'c', kind, sector=16)], 2)
    client.pwrite(b'x' * 1024, 0)
    if kind == 'flush':
        client.flush()
        assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('da', 'flush', 'Input/output error', 0, 0)
        return
    client.zero(1024, 0)
    assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('da', 'write', 'Input/output error')
    with pytest.raises(Exception, match='Input/output error'):
        client.zero(1024, 8192)


def test_flush_fails(disks):
    client = use(disks, [broken(disks, 'a', 'flush'), file(disks, 'b'), broken(disks, 'c', 'flush')], 2)
    client.pwrite(b'x' * 1024, 0)
    with pytest.raises(Exception, match='Input/output error'):
        client.flush()
    client.shutdown()


def test_fifo(disks):
    spoil(disks, 'c', 9)
    client = use(disks, [broken(disks, 'a', 'read'), file(disks, 'b'), file(disks, 'c')], 1, **{'read-pattern': 'fifo'})
    assert client.pread(1024, 0) == b'\1' * 1024
    assert next_data(disks, 'QUORUM_REPORT_BAD') == bad('da', 'read', 'Input/output error')
    client.pwrite(b'z' * 512, 512)
    assert all(content(disks.folder / name)[512:1024] == b'z' * 512 for name in 'abc')


def test_blkverify(disks):
    spoil(disks, 'b', 2)
    client = use(disks, files(disks, 'ab'), 2, blkverify=True)
    assert client.pread(1024, 65536) == bytes(1024)
    with pytest.raises(Exception, match='Input/output error'):
        client.pread(8192, 0)
    assert "quorum: node 'q': offset=0 bytes=8192 contents mismatch at offset 0" in disks.stderr
    for change in ({'node': 'nope'}, {'child': 'children.1'}):
        with pytest.raises(QmpError):
            disks.qmp.command('x-blockdev-change', parent='q', **change)


def test_name_and_status(disks):
    add(disks, files(disks, 'ab'), 2, **{'read-pattern': 'quorum'})
    node, = [node for node in disks.qmp.command('query-named-block-nodes') if node['node-name'] == 'q']
    shown = json.loads(node['file'].removeprefix('json:'))
    assert shown == {'driver': 'quorum', 'vote-threshold': 2, 'read-pattern': 'quorum', 'children': [
        {'driver': 'file', 'filename': f'{disks.folder}/{name}'} for name in 'ab']}
    disks.qmp.command('nbd-server-start',
                      addr={'type': 'unix', 'data': {'path': f'{disks.folder}/nbd'}})
    disks.qmp.command('block-export-add', type='nbd', id='e', node_name='q', name='x')
    import nbd
    client = nbd.NBD()
    client.add_meta_context('base:allocation')
    client.connect_uri(f'nbd+unix:///x?socket={disks.folder}/nbd')
    seen = []
    client.block_status(SIZE, 0, lambda context, offset, entries, error: seen.extend(entries) or 0)
    assert seen == [65536, 0, SIZE - 65536, 3]


def test_changes_refused(disks):
    add(disks, files(disks, 'ab'), 2)
    disks.qmp.command('blockdev-add', **file(disks, 'd'))
    raw_image(disks.folder / 'short', MIB)
    disks.qmp.command('blockdev-add', **file(disks, 'short'))
    for arguments, complaint in [
            ({'node': 'nope'}, "Node 'nope' not found"), ({'child': 'children.9'}, "does not have child 'children.9'"),
            ({}, 'Either child or node must be specified'),
            ({'child': 'children.0', 'node': 'nd'}, 'The parameters child and node are in conflict'),
            ({'child': 'children.0'}, 'The number of children cannot be lower than the vote threshold 2'),
            ({'node': 'na'}, 'The node na already has a parent'), ({'node': 'q'}, 'would create a cycle'),
            ({'node': 'nshort'}, f"Node 'nshort' has {MIB} bytes, and the children of quorum 'q' {SIZE}")]:
        with pytest.raises(QmpError, match=complaint):
            disks.qmp.command('x-blockdev-change', parent='q', **arguments)
    with pytest.raises(QmpError, match='The node na does not support adding a child'):
        disks.qmp.command('x-blockdev-change', parent='na', node='nd')
    with pytest.raises(QmpError, match='Cannot find device='):
        disks.qmp.command('x-blockdev-change', parent='nope', node='nd')


def test_children_change_under_io(disks):
    """A child comes and goes while a client writes: those that were there all the time are equal in the end."""
    add(disks, files(disks, 'abc'), 2)
    disks.qmp.command('blockdev-add', **file(disks, 'd'))
    client_uri = serve(disks.qmp, disks.folder / 'nbd', 'q')
    names = []
    with writing(client_uri, SIZE) as written:
        more_writes(written, 1)
        for _ in range(8):
            disks.qmp.command('x-blockdev-change', parent='q', node='nd')
            edges = disks.qmp.command('x-debug-query-block-graph')
            ids = {node['id']: node['name'] for node in edges['nodes']}
            names += [edge['name'] for edge in edges['edges'] if ids[edge['child']] == 'nd']
            disks.qmp.command('x-blockdev-change', parent='q', child=names[-1])
        disks.qmp.command('x-blockdev-change', parent='q', child='children.0')
    assert names == ['children.3'] * 8
    assert written
    disks.stop()
    left, right = content(disks.folder / 'b'), content(disks.folder / 'c')
    assert left == right
    for at, data in written.items():
        assert left[at:at + len(data)] == data


def test_children_and_jobs(disks):
    """A child that a job works on stays. One that a mirror is to replace may go: then the mirror cannot."""
    add(disks, files(disks, 'abc'), 2)
    raw_image(disks.folder / 'e', SIZE)
    for name in 'de':
        disks.qmp.command('blockdev-add', **file(disks, name))
    disks.qmp.command('blockdev-mirror', job_id='below', device='na', target='nd', sync='full', speed=1)
    disks.qmp.command('blockdev-mirror', job_id='above', device='q', target='ne', sync='full', replaces='nb')
    with pytest.raises(QmpError, match="Node 'na' is busy: block device is in use by block job: mirror"):
        disks.qmp.command('x-blockdev-change', parent='q', child='children.0')
    disks.qmp.command('x-blockdev-change', parent='q', child='children.1')
    disks.qmp.event('BLOCK_JOB_READY')
    disks.qmp.command('job-complete', id='above')
    error = disks.qmp.event('BLOCK_JOB_COMPLETED')['data']['error']
    assert error.startswith("Can no longer replace 'nb' by 'ne', because")
    disks.qmp.command('job-cancel', id='below')
    disks.qmp.event('BLOCK_JOB_CANCELLED')


def test_many_readers(disks):
    client = [use(disks, files(disks, 'abc'), 2)]
    client += [connect(f'nbd+unix:///x?socket={disks.folder}/nbd') for _ in range(3)]
    failures = []

    def read(one):
        for at in range(0, SIZE, 65536):
            if one.pread(65536, at) != (b'\1' if at == 0 else b'\0') * 65536:
                failures.append(at)
    threads = [threading.Thread(target=read, args=(one,)) for one in client]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_reads_beside_writes(disks):
    """What is new at one child already, and old at another still, is no corruption: nothing is written over."""
    disks.qmp.command('object-add', **{'qom-type': 'throttle-group', 'id': 'slow', 'limits': {'iops-write': 20}})
    slow = {'driver': 'throttle', 'throttle-group': 'slow', 'file': file(disks, 'b')}
    client = use(disks, [file(disks, 'a'), slow], 2, **{'rewrite-corrupted': True})
    writer = connect(f'nbd+unix:///x?socket={disks.folder}/nbd')
    stop = threading.Event()
    written = []

    def write():
        while not stop.is_set():
            written.append(bytes([len(written) % 250 + 1]) * 16384)
            writer.pwrite(written[-1], 8192)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        while len(written) < 20:
            client.pread(16384, 8192)
    finally:
        stop.set()
        thread.join()
    assert client.pread(16384, 8192) == written[-1]
    disks.qmp.command('query-version')  # which collects the events before it
    assert not [event for event in disks.qmp.events if event['event'].startswith('QUORUM')]
    disks.stop()
    assert content(disks.folder / 'a') == content(disks.folder / 'b')
    assert content(disks.folder / 'a')[8192:24576] == written[-1]


def test_reopened(disks):
    options = {'driver': 'quorum', 'node-name': 'q', 'children': files(disks, 'ab'), 'vote-threshold': 2}
    disks.qmp.command('blockdev-add', **options)
    with pytest.raises(QmpError, match="Cannot change the option 'vote-threshold'"):
        disks.qmp.command('blockdev-reopen', options=[{**options, 'vote-threshold': 1}])
    for read_only in (True, False):
        disks.qmp.command('blockdev-reopen', options=[{**options, 'read-only': read_only}])
        nodes = {node['node-name']: node['ro'] for node in disks.qmp.command('query-named-block-nodes')}
        assert nodes == {'q': read_only, 'na': read_only, 'nb': read_only}
    client = connect(serve(disks.qmp, disks.folder / 'nbd', 'q'))
    client.pwrite(b'x' * 512, 0)
