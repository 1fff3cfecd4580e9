# SPDX-License-Identifier: LGPL-2.1-or-later
"""Inactive nodes: an image is handed from one process to another, and back, while both have it open."""
import nbd
import pytest
from harness import Daemon, QmpError, need, raw_image, run
from job_tools import content

MIB = 1 << 20


def disk(folder, **options):
    return {'driver': 'qcow2', 'node-name': 'disk', **options,
            'file': {'driver': 'file', 'node-name': 'file', 'filename': f'{folder}/image'}}


def tmp_path_of(folder, name):
    (folder / name).mkdir()
    return folder / name


def serve(one, folder, **options):
    one.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(folder / 'nbd')}})
    one.qmp.command('block-export-add', type='nbd', id='e', node_name='disk', name='x', writable=True, **options)


def connect(folder):
    client = nbd.NBD()
    client.connect_uri(f'nbd+unix:///x?socket={folder}/nbd')
    return client


def activity(one):
    return {node['node-name']: node['active'] for node in one.qmp.command('query-named-block-nodes')}


def set_active(one, active, **node):
    one.qmp.command('blockdev-set-active', active=active, **node)


@pytest.fixture
def hosts(tmp_path):
    """Two daemons that export the same image, the second one without being active."""
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', str(tmp_path / 'image'), str(4 * MIB))
    folders = [tmp_path / 'a', tmp_path / 'b']
    for folder in folders:
        folder.mkdir()
    with Daemon(folders[0]) as source, Daemon(folders[1]) as target:
        for one, folder in zip((source, target), folders):
            one.folder = folder
            one.qmp.command('blockdev-add', **disk(tmp_path, active=one is source))
            serve(one, folder, allow_inactive=True)
        yield source, target


def test_handover(hosts, tmp_path):
    """What the one has written, data and bitmaps, the other one finds; and in between nobody can do I/O at both."""
    source, target = hosts
    ends = [connect(one.folder) for one in hosts]
    source.qmp.command('block-dirty-bitmap-add', node='disk', name='kept', persistent=True)
    for turn in range(3):
        here, there = (0, 1) if turn % 2 == 0 else (1, 0)
        assert activity(hosts[here]) == {'disk': True, 'file': True}
        assert activity(hosts[there]) == {'disk': False, 'file': False}
        ends[here].pwrite(bytes([turn + 1]) * 65536, turn * MIB)
        for number in range(turn + 1):
            assert ends[here].pread(65536, number * MIB) == bytes([number + 1]) * 65536
        with pytest.raises(nbd.Error, match='Input/output error'):
            ends[there].pread(512, 0)
        with pytest.raises(nbd.Error, match='Input/output error'):
            ends[there].pwrite(b'x' * 512, 0)
        # While the image is in use the other side cannot have it.
        with pytest.raises(QmpError, match='lock'):
            set_active(hosts[there], True)
        assert activity(hosts[there]) == {'disk': False, 'file': False}
        set_active(hosts[here], False)
        set_active(hosts[there], True)
        node, = [node for node in hosts[there].qmp.command('query-named-block-nodes') if node['node-name'] == 'disk']
        bitmap, = node['dirty-bitmaps']
        assert bitmap['name'] == 'kept' and bitmap['count'] == (turn + 1) * 65536
    for end in ends:
        end.shutdown()


def test_killed_source(tmp_path):
    """Who waits with an inactive node takes over the image of one that has died."""
    raw_image(tmp_path / 'image', MIB)
    nodes = {'driver': 'raw', 'node-name': 'disk', 'file': {'driver': 'file', 'filename': f'{tmp_path}/image'}}
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    first = Daemon(tmp_path / 'a')
    with Daemon(tmp_path / 'b') as second:
        first.qmp.command('blockdev-add', **nodes)
        second.qmp.command('blockdev-add', **nodes, active=False)
        serve(first, tmp_path / 'a')
        client = connect(tmp_path / 'a')
        client.pwrite(b'data' * 128, 0)
        first.kill()
        set_active(second, True, node_name='disk')
        serve(second, tmp_path / 'b')
        assert connect(tmp_path / 'b').pread(512, 0) == b'data' * 128


