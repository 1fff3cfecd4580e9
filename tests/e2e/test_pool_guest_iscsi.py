# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of iSCSI targets by open-iscsi and the kernel, against the kernel's target, all in one machine."""
import libvirt
import pytest
from lio_targets import IscsiTarget
from pool_daemon import error_of

pytestmark = pytest.mark.xdist_group('pool guest')

MIB = 1 << 20
TARGET = 'iqn.2024-01.org.example:disk1'
INITIATOR = 'iqn.2024-01.org.example:client'
HOST = 'iqn.2024-01.org.example:host'  # what the machine calls itself
USER, PASSWORD = 'somebody', 'twelve-bytes # and more'


@pytest.fixture
def iscsi(pool_guest):
    """The machine with open-iscsi's daemon."""
    if pool_guest.do('pidof iscsid || true') == '':
        pool_guest.do('iscsid')
    yield pool_guest
    pool_guest.do('iscsiadm --mode node --logoutall=all >/dev/null 2>&1; rm -rf /etc/iscsi/nodes/* /etc/iscsi/ifaces/ashlar-*')


@pytest.fixture
def impatient(iscsi):
    """What does not answer within two seconds is given up."""
    iscsi.do('cp /etc/iscsi/iscsid.conf /tmp/iscsid.conf; sed -i "s/login_timeout = .*/login_timeout = 2/" /etc/iscsi/iscsid.conf')
    yield
    iscsi.do('mv /tmp/iscsid.conf /etc/iscsi/iscsid.conf')


@pytest.fixture
def target(iscsi):
    """With units 0 and 3."""
    with IscsiTarget(iscsi, TARGET) as one:
        one.add_unit(0, 16)
        one.add_unit(3, 8)
        yield one
        iscsi.do('iscsiadm --mode node --logoutall=all >/dev/null 2>&1; true')


def pool_xml(more='', name='units', path='/dev/disk/by-path', port='', target=TARGET):
    return (f"<pool type='iscsi'><name>{name}</name><source><host name='127.0.0.1'{port}/><device path='{target}'/>{more}</source>"
            f'<target><path>{path}</path></target></pool>')


def link(number, port=3260):
    return f'/dev/disk/by-path/ip-127.0.0.1:{port}-iscsi-{TARGET}-lun-{number}'


def sessions(guest):
    """The initiators of the sessions that there are."""
    return guest.do('cat /sys/class/iscsi_session/*/initiatorname 2>/dev/null || true').split()


def test_units_of_a_target(iscsi, target):
    connection = iscsi.connect()
    found = connection.findStoragePoolSources('iscsi', "<source><host name='127.0.0.1'/></source>")
    assert found.count('<source>') == 1 and f"<device path='{TARGET}'/>" in found and "<host name='127.0.0.1'/>" in found
    assert f"<device path='{TARGET}'/>" in iscsi.virsh('find-storage-pool-sources-as', 'iscsi', '127.0.0.1', '3260')
    pool = connection.storagePoolDefineXML(pool_xml())
    pool.create()
    volumes = {volume.name(): volume for volume in pool.listAllVolumes()}
    assert {name: (volume.path(), volume.info()) for name, volume in volumes.items()} == {
        'unit:0:0:0': (link(0), [libvirt.VIR_STORAGE_VOL_BLOCK, 16 * MIB, 16 * MIB]),
        'unit:0:0:3': (link(3), [libvirt.VIR_STORAGE_VOL_BLOCK, 8 * MIB, 8 * MIB])}
    assert pool.info()[1:] == [24 * MIB, 24 * MIB, 0]
    # The key is what the unit calls itself.
    serial = iscsi.do(f'/lib/udev/scsi_id --replace-whitespace --whitelisted --device {link(3)}')
    assert serial and volumes['unit:0:0:3'].key() == serial
    assert connection.storageVolLookupByKey(serial).name() == connection.storageVolLookupByPath(link(3)).name() == 'unit:0:0:3'
    # A unit that is new.
    target.add_unit(7, 24)
    assert len(pool.listVolumes()) == 2
    pool.refresh()
    assert sorted(pool.listVolumes()) == ['unit:0:0:0', 'unit:0:0:3', 'unit:0:0:7']
    assert pool.info()[1] == 48 * MIB
    assert f'{TARGET}' in iscsi.virsh('pool-dumpxml', 'units')
    assert 'unit:0:0:7' in iscsi.virsh('vol-list', 'units', '--details')
    # Content.
    iscsi.do('echo hello >/tmp/text')
    stream = connection.newStream()
    volumes['unit:0:0:3'].upload(stream, 4096, 5, 0)
    stream.send(b'hello')
    stream.finish()
    assert iscsi.do('dd if=/tmp/iqn.2024-01.org.example-disk1-3 bs=1 skip=4096 count=5 2>/dev/null') == 'hello'
    volumes['unit:0:0:3'].wipe()
    assert iscsi.do('cmp -n 8388608 /tmp/iqn.2024-01.org.example-disk1-3 /dev/zero && echo same') == 'same'
    assert error_of(volumes['unit:0:0:3'].delete)[0] == libvirt.VIR_ERR_NO_SUPPORT
    assert sessions(iscsi) == [HOST]
    pool.destroy()
    assert sessions(iscsi) == []
    assert iscsi.do(f'ls {link(0)} 2>/dev/null || true') == ''


