# SPDX-License-Identifier: LGPL-2.1-or-later
"""Adding, deleting and looking at block nodes."""
import contextlib
import json
import socket
import subprocess

import pytest

from harness import Qmp, QmpError, need, raw_image, run, storaged_fails

MIB = 1 << 20


def fails(qmp, name, /, **arguments):
    with pytest.raises(QmpError) as caught:
        qmp.command(name, **arguments)
    assert caught.value.error_class == 'GenericError'
    return caught.value.desc


def nodes(qmp):
    return {node['node-name']: node for node in qmp.command('query-named-block-nodes', flat=True)}


@contextlib.contextmanager
def reference_daemon(directory):
    """A QMP session with the reference daemon."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([need('qemu-storage-daemon'), '--chardev', f'socket,id=c,fd={theirs.fileno()}',
                                '--monitor', 'chardev=c'], pass_fds=[theirs.fileno()], cwd=directory)
    theirs.close()
    qmp = Qmp(ours)
    yield qmp
    qmp.command('quit')
    process.wait()


def test_block_nodes_names(daemon):
    """M4"""
    qmp = daemon().qmp
    for name in ['', '1a', '#a', 'a#b', 'a b', 'a/b', '-a', '_a', '.a', 'a:b', '\u00e9', 'a\nb', 'a,b', 'a%s']:
        assert fails(qmp, 'blockdev-add', driver='null-co', node_name=name) == f"Invalid node-name: '{name}'"
    assert fails(qmp, 'blockdev-add', driver='null-co', node_name='x' * 32) == 'Node name too long'
    assert fails(qmp, 'blockdev-add', driver='null-co') == "'node-name' must be specified for the root node"
    qmp.command('blockdev-add', driver='null-co', node_name='x' * 31)
    assert fails(qmp, 'blockdev-add', driver='null-co', node_name='x' * 31) == \
        f"Duplicate nodes with node-name='{'x' * 31}'"
    for reference in 'itself', '':
        assert fails(qmp, 'blockdev-add', driver='raw', node_name='itself', file=reference) == \
            f"Cannot find device='{reference}' nor node-name='{reference}'"
    assert list(nodes(qmp)) == ['x' * 31]


def test_block_nodes_unknown_driver(daemon):
    qmp = daemon().qmp
    assert fails(qmp, 'blockdev-add', driver='ssh', node_name='s', path='/x', server={'host': 'h', 'port': '1'}) \
        .startswith("Unknown driver 'ssh'")
    assert fails(qmp, 'blockdev-add', driver='nonsense', node_name='s') == \
        "Parameter 'driver' does not accept value 'nonsense'"
    assert "Unknown driver 'rbd'" in storaged_fails('--blockdev', 'driver=rbd,node-name=r,pool=p,image=i')


def test_block_nodes_deleting(daemon, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock').qmp
    qmp.command('blockdev-add', driver='raw', node_name='top', file={
        'driver': 'file', 'filename': str(image), 'node-name': 'inner'})
    qmp.command('blockdev-add', driver='raw', node_name='second', file='inner')
    qmp.command('block-export-add', type='nbd', id='exp', node_name='top')
    assert fails(qmp, 'blockdev-del', node_name='top').startswith('Node top is in use')
    qmp.command('block-export-del', id='exp')
    qmp.event('BLOCK_EXPORT_DELETED')
    assert fails(qmp, 'blockdev-del', node_name='inner') == 'Node inner is not owned by the monitor'
    qmp.command('blockdev-add', driver='raw', node_name='third', file='second')
    assert fails(qmp, 'blockdev-del', node_name='second').startswith('Block device second is in use')
    # What was defined inline goes with the last that uses it.
    for name in 'top', 'third':
        qmp.command('blockdev-del', node_name=name)
        assert 'inner' in nodes(qmp)
    qmp.command('blockdev-del', node_name='second')
    assert not nodes(qmp)
    assert fails(qmp, 'blockdev-del', node_name='top') == "Failed to find node with node-name='top'"


def test_block_nodes_below_an_overlay(daemon, tmp_path):
    """A backing image stays, and keeps its length: what lies behind the new end would change what the overlay shows."""
    qmp = daemon().qmp
    for name in 'base', 'top':
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', tmp_path / name, MIB)
        qmp.command('blockdev-add', driver='qcow2', node_name=name,
                    file={'driver': 'file', 'filename': str(tmp_path / name)},
                    **({'backing': 'base'} if name == 'top' else {}))
    busy = "Node 'base' is busy: node is used as backing hd of 'top'"
    assert fails(qmp, 'blockdev-del', node_name='base') == busy
    assert fails(qmp, 'block_resize', node_name='base', size=512) == busy
    qmp.command('block_resize', node_name='top', size=2 * MIB)


def test_block_nodes_failed_open_leaves_nothing(daemon, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = daemon().qmp
    bad = {'driver': 'raw', 'node-name': 'top', 'offset': 2 * MIB,
           'file': {'driver': 'raw', 'node-name': 'middle', 'file': {
               'driver': 'file', 'node-name': 'bottom', 'filename': str(image)}}}
    for _ in range(3):
        reply = qmp.execute('blockdev-add', bad)
        assert reply['error']['desc'] == \
            f'Offset ({2 * MIB}) cannot be greater than size of the containing file ({MIB})'
        assert not nodes(qmp)
    # Neither names nor locks are left.
    qmp.execute('blockdev-add', {**bad, 'offset': 0})
    assert set(nodes(qmp)) == {'top', 'middle', 'bottom'}


WINDOWS = [
    ({'offset': MIB + 1}, f'Offset ({MIB + 1}) cannot be greater than size of the containing file ({MIB})'),
    ({'offset': 512, 'size': MIB}, f'The sum of offset (512) and size ({MIB}) has to be smaller or equal to the '
                                   f' actual size of the containing file ({MIB})'),
    ({'offset': (1 << 63) - 1}, f'Offset ({(1 << 63) - 1}) cannot be greater'),
    ({'offset': 512, 'size': (1 << 63) - 1}, f'The sum of offset (512) and size ({(1 << 63) - 1}) has to be'),
    ({'offset': -1}, "Parameter 'offset' expects a non-negative number below 2^64"),
    ({'size': -1}, "Parameter 'size' expects a non-negative number below 2^64"),
    ({'offset': 513}, 'Specified offset is not multiple of 512: it is 513'),
    ({'size': 513}, 'Specified size is not multiple of 512'),
    ({'size': MIB + 512}, 'The sum of offset (0) and size'),
]


@pytest.mark.parametrize('window,message', WINDOWS)
def test_block_nodes_raw_window(daemon, tmp_path, window, message):
    """F17. An offset inside a sector is refused, which the reference lets through."""
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = daemon('--blockdev', f'driver=file,node-name=f,filename={image}').qmp
    assert fails(qmp, 'blockdev-add', driver='raw', node_name='w', file='f', **window).startswith(message)
    assert list(nodes(qmp)) == ['f']


def test_block_nodes_many(daemon):
    """Each of thousands of nodes is added and shown; names are made up where none is given."""
    qmp = daemon().qmp
    count = 2000
    requests = ''.join(json.dumps({'execute': 'blockdev-add', 'arguments': {
        'driver': 'raw', 'node-name': f'n{i}', 'file': {'driver': 'null-co'}}}) for i in range(count))
    qmp.send_raw(requests)
    for _ in range(count):
        assert qmp.reply() == {'return': {}}
    seen = nodes(qmp)
    assert len(seen) == 2 * count
    for i in range(count):
        child, = seen[f'n{i}']['children']
        assert child['child'] == 'file' and child['node-name'].startswith('#block')
        assert child['node-name'] in seen


# --- as the reference shows them ---

# Members that only later versions of the reference have, and names that are made up.
NEWER = {'children', 'active', 'limits', 'format-specific'}
NEWER |= {f'{kind}zone_append_{what}' for kind in ('', 'failed_', 'invalid_') for what in
          ('bytes', 'operations', 'total_time_ns', 'merged')}


def normal(value):
    if isinstance(value, dict):
        return {key: normal(member) for key, member in value.items() if key not in NEWER}
    if isinstance(value, list):
        items = [normal(item) for item in value]
        return sorted(items) if all(isinstance(item, str) for item in items) else items
    if isinstance(value, str) and value.startswith('json:'):
        return json.loads(value[5:])
    if isinstance(value, str) and value.startswith('#block'):
        return '#block'
    return value


def graph(qmp):
    """The debug graph with names for ids."""
    answer = qmp.command('x-debug-query-block-graph')
    names = {node['id']: (node['type'], normal(node['name'])) for node in answer['nodes']}
    edges = [(names[edge['parent']], names[edge['child']], edge['name'], sorted(edge['perm']),
              sorted(edge['shared-perm'])) for edge in answer['edges']]
    return sorted(names.values()), sorted(edges)


SETUP = [
    ('object-add', {'qom-type': 'throttle-group', 'id': 'group'}),
    ('blockdev-add', {'driver': 'file', 'node-name': 'file', 'filename': 'disk'}),
    ('blockdev-add', {'driver': 'raw', 'node-name': 'raw', 'file': 'file'}),
    ('blockdev-add', {'driver': 'raw', 'node-name': 'ro', 'file': 'file', 'read-only': True}),
    ('blockdev-add', {'driver': 'raw', 'node-name': 'window', 'file': 'file', 'offset': 512, 'size': 1024}),
    ('blockdev-add', {'driver': 'raw', 'node-name': 'tail', 'file': 'raw', 'offset': 512}),
    ('blockdev-add', {'driver': 'raw', 'node-name': 'odd', 'read-only': True,
                      'cache': {'direct': False, 'no-flush': True}, 'file': {'driver': 'file', 'filename': 'odd'}}),
    ('blockdev-add', {'driver': 'file', 'node-name': 'zeroes', 'filename': 'odd', 'detect-zeroes': 'unmap',
                      'discard': 'unmap', 'aio': 'threads', 'locking': 'off'}),
    ('blockdev-add', {'driver': 'file', 'node-name': 'shared', 'filename': 'disk', 'force-share': True,
                      'read-only': True}),
    ('blockdev-add', {'driver': 'file', 'node-name': 'auto', 'filename': 'disk', 'auto-read-only': True}),
    ('blockdev-add', {'driver': 'null-co', 'node-name': 'null', 'size': 1000}),
    ('blockdev-add', {'driver': 'null-aio', 'node-name': 'slow', 'latency-ns': 5, 'read-zeroes': False}),
    ('blockdev-add', {'driver': 'null-co', 'node-name': 'plain'}),
    ('blockdev-add', {'driver': 'throttle', 'node-name': 'throttle', 'throttle-group': 'group', 'file': 'raw'}),
    ('blockdev-add', {'driver': 'raw', 'node-name': 'top', 'file': 'throttle'}),
    ('block-set-write-threshold', {'node-name': 'raw', 'write-threshold': 4096}),
    ('block_resize', {'node-name': 'zeroes', 'size': 2 * MIB}),
]


def look(qmp, directory):
    """Sets up the nodes, and all that can be seen of them."""
    raw_image(directory / 'disk', MIB)
    raw_image(directory / 'odd', 1000001)
    replies = [qmp.execute(name, arguments) for name, arguments in SETUP]
    queries = [('query-named-block-nodes', {}), ('query-named-block-nodes', {'flat': True}), ('query-block', {}),
               ('query-blockstats', {}), ('query-blockstats', {'query-nodes': True})]
    return replies, [normal(qmp.execute(name, arguments)['return']) for name, arguments in queries], graph(qmp)


def test_block_nodes_shown_as_by_the_reference(daemon, tmp_path):
    with reference_daemon(tmp_path) as peer:
        theirs = look(peer, tmp_path)
    ours = look(daemon(cwd=tmp_path).qmp, tmp_path)
    for mine, reference in zip(ours, theirs):
        assert mine == reference
