# SPDX-License-Identifier: LGPL-2.1-or-later
"""Terminals, standard streams, FIFOs, files and datagrams as character devices."""
import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import termios

import pytest

from chardev_peers import Descriptors, assert_monitor, filename, open_when_there
from harness import PATIENCE_S, background, need, program, wait_for


def read_for(fd, end):
    """What comes from a terminal, up to `end`."""
    data = b''
    while end not in data:
        ready, _, _ = select.select([fd], [], [], PATIENCE_S)
        assert ready, f'only {data!r}'
        data += os.read(fd, 65536)
    return data


# --- pty ---

def test_pty(daemon, tmp_path):
    """A monitor on a pseudo-terminal, opened and closed again and again."""
    trace = tmp_path / 'trace'
    one = daemon('--trace', f'enable=chardev_close,file={trace}', '--chardev', f'pty,id=p,path={tmp_path}/link',
                 '--monitor', 'chardev=p')
    path = filename(one.qmp, 'p').removeprefix('pty:')
    assert os.readlink(tmp_path / 'link') == path
    for turn in range(1, 6):
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        assert not termios.tcgetattr(fd)[3] & (termios.ECHO | termios.ICANON)
        session = assert_monitor(Descriptors(fd, fd))
        session.close()
        # Who opens it before the end has been noticed goes on with the same session.
        wait_for(lambda: f'chardev p session {turn}\n' in trace.read_text(), 'the end of the session')
    one.stop()
    assert not os.path.lexists(tmp_path / 'link')


def test_pty_is_told(tmp_path):
    """Who adds it on the command line reads the path on standard output."""
    with background(program('ashlar-storaged'), '--chardev', 'pty,id=p', stdout=subprocess.PIPE, text=True) as process:
        words = process.stdout.readline().split()
        assert words[:4] == ['char', 'device', 'redirected', 'to'] and words[5:] == ['(label', 'p)']
        assert os.path.exists(words[4])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_pty_with_socat(daemon):
    one = daemon('--chardev', 'pty,id=p', '--monitor', 'chardev=p')
    path = filename(one.qmp, 'p').removeprefix('pty:')
    with background(need('socat'), '-', f'{path},raw,echo=0', stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        assert b'"QMP"' in peer.stdout.readline()
        peer.stdin.write(b'{"execute": "qmp_capabilities"}')
        peer.stdin.flush()
        assert peer.stdout.readline() == b'{"return": {}}\r\n'


def test_pty_whose_reader_is_stuck(daemon):
    """A terminal has room for a few kilobytes; then its monitor waits, and the others do not."""
    one = daemon('--chardev', 'pty,id=p', '--monitor', 'chardev=p')
    path = filename(one.qmp, 'p').removeprefix('pty:')
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b'{"execute": "qmp_capabilities"}{"execute": "query-qmp-schema"}')
    for _ in range(10):
        one.qmp.command('query-version')
    os.close(fd)
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    # What the terminal still holds of the old session comes first.
    read_for(fd, b'{"QMP"')
    os.close(fd)


def test_pty_path_in_the_way(daemon, tmp_path):
    (tmp_path / 'taken').write_text('')
    reply = daemon().qmp.execute('chardev-add', {'id': 'p', 'backend': {'type': 'pty', 'data': {'path': f'{tmp_path}/taken'}}})
    assert reply['error']['desc'] == f"Failed to add chardev 'p': Failed to create PTY symlink '{tmp_path}/taken': File exists"


# --- stdio ---