def test_session_outlives_the_daemon(iscsi, target):
    """Stopping, crashing and starting the daemon: the pool goes on; so it does with a session that others have made."""
    pool = iscsi.connect().storagePoolDefineXML(pool_xml())
    pool.create()
    session = iscsi.do('ls /sys/class/iscsi_session')
    for signal in 'TERM', 'KILL':
        iscsi.restart_daemon(signal)
        pool = iscsi.connect().storagePoolLookupByName('units')
        assert pool.isActive() and len(pool.listVolumes()) == 2
        assert iscsi.do('ls /sys/class/iscsi_session') == session
    # While the daemon is away the session ends: so has the pool, when it comes back.
    iscsi.stop_daemon()
    iscsi.do(f'iscsiadm --mode node --targetname {TARGET} --logout')
    iscsi.start_daemon()
    pool = iscsi.connect().storagePoolLookupByName('units')
    assert not pool.isActive()
    iscsi.do(f'iscsiadm --mode node --targetname {TARGET} --login')
    session = iscsi.do('ls /sys/class/iscsi_session')
    pool.create()
    assert iscsi.do('ls /sys/class/iscsi_session') == session and len(pool.listVolumes()) == 2
    # One that ends under the pool's feet.
    iscsi.do(f'iscsiadm --mode node --targetname {TARGET} --logout')
    assert error_of(pool.refresh) == (libvirt.VIR_ERR_INTERNAL_ERROR, f'internal error: cannot find iscsiadm session: {TARGET}')
    assert not pool.isActive()


def test_password(iscsi, target):
    """It is never a word of a command line, nor in a message or the log."""
    target.ask_for_password(USER, PASSWORD)
    connection = iscsi.connect()
    assert error_of(connection.storagePoolCreateXML, pool_xml())[0] == libvirt.VIR_ERR_INTERNAL_ERROR
    secret = iscsi.connect('secret').secretDefineXML("<secret><usage type='iscsi'><target>the-target</target></usage></secret>")
    auth = f"<auth type='chap' username='{USER}'><secret usage='the-target'/></auth>"
    secret.setValue(b'something-else')
    code, message = error_of(connection.storagePoolCreateXML, pool_xml(auth))
    assert code == libvirt.VIR_ERR_INTERNAL_ERROR and 'authorization failure' in message
    secret.setValue(b'twelve\nnode.startup = automatic')
    code, message = error_of(connection.storagePoolCreateXML, pool_xml(auth))
    assert code == libvirt.VIR_ERR_CONFIG_UNSUPPORTED and "'node.session.auth.password' has more than one line" in message
    secret.setValue(PASSWORD.encode())
    # A record of another group of the same portal is somebody else's.
    iscsi.do(f'iscsiadm --mode node --op new --targetname {TARGET} --portal 127.0.0.1:3260,7')
    iscsi.do('mv /bin/iscsiadm /bin/iscsiadm.real; rm -f /tmp/calls')
    iscsi.write('/bin/iscsiadm', '#!/bin/sh\\necho "$*" >>/tmp/calls\\nexec /bin/iscsiadm.real "$@"\\n')
    try:
        iscsi.do('chmod +x /bin/iscsiadm')
        pool = connection.storagePoolCreateXML(pool_xml(auth))
    finally:
        iscsi.do('mv /bin/iscsiadm.real /bin/iscsiadm')
    assert len(pool.listVolumes()) == 2
    calls = iscsi.do('cat /tmp/calls')
    assert '--login' in calls and PASSWORD not in calls and 'twelve' not in calls
    assert 'twelve' not in iscsi.do(f'cat {iscsi.log}')
    # Nobody else may read the record that has it.
    records = iscsi.do(f'grep -rl twelve /etc/iscsi/nodes/{TARGET}').split()
    assert [record.split('/')[-2] for record in records] == ['127.0.0.1,3260,1']
    assert iscsi.do(f'stat -c %a {records[0]}') == '600'
    pool.destroy()


