# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of libvirt's RPC that can say what a well-behaved one does not."""
import socket
import struct

from harness import PATIENCE_S

REMOTE, KEEPALIVE, ADMIN = 0x20008086, 0x6b656570, 0x06900690
CALL, REPLY, MESSAGE, STREAM, CALL_WITH_FDS, REPLY_WITH_FDS, STREAM_HOLE = range(7)
OK, ERROR, CONTINUE = range(3)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack('>I', len(data)) + data + bytes(-len(data) % 4)


def optional(text):
    return struct.pack('>I', 0) if text is None else struct.pack('>I', 1) + string(text)


def words(*values):
    return b''.join(struct.pack('>i' if value < 0 else '>I', value) for value in values)


class Packet:
    def __init__(self, data):
        self.program, self.version, self.procedure, self.type, self.serial, self.status = struct.unpack('>IIiIII', data[:24])
        self.body = data[24:]

    def error(self):
        """(code, domain, message)"""
        assert self.status == ERROR, vars(self)
        code, domain, present, size = struct.unpack('>iiII', self.body[:16])
        assert present == 1
        return code, domain, self.body[16:16 + size].decode()


class Raw:
    def __init__(self, path, program=REMOTE):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))
        self.program = program
        self.serial = 0

    def send(self, procedure, body=b'', **fields):
        """Sends a packet, as a call where `fields` says nothing else; its serial."""
        header = {'program': self.program, 'version': 1, 'type': CALL, 'serial': self.serial, 'status': OK} | fields
        self.serial += 1
        self.sock.sendall(struct.pack('>IIIiIII', 28 + len(body), header['program'], header['version'], procedure,
                                      header['type'], header['serial'], header['status']) + body)
        return header['serial']

    def receive(self):
        """The next packet, or None where the other end has closed."""
        size = self._bytes(4)
        return Packet(self._bytes(struct.unpack('>I', size)[0] - 4)) if size else None

    def call(self, procedure, body=b'', **fields):
        serial = self.send(procedure, body, **fields)
        packet = self.receive()
        assert packet and packet.type == REPLY and packet.serial == serial, packet and vars(packet)
        return packet

    def open(self, uri, flags=0):
        return self.call(1, optional(uri) + words(flags))

    def closed(self):
        """Whether the other end closes without another word."""
        try:
            return self.sock.recv(1) == b''
        except ConnectionResetError:
            return True

    def _bytes(self, size):
        data = b''
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                assert not data, 'the connection ends amid a packet'
                return None
            data += more
        return data
