# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exports over QMP: adding, removing, looking at them; the commands of the NBD server."""
import pytest

import nbd_raw as nbd
from harness import QmpError, storaged_fails
from nbd_serving import MIB, NbdRaw, Served


@pytest.fixture
def served(daemon, tmp_path):
    return Served(daemon, tmp_path)


def refusal(served, command, **arguments):
    with pytest.raises(QmpError) as error:
        served.qmp.command(command, **arguments)
    assert error.value.error_class == 'GenericError'
    return error.value.desc


def add(served, id, **options):
    return served.qmp.command('block-export-add', type='nbd', id=id, **{'node_name': 'disk', **options})


def test_query(served):
    assert served.qmp.command('query-block-exports') == [
        {'id': 'exp', 'type': 'nbd', 'node-name': 'disk', 'shutting-down': False}]
    add(served, 'two', name='two')
    assert [export['id'] for export in served.qmp.command('query-block-exports')] == ['two', 'exp']


def test_name_defaults_to_the_node(served):
    add(served, 'other')
    with served.connect() as client:
        assert client.list() == {'x': '', 'disk': ''}


def test_remove(served):
    served.qmp.command('block-export-del', id='exp')
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'exp'}
    assert served.qmp.command('query-block-exports') == []
    with served.connect() as client:
        assert client.list() == {}
    add(served, 'exp', name='x')
    served.check_alive()
    assert refusal(served, 'block-export-del', id='nobody') == "Export 'nobody' is not found"


def test_safe_removal_waits_for_nobody(served):
    with served.open() as client, served.connect():
        assert refusal(served, 'block-export-del', id='exp') == "export 'exp' still in use"
        assert refusal(served, 'block-export-del', id='exp', mode='safe') == "export 'exp' still in use"
        client.disconnect()
    # The client has been told that it may go before the server has forgotten it.
    for _ in range(1000):
        try:
            served.qmp.command('block-export-del', id='exp')
            break
        except QmpError as error:
            assert 'still in use' in error.desc
    assert served.qmp.event('BLOCK_EXPORT_DELETED')


def test_refused_options(served):
    for id in ('', '2a', 'a b', '-a', 'ä', 'a/b'):
        assert refusal(served, 'block-export-add', type='nbd', id=id, node_name='disk', name='n').startswith('Invalid block export id')
    assert refusal(served, 'block-export-add', type='nbd', id='exp', node_name='disk') == "Block export id 'exp' is already in use"
    assert refusal(served, 'block-export-add', type='nbd', id='e', node_name='disk', name='x') == "NBD server already has export named 'x'"
    assert 'nobody' in refusal(served, 'block-export-add', type='nbd', id='e', node_name='nobody')
    assert 'too long' in refusal(served, 'block-export-add', type='nbd', id='e', node_name='disk', name='n' * 4097)
    assert 'too long' in refusal(served, 'block-export-add', type='nbd', id='e', node_name='disk', name='n', description='d' * 4097)
    assert refusal(served, 'block-export-add', type='nbd', id='e', node_name='disk', name='n', bitmaps=['b']) == "Bitmap 'b' is not found"
    assert 'nobody' in refusal(served, 'block-export-add', type='nbd', id='e', node_name='disk', name='n', iothread='nobody')
    assert [export['id'] for export in served.qmp.command('query-block-exports')] == ['exp']
    # None of the failures holds the node.
    served.qmp.command('block-export-del', id='exp')
    served.qmp.command('blockdev-del', node_name='disk')


def test_longest_texts(served):
    add(served, 'a' * 200, name='n' * 4096, description='d' * 4096)
    with served.connect() as client:
        assert client.list()['n' * 4096] == 'd' * 4096
        found = client.info('n' * 4096, [nbd.INFO_NAME])
        assert found[nbd.INFO_NAME] == b'n' * 4096 and found[nbd.INFO_DESCRIPTION] == b'd' * 4096
        client.go('n' * 4096)
        assert client.read(0, 1)


def test_node_in_use(served):
    assert 'disk' in refusal(served, 'blockdev-del', node_name='disk')
    served.qmp.command('block-export-del', id='exp')
    served.qmp.command('blockdev-del', node_name='disk')


def test_read_only_node(daemon, tmp_path):
    served = Served(daemon, tmp_path, export='', blockdev=',read-only=on')
    assert refusal(served, 'block-export-add', type='nbd', id='rw', node_name='disk', name='rw', writable=True)
    with served.open() as client:
        assert client.flags & nbd.FLAG_READ_ONLY


def test_writethrough(served):
    add(served, 'wt', name='wt', writethrough=True, writable=True)
    with served.open('wt') as client:
        client.write(7, b'through')
        assert client.read(7, 7) == b'through'
        client.request(nbd.CMD_FLUSH)