def test_refused(daemon, tmp_path):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', str(tmp_path / 'image'), str(MIB))
    one = daemon()
    one.qmp.command('blockdev-add', **disk(tmp_path))
    with pytest.raises(QmpError, match="Node has active parent node: 'file' is used by node 'disk'"):
        set_active(one, False, node_name='file')
    with pytest.raises(QmpError, match="Failed to find node with node-name='nope'"):
        set_active(one, False, node_name='nope')
    serve(one, tmp_path)
    with pytest.raises(QmpError, match="Failed to inactivate node: 'disk' is used by block export 'e'"):
        set_active(one, False)
    assert activity(one) == {'disk': True, 'file': True}
    one.qmp.command('block-export-del', id='e')
    set_active(one, False, node_name='disk')
    set_active(one, False, node_name='disk')
    with pytest.raises(QmpError, match="Node 'disk' is inactive"):
        one.qmp.command('block-export-add', type='nbd', id='e', node_name='disk', name='x')
    with pytest.raises(QmpError, match="Node 'disk' is inactive"):
        one.qmp.command('block_resize', node_name='disk', size=2 * MIB)
    with pytest.raises(QmpError, match="Node 'disk' is inactive"):
        one.qmp.command('blockdev-reopen', options=[{**disk(tmp_path), 'read-only': True}])
    with pytest.raises(QmpError, match="Inactive 'disk' can't be a file child of active 'top'"):
        one.qmp.command('blockdev-add', driver='raw', file='disk', **{'node-name': 'top'})
    one.qmp.command('blockdev-add', driver='raw', file='disk', active=False, **{'node-name': 'top'})
    set_active(one, True, node_name='top')
    assert activity(one) == {'disk': True, 'file': True, 'top': True}
    for name in ('top', 'disk'):
        one.qmp.command('blockdev-del', **{'node-name': name})


def test_defined_one_by_one(daemon, tmp_path):
    """Inactive from the first node to the last, without locking the image or writing to it."""
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', str(tmp_path / 'image'), str(MIB))
    before = content(tmp_path / 'image')
    options = disk(tmp_path, active=False)
    one = daemon()
    with Daemon(tmp_path_of(tmp_path, 'other')) as other:
        other.qmp.command('blockdev-add', **disk(tmp_path))
        one.qmp.command('blockdev-add', **options['file'], active=False)
        one.qmp.command('blockdev-add', **{**options, 'file': 'file'})
        assert activity(one) == {'disk': False, 'file': False}
        node = [node for node in one.qmp.command('query-named-block-nodes') if node['node-name'] == 'disk'][0]
        assert node['image']['virtual-size'] == MIB and node['drv'] == 'qcow2' and not node['ro']
        one.qmp.command('blockdev-add', **{**disk(tmp_path, active=False), 'node-name': 'second', 'file': 'file'})
        with pytest.raises(QmpError):
            one.qmp.command('blockdev-add', driver='luks', file='file', active=False, **{'node-name': 'no'})
        assert activity(one) == {'disk': False, 'file': False, 'second': False}
        assert content(tmp_path / 'image') == before
    one.qmp.command('blockdev-del', **{'node-name': 'second'})
    set_active(one, True, node_name='disk')
    serve(one, tmp_path)
    connect(tmp_path).pwrite(b'data' * 128, 0)


def test_shared_child_stays(daemon, tmp_path):
    """What an active node uses too is left alone."""
    raw_image(tmp_path / 'image', MIB)
    one = daemon()
    one.qmp.command('blockdev-add', driver='file', filename=f'{tmp_path}/image', **{'node-name': 'file'})
    for name in 'ab':
        one.qmp.command('blockdev-add', driver='raw', file='file', **{'node-name': name, 'read-only': True})
    set_active(one, False, node_name='a')
    assert activity(one) == {'a': False, 'b': True, 'file': True}
    set_active(one, False, node_name='b')
    assert activity(one) == {'a': False, 'b': False, 'file': False}
    set_active(one, True, node_name='b')
    assert activity(one) == {'a': False, 'b': True, 'file': True}
    nodes = {node['node-name']: node for node in one.qmp.command('query-named-block-nodes')}
    assert all(nodes[name]['file'] == f'{tmp_path}/image' for name in nodes)


def test_broken_meanwhile(daemon, tmp_path):
    """An image that has become unreadable stays inactive, and can be deleted."""
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', str(tmp_path / 'image'), str(MIB))
    one = daemon()
    one.qmp.command('blockdev-add', **disk(tmp_path))
    set_active(one, False)
    good = content(tmp_path / 'image')
    (tmp_path / 'image').write_bytes(b'no image at all!' * 4096)
    with pytest.raises(QmpError, match="Node 'disk' cannot become active: .*not in qcow2 format"):
        set_active(one, True)
    assert not activity(one)['disk']
    set_active(one, False)
    (tmp_path / 'image').write_bytes(good)
    set_active(one, True)
    assert activity(one) == {'disk': True, 'file': True}
    set_active(one, False)
    one.qmp.command('blockdev-del', **{'node-name': 'disk'})
