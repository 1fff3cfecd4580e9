# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands of virsh about pools and volumes that the everyday session (test_pool_dir.py) does without."""
import itertools
import os
import re
import subprocess

import libvirt
import pytest
from harness import PATIENCE_S, program, run, wait_for
from pool_daemon import error_of, pool_xml, volume_xml

MIB = 1 << 20
NOBODY = 65534
# A user who finds the way to the programs under test and to the test's folder, wherever they are.
ALONE = ['setpriv', f'--reuid={NOBODY}', f'--regid={NOBODY}', '--clear-groups', '--inh-caps=+dac_read_search',
         '--ambient-caps=+dac_read_search', 'env', '-i', f'PATH={os.environ["PATH"]}']


@pytest.fixture
def virsh(pool_daemon):
    connection = pool_daemon.start().connect()
    connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images))

    def ask(words):
        return re.sub(r' +\n', '\n', pool_daemon.virsh(*words.split())).strip()

    return ask


def test_facts_about_pools(virsh, pool_daemon):
    uuid = virsh('pool-uuid demo')
    assert re.fullmatch('[0-9a-f-]{36}', uuid)
    assert virsh(f'pool-name {uuid}') == 'demo'
    info = virsh('pool-info demo --bytes')
    assert re.fullmatch(f'Name: +demo\nUUID: +{uuid}\nState: +running\nPersistent: +no\nAutostart: +no\n'
                        r'Capacity: +\d+\nAllocation: +\d+\nAvailable: +\d+', info), info
    xml = virsh('pool-dumpxml demo')
    assert f'<uuid>{uuid}</uuid>' in xml and f'<path>{pool_daemon.images}</path>' in xml
    capabilities = virsh('pool-capabilities')
    for kind in ('dir', 'fs', 'netfs', 'logical', 'disk', 'iscsi', 'iscsi-direct', 'scsi', 'mpath'):
        assert f"<pool type='{kind}' supported=" in capabilities
    listed = virsh('pool-list --details --type dir').splitlines()
    assert listed[0].split() == ['Name', 'State', 'Autostart', 'Persistent', 'Capacity', 'Allocation', 'Available']
    assert listed[2].split()[:4] == ['demo', 'running', 'no', 'no']


def test_pool_comes_and_goes(virsh, pool_daemon, tmp_path):
    path = tmp_path / 'other'
    (tmp_path / 'other.xml').write_text(pool_xml('other', path))
    assert virsh(f'pool-define {tmp_path}/other.xml') == f'Pool other defined from {tmp_path}/other.xml'
    assert virsh('pool-build other') == 'Pool other built' and path.is_dir()
    (tmp_path / 'editor').write_text('#!/bin/sh\nsed -i "s,<path>.*</path>,<path>$NEW</path>," "$1"\n')
    (tmp_path / 'editor').chmod(0o755)
    done = run('virsh', '-c', pool_daemon.uri(), 'pool-edit', 'other',
               env={**os.environ, 'VISUAL': str(tmp_path / 'editor'), 'NEW': f'{path}/below'})
    assert 'Pool other XML configuration edited.' in done.stdout
    assert virsh('pool-build other') == 'Pool other built' and (path / 'below').is_dir()
    assert virsh('pool-delete other') == 'Pool other deleted' and not (path / 'below').exists()
    assert virsh('pool-undefine other') == 'Pool other has been undefined'
    assert virsh(f'pool-create {tmp_path}/other.xml') == f'Pool other created from {tmp_path}/other.xml'
    assert error_of(pool_daemon.connect().storagePoolLookupByName('other').delete)[0] == libvirt.VIR_ERR_OPERATION_INVALID
    virsh('pool-destroy other')


def test_lists_of_pools(virsh, tmp_path):
    virsh(f'pool-define-as idle dir --target {tmp_path}/idle')
    virsh('pool-autostart idle')
    virsh(f'pool-define-as stored dir --target {tmp_path}/stored')
    virsh('pool-start stored --build')
    for words, names in [('', 'demo stored'), ('--inactive', 'idle'), ('--all', 'demo idle stored'), ('--all --transient', 'demo'),
                         ('--all --persistent', 'idle stored'), ('--persistent', 'stored'), ('--all --autostart', 'idle'),
                         ('--autostart', ''), ('--all --no-autostart', 'demo stored'), ('--all --type logical,fs', ''),
                         ('--all --type logical,dir', 'demo idle stored'), ('--all --transient --persistent', 'demo idle stored')]:
        assert virsh(f'pool-list --name {words}').split() == names.split(), words


