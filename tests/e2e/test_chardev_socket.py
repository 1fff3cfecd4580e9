# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stream sockets as character devices: every kind of address, both roles, and peers of every sort."""
import json
import os
import re
import signal
import socket
import subprocess

import pytest

from chardev_peers import (assert_monitor, context_switches, filename, receive_all, receive_until, settle, tcp_port,
                           unix_connect, unix_listen, wait_connected, wait_disconnected)
from harness import PATIENCE_S, Qmp, background, need, program, run, storaged_fails, wait_for


def monitor_on(daemon, chardev, **kwargs):
    """A daemon with a second monitor, on the chardev 'c'."""
    return daemon('--chardev', f'{chardev},id=c', '--monitor', 'chardev=c', **kwargs)


def test_unix(daemon, tmp_path):
    one = monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    with unix_connect(tmp_path / 's') as sock:
        assert_monitor(sock)
        assert filename(one.qmp, 'c') == f'unix:{tmp_path}/s,server=on'
    wait_disconnected(one.qmp, 'c')
    one.stop()
    assert not os.path.exists(tmp_path / 's')


def test_unix_path_with_comma_and_stale_socket(daemon, tmp_path):
    unix_listen(tmp_path / 'a,b').close()
    monitor_on(daemon, f'socket,path={tmp_path}/a,,b,server=on,wait=off')
    with unix_connect(tmp_path / 'a,b') as sock:
        assert_monitor(sock)


def test_unix_path_taken_by_a_file(tmp_path):
    (tmp_path / 'file').write_text('precious')
    storaged_fails('--chardev', f'socket,id=c,path={tmp_path}/file,server=on,wait=off')
    assert (tmp_path / 'file').read_text() == 'precious'


@pytest.mark.parametrize('tight', ['on', 'off'])
def test_unix_abstract(daemon, tmp_path, tight):
    name = str(tmp_path)
    monitor_on(daemon, f'socket,path={name},abstract=on,tight={tight},server=on,wait=off')
    address = b'\0' + name.encode()
    with unix_connect(address if tight == 'on' else address.ljust(108, b'\0')) as sock:
        assert_monitor(sock)


@pytest.mark.parametrize('host', ['127.0.0.1', '::1', 'localhost', ''])
def test_inet(daemon, host):
    one = monitor_on(daemon, f'socket,host={host},port=0,server=on,wait=off')
    with socket.create_connection((host or '127.0.0.1', tcp_port(one.qmp, 'c'))) as sock:
        assert_monitor(sock)
        own = sock.getpeername()
        peer = sock.getsockname()
        form = '[{}]:{}' if ':' in peer[0] else '{}:{}'
        assert filename(one.qmp, 'c') == f'tcp:{form.format(*own)},server=on <-> {form.format(*peer)}'


def test_inet_port_range(daemon):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        first = taken.getsockname()[1]
        last = min(first + 20, 65535)
        one = monitor_on(daemon, f'socket,host=127.0.0.1,port={first},to={last},server=on,wait=off')
        port = tcp_port(one.qmp, 'c')
        assert first < port <= last
        with socket.create_connection(('127.0.0.1', port)) as sock:
            assert_monitor(sock)


def test_inet_families(daemon):
    one = monitor_on(daemon, 'socket,host=localhost,port=0,ipv4=on,ipv6=off,server=on,wait=off')
    port = tcp_port(one.qmp, 'c')
    with socket.create_connection(('127.0.0.1', port)) as sock:
        assert_monitor(sock)
    with pytest.raises(OSError):
        socket.create_connection(('::1', port))


def test_numeric_looks_nothing_up():
    assert storaged_fails('--chardev', 'socket,id=c,host=localhost,port=0,server=on,wait=off,numeric=on').startswith(
        '--chardev socket,id=c,host=localhost,port=0,server=on,wait=off,numeric=on: address resolution failed for localhost:0: ')


def test_inet_keep_alive(daemon):
    one = monitor_on(daemon, 'socket,host=127.0.0.1,port=0,keep-alive=on,server=on,wait=off')
    with socket.create_connection(('127.0.0.1', tcp_port(one.qmp, 'c'))) as sock:
        assert_monitor(sock)
        port = sock.getpeername()[1]
        wait_for(lambda: 'keepalive' in run(need('ss'), '-tno', f'sport = :{port}').stdout, 'the timer of keep-alive')


def test_vsock_that_is_not_ours():
    """A context id that is that of some other machine."""
    message = storaged_fails('--chardev', 'socket,id=c,cid=77777,port=9,server=on,wait=off')
    assert '77777:9' in message


def test_passed_descriptor(daemon, tmp_path):
    """The example of the reference's manual."""
    with unix_listen(tmp_path / 's') as listening:
        one = monitor_on(daemon, f'socket,fd={listening.fileno()},server=on,wait=off', pass_fds=[listening.fileno()])
    assert filename(one.qmp, 'c') == f'disconnected:unix:{tmp_path}/s,server=on'
    for _ in range(2):
        with unix_connect(tmp_path / 's') as sock:
            assert_monitor(sock)


