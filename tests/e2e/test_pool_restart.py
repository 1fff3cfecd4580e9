# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is left when the daemon ends, in order or not."""
import os
import random
import signal
import subprocess
import threading

import libvirt
import pytest
from harness import program, wait_for
from pool_daemon import error_of, pool_xml, volume_xml
from test_pool_end import XML as TARGET_XML
from test_pool_end import tool  # pylint: disable=unused-import

STORED = """<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh pool-edit demo
or other application using the libvirt API.
-->

<pool type='dir'>
  <name>demo</name>
  <uuid>f314000b-38bf-444b-bc2b-9b6a46b81568</uuid>
  <capacity unit='bytes'>0</capacity>
  <allocation unit='bytes'>0</allocation>
  <available unit='bytes'>0</available>
  <source>
  </source>
  <target>
    <path>%s</path>
  </target>
</pool>
"""


def test_directory_of_libvirt_is_taken_over(pool_daemon):
    """Definitions, links and the wrong ones among them, as libvirt leaves them."""
    config = pool_daemon.config
    (config / 'autostart').mkdir(parents=True)
    (config / 'demo.xml').write_text(STORED % '/nowhere/at/all')
    (config / 'auto.xml').write_text(pool_xml('auto', pool_daemon.images))
    (config / 'autostart' / 'auto.xml').symlink_to(config / 'auto.xml')
    (config / 'other.xml').write_text(pool_xml('another', '/x'))
    (config / 'broken.xml').write_text('<pool')
    connection = pool_daemon.start().connect()
    found = {pool.name(): (pool.isActive(), pool.autostart()) for pool in connection.listAllStoragePools()}
    assert found == {'demo': (0, 0), 'auto': (1, 1)}
    demo = connection.storagePoolLookupByName('demo')
    assert demo.UUIDString() == 'f314000b-38bf-444b-bc2b-9b6a46b81568'
    log = pool_daemon.log.read_text()
    assert "other.xml' does not match pool name 'another'" in log and 'broken.xml' in log
    # Written again, it is what libvirt would have written.
    connection.storagePoolDefineXML(demo.XMLDesc())
    assert (config / 'demo.xml').read_text() == STORED % '/nowhere/at/all'
    assert (config / 'demo.xml').stat().st_mode & 0o777 == 0o600


def test_running_pools_outlive_the_daemon(pool_daemon, tmp_path):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolDefineXML(pool_xml('demo', tmp_path / 'made'))
    pool.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    connection.storagePoolCreateXML(pool_xml('fleeting', pool_daemon.images))
    pool.createXML(volume_xml('a.raw', 1 << 20))
    uuid = pool.UUIDString()
    assert (pool_daemon.state / 'fleeting.xml').read_text().count('<poolstate>') == 1
    connection.close()
    pool_daemon.kill()
    connection = pool_daemon.start().connect()
    assert sorted(pool.name() for pool in connection.listAllStoragePools(2)) == ['demo', 'fleeting']
    assert connection.storagePoolLookupByUUIDString(uuid).listVolumes() == ['a.raw']
    connection.storagePoolLookupByName('fleeting').destroy()
    assert not (pool_daemon.state / 'fleeting.xml').exists()


@pytest.mark.skipif(os.geteuid() != 0, reason='makes loop devices')
def test_autostart_once_a_boot(pool_daemon, tool):
    """Of a kind that does not run just because its source is there. When definitions are read again, it is started, too."""
    def restart(as_after_a_boot):
        pool_daemon.stop()
        if as_after_a_boot:
            (pool_daemon.state / 'autostarted').unlink()
        return pool_daemon.start().connect().storagePoolLookupByName('target')

    pool_daemon.start().connect().storagePoolDefineXML(TARGET_XML).setAutostart(1)
    assert (pool_daemon.config / 'autostart' / 'target.xml').is_symlink()
    assert not restart(as_after_a_boot=False).isActive()
    pool = restart(as_after_a_boot=True)
    assert pool.isActive() and (pool_daemon.state / 'autostarted').exists()
    pool.destroy()
    pool = restart(as_after_a_boot=False)
    assert not pool.isActive()
    pool_daemon.process.send_signal(signal.SIGHUP)
    wait_for(pool.isActive, 'the pool')
    pool.destroy()
    pool.setAutostart(0)
    assert not (pool_daemon.config / 'autostart' / 'target.xml').exists()
    assert not restart(as_after_a_boot=True).isActive()


