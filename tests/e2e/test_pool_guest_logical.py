# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of volume groups by LVM itself, in a machine whose kernel has the device mapper."""
import json
import re
from contextlib import contextmanager

import libvirt
import pytest
from harness import program, run
from pool_daemon import error_of

pytestmark = pytest.mark.xdist_group('pool guest')

MIB = 1 << 20
BUILT = libvirt.VIR_ERR_STORAGE_POOL_BUILT
DATA = b'\x5a' * MIB
OVERWRITE = libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE


class Disks:
    """Loop devices in the machine; their groups go with them."""

    def __init__(self, guest):
        self.guest = guest
        self.names = {}

    def add(self, name, mib):
        node = self.guest.do(f'truncate -s {mib}M /tmp/{name} && losetup --partscan --find --show /tmp/{name}')
        self.names[name] = node
        return node

    def detach(self, *names):
        for name in names:
            self.guest.do(f'losetup --detach {self.names[name]}')

    def attach(self, *names):
        for name in names:
            self.guest.do(f'losetup {self.names[name]} /tmp/{name}')

    def clear(self):
        self.guest.do('udevadm settle; dmsetup remove_all >/dev/null 2>&1; true')
        for name, node in self.names.items():
            self.guest.do(f'losetup --detach {node} 2>/dev/null; rm -f /tmp/{name}')


@pytest.fixture
def disks(pool_guest):
    one = Disks(pool_guest)
    yield one
    for pool in pool_guest.connect().listAllStoragePools():
        if pool.isActive():
            pool.destroy()
    one.clear()


@pytest.fixture
def group(pool_guest, disks):
    """A running pool 'group' of two devices of 64 MiB."""
    nodes = [disks.add(name, 64) for name in ('one', 'two')]
    pool = pool_guest.connect().storagePoolDefineXML(pool_xml('group', nodes))
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    return pool


def pool_xml(name, devices, group=None):
    listed = ''.join(f"<device path='{device}'/>" for device in devices)
    named = f'<name>{group}</name>' if group else ''
    return f"<pool type='logical'><name>{name}</name><source>{listed}{named}</source></pool>"


def volume_xml(name, capacity, allocation=None, backing=None, target=''):
    given = '' if allocation is None else f'<allocation>{allocation}</allocation>'
    below = '' if backing is None else f'<backingStore><path>{backing}</path></backingStore>'
    return f'<volume><name>{name}</name><capacity>{capacity}</capacity>{given}<target>{target}</target>{below}</volume>'


def extents(volume):
    """(device, first byte, end) of each."""
    return [(device, int(start), int(end)) for device, inside in
            re.findall("<device path='([^']*)'>(.*?)</device>", volume.XMLDesc(), re.S)
            for start, end in re.findall("<extent start='(\\d+)' end='(\\d+)'/>", inside)]


def numbers(guest, group):
    """What LVM says: the group's size, what is used, what is free."""
    report = json.loads(guest.do(f'vgs --reportformat json --units b --nosuffix -o vg_size,vg_free {group} 2>/dev/null'))
    size, free = (int(report['report'][0]['vg'][0][key]) for key in ('vg_size', 'vg_free'))
    return [size, size - free, free]


@contextmanager
def lvm_settings(guest, lines):
    """More lines of lvm.conf, as printf makes them."""
    guest.do(f"cp /etc/lvm/lvm.conf /tmp/lvm.conf; printf '{lines}' >>/etc/lvm/lvm.conf")
    try:
        yield
    finally:
        guest.do('mv /tmp/lvm.conf /etc/lvm/lvm.conf')


def upload(pool, name, data, offset=0):
    stream = pool.connect().newStream()
    pool.storageVolLookupByName(name).upload(stream, offset, len(data))
    while data:
        data = data[stream.send(data):]
    stream.finish()


def download(pool, name, offset, length):
    stream = pool.connect().newStream()
    pool.storageVolLookupByName(name).download(stream, offset, length)
    got = []
    stream.recvAll(lambda _, data, to: to.append(data), got)
    stream.finish()
    return b''.join(got)