def test_several_exports(daemon, tmp_path):
    """Of one node, and of several, on one server."""
    served = Served(daemon, tmp_path, extra=['--blockdev', 'null-co,node-name=zero,size=65536,read-zeroes=on',
                                             '--export', 'nbd,id=z,node-name=zero,name=z,writable=on',
                                             '--export', 'nbd,id=ro,node-name=disk,name=ro'])
    with served.open() as first, served.open('ro') as second, served.open('z') as third:
        first.write(0, b'shared')
        assert second.read(0, 6) == b'shared'
        assert third.size == 65536
        third.write(0, b'gone')
        assert third.read(0, 4) == bytes(4)
    with served.connect() as client:
        assert sorted(client.list()) == ['ro', 'x', 'z']


def test_resize(served):
    """Clients that come later see the new size; those that are there may use it."""
    with served.open() as client:
        assert client.size == MIB
        served.qmp.command('block_resize', node_name='disk', size=2 * MIB)
        client.write(2 * MIB - 4, b'grew')
        with served.open() as later:
            assert later.size == 2 * MIB
            assert later.read(2 * MIB - 4, 4) == b'grew'
        served.qmp.command('block_resize', node_name='disk', size=MIB // 2)
        with pytest.raises(nbd.RequestError) as error:
            client.write(MIB - 512, bytes(512))
        assert error.value.code == nbd.ENOSPC
        assert client.read(MIB // 2 - 16, 16)
        with served.open() as later:
            assert later.size == MIB // 2


def test_server_commands(served, tmp_path):
    other = {'type': 'unix', 'data': {'path': str(tmp_path / 'other.sock')}}
    assert refusal(served, 'nbd-server-start', addr=other) == 'NBD server already running'
    served.qmp.command('nbd-server-stop')
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'exp'}
    assert not served.path.exists()
    assert refusal(served, 'nbd-server-stop') == 'NBD server not running'
    assert refusal(served, 'block-export-add', type='nbd', id='e', node_name='disk') == 'NBD server not running'
    assert refusal(served, 'nbd-server-add', device='disk') == 'NBD server not running'
    served.qmp.command('nbd-server-start', addr=other, max_connections=5)
    add(served, 'exp', name='x')
    with NbdRaw.open(tmp_path / 'other.sock', 'x') as client:
        assert client.read(0, 1)


def test_server_add_and_remove(served):
    served.qmp.command('nbd-server-add', device='disk')
    served.qmp.command('nbd-server-add', device='disk', name='named', writable=True, description='text')
    with served.connect() as client:
        assert client.list() == {'x': '', 'disk': '', 'named': 'text'}
    with served.open('disk') as client:
        assert client.flags & nbd.FLAG_READ_ONLY
    with served.open('named') as client:
        client.write(0, b'writable')
        assert refusal(served, 'nbd-server-remove', name='named') == "export 'named' still in use"
        served.qmp.command('nbd-server-remove', name='named', mode='hard')
        assert client.at_end()
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'named'}
    served.qmp.command('nbd-server-remove', name='disk')
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'disk'}
    assert refusal(served, 'nbd-server-remove', name='disk') == "Export 'disk' is not found"
    assert refusal(served, 'nbd-server-add', device='disk', name='x') == "NBD server already has export named 'x'"
    assert refusal(served, 'nbd-server-add', device='disk', name='n', bitmap='b') == "Bitmap 'b' is not found"
    assert 'nobody' in refusal(served, 'nbd-server-add', device='nobody')


def test_export_needs_a_server(tmp_path):
    assert 'NBD server not running' in storaged_fails('--blockdev', 'null-co,node-name=n,size=65536', '--export', 'nbd,id=e,node-name=n')


def test_iothread(daemon, tmp_path):
    served = Served(daemon, tmp_path, export='writable=on,iothread=thread0', first=['--object', 'iothread,id=thread0'],
                    extra=['--export', 'nbd,id=main,node-name=disk,name=main,writable=on'])
    with served.open() as first, served.open('main') as second, served.open() as third:
        first.write(0, b'from a thread')
        assert second.read(0, 13) == b'from a thread'
        assert third.read(0, 13) == b'from a thread'
        assert 'thread0' in refusal(served, 'object-del', id='thread0')
    served.qmp.command('block-export-del', id='exp', mode='hard')
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'exp'}
    served.qmp.command('object-del', id='thread0')
    with served.open('main') as client:
        assert client.read(0, 13) == b'from a thread'


def test_iothread_is_in_use_at_the_end(daemon, tmp_path):
    """Shutting down with clients on another thread."""
    served = Served(daemon, tmp_path, export='iothread=thread0', first=['--object', 'iothread,id=thread0'])
    client = served.open()
    client.send(client.pack(nbd.CMD_READ, 0, MIB) * 50)
    served.daemon.stop()
