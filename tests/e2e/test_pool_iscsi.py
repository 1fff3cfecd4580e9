# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pools of iSCSI targets, without the kernel: against tgt."""
import os
import socket
import subprocess

import libvirt
import pytest
from harness import PATIENCE_S, wait_for
from pool_daemon import error_of

MIB = 1 << 20
TARGET = 'iqn.2024-01.org.example:disk1'
INITIATOR = 'iqn.2024-01.org.example:client'
USER, PASSWORD = 'somebody', 'twelve-bytes'


class Target:
    """tgtd of the test's own, with two units of one target."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self.control = str(os.getpid() % 30000 + 1)
        self.files = []
        os.makedirs('/run/tgtd', exist_ok=True)
        self.log = open(folder / 'tgtd.log', 'wb')
        self.process = subprocess.Popen(['tgtd', '--foreground', '--control-port', self.control,
                                         '--iscsi', f'portal=127.0.0.1:{self.port}'],
                                        stdout=self.log, stderr=self.log)
        wait_for(lambda: self.ask('--mode', 'sys', '--op', 'show', check=False).returncode == 0, 'tgtd')
        self.ask('--lld', 'iscsi', '--mode', 'target', '--op', 'new', '--tid', '1', '--targetname', TARGET)
        for lun, size in ((1, 64 * MIB), (2, 8 * MIB)):
            path = folder / f'unit{lun}'
            path.write_bytes(b'x' * size)
            self.files.append(path)
            self.ask('--lld', 'iscsi', '--mode', 'logicalunit', '--op', 'new', '--tid', '1', '--lun', str(lun),
                     '--backing-store', str(path))
        self.ask('--lld', 'iscsi', '--mode', 'target', '--op', 'bind', '--tid', '1', '--initiator-address', 'ALL')

    def ask(self, *words, check=True):
        return subprocess.run(['tgtadm', '--control-port', self.control, *words], check=check, capture_output=True, text=True,
                              timeout=PATIENCE_S)

    def ask_for_password(self):
        self.ask('--lld', 'iscsi', '--mode', 'account', '--op', 'new', '--user', USER, '--password', PASSWORD)
        self.ask('--lld', 'iscsi', '--mode', 'account', '--op', 'bind', '--tid', '1', '--user', USER)

    def stop(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.log.close()


@pytest.fixture
def target(tmp_path):
    one = Target(tmp_path)
    yield one
    one.stop()


def pool_xml(target, device=TARGET, auth=''):
    return (f"<pool type='iscsi-direct'><name>isd</name><source><host name='127.0.0.1' port='{target.port}'/>"
            f"<device path='{device}'/><initiator><iqn name='{INITIATOR}'/></initiator>{auth}</source></pool>")


def test_units_of_a_target(pool_daemon, target):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml(target))
    units = {volume.name(): volume for volume in pool.listAllVolumes()}
    # All blocks count, the last one too; the controller has no size.
    assert {name: volume.info() for name, volume in units.items()} == {
        'unit:0:0:0': [libvirt.VIR_STORAGE_VOL_NETWORK, 0, 0],
        'unit:0:0:1': [libvirt.VIR_STORAGE_VOL_NETWORK, 64 * MIB, 64 * MIB],
        'unit:0:0:2': [libvirt.VIR_STORAGE_VOL_NETWORK, 8 * MIB, 8 * MIB],
    }
    assert pool.info()[1:] == [72 * MIB, 72 * MIB, 0]
    assert units['unit:0:0:2'].key() == f'ip-127.0.0.1:{target.port}-iscsi-{TARGET}-lun-2'

    units['unit:0:0:2'].wipe()
    assert target.files[1].read_bytes() == bytes(8 * MIB)
    assert target.files[0].read_bytes() == b'x' * (64 * MIB)
    assert error_of(units['unit:0:0:2'].wipePattern, libvirt.VIR_STORAGE_VOL_WIPE_ALG_RANDOM)[0] == libvirt.VIR_ERR_INVALID_ARG
    assert error_of(units['unit:0:0:2'].delete)[0] == libvirt.VIR_ERR_NO_SUPPORT


def test_finding_targets(pool_daemon, target):
    connection = pool_daemon.start().connect()
    spec = f"<source><host name='127.0.0.1' port='{target.port}'/><initiator><iqn name='{INITIATOR}'/></initiator></source>"
    found = connection.findStoragePoolSources('iscsi-direct', spec)
    assert pool_daemon.virsh('find-storage-pool-sources-as', 'iscsi-direct', '127.0.0.1', target.port, '--initiator',
                             INITIATOR).strip() == found.strip()
    assert f"<device path='{TARGET}'/>" in found and found.count('<source>') == 1
    assert error_of(connection.findStoragePoolSources, 'iscsi-direct', None)[0] == libvirt.VIR_ERR_INVALID_ARG
    assert 'missing initiator IQN' in error_of(connection.findStoragePoolSources, 'iscsi-direct',
                                               "<source><host name='127.0.0.1'/></source>")[1]


def test_password_of_a_target(pool_daemon, target):
    target.ask_for_password()
    connection = pool_daemon.start().connect()
    assert error_of(connection.storagePoolCreateXML, pool_xml(target))[0] == libvirt.VIR_ERR_INTERNAL_ERROR
    secret = pool_daemon.connect('secret').secretDefineXML(
        "<secret><usage type='iscsi'><target>the-target</target></usage></secret>")
    auth = f"<auth type='chap' username='{USER}'><secret usage='the-target'/></auth>"
    secret.setValue(b'something-else')
    assert error_of(connection.storagePoolCreateXML, pool_xml(target, auth=auth))[0] == libvirt.VIR_ERR_INTERNAL_ERROR
    secret.setValue(PASSWORD.encode())
    assert len(connection.storagePoolCreateXML(pool_xml(target, auth=auth)).listAllVolumes()) == 3
    assert PASSWORD not in pool_daemon.log.read_text()


def test_target_that_is_not_there(pool_daemon, target):
    connection = pool_daemon.start().connect()
    code, message = error_of(connection.storagePoolCreateXML, pool_xml(target, device='iqn.2024-01.org.example:none'))
    assert code == libvirt.VIR_ERR_INTERNAL_ERROR
    assert message == f'internal error: iSCSI target at 127.0.0.1:{target.port}: Failed to login: Failed to log in to target. ' \
        'Status: Target not found(515)'
    host = "<host name='no such host'/>"
    code, message = error_of(connection.findStoragePoolSources, 'iscsi-direct', f"<source>{host}<initiator><iqn name='{INITIATOR}'/></initiator></source>")
    assert code == libvirt.VIR_ERR_INTERNAL_ERROR and ': Failed to connect: ' in message and 'no such host:3260' in message
    target.process.kill()
    target.process.wait(PATIENCE_S)
    assert ': Failed to connect: ' in error_of(connection.storagePoolCreateXML, pool_xml(target))[1]
    assert connection.listAllStoragePools() == []
