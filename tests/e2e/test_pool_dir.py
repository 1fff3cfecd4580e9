# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of directories: what virsh shows, and what libvirt's library gets."""
import os
import re
import threading

import libvirt
import pytest
from harness import run
from pool_daemon import error_of, pool_xml, volume_xml

MIB = 1 << 20


def test_session_of_virsh(pool_daemon, tmp_path):
    """The commands that people use, from the definition of a pool to its end."""
    daemon = pool_daemon.start()
    target = tmp_path / 'srv'
    upload = tmp_path / 'up.bin'
    upload.write_bytes(bytes(range(256)) * 4096)
    for words, answer in [
        (f'pool-define-as images dir --target {target}', 'Pool images defined\n'),
        ('pool-build images', 'Pool images built\n'),
        ('pool-start images', 'Pool images started\n'),
        ('pool-autostart images', 'Pool images marked as autostarted\n'),
        ('pool-list --all', ' Name     State    Autostart\n------------------------------\n images   active   yes\n'),
        ('vol-create-as images a.raw 4M', 'Vol a.raw created\n'),
        ('vol-create-as images s.raw 64M --allocation 0', 'Vol s.raw created\n'),
        ('vol-create-as images base.qcow2 1G --format qcow2', 'Vol base.qcow2 created\n'),
        ('vol-create-as images over.qcow2 1G --format qcow2 --backing-vol base.qcow2 --backing-vol-format qcow2',
         'Vol over.qcow2 created\n'),
        ('vol-info s.raw images --bytes',
         'Name:           s.raw\nType:           file\nCapacity:       67108864 bytes\nAllocation:     0 bytes\n'),
        ('vol-info base.qcow2 images --bytes --physical',
         'Name:           base.qcow2\nType:           file\nCapacity:       1073741824 bytes\nPhysical:       196624 bytes\n'),
        ('vol-key a.raw images', f'{target}/a.raw\n'),
        ('vol-path a.raw images', f'{target}/a.raw\n'),
        (f'vol-name {target}/a.raw', 'a.raw\n'),
        (f'vol-pool {target}/a.raw', 'images\n'),
        ('pool-refresh images', 'Pool images refreshed\n'),
        ('vol-clone base.qcow2 copy.qcow2 images', 'Vol copy.qcow2 cloned from base.qcow2\n'),
        ('vol-resize base.qcow2 2G images', "Size of volume 'base.qcow2' successfully changed to 2G\n"),
        ('vol-resize s.raw 16M images --delta', "Size of volume 's.raw' successfully changed by 16M\n"),
        ('vol-resize s.raw 32M images --shrink', "Size of volume 's.raw' successfully changed to 32M\n"),
        ('vol-wipe s.raw images', 'Vol s.raw wiped\n'),
        ('vol-wipe a.raw images --algorithm random', 'Vol a.raw wiped\n'),
        (f'vol-upload a.raw {upload} images', ''),
        (f'vol-download a.raw {tmp_path}/down.bin images --offset 0 --length 1048576', ''),
        ('vol-delete copy.qcow2 images', 'Vol copy.qcow2 deleted\n'),
        ('pool-destroy images', 'Pool images destroyed\n'),
        ('pool-list --all', ' Name     State      Autostart\n--------------------------------\n images   inactive   yes\n'),
        ('pool-autostart images --disable', 'Pool images unmarked as autostarted\n'),
        ('pool-undefine images', 'Pool images has been undefined\n'),
        (f'pool-create-as scratch dir --target {tmp_path}/scratch --build', 'Pool scratch created\n'),
        ('pool-destroy scratch', 'Pool scratch destroyed\n'),
    ]:
        assert re.sub(r' +\n', '\n', daemon.virsh(*words.split())).strip() == re.sub(r' +\n', '\n', answer).strip(), words
    assert (tmp_path / 'down.bin').read_bytes() == upload.read_bytes()


