# SPDX-License-Identifier: LGPL-2.1-or-later
"""mux: several monitors on one character device; hub: one monitor on several."""
import json
import subprocess

from chardev_peers import assert_monitor, chardev, receive_all, receive_until, unix_connect, wait_connected
from harness import PATIENCE_S, program, storaged_fails

HELP_END = b'C-a C-a  send C-a\n\r'
COMMAND = b'{"execute": "%s"}'


def receive_line(sock):
    return json.loads(receive_until(sock, b'\n'))


def test_two_monitors(daemon, tmp_path):
    """Both greet; input goes to the one in focus, first the one that was added last; Ctrl-A c goes round."""
    one = daemon('--chardev', f'socket,id=m,path={tmp_path}/s,server=on,wait=off,mux=on',
                 '--monitor', 'chardev=m', '--monitor', 'chardev=m')
    assert chardev(one.qmp, 'm') == {'label': 'm', 'filename': 'mux', 'frontend-open': True}
    assert chardev(one.qmp, 'm-base')['frontend-open']
    with unix_connect(tmp_path / 's') as sock:
        for _ in range(2):
            assert 'QMP' in receive_line(sock)
        sock.sendall(COMMAND % b'qmp_capabilities')
        assert receive_line(sock) == {'return': {}}
        sock.sendall(b'\x01c' + COMMAND % b'query-version')
        assert receive_line(sock)['error']['class'] == 'CommandNotFound'
        sock.sendall(b'\x01c' + COMMAND % b'query-version')
        assert 'qemu' in receive_line(sock)['return']


def test_commands_of_the_escape_key(daemon, tmp_path):
    daemon('--chardev', f'socket,id=m,path={tmp_path}/s,server=on,wait=off,mux=on', '--monitor', 'chardev=m')
    with unix_connect(tmp_path / 's') as sock:
        receive_line(sock)
        sock.sendall(b'\x01h')
        assert receive_until(sock, HELP_END).startswith(b'\n\rC-a h ')
        sock.sendall(b'\x01b\x01z\x01t' + COMMAND % b'qmp_capabilities')
        assert receive_until(sock, b'{"return": {}}\r\n').endswith(b'] {"return": {}}\r\n')


def test_quit_by_the_escape_key():
    done = subprocess.run([program('ashlar-storaged'), '--chardev', 'stdio,id=m,mux=on', '--monitor', 'chardev=m'],
                          input=b'\x01x', capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0


def test_limit_of_front_ends(tmp_path):
    monitors = ['--monitor', 'chardev=m'] * 5
    assert storaged_fails('--chardev', 'null,id=m,mux=on', *monitors).endswith("Device 'm' is in use")


def test_mux_over_a_named_base(daemon, tmp_path):
    one = daemon('--chardev', f'socket,id=b,path={tmp_path}/s,server=on,wait=off', '--chardev', 'mux,id=m,chardev=b',
                 '--monitor', 'chardev=m')
    with unix_connect(tmp_path / 's') as sock:
        assert_monitor(sock)
        wait_connected(one.qmp, 'b')
    with unix_connect(tmp_path / 's') as sock:
        assert_monitor(sock)


def test_half_closed_mux(daemon, tmp_path):
    """All answers come, of both monitors."""
    daemon('--chardev', f'socket,id=m,path={tmp_path}/s,server=on,wait=off,mux=on', '--monitor', 'chardev=m',
           '--monitor', 'chardev=m')
    with unix_connect(tmp_path / 's') as sock:
        session = COMMAND % b'qmp_capabilities' + COMMAND % b'query-commands' * 20
        sock.sendall(session + b'\x01c' + session)
        sock.shutdown(1)
        lines = [json.loads(line) for line in receive_all(sock).splitlines()]
    assert len([line for line in lines if 'return' in line]) == 42


def test_mux_that_nobody_reads(daemon, tmp_path):
    """Front ends that have to wait for a stuck peer do not make others wait."""
    one = daemon('--chardev', f'socket,id=m,path={tmp_path}/s,server=on,wait=off,mux=on', '--monitor', 'chardev=m',
                 '--monitor', 'chardev=m')
    with unix_connect(tmp_path / 's') as sock:
        sock.sendall(COMMAND % b'qmp_capabilities' + COMMAND % b'query-qmp-schema' * 20)
        receive_until(sock, b'"return"')
        for _ in range(10):
            one.qmp.command('query-version')
    with unix_connect(tmp_path / 's') as sock:
        receive_line(sock)


def test_hub(daemon, tmp_path):
    """One monitor on two sockets and a ring buffer: commands from either, answers to all."""
    one = daemon('--chardev', f'socket,id=a,path={tmp_path}/a,server=on,wait=off',
                 '--chardev', f'socket,id=b,path={tmp_path}/b,server=on,wait=off',
                 '--chardev', 'ringbuf,id=r', '--chardev', 'hub,id=h,chardevs.0=a,chardevs.1=b,chardevs.2=r',
                 '--monitor', 'chardev=h')
    assert chardev(one.qmp, 'h') == {'label': 'h', 'filename': 'hub', 'frontend-open': True}
    assert '"QMP"' in one.qmp.command('ringbuf-read', device='r', size=65536)
    with unix_connect(tmp_path / 'a') as first, unix_connect(tmp_path / 'b') as second:
        wait_connected(one.qmp, 'a')
        wait_connected(one.qmp, 'b')
        first.sendall(COMMAND % b'qmp_capabilities')
        assert receive_line(first) == receive_line(second) == {'return': {}}
        second.sendall(COMMAND % b'query-version')
        assert receive_line(first) == receive_line(second)
        assert one.qmp.command('ringbuf-read', device='r', size=65536).count('"return"') == 2
        first.close()
        second.sendall(COMMAND % b'query-version')
        assert 'return' in receive_line(second)


def test_hub_that_is_wrong(daemon):
    qmp = daemon('--chardev', 'null,id=n', '--chardev', 'null,id=o').qmp

    def refusal(*ids):
        reply = qmp.execute('chardev-add', {'id': 'h', 'backend': {'type': 'hub', 'data': {'chardevs': list(ids)}}})
        return reply['error']['desc']
    assert refusal() == "Failed to add chardev 'h': hub: 'chardevs' list is empty"
    assert refusal('n', 'z') == "Failed to add chardev 'h': hub: chardev can't be found by id 'z'"
    assert refusal('n', 'n') == "Failed to add chardev 'h': Device 'n' is in use"
    assert 'maximum is 4' in refusal('n', 'o', 'p', 'q', 'r')
    # What was taken for it is free again.
    assert qmp.command('chardev-remove', id='n') == {}
