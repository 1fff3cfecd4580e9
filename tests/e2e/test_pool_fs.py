# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pools of file systems on loop devices; and of other hosts: a server of NFS in user space, in a network of its own, whose
exports are found. They are mounted in test_pool_guest_netfs.py, as vfat is in test_pool_guest_fs.py: not every kernel can.
"""
import os
import pathlib
import subprocess

import libvirt
import pytest
from harness import PATIENCE_S, run, wait_for
from pool_daemon import error_of, volume_xml


def can_loop():
    return os.geteuid() == 0 and subprocess.run(['losetup', '--find'], capture_output=True, check=False).returncode == 0


def can_mount(kind):
    """Whether the kernel has the file system, or a module of it."""
    subprocess.run(['modprobe', kind], capture_output=True, check=False)
    return kind in pathlib.Path('/proc/filesystems').read_text().split()


def needs(kind):
    return pytest.mark.skipif(not can_mount(kind), reason=f'this kernel has no {kind}')


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
@pytest.mark.parametrize('kind', [pytest.param(kind, marks=needs(kind)) for kind in ('ext4', 'xfs')])
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


@pytest.mark.skipif(not can_loop(), reason='needs loop devices')
def test_file_systems_are_made(pool_daemon, tmp_path, device):
    """Whatever was there before; also those that this kernel cannot mount."""
    connection = pool_daemon.start().connect()
    for number, kind in enumerate(('vfat', 'ext4', 'xfs', 'ext2', 'vfat')):
        pool = connection.storagePoolDefineXML(fs_xml(device, kind, tmp_path / 'fsp'))
        if number:
            assert error_of(pool.build, libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE)[0] == libvirt.VIR_ERR_STORAGE_POOL_BUILT
        pool.build(libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE)
        assert run('blkid', '--probe', '--output', 'value', '--match-tag', 'TYPE', device).stdout.strip() == kind
        pool.undefine()


@pytest.mark.skipif(not can_loop(), reason='needs loop devices')
@pytest.mark.parametrize('kind, maker', [pytest.param('btrfs', 'mkfs.btrfs', marks=needs('btrfs')),
                                         pytest.param('xfs', 'mkfs.xfs', marks=needs('xfs'))])
def test_file_systems_that_share_blocks(pool_daemon, tmp_path, device, kind, maker):
    """The kernel finds out what it is; a copy of a volume takes no space where blocks are shared."""
    run(maker, '-q', device)
    pool = pool_daemon.start().connect().storagePoolDefineXML(fs_xml(device, 'auto', tmp_path / 'fsp'))
    pool.build()
    pool.create()
    volume = pool.createXML(volume_xml('a.raw', 64 << 20, allocation=64 << 20))
    free = pool.info()[3]
    copy = pool.createXMLFrom(volume_xml('b.raw', 64 << 20), volume, libvirt.VIR_STORAGE_VOL_CREATE_REFLINK)
    assert copy.info()[1] == 64 << 20
    (tmp_path / 'd.xml').write_text(volume_xml('d.raw', 96 << 20))
    for words, answer in (('vol-clone a.raw c.raw --reflink --pool fsp', 'Vol c.raw cloned from a.raw'),
                          (f'vol-create-from fsp {tmp_path}/d.xml a.raw --inputpool fsp --reflink', 'Vol d.raw created from input vol a.raw')):
        assert pool_daemon.virsh(*words.split()).strip() == answer
    assert [pool.storageVolLookupByName(name).info()[1] >> 20 for name in ('c.raw', 'd.raw')] == [64, 96]
    pool.refresh()
    assert pool.info()[3] > free - (32 << 20)
    inside = ['nsenter', '--mount', f'--target={pool_daemon.process.pid}']
    assert run(*inside, 'grep', tmp_path / 'fsp', '/proc/mounts').stdout.split()[2] == kind
    if kind == 'btrfs':
        for volume_format in ('raw', 'qcow2'):
            pool.createXML(volume_xml('n', 1 << 20, volume_format).replace('</target>', '<nocow/></target>'))
            assert 'C' in run(*inside, 'lsattr', tmp_path / 'fsp' / 'n').stdout.split()[0]
            assert 'C' not in run(*inside, 'lsattr', tmp_path / 'fsp' / 'a.raw').stdout.split()[0]
            pool.storageVolLookupByName('n').delete()
    pool.destroy()


# --- NFS ---

SERVER = """ip link set lo up && /bin/mount -t tmpfs tmpfs /run && mkdir /run/rpcbind && rpcbind -w &&
exec ganesha.nfsd -F -f "$1/ganesha.conf" -L "$1/ganesha.log" -p /run/ganesha.pid"""

CONFIG = """NFS_CORE_PARAM {{ Protocols = 3; mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; RecoveryRoot = "{0}"; }}
EXPORT {{ Export_Id = 1; Path = "{0}/exported"; Pseudo = "/exported"; Access_Type = RW; Squash = No_Root_Squash;
          Protocols = 3; Transports = TCP; SecType = sys; FSAL {{ Name = VFS; }} }}
"""


@pytest.fixture
def nfs_server(tmp_path):
    """The id of a process in whose network 127.0.0.1 exports /exported."""
    (tmp_path / 'exported').mkdir()
    (tmp_path / 'ganesha.conf').write_text(CONFIG.format(tmp_path))
    process = subprocess.Popen(['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', SERVER, 'sh',
                                str(tmp_path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)

    def is_ready():
        assert process.poll() is None, (tmp_path / 'ganesha.log').read_text()
        done = run('nsenter', f'--net=/proc/{process.pid}/ns/net', 'showmount', '--no-headers', '--exports', '127.0.0.1',
                   check=False)
        return '/exported' in done.stdout
    wait_for(is_ready, 'the server')
    yield process.pid
    process.kill()
    process.wait(PATIENCE_S)


@pytest.mark.skipif(os.geteuid() != 0, reason='makes a network')
def test_exports_of_a_server(pool_daemon, nfs_server):
    pool_daemon.network = nfs_server
    connection = pool_daemon.start().connect()
    found = connection.findStoragePoolSources('netfs', "<source><host name='127.0.0.1'/></source>")
    assert found.count('<source>') == 1
    assert "<host name='127.0.0.1'/>" in found and "<dir path='/exported'/>" in found and "<format type='nfs'/>" in found
