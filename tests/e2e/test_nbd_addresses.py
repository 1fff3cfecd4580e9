# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the NBD server listens: Unix sockets, TCP over IPv4 and IPv6, passed descriptors, vsock."""
import socket

import pytest

from harness import QmpError, storaged_fails
from nbd_raw import NbdRaw
from nbd_serving import Served, free_port


@pytest.fixture
def served(daemon, tmp_path):
    served = Served(daemon, tmp_path)
    served.qmp.command('nbd-server-stop')
    return served


def start(served, kind, **data):
    data = {key.replace('_', '-'): value for key, value in data.items()}
    served.qmp.command('nbd-server-start', addr={'type': kind, 'data': data})
    served.qmp.command('block-export-add', type='nbd', id='again', node_name='disk', name='x')


def check(address):
    with NbdRaw.open(address, 'x') as client:
        assert client.read(0, 512)


def refused(address):
    with pytest.raises(OSError):
        NbdRaw.connect(address)


def test_unix_socket_is_removed(served, tmp_path):
    path = tmp_path / 'other.sock'
    start(served, 'unix', path=str(path))
    check(path)
    served.qmp.command('nbd-server-stop')
    assert not path.exists()


def test_unix_socket_is_removed_at_the_end(daemon, tmp_path):
    """The reference leaves it there after a signal."""
    served = Served(daemon, tmp_path)
    assert served.path.exists()
    served.daemon.stop()
    assert not served.path.exists()


def test_abstract(served, tmp_path):
    name = f'ashlar-test-{tmp_path.name}'
    start(served, 'unix', path=name, abstract=True)
    check('\0' + name)


def test_ipv4(served):
    port = free_port()
    start(served, 'inet', host='127.0.0.1', port=str(port))
    check(('127.0.0.1', port))
    refused(('::1', port))


def test_ipv6(served):
    port = free_port()
    start(served, 'inet', host='::1', port=str(port))
    check(('::1', port))
    refused(('127.0.0.1', port))


def test_any_address(served):
    port = free_port()
    start(served, 'inet', host='', port=str(port))
    check(('127.0.0.1', port))
    check(('::1', port))


def test_one_family_only(served):
    port = free_port()
    start(served, 'inet', host='', port=str(port), ipv6=False)
    check(('127.0.0.1', port))
    refused(('::1', port))


def test_port_range(served):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(QmpError, match='Address already in use'):
            start(served, 'inet', host='127.0.0.1', port=str(port))
        start(served, 'inet', host='127.0.0.1', port=str(port), to=min(port + 50, 65535))
        found = [candidate for candidate in range(port + 1, min(port + 50, 65535) + 1) if answers(candidate)]
        assert len(found) == 1
        check(('127.0.0.1', found[0]))


def answers(port):
    try:
        with NbdRaw.connect(('127.0.0.1', port)):
            return True
    except (OSError, AssertionError):
        return False


def test_tcp_restart_on_the_same_port(served):
    """No waiting for old connections to be forgotten by the system."""
    port = free_port()
    for _ in range(3):
        start(served, 'inet', host='127.0.0.1', port=str(port))
        check(('127.0.0.1', port))
        served.qmp.command('nbd-server-stop')


def test_passed_descriptor(daemon, tmp_path):
    """The socket spawning of the manual: nobody has to wait for the daemon."""
    path = tmp_path / 'passed.sock'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        image = tmp_path / 'disk.img'
        image.write_bytes(b'passed' * 1000)
        early = socket.socket(socket.AF_UNIX)
        early.connect(str(path))
        daemon('--blockdev', f'file,node-name=disk,filename={image}',
               '--nbd-server', f'addr.type=fd,addr.str={listener.fileno()}',
               '--export', 'nbd,id=exp,node-name=disk,name=x', pass_fds=[listener.fileno()])
    client = NbdRaw(early)
    client.hello()
    client.go('x')
    assert client.read(0, 6) == b'passed'
    check(path)


def test_wrong_descriptors(served, tmp_path):
    for text in ('77', '-1', 'x', '1x', '99999999999999999999'):
        with pytest.raises(QmpError):
            start(served, 'fd', str=text)
    start(served, 'unix', path=str(served.path))
    check(served.path)


def test_vsock(served):
    """Where the system has vsock it listens, elsewhere the error says so; both leave the server usable."""
    try:
        start(served, 'vsock', cid='4294967295', port='19999')
        served.qmp.command('nbd-server-stop')
    except QmpError as error:
        assert 'vsock' in error.desc.lower(), error.desc
    for port in ('-1', 'x', '4294967296'):
        with pytest.raises(QmpError):
            start(served, 'vsock', cid='4294967295', port=port)
    start(served, 'unix', path=str(served.path))
    check(served.path)


def test_refused_addresses(served, tmp_path):
    for kind, data in (('unix', {'path': '/nonexistent/x.sock'}), ('unix', {'path': 'p' * 200}), ('unix', {'path': ''}),
                       ('inet', {'host': '127.0.0.1', 'port': '65536'}), ('inet', {'host': '127.0.0.1', 'port': 'no-such-service'}),
                       ('inet', {'host': '192.0.2.1', 'port': '0'}), ('inet', {'host': 'x', 'port': '1', 'numeric': True}),
                       ('inet', {'host': '', 'port': '0', 'ipv4': False, 'ipv6': False})):
        with pytest.raises(QmpError) as error:
            start(served, kind, **data)
        assert error.value.desc
    start(served, 'unix', path=str(served.path))
    check(served.path)


def test_refused_on_the_command_line(tmp_path):
    text = storaged_fails('--nbd-server', 'addr.type=unix,addr.path=/nonexistent/x.sock')
    assert '/nonexistent/x.sock' in text and 'No such file or directory' in text
    assert 'max-connections' in storaged_fails('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/s,max-connections=-1')
