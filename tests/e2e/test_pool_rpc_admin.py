# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's virt-admin against the pool daemon."""
import os
import subprocess

import libvirt
import pytest

from harness import PATIENCE_S
from pool_daemon import PoolDaemon
from pool_raw import ADMIN, OK, Raw, words


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
    one = PoolDaemon(tmp_path_factory.mktemp('p')).start()
    yield one
    one.stop()


def admin(pool, *arguments, check=True):
    path = pool.socket.with_name('virtstoraged-admin-sock')
    uri = f'virtstoraged:///{"system" if pool.privileged else "session"}?socket={path}'
    done = subprocess.run(['virt-admin', '-c', uri, *arguments], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=5 * PATIENCE_S)
    if check:
        assert done.returncode == 0, done.stderr
        return done.stdout
    assert done.returncode != 0, done.stdout
    return done.stderr


def table(text):
    return dict((part.strip() for part in line.split(':', 1)) for line in text.splitlines() if ':' in line)


def test_servers(pool):
    lines = [line.split() for line in admin(pool, 'server-list').splitlines()[2:] if line]
    assert lines == [['0', 'admin'], ['1', 'virtstoraged']]


def test_workers(pool):
    workers = table(admin(pool, 'server-threadpool-info', 'virtstoraged'))
    assert workers == {'minWorkers': '5', 'maxWorkers': '20', 'nWorkers': '5', 'freeWorkers': '5', 'prioWorkers': '5',
                       'jobQueueDepth': '0'}
    admin(pool, 'server-threadpool-set', 'virtstoraged', '--min-workers', '7', '--max-workers', '25', '--priority-workers', '3')
    workers = table(admin(pool, 'server-threadpool-info', 'virtstoraged'))
    assert (workers['minWorkers'], workers['maxWorkers'], workers['prioWorkers']) == ('7', '25', '3')
    assert 'minWorkers cannot be larger than maxWorkers' in admin(
        pool, 'server-threadpool-set', 'virtstoraged', '--max-workers', '2', check=False)
    admin(pool, 'server-threadpool-set', 'virtstoraged', '--min-workers', '5', '--max-workers', '20', '--priority-workers', '5')


def test_no_worker_at_all(pool):
    assert 'minWorkers cannot be larger than maxWorkers' in admin(pool, 'server-threadpool-set', 'virtstoraged', '--max-workers', '0',
                                                                  check=False)
    assert 'maxWorkers must not be switched from zero to non-zero' in admin(pool, 'server-threadpool-set', 'virtstoraged', '--min-workers', '0', '--max-workers',
                                             '0', check=False)


def test_limits(pool):
    limits = table(admin(pool, 'server-clients-info', 'virtstoraged'))
    assert limits == {'nclients_max': '5000', 'nclients': '0', 'nclients_unauth_max': '20', 'nclients_unauth': '0'}
    admin(pool, 'server-clients-set', 'virtstoraged', '--max-clients', '100', '--max-unauth-clients', '10')
    limits = table(admin(pool, 'server-clients-info', 'virtstoraged'))
    assert (limits['nclients_max'], limits['nclients_unauth_max']) == ('100', '10')
    admin(pool, 'server-clients-set', 'virtstoraged', '--max-clients', '5000', '--max-unauth-clients', '20')


def test_clients(pool):
    connection = pool.connect()
    lines = [line.split() for line in admin(pool, 'client-list', 'virtstoraged').splitlines()[2:] if line]
    assert len(lines) == 1 and lines[0][1] == 'unix'
    client = table(admin(pool, 'client-info', 'virtstoraged', lines[0][0]))
    assert client['readonly'] == 'no' and client['transport'] == 'unix'
    assert [name for name in client if name.startswith('unix_')] == [
        'unix_user_id', 'unix_user_name', 'unix_group_id', 'unix_group_name', 'unix_process_id']
    assert int(client['unix_process_id']) > 0 and 'unix_user_name' in client
    admin(pool, 'client-disconnect', 'virtstoraged', '--client', lines[0][0])
    with pytest.raises(libvirt.libvirtError):
        connection.listAllStoragePools()
    assert 'No client with matching ID' in admin(pool, 'client-info', 'virtstoraged', lines[0][0], check=False)


def test_log(pool, tmp_path):
    log = tmp_path / 'log'
    admin(pool, 'daemon-log-outputs', '--outputs', f'1:file:{log}')
    assert f'1:file:{log}' in admin(pool, 'daemon-log-outputs')
    assert 'Logging filters:' in admin(pool, 'daemon-log-filters')
    admin(pool, 'daemon-log-filters', '--filters', '1:rpc 4:event')
    assert '1:*rpc* 4:*event* ' in admin(pool, 'daemon-log-filters')
    pool.connect().close()
    assert 'debug : rpc_client_start' in log.read_text()
    assert "Malformed format for log output 'zz'" in admin(pool, 'daemon-log-outputs', '--outputs', 'zz', check=False)
    assert "Invalid priority '9' for filter '9:x'" in admin(pool, 'daemon-log-filters', '--filters', '9:x', check=False)
    admin(pool, 'daemon-log-filters', '--filters', '')
    admin(pool, 'daemon-log-outputs', '--outputs', '')


def test_every_name_of_the_commands(pool):
    """virt-admin's newer commands have older names, which scripts use."""
    connection = pool.connect()
    assert admin(pool, 'srv-list') == admin(pool, 'server-list')
    assert table(admin(pool, 'srv-threadpool-info', 'admin'))['maxWorkers'] == '20'
    admin(pool, 'srv-threadpool-set', 'virtstoraged', '--max-workers', '21')
    assert table(admin(pool, 'srv-threadpool-info', 'virtstoraged'))['maxWorkers'] == '21'
    admin(pool, 'srv-clients-set', 'virtstoraged', '--max-clients', '99')
    assert table(admin(pool, 'srv-clients-info', 'virtstoraged'))['nclients_max'] == '99'
    number = admin(pool, 'srv-clients-list', 'virtstoraged').splitlines()[2].split()[0]
    assert table(admin(pool, 'client-info', 'virtstoraged', number))['unix_user_id'] == str(os.getuid())
    assert 'no tls service found, unable to update tls files' in admin(pool, 'server-update-tls', 'virtstoraged', check=False)
    assert "No server named 'zork'" in admin(pool, 'client-list', 'zork', check=False)
    connection.close()
    admin(pool, 'srv-threadpool-set', 'virtstoraged', '--max-workers', '20')
    admin(pool, 'srv-clients-set', 'virtstoraged', '--max-clients', '5000')


def test_timeout_can_be_set(tmp_path):
    one = PoolDaemon(tmp_path).start()
    admin(one, 'daemon-timeout', '--timeout', '1')
    assert one.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize('flags', [0, 1])
def test_shutdown(tmp_path, flags):
    """By a call that virt-admin has since 11.2; its second flag is for daemons that have guests."""
    one = PoolDaemon(tmp_path).start()
    raw = Raw(one.socket.with_name('virtstoraged-admin-sock'), ADMIN)
    assert raw.call(20, words(2)).error() == (8, 62, 'unsupported flags (0x2) in function adminConnectDaemonShutdown')
    assert raw.call(20, words(flags)).status == OK
    assert one.process.wait(PATIENCE_S) == 0