def test_group_from_nothing_to_nothing(pool_guest, disks):
    """Through virsh alone, as an administrator would."""
    virsh = pool_guest.virsh
    one, two = disks.add('one', 64), disks.add('two', 64)
    virsh('pool-define-as', 'store', 'logical', '--source-dev', one, '--source-name', 'the-group', '--target', '/dev/other')
    xml = virsh('pool-dumpxml', 'store')
    assert f"<device path='{one}'/>" in xml and '<path>/dev/the-group</path>' in xml
    virsh('pool-undefine', 'store')

    pool_guest.connect().storagePoolDefineXML(pool_xml('store', [one, two], 'the-group'))
    virsh('pool-build', 'store')
    assert f"Device '{one}' already formatted using 'lvm2'" in virsh('pool-build', 'store', '--no-overwrite', check=False)
    virsh('pool-start', 'store')
    assert virsh('vol-list', 'store').split() == ['Name', 'Path', '-' * 14]
    assert virsh('pool-info', 'store', '--bytes').split()[-6:] == [
        'Capacity:', str(120 * MIB), 'Allocation:', '0', 'Available:', str(120 * MIB)]
    source = f"<device path='{one}'/> <device path='{two}'/> <name>the-group</name> <format type='lvm2'/>"
    for text in virsh('pool-dumpxml', 'store'), virsh('find-storage-pool-sources-as', 'logical'):
        assert source in ' '.join(text.split())

    virsh('vol-create-as', 'store', 'kept', '8M')
    assert virsh('vol-path', virsh('vol-key', 'kept', 'store').strip()).strip() == '/dev/the-group/kept'
    assert 'is still active' in virsh('pool-delete', 'store', check=False)
    virsh('pool-destroy', 'store')
    assert pool_guest.do('ls /dev/the-group 2>/dev/null; dmsetup ls | grep the--group || true') == ''
    virsh('pool-delete', 'store')
    assert pool_guest.do(f'blkid -p {one} {two} || true') == ''
    assert "cannot find logical volume group name 'the-group'" in virsh('pool-start', 'store', check=False)
    assert 'Volume group "the-group" not found' in virsh('pool-delete', 'store', check=False)
    virsh('pool-undefine', 'store')


def test_devices_that_carry_something(pool_guest, disks):
    """Refused, and called by name; with force all is taken but what is in use."""
    connection = pool_guest.connect()
    kinds = {name: disks.add(name, 16) for name in ('clean', 'files', 'table', 'orphan', 'member')}
    pool_guest.do(f'mke2fs -q {kinds["files"]} && pvcreate -q {kinds["orphan"]} && vgcreate -q other {kinds["member"]} && '
                  'lvcreate -q -L 4M -n taken other')
    disk = connection.storagePoolDefineXML(f"<pool type='disk'><name>disk</name><source><device path='{kinds['table']}'/>"
                                           "<format type='gpt'/></source><target><path>/dev</path></target></pool>")
    disk.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    disk.createXML(volume_xml(kinds['table'].rsplit('/', 1)[1] + 'p1', MIB))
    disk.destroy()
    disk.undefine()

    def build(names, flags=0):
        pool = connection.storagePoolDefineXML(pool_xml('new', [kinds[name] for name in names]))
        try:
            pool.build(flags)
            pool.delete()
        finally:
            pool.undefine()

    for name in 'files', 'table':
        assert error_of(build, ['clean', name]) == (
            BUILT, f"Storage pool already built: Format of device '{kinds[name]}' does not match the expected format 'lvm2', "
                   'forced overwrite is necessary')
    for name in 'orphan', 'member':
        assert error_of(build, ['clean', name]) == (
            BUILT, f"Storage pool already built: Device '{kinds[name]}' already formatted using 'lvm2'")
    assert pool_guest.do(f'blkid {kinds["clean"]} || true') == ''
    pool_guest.do(f'mkdir -p /tmp/mounted; mount {kinds["files"]} /tmp/mounted; echo content >/tmp/mounted/file; sync')
    try:
        for name in 'files', 'member':
            assert error_of(build, [name], OVERWRITE) == (
                libvirt.VIR_ERR_SYSTEM_ERROR, f"cannot open device '{kinds[name]}': Device or resource busy")
    finally:
        pool_guest.do('umount /tmp/mounted')
    assert pool_guest.do(f'mount {kinds["files"]} /tmp/mounted; cat /tmp/mounted/file; umount /tmp/mounted; '
                         'rmdir /tmp/mounted') == 'content'
    pool_guest.do('vgchange -q -an other')
    assert pool_guest.do(f'ls {kinds["table"]}p1')
    build(['files', 'table', 'member'], OVERWRITE)
    assert pool_guest.do(f'ls {kinds["table"]}p1 2>/dev/null || true') == ''


