# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of file systems on loop devices; of other hosts, as far as a machine without them goes."""
import os
import subprocess

import libvirt
import pytest
from harness import run
from pool_daemon import error_of, volume_xml


def can_loop():
    return os.geteuid() == 0 and subprocess.run(['losetup', '--find'], capture_output=True, check=False).returncode == 0


@pytest.fixture
def device(tmp_path):
    path = tmp_path / 'device'
    with open(path, 'wb') as file:
        file.truncate(400 << 20)
    name = run('losetup', '--find', '--show', path).stdout.strip()
    yield name
    run('losetup', '--detach', name)


def fs_xml(device, kind, target):
    return (f"<pool type='fs'><name>fsp</name><source><device path='{device}'/><format type='{kind}'/></source>"
            f'<target><path>{target}</path></target></pool>')


@pytest.mark.skipif(not can_loop(), reason='needs loop devices')
@pytest.mark.parametrize('kind', ['ext4', 'xfs'])
def test_file_system_of_a_device(pool_daemon, tmp_path, device, kind):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML(fs_xml(device, kind, tmp_path / 'fsp'))
    pool.build(libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE)
    assert error_of(pool.build, libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE) == (
        libvirt.VIR_ERR_STORAGE_POOL_BUILT, f"Storage pool already built: Device '{device}' already formatted using '{kind}'")
    assert error_of(pool.build, 12)[0] == libvirt.VIR_ERR_INVALID_ARG
    pool.create()
    pool.createXML(volume_xml('a.qcow2', 10 << 20, 'qcow2'))
    mounted = run('nsenter', '--mount', f'--target={pool_daemon.process.pid}', 'grep', tmp_path / 'fsp', '/proc/mounts').stdout
    assert mounted.startswith(f'{device} {tmp_path}/fsp {kind} rw,nosuid,nodev,noexec')
    other = "<pool type='logical'><name>l</name><source><device path='%s'/></source></pool>" % device
    assert error_of(connection.storagePoolDefineXML, other)[1] == "operation failed: Storage source conflict with pool: 'fsp'"
    pool.destroy()
    assert run('nsenter', '--mount', f'--target={pool_daemon.process.pid}', 'grep', tmp_path / 'fsp', '/proc/mounts',
               check=False).returncode == 1
    pool.create()
    assert 'a.qcow2' in pool.listVolumes()
    pool.destroy()
    pool.delete()
    pool.undefine()


def test_file_system_of_another_host(pool_daemon, tmp_path):
    """Without a server or rights the mount fails; what is said is what mount says."""
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML(
        "<pool type='netfs'><name>nf</name><source><host name='127.0.0.1'/><dir path='/nowhere'/><format type='nfs'/></source>"
        f'<target><path>{tmp_path}/nf</path></target></pool>')
    pool.build()
    code, message = error_of(pool.create)
    assert code == libvirt.VIR_ERR_INTERNAL_ERROR
    assert f'mount -o nodev,nosuid,noexec -t nfs -- 127.0.0.1:/nowhere {tmp_path}/nf) unexpected exit status' in message
    assert not pool.isActive()
    assert error_of(connection.findStoragePoolSources, 'netfs', None)[1] == \
        'invalid argument: hostname must be specified for netfs sources'
