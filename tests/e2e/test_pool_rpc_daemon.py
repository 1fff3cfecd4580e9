# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool daemon as a process: command line, configuration, log, sockets from a supervisor, signals, the end."""
import os
import pathlib
import signal
import socket
import subprocess

import pytest

from harness import BUILD, PATIENCE_S, program, run, wait_for
from pool_daemon import OWN_FOLDERS, PoolDaemon
from pool_raw import ADMIN, OK, Raw

HELP = '''
Usage:
  {name} [options]

Options:
  -h | --help            Display program help
  -v | --verbose         Verbose messages
  -d | --daemon          Run as a daemon & write PID file
  -t | --timeout <secs>  Exit after timeout period
  -f | --config <file>   Configuration file
  -V | --version         Display version information
  -p | --pid-file <file> Change name of PID file

libvirt management daemon:

  Default paths:

    Configuration file (unless overridden by -f):
      /etc/libvirt/virtstoraged.conf

    Sockets:
      /run/libvirt/virtstoraged-sock
      /run/libvirt/virtstoraged-sock-ro

    PID file (unless overridden by -p):
      /run/virtstoraged.pid

'''


@pytest.fixture
def pool(tmp_path):
    one = PoolDaemon(tmp_path)
    yield one
    one.stop()


def fail(*arguments):
    """What the daemon says when it does not start."""
    done = run(program('ashlar-poold'), *arguments, check=False)
    assert done.returncode == 1, done
    return done.stderr


def config_path(pool):
    path = pool.config.parent / 'virtstoraged.conf'
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason='the paths shown are those of root')
def test_help():
    name = program('ashlar-poold')
    done = run(name, '--help')
    assert (done.stdout, done.stderr) == ('', HELP.format(name=name))


def test_version():
    assert run(program('ashlar-poold'), '-V').stdout.startswith('ashlar-poold version ')
    name = str(BUILD / 'compat' / 'virtstoraged')
    assert run(name, '--version').stdout == f'{name} (libvirt) 11.3.0\n'


def test_wrong_options():
    name = program('ashlar-poold')
    assert fail('word') == f'{name}: unexpected, non-option, command line arguments\n'
    assert 'Usage:' in fail('--zork')
    assert f"{name}: Invalid value for timeout: 'x'" in fail('--timeout', 'x')
    assert 'Invalid value for timeout' in fail('-t', '2147484')
    assert "Can't load config file: " in fail('-f', '/dev/null/file')


@pytest.mark.parametrize('line,message', [
    ('max_clients = "5"', ':2: max_clients: expecting a number of 0 or more'),
    ('unix_sock_dir = 5', ':2: unix_sock_dir: expecting a string'),
    ('log_filters = "x', ':2: log_filters: unterminated string'),
    ('auth_unix_rw = "zork"', ":2: auth_unix_rw: unsupported auth 'zork'"),
    ('max_workers = 0', ':2: max_workers: 0 is not from 1'),
])
def test_wrong_config_names_file_line_and_key(tmp_path, line, message):
    (tmp_path / 'c').write_text(f'# a comment\n{line}\n')
    assert f'Can\'t load config file: {tmp_path}/c{message}' in fail('-f', tmp_path / 'c')
    (tmp_path / 'c').write_text('max_clients = 50\n\0' + line)
    assert f"Can't load config file: a NUL byte is no text: {tmp_path}/c" in fail('-f', tmp_path / 'c')


def test_unknown_key_is_a_warning(pool):
    config_path(pool).write_text('listen_tls = 1\n')
    pool.start()
    assert 'virtstoraged.conf:1: listen_tls: there is no such key' in pool.log.read_text()


def test_values_that_libvirt_takes(pool):
    """Odd as they are: a queue for nobody, and an administrators' server that lets nobody in."""
    config_path(pool).write_text('max_queued_clients = 0\nadmin_max_queued_clients = 0\nadmin_max_clients = 0\n')
    pool.start()
    clients = [pool.connect() for _ in range(10)]
    assert [client.numOfStoragePools() for client in clients] == [0] * 10
    raw = Raw(pool.socket.with_name('virtstoraged-admin-sock'), ADMIN)
    raw.send(3)
    raw.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        raw.receive()