def test_passed_descriptor_of_a_client(daemon):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE_S)
        monitor_on(daemon, f'socket,fd={theirs.fileno()}', pass_fds=[theirs.fileno()])
        theirs.close()
        assert_monitor(ours)


@pytest.mark.parametrize('number,message', [('zz', 'Unable to parse FD number zz'), ('0', "File descriptor '0' is not a socket"),
                                            ('777', "File descriptor '777' ")])
def test_passed_descriptor_that_is_wrong(number, message):
    assert f': {message}' in storaged_fails('--chardev', f'socket,id=c,fd={number},server=on,wait=off')


def test_wait_blocks_the_start(tmp_path):
    """wait=on, the default: the pid file comes when a client has come."""
    pid_file = tmp_path / 'pid'
    with background(program('ashlar-storaged'), '--chardev', f'socket,id=c,path={tmp_path}/s,server=on',
                    '--monitor', 'chardev=c', '--pidfile', pid_file, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert line.endswith(f'waiting for connection on: disconnected:unix:{tmp_path}/s,server=on\n')
        assert not pid_file.exists()
        with unix_connect(tmp_path / 's') as sock:
            assert_monitor(sock)
            wait_for(pid_file.exists, 'the pid file')
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_wait_ends_with_the_daemon(tmp_path):
    with background(program('ashlar-storaged'), '--chardev', f'socket,id=c,path={tmp_path}/s,server=on',
                    stderr=subprocess.PIPE, text=True) as process:
        assert 'waiting for connection' in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        assert not (tmp_path / 's').exists()


def test_client(daemon, tmp_path):
    """The monitor calls us."""
    with unix_listen(tmp_path / 's') as listening:
        one = monitor_on(daemon, f'socket,path={tmp_path}/s')
        sock, _ = listening.accept()
        with sock:
            assert_monitor(sock)
            assert filename(one.qmp, 'c') == f'unix:{tmp_path}/s'
        wait_disconnected(one.qmp, 'c')


def test_client_over_tcp(daemon):
    with socket.socket() as listening:
        listening.settimeout(PATIENCE_S)
        listening.bind(('127.0.0.1', 0))
        listening.listen()
        port = listening.getsockname()[1]
        one = monitor_on(daemon, f'socket,host=127.0.0.1,port={port}')
        sock, peer = listening.accept()
        with sock:
            sock.settimeout(PATIENCE_S)
            assert_monitor(sock)
            assert filename(one.qmp, 'c') == f'tcp:127.0.0.1:{peer[1]} <-> 127.0.0.1:{port}'


def test_client_refused(tmp_path):
    assert storaged_fails('--chardev', f'socket,id=c,path={tmp_path}/s').endswith(
        f"Failed to connect to '{tmp_path}/s': No such file or directory")


def test_reconnect(daemon, tmp_path):
    """It is told once that nobody is there; then each new listener gets its monitor."""
    one = monitor_on(daemon, f'socket,path={tmp_path}/s,reconnect-ms=5')
    wait_for(lambda: 'Unable to connect' in one.stderr, 'the complaint')
    for _ in range(3):
        with unix_listen(tmp_path / 's') as listening:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(PATIENCE_S)
                assert_monitor(sock)
        (tmp_path / 's').unlink()
        wait_disconnected(one.qmp, 'c')
    assert f"Unable to connect character device c: Failed to connect to '{tmp_path}/s'" in one.stderr


def test_one_at_a_time(daemon, tmp_path):
    """Who comes second is served when the first one has gone."""
    monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    first = unix_connect(tmp_path / 's')
    assert_monitor(first)
    second = unix_connect(tmp_path / 's')
    second.setblocking(False)
    with pytest.raises(BlockingIOError):
        second.recv(1)
    second.settimeout(PATIENCE_S)
    first.close()
    assert_monitor(second)
    second.close()


def test_many_clients_in_turn(daemon, tmp_path):
    one = monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    for _ in range(200):
        with unix_connect(tmp_path / 's') as sock:
            Qmp(sock, negotiate=False)
    descriptors = len(os.listdir(f'/proc/{one.pid}/fd'))
    for _ in range(200):
        unix_connect(tmp_path / 's').close()
    with unix_connect(tmp_path / 's') as sock:
        assert_monitor(sock)
    wait_disconnected(one.qmp, 'c')
    assert len(os.listdir(f'/proc/{one.pid}/fd')) <= descriptors


def test_half_closed(daemon, tmp_path):
    """A script that sends all and shuts its side gets every answer: more than the reference does."""
    monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    commands = '{"execute": "qmp_capabilities"}' + '{"execute": "query-commands"}' * 50
    done = run('sh', '-c', f"printf '%s' '{commands}' | {need('socat')} -t 60 - UNIX-CONNECT:{tmp_path}/s")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 52
    assert all('return' in line for line in lines[1:])


def test_reset_in_mid_command(daemon, tmp_path):
    one = monitor_on(daemon, 'socket,host=127.0.0.1,port=0,server=on,wait=off')
    port = tcp_port(one.qmp, 'c')
    for _ in range(20):
        sock = socket.create_connection(('127.0.0.1', port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
        sock.sendall(b'{"execute": "query-vers')
        sock.close()
    with socket.create_connection(('127.0.0.1', port)) as sock:
        sock.settimeout(PATIENCE_S)
        assert_monitor(sock)


def test_peer_that_never_reads(daemon, tmp_path):
    """It stops its own monitor; the other one answers, and memory stays bounded."""
    one = monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    sock = unix_connect(tmp_path / 's')
    sock.setblocking(False)
    sent = 0
    command = b'{"execute": "query-qmp-schema"}'
    with pytest.raises(BlockingIOError):
        sock.sendall(b'{"execute": "qmp_capabilities"}')
        for sent in range(100000):
            sock.send(command)
    for _ in range(10):
        one.qmp.command('query-version')
    assert one.memory_kib() < 512 * 1024
    sock.close()
    with unix_connect(tmp_path / 's') as again:
        assert_monitor(again)


def test_hang_up_while_writing(daemon, tmp_path):
    """The peer goes while the daemon waits for room to write in."""
    monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    for _ in range(10):
        sock = unix_connect(tmp_path / 's')
        sock.sendall(b'{"execute": "qmp_capabilities"}' + b'{"execute": "query-qmp-schema"}' * 20)
        receive_until(sock, b'"return"')
        sock.close()
    with unix_connect(tmp_path / 's') as sock:
        assert_monitor(sock)


def test_unattended(daemon, tmp_path):
    """Without a front end clients come and go all the same."""
    one = daemon('--chardev', f'socket,id=c,path={tmp_path}/s,server=on,wait=off')
    for _ in range(3):
        with unix_connect(tmp_path / 's'):
            assert wait_connected(one.qmp, 'c') == f'unix:{tmp_path}/s,server=on'
        wait_disconnected(one.qmp, 'c')


def test_removed_while_connected(daemon, tmp_path):
    one = daemon('--chardev', f'socket,id=c,path={tmp_path}/s,server=on,wait=off')
    with unix_connect(tmp_path / 's') as sock, unix_connect(tmp_path / 's') as queued:
        wait_connected(one.qmp, 'c')
        one.qmp.command('chardev-remove', id='c')
        assert receive_all(sock) == b''
        assert receive_all(queued) == b''
    assert not (tmp_path / 's').exists()


def test_descriptors_run_out(daemon, tmp_path):
    """A client that cannot be accepted is accepted later."""
    one = monitor_on(daemon, f'socket,path={tmp_path}/s,server=on,wait=off')
    count = len(os.listdir(f'/proc/{one.pid}/fd'))
    run(need('prlimit'), f'--nofile={count}:4096', '--pid', one.pid)
    with unix_connect(tmp_path / 's') as sock:
        one.qmp.command('query-version')
        run(need('prlimit'), '--nofile=1024:4096', '--pid', one.pid)
        assert_monitor(sock)


def test_log(daemon, tmp_path):
    (tmp_path / 'log').write_text('old\n')
    for append in ('on', 'off'):
        with daemon('--chardev', f'socket,id=c,path={tmp_path}/s,server=on,wait=off,logfile={tmp_path}/log,logappend={append}',
                    '--monitor', 'chardev=c'):
            with unix_connect(tmp_path / 's') as sock:
                assert_monitor(sock)
        logged = (tmp_path / 'log').read_text()
        assert logged.startswith('old\n') == (append == 'on')
        assert re.search(r'"QMP".*\n.*"return": \{\}.*\n.*"qemu"', logged)


def test_idle(daemon, tmp_path):
    """Connected, unconnected, with and without front ends: nothing happens, and nobody wakes."""
    with unix_listen(tmp_path / 'l'):
        one = daemon('--chardev', f'socket,id=a,path={tmp_path}/a,server=on,wait=off', '--monitor', 'chardev=a',
                     '--chardev', f'socket,id=b,path={tmp_path}/b,server=on,wait=off',
                     '--chardev', f'socket,id=c,path={tmp_path}/l',
                     '--chardev', 'pty,id=d', '--monitor', 'chardev=d', '--chardev', f'pty,id=e,mux=on',
                     '--monitor', 'chardev=e', '--chardev', 'null,id=f', '--monitor', 'chardev=f')
        with unix_connect(tmp_path / 'a') as first, unix_connect(tmp_path / 'b'):
            assert_monitor(first)
            wait_connected(one.qmp, 'b')

            def quiet():
                before = context_switches(one.pid)
                settle(0.5)
                return context_switches(one.pid) == before
            wait_for(quiet, 'the daemon to be idle')
