# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of SCSI hosts and of multipath devices: hosts of the kernel's own making, in a machine that has a SCSI card, too."""
import threading

import libvirt
import pytest
from harness import raw_image
from lio_targets import LocalTarget
from pool_daemon import error_of

pytestmark = pytest.mark.xdist_group('pool guest')

MIB = 1 << 20
DEBUG = '/sys/bus/pseudo/drivers/scsi_debug'


def scsi_xml(adapter, target='/dev/disk/by-path', name='units'):
    return (f"<pool type='scsi'><name>{name}</name><source>{adapter}</source><target><path>{target}</path></target></pool>")


def by_name(host):
    return f"<adapter type='scsi_host' name='{host}'/>"


def volumes_of(pool):
    return {volume.name(): volume.info()[1] for volume in pool.listAllVolumes()}


@pytest.fixture
def debug_host(pool_guest):
    """The name of a host of the kernel's for trying, with one unit."""
    pool_guest.do('modprobe scsi_debug dev_size_mb=8 num_tgts=1 max_luns=1 add_host=1')
    yield pool_guest.do('grep -l scsi_debug /sys/class/scsi_host/*/proc_name').split('/')[4]
    pool_guest.wait('rmmod scsi_debug')


def test_units_of_a_host(pool_guest, debug_host):
    """One unit, then more of them at once, and what they hold."""
    connection = pool_guest.connect()
    pool = connection.storagePoolDefineXML(scsi_xml(by_name(debug_host), '/dev'))
    pool.create()
    assert volumes_of(pool) == {'unit:0:0:0': 8 * MIB}
    (volume,) = pool.listAllVolumes()
    assert pool_guest.do(f'[ -b {volume.path()} ] && echo yes') == 'yes' and volume.path().startswith('/dev/sd')
    assert volume.key() == pool_guest.do(f'/lib/udev/scsi_id --replace-whitespace --whitelisted --device {volume.path()}')
    pool_guest.do(f'echo 3 >{DEBUG}/max_luns')
    # The kernel has a unit before it has its disk, for which the daemon waits.
    pool.refresh()
    assert volumes_of(pool) == {f'unit:0:0:{number}': 8 * MIB for number in range(3)}
    assert pool.info()[1:] == [24 * MIB, 24 * MIB, 0]
    stream = connection.newStream()
    volume.upload(stream, MIB, 5, 0)
    stream.send(b'hello')
    stream.finish()
    assert pool_guest.do(f'dd if={volume.path()} bs=1 skip={MIB} count=5 2>/dev/null') == 'hello'
    # A unit that goes.
    pool_guest.do(f'echo 1 >/sys/class/scsi_device/{debug_host[4:]}:0:0:2/device/delete')
    pool_guest.do(f'echo 2 >{DEBUG}/max_luns')
    pool.refresh()
    assert sorted(volumes_of(pool)) == ['unit:0:0:0', 'unit:0:0:1']
    pool_guest.restart_daemon('KILL')
    pool = pool_guest.connect().storagePoolLookupByName('units')
    assert pool.isActive() and len(pool.listVolumes()) == 2
    pool.destroy()
    assert pool_guest.do(f'ls -d {DEBUG}/adapter0/{debug_host}').endswith(debug_host)


def test_units_whose_disks_come_late(pool_guest, debug_host):
    """A driver that takes its time with two new units, and one that never takes one that was there before."""
    pool = pool_guest.connect().storagePoolDefineXML(scsi_xml(by_name(debug_host), '/dev'))
    pool.create()
    bus, address = '/sys/bus/scsi', f'{debug_host[4:]}:0:0'
    pool_guest.do(f'echo 0 >{bus}/drivers_autoprobe; echo 3 >{DEBUG}/max_luns')
    refresh = threading.Thread(target=pool.refresh)
    refresh.start()
    pool_guest.wait(f'[ -e {bus}/devices/{address}:2 ]')
    pool_guest.do(f'for unit in 1 2; do echo {address}:$unit >{bus}/drivers/sd/bind; done; echo 1 >{bus}/drivers_autoprobe')
    refresh.join()
    assert volumes_of(pool) == {f'unit:0:0:{number}': 8 * MIB for number in range(3)}
    pool_guest.do(f'echo {address}:1 >{bus}/drivers/sd/unbind')
    pool.refresh()
    assert sorted(volumes_of(pool)) == ['unit:0:0:0', 'unit:0:0:2']
    pool.destroy()


def test_host_that_goes(pool_guest, debug_host):
    connection = pool_guest.connect()
    pool = connection.storagePoolDefineXML(scsi_xml(by_name('scsi_' + debug_host), '/dev'))
    pool.create()
    assert error_of(connection.storagePoolDefineXML, scsi_xml(by_name(debug_host), '/dev', 'other'))[1] == \
        "operation failed: Storage source conflict with pool: 'units'"
    pool_guest.do(f'echo -1 >{DEBUG}/add_host')
    assert error_of(pool.refresh)[0] == libvirt.VIR_ERR_SYSTEM_ERROR
    assert not pool.isActive()
    pool_guest.do(f'echo 1 >{DEBUG}/add_host')


@pytest.fixture
def card(pool_guest):
    """The address of a card, like 0000:00:04.0."""
    pool_guest.do('modprobe virtio_scsi; udevadm settle')
    yield pool_guest.do('basename $(dirname $(readlink -f /sys/bus/virtio/drivers/virtio_scsi/virtio*))')
    pool_guest.wait('rmmod virtio_scsi')


