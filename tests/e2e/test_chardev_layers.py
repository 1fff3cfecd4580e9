# SPDX-License-Identifier: LGPL-2.1-or-later
"""Telnet, WebSocket and TLS on sockets, against clients that were written elsewhere or by hand."""
import ssl
import subprocess

import pytest

from chardev_peers import (WebSocket, assert_monitor, receive_all, receive_exactly, receive_until, tcp_port, unix_connect,
                           unix_listen, wait_connected, wait_disconnected, websocket_accept)
from harness import PATIENCE_S, background, need, run, wait_for

IAC, DONT, DO, WONT, WILL, SB, BRK, NOP, EOR, SE = 255, 254, 253, 252, 251, 250, 243, 241, 239, 240
TELNET_GREETING = bytes([IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, DO, 0])


@pytest.fixture
def served(daemon, tmp_path):
    """served(OPTIONS): a daemon with a monitor on a socket with these options, and how to connect to it."""
    def start(options, *more):
        one = daemon(*more, '--chardev', f'socket,id=c,path={tmp_path}/s,server=on,wait=off,{options}', '--monitor', 'chardev=c')
        return one, lambda: unix_connect(tmp_path / 's')
    return start


# --- telnet ---

def test_telnet(served):
    _, connect = served('telnet=on')
    with connect() as sock:
        assert receive_exactly(sock, len(TELNET_GREETING)) == TELNET_GREETING
        sock.sendall(bytes([IAC, DO, 1, IAC, DO, 3, IAC, WILL, 0, IAC, DO, 0]))
        assert_monitor(sock)


def test_telnet_commands_are_no_input(served):
    """In the middle of a command, cut at any byte."""
    _, connect = served('telnet=on')
    noise = bytes([IAC, NOP, IAC, SB, 31, 0, 80, IAC, IAC, 25, IAC, SE, IAC, BRK, IAC, WILL, 31])
    command = b'{"execute": "qmp_' + noise + b'capabilities"}\r\0\r\n'
    with connect() as sock:
        receive_exactly(sock, len(TELNET_GREETING))
        receive_until(sock, b'\n')
        for i in range(len(command)):
            sock.sendall(command[i:i + 1])
        assert receive_exactly(sock, 3) == bytes([IAC, DONT, 31])
        assert receive_until(sock, b'\n') == b'{"return": {}}\r\n'