def test_events_as_virsh_shows_them(virsh, pool_daemon, tmp_path):
    heard = tmp_path / 'heard'
    with open(heard, 'wb') as file:
        listener = subprocess.Popen(['virsh', '-c', pool_daemon.uri(), 'pool-event', '--event', 'lifecycle', '--loop'], stdout=file)
    numbers = itertools.count()

    def tell():
        """It does not say when it has begun to listen, so there is more to be heard until it has."""
        number = next(numbers)
        virsh(f'pool-define-as p{number} dir --target {pool_daemon.images}/x{number}')
        return '\n' in heard.read_text()

    try:
        wait_for(tell, 'an event')
    finally:
        listener.terminate()
        listener.wait(PATIENCE_S)
    assert re.match(r"event 'lifecycle' for storage pool p\d+: Defined\n", heard.read_text())


def test_facts_about_volumes(virsh, pool_daemon):
    virsh('vol-create-as demo a.raw 3M --allocation 1M')
    virsh('vol-create-as demo b.qcow2 8M --format qcow2 --prealloc-metadata')
    images = pool_daemon.images
    assert virsh('vol-list demo').splitlines()[2:] == [f' a.raw     {images}/a.raw', f' b.qcow2   {images}/b.qcow2']
    listed = [line.split() for line in virsh('vol-list demo --details').splitlines()[2:]]
    assert [line[:5] for line in listed] == [['a.raw', f'{images}/a.raw', 'file', '3.00', 'MiB'],
                                             ['b.qcow2', f'{images}/b.qcow2', 'file', '8.00', 'MiB']]
    assert listed[0][5:] == ['1.00', 'MiB']
    xml = virsh(f'vol-dumpxml {images}/b.qcow2')
    assert "<format type='qcow2'/>" in xml and "<capacity unit='bytes'>8388608</capacity>" in xml
    assert '"data": true' in run(program('ashlar-img'), 'map', '--output=json', images / 'b.qcow2').stdout


def test_copies_by_xml(virsh, pool_daemon, tmp_path):
    virsh('vol-create-as demo a.raw 1M --allocation 0')
    (pool_daemon.images / 'a.raw').write_bytes(b'\x5a' * MIB)
    (tmp_path / 'b.xml').write_text(volume_xml('b.qcow2', 2 * MIB, 'qcow2'))
    assert virsh(f'vol-create-from demo {tmp_path}/b.xml a.raw --inputpool demo') == 'Vol b.qcow2 created from input vol a.raw'
    assert run(program('ashlar-io'), '-f', 'qcow2', '-r', '-c', 'read -P 0x5a 0 1M', pool_daemon.images / 'b.qcow2').returncode == 0
    (tmp_path / 'c.xml').write_text(volume_xml('c.raw', MIB))
    assert virsh(f'vol-create demo {tmp_path}/c.xml') == f'Vol c.raw created from {tmp_path}/c.xml'


def test_allocating_resize(virsh, pool_daemon):
    virsh('vol-create-as demo a.raw 1M --allocation 0')
    virsh('vol-resize a.raw 5M demo --allocate')
    status = os.stat(pool_daemon.images / 'a.raw')
    assert (status.st_size, status.st_blocks * 512 >= 4 * MIB) == (5 * MIB, True)


@pytest.mark.parametrize('algorithm', ['zero', 'nnsa', 'dod', 'bsi', 'gutmann', 'schneier', 'pfitzner7', 'pfitzner33', 'random'])
def test_wiping(virsh, pool_daemon, algorithm):
    virsh('vol-create-as demo a.raw 64K')
    path = pool_daemon.images / 'a.raw'
    secret = bytes(range(1, 256)) * 258
    path.write_bytes(secret[:65536])
    assert virsh(f'vol-wipe a.raw demo --algorithm {algorithm}') == 'Vol a.raw wiped'
    left = path.read_bytes()
    assert len(left) == 65536
    assert all(left[at:at + 16] != secret[at:at + 16] for at in range(0, 65536, 16))
    assert algorithm != 'zero' or left == bytes(65536)