def test_card(pool_guest, card, tmp_path):
    """By the address of a card: a disk, and a drive for discs, which is a volume once it has one."""
    unique = pool_guest.do(f'cat /sys/bus/pci/devices/{card}/virtio*/host*/scsi_host/host*/unique_id')
    domain, bus, rest = card.split(':')
    slot, function = rest.split('.')
    adapter = (f"<adapter type='scsi_host'><parentaddr unique_id='{unique}'><address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' "
               f"function='0x{function}'/></parentaddr></adapter>")
    pool = pool_guest.connect().storagePoolCreateXML(scsi_xml(adapter))
    assert volumes_of(pool) == {'unit:0:0:0': 16 * MIB}
    (volume,) = pool.listAllVolumes()
    assert volume.path().startswith('/dev/disk/by-path/') and card in volume.path()
    disc = raw_image(tmp_path / 'disc', 2 * MIB, b'disc')
    pool_guest.qmp.command('blockdev-change-medium', id='drive', filename=str(disc), format='raw')
    pool.refresh()
    assert volumes_of(pool) == {'unit:0:0:0': 16 * MIB, 'unit:0:1:0': 2 * MIB}
    pool_guest.qmp.command('eject', id='drive', force=True)
    pool.destroy()


def test_local_target(pool_guest):
    """Units with links by which they are found again; numbers as large as they get."""
    with LocalTarget(pool_guest, 'naa.6001405000000001') as target:
        target.add_unit(1, 8)
        target.add_unit(300, 16)
        pool = pool_guest.connect().storagePoolCreateXML(scsi_xml(by_name(target.host()), '/dev/disk/by-id'))
        assert volumes_of(pool) == {'unit:0:1:1': 8 * MIB, 'unit:0:1:300': 16 * MIB}
        assert all(volume.path().startswith('/dev/disk/by-id/') for volume in pool.listAllVolumes())
        pool.destroy()


# --- multipath ---

MPATH = "<pool type='mpath'><name>maps</name><target><path>/dev/mapper</path></target></pool>"


@pytest.fixture
def two_paths(pool_guest):
    """The nodes of one unit that two hosts show."""
    pool_guest.do('modprobe dm_multipath; modprobe scsi_debug dev_size_mb=16 num_tgts=1 max_luns=1 add_host=2 vpd_use_hostno=0')
    pool_guest.do('udevadm settle')
    paths = pool_guest.do(f'ls -d {DEBUG}/adapter*/host*/target*/*/block/*').split()
    yield [f'/dev/{path.split("/")[-1]}' for path in paths]
    pool_guest.do('udevadm settle; dmsetup remove_all')
    pool_guest.wait('rmmod scsi_debug')


def test_multipath(pool_guest, two_paths):
    """What has several paths is a volume, by its own name; partitions of it and other maps are none."""
    assert len(two_paths) == 2
    connection = pool_guest.connect()
    pool = connection.storagePoolDefineXML(MPATH)
    pool.create()
    assert pool.listVolumes() == []
    pool_guest.do('multipath -v1 2>&1')
    sectors = 16 * MIB // 512
    (name,) = pool_guest.do('dmsetup ls --target multipath').split()[:1]
    pool_guest.do(f"dmsetup create {name}-part1 --uuid part1-mpath-x --table '0 2048 linear /dev/mapper/{name} 0'")
    pool_guest.do(f"dmsetup create other --table '0 {sectors} linear /dev/mapper/{name} 0'")
    pool.refresh()
    (volume,) = pool.listAllVolumes()
    minor = pool_guest.do(f'dmsetup info --columns --noheadings -o minor {name}')
    assert (volume.name(), volume.path(), volume.key()) == (f'dm-{minor}', f'/dev/mapper/{name}', f'/dev/mapper/{name}')
    assert volume.info() == [libvirt.VIR_STORAGE_VOL_BLOCK, 16 * MIB, 16 * MIB]
    assert pool.info()[1:] == [16 * MIB, 16 * MIB, 0]
    assert error_of(connection.storagePoolDefineXML, MPATH.replace('maps', 'more'))[1] == \
        "operation failed: Storage source conflict with pool: 'maps'"
    # One of its paths goes; the other one has all that is written.
    pool_guest.do(f'echo offline >/sys/block/{two_paths[0].split("/")[-1]}/device/state')
    stream = connection.newStream()
    volume.upload(stream, MIB, 5, 0)
    stream.send(b'hello')
    stream.finish()
    assert pool_guest.do(f'dd if={two_paths[1]} bs=512 skip={MIB // 512} count=1 iflag=direct 2>/dev/null | head -c 5') == 'hello'
    pool_guest.restart_daemon('KILL')
    pool = pool_guest.connect().storagePoolLookupByName('maps')
    assert pool.isActive() and pool.listVolumes() == [f'dm-{minor}']
    pool.destroy()


def test_multipath_by_hand(pool_guest, two_paths):
    """The kind of a map counts, not the identifier that somebody has given it or not."""
    pool = pool_guest.connect().storagePoolCreateXML(MPATH)
    sectors = 16 * MIB // 512
    paths = ' '.join(f'{path} 1000' for path in two_paths)
    pool_guest.do(f"dmsetup create plain --table '0 {sectors} multipath 0 0 1 1 round-robin 0 2 1 {paths}'")
    pool_guest.do("dmsetup create likeness --uuid mpath-likeness --table '0 2048 zero'")
    pool_guest.do('dmsetup create empty --uuid mpath-empty --notable')
    pool.refresh()
    assert [(volume.path(), volume.info()[1]) for volume in pool.listAllVolumes()] == [('/dev/mapper/plain', 16 * MIB)]
    pool.destroy()
