# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changing the graph under clients' writes: reopening, snapshots, what headers say of backing images."""
import json
import os

import pytest
from harness import QmpError, need, run
from job_tools import MIB, add_file, connect, content, random_image, more_writes, serve, writing

SIZE = 16 * MIB


def qcow2(path, size=SIZE, backing=None):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', path,
        *(['-b', backing, '-F', 'qcow2'] if backing else [size]))
    return path


def info(path):
    return json.loads(run(need('qemu-img'), 'info', '--output=json', '-U', path).stdout)


def add_qcow2(qmp, name, path, **options):
    qmp.command('blockdev-add', driver='qcow2', node_name=name,
                file={'driver': 'file', 'filename': str(path), 'node-name': f'{name}-file'}, **options)


def edges(qmp):
    """{parent: {name: child}} of nodes and handles."""
    graph = qmp.command('x-debug-query-block-graph')
    names = {node['id']: node['name'] for node in graph['nodes']}
    found = {}
    for edge in graph['edges']:
        found.setdefault(names[edge['parent']], {})[edge['name']] = names[edge['child']]
    return found


def reopen(qmp, *options):
    return qmp.command('blockdev-reopen', options=list(options))


# --- reopening ---

def test_reopen_file_flags_under_writes(daemon, tmp_path):
    one = daemon()
    random_image(tmp_path / 'a', SIZE)
    add_file(one.qmp, 'a', tmp_path / 'a')
    uri = serve(one.qmp, tmp_path / 'nbd', 'a')
    options = {'driver': 'file', 'node-name': 'a', 'filename': str(tmp_path / 'a')}
    with writing(uri, SIZE) as written:
        for step in range(10):
            reopen(one.qmp, {**options, 'cache': {'direct': step % 2 == 0}, 'discard': 'unmap'})
            node, = one.qmp.command('query-named-block-nodes')
            assert node['cache']['direct'] == (step % 2 == 0)
            more_writes(written, 5)
    image = content(tmp_path / 'a')
    for at, data in written.items():
        assert image[at:at + 4096] == data
    with pytest.raises(QmpError, match='read-only'):
        reopen(one.qmp, {**options, 'read-only': True})


def test_reopen_read_only_and_back(daemon, tmp_path):
    one = daemon()
    random_image(tmp_path / 'a', SIZE)
    options = {'driver': 'raw', 'node-name': 'r', 'file': 'f'}
    one.qmp.command('blockdev-add', driver='raw', node_name='r', read_only=True,
                    file={'driver': 'file', 'filename': str(tmp_path / 'a'), 'node-name': 'f'})
    with pytest.raises(QmpError, match='read-only'):
        serve(one.qmp, tmp_path / 'nbd', 'r')
    # The child was opened for reading because its parent was; by name alone it stays so.
    reopen(one.qmp, {'driver': 'raw', 'node-name': 'r',
                     'file': {'driver': 'file', 'filename': str(tmp_path / 'a')}})
    one.qmp.command('block-export-add', type='nbd', id='e', node_name='r', name='y', writable=True)
    handle = connect(f"nbd+unix:///y?socket={tmp_path / 'nbd'}")
    handle.pwrite(b'data' * 128, 0)
    handle.shutdown()
    assert content(tmp_path / 'a')[:4] == b'data'
    one.qmp.command('block-export-del', id='e', mode='hard')
    reopen(one.qmp, {**options, 'read-only': True})
    assert {node['node-name']: node['ro'] for node in one.qmp.command('query-named-block-nodes')}['r']


def test_reopen_replaces_file_and_window(daemon, tmp_path):
    one = daemon()
    a = random_image(tmp_path / 'a', SIZE, (0, SIZE))
    b = random_image(tmp_path / 'b', SIZE, (0, SIZE), seed=2)
    add_file(one.qmp, 'a', tmp_path / 'a')
    add_file(one.qmp, 'b', tmp_path / 'b')
    one.qmp.command('blockdev-add', driver='raw', node_name='r', file='a')
    handle = connect(serve(one.qmp, tmp_path / 'nbd', 'r'))
    assert handle.pread(4096, 0) == a[:4096]
    reopen(one.qmp, {'driver': 'raw', 'node-name': 'r', 'file': 'b'})
    assert handle.pread(4096, 0) == b[:4096]
    reopen(one.qmp, {'driver': 'raw', 'node-name': 'r', 'file': 'b', 'offset': 4096, 'size': 8192})
    assert handle.pread(4096, 0) == b[4096:8192]
    reopen(one.qmp, {'driver': 'raw', 'node-name': 'r', 'file': 'a'})
    assert handle.pread(4096, 0) == a[:4096]
    handle.shutdown()
    one.qmp.command('blockdev-del', node_name='b')