def test_owner_mode_and_label(virsh, pool_daemon):
    if not pool_daemon.privileged:
        pytest.skip('needs root')
    path = pool_daemon.images / 'a'
    wanted = '<permissions><mode>0640</mode><owner>1</owner><group>2</group></permissions>'
    connection = pool_daemon.connect()
    pool = connection.storagePoolLookupByName('demo')
    volume = pool.createXML(volume_xml('a', MIB).replace('</target>', f'{wanted}<nocow/></target>'))
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1, 2)
    os.setxattr(path, 'security.selinux', b'system_u:object_r:virt_image_t:s0\0')
    pool.refresh()
    xml = volume.XMLDesc()
    for line in ('<mode>0640</mode>', '<owner>1</owner>', '<group>2</group>', '<label>system_u:object_r:virt_image_t:s0</label>'):
        assert line in xml
    volume.wipe()
    assert os.getxattr(path, 'security.selinux').startswith(b'system_u:object_r:virt_image_t:s0')


@pytest.mark.parametrize('mask', [0, 0o077])
def test_modes_whatever_the_mask(pool_daemon, tmp_path, mask):
    """P7: What is asked for, else what lets nobody else in."""
    before = os.umask(mask)
    try:
        connection = pool_daemon.start().connect()
    finally:
        os.umask(before)
    asked = '<permissions><mode>{}</mode></permissions></target>'
    pool = connection.storagePoolDefineXML(pool_xml('demo', tmp_path / 'made').replace('</target>', asked.format('0775')))
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    for kind in ('raw', 'qcow2', 'dir'):
        volume = pool.createXML(volume_xml(kind, 0 if kind == 'dir' else MIB, kind))
        wide = volume_xml(f'{kind}-wide', 0 if kind == 'dir' else MIB, kind).replace('</target>', asked.format('0666'))
        pool.createXML(wide)
        pool.createXMLFrom(volume_xml(f'{kind}-copy', 0, kind), volume) if kind != 'dir' else None
    pool.setAutostart(1)
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in (tmp_path / 'made').iterdir()}
    assert modes == {'raw': '0o600', 'qcow2': '0o600', 'dir': '0o600', 'raw-wide': '0o666', 'qcow2-wide': '0o666',
                     'dir-wide': '0o666', 'raw-copy': '0o600', 'qcow2-copy': '0o600'}
    assert (tmp_path / 'made').stat().st_mode & 0o7777 == 0o775
    for path in (pool_daemon.config / 'demo.xml', pool_daemon.state / 'demo.xml'):
        assert path.stat().st_mode & 0o7777 == 0o600


def test_folders_of_a_user(pool_daemon, tmp_path):
    """Without the variables of the session everything is below the user's home."""
    if not pool_daemon.privileged:
        pytest.skip('needs root')
    home = pool_daemon.folder / 'home'
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    user = [*ALONE, f'HOME={home}']
    with subprocess.Popen([*user, program('ashlar-poold'), '--verbose'], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as daemon:
        uri = f'storage:///session?socket={home}/.cache/libvirt/virtstoraged-sock'
        wait_for(lambda: run(*user, 'virsh', '-c', uri, 'pool-list', check=False).returncode == 0, 'the daemon')
        run(*user, 'virsh', '-c', uri, 'pool-define-as', 'own', 'dir', '--target', home / 'images')
        run(*user, 'virsh', '-c', uri, 'pool-build', 'own')
        run(*user, 'virsh', '-c', uri, 'pool-start', 'own')
        assert (home / '.config/libvirt/storage/own.xml').exists()
        assert (home / '.cache/libvirt/virtstoraged-admin-sock').is_socket()
        assert not (home / '.cache/libvirt/virtstoraged-sock-ro').exists()
        daemon.terminate()
        log = daemon.communicate(timeout=PATIENCE_S)[1]
    assert daemon.returncode == 0
    assert ': info : ' in log, 'what --verbose adds'