def test_errors_of_virsh(pool_daemon, tmp_path):
    daemon = pool_daemon.start()
    daemon.virsh('pool-create-as', 'demo', 'dir', '--target', daemon.images)
    daemon.virsh('vol-create-as', 'demo', 'e.raw', '1M')
    daemon.virsh('vol-create-as', 'demo', 'q.qcow2', '1M', '--format', 'qcow2')
    for words, text in [
        ('pool-start demo', "error: Requested operation is not valid: storage pool 'demo' is already active"),
        (f'pool-define-as demo2 dir --target {daemon.images}', "error: operation failed: Storage source conflict with pool: 'demo'"),
        ('vol-create-as demo e.raw 1M', "error: storage volume 'e.raw' exists already"),
        ('vol-info nope', "error: Storage volume not found: no storage vol with matching path 'nope'"),
        ('vol-delete e.raw demo --delete-snapshots', 'error: unsupported flags (0x2) in function virStorageBackendVolDeleteLocal'),
        ('vol-wipe e.raw demo --algorithm trim', "error: argument unsupported: 'trim' algorithm not supported"),
        ('find-storage-pool-sources dir', "pool type 'dir' does not support source discovery"),
        ('pool-create-as x dir --target /nowhere/at/all', 'cannot open directory \'/nowhere/at/all\': No such file or directory'),
        ('vol-clone q.qcow2 f.qcow2 --reflink --pool demo', 'error: unsupported flags (0x2) in function storageBackendCreateQemuImg'),
        ('find-storage-pool-sources-as gluster h', "error: internal error: missing backend for pool type 11 (gluster)"),
        ('vol-resize e.raw 1K demo', "error: invalid argument: can't shrink capacity below existing allocation"),
    ]:
        assert text in daemon.virsh(*words.split(), check=False), words


def test_xml_of_volumes(pool_daemon):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    base = pool.createXML(volume_xml('b.qcow2', 1 << 30, 'qcow2'))
    path = pool_daemon.images / 'c.qcow2'
    backing = f"<backingStore><path>{base.path()}</path><format type='qcow2'/></backingStore>"
    over = pool.createXML(volume_xml('c.qcow2', 1 << 30, 'qcow2', backing))
    times = r"      <[amc]time>\d+(\.\d{9})?</[amc]time>\n" * 3 + '      <btime>0</btime>\n'
    shape = (f"<volume type='file'>\n  <name>c.qcow2</name>\n  <key>{path}</key>\n"
             "  <capacity unit='bytes'>1073741824</capacity>\n  <allocation unit='bytes'>\\d+</allocation>\n"
             "  <physical unit='bytes'>196624</physical>\n  <target>\n"
             f"    <path>{path}</path>\n    <format type='qcow2'/>\n    <permissions>\n      <mode>0600</mode>\n"
             '      <owner>\\d+</owner>\n      <group>\\d+</group>\n    </permissions>\n'
             f'    <timestamps>\n{times}    </timestamps>\n%s  </target>\n  <backingStore>\n'
             f"    <path>{base.path()}</path>\n    <format type='qcow2'/>\n    <permissions>\n"
             '      <mode>0600</mode>\n      <owner>\\d+</owner>\n      <group>\\d+</group>\n    </permissions>\n'
             f'    <timestamps>\n{times}    </timestamps>\n  </backingStore>\n</volume>\n')
    assert re.fullmatch(shape % '', over.XMLDesc())
    pool.refresh()
    probed = "    <compat>1.1</compat>\n    <clusterSize unit='B'>65536</clusterSize>\n    <features/>\n"
    assert re.fullmatch(shape % probed, over.XMLDesc())


def test_options_of_qcow2(pool_daemon):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    xml = ("<volume><name>o.qcow2</name><capacity unit='MiB'>64</capacity><target><format type='qcow2'/>"
           "<permissions><mode>0640</mode></permissions><clusterSize unit='KiB'>128</clusterSize>"
           '<features><lazy_refcounts/><extended_l2/></features></target></volume>')
    pool.createXML(xml)
    old = pool.createXML("<volume><name>old.qcow2</name><capacity>1048576</capacity><target><format type='qcow2'/>"
                         '<compat>0.10</compat></target></volume>', libvirt.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA)
    pool.refresh()
    shown = pool.storageVolLookupByName('o.qcow2').XMLDesc()
    assert "<clusterSize unit='B'>131072</clusterSize>" in shown
    assert '<lazy_refcounts/>' in shown and '<extended_l2/>' in shown and '<mode>0640</mode>' in shown
    assert '<compat>0.10</compat>' in old.XMLDesc()
    run('qemu-img', 'check', '-f', 'qcow2', pool_daemon.images / 'o.qcow2')
    run('qemu-img', 'check', '-f', 'qcow2', pool_daemon.images / 'old.qcow2')


