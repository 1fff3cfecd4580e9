# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers of character devices that look like sockets to the QMP client of the harness."""
import base64
import contextlib
import hashlib
import os
import select
import socket
import time

from harness import PATIENCE_S, Qmp, wait_for

WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'


def unix_connect(path):
    """A socket connected to the path; one that begins with NUL is in the abstract namespace."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path if isinstance(path, bytes) else str(path))
    sock.settimeout(PATIENCE_S)
    return sock


def unix_listen(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.bind(str(path))
    sock.listen()
    return sock


def receive_exactly(sock, size):
    data = b''
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, f'the end after {data!r}'
        data += more
    return data


def receive_until(sock, end):
    data = b''
    while not data.endswith(end):
        more = sock.recv(1)
        assert more, f'the end after {data!r}'
        data += more
    return data


def receive_all(sock):
    """Everything up to the end."""
    data = b''
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            data += more
    return data


def chardev(qmp, label):
    """What query-chardev says of one."""
    return next(entry for entry in qmp.command('query-chardev') if entry['label'] == label)


def filename(qmp, label):
    return chardev(qmp, label)['filename']


def tcp_port(qmp, label):
    """The port that a listening chardev has found."""
    return int(filename(qmp, label).split(',')[0].rsplit(':', 1)[1])


def wait_connected(qmp, label):
    return wait_for(lambda: not filename(qmp, label).startswith('disconnected:') and filename(qmp, label),
                    f'{label} to be connected')


def wait_disconnected(qmp, label):
    wait_for(lambda: filename(qmp, label).startswith('disconnected:'), f'{label} to be disconnected')


def assert_monitor(sock):
    """There is a QMP monitor at the other end; the session."""
    qmp = Qmp(sock)
    assert 'qemu' in qmp.command('query-version')
    return qmp


class Descriptors:
    """A pair of descriptors, or one for both directions, as a socket."""

    def __init__(self, reading, writing):
        self.reading = reading
        self.writing = writing

    def settimeout(self, timeout):
        pass

    def recv(self, size):
        ready, _, _ = select.select([self.reading], [], [], PATIENCE_S)
        assert ready, 'nothing to read'
        return os.read(self.reading, size)

    def sendall(self, data):
        while data:
            data = data[os.write(self.writing, data):]

    def close(self):
        os.close(self.reading)
        if self.writing != self.reading:
            os.close(self.writing)


def websocket_accept(key):
    """What a server answers to a client's key."""
    return base64.b64encode(hashlib.sha1((key + WEBSOCKET_GUID).encode()).digest()).decode()


class WebSocket:
    """A WebSocket client, by hand: what others would hide can be seen and sent."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, sock, protocols='binary'):
        self.sock = sock
        self.mask = bytes([1, 2, 3, 0xff])
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall((f'GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                           f'Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n'
                           f'Sec-WebSocket-Protocol: {protocols}\r\n\r\n').encode())
        self.reply = receive_until(self.sock, b'\r\n\r\n').decode()
        assert self.reply.startswith('HTTP/1.1 101 '), self.reply
        assert f'Sec-WebSocket-Accept: {websocket_accept(key)}\r\n' in self.reply
        self.data = b''

    def frame(self, opcode, payload, final=True, masked=True):
        head = bytes([(0x80 if final else 0) | opcode])
        flag = 0x80 if masked else 0
        if len(payload) < 126:
            head += bytes([flag | len(payload)])
        elif len(payload) < 65536:
            head += bytes([flag | 126]) + len(payload).to_bytes(2, 'big')
        else:
            head += bytes([flag | 127]) + len(payload).to_bytes(8, 'big')
        if not masked:
            return head + payload
        return head + self.mask + bytes(byte ^ self.mask[i % 4] for i, byte in enumerate(payload))

    def receive_frame(self):
        first, length = receive_exactly(self.sock, 2)
        assert first & 0x80, 'a server of ours does not fragment'
        assert not length & 0x80, 'a server does not mask'
        if length == 126:
            length = int.from_bytes(receive_exactly(self.sock, 2), 'big')
        elif length == 127:
            length = int.from_bytes(receive_exactly(self.sock, 8), 'big')
        return first & 0x0f, receive_exactly(self.sock, length)

    def settimeout(self, timeout):
        self.sock.settimeout(timeout)

    def recv(self, size):
        while not self.data:
            opcode, payload = self.receive_frame()
            if opcode == self.CLOSE:
                return b''
            assert opcode == self.BINARY
            self.data = payload
        data, self.data = self.data[:size], self.data[size:]
        return data

    def sendall(self, data):
        self.sock.sendall(self.frame(self.BINARY, data))

    def close(self):
        self.sock.close()


def open_when_there(path, flags):
    """Opens a path that is about to appear."""
    wait_for(lambda: os.path.exists(path), f'{path} to appear')
    return os.open(path, flags | os.O_CLOEXEC)


def context_switches(pid):
    """How often the threads of a process have gone to sleep."""
    total = 0
    for thread in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{thread}/status', encoding='ascii') as status:
            total += sum(int(line.split()[1]) for line in status if line.startswith('voluntary_ctxt_switches'))
    return total


def settle(seconds):
    """Gives a daemon time for what it must not do."""
    time.sleep(seconds)