def test_definitions_that_could_not_be_read_again(pool_daemon):
    """What is longer in its file than what was sent."""
    connection, secrets = pool_daemon.start().connect(), pool_daemon.connect('secret')
    secret = "<secret ephemeral='no' private='no'><description>{}</description></secret>"

    def xml(characters):
        # Each takes four bytes in the file.
        return pool_xml('demo', pool_daemon.images).replace('</target>', f"<permissions><label>{'>' * characters}</label></permissions></target>")

    for call in (connection.storagePoolDefineXML, connection.storagePoolCreateXML):
        code, message = error_of(call, xml(1100000))
        assert code == libvirt.VIR_ERR_XML_DETAIL and message.endswith('bytes in its file, more than 4194304')
    code, message = error_of(secrets.secretDefineXML, secret.format('>' * 300000))
    assert code == libvirt.VIR_ERR_XML_DETAIL and message.endswith('bytes in its file, more than 1048576')
    assert connection.listAllStoragePools() == [] and secrets.listAllSecrets() == []
    connection.storagePoolDefineXML(xml(1000000)).create()
    secrets.secretDefineXML(secret.format('>' * 250000))
    pool_daemon.kill()
    connection, secrets = pool_daemon.start().connect(), pool_daemon.connect('secret')
    assert [(pool.name(), pool.isActive()) for pool in connection.listAllStoragePools()] == [('demo', 1)]
    assert len(secrets.listAllSecrets()) == 1


def test_one_daemon_for_the_same_pools(pool_daemon):
    pool_daemon.start()
    command = [program('ashlar-poold'), '-p', str(pool_daemon.folder / 'other.pid')]
    environment = {**os.environ, **pool_daemon.environment()}
    if pool_daemon.privileged:
        command = ['nsenter', '--mount', f'--target={pool_daemon.process.pid}', *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
                          env=environment)
    assert done.returncode == 11, done.stderr
    # It has not taken the sockets either.
    assert pool_daemon.connect().listAllStoragePools() == []


def change_without_end(connection, images, prefix, stop):
    """Defines, makes and resizes, until the daemon goes away."""
    try:
        pool = connection.storagePoolLookupByName('demo')
        number = 0
        while not stop.is_set():
            number += 1
            connection.storagePoolDefineXML(
                f"<pool type='dir'><name>demo</name><uuid>{pool.UUIDString()}</uuid><target><path>{images}</path>"
                f'<permissions><label>{"x" * (number % 50 * 400)}</label></permissions></target></pool>')
            volume = pool.createXML(volume_xml(f'{prefix}-{number}.qcow2', 1 << 20, 'qcow2'))
            volume.resize(2 << 20)
            if number % 3:
                volume.delete()
    except libvirt.libvirtError:
        pass


def test_killed_at_any_moment(pool_daemon):
    """Definitions are the old or the new ones; volumes are whole or not there at all."""
    images = pool_daemon.images
    generator = random.Random(6)
    connection = pool_daemon.start().connect()
    connection.storagePoolDefineXML(pool_xml('demo', images)).create()
    for turn in range(6):
        stop = threading.Event()
        before = len(list(images.iterdir()))
        worker = threading.Thread(target=change_without_end, args=(connection, images, turn, stop))
        worker.start()
        wanted = before + generator.randrange(1, 4)
        wait_for(lambda: len(list(images.iterdir())) >= wanted, 'new volumes')  # pylint: disable=cell-var-from-loop
        pool_daemon.kill()
        stop.set()
        worker.join()
        connection = pool_daemon.start().connect()
        pool = connection.storagePoolLookupByName('demo')
        assert pool.isActive() and pool.isPersistent()
        assert '<name>demo</name>' in (pool_daemon.config / 'demo.xml').read_text()
        for volume in pool.listAllVolumes():
            assert volume.info()[1] in (1 << 20, 2 << 20)
            assert "<format type='qcow2'/>" in volume.XMLDesc()
    for volume in pool.listAllVolumes():
        volume.delete()
    assert not list(images.iterdir())
