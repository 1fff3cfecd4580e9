# SPDX-License-Identifier: LGPL-2.1-or-later
"""Secrets that libvirt's own daemon keeps: where its socket is there, the pool daemon asks it."""
import contextlib
import os
import shutil
import subprocess

import libvirt
import pytest

from harness import program, run, wait_for
from pool_daemon import OWN_FOLDERS, error_of, pool_xml
from test_pool_luks import encrypted_xml

MIB = 1 << 20
DRIVERS = '/usr/lib/x86_64-linux-gnu/libvirt/connection-driver'
ONLY_SECRETS = f'mount --bind "$1/drivers" {DRIVERS} && '
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="libvirt's daemon of the system")


@pytest.fixture
def keeper(pool_daemon):
    """libvirtd with nothing but its secret driver, where the pool daemon looks for virtsecretd; a connection to it."""
    folder = pool_daemon.folder
    (folder / 'drivers').mkdir()
    shutil.copy(f'{DRIVERS}/libvirt_driver_secret.so', folder / 'drivers')
    (folder / 'libvirtd.conf').write_text('auth_unix_rw = "none"\nauth_unix_ro = "none"\n')
    (folder / 'run' / 'libvirt').mkdir()
    path = folder / 'run' / 'libvirt' / 'libvirt-sock'
    (folder / 'run' / 'libvirt' / 'virtsecretd-sock').symlink_to(path)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / 'libvirtd.log', 'wb'))
        process = stack.enter_context(subprocess.Popen(
            ['unshare', '--mount', 'sh', '-c', ONLY_SECRETS + OWN_FOLDERS, 'sh', folder, '/usr/sbin/libvirtd', '-f',
             folder / 'libvirtd.conf', '-p', folder / 'libvirtd.pid'], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        stack.callback(process.terminate)

        def connect():
            assert process.poll() is None, (folder / 'libvirtd.log').read_text()
            with contextlib.suppress(libvirt.libvirtError):
                return libvirt.open(f'secret:///system?socket={path}')

        yield wait_for(connect, "libvirt's daemon")


def test_keys_of_volumes(pool_daemon, keeper, tmp_path):
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images))
    # Even a value that no client is told; daemons of a system know each other.
    path = pool_daemon.images / 'a.luks'
    secret = keeper.secretDefineXML(f"<secret ephemeral='no' private='yes'><usage type='volume'><volume>{path}</volume></usage></secret>")
    secret.setValue(b'open sesame')
    assert error_of(secret.value)[0] == libvirt.VIR_ERR_INVALID_SECRET
    pool.createXML(encrypted_xml('a.luks', 'raw', f"<secret type='passphrase' uuid='{secret.UUIDString()}'/>"))
    (tmp_path / 'key').write_bytes(b'open sesame')
    run('cryptsetup', 'open', '--test-passphrase', '--type', 'luks1', '--key-file', tmp_path / 'key', path)
    pool.refresh()
    # Which secret it is, is known by what the secret is for.
    assert f"<secret type='passphrase' uuid='{secret.UUIDString()}'/>" in pool.storageVolLookupByName('a.luks').XMLDesc()
    secret.undefine()
    code, message = error_of(pool.createXML, encrypted_xml('b.luks', 'raw', f"<secret type='passphrase' uuid='{secret.UUIDString()}'/>"))
    assert code == libvirt.VIR_ERR_NO_SECRET and secret.UUIDString() in message


def test_one_keeper_of_secrets(pool_daemon, keeper):
    """Where libvirt's daemon keeps them, ours does not; and an export by our own tool asks where they are."""
    pool_daemon.start()
    assert error_of(pool_daemon.connect, 'secret')[0] == libvirt.VIR_ERR_NO_CONNECT
    pool = pool_daemon.connect().storagePoolCreateXML(pool_xml('demo', pool_daemon.images))
    path = pool_daemon.images / 'a.luks'
    run(program('ashlar-img'), 'create', '-f', 'luks', '--object', 'secret,id=s,data=open sesame', '-o', 'key-secret=s,iter-time=10',
        path, MIB)
    secret = keeper.secretDefineXML(f'<secret><usage type="volume"><volume>{path}</volume></usage></secret>')
    secret.setValue(b'open sesame')
    pool.refresh()
    done = run(program('ashlar'), 'pool', 'tree', '--socket', pool_daemon.socket)
    assert '(encrypted)' in done.stdout


def test_keeper_that_is_gone(pool_daemon):
    """Where its socket is left, the error says that nobody is there."""
    (pool_daemon.folder / 'run' / 'libvirt').mkdir()
    (pool_daemon.folder / 'run' / 'libvirt' / 'virtsecretd-sock').touch()
    connection = pool_daemon.start().connect()
    pool = connection.storagePoolCreateXML(pool_xml('demo', pool_daemon.images))
    code, message = error_of(pool.createXML, encrypted_xml('a', 'raw', "<secret type='passphrase' usage='/x'/>"))
    assert (code, 'virtsecretd-sock' in message) == (libvirt.VIR_ERR_SYSTEM_ERROR, True), message
