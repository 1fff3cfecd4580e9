# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Clients at once on the same pools, each doing what gets in the way of the others: whatever is refused is refused with an
error, and afterwards everything is as free as if nobody had been there.
"""
import os
import random
import signal
import tempfile
import threading

import libvirt
import pytest
from harness import PATIENCE_S
from pool_daemon import pool_xml, volume_xml
from pool_raw import OK, Raw, string
from test_pool_devices import disk_pool, loop_device, partition

MIB = 1 << 20
TURNS = 25


class Client(threading.Thread):
    """Does things at random, which may be refused; anything but an error of libvirt's fails the test."""

    def __init__(self, pool_daemon, seed, *actions):
        super().__init__()
        self.connection = pool_daemon.connect()
        self.random = random.Random(seed)
        self.actions = actions
        self.wrong = None

    def run(self):
        for _ in range(TURNS):
            try:
                self.random.choice(self.actions)(self.connection, self.random)
            except libvirt.libvirtError as error:
                if error.get_error_code() in (libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_NO_CONNECT) or not self.connection.isAlive():
                    self.wrong = error
                    return
            except Exception as error:  # pylint: disable=broad-except
                self.wrong = error
                return


def run_clients(pool_daemon, *clients):
    threads = [Client(pool_daemon, seed, *actions) for seed, actions in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10 * PATIENCE_S)
        assert not thread.is_alive(), 'a client waits for ever'
        assert thread.wrong is None, thread.wrong
    assert pool_daemon.process.poll() is None, pool_daemon.log.read_text()


def pool_of(connection, name='one'):
    return connection.storagePoolLookupByName(name)


def volume_of(connection, rng):
    return rng.choice(pool_of(connection).listAllVolumes() or [pool_of(connection).storageVolLookupByName('none')])


def make(connection, rng):
    pool_of(connection).createXML(volume_xml(f'v{rng.randrange(4)}', MIB, rng.choice(['raw', 'qcow2']), allocation=0))


def copy(connection, rng):
    there, back = rng.sample(['one', 'two'], 2)
    source = rng.choice(pool_of(connection, there).listAllVolumes() or [pool_of(connection, there).storageVolLookupByName('none')])
    pool_of(connection, back).createXMLFrom(volume_xml(f'v{rng.randrange(4)}', MIB), source)


def look(connection, rng):
    volume = volume_of(connection, rng)
    volume.info()
    volume.XMLDesc()
    connection.storageVolLookupByPath(volume.path())
    pool_of(connection).XMLDesc()


def upload(connection, rng):
    stream = connection.newStream()
    volume_of(connection, rng).upload(stream, 0, 0)
    stream.send(b'x' * 1000)
    if rng.randrange(2):
        stream.finish()
    else:
        stream.abort()


def download(connection, rng):
    stream = connection.newStream()
    volume_of(connection, rng).download(stream, 0, 0)
    stream.recv(1000)
    stream.abort()


def restart(connection, _rng):
    pool_of(connection).destroy()
    pool_of(connection).create()


def test_one_pool_of_files(pool_daemon, tmp_path):
    """P4: Look-ups while the pool is refreshed, stopped, started, and redefined."""
    for name in ('one', 'two', 'other'):
        (tmp_path / name).mkdir()
    connection = pool_daemon.start().connect()
    pools = [connection.storagePoolDefineXML(pool_xml(name, tmp_path / name)) for name in ('one', 'two')]
    for pool in pools:
        pool.create()
    uuid = f'<uuid>{pools[0].UUIDString()}</uuid><target>'
    definitions = [pool_xml('one', tmp_path / name).replace('<target>', uuid) for name in ('one', 'other')]

    def define(connection, rng):
        connection.storagePoolDefineXML(rng.choice(definitions))
    run_clients(pool_daemon, (make, lambda c, r: volume_of(c, r).delete(), lambda c, r: volume_of(c, r).resize(2 * MIB)),
                (copy, lambda c, r: volume_of(c, r).wipe()), (look,), (upload, download),
                (restart, define, lambda c, r: pool_of(c).refresh(), lambda c, r: pool_of(c, 'two').refresh()))
    for pool in pools:
        if not pool.isActive():
            pool.create()
        pool.refresh()
        for volume in pool.listAllVolumes():
            volume.delete()
        pool.destroy()
        pool.undefine()
    assert not [name for folder in ('one', 'two', 'other') for name in os.listdir(tmp_path / folder) if name.startswith('.')]


def test_path_to_where_nobody_answers(pool_daemon, daemon, tmp_path):
    """A client names a path below /dev that leads elsewhere; it waits alone."""
    image, mounted = tmp_path / 'image', tmp_path / 'mounted'
    for path in (image, mounted):
        path.write_bytes(bytes(MIB))
    server = daemon('--blockdev', f'driver=file,node-name=disk,filename={image}',
                    '--export', f'type=fuse,id=e,node-name=disk,mountpoint={mounted}')
    pool_daemon.start()
    raw = Raw(pool_daemon.socket)
    raw.call(66)
    assert raw.open(pool_daemon.uri().split('?')[0]).status == OK
    server.process.send_signal(signal.SIGSTOP)
    try:
        raw.send(97, string(f'/dev/..{mounted}'))
        assert 'Name' in pool_daemon.virsh('pool-list')
        raw.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            raw.sock.recv(1)
    finally:
        server.process.send_signal(signal.SIGCONT)
    raw.sock.settimeout(PATIENCE_S)
    assert raw.receive().error()[0] == libvirt.VIR_ERR_NO_STORAGE_VOL


@pytest.mark.skipif(os.geteuid() != 0, reason='makes loop devices')
def test_one_pool_of_partitions(pool_daemon, tmp_path):
    """Its definition gives way to one without any device while its volumes are looked at, whose paths are nodes or links."""
    connection = pool_daemon.start().connect()
    with loop_device(tmp_path / 'disk') as node, tempfile.TemporaryDirectory(dir='/dev', prefix='ashlar-test-') as links:
        base = node.rsplit('/', 1)[1]
        for number in range(1, 10):
            os.symlink(f'{node}p{number}', f'{links}/part{number}')
        as_disk = disk_pool('one', node, 'dos').replace('<path>/dev<', f'<path>{links}<')
        pool = connection.storagePoolDefineXML(as_disk)
        pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
        for number in (1, 2, 3):
            pool.createXML(partition(f'{base}p{number}', 10 * MIB))
        pool.createXML(partition(f'{base}p4', 150 * MIB, 'extended'))
        for number in (5, 6, 7):
            pool.createXML(partition(f'{base}p{number}', 10 * MIB))
        uuid = f'<uuid>{pool.UUIDString()}</uuid>'
        definitions = [as_disk.replace('<source>', uuid + '<source>'),
                       disk_pool('one', node, 'dos').replace('<source>', uuid + '<source>'),
                       pool_xml('one', pool_daemon.images).replace('<target>', uuid + '<target>')]

        def define(connection, rng):
            connection.storagePoolDefineXML(rng.choice(definitions))

        def part(connection, rng):
            number = rng.randrange(5, 9)
            pool_of(connection).createXML(partition(f'{base}p{number}', 10 * MIB))
        run_clients(pool_daemon, (look,), (look,), (restart, define), (part, lambda c, r: volume_of(c, r).delete()), (download,))
        if pool.isActive():
            pool.destroy()
        connection.storagePoolDefineXML(definitions[0])
        pool.create()
        pool.refresh()
        pool.destroy()
        pool.undefine()