def test_size_of_what_is_below(pool_daemon):
    """Without a size of its own a volume has that of what is below it, read as its format says: raw, where none is given."""
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    base = pool.createXML(volume_xml('base.qcow2', 8 * MIB, 'qcow2'))
    sizes = {'': (pool_daemon.images / 'base.qcow2').stat().st_size, "<format type='qcow2'/>": 8 * MIB}
    for number, (kind, size) in enumerate(sizes.items()):
        xml = (f"<volume><name>over{number}</name><target><format type='qcow2'/></target><backingStore><path>{base.path()}</path>"
               f'{kind}</backingStore></volume>')
        pool.createXML(xml)
        pool.refresh()
        found = pool.storageVolLookupByName(f'over{number}').info()[1]
        assert size <= found < size + 1024, (kind, found)


def test_copies_name_what_is_below(pool_daemon):
    """What was below the original may be named, though the copy has nothing below it; something else may not."""
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    base = pool.createXML(volume_xml('base.qcow2', MIB, 'qcow2'))

    def below(path):
        return f"<backingStore><path>{path}</path><format type='qcow2'/></backingStore>"

    over = pool.createXML(volume_xml('over.qcow2', MIB, 'qcow2', below(base.path())))
    pool.createXMLFrom(volume_xml('a', MIB, 'qcow2', below(base.path())), over)
    pool.createXMLFrom(volume_xml('b', MIB, 'qcow2', below(base.path())), base)
    assert error_of(pool.createXMLFrom, volume_xml('c', MIB, 'qcow2', below(over.path())), over)[1] == \
        'internal error: a different backing store cannot be specified.'
    pool.refresh()
    assert all('<backingStore>' not in pool.storageVolLookupByName(name).XMLDesc() for name in 'ab')