def check_plain_volumes(guest, group):
    connection = group.connect()
    name = 'a-b--c.d_e+f'
    volume = group.createXML(volume_xml(name, 3 * MIB, target='<permissions><mode>0640</mode><owner>1000</owner>'
                                                              '<group>6</group></permissions>'))
    path = f'/dev/group/{name}'
    assert volume.path() == path and volume.info() == [libvirt.VIR_STORAGE_VOL_BLOCK, 4 * MIB, 4 * MIB]
    assert volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2] == 4 * MIB
    assert volume.key() == guest.do(f'lvs --noheadings -o lv_uuid group/{name} 2>/dev/null').strip()
    assert [found.name() for found in (connection.storageVolLookupByKey(volume.key()), connection.storageVolLookupByPath(path))] == [
        name, name]
    assert extents(volume) == [(re.search("device path='([^']*)'", group.XMLDesc())[1], 0, 4 * MIB)]
    xml = volume.XMLDesc()
    assert all(part in xml for part in ('<mode>0640</mode>', '<owner>1000</owner>', '<group>6</group>', '<timestamps>'))
    assert '<format' not in xml
    guest.do('udevadm settle')
    assert guest.do(f'stat -L -c "%a %u %g" {path}') == '640 1000 6'

    # What somebody has open stays, and so does its pool. LVM tries for five seconds otherwise.
    guest.do(f'exec 4<{path}')
    with lvm_settings(guest, 'activation/retry_deactivation = 0\\n'):
        code, message = error_of(volume.delete)
        assert code == libvirt.VIR_ERR_INTERNAL_ERROR and f'Logical volume group/{name} in use' in message
        assert 'in use' in error_of(group.destroy)[1] and group.isActive()
    guest.do('exec 4<&-')
    upload(group, name, DATA, 3 * MIB)
    assert download(group, name, 3 * MIB, MIB) == DATA
    copy = group.createXMLFrom(volume_xml('copy', 0, target='<permissions><mode>0604</mode></permissions>'), volume)
    assert copy.info() == volume.info() and guest.do(f'cmp {path} /dev/group/copy && echo same') == 'same'
    guest.do('udevadm settle')
    assert guest.do('stat -L -c "%a" /dev/group/copy') == '604'
    volume.wipe()
    assert guest.do(f'cmp -n {4 * MIB} {path} /dev/zero && echo same') == 'same'
    assert error_of(volume.resize, 8 * MIB) == (
        libvirt.VIR_ERR_NO_SUPPORT, 'this function is not supported by the connection driver: storage pool does not support '
                                    'changing of volume capacity')
    volume.delete()
    # What LVM refuses, in its words; and what would be an option.
    for bad, words in (('copy', "storage volume 'copy' exists already"), ('snapshot1', 'are reserved'), ('-x', "'-x' is no name"),
                       ('..', "'..' is no name")):
        assert words in error_of(group.createXML, volume_xml(bad, MIB))[1]
    assert 'insufficient free space' in error_of(group.createXML, volume_xml('large', 500 * MIB))[1]
    assert group.listVolumes() == ['copy']
    assert group.info()[1:] == numbers(guest, 'group') == [120 * MIB, 4 * MIB, 116 * MIB]