def test_initiator(iscsi, target):
    """A name of the pool's own: only it is admitted, so only with it is the target found, and logged in to."""
    target.admit_only(INITIATOR)
    connection = iscsi.connect()
    host = "<host name='127.0.0.1'/>"
    initiator = f"<initiator><iqn name='{INITIATOR}'/></initiator>"
    assert TARGET not in (found_or_error(connection, f'<source>{host}</source>'))
    found = connection.findStoragePoolSources('iscsi', f'<source>{host}{initiator}</source>')
    assert f"<device path='{TARGET}'/>" in found and INITIATOR in found
    assert error_of(connection.storagePoolCreateXML, pool_xml())[0] == libvirt.VIR_ERR_INTERNAL_ERROR
    pool = connection.storagePoolDefineXML(pool_xml(initiator))
    pool.create()
    assert sessions(iscsi) == [INITIATOR]
    assert sorted(pool.listVolumes()) == ['unit:0:0:0', 'unit:0:0:3']
    iscsi.restart_daemon()
    pool = iscsi.connect().storagePoolLookupByName('units')
    assert pool.isActive()
    pool.destroy()
    assert sessions(iscsi) == []
    # Nothing is left of what was made for it; and whatever the XML has is the value of an option.
    connection = iscsi.connect()
    pool = connection.storagePoolDefineXML(pool_xml("<initiator><iqn name='--logout'/></initiator>", name='odd'))
    assert '--login' in error_of(pool.create)[1]
    several = "<initiator><iqn name='iqn.a:b&#10;node.startup = automatic'/></initiator>"
    assert error_of(connection.storagePoolCreateXML, pool_xml(several, name='several')) == (
        libvirt.VIR_ERR_INVALID_ARG, "invalid argument: the initiator's name 'iqn.a:b\nnode.startup = automatic' has more than one line")
    assert error_of(connection.findStoragePoolSources, 'iscsi', f'<source>{host}{several}</source>')[0] == libvirt.VIR_ERR_INVALID_ARG
    assert iscsi.do('ls /etc/iscsi/ifaces; find /etc/iscsi/nodes -name "ashlar-*"') == ''


def found_or_error(connection, source):
    try:
        return connection.findStoragePoolSources('iscsi', source)
    except libvirt.libvirtError as error:
        return str(error).replace(TARGET, '')


def test_two_initiators(iscsi, target):
    """Two pools of one target: each has a session of its own, and keeps it when the other one goes."""
    connection = iscsi.connect()
    first = connection.storagePoolCreateXML(pool_xml(name='first', path='/dev'))
    second = connection.storagePoolCreateXML(pool_xml(f"<initiator><iqn name='{INITIATOR}'/></initiator>", name='second', path='/dev'))
    assert sorted(sessions(iscsi)) == sorted([HOST, INITIATOR])
    paths = [{volume.path() for volume in pool.listAllVolumes()} for pool in (first, second)]
    assert len(paths[0]) == len(paths[1]) == 2 and not paths[0] & paths[1]
    first.destroy()
    assert sessions(iscsi) == [INITIATOR]
    second.refresh()
    assert len(second.listVolumes()) == 2
    second.destroy()
    assert sessions(iscsi) == []


def test_portal_group(iscsi):
    """A target whose group of portals is not the first one, at another port."""
    with IscsiTarget(iscsi, TARGET, tag=5, ports=(3261,)) as target:
        target.add_unit(1, 8)
        pool = iscsi.connect().storagePoolCreateXML(pool_xml(port=" port='3261'"))
        assert [volume.path() for volume in pool.listAllVolumes()] == [link(1, 3261)]
        pool.destroy()
        assert sessions(iscsi) == []


def test_targets_that_do_not_answer(iscsi, target, impatient):
    """Nobody at the port, and a target that nobody has; what is said is what iscsiadm says. Nothing is left behind."""
    connection = iscsi.connect()
    for xml in pool_xml(port=" port='3999'"), pool_xml(target=f'{TARGET}0'):
        pool = connection.storagePoolDefineXML(xml)
        code, message = error_of(pool.create)
        assert code == libvirt.VIR_ERR_INTERNAL_ERROR and 'iscsiadm' in message
        assert not pool.isActive() and sessions(iscsi) == []
        pool.undefine()
    assert error_of(connection.findStoragePoolSources, 'iscsi', "<source><host name='127.0.0.1' port='3999'/></source>")[0] == \
        libvirt.VIR_ERR_INTERNAL_ERROR
    for spec in "<source><host name='-x'/></source>", "<source><host name='a'/><host name='b'/></source>":
        assert error_of(connection.findStoragePoolSources, 'iscsi', spec)[0] in (
            libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_CONFIG_UNSUPPORTED)