def test_copies_between_formats(pool_daemon, tmp_path):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    source = pool.createXML(volume_xml('a.raw', 8 * MIB))
    content = tmp_path / 'content'
    content.write_bytes(b''.join(bytes([i]) * 65536 for i in range(64)) + bytes(4 * MIB))
    pool_daemon.virsh('vol-upload', 'a.raw', content, 'demo')
    image = pool.createXMLFrom(volume_xml('b.qcow2', 0, 'qcow2'), source)
    back = pool.createXMLFrom(volume_xml('c.raw', 0, 'raw', allocation=0), image)
    over = pool.createXML(volume_xml('d.qcow2', 8 * MIB, 'qcow2', f"<backingStore><path>{image.path()}</path>"
                                     "<format type='qcow2'/></backingStore>"))
    flat = pool.createXMLFrom(volume_xml('e.raw', 16 * MIB, 'raw'), over)
    assert (pool_daemon.images / 'c.raw').read_bytes() == content.read_bytes()
    assert (pool_daemon.images / 'e.raw').read_bytes() == content.read_bytes() + bytes(8 * MIB)
    assert back.info()[1] == 8 * MIB and back.info()[2] < 8 * MIB and flat.info()[2] >= 16 * MIB
    run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', pool_daemon.images / 'a.raw', pool_daemon.images / 'b.qcow2')
    assert error_of(pool.createXMLFrom, volume_xml('c.raw', 0), source) == \
        (libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: storage volume name 'c.raw' already in use.")


def test_what_is_not_a_volume(pool_daemon):
    """P9: Odd files are passed over; links and folders are volumes."""
    images = pool_daemon.images
    (images / 'plain').write_bytes(b'x' * 1000)
    (images / 'folder').mkdir()
    (images / 'link').symlink_to('plain')
    (images / 'lost').symlink_to('nowhere')
    (images / 'new\nline').write_bytes(b'')
    (images / 'round').symlink_to('round')
    run('mkfifo', images / 'fifo')
    (images / 'luks').write_bytes(b'LUKS\xba\xbe\0\1' + bytes(96) + (8).to_bytes(4, 'big') + bytes(8192))
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', images), 0)
    assert sorted(pool.listVolumes()) == ['folder', 'link', 'luks', 'plain']
    assert pool.storageVolLookupByName('plain').info()[:2] == [0, 1000]
    assert pool.storageVolLookupByName('folder').info() == [2, 0, 0]
    assert "<encryption format='luks'>" in pool.storageVolLookupByName('luks').XMLDesc()


def test_streams_with_holes(pool_daemon, tmp_path):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    pool.createXML(volume_xml('big.raw', 64 * MIB, allocation=0))
    content = tmp_path / 'content'
    with open(content, 'wb') as file:
        file.write(b'a' * MIB)
        file.truncate(32 * MIB)
        file.seek(40 * MIB)
        file.write(b'b' * 5000)
    pool_daemon.virsh('vol-upload', 'big.raw', content, 'demo', '--sparse')
    pool_daemon.virsh('vol-download', 'big.raw', tmp_path / 'back', 'demo', '--sparse', '--length', 40 * MIB + 5000)
    assert (tmp_path / 'back').read_bytes() == content.read_bytes()
    assert (tmp_path / 'back').stat().st_blocks * 512 < 8 * MIB
    assert pool_daemon.virsh('vol-upload', 'big.raw', content, 'demo', '--length', '4096', check=False)
    assert pool.storageVolLookupByName('big.raw').info()[1] >= 40 * MIB


def test_one_client_at_work_another_looking(pool_daemon):
    """Whoever looks at a volume that is being made changes nothing of it, and waits for nobody."""
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    other = pool_daemon.connect().storagePoolLookupByName('demo')
    stop = threading.Event()
    seen = set()

    def look():
        while not stop.is_set():
            for volume in other.listAllVolumes():
                try:
                    seen.add(volume.info()[1])
                except libvirt.libvirtError as error:
                    assert error.get_error_code() in (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_SYSTEM_ERROR)

    looker = threading.Thread(target=look)
    looker.start()
    for number in range(40):
        volume = pool.createXML(volume_xml(f'{number}.raw', 3 * MIB))
        assert (pool_daemon.images / f'{number}.raw').stat().st_size == 3 * MIB
        volume.delete()
    stop.set()
    looker.join()
    assert seen <= {3 * MIB}


@pytest.mark.parametrize('kind, options, with_backing', [
    ('qcow', '', True), ('qcow2', '', True), ('qed', '', True), ('vmdk', '', True), ('vdi', '', False), ('vpc', 'force_size', False)])
def test_formats_that_are_found(pool_daemon, kind, options, with_backing):
    """Whatever made the image, its format, size and backing image show; whether we can make one is told."""
    images = pool_daemon.images
    words = ['-o', options] if options else []
    run('qemu-img', 'create', '-q', '-f', kind, *words, images / 'base.img', '16M')
    if with_backing:
        run('qemu-img', 'create', '-q', '-f', kind, '-b', images / 'base.img', '-F', kind, images / 'over.img')
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', images), 0)
    base = pool.storageVolLookupByName('base.img')
    assert f"<format type='{kind}'/>" in base.XMLDesc() and '<backingStore>' not in base.XMLDesc()
    assert base.info()[1] == 16 * MIB
    if with_backing:
        xml = pool.storageVolLookupByName('over.img').XMLDesc()
        backing = xml[xml.index('<backingStore>'):]
        assert f'<path>{images}/base.img</path>' in backing and f"<format type='{kind}'/>" in backing
    if kind == 'qcow2':
        return
    with pytest.raises(libvirt.libvirtError, match=f"no driver that writes images of format '{kind}'") as caught:
        pool.createXML(volume_xml('new.img', MIB, kind))
    assert caught.value.get_error_code() == libvirt.VIR_ERR_CONFIG_UNSUPPORTED
    assert not (images / 'new.img').exists() and 'new.img' not in pool.listVolumes()


def test_validation(pool_daemon):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    odd = '<volume><name>a</name><capacity>4096</capacity><target/><zork/></volume>'
    with pytest.raises(libvirt.libvirtError, match='zork') as caught:
        pool.createXML(odd, libvirt.VIR_STORAGE_VOL_CREATE_VALIDATE)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_XML_INVALID_SCHEMA
    pool.createXML(odd).delete()
    pool.createXML(odd.replace('<zork/>', ''), libvirt.VIR_STORAGE_VOL_CREATE_VALIDATE)
    with pytest.raises(libvirt.libvirtError, match='zork') as caught:
        connection.storagePoolDefineXML(pool_xml('other', '/srv/other').replace('<target>', '<zork/><target>'),
                                        libvirt.VIR_STORAGE_POOL_DEFINE_VALIDATE)
    assert caught.value.get_error_code() == libvirt.VIR_ERR_XML_INVALID_SCHEMA


@pytest.mark.parametrize('name', ['../up', '/etc/passwd', 'a/b', '..', '.', 'new\nline', 'tab\t', 'x' * 256, '.ashlar-new-1'])
def test_names_that_lead_elsewhere(pool_daemon, name):
    """P3: Nothing is made, there or elsewhere."""
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    before = sorted(pool_daemon.folder.rglob('*'))
    with pytest.raises(libvirt.libvirtError) as caught:
        pool.createXML(volume_xml(name, 4096))
    assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID
    assert sorted(pool_daemon.folder.rglob('*')) == before and pool.listVolumes() == []


def test_links_are_not_followed_when_making(pool_daemon, tmp_path):
    outside = tmp_path / 'outside'
    outside.write_bytes(b'precious')
    (pool_daemon.images / 'link').symlink_to(outside)
    (pool_daemon.images / 'lost').symlink_to(tmp_path / 'nowhere')
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images), 0)
    for name, code in [('link', libvirt.VIR_ERR_STORAGE_VOL_EXIST), ('lost', libvirt.VIR_ERR_OPERATION_INVALID)]:
        with pytest.raises(libvirt.libvirtError) as caught:
            pool.createXML(volume_xml(name, 4096))
        assert caught.value.get_error_code() == code
    pool.storageVolLookupByName('link').delete()
    assert outside.read_bytes() == b'precious' and not (tmp_path / 'nowhere').exists()


