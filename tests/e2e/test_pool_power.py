# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a power cut leaves of what the daemon has confirmed: a file system on a loop device, copied as it is at that moment."""
import hashlib
import io
import os
import subprocess

import libvirt
import pytest
from harness import run
from pool_daemon import volume_xml

MIB = 1 << 20
# A journal that nobody's sync moves on stays where it is while the test looks.
POOL = '''<pool type='fs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>p</name>
<source><device path='{device}'/><format type='ext4'/></source><target><path>{target}</path></target>
<fs:mount_opts><fs:option name='commit=300'/></fs:mount_opts></pool>'''
# In a mount namespace of its own, so that nothing is left behind: what the files are like after the journal's replay.
LOOK = 'mount -o loop "$1" "$2" && cd "$2" && find . -maxdepth 1 -type f -exec sha256sum {} +'


def can_loop():
    return os.geteuid() == 0 and subprocess.run(['losetup', '--find'], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_loop(), reason='needs loop devices')


@pytest.fixture
def device(tmp_path):
    with open(tmp_path / 'device', 'wb') as file:
        file.truncate(128 * MIB)
    name = run('losetup', '--find', '--show', tmp_path / 'device').stdout.strip()
    yield name
    run('losetup', '--detach', name)


@pytest.fixture
def pool(pool_daemon, tmp_path, device):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML(POOL.format(device=device, target=tmp_path / 'p'))
    pool.build(libvirt.VIR_STORAGE_POOL_BUILD_NO_OVERWRITE)
    pool.create()
    yield pool
    pool.destroy()


def left_after_a_cut(tmp_path):
    """Digests by name."""
    run('cp', '--sparse=always', tmp_path / 'device', tmp_path / 'cut')
    (tmp_path / 'look').mkdir(exist_ok=True)
    lines = run('unshare', '--mount', 'sh', '-c', LOOK, 'sh', tmp_path / 'cut', tmp_path / 'look').stdout.splitlines()
    return {line.split()[1].removeprefix('./'): line.split()[0] for line in lines}


def test_confirmed_uploads_are_kept(pool, tmp_path):
    data = os.urandom(12 * MIB)
    volume = pool.createXML(volume_xml('up', len(data), allocation=0))
    stream = pool.connect().newStream()
    volume.upload(stream, 0, len(data))
    stream.sendAll(lambda _, size, source: source.read(size), io.BytesIO(data))
    stream.finish()
    assert left_after_a_cut(tmp_path).get('up') == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('kind', ['raw', 'qcow2'])
def test_confirmed_copies_are_kept(pool, tmp_path, kind):
    original = pool.createXML(volume_xml('original.qcow2', 8 * MIB, 'qcow2'))
    assert left_after_a_cut(tmp_path)['original.qcow2']
    pool.createXMLFrom(volume_xml('copy', 8 * MIB, kind), original)
    left = left_after_a_cut(tmp_path)
    assert sorted(left) == ['copy', 'original.qcow2']
    if kind == 'raw':
        assert left['copy'] == hashlib.sha256(bytes(8 * MIB)).hexdigest()
