# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of other hosts' directories by NFS: the kernel's client mounts what the kernel's server exports, in one machine."""
import subprocess

import libvirt
import pytest
from harness import background
from pool_daemon import error_of, volume_xml

pytestmark = pytest.mark.xdist_group('pool guest')

MIB = 1 << 20
TARGET = '/tmp/far'
SOMEBODY = 1000


@pytest.fixture(scope='module')
def server(pool_machine):
    """Exports /srv/plain to root as root, and /srv/squashed, which is somebody's, where root is nobody."""
    guest = pool_machine
    guest.do('truncate -s 128M /tmp/exported.img && mkfs.ext4 -q /tmp/exported.img && mount /tmp/exported.img /srv')
    guest.do(f'mkdir /srv/plain /srv/squashed "/srv/with blanks" && chown {SOMEBODY}:{SOMEBODY} /srv/squashed && chmod 750 /srv/squashed')
    guest.do('modprobe lockd nlm_grace_period=1 && modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd && rpcbind && rpc.statd')
    guest.do("exportfs -o rw,no_root_squash,insecure,fsid=1 '*:/srv/plain' && exportfs -o rw,root_squash,insecure,fsid=2 '*:/srv/squashed'")
    guest.do("exportfs -o ro,insecure,fsid=3 '*:/srv/with blanks' && rpc.nfsd --grace-time 10 2 2>&1 && rpc.mountd")
    # Nobody has locks from before.
    guest.do('echo Y >/proc/fs/nfsd/v4_end_grace')
    yield guest
    guest.do('exportfs -ua; rpc.nfsd 0; killall rpc.mountd rpc.statd rpcbind; umount /proc/fs/nfsd /srv; rm /tmp/exported.img')


@pytest.fixture
def guest(server, pool_guest):
    yield pool_guest
    pool_guest.do(f'umount {TARGET} 2>/dev/null; rm -rf /srv/plain/* /srv/squashed/*; rmdir {TARGET} 2>/dev/null; true')


def pool_xml(directory='/srv/plain', more='', kind='nfs', host='127.0.0.1', name='far'):
    return (f"<pool type='netfs'><name>{name}</name><source><host name='{host}'/><dir path='{directory}'/><format type='{kind}'/>{more}"
            f'</source><target><path>{TARGET}</path></target></pool>')


def mounted(guest):
    """(source, type, options) of the mount."""
    words = guest.do(f'grep " {TARGET} " /proc/mounts || true').split()
    return (words[0], words[2], words[3].split(',')) if words else None


def test_exports_of_a_server(guest):
    connection = guest.connect()
    found = connection.findStoragePoolSources('netfs', "<source><host name='127.0.0.1'/></source>")
    assert found.count('<source>') == 3 and found.count("<host name='127.0.0.1'/>") == 3 and found.count("<format type='nfs'/>") == 3
    assert all(f"<dir path='{path}'/>" in found for path in ('/srv/plain', '/srv/squashed', '/srv/with blanks'))
    assert '/srv/plain' in guest.virsh('find-storage-pool-sources-as', 'netfs', 'localhost')


def test_directory_of_a_server(guest):
    """Building makes the place, starting mounts, and what is made there is at the server, whatever the daemon does meanwhile."""
    pool = guest.connect().storagePoolDefineXML(pool_xml())
    assert error_of(pool.create)[0] == libvirt.VIR_ERR_INTERNAL_ERROR
    pool.build()
    pool.create()
    assert mounted(guest)[:2] == ('127.0.0.1:/srv/plain', 'nfs4')
    owner = f'<permissions><mode>0640</mode><owner>{SOMEBODY}</owner><group>0</group></permissions></target>'
    pool.createXML(volume_xml('a.raw', 4 * MIB, allocation=4 * MIB).replace('</target>', owner))
    assert guest.do('stat -c "%s %u %g %a" /srv/plain/a.raw').split() == [str(4 * MIB), str(SOMEBODY), '0', '640']
    pool.createXML(volume_xml('b.qcow2', 4 * MIB, 'qcow2'))
    guest.do('cp /srv/plain/b.qcow2 /srv/plain/c.qcow2')
    guest.wait(f'[ -e {TARGET}/c.qcow2 ]')
    guest.restart_daemon()
    pool = guest.connect().storagePoolLookupByName('far')
    assert pool.isActive()
    pool.refresh()
    assert sorted(pool.listVolumes()) == ['a.raw', 'b.qcow2', 'c.qcow2']
    assert "<format type='qcow2'/>" in pool.storageVolLookupByName('c.qcow2').XMLDesc()
    volume = pool.storageVolLookupByName('a.raw')
    volume.resize(8 * MIB)
    volume.wipe()
    assert guest.do('stat -c %s /srv/plain/a.raw') == str(8 * MIB)
    copy = pool.createXMLFrom(volume_xml('d.qcow2', 8 * MIB, 'qcow2'), volume)
    copy.delete()
    volume.delete()
    assert guest.do('ls -A /srv/plain').split() == ['b.qcow2', 'c.qcow2']
    size, blocks = map(int, guest.do(f'stat -f -c "%S %b" {TARGET}').split())
    assert pool.info()[1] == size * blocks
    pool.destroy()
    assert mounted(guest) is None
    pool.delete()
    assert guest.do(f'[ -e {TARGET} ] || echo gone') == 'gone'


