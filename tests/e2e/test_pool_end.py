# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The daemon's end while something takes long: it waits neither for tools that hang nor for people, whoever asked for
something is told, and what was recorded of pools is as it was. The tool is a stand-in for iscsiadm, the unit a loop device.
"""
import os
import pathlib
import subprocess
import threading

import libvirt
import pytest
import fake_polkit
from harness import PATIENCE_S, run, wait_for
from pool_daemon import error_of, pool_xml, volume_xml
from pool_raw import Raw

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='makes loop devices')

MIB = 1 << 20
TARGET = 'iqn.2024-01.org.example:disk1'

# A call whose words have those in the file `hang` among them goes on for ever, maybe even when it is asked to end.
ISCSIADM = r'''#!/bin/sh
if [ -e {0}/hang ]; then
    case "$*" in *"$(cat {0}/hang)"*) [ ! -e {0}/stubborn ] || trap '' TERM; echo $$ > {0}/pid.new; mv {0}/pid.new {0}/pid
        while :; do sleep 1000; done ;;
    esac
fi
case "$*" in
"--mode session") [ -e {0}/session ] && echo "tcp: [7] 127.0.0.1:3260,1 {1} (non-flash)" || exit 21 ;;
*--login) touch {0}/session ;;
*--logout) rm {0}/session ;;
esac
'''


class Tool:
    """iscsiadm, which can be made to hang; and what the kernel shows of its session."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        (folder / 'bin').mkdir()
        monkeypatch.setenv('PATH', f"{folder}/bin:{os.environ['PATH']}")
        (folder / 'bin' / 'iscsiadm').write_text(ISCSIADM.format(folder, TARGET))
        (folder / 'bin' / 'iscsiadm').chmod(0o755)
        with open(folder / 'unit', 'wb') as file:
            file.truncate(MIB)
        self.node = run('losetup', '--find', '--show', folder / 'unit').stdout.strip()
        for path, text in (('class/scsi_host/host5/scan', ''), ('class/iscsi_session/session7/device/target5:0:0/x', ''),
                           ('bus/scsi/devices/5:0:0:1/type', '0\n'),
                           (f'bus/scsi/devices/5:0:0:1/block/{os.path.basename(self.node)}/size', '')):
            whole = folder / 'sys' / path
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text(text)

    def hang(self, words, stubborn=False):
        if stubborn:
            (self.folder / 'stubborn').touch()
        (self.folder / 'hang').write_text(words)

    def wait(self):
        """Until a call hangs."""
        wait_for((self.folder / 'pid').exists, 'the tool to be called')

    def heal(self):
        """Nothing of the call that hung is left."""
        (self.folder / 'hang').unlink()
        status = pathlib.Path(f"/proc/{(self.folder / 'pid').read_text().strip()}/stat")
        assert not status.exists() or ') Z ' in status.read_text()
        (self.folder / 'pid').unlink()


@pytest.fixture
def tool(tmp_path, monkeypatch):
    one = Tool(tmp_path, monkeypatch)
    yield one
    subprocess.run(['losetup', '--detach', one.node], check=False)


XML = (f"<pool type='iscsi'><name>target</name><source><host name='127.0.0.1'/><device path='{TARGET}'/></source>"
       '<target><path>/dev</path></target></pool>')


class Asking(threading.Thread):
    """A call that is to fail."""

    def __init__(self, call, *arguments):
        super().__init__(daemon=True)
        self.words = (call, *arguments)
        self.result = None
        self.start()

    def run(self):
        self.result = error_of(*self.words)

    def answer(self):
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.result


def test_start_of_a_pool(pool_daemon, tool):
    pool = pool_daemon.start().connect().storagePoolDefineXML(XML)
    tool.hang('--login', stubborn=True)
    asking = Asking(pool.create)
    tool.wait()
    pool_daemon.stop()
    assert asking.answer() == (libvirt.VIR_ERR_OPERATION_ABORTED,
                               "operation aborted: 'iscsiadm' has not ended, and the daemon is about to")
    assert not (pool_daemon.state / 'target.xml').exists()
    tool.heal()
    pool = pool_daemon.start().connect().storagePoolLookupByName('target')
    assert not pool.isActive()
    pool.create()
    assert pool.listVolumes() == ['unit:0:0:1']


