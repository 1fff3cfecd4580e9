# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Logical volumes by a stand-in for LVM's commands (lvm_stand_in.py): this runs where the kernel has no device mapper, and
shows what the daemon makes of LVM's reports and what it asks of it. Volume groups themselves are real in
test_pool_devices.py.
"""
import os
import subprocess
import threading
import time

import libvirt
import pytest
from harness import PATIENCE_S, run, wait_for
from lvm_stand_in import MIB, Lvm
from pool_daemon import error_of, pool_xml

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='makes loop devices')


@pytest.fixture
def lvm(tmp_path, monkeypatch):
    one = Lvm(tmp_path, monkeypatch)
    yield one
    one.close()


def volume_xml(name, capacity, allocation=None, backing=None):
    given = '' if allocation is None else f'<allocation>{allocation}</allocation>'
    below = '' if backing is None else f'<backingStore><path>{backing}</path></backingStore>'
    return f'<volume><name>{name}</name><capacity>{capacity}</capacity>{given}{below}</volume>'


def test_life_of_logical_volumes(pool_daemon, lvm):
    pool = pool_daemon.start().connect().storagePoolCreateXML(lvm.pool_xml())
    assert pool.info()[1:] == [256 * MIB, 0, 256 * MIB]
    first = pool.createXML(volume_xml('first', 8 * MIB))
    assert first.path() == f'/dev/{lvm.group}/first' and first.key() == 'uuid-of-first'
    assert lvm.calls('lvcreate') == [['--name', 'first', '-L', '8192K', lvm.group, '--yes']]
    assert f"<device path='{lvm.device}'>" in first.XMLDesc() and f"<extent start='{4 * MIB}' end='{12 * MIB}'/>" in first.XMLDesc()
    assert pool.info()[2] == 8 * MIB

    sparse = pool.createXML(volume_xml('sparse', 32 * MIB, allocation=4 * MIB))
    assert lvm.calls('lvcreate')[1] == ['--name', 'sparse', '-L', '4096K', '--type', 'snapshot', '--virtualsize', '32768K',
                                        lvm.group, '--yes']
    assert sparse.info()[1:] == [32 * MIB, 4 * MIB]
    assert error_of(sparse.wipe)[0] == libvirt.VIR_ERR_NO_SUPPORT

    snapshot = pool.createXML(volume_xml('snapshot', 8 * MIB, backing=first.path()))
    assert lvm.calls('lvcreate')[2] == ['--name', 'snapshot', '-L', '8288K', '-s', first.path(), '--yes']
    pool.refresh()
    assert f'<path>{first.path()}</path>' in pool.storageVolLookupByName('snapshot').XMLDesc().split('<backingStore>')[1]

    copy = pool.createXMLFrom(volume_xml('copy', 8 * MIB), first)
    assert copy.info()[1] == 8 * MIB
    assert error_of(first.resize, 16 * MIB)[0] == libvirt.VIR_ERR_NO_SUPPORT
    for volume in (copy, snapshot, sparse, first):
        volume.delete()
    assert pool.info()[2] == 0 and pool.listVolumes() == []


def test_thin_and_inactive_volumes(pool_daemon, lvm):
    """A thin pool is no volume, and neither is what is not active; a thin volume lies on no device of its own."""
    lvm.add_row('thinpool', 'twi-aotz--', devices='thinpool_tdata(0)')
    lvm.add_row('thin', 'Vwi-a-tz--')
    lvm.add_row('asleep', '-wi-------', devices=f'{lvm.device}(9)')
    pool = pool_daemon.start().connect().storagePoolCreateXML(lvm.pool_xml())
    assert pool.listVolumes() == ['thin']
    thin = pool.listAllVolumes()[0]
    # There is no node to look at here, so it is LVM that says how large it is.
    assert '<source>' not in error_of(thin.XMLDesc)[1] and '/thin' in error_of(thin.XMLDesc)[1]


@pytest.mark.parametrize('origin', ['--config=x', '-an', '/dev/other/volume', '/dev/{0}/../other/x', '/dev/{0}/', '/dev/{0}/--x'])
def test_origins_are_volumes_of_the_group(pool_daemon, lvm, origin):
    pool = pool_daemon.start().connect().storagePoolCreateXML(lvm.pool_xml())
    origin = origin.format(lvm.group)
    assert error_of(pool.createXML, volume_xml('new', MIB, backing=origin)) == (
        libvirt.VIR_ERR_INVALID_ARG,
        f"invalid argument: backing store '{origin}' is no volume of the group '{lvm.group}'")
    assert not lvm.calls('lvcreate')


@pytest.mark.parametrize('who', ['undefine', 'create'])
def test_tool_that_hangs_holds_up_nobody_else(pool_daemon, lvm, tmp_path, who):
    """Whoever wants that pool waits for it; everybody else defines, starts and removes theirs."""
    connection, other = pool_daemon.start().connect(), pool_daemon.connect()
    slow = connection.storagePoolDefineXML(lvm.pool_xml())
    slow.create()
    slow.destroy()
    hanging = lvm.hang('vgremove')
    deleting = threading.Thread(target=slow.delete)
    deleting.start()
    wait_for(lambda: lvm.calls('vgremove'), 'the call that hangs')
    waiting = threading.Thread(target=slow.undefine if who == 'undefine' else lambda: other.storagePoolCreateXML(slow.XMLDesc()))
    waiting.start()
    third = pool_daemon.connect()
    for turn in range(5):
        (tmp_path / f'other{turn}').mkdir()
        free = third.storagePoolDefineXML(pool_xml(f'other{turn}', tmp_path / f'other{turn}'))
        free.create()
        free.destroy()
        free.undefine()
    assert deleting.is_alive() and waiting.is_alive()
    hanging.unlink()
    deleting.join()
    waiting.join()
    found = [(pool.name(), pool.isActive()) for pool in third.listAllStoragePools()]
    assert found == ([] if who == 'undefine' else [('group', 1)])


def test_tool_that_hangs_at_the_start(pool_daemon, lvm):
    """P10: Clients are served without the pool; when its tool answers, it is there."""
    connection = pool_daemon.start().connect()
    connection.storagePoolDefineXML(lvm.pool_xml()).create()
    connection.storagePoolCreateXML(pool_xml('files', pool_daemon.images))
    connection.close()
    pool_daemon.stop()
    hanging = lvm.hang('pvs')
    connection = pool_daemon.start().connect()
    assert connection.storagePoolLookupByName('files').isActive()
    assert 'have not answered yet' in pool_daemon.log.read_text()
    hanging.unlink()
    pool = connection.storagePoolLookupByName('group')
    pool.XMLDesc()
    wait_for(lambda: pool.info()[1] == 256 * MIB, 'the pool that was waited for')


def test_timeout_waits_for_what_is_under_way(pool_daemon, lvm):
    """Who asked for it may be gone."""
    connection = pool_daemon.start().connect()
    connection.storagePoolDefineXML(lvm.pool_xml().replace('<source>', f"<source><device path='{lvm.device}'/>"))
    hanging = lvm.hang('vgremove')
    with subprocess.Popen(['virsh', '-c', pool_daemon.uri(), 'pool-delete', 'group']) as deleting:
        wait_for(lambda: lvm.calls('vgremove'), 'the call that hangs')
        run('virt-admin', '-c', f'virtstoraged:///system?socket={pool_daemon.socket.parent}/virtstoraged-admin-sock',
            'daemon-timeout', '--timeout', '1')
        deleting.kill()
    connection.close()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert pool_daemon.process.poll() is None
        time.sleep(0.1)
    hanging.unlink()
    assert pool_daemon.process.wait(PATIENCE_S) == 0
    assert lvm.calls('pvremove'), 'what comes after'