def test_telnet_by_tcp_with_socat(daemon):
    one = daemon('--chardev', 'socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,telnet=on', '--monitor', 'chardev=c')
    port = tcp_port(one.qmp, 'c')
    done = subprocess.run([need('socat'), '-t', '60', '-', f'TCP:127.0.0.1:{port}'], input=b'{"execute": "qmp_capabilities"}',
                          capture_output=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.startswith(TELNET_GREETING)
    assert done.stdout.endswith(b'{"return": {}}\r\n')


def test_telnet_quotes_output(daemon, tmp_path):
    """A chardev that hands on bytes: 255 goes out doubled, and comes in doubled."""
    one = daemon('--chardev', f'socket,id=t,path={tmp_path}/t,server=on,wait=off,telnet=on')
    with unix_connect(tmp_path / 't') as sock:
        assert receive_exactly(sock, len(TELNET_GREETING)) == TELNET_GREETING
        wait_connected(one.qmp, 't')
        one.qmp.command('chardev-send-break', id='t')
        assert receive_exactly(sock, 2) == bytes([IAC, BRK])


def test_telnet_flood_of_options(served):
    """A million requests that all have to be refused, by a client that does not listen."""
    one, connect = served('telnet=on')
    with connect() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                sock.send(bytes([IAC, DO, 99]) * 10000)
        one.qmp.command('query-version')
        assert one.memory_kib() < 512 * 1024
    with connect() as sock:
        receive_exactly(sock, len(TELNET_GREETING))
        assert_monitor(sock)


def test_tn3270_greeting(served):
    _, connect = served('tn3270=on')
    with connect() as sock:
        assert receive_exactly(sock, 21) == bytes([IAC, DO, 25, IAC, WILL, 25, IAC, DO, 0, IAC, WILL, 0, IAC, DO, 24,
                                                   IAC, SB, 24, 1, IAC, SE])


# --- WebSocket ---

def test_websocket(served):
    one, connect = served('websocket=on')
    with connect() as sock:
        websocket = WebSocket(sock)
        assert 'Sec-WebSocket-Protocol: binary\r\n' in websocket.reply
        assert_monitor(websocket)
        sock.sendall(websocket.frame(websocket.PING, b'are you there'))
        assert websocket.receive_frame() == (websocket.PONG, b'are you there')
        sock.sendall(websocket.frame(websocket.CLOSE, b'\x03\xe8bye'))
        assert websocket.receive_frame() == (websocket.CLOSE, b'\x03\xe8')
        assert receive_all(sock) == b''
    wait_disconnected(one.qmp, 'c')


def test_websocket_fragments(served):
    """A command in text frames of one byte, with pings between them."""
    _, connect = served('websocket=on')
    with connect() as sock:
        websocket = WebSocket(sock, protocols='chat')
        assert 'Sec-WebSocket-Protocol' not in websocket.reply
        websocket.receive_frame()
        text = b'{"execute": "qmp_capabilities"}'
        frames = b''
        for i in range(len(text)):
            frames += websocket.frame(websocket.TEXT if i == 0 else 0, text[i:i + 1], final=i == len(text) - 1)
            frames += websocket.frame(websocket.PING, b'') if i == 7 else b''
        for i in range(len(frames)):
            sock.sendall(frames[i:i + 1])
        assert websocket.receive_frame() == (websocket.PONG, b'')
        assert websocket.receive_frame() == (websocket.BINARY, b'{"return": {}}\r\n')


def test_websocket_large_frames(served):
    _, connect = served('websocket=on')
    with connect() as sock:
        qmp = assert_monitor(WebSocket(sock))
        padding = ' ' * 300000
        qmp.send_raw('{"execute": "query-version"' + padding + '}')
        assert 'return' in qmp.reply()
        assert len(qmp.command('query-qmp-schema')) > 100


HOSTILE = {
    'not masked': bytes([0x82, 0x01]) + b'x',
    'reserved bits': bytes([0xf2, 0x81, 0, 0, 0, 0]) + b'x',
    'unknown opcode': bytes([0x83, 0x81, 0, 0, 0, 0]) + b'x',
    'continuation of nothing': bytes([0x80, 0x81, 0, 0, 0, 0]) + b'x',
    'fragmented ping': bytes([0x09, 0x80, 0, 0, 0, 0]),
    'long ping': bytes([0x89, 0xfe, 0, 200, 0, 0, 0, 0]) + b'x' * 200,
    'length of 64 bits': bytes([0x82, 0xff]) + b'\xff' * 8 + bytes(4),
    'length in too many bytes': bytes([0x82, 0xfe, 0, 1, 0, 0, 0, 0]) + b'x',
    'close with half a status': bytes([0x88, 0x81, 0, 0, 0, 0, 3]),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_websocket_violations(served, name):
    """The close frame says 1002, and the next client is served."""
    _, connect = served('websocket=on')
    with connect() as sock:
        websocket = WebSocket(sock)
        websocket.receive_frame()
        sock.sendall(HOSTILE[name])
        assert websocket.receive_frame() == (websocket.CLOSE, b'\x03\xea')
        assert receive_all(sock) == b''
    with connect() as sock:
        assert_monitor(WebSocket(sock))


def test_websocket_endless_frame(served):
    """A frame of 2^62 bytes costs no memory, whatever of it comes."""
    one, connect = served('websocket=on')
    with connect() as sock:
        websocket = WebSocket(sock)
        websocket.receive_frame()
        sock.sendall(bytes([0x82, 0xff]) + (1 << 62).to_bytes(8, 'big') + bytes(4) + b' ' * 1000000)
        one.qmp.command('query-version')
        assert one.memory_kib() < 512 * 1024


def test_websocket_handshakes_that_are_wrong(served):
    _, connect = served('websocket=on')
    with connect() as sock:
        sock.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        assert receive_all(sock).startswith(b'HTTP/1.1 400 ')
    with connect() as sock:
        sock.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                     b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 7\r\n\r\n')
        reply = receive_all(sock)
        assert reply.startswith(b'HTTP/1.1 426 ')
        assert b'Sec-WebSocket-Version: 13\r\n' in reply
    with connect() as sock:
        with pytest.raises(OSError):
            while True:
                sock.sendall(b'x' * 10000)
    with connect() as sock:
        assert_monitor(WebSocket(sock))


def test_websocket_client(daemon, tmp_path):
    """Ours as the client, with a server by hand; and the server's refusal."""
    with unix_listen(tmp_path / 's') as listening:
        one = daemon('--chardev', f'socket,id=c,path={tmp_path}/s,websocket=on,reconnect-ms=5', '--monitor', 'chardev=c')
        sock, _ = listening.accept()
        with sock:
            sock.settimeout(PATIENCE_S)
            receive_until(sock, b'\r\n\r\n')
            sock.sendall(b'HTTP/1.1 404 Not Found\r\n\r\n')
            wait_for(lambda: 'refused: HTTP/1.1 404 Not Found' in one.stderr, 'the complaint')
        sock, _ = listening.accept()
        with sock:
            sock.settimeout(PATIENCE_S)
            request = receive_until(sock, b'\r\n\r\n').decode()
            assert 'Host: localhost\r\n' in request
            key = request.split('Sec-WebSocket-Key: ')[1].split('\r\n')[0]
            sock.sendall(f'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                         f'Sec-WebSocket-Accept: {websocket_accept(key)}\r\n\r\n'.encode())
            first, length = receive_exactly(sock, 2)
            assert first == 0x82 and length & 0x80, 'a client masks'
            size = int.from_bytes(receive_exactly(sock, 2), 'big') if length & 0x7f == 126 else length & 0x7f
            mask = receive_exactly(sock, 4)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(receive_exactly(sock, size)))
            assert payload.startswith(b'{"QMP"')


def test_peer_that_does_not_shake_hands(served):
    """It is dropped after a while, and then the next one is served."""
    _, connect = served('websocket=on')
    with connect() as silent, connect() as sock:
        silent.sendall(b'GET')
        assert_monitor(WebSocket(sock))
        assert receive_all(silent) == b''


# --- TLS ---

@pytest.fixture(scope='module')
def certificates(tmp_path_factory):
    """An authority, and certificates for 'localhost' and a client, as tls-creds-x509 wants them."""
    path = tmp_path_factory.mktemp('tls')
    certtool = need('certtool')
    for name in ('ca', 'server', 'client'):
        run(certtool, '--generate-privkey', '--key-type=ecdsa', '--outfile', path / f'{name}-key.pem')
    (path / 'ca.info').write_text('cn = test\nca\ncert_signing_key\nexpiration_days = 10\n')
    (path / 'server.info').write_text('cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\n'
                                      'encryption_key\nsigning_key\nexpiration_days = 10\n')
    (path / 'client.info').write_text('cn = alice\ntls_www_client\nencryption_key\nsigning_key\nexpiration_days = 10\n')
    run(certtool, '--generate-self-signed', '--load-privkey', path / 'ca-key.pem', '--template', path / 'ca.info',
        '--outfile', path / 'ca-cert.pem')
    for name in ('server', 'client'):
        run(certtool, '--generate-certificate', '--load-ca-certificate', path / 'ca-cert.pem', '--load-ca-privkey',
            path / 'ca-key.pem', '--load-privkey', path / f'{name}-key.pem', '--template', path / f'{name}.info',
            '--outfile', path / f'{name}-cert.pem')
    return path


def tls_client(certificates, sock, with_certificate=True):
    context = ssl.create_default_context(cafile=str(certificates / 'ca-cert.pem'))
    if with_certificate:
        context.load_cert_chain(certificates / 'client-cert.pem', certificates / 'client-key.pem')
    return context.wrap_socket(sock, server_hostname='localhost')


def test_tls(served, certificates):
    one, connect = served('tls-creds=t', '--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=server')
    with tls_client(certificates, connect()) as sock:
        assert_monitor(sock)
    wait_disconnected(one.qmp, 'c')
    with tls_client(certificates, connect()) as sock:
        assert_monitor(sock)


def test_tls_wants_a_certificate(served, certificates):
    _, connect = served('tls-creds=t', '--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=server')
    with connect() as sock:
        sock.sendall(b'{"execute": "qmp_capabilities"}\n' * 10)
        receive_all(sock)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        with tls_client(certificates, connect(), with_certificate=False) as sock:
            assert_monitor(sock)
    with tls_client(certificates, connect()) as sock:
        assert_monitor(sock)


@pytest.mark.parametrize('identity,welcome', [('CN=alice', True), ('CN=bob', False)])
def test_tls_authorization(served, certificates, identity, welcome):
    one, connect = served('tls-creds=t,tls-authz=a',
                          '--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=server',
                          '--object', f'authz-simple,id=a,identity={identity}')
    with tls_client(certificates, connect()) as sock:
        if welcome:
            assert_monitor(sock)
        else:
            assert not receive_all_tls(sock)
    one.qmp.command('query-version')


def receive_all_tls(sock):
    try:
        return receive_all(sock)
    except ssl.SSLError:
        return b''


def test_tls_with_gnutls_cli(daemon, certificates):
    one = daemon('--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=server,verify-peer=off',
                 '--chardev', 'socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=t', '--monitor', 'chardev=c')
    port = tcp_port(one.qmp, 'c')
    with background(need('gnutls-cli'), '--x509cafile', certificates / 'ca-cert.pem', '--sni-hostname=localhost',
                    '--verify-hostname=localhost', '-p', port, '127.0.0.1', stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE) as client:
        client.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        client.stdin.flush()
        while b'{"return": {}}' not in (line := client.stdout.readline()):
            assert line, 'the end'


def test_tls_client_and_websocket(daemon, certificates, tmp_path):
    """Ours calls ours, over TCP with TLS, WebSocket and telnet all at once."""
    server = daemon('--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=server',
                    '--chardev', 'socket,id=c,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=t,websocket=on,telnet=on',
                    '--monitor', 'chardev=c')
    port = tcp_port(server.qmp, 'c')
    client = daemon('--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=client',
                    '--chardev', f'socket,id=n,host=127.0.0.1,port={port},tls-creds=t,websocket=on,telnet=on',
                    '--chardev', f'socket,id=u,path={tmp_path}/u,server=on,wait=off')
    assert wait_connected(client.qmp, 'n').startswith('telnet:127.0.0.1:')
    wait_connected(server.qmp, 'c')


def test_tls_server_that_is_another(daemon, certificates, tmp_path):
    """The name in the certificate is not the one that was called."""
    server = daemon('--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=server',
                    '--chardev', 'socket,id=c,host=127.0.0.2,port=0,server=on,wait=off,tls-creds=t')
    port = tcp_port(server.qmp, 'c')
    qmp = daemon('--object', f'tls-creds-x509,id=t,dir={certificates},endpoint=client').qmp
    reply = qmp.execute('chardev-add', {'id': 'x', 'backend': {'type': 'socket', 'data': {
        'addr': {'type': 'inet', 'data': {'host': '127.0.0.2', 'port': str(port)}}, 'server': False, 'tls-creds': 't'}}})
    assert reply['error']['desc'].startswith("Failed to add chardev 'x': ")
    assert '127.0.0.2' in reply['error']['desc']


def test_tls_psk(served, tmp_path):
    run(need('psktool'), '-u', 'alice', '-p', tmp_path / 'keys.psk')
    key = (tmp_path / 'keys.psk').read_text().strip().split(':')[1]
    one, _ = served('tls-creds=t', '--object', f'tls-creds-psk,id=t,dir={tmp_path},endpoint=server',
                    '--chardev', 'socket,id=p,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=t', '--monitor', 'chardev=p')
    port = tcp_port(one.qmp, 'p')
    with background(need('gnutls-cli'), '--pskusername=alice', f'--pskkey={key}',
                    '--priority=NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK', '-p', port, '127.0.0.1', stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE) as client:
        client.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        client.stdin.flush()
        while b'{"return": {}}' not in (line := client.stdout.readline()):
            assert line, 'the end'