def test_refresh_of_a_running_pool(pool_daemon, tool):
    """It is no reason to stop the pool, of which nothing else would be left."""
    pool = pool_daemon.start().connect().storagePoolCreateXML(XML)
    recorded = (pool_daemon.state / 'target.xml').read_text()
    tool.hang('-R')
    asking = Asking(pool.refresh)
    tool.wait()
    pool_daemon.stop()
    assert asking.answer()[0] == libvirt.VIR_ERR_OPERATION_ABORTED
    assert (pool_daemon.state / 'target.xml').read_text() == recorded
    tool.heal()
    pool = pool_daemon.start().connect().storagePoolLookupByName('target')
    assert pool.isActive() and not pool.isPersistent() and pool.listVolumes() == ['unit:0:0:1']


def test_stop_of_a_pool(pool_daemon, tool):
    pool = pool_daemon.start().connect().storagePoolCreateXML(XML)
    tool.hang('--logout')
    asking = Asking(pool.destroy)
    tool.wait()
    pool_daemon.stop()
    assert asking.answer()[0] == libvirt.VIR_ERR_OPERATION_ABORTED
    tool.heal()
    assert pool_daemon.start().connect().storagePoolLookupByName('target').isActive()


def test_looking_for_running_pools(pool_daemon, tool):
    """At its start, when a running pool's tool hangs, the daemon does not know; and so nothing changes."""
    pool_daemon.start().connect().storagePoolCreateXML(XML)
    pool_daemon.kill()
    tool.hang('--mode session')
    pool_daemon.spawn()
    tool.wait()
    pool_daemon.stop()
    tool.heal()
    assert pool_daemon.start().connect().storagePoolLookupByName('target').listVolumes() == ['unit:0:0:1']


def test_autostart_goes_on_later(pool_daemon, tool):
    pool = pool_daemon.start().connect().storagePoolDefineXML(XML)
    pool.setAutostart(1)
    pool_daemon.stop()
    (pool_daemon.state / 'autostarted').unlink()  # as after a boot
    tool.hang('--login')
    pool_daemon.spawn()
    tool.wait()
    pool_daemon.stop()
    tool.heal()
    assert pool_daemon.start().connect().storagePoolLookupByName('target').isActive()


def test_reload(pool_daemon, tool):
    pool_daemon.start()
    (pool_daemon.config / 'autostart').mkdir(parents=True)
    (pool_daemon.config / 'target.xml').write_text(XML)
    (pool_daemon.config / 'autostart' / 'target.xml').symlink_to(pool_daemon.config / 'target.xml')
    tool.hang('--login')
    pool_daemon.process.send_signal(1)
    tool.wait()
    pool_daemon.stop()
    tool.heal()
    assert pool_daemon.start().connect().storagePoolLookupByName('target').isActive() == 0


def test_wiping(pool_daemon):
    pool = pool_daemon.start().connect().storagePoolCreateXML(pool_xml('demo', pool_daemon.images))
    volume = pool.createXML(volume_xml('a', 128 * MIB))
    asking = Asking(volume.wipePattern, libvirt.VIR_STORAGE_VOL_WIPE_ALG_PFITZNER33)
    path = pool_daemon.images / 'a'
    with open(path, 'rb') as file:
        wait_for(lambda: os.pread(file.fileno(), 4096, 0) != bytes(4096), 'the first bytes to be overwritten')
    pool_daemon.stop()
    assert asking.answer() == (libvirt.VIR_ERR_OPERATION_ABORTED,
                               f"operation aborted: '{path}' is not wiped yet, and the daemon is about to end")


def test_people(pool_daemon, tmp_path):
    """Polkit has asked somebody, who has not answered."""
    tmp_path.chmod(0o755)
    with fake_polkit.running(tmp_path) as polkit:
        path = pool_daemon.config.parent / 'virtstoraged.conf'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('auth_unix_rw = "polkit"\n')
        pool_daemon.start()
        polkit.set([['*', {}, 'never']])
        os.seteuid(65534)
        try:
            raw = Raw(pool_daemon.socket)
        finally:
            os.seteuid(0)
        raw.send(70)
        wait_for(polkit.questions, 'the question')
        pool_daemon.stop()
        assert 'polkit: ' in raw.receive().error()[2]