def test_stdio(tmp_path):
    """A whole session through pipes; all answers come though standard input has ended."""
    commands = '{"execute": "qmp_capabilities"}{"execute": "query-chardev"}{"execute": "query-commands"}{"execute": "quit"}'
    done = subprocess.run([program('ashlar-storaged'), '--chardev', 'stdio,id=s', '--monitor', 'chardev=s'], input=commands,
                          capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[2]['return'] == [{'label': 's', 'filename': 'stdio', 'frontend-open': True}]
    assert [line for line in lines if 'return' in line][-1] == {'return': {}}


def test_stdio_from_a_file(tmp_path):
    (tmp_path / 'in').write_text('{"execute": "qmp_capabilities"}{"execute": "quit"}')
    with open(tmp_path / 'in', encoding='ascii') as commands:
        done = subprocess.run([program('ashlar-storaged'), '--chardev', 'stdio,id=s', '--monitor', 'chardev=s'], stdin=commands,
                              capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert '"QMP"' in done.stdout


@pytest.mark.parametrize('signals', ['on', 'off'])
def test_stdio_on_a_terminal(tmp_path, signals):
    """No echo, no lines; Ctrl-C as told; and the terminal is afterwards as it was before."""
    looked, tell = os.pipe()
    pid, fd = pty.fork()
    if pid == 0:
        os.read(looked, 1)  # the daemon changes the terminal as soon as it starts
        os.execv(program('ashlar-storaged'), ['storaged', '--chardev', f'stdio,id=s,signal={signals}', '--monitor', 'chardev=s'])
    before = termios.tcgetattr(fd)
    assert before[3] & termios.ECHO
    os.write(tell, b'x')
    read_for(fd, b'"QMP"')
    assert not termios.tcgetattr(fd)[3] & (termios.ECHO | termios.ICANON)
    assert bool(termios.tcgetattr(fd)[3] & termios.ISIG) == (signals == 'on')
    os.write(fd, b'{"execute": "qmp_capabilities"}')
    assert b'execute' not in read_for(fd, b'"return"')
    os.write(fd, b'\x03' if signals == 'on' else b'{"execute": "quit"}')
    with contextlib.suppress(OSError):
        while os.read(fd, 4096):
            pass
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    for one in (fd, looked, tell):
        os.close(one)


def test_stdio_restores_the_terminal(tmp_path):
    """The other side of the terminal stays open, so that one can look."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen([program('ashlar-storaged'), '--chardev', 'stdio,id=s', '--monitor', 'chardev=s'], stdin=theirs,
                               stdout=theirs)
    read_for(ours, b'"QMP"')
    assert termios.tcgetattr(theirs) != before
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        if select.select([ours], [], [], 0.01)[0]:
            os.read(ours, 65536)
    assert process.returncode == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


# --- FIFOs and files ---

def test_pipe(daemon, tmp_path):
    """Writers and readers of the FIFOs come and go; the daemon opens both without waiting."""
    os.mkfifo(tmp_path / 'p.in')
    os.mkfifo(tmp_path / 'p.out')
    daemon('--chardev', f'pipe,id=p,path={tmp_path}/p', '--monitor', 'chardev=p')
    reading = os.open(tmp_path / 'p.out', os.O_RDONLY)
    assert b'"QMP"' in read_for(reading, b'\n')
    for command in ('qmp_capabilities', 'query-version', 'query-chardev'):
        (tmp_path / 'p.in').write_text(json.dumps({'execute': command}))
        assert b'"return"' in read_for(reading, b'\n')
    os.close(reading)


def test_pipe_of_one(daemon, tmp_path):
    """What is written is read again: a FIFO for both directions is a mirror."""
    os.mkfifo(tmp_path / 'p')
    qmp = daemon('--chardev', f'pipe,id=p,path={tmp_path}/p').qmp
    assert filename(qmp, 'p') == 'pipe'


def test_file(daemon, tmp_path):
    (tmp_path / 'in').write_text('{"execute": "qmp_capabilities"}{"execute": "query-version"}')
    (tmp_path / 'out').write_text('x' * 1000)
    daemon('--chardev', f'file,id=f,path={tmp_path}/out,input-path={tmp_path}/in', '--monitor', 'chardev=f')
    wait_for(lambda: (tmp_path / 'out').read_text().count('"return"') == 2, 'both answers')
    assert (tmp_path / 'out').read_text().startswith('{"QMP"')


def test_file_appends(daemon, tmp_path):
    (tmp_path / 'out').write_text('before\n')
    daemon('--chardev', f'file,id=f,path={tmp_path}/out,append=on', '--monitor', 'chardev=f')
    wait_for(lambda: '"QMP"' in (tmp_path / 'out').read_text(), 'the greeting')
    assert (tmp_path / 'out').read_text().startswith('before\n{"QMP"')


def test_file_that_is_a_fifo(daemon, tmp_path):
    """It neither stops the start, nor does its input end with a writer."""
    os.mkfifo(tmp_path / 'in')
    os.mkfifo(tmp_path / 'out')
    daemon('--chardev', f'file,id=f,path={tmp_path}/out,input-path={tmp_path}/in', '--monitor', 'chardev=f')
    reading = open_when_there(tmp_path / 'out', os.O_RDONLY)
    read_for(reading, b'"QMP"')
    for command in ('qmp_capabilities', 'query-version'):
        (tmp_path / 'in').write_text(json.dumps({'execute': command}))
        read_for(reading, b'"return"')
    os.close(reading)


def test_serial(daemon):
    """A pseudo-terminal in the place of a serial line."""
    ours, theirs = pty.openpty()
    daemon('--chardev', f'serial,id=s,path={os.ttyname(theirs)}', '--monitor', 'chardev=s')
    settings = termios.tcgetattr(theirs)
    assert settings[4:6] == [termios.B115200, termios.B115200]
    assert not settings[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert_monitor(Descriptors(ours, ours))
    os.close(theirs)


# --- datagrams ---

def test_udp(daemon):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
        daemon('--chardev', f'udp,id=u,host=127.0.0.1,port={port}', '--monitor', 'chardev=u')
        greeting, peer = sock.recvfrom(65536)
        assert greeting.startswith(b'{"QMP"')
        for part in (b'{"execute": ', b'"qmp_capabilities"}', b'', b' '):
            sock.sendto(part, peer)
        assert sock.recv(65536) == b'{"return": {}}\r\n'
        # Strangers are not heard.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b'{"execute": "quit"}', peer)
        sock.sendto(b'{"execute": "query-version"}', peer)
        assert b'"qemu"' in sock.recv(65536)


def test_udp_with_socat_and_own_port(daemon):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as here, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as there:
        here.bind(('::1', 0))
        there.bind(('::1', 0))
        own, remote = here.getsockname()[1], there.getsockname()[1]
    one = daemon('--chardev', f'udp,id=u,host=::1,port={remote},localaddr=::1,localport={own}', '--monitor', 'chardev=u')
    with background(need('socat'), '-', f'UDP6:[::1]:{own},bind=[::1]:{remote}', stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE) as peer:
        peer.stdin.write(b'{"execute": "qmp_capabilities"}')
        peer.stdin.flush()
        assert b'"return"' in peer.stdout.readline()
    one.qmp.command('query-version')


def test_udp_addresses(daemon):
    qmp = daemon().qmp
    address = {'type': 'inet', 'data': {'host': 'nosuch.invalid', 'port': '9'}}
    good = {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': '9'}}
    for data in ({'remote': address}, {'remote': good, 'local': address}):
        reply = qmp.execute('chardev-add', {'id': 'u', 'backend': {'type': 'udp', 'data': data}})
        assert reply['error']['desc'].startswith("Failed to add chardev 'u': address resolution failed for nosuch.invalid:9: ")