SOURCE_XML = {
    'rbd': "<host name='h'/><name>p</name>", 'sheepdog': "<host name='h'/><name>p</name>",
    'gluster': "<host name='h'/><dir path='/'/><name>p</name>", 'zfs': '<name>p</name>', 'vstorage': '<name>p</name>'}


@pytest.mark.parametrize('kind', sorted(SOURCE_XML))
def test_types_that_are_missing(pool_daemon, kind):
    """They can be defined; what is missing is said when they are to do something."""
    connection = pool_daemon.start().connect()
    target = '<target><path>/srv/p</path></target>' if kind == 'vstorage' else ''
    pool = connection.storagePoolDefineXML(f"<pool type='{kind}'><name>p</name><source>{SOURCE_XML[kind]}</source>{target}</pool>")
    assert f"<pool type='{kind}'>" in pool.XMLDesc()
    for action in (pool.create, pool.build, pool.delete, lambda: connection.findStoragePoolSources(kind, None)):
        with pytest.raises(libvirt.libvirtError, match=f"missing backend for pool type .* \\({kind}\\)") as caught:
            action()
        assert caught.value.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR
    assert f"<pool type='{kind}' supported='no'>" in connection.getStoragePoolCapabilities()
    pool_daemon.kill()
    connection = pool_daemon.start().connect()
    connection.storagePoolLookupByName('p').undefine()


@pytest.mark.parametrize('read', [True, False])
def test_pipe_in_the_place_of_a_file(pool_daemon, tmp_path, read):
    """What was a file when it was looked at is none any more: nobody waits for a pipe's other end."""
    (tmp_path / 'file').write_bytes(b'x' * 4096)
    (pool_daemon.images / 'link').symlink_to(tmp_path / 'file')
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images))
    volume = pool.storageVolLookupByName('link')
    (tmp_path / 'file').unlink()
    os.mkfifo(tmp_path / 'file')
    code, message = error_of((volume.download if read else volume.upload), connection.newStream(), 0, 0)
    assert code == libvirt.VIR_ERR_SYSTEM_ERROR
    assert f"Unable to open stream for '{pool_daemon.images}/link'" in message
    assert pool.isActive()


def test_words_of_errors(pool_daemon):
    """As Debian's libvirtd says them."""
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML(pool_xml('demo', pool_daemon.images))
    assert error_of(pool.build, 4 | 8) == (
        libvirt.VIR_ERR_INVALID_ARG,
        "Flags 'VIR_STORAGE_POOL_BUILD_OVERWRITE' and 'VIR_STORAGE_POOL_BUILD_NO_OVERWRITE' are mutually exclusive")
    pool.create()
    assert error_of(connection.findStoragePoolSources, 'gluster', None) == (
        libvirt.VIR_ERR_INTERNAL_ERROR, 'internal error: missing backend for pool type 11 (gluster)')
    assert error_of(connection.storagePoolDefineXML,
                    "<pool type='netfs'><name>n</name><source><host name='h'/><dir path='/a'/><format type='cifs'/>"
                    "<protocol ver='4'/></source><target><path>/n</path></target></pool>") == (
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        "unsupported configuration: storage pool protocol ver unsupported for pool type 'cifs'")
    image = pool.createXML(volume_xml('a.qcow2', MIB, 'qcow2'))
    assert error_of(pool.createXMLFrom, volume_xml('b.qcow2', MIB, 'qcow2'), image, libvirt.VIR_STORAGE_VOL_CREATE_REFLINK) == (
        libvirt.VIR_ERR_INVALID_ARG, 'unsupported flags (0x2) in function storageBackendCreateQemuImg')
    # Whoever asks for no mode gets one that lets nobody else in, folders too.
    assert '<mode>0600</mode>' in pool.createXML(volume_xml('folder', 0, 'dir')).XMLDesc()