def check_encrypted_volume(guest, group, folder):
    """Of what the volume 'copy' has."""
    secret = guest.connect('secret').secretDefineXML('<secret><usage type="volume"><volume>/dev/group/safe</volume></usage></secret>')
    secret.setValue(b'open sesame')
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{secret.UUIDString()}'/></encryption>"
    safe = group.createXMLFrom(volume_xml('safe', 4 * MIB, target=encryption), group.storageVolLookupByName('copy'))
    assert safe.info()[1] == 8 * MIB and encryption.split('>')[0] in safe.XMLDesc()
    assert 'TYPE="crypto_LUKS"' in guest.do('blkid -p /dev/group/safe')
    (folder / 'image').write_bytes(download(group, 'safe', 0, 0))
    run(program('ashlar-io'), '--object', 'secret,id=key,data=open sesame', '--image-opts',
        f'driver=luks,key-secret=key,file.driver=file,file.filename={folder}/image',
        '-c', 'read -P 0 0 3M', '-c', 'read -P 0x5a 3M 1M')


def check_sparse_volumes(guest, group, folder):
    """Holes of an upload, and zeroes of a copy, take up no room."""
    sparse = group.createXML(volume_xml('sparse', 64 * MIB, allocation=3 * MIB))
    assert sparse.info()[1:] == [64 * MIB, 4 * MIB] and '<backingStore>' not in sparse.XMLDesc()
    with open(folder / 'holes', 'wb') as file:
        file.seek(32 * MIB)
        file.write(DATA)
        file.truncate(64 * MIB)
    guest.virsh('vol-upload', 'sparse', folder / 'holes', 'group', '--sparse')
    copy = group.createXMLFrom(volume_xml('thrifty', 64 * MIB, allocation=4 * MIB), sparse)
    assert copy.info() == sparse.info()
    assert download(group, 'thrifty', 31 * MIB, 3 * MIB) == bytes(MIB) + DATA + bytes(MIB)
    assert error_of(sparse.wipe) == (
        libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver: logical volume '/dev/group/sparse' "
                                    'is sparse, volume wipe not supported')
    assert group.info()[1:] == numbers(guest, 'group')


def check_snapshots(guest, group):
    """Of the volume 'copy'."""
    origin = group.storageVolLookupByName('copy')
    snapshot = group.createXML(volume_xml('before', 4 * MIB, backing=origin.path()))
    assert snapshot.info()[1:] == [4 * MIB, 8 * MIB]
    # All of it can be written anew, on both sides.
    origin.wipe()
    assert download(group, 'before', 3 * MIB, MIB) == DATA
    upload(group, 'before', DATA * 4)
    group.refresh()
    assert f'<path>{origin.path()}</path>' in snapshot.XMLDesc().split('<backingStore>')[1]
    # A copy of a snapshot has all of it.
    guest.virsh('vol-clone', 'before', 'whole', 'group')
    whole = group.storageVolLookupByName('whole')
    assert '<backingStore>' not in whole.XMLDesc() and download(group, 'whole', 0, 0) == DATA * 4
    assert 'napshots of snapshots' in error_of(group.createXML, volume_xml('third', 4 * MIB, backing=snapshot.path()))[1]
    # Where an origin goes its snapshots go.
    origin.delete()
    assert sorted(group.listVolumes()) == ['safe', 'sparse', 'thrifty', 'whole'] and group.info()[1:] == numbers(guest, 'group')


