# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of file systems on devices that not every host's kernel has; the others are in test_pool_fs.py."""
import libvirt
import pytest
from pool_daemon import error_of, volume_xml

pytestmark = pytest.mark.xdist_group('pool guest')

MIB = 1 << 20
TARGET = '/tmp/fsp'


@pytest.fixture
def device(pool_guest):
    node = pool_guest.loop_device('device.img', 400)
    yield node
    pool_guest.do(f'umount {TARGET} 2>/dev/null; rmdir {TARGET} 2>/dev/null; true')
    pool_guest.remove_loop_device(node, 'device.img')


def pool_xml(device, kind):
    return (f"<pool type='fs'><name>fsp</name><source><device path='{device}'/><format type='{kind}'/></source>"
            f'<target><path>{TARGET}</path></target></pool>')


def test_vfat(pool_guest, device):
    """It knows no owners, no links and no holes."""
    connection = pool_guest.connect()
    pool = connection.storagePoolDefineXML(pool_xml(device, 'vfat'))
    pool.build(libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE)
    assert error_of(pool.build, libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE) == (
        libvirt.VIR_ERR_STORAGE_POOL_BUILT, f"Storage pool already built: Device '{device}' already formatted using 'vfat'")
    pool.build(libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE)
    pool.create()
    assert pool_guest.do(f'grep " {TARGET} " /proc/mounts').startswith(f'{device} {TARGET} vfat rw,nosuid,nodev,noexec')
    volume = pool.createXML(volume_xml('a.raw', 2 * MIB, allocation=0))
    assert volume.info() == [libvirt.VIR_STORAGE_VOL_FILE, 2 * MIB, 2 * MIB]
    pool.createXML(volume_xml('b.qcow2', 10 * MIB, 'qcow2'))
    copy = pool.createXMLFrom(volume_xml('c.qcow2', 2 * MIB, 'qcow2'), volume)
    assert copy.info()[1] == 2 * MIB
    volume.resize(3 * MIB)
    volume.wipe()
    stream = connection.newStream()
    volume.upload(stream, MIB, 5, 0)
    stream.send(b'hello')
    stream.finish()
    assert pool_guest.do(f'dd if={TARGET}/a.raw bs=1 skip={MIB} count=5 2>/dev/null') == 'hello'
    pool_guest.restart_daemon('KILL')
    pool = pool_guest.connect().storagePoolLookupByName('fsp')
    assert pool.isActive() and sorted(pool.listVolumes()) == ['a.raw', 'b.qcow2', 'c.qcow2']
    pool.destroy()
    assert pool_guest.do(f'grep " {TARGET} " /proc/mounts || true') == ''
    pool.create()
    assert sorted(pool.listVolumes()) == ['a.raw', 'b.qcow2', 'c.qcow2']
    pool.storageVolLookupByName('c.qcow2').delete()
    pool.destroy()
    pool.delete()
    assert pool_guest.do(f'[ -e {TARGET} ] || echo gone') == 'gone'


def test_auto(pool_guest, device):
    """The kernel finds out what it is; something that is no file system is said by libmount's words."""
    pool = pool_guest.connect().storagePoolDefineXML(pool_xml(device, 'auto'))
    pool.build()
    code, message = error_of(pool.create)
    assert code == libvirt.VIR_ERR_INTERNAL_ERROR and f"cannot mount '{device}' on '{TARGET}': " in message
    pool_guest.do(f'mkfs.vfat {device}')
    pool.create()
    assert pool_guest.do(f'grep " {TARGET} " /proc/mounts').split()[2] == 'vfat'
    pool.destroy()
