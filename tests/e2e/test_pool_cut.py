# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The daemon killed before each single step by which an operation changes files (kill_at.c): what is found afterwards is
as it was before or as it was to be, and the operation can be done again.
"""
import os
import pathlib
import struct

import libvirt
import pytest
from harness import PATIENCE_S, need, run
from pool_daemon import pool_xml, volume_xml

MIB = 1 << 20
MANY = 1 << 30


class Knife:
    def __init__(self, folder, monkeypatch):
        library = folder / 'kill_at.so'
        self.path = folder / 'kill-at'
        run(need('cc'), '-O1', '-shared', '-fPIC', '-o', library, pathlib.Path(__file__).with_name('kill_at.c'), '-ldl')
        self.arm(0)
        monkeypatch.setenv('KILL_AT', str(self.path))
        monkeypatch.setenv('LD_PRELOAD', str(library))
        monkeypatch.setenv('ASHLAR_LOOP', 'epoll')  # whose threads make each call by the C library
        monkeypatch.setenv('ASAN_OPTIONS', os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0')

    def arm(self, step):
        with open(self.path, 'r+b' if self.path.exists() else 'w+b') as file:
            file.write(struct.pack('=i', step))

    def left(self):
        return struct.unpack('=i', self.path.read_bytes())[0]


@pytest.fixture
def knife(tmp_path, monkeypatch):
    return Knife(tmp_path, monkeypatch)


def cut_at_each_step(pool_daemon, knife, change, check, undo):
    """
    `change(connection)`, killed before its first step, its second, ...; `check(connection)` looks at what is there, and
    `undo(connection)` makes it as it was. The number of steps.
    """
    for step in range(1, 1000):
        connection = pool_daemon.connect()
        knife.arm(step)
        try:
            change(connection)
        except libvirt.libvirtError:
            pass
        cut = knife.left() == 0
        knife.arm(0)
        if not cut:
            check(connection)
            return step - 1
        pool_daemon.process.wait(PATIENCE_S)
        connection = pool_daemon.start().connect()
        check(connection)
        undo(connection)
        connection.close()
    raise AssertionError('the operation has no end')


def find_pool(connection, name):
    try:
        return connection.storagePoolLookupByName(name)
    except libvirt.libvirtError:
        return None


def definitions(pool_daemon):
    return sorted(path.name for path in pool_daemon.config.glob('*.xml'))


def test_defining(pool_daemon, knife):
    def check(connection):
        pool = find_pool(connection, 'demo')
        assert definitions(pool_daemon) == (['demo.xml'] if pool else [])
        assert not pool or '<path>/some/where</path>' in pool.XMLDesc()

    def undo(connection):
        pool = find_pool(connection, 'demo')
        if pool:
            pool.undefine()
    pool_daemon.start()
    assert cut_at_each_step(pool_daemon, knife, lambda connection: connection.storagePoolDefineXML(pool_xml('demo', '/some/where')),
                            check, undo) >= 3


def test_defining_anew(pool_daemon, knife):
    uuid = pool_daemon.start().connect().storagePoolDefineXML(pool_xml('demo', '/old')).UUIDString()
    as_new = pool_xml('demo', '/new').replace('<target>', f'<uuid>{uuid}</uuid><target>')
    as_old = pool_xml('demo', '/old').replace('<target>', f'<uuid>{uuid}</uuid><target>')

    def check(connection):
        pool = connection.storagePoolLookupByName('demo')
        assert pool.UUIDString() == uuid
        assert '<path>/old</path>' in pool.XMLDesc() or '<path>/new</path>' in pool.XMLDesc()
    assert cut_at_each_step(pool_daemon, knife, lambda connection: connection.storagePoolDefineXML(as_new), check,
                            lambda connection: connection.storagePoolDefineXML(as_old)) >= 3


def test_undefining(pool_daemon, knife):
    """A pool that is defined later under the name of one that was not quite gone does not start by itself."""
    def define(connection):
        connection.storagePoolDefineXML(pool_xml('demo', '/some/where'))

    def prepare(connection):
        if not find_pool(connection, 'demo'):
            define(connection)
            assert not connection.storagePoolLookupByName('demo').autostart()
            assert not (pool_daemon.config / 'autostart' / 'demo.xml').is_symlink()
        connection.storagePoolLookupByName('demo').setAutostart(1)

    def check(connection):
        pool = find_pool(connection, 'demo')
        assert definitions(pool_daemon) == (['demo.xml'] if pool else [])
    prepare(pool_daemon.start().connect())
    assert cut_at_each_step(pool_daemon, knife, lambda connection: connection.storagePoolLookupByName('demo').undefine(), check,
                            prepare) >= 2


def test_autostart(pool_daemon, knife):
    def check(connection):
        marked = connection.storagePoolLookupByName('demo').autostart()
        assert marked == (pool_daemon.config / 'autostart' / 'demo.xml').is_symlink()
    pool_daemon.start().connect().storagePoolDefineXML(pool_xml('demo', '/some/where'))
    assert cut_at_each_step(pool_daemon, knife, lambda connection: connection.storagePoolLookupByName('demo').setAutostart(1), check,
                            lambda connection: connection.storagePoolLookupByName('demo').setAutostart(0)) >= 1


def test_starting(pool_daemon, knife):
    def check(connection):
        pool = connection.storagePoolLookupByName('demo')
        # A directory that is there is active after a restart, whatever was before.
        assert pool.isActive() and pool.isPersistent()
    pool_daemon.start().connect().storagePoolDefineXML(pool_xml('demo', pool_daemon.images))
    assert cut_at_each_step(pool_daemon, knife, lambda connection: connection.storagePoolLookupByName('demo').create(), check,
                            lambda connection: connection.storagePoolLookupByName('demo').destroy()) >= 3


def is_whole(path, kind):
    LEAKS_ONLY = 3
    return kind != 'qcow2' or run(need('qemu-img'), 'check', '-q', '-f', 'qcow2', path, check=False).returncode in (0, LEAKS_ONLY)


@pytest.mark.parametrize('kind, allocation', [('raw', 0), ('raw', MIB), ('qcow2', 0)])
def test_making_volumes(pool_daemon, knife, kind, allocation):
    images = pool_daemon.images

    def change(connection):
        connection.storagePoolLookupByName('demo').createXML(volume_xml('a', 8 * MIB, kind, allocation=allocation))

    def check(connection):
        pool = connection.storagePoolLookupByName('demo')
        pool.refresh()
        assert os.listdir(images) == pool.listVolumes()
        for volume in pool.listAllVolumes():
            assert volume.info()[1] == 8 * MIB and is_whole(images / 'a', kind)
            assert f"<format type='{kind}'/>" in volume.XMLDesc() and '<mode>0600</mode>' in volume.XMLDesc()

    def undo(connection):
        for volume in connection.storagePoolLookupByName('demo').listAllVolumes():
            volume.delete()
    pool_daemon.start().connect().storagePoolDefineXML(pool_xml('demo', images)).create()
    assert cut_at_each_step(pool_daemon, knife, change, check, undo) >= 3


@pytest.mark.parametrize('kind', ['raw', 'qcow2'])
def test_resizing(pool_daemon, knife, kind):
    images = pool_daemon.images
    content = os.urandom(4096)

    def make(connection):
        pool = connection.storagePoolLookupByName('demo')
        for volume in pool.listAllVolumes():
            volume.delete()
        pool.createXML(volume_xml('a', 8 * MIB, kind, allocation=0))
        if kind == 'raw':
            with open(images / 'a', 'r+b') as file:
                file.write(content)

    def check(connection):
        pool = connection.storagePoolLookupByName('demo')
        pool.refresh()
        assert pool.listVolumes() == ['a']
        assert pool.listAllVolumes()[0].info()[1] in (8 * MIB, 4096 * MIB) and is_whole(images / 'a', kind)
        if kind == 'raw':
            with open(images / 'a', 'rb') as file:
                assert file.read(4096) == content
    connection = pool_daemon.start().connect()
    connection.storagePoolDefineXML(pool_xml('demo', images)).create()
    make(connection)
    steps = cut_at_each_step(pool_daemon, knife,
                             lambda connection: connection.storagePoolLookupByName('demo').storageVolLookupByName('a').resize(4096 * MIB),
                             check, make)
    assert steps >= 2