def test_bursts_of_calls_and_sleep(pool):
    config_path(pool).write_text('auth_unix_rw = "none"\npoll_max_us = 1000\n')
    pool.start()
    client = Raw(pool.socket)
    client.open(pool.uri().split('?')[0])
    assert all(client.call(71).status == OK for _ in range(2000))
    state = pathlib.Path(f'/proc/{pool.process.pid}/stat')
    wait_for(lambda: state.read_text(encoding='ascii').split(')')[1].split()[0] == 'S', 'the daemon going to sleep')
    assert client.call(71).status == OK


def test_socket_modes_and_directory(pool):
    where = pool.folder / 'elsewhere'
    config_path(pool).write_text(f'unix_sock_dir = "{where}"\nauth_unix_rw = "none"\nunix_sock_rw_perms = "0760"\n')
    pool.socket = where / 'virtstoraged-sock'
    pool.start()
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in where.iterdir()}
    if pool.privileged:
        assert modes == {'virtstoraged-sock': '0o760', 'virtstoraged-sock-ro': '0o777', 'virtstoraged-admin-sock': '0o700'}
    else:
        assert modes == {'virtstoraged-sock': '0o700', 'virtstoraged-admin-sock': '0o700'}
    pool.stop()
    assert not list(where.iterdir())


def test_log_of_file_environment_and_filters(pool, monkeypatch):
    log = pool.folder / 'log'
    config_path(pool).write_text(f'log_level = 1\nlog_filters = "3:zork 4:rpc.call"\nlog_outputs = "1:file:{log}"\n')
    pool.start()
    Raw(pool.socket).call(9999)
    assert 'debug : rpc_client_start' in log.read_text()
    assert 'unknown procedure' not in log.read_text()
    pool.stop()
    monkeypatch.setenv('LIBVIRT_LOG_FILTERS', '1:rpc.call')
    monkeypatch.setenv('LIBVIRT_LOG_OUTPUTS', f'1:file:{log}2')
    pool.start()
    Raw(pool.socket).call(9999)
    assert 'unknown procedure: 9999' in (pool.folder / 'log2').read_text()


@pytest.mark.parametrize('level', ['1', 'debug'])
def test_level_of_the_environment(pool, monkeypatch, level):
    monkeypatch.setenv('LIBVIRT_DEBUG', level)
    config_path(pool).write_text('log_level = 4\n')
    pool.start()
    Raw(pool.socket).call(9999)
    assert 'unknown procedure: 9999' in pool.log.read_text()


def test_timeout_ends_when_nobody_is_there(pool):
    pool.start('--timeout', '1')
    connection = pool.connect()
    with pytest.raises(subprocess.TimeoutExpired):
        pool.process.wait(2)
    connection.close()
    assert pool.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_signals_end(pool, number):
    pool.start()
    pool.process.send_signal(number)
    assert pool.process.wait(PATIENCE_S) == 0
    assert not pool.socket.exists()


def test_hangup_reloads(pool):
    pool.start()
    pool.config.mkdir(parents=True, exist_ok=True)
    (pool.config / 'later.xml').write_text(
        "<pool type='dir'><name>later</name><target><path>/nonexistent/later</path></target></pool>")
    pool.process.send_signal(signal.SIGHUP)
    wait_for(lambda: 'later' in pool.virsh('pool-list', '--all', '--name'), 'the new pool')


def test_second_daemon_of_the_same_pid_file(pool):
    pool.start('--pid-file', pool.folder / 'pid')
    assert (pool.folder / 'pid').read_text().strip() == str(pool.process.pid)
    other = PoolDaemon(pool.folder / 'other') if (pool.folder / 'other').mkdir() is None else None
    with pytest.raises(AssertionError, match='has ended with 1'):
        other.start('--pid-file', pool.folder / 'pid')
    assert 'cannot create PID file' in other.log.read_text()


def test_pid_file_of_who_stays_in_the_foreground(pool):
    path = pool.folder / 'run' / ('virtstoraged.pid' if pool.privileged else 'libvirt/virtstoraged.pid')
    pool.start()
    assert path.read_text() == f'{pool.process.pid}\n'
    assert path.stat().st_mode & 0o777 == 0o644
    other = start_in_own_folders(pool, program('ashlar-poold'), stderr=subprocess.PIPE, text=True)
    assert 'cannot create PID file: Cannot lock pid file' in other.communicate(timeout=PATIENCE_S)[1]
    assert other.returncode == 1
    pool.stop()
    assert not path.exists()