def check_what_others_have_made(guest, group, one, two):
    """Thin, striped, mirrored: volumes are shown with the places that they have, and nothing of what they are made of."""
    guest.do('lvcreate -q -L 4M -T group/thinpool -V 64M -n thin && lvcreate -q -s -n thinner -kn group/thin')
    guest.do('lvcreate -q -L 8M -i 2 -I 64k -n striped group && lvcreate -q --type raid1 -m 1 -L 4M --nosync -n mirrored group')
    # Whatever the administrator likes reports to be like.
    with lvm_settings(guest, 'report { mark_hidden_devices = 0\\n list_item_separator = ";"\\n compact_output = 1\\n '
                             'output_format = "json_std"\\n }\\nlog { verbose = 2\\n report_command_log = 1\\n }\\n'):
        group.refresh()
    volumes = {volume.name(): volume for volume in group.listAllVolumes()}
    for known in 'safe', 'sparse', 'thrifty', 'whole':
        volumes.pop(known)
    assert {name: volume.info()[1] // MIB for name, volume in volumes.items()} == {
        'mirrored': 4, 'striped': 8, 'thin': 64, 'thinner': 64}
    places = {name: [(device, end - start) for device, start, end in extents(volume)] for name, volume in volumes.items()}
    assert places == {'thin': [], 'thinner': [], **dict.fromkeys(('mirrored', 'striped'), [(one, 4 * MIB), (two, 4 * MIB)])}
    assert '<source>' not in volumes['thin'].XMLDesc()
    assert '<path>/dev/group/thin</path>' in volumes['thinner'].XMLDesc().split('<backingStore>')[1]
    # What they take up is not their size; a thin snapshot outlives its origin.
    for name in 'thin', 'mirrored':
        volumes[name].delete()
        assert group.info()[1:] == numbers(guest, 'group')
    assert not {'thin', 'mirrored'} & set(group.listVolumes()) and '<backingStore>' not in volumes['thinner'].XMLDesc()


def test_volumes(pool_guest, disks, group, tmp_path):
    check_plain_volumes(pool_guest, group)
    check_encrypted_volume(pool_guest, group, tmp_path)
    check_sparse_volumes(pool_guest, group, tmp_path)
    check_snapshots(pool_guest, group)
    check_what_others_have_made(pool_guest, group, disks.names['one'], disks.names['two'])


def check_group_that_goes(guest, pool):
    guest.do('vgrename -q group elsewhere')
    pool.destroy()
    assert error_of(pool.create) == (libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
                                     "unsupported configuration: cannot find logical volume group name 'group'")
    guest.do('vgrename -q elsewhere group')
    pool.create()
    guest.do('vgrename -q group elsewhere')
    assert 'Volume group "group" not found' in error_of(pool.refresh)[1]
    assert not pool.isActive()
    guest.do('vgrename -q elsewhere group && vgchange -q -an group')


def check_devices_that_go(guest, disks, pool):
    """What LVM warns of is no part of its reports; what it refuses is said in its words."""
    disks.detach('two')
    found = guest.connect().findStoragePoolSources('logical', None)
    assert '<name>group</name>' in found and f"<device path='{disks.names['one']}'/>" in found and 'unknown' not in found
    assert 'Refusing activation of partial LV group/away' in error_of(pool.create)[1]
    assert not pool.isActive()
    disks.attach('two')
    guest.do('vgchange -q -an group')
    # Another group has the same name.
    other = disks.add('other', 16)
    disks.detach('one', 'two')
    guest.do(f'vgcreate -q group {other}')
    disks.attach('one', 'two')
    assert 'group' in error_of(pool.create)[1]
    assert not pool.isActive()
    disks.detach('other')


def test_groups_that_come_and_go(pool_guest, disks, group):
    """A restart of the daemon, and whatever may become of a group, of its devices, of LVM itself."""
    pool_guest.do(f'lvcreate -q -L 4M -n here group {disks.names["one"]} && lvcreate -q -L 4M -n away group {disks.names["two"]}')
    pool_guest.restart_daemon('KILL')
    pool = pool_guest.connect().storagePoolLookupByName('group')
    assert pool.isActive() and sorted(pool.listVolumes()) == ['away', 'here'] and pool.info()[2] == 8 * MIB
    check_group_that_goes(pool_guest, pool)
    check_devices_that_go(pool_guest, disks, pool)
    pool_guest.do('mv /bin/pvs /bin/pvs.away')
    try:
        assert error_of(pool.create) == (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot find 'pvs' in path: No such file or directory")
    finally:
        pool_guest.do('mv /bin/pvs.away /bin/pvs')
    pool.create()
    assert sorted(pool.listVolumes()) == ['away', 'here']
