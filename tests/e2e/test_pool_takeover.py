# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host that changes from libvirt's daemon to ours, and back: what the one has left, the other finds."""
import contextlib
import os
import re
import shutil
import subprocess

import libvirt
import pytest

from harness import PATIENCE_S, program, run, wait_for
from pool_daemon import OWN_FOLDERS, pool_xml, volume_xml

MIB = 1 << 20
DRIVERS = '/usr/lib/x86_64-linux-gnu/libvirt/connection-driver'
TWO_DRIVERS = f'mount --bind "$1/drivers" {DRIVERS} && '
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="libvirt's daemon of the system")

OTHERS = [
    "<pool type='netfs'><name>nfs</name><source><host name='h' port='5'/><dir path='/x'/><format type='nfs'/>"
    "<protocol ver='4'/></source><target><path>/mnt/x</path></target></pool>",
    "<pool type='fs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>fs</name><source>"
    "<device path='/dev/zz'/><format type='ext4'/></source><target><path>/mnt/y</path></target>"
    "<fs:mount_opts><fs:option name='sync'/></fs:mount_opts></pool>",
    "<pool type='logical'><name>lvm</name><source><device path='/dev/zy'/><name>vgx</name></source></pool>",
    "<pool type='disk'><name>disk</name><source><device path='/dev/zx'/><format type='gpt'/></source>"
    '<target><path>/dev</path></target></pool>',
    "<pool type='iscsi'><name>is</name><source><host name='h'/><device path='iqn.2000-01.x:y'/>"
    "<auth type='chap' username='joe'><secret usage='s'/></auth></source><target><path>/dev/disk/by-path</path></target></pool>",
    "<pool type='scsi'><name>sc</name><source><adapter type='scsi_host' name='scsi_host9'/></source>"
    '<target><path>/dev/disk/by-path</path></target></pool>',
]


@contextlib.contextmanager
def libvirtd(pool):
    """libvirtd with its drivers of storage and secrets, in the folders of our daemon; how to connect to it."""
    folder = pool.folder
    (folder / 'drivers').mkdir(exist_ok=True)
    for name in ('storage', 'secret'):
        shutil.copy(f'{DRIVERS}/libvirt_driver_{name}.so', folder / 'drivers')
    (folder / 'libvirtd.conf').write_text('auth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    path = folder / 'run' / 'libvirt' / 'libvirt-sock'
    with open(folder / 'libvirtd.log', 'ab') as log:
        process = subprocess.Popen(
            ['unshare', '--mount', 'sh', '-c', TWO_DRIVERS + OWN_FOLDERS, 'sh', folder, '/usr/sbin/libvirtd', '-f',
             folder / 'libvirtd.conf', '-p', folder / 'libvirtd.pid'], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def connect(driver='storage'):
        assert process.poll() is None, (folder / 'libvirtd.log').read_text()
        with contextlib.suppress(libvirt.libvirtError):
            return libvirt.open(f'{driver}:///system?socket={path}')

    try:
        wait_for(connect, "libvirt's daemon")
        yield connect
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def steady(xml):
    """Without what is otherwise each time; how much room a file takes is its file system's affair."""
    xml = re.sub(r'<timestamps>.*?</timestamps>', '', xml, flags=re.DOTALL)
    sizes = 'capacity|allocation|available' if '<pool' in xml else 'allocation'
    return re.sub(rf"<({sizes}) unit='bytes'>\d+<", r'<\1>', xml)


def facts(connect):
    """Everything that there is to be known of pools, their volumes, and secrets."""
    found = {}
    for pool in connect().listAllStoragePools():
        volumes = {one.name(): (one.key(), steady(one.XMLDesc())) for one in (pool.listAllVolumes() if pool.isActive() else [])}
        found[pool.name()] = (steady(pool.XMLDesc()), steady(pool.XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE)), pool.autostart(),
                              pool.isActive(), pool.isPersistent(), volumes)
    for secret in connect('secret').listAllSecrets():
        private = "private='yes'" in secret.XMLDesc()
        found[secret.UUIDString()] = (secret.XMLDesc(), None if private else secret.value())
    return found


def fill(pool, connect):
    connection, secrets = connect(), connect('secret')
    for xml in OTHERS:
        connection.storagePoolDefineXML(xml)
    for name in ('plain', 'with space', 'ä', '.hidden', 'x.xml', '-dash', "q'uote", 'a--b', '$x;', 'a&amp;b'):
        path = pool.images / f'd{len(list(pool.images.iterdir()))}'
        path.mkdir()
        one = connection.storagePoolDefineXML(pool_xml(name, path))
        one.setAutostart(len(name) % 2)
    plain = connection.storagePoolLookupByName('plain')
    plain.create()
    plain.createXML(volume_xml('v.raw', MIB, allocation=0))
    plain.createXML(volume_xml('v.qcow2', MIB, 'qcow2', '<target><compat>1.1</compat></target>'))
    luks = pool.images / 'd0' / 'v.luks'
    run(program('ashlar-img'), 'create', '-f', 'luks', '--object', 'secret,id=s,data=open sesame', '-o', 'key-secret=s,iter-time=10',
        luks, MIB)
    for private, usage in (('no', luks), ('yes', '/nowhere')):
        secret = secrets.secretDefineXML(f"<secret ephemeral='no' private='{private}'><description>a &lt; b</description>"
                                         f"<usage type='volume'><volume>{usage}</volume></usage></secret>")
        secret.setValue(b'open sesame')
    (pool.images / 'fleeting').mkdir()
    connection.storagePoolCreateXML(pool_xml('fleeting', pool.images / 'fleeting'))


def change(connection, pool):
    plain = connection.storagePoolLookupByName('plain')
    plain.setAutostart(not plain.autostart())
    plain.createXML(volume_xml('later.qcow2', 2 * MIB, 'qcow2'))
    plain.refresh()
    (pool.images / 'later').mkdir()
    connection.storagePoolDefineXML(pool_xml('later', pool.images / 'later')).create()
    connection.storagePoolLookupByName('x.xml').destroy()
    connection.storagePoolLookupByName('x.xml').undefine()


def test_there_and_back(pool_daemon):
    with libvirtd(pool_daemon) as connect:
        fill(pool_daemon, connect)
    with libvirtd(pool_daemon) as connect:
        theirs = facts(connect)
    assert theirs['plain'][3] and set(theirs['plain'][5]) == {'v.raw', 'v.qcow2', 'v.luks'} and theirs['fleeting'][3]
    pool_daemon.start()
    assert facts(pool_daemon.connect) == theirs
    change(pool_daemon.connect(), pool_daemon)
    # A pool that runs has one definition until the next start, and then that of its file beside it.
    pool_daemon.stop()
    pool_daemon.start()
    ours = facts(pool_daemon.connect)
    assert 'later' in ours and 'x.xml' not in ours
    pool_daemon.stop()
    with libvirtd(pool_daemon) as connect:
        assert facts(connect) == ours