def test_others_reach_the_sockets_whatever_the_mask(pool):
    mask = os.umask(0o077)
    try:
        pool.start()
    finally:
        os.umask(mask)
    assert pool.socket.parent.stat().st_mode & 0o777 == (0o755 if pool.privileged else 0o700)


def test_second_daemon_of_the_same_state(pool):
    pool.start()
    elsewhere = pool.folder / 'other.conf'
    elsewhere.write_text(f'unix_sock_dir = "{pool.folder}/s2"\n')
    other = PoolDaemon(pool.folder)
    other.socket = pool.folder / 's2' / 'virtstoraged-sock'
    with pytest.raises(AssertionError, match='has ended with 11'):
        other.start('-f', elsewhere, '-p', pool.folder / 'other.pid')


def start_in_own_folders(pool, *command, **kwargs):
    environment = dict(os.environ) | kwargs.pop('env', {})
    if pool.privileged:
        command = ['unshare', '--mount', 'sh', '-c', OWN_FOLDERS, 'sh', str(pool.folder), *command]
    else:
        environment |= {'XDG_CONFIG_HOME': str(pool.folder / 'etc'), 'XDG_RUNTIME_DIR': str(pool.folder / 'run')}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, **kwargs)


def test_background(pool):
    config_path(pool).write_text(f'log_outputs = "3:file:{pool.folder}/log"\n')
    pid_file = pool.folder / 'pid'
    parent = start_in_own_folders(pool, program('ashlar-poold'), '-d', '-p', str(pid_file))
    assert parent.wait(PATIENCE_S) == 0
    assert 'Name' in pool.virsh('pool-list')
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    wait_for(lambda: not pid_file.exists(), 'the end')
    assert not pool.socket.exists()


def test_background_that_fails(pool):
    config_path(pool).write_text(f'log_outputs = "3:file:{pool.folder}/log"\n')
    parent = start_in_own_folders(pool, program('ashlar-poold'), '-d', '-p', '/dev/null/pid')
    assert parent.wait(PATIENCE_S) == 1


def activated(pool, names, sockets):
    """A daemon that gets listening sockets as systemd hands them over."""
    setting = f'LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={":".join(names)}'
    moves = ' '.join(f'{3 + i}<&{one.fileno()}' for i, one in enumerate(sockets))
    script = f'exec {moves}; {setting} exec sh -c \'LISTEN_PID=$$ exec "$0"\' {program("ashlar-poold")}'
    with open(pool.log, 'ab') as log:
        return start_in_own_folders(pool, 'bash', '-c', script, pass_fds=[one.fileno() for one in sockets], stderr=log)


def listening(path):
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen(5)
    return one


def test_sockets_of_a_supervisor(pool):
    path = pool.folder / 'given'
    with listening(path) as given:
        pool.process = activated(pool, ['virtstoraged.socket'], [given])
        assert Raw(path).call(66).status == 0
        assert not pool.socket.exists()
        pool.stop()
    assert path.exists()


def test_unit_that_listens_in_several_places(pool):
    paths = [pool.folder / name for name in ('one', 'two', 'admin')]
    with listening(paths[0]) as one, listening(paths[1]) as two, listening(paths[2]) as admin:
        names = ['virtstoraged.socket', 'virtstoraged.socket', 'virtstoraged-admin.socket']
        pool.process = activated(pool, names, [one, two, admin])
        assert Raw(paths[0]).call(66).status == OK and Raw(paths[1]).call(66).status == OK
        assert Raw(paths[2], ADMIN).call(3).status == OK
        pool.stop()


def test_sockets_that_nobody_wants(pool):
    with listening(pool.folder / 'given') as given:
        pool.process = activated(pool, ['zork.socket'], [given])
        assert pool.process.wait(PATIENCE_S) == 6
    assert "Some activation file descriptors are unclaimed: 'zork.socket'" in pool.log.read_text()


def test_supervisor_hears(pool, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(PATIENCE_S)
        notify.bind(str(pool.folder / 'notify'))
        monkeypatch.setenv('NOTIFY_SOCKET', str(pool.folder / 'notify'))
        pool.start()
        assert notify.recv(1000).startswith(b'READY=1')
        pool.process.send_signal(signal.SIGHUP)
        assert notify.recv(1000).startswith(b'RELOADING=1\nMONOTONIC_USEC=')
        assert notify.recv(1000).startswith(b'READY=1')
        pool.stop()
        assert notify.recv(1000) == b'STOPPING=1'
