# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools whose volumes are devices: partitions of a loop device, and a volume group on one."""
import os
import re
import subprocess
from contextlib import contextmanager

import libvirt
from pool_daemon import error_of

MIB = 1 << 20


@contextmanager
def loop_device(path, size=300 * MIB):
    """The node of a loop device, whose partitions the kernel shows."""
    with open(path, 'wb') as disk:
        disk.truncate(size)
    node = subprocess.run(['losetup', '--partscan', '--find', '--show', str(path)], check=True, capture_output=True,
                          text=True).stdout.strip()
    try:
        yield node
    finally:
        subprocess.run(['losetup', '--detach', node], check=True)


def disk_pool(name, node, label):
    return (f"<pool type='disk'><name>{name}</name><source><device path='{node}'/><format type='{label}'/></source>"
            '<target><path>/dev</path></target></pool>')


def partition(name, size, kind='none'):
    return f"<volume><name>{name}</name><capacity>{size}</capacity><target><format type='{kind}'/></target></volume>"


@contextmanager
def taken(node):
    """As a mounted file system has it."""
    fd = os.open(node, os.O_RDONLY | os.O_EXCL)
    try:
        yield
    finally:
        os.close(fd)


def volumes(pool):
    return {volume.name(): volume.info()[1] // MIB for volume in pool.listAllVolumes()}


def test_partitions_of_gpt(pool_daemon, tmp_path):
    connection = pool_daemon.start().connect()
    with loop_device(tmp_path / 'disk') as node:
        base = node.rsplit('/', 1)[1]
        pool = connection.storagePoolDefineXML(disk_pool('disk', node, 'gpt'))
        assert error_of(pool.create) == (
            libvirt.VIR_ERR_STORAGE_PROBE_FAILED,
            f"Storage pool probe failed: Device '{node}' is unrecognized, requires build")
        pool.build(0)
        assert error_of(pool.build, libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE) == (
            libvirt.VIR_ERR_STORAGE_POOL_BUILT, f"Storage pool already built: Device '{node}' already formatted using 'gpt'")
        pool.create()

        first = pool.createXML(partition(f'{base}p1', 20 * MIB))
        pool.createXML(partition(f'{base}p2', 100 * MIB))
        assert volumes(pool) == {f'{base}p1': 20, f'{base}p2': 100}
        assert error_of(pool.createXML, partition('other', MIB)) == (
            libvirt.VIR_ERR_INVALID_ARG, f"invalid argument: invalid partition name 'other', expected '{base}p3'")
        assert error_of(pool.createXML, partition(f'{base}p3', 300 * MIB))[1].endswith('no large enough free extent')
        assert pool.info()[2] == 120 * MIB
        assert f"<extent start='{MIB}' end='{21 * MIB}'/>" in first.XMLDesc()
        starts = re.findall("<freeExtent start='(\\d+)' end='(\\d+)'/>", pool.XMLDesc())
        assert [int(start) for start, _ in starts] == [121 * MIB]

        # The volume's name is the node's, so what was refused has left nothing behind; and one can be removed that is free.
        with taken(f'{node}p1'):
            assert error_of(first.delete) == (
                libvirt.VIR_ERR_OPERATION_INVALID,
                f"Requested operation is not valid: partition '{node}p1' is mounted or otherwise in use")
        pool.refresh()
        assert volumes(pool) == {f'{base}p1': 20, f'{base}p2': 100}
        first.delete()
        pool.refresh()
        assert volumes(pool) == {f'{base}p2': 100}
        again = pool.createXML(partition(f'{base}p1', 10 * MIB))
        assert again.path() == f'{node}p1'
        pool.destroy()
        assert error_of(pool.build, 0)[0] == libvirt.VIR_ERR_STORAGE_POOL_BUILT
        with taken(f'{node}p2'):
            for call in (pool.delete, lambda: pool.build(libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE)):
                assert error_of(call) == (libvirt.VIR_ERR_SYSTEM_ERROR, f"cannot open device '{node}': Device or resource busy")
        pool.create()
        assert volumes(pool) == {f'{base}p1': 10, f'{base}p2': 100}
        pool.destroy()
        pool.delete()
        assert error_of(pool.create)[0] == libvirt.VIR_ERR_STORAGE_PROBE_FAILED
        assert not os.path.exists(f'/sys/block/{base}/{base}p2')


def test_partitions_of_dos(pool_daemon, tmp_path):
    connection = pool_daemon.start().connect()
    with loop_device(tmp_path / 'disk') as node:
        base = node.rsplit('/', 1)[1]
        pool = connection.storagePoolCreateXML(disk_pool('disk', node, 'unknown'),
                                               libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
        assert "<format type='dos'/>" in pool.XMLDesc()
        for number in (1, 2, 3):
            pool.createXML(partition(f'{base}p{number}', 20 * MIB, 'linux'))
        extended = pool.createXML(partition(f'{base}p4', 150 * MIB, 'extended'))
        for number in (5, 6):
            pool.createXML(partition(f'{base}p{number}', 20 * MIB))
        assert error_of(pool.createXML, partition(f'{base}p7', MIB, 'extended'))[1].endswith('extended partition already exists')
        assert extended.info()[1:] == [150 * MIB, 40 * MIB]
        assert pool.info()[2] == 100 * MIB
        assert error_of(extended.delete)[0] == libvirt.VIR_ERR_OPERATION_INVALID

        # The next logical one takes the number of one that goes.
        logical = pool.storageVolLookupByName(f'{base}p6')
        marked = connection.newStream()
        logical.upload(marked, 0, 6)
        marked.send(b'second')
        marked.finish()
        with taken(f'{node}p6'):
            assert error_of(pool.storageVolLookupByName(f'{base}p5').delete)[1].endswith(
                f"partition '{node}p6' is mounted or otherwise in use")
        pool.storageVolLookupByName(f'{base}p5').delete()
        with open(f'{node}p5', 'rb') as device:
            assert device.read(6) == b'second'
        assert set(volumes(pool)) == {f'{base}p{number}' for number in (1, 2, 3, 4, 5)}
        pool.destroy()


def test_volume_group(pool_daemon, tmp_path):
    connection = pool_daemon.start().connect()
    with loop_device(tmp_path / 'disk', 256 * MIB) as node:
        group = f'ashlar_{node.rsplit("/", 1)[1]}'
        pool = connection.storagePoolDefineXML(f"<pool type='logical'><name>group</name><source><device path='{node}'/>"
                                               f"<name>{group}</name></source></pool>")
        assert f'<path>/dev/{group}</path>' in pool.XMLDesc()
        assert error_of(pool.create)[1].endswith(f"cannot find logical volume group name '{group}'")
        pool.build(0)
        assert error_of(pool.build, 0)[0] == libvirt.VIR_ERR_STORAGE_POOL_BUILT
        pool.create()
        assert pool.info()[1:] == [252 * MIB, 0, 252 * MIB]
        found = connection.findStoragePoolSources('logical', None)
        assert f"<device path='{node}'/>" in found and f'<name>{group}</name>' in found
        assert error_of(pool.createXML, partition('--force', MIB))[1].endswith("'--force' is no name of a logical volume")
        pool.destroy()
        pool.delete()
        assert group not in connection.findStoragePoolSources('logical', None)


def test_names_that_are_options(pool_daemon):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML("<pool type='logical'><name>x</name><source><name>--config=x</name></source></pool>")
    assert error_of(pool.create) == (libvirt.VIR_ERR_INVALID_ARG,
                                     "invalid argument: '--config=x' is no name of a volume group")


def test_device_that_is_an_option(pool_daemon, tmp_path, monkeypatch):
    """A file of that name would be found, and mkfs would take it for something else."""
    (tmp_path / '-c').touch()
    monkeypatch.chdir(tmp_path)
    pool = pool_daemon.start().connect().storagePoolDefineXML(
        f"<pool type='fs'><name>x</name><source><device path='-c'/><format type='ext4'/></source>"
        f'<target><path>{tmp_path}/x</path></target></pool>')
    assert error_of(pool.build, libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE) == (
        libvirt.VIR_ERR_INVALID_ARG, "invalid argument: '-c' is not the path of a device")


def test_device_that_is_a_file(pool_daemon, tmp_path):
    """It keeps what it has, also where overwriting was asked for."""
    (tmp_path / 'file').write_text('content')
    connection = pool_daemon.start().connect()
    for xml in (disk_pool('x', tmp_path / 'file', 'gpt'),
                f"<pool type='logical'><name>y</name><source><device path='{tmp_path}/file'/></source></pool>"):
        pool = connection.storagePoolDefineXML(xml)
        assert error_of(pool.build, libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE) == (
            libvirt.VIR_ERR_SYSTEM_ERROR, f"cannot clear the label of device '{tmp_path}/file': Block device required")
        pool.undefine()
    assert (tmp_path / 'file').read_text() == 'content'