def test_unmounted_and_mounted_by_others(guest):
    pool = guest.connect().storagePoolDefineXML(pool_xml())
    pool.build()
    guest.do(f'mount -t nfs -o vers=4.2 127.0.0.1:/srv/plain {TARGET}')
    pool.create()
    assert 'noexec' not in mounted(guest)[2]
    guest.stop_daemon()
    guest.do(f'umount {TARGET}')
    guest.start_daemon()
    pool = guest.connect().storagePoolLookupByName('far')
    assert not pool.isActive()
    pool.create()
    assert 'noexec' in mounted(guest)[2]


def test_what_cannot_be_mounted(guest):
    """What is said is what mount and its helpers say."""
    connection = guest.connect()
    for xml, complaint in ((pool_xml('/nowhere'), 'mount.nfs: '), (pool_xml(more="<protocol ver='7'/>"), 'mount.nfs: '),
                           (pool_xml(kind='cifs'), "mount: /tmp/far: "), (pool_xml(kind='glusterfs'), "mount: /tmp/far: ")):
        pool = connection.storagePoolDefineXML(xml)
        pool.build()
        code, message = error_of(pool.create)
        assert code == libvirt.VIR_ERR_INTERNAL_ERROR and f'unexpected exit status 32: {complaint}' in message, message
        assert not pool.isActive() and mounted(guest) is None
        pool.undefine()


@pytest.mark.parametrize('kind, more, host, directory, source, version', [
    ('nfs', "<protocol ver='4.1'/>", '127.0.0.1', '/srv/plain/', '127.0.0.1:/srv/plain', '4.1'),
    ('auto', '', '::1', '/srv/plain', '[::1]:/srv/plain', '4.2'),
    ('nfs', "<protocol ver='3'/>", 'storage.example', '/srv/plain', 'storage.example:/srv/plain', '3'),
])
def test_ways_to_mount(guest, kind, more, host, directory, source, version):
    """Each is found again by a daemon that comes after another. A new server has no locks of NFS 3 for ten seconds, so that is last."""
    pool = guest.connect().storagePoolDefineXML(pool_xml(directory, more, kind, host))
    pool.build()
    pool.create()
    shown, of_type, options = mounted(guest)
    assert shown == source and of_type == ('nfs' if version == '3' else 'nfs4')
    assert {'nosuid', 'nodev', 'noexec', f'vers={version}'} <= set(options)
    volume = pool.createXML(volume_xml('a.qcow2', 4 * MIB, 'qcow2'))
    assert guest.do('head -c 3 /srv/plain/a.qcow2') == 'QFI'
    volume.delete()
    guest.restart_daemon('KILL')
    pool = guest.connect().storagePoolLookupByName('far')
    assert pool.isActive()
    pool.destroy()
    assert mounted(guest) is None


def test_server_that_is_gone(guest):
    """Whoever wants its pool waits, nobody else does; the pool can be stopped, and so can the daemon."""
    connection = guest.connect()
    pool = connection.storagePoolDefineXML(pool_xml())
    pool.build()
    pool.create()
    guest.do('mkdir -p /tmp/near && touch /tmp/near/a')
    near = connection.storagePoolDefineXML("<pool type='dir'><name>near</name><target><path>/tmp/near</path></target></pool>")
    near.create()
    guest.do('rpc.nfsd 0')
    try:
        # Neither being started nor stopping a pool asks the server for anything.
        guest.restart_daemon('KILL')
        connection = guest.connect()
        pool = connection.storagePoolLookupByName('far')
        assert pool.isActive() and connection.storagePoolLookupByName('near').listVolumes() == ['a']
        with background('virsh', '-c', guest.uri(), 'pool-refresh', 'far', stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL) as refresh:
            guest.wait('grep -q -E "nfs|rpc" /proc/$(cat /tmp/poold.pid)/task/*/wchan')
            near = connection.storagePoolLookupByName('near')
            near.refresh()
            near.createXML(volume_xml('b.qcow2', 4 * MIB, 'qcow2')).delete()
            assert refresh.poll() is None
        guest.stop_daemon()
        guest.start_daemon()
    finally:
        guest.do('rpc.nfsd 2 && echo Y >/proc/fs/nfsd/v4_end_grace; rm -rf /tmp/near')
    pool = guest.connect().storagePoolLookupByName('far')
    pool.refresh()
    pool.destroy()
    assert mounted(guest) is None
