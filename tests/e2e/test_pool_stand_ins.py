# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pools of what is not to be had, by stand-ins: SCSI hosts and multipath maps that look odd, by a tree like the kernel's below
/sys, their units being loop devices; mounting CIFS and glusterfs, by scripts that note what they are called with. The real
ones are in test_pool_guest_*.py, in a machine with a whole kernel.
"""
import os
import subprocess

import libvirt
import pytest
from harness import run
from pool_daemon import error_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='makes loop devices')

MIB = 1 << 20


@pytest.fixture
def unit(tmp_path):
    """A loop device of 16 MiB."""
    path = tmp_path / 'unit'
    with open(path, 'wb') as file:
        file.truncate(16 * MIB)
    node = run('losetup', '--find', '--show', path).stdout.strip()
    yield node
    subprocess.run(['losetup', '--detach', node], check=False)


class Kernel:
    """What is below /sys for the daemon."""

    def __init__(self, folder):
        self.root = folder / 'sys'
        self.root.mkdir()

    def file(self, path, text=''):
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)
        return whole

    def add_host(self, number):
        return self.file(f'class/scsi_host/host{number}/scan')

    def add_unit(self, address, node, kind='0'):
        self.file(f'bus/scsi/devices/{address}/type', f'{kind}\n')
        if node:
            self.file(f'bus/scsi/devices/{address}/block/{os.path.basename(node)}/size')


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Puts a script in the place of a program; it begins by noting its words in the log that this returns."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', f"{folder}:{os.environ['PATH']}")

    def write(name, body):
        log = tmp_path / f'{name}.log'
        log.touch()
        (folder / name).write_text(f'#!/bin/sh\necho "$*" >> {log}\n{body}\n')
        (folder / name).chmod(0o755)
        return lambda: log.read_text().splitlines()
    return write


# --- SCSI ---

def scsi_xml(host, target='/dev'):
    return (f"<pool type='scsi'><name>units</name><source><adapter type='scsi_host' name='{host}'/></source>"
            f'<target><path>{target}</path></target></pool>')


def test_units_of_a_host(pool_daemon, kernel, unit):
    scan = kernel.add_host(3)
    kernel.add_unit('3:0:1:7', unit)
    kernel.add_unit('3:0:2:0', None)                # a disk without a node
    kernel.add_unit('3:0:3:0', unit, kind='1')      # a tape
    kernel.add_unit('4:0:1:7', unit)                # of another host
    pool = pool_daemon.start().connect().storagePoolCreateXML(scsi_xml('host3'))
    assert scan.read_text() == '- - -'
    (volume,) = pool.listAllVolumes()
    assert (volume.name(), volume.path(), volume.info()) == ('unit:0:1:7', unit, [libvirt.VIR_STORAGE_VOL_BLOCK, 16 * MIB, 16 * MIB])
    assert pool.info()[1:] == [16 * MIB, 16 * MIB, 0]
    assert error_of(volume.delete)[0] == libvirt.VIR_ERR_NO_SUPPORT
    with open(unit, 'wb') as device:
        device.write(b'x' * MIB)
    volume.wipe()
    with open(unit, 'rb') as device:
        assert device.read(MIB) == bytes(MIB)


def test_hosts_that_are_not_there(pool_daemon, kernel):
    kernel.add_host(3)
    connection = pool_daemon.start().connect()
    assert error_of(connection.storagePoolCreateXML, scsi_xml('scsi_host9')) == (
        libvirt.VIR_ERR_SYSTEM_ERROR,
        "Could not open '/sys/class/scsi_host/host9/scan' to trigger host scan: No such file or directory")
    assert error_of(connection.storagePoolCreateXML, scsi_xml('host3', target='/srv'))[0] == libvirt.VIR_ERR_INVALID_ARG
    assert connection.listAllStoragePools() == []


# --- multipath ---

def test_multipath_maps(pool_daemon, kernel, unit):
    name = f'ashlar-test-{os.getpid()}'
    kernel.file('block/dm-5/dm/uuid', 'mpath-3600\n')
    kernel.file('block/dm-5/dm/name', f'{name}\n')
    kernel.file('block/dm-6/dm/uuid', 'LVM-abc\n')
    kernel.file('block/dm-6/dm/name', 'group-volume\n')
    kernel.file('block/dm-7/dm/uuid', 'mpath-3601\n')
    kernel.file('block/dm-7/dm/name', f'{name}-without-a-node\n')
    os.makedirs('/dev/mapper', exist_ok=True)
    os.symlink(unit, f'/dev/mapper/{name}')
    try:
        pool = pool_daemon.start().connect().storagePoolCreateXML(
            "<pool type='mpath'><name>maps</name><target><path>/dev/mapper</path></target></pool>")
        (volume,) = pool.listAllVolumes()
        assert (volume.name(), volume.path(), volume.key()) == ('dm-5', f'/dev/mapper/{name}', f'/dev/mapper/{name}')
        assert pool.info()[1:] == [16 * MIB, 16 * MIB, 0]
    finally:
        os.unlink(f'/dev/mapper/{name}')


# --- directories of other hosts ---

MOUNT = r'''for word; do from=$target; target=$word; done
exec /bin/mount --bind {} "$target"'''


@pytest.mark.parametrize('kind, more, words', [
    ('cifs', '', '-o nodev,nosuid,noexec,guest -t cifs -- //server/exports/a '),
    ('glusterfs', '', '-o nodev,nosuid,noexec,direct-io-mode=1 -t glusterfs -- server:/exports/a '),
])
def test_mounting(pool_daemon, script, tmp_path, kind, more, words):
    """The mount itself is a directory bound to the place: what is asked for is what counts."""
    (tmp_path / 'exported').mkdir()
    (tmp_path / 'exported' / 'a.raw').write_bytes(b'x' * 4096)
    calls = script('mount', MOUNT.format(tmp_path / 'exported'))
    pool = pool_daemon.start().connect().storagePoolDefineXML(
        f"<pool type='netfs'><name>far</name><source><host name='server'/><dir path='/exports/a'/><format type='{kind}'/>{more}"
        f'</source><target><path>{tmp_path}/far</path></target></pool>')
    pool.build()
    pool.create()
    assert calls() == [words + f'{tmp_path}/far']
    assert pool.listVolumes() == ['a.raw']
    pool.destroy()


def test_exports(pool_daemon, script):
    calls = script('showmount', 'printf "/exports/a *\\n/exports/with blanks 10.0.0.0/8,host\\nnonsense\\n"')
    connection = pool_daemon.start().connect()
    found = connection.findStoragePoolSources('netfs', "<source><host name='server'/></source>")
    assert calls() == ['--no-headers --exports server']
    assert found.count('<source>') == 2 and "<dir path='/exports/with blanks'/>" in found and "<format type='nfs'/>" in found
    assert "<dir path='/exports/with blanks'/>" in pool_daemon.virsh('find-storage-pool-sources-as', 'netfs', 'server')
    assert error_of(connection.findStoragePoolSources, 'netfs', "<source><host name='--exports'/></source>") == (
        libvirt.VIR_ERR_INVALID_ARG, "invalid argument: '--exports' is not the name of a host")