def test_reopen_all_or_nothing(daemon, tmp_path):
    one = daemon()
    random_image(tmp_path / 'a', SIZE)
    random_image(tmp_path / 'b', SIZE)
    add_file(one.qmp, 'a', tmp_path / 'a')
    add_file(one.qmp, 'b', tmp_path / 'b')
    one.qmp.command('blockdev-add', driver='raw', node_name='r', file='a')
    before = one.qmp.command('query-named-block-nodes'), edges(one.qmp)
    good = {'driver': 'file', 'node-name': 'a', 'filename': str(tmp_path / 'a'), 'cache': {'direct': True},
            'read-only': True, 'detect-zeroes': 'on'}
    for bad in [{'driver': 'raw', 'node-name': 'r', 'file': 'no'},
                {'driver': 'raw', 'node-name': 'no', 'file': 'a'},
                {'driver': 'file', 'node-name': 'b', 'filename': 'c'},
                {'driver': 'raw', 'node-name': 'r', 'file': 'r'}]:
        with pytest.raises(QmpError):
            reopen(one.qmp, {'driver': 'raw', 'node-name': 'r', 'file': 'b'}, good, bad)
        assert (one.qmp.command('query-named-block-nodes'), edges(one.qmp)) == before


@pytest.mark.parametrize('options, message', [
    ({'driver': 'raw', 'file': 'f'}, 'node-name not specified'),
    ({'driver': 'raw', 'node-name': 'no', 'file': 'f'}, "Failed to find node with node-name='no'"),
    ({'driver': 'null-co', 'node-name': 'r'}, "Cannot change the option 'driver'"),
    ({'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'null-co'}}, "Cannot change the option 'file.driver'"),
    ({'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'file', 'filename': 'x'}},
     "Cannot change the option 'file.filename'"),
    ({'driver': 'file', 'node-name': 'f', 'filename': 'FILE', 'locking': 'off'}, "Cannot change the option 'locking'"),
    ({'driver': 'null-co', 'node-name': 'n', 'size': 2048}, "Cannot change the option 'size'"),
    ({'driver': 'null-co', 'node-name': 'n'}, "Option 'size' cannot be reset to its default value"),
    ({'driver': 'file', 'node-name': 'f', 'filename': 'FILE', 'detect-zeroes': 'unmap'},
     'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap'),
])
def test_reopen_refusals(daemon, tmp_path, options, message):
    one = daemon()
    random_image(tmp_path / 'a', SIZE)
    one.qmp.command('blockdev-add', driver='raw', node_name='r',
                    file={'driver': 'file', 'filename': str(tmp_path / 'a'), 'node-name': 'f'})
    one.qmp.command('blockdev-add', driver='null-co', node_name='n', size=1024)
    options = json.loads(json.dumps(options).replace('FILE', str(tmp_path / 'a')))
    with pytest.raises(QmpError) as failure:
        reopen(one.qmp, options)
    assert message in failure.value.desc
    with pytest.raises(QmpError):
        reopen(one.qmp)


def test_reopen_backing(daemon, tmp_path):
    """A backing image is put in, exchanged, and taken out while somebody reads."""
    one = daemon()
    data = random_image(tmp_path / 'base', SIZE, (0, SIZE))
    add_file(one.qmp, 'base', tmp_path / 'base')
    add_qcow2(one.qmp, 'top', qcow2(tmp_path / 'top'))
    handle = connect(serve(one.qmp, tmp_path / 'nbd', 'top'))
    assert handle.pread(4096, 0) == bytes(4096)
    reopen(one.qmp, {'driver': 'qcow2', 'node-name': 'top', 'file': 'top-file', 'backing': 'base'})
    assert handle.pread(4096, 0) == data[:4096]
    handle.pwrite(b'mine' * 1024, MIB)
    with pytest.raises(QmpError, match="backing is missing for 'top'"):
        reopen(one.qmp, {'driver': 'qcow2', 'node-name': 'top', 'file': 'top-file'})
    with pytest.raises(QmpError, match='cycle'):
        reopen(one.qmp, {'driver': 'qcow2', 'node-name': 'top', 'file': 'top-file', 'backing': 'top'})
    reopen(one.qmp, {'driver': 'qcow2', 'node-name': 'top', 'file': 'top-file', 'backing': None})
    assert handle.pread(4096, 0) == bytes(4096)
    assert handle.pread(4096, MIB) == b'mine' * 1024
    handle.shutdown()
    one.qmp.command('blockdev-del', node_name='base')


# --- snapshots ---

def test_snapshot_chain_under_writes(daemon, tmp_path):
    """Ten overlays, one on the other, while a client writes; the chain as the peer reads it has all of it."""
    one = daemon()
    add_qcow2(one.qmp, 'n0', qcow2(tmp_path / 'i0'))
    uri = serve(one.qmp, tmp_path / 'nbd', 'n0')
    with writing(uri, SIZE) as written:
        for step in range(1, 11):
            one.qmp.command('blockdev-snapshot-sync', node_name=f'n{step - 1}', snapshot_node_name=f'n{step}',
                            snapshot_file=str(tmp_path / f'i{step}'))
            more_writes(written)
    found = edges(one.qmp)
    assert found["block export 'exp'"]['root'] == 'n10'
    assert found['n10']['backing'] == 'n9'
    one.qmp.command('block-export-del', id='exp', mode='hard')
    one.stop()
    assert info(tmp_path / 'i10')['backing-filename'].endswith('i9')
    run(need('qemu-img'), 'convert', '-O', 'raw', tmp_path / 'i10', tmp_path / 'flat')
    image = content(tmp_path / 'flat')
    for at, data in written.items():
        assert image[at:at + 4096] == data
    for step in range(11):
        run(need('qemu-img'), 'check', '-q', tmp_path / f'i{step}')


def test_snapshot_into_a_node(daemon, tmp_path):
    one = daemon()
    add_qcow2(one.qmp, 'a', qcow2(tmp_path / 'a'))
    add_qcow2(one.qmp, 'o', qcow2(tmp_path / 'o'), backing=None)
    add_file(one.qmp, 'f', random_image(tmp_path / 'f', SIZE) and tmp_path / 'f')
    handle = connect(serve(one.qmp, tmp_path / 'nbd', 'a'))
    handle.pwrite(b'old.' * 1024, 0)
    for arguments, message in [({'node': 'no', 'overlay': 'o'}, "Cannot find device='no' nor node-name='no'"),
                               ({'node': 'a', 'overlay': 'no'}, "Cannot find device='no' nor node-name='no'"),
                               ({'node': 'a', 'overlay': 'a'}, 'would create a cycle'),
                               ({'node': 'a', 'overlay': 'f'}, 'The overlay does not support backing images')]:
        with pytest.raises(QmpError) as failure:
            one.qmp.command('blockdev-snapshot', **arguments)
        assert message in failure.value.desc
    one.qmp.command('blockdev-snapshot', node='a', overlay='o')
    handle.pwrite(b'new.' * 1024, 4096)
    assert handle.pread(8192, 0) == b'old.' * 1024 + b'new.' * 1024
    with pytest.raises(QmpError, match='already'):
        one.qmp.command('blockdev-snapshot', node='f', overlay='o')
    handle.shutdown()


def test_transaction_of_snapshots(daemon, tmp_path):
    """One that fails undoes the others; all together take effect at one moment."""
    one = daemon()
    for name in 'ab':
        add_qcow2(one.qmp, name, qcow2(tmp_path / name))
        add_qcow2(one.qmp, f'o{name}', qcow2(tmp_path / f'o{name}'), backing=None)
    handle = connect(serve(one.qmp, tmp_path / 'nbd', 'a'))
    handle.pwrite(b'old.' * 1024, 0)
    before = edges(one.qmp)
    actions = [{'type': 'blockdev-snapshot', 'data': {'node': 'a', 'overlay': 'oa'}},
               {'type': 'blockdev-snapshot-sync', 'data': {'node-name': 'oa', 'snapshot-file': str(tmp_path / 's'),
                                                           'snapshot-node-name': 's'}},
               {'type': 'blockdev-snapshot-internal-sync', 'data': {'device': 'b', 'name': 'inside'}},
               {'type': 'blockdev-snapshot', 'data': {'node': 'b', 'overlay': 'ob'}}]
    for bad in [{'type': 'abort', 'data': {}}, {'type': 'blockdev-snapshot', 'data': {'node': 'no', 'overlay': 'b'}}]:
        with pytest.raises(QmpError):
            one.qmp.command('transaction', actions=actions + [bad])
        assert edges(one.qmp) == before
    handle.pwrite(b'mid.' * 1024, 4096)
    one.qmp.command('transaction', actions=actions)
    handle.pwrite(b'new.' * 1024, 8192)
    assert handle.pread(12288, 0) == b'old.' * 1024 + b'mid.' * 1024 + b'new.' * 1024
    found = edges(one.qmp)
    assert found["block export 'exp'"]['root'] == 's'
    assert (found['s']['backing'], found['oa']['backing'], found['ob']['backing']) == ('oa', 'a', 'b')
    handle.shutdown()
    one.stop()
    assert [shot['name'] for shot in info(tmp_path / 'b')['snapshots']] == ['inside']


def test_snapshot_needs_a_name(daemon, tmp_path):
    """What takes the place of a named node has a name; and no image is made without one."""
    one = daemon()
    add_qcow2(one.qmp, 'a', qcow2(tmp_path / 'a'))
    with pytest.raises(QmpError, match='New overlay node-name missing'):
        one.qmp.command('blockdev-snapshot-sync', node_name='a', snapshot_file=str(tmp_path / 's'))
    assert not (tmp_path / 's').exists()


def test_internal_snapshots(daemon, tmp_path):
    one = daemon()
    add_qcow2(one.qmp, 'a', qcow2(tmp_path / 'a'))
    add_file(one.qmp, 'f', random_image(tmp_path / 'f', MIB) and tmp_path / 'f')
    handle = connect(serve(one.qmp, tmp_path / 'nbd', 'a'))
    handle.pwrite(b'one.' * 1024, 0)
    one.qmp.command('blockdev-snapshot-internal-sync', device='a', name='s1')
    handle.pwrite(b'two.' * 1024, 0)
    handle.flush()
    handle.shutdown()
    take = 'blockdev-snapshot-internal-sync'
    delete = 'blockdev-snapshot-delete-internal-sync'
    for command, arguments, message in [
            (take, {'device': 'a', 'name': 's1'}, "Snapshot with name 's1' already exists on device 'a'"),
            (take, {'device': 'a', 'name': ''}, 'Name is empty'),
            (take, {'device': 'no', 'name': 'x'}, "Cannot find device='no' nor node-name='no'"),
            (take, {'device': 'f', 'name': 'x'},
             "Block format 'file' used by device 'f' does not support internal snapshots"),
            (delete, {'device': 'a'}, 'Name or id must be provided'),
            (delete, {'device': 'a', 'name': 'no'}, "Snapshot with id 'null' and name 'no' does not exist on device 'a'"),
            (delete, {'device': 'a', 'id': '7', 'name': 's1'},
             "Snapshot with id '7' and name 's1' does not exist on device 'a'")]:
        with pytest.raises(QmpError) as failure:
            one.qmp.command(command, **arguments)
        assert message in failure.value.desc
    assert one.qmp.command(delete, device='a', name='s1')['name'] == 's1'
    one.stop()
    run(need('qemu-img'), 'check', '-q', tmp_path / 'a')
    assert 'snapshots' not in info(tmp_path / 'a')


def test_change_backing_file(daemon, tmp_path):
    one = daemon()
    qcow2(tmp_path / 'a')
    qcow2(tmp_path / 'b', backing=tmp_path / 'a')
    qcow2(tmp_path / 'c', backing=tmp_path / 'b')
    add_qcow2(one.qmp, 'c', tmp_path / 'c')
    names = edges(one.qmp)
    middle = names['c']['backing']
    one.qmp.command('change-backing-file', device='c', image_node_name='c', backing_file='elsewhere')
    one.qmp.command('change-backing-file', device='c', image_node_name=middle, backing_file='nowhere')
    with pytest.raises(QmpError, match='not allowing backing file change on an image without a backing file'):
        one.qmp.command('change-backing-file', device='c', image_node_name=names[middle]['backing'], backing_file='x')
    with pytest.raises(QmpError, match="Cannot find device='no'"):
        one.qmp.command('change-backing-file', device='no', image_node_name='c', backing_file='x')
    one.stop()
    assert info(tmp_path / 'c')['backing-filename'] == 'elsewhere'
    assert info(tmp_path / 'b')['backing-filename'] == 'nowhere'
    assert os.path.exists(tmp_path / 'a')
