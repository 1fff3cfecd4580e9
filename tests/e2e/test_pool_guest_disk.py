# SPDX-License-Identifier: LGPL-2.1-or-later
"""Partitions of a SCSI disk, whose nodes and links udev makes, in a machine with a whole kernel."""
import libvirt
import pytest
from pool_daemon import error_of

pytestmark = pytest.mark.xdist_group('pool guest')

MIB = 1 << 20


@pytest.fixture
def disk(pool_guest):
    """The name of a disk of 64 MiB."""
    pool_guest.do('modprobe scsi_debug dev_size_mb=64 num_tgts=1 max_luns=1 add_host=1; udevadm settle')
    yield pool_guest.do('ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block')
    for pool in pool_guest.connect().listAllStoragePools():
        if pool.isActive():
            pool.destroy()
    pool_guest.do('udevadm settle; rmmod scsi_debug')


def pool_xml(disk, label, folder):
    return (f"<pool type='disk'><name>disk</name><source><device path='/dev/{disk}'/><format type='{label}'/></source>"
            f'<target><path>{folder}</path></target></pool>')


def volume_xml(name, mib, kind='none', more=''):
    return f"<volume><name>{name}</name><capacity unit='MiB'>{mib}</capacity><target><format type='{kind}'/>{more}</target></volume>"


def nodes(guest, disk):
    return guest.do(f'cd /dev; ls {disk}*').split()


def test_partitions_and_their_links(pool_guest, disk):
    """Paths and keys are udev's links; owner and mode are those of the XML, also after something was written."""
    pool = pool_guest.connect().storagePoolDefineXML(pool_xml(disk, 'gpt', '/dev/disk/by-id'))
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    first = pool.createXML(volume_xml(f'{disk}1', 8))
    assert first.path().startswith('/dev/disk/by-id/') and first.path().endswith('-part1') and first.key() == first.path()
    assert pool_guest.do(f'readlink -f {first.path()}') == f'/dev/{disk}1'
    assert first.info() == [libvirt.VIR_STORAGE_VOL_BLOCK, 8 * MIB, 8 * MIB]
    permissions = '<permissions><mode>0640</mode><owner>1000</owner><group>6</group></permissions>'
    second = pool.createXMLFrom(volume_xml(f'{disk}2', 8, more=permissions), first)
    pool_guest.do('udevadm settle')
    assert pool_guest.do(f'stat -c "%a %u %g" /dev/{disk}1 /dev/{disk}2').splitlines() == ['600 0 0', '640 1000 6']
    assert pool_guest.connect().storageVolLookupByPath(f'/dev/{disk}2').name() == second.name()
    pool_guest.do(f'mke2fs -q /dev/{disk}1 && mkdir -p /tmp/mounted && mount /dev/{disk}1 /tmp/mounted')
    try:
        assert error_of(first.delete)[1].endswith(f"partition '{first.path()}' is mounted or otherwise in use")
        pool.destroy()
        assert error_of(pool.delete)[1] == f"cannot open device '/dev/{disk}': Device or resource busy"
        pool.create()
        second = pool.storageVolLookupByName(f'{disk}2')
        second.delete()
    finally:
        pool_guest.do('umount /tmp/mounted; rmdir /tmp/mounted')
    assert pool.listVolumes() == [f'{disk}1'] and nodes(pool_guest, disk) == [disk, f'{disk}1']
    pool.destroy()
    pool.delete()
    assert nodes(pool_guest, disk) == [disk]


def test_logical_partitions(pool_guest, disk):
    """Each kind of content; numbers, nodes and links move when one goes."""
    pool = pool_guest.connect().storagePoolDefineXML(pool_xml(disk, 'dos', '/dev/disk/by-id'))
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    kinds = {'linux': '83', 'fat16': '6', 'linux-swap': '82', 'extended': '5', 'linux-lvm': '8e', 'linux-raid': 'fd', 'fat32': 'c'}
    for number, kind in enumerate(kinds, 1):
        pool.createXML(volume_xml(f'{disk}{number}', 40 if kind == 'extended' else 4, kind))
    assert nodes(pool_guest, disk) == [disk, *(f'{disk}{number}' for number in range(1, 8))]
    for number, code in enumerate(kinds.values(), 1):
        assert f'PART_ENTRY_TYPE="0x{code}"' in pool_guest.do(f'blkid -p /dev/{disk}{number} || true') or number == 4
    pool_guest.do(f'echo six >/dev/{disk}6; echo seven >/dev/{disk}7; sync')
    for _ in range(2):
        pool.storageVolLookupByName(f'{disk}5').delete()
    assert nodes(pool_guest, disk) == [disk, *(f'{disk}{number}' for number in range(1, 6))]
    last = pool.storageVolLookupByName(f'{disk}5')
    assert pool_guest.do(f'head -n 1 {last.path()}') == 'seven'
    pool.refresh()
    assert sorted(pool.listVolumes()) == [f'{disk}{number}' for number in range(1, 6)]
    assert pool.info()[2] == 16 * MIB
    last.delete()
    pool.storageVolLookupByName(f'{disk}4').delete()
    assert nodes(pool_guest, disk) == [disk, f'{disk}1', f'{disk}2', f'{disk}3']
