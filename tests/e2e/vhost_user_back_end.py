# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vhost-user-blk back end for tests of front ends: a disk in memory behind a split ring that can do anything wrong."""
import array
import contextlib
import mmap
import os
import select
import socket
import struct
import threading

import vhost_user as vu
from harness import PATIENCE_S

SECTOR = 512


class Gone(Exception):
    """The back end leaves."""


class BackEnd:
    """
    Serves one front end after the other on `path`. What goes wrong is said by overriding: on_message() before a message
    is handled, used() for what is written into the used ring.
    """

    features = vu.bits(vu.F_FLUSH, vu.F_PROTOCOL, vu.F_VERSION_1, vu.F_INDIRECT, vu.F_EVENT_IDX, 2, 6)
    protocol = vu.bits(vu.PF_REPLY_ACK, vu.PF_CONFIG, vu.PF_BACKEND_REQ)

    def __init__(self, path, size=1 << 20, **values):
        for name, value in values.items():
            setattr(self, name, value)
        self.disk = bytearray(size)
        self.capacity = size // SECTOR
        self.connections = 0
        self.served = 0
        self.failures = []
        self.sock = self.channel = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.stop_fds = os.eventfd(0)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        os.write(self.stop_fds, struct.pack('=Q', 1))
        self.thread.join(PATIENCE_S)
        self.listener.close()
        os.close(self.stop_fds)
        if kind is None:
            assert not self.failures, self.failures

    def run(self):
        while True:
            if self.stop_fds in select.select([self.listener, self.stop_fds], [], [])[0]:
                return
            self.sock = self.listener.accept()[0]
            self.connections += 1
            self.started = False
            self.memory, self.kick_fd, self.call_fd = None, None, None
            try:
                with self.sock, contextlib.suppress(Gone, BrokenPipeError, ConnectionResetError):
                    self.serve()
            except Exception as error:  # pylint: disable=broad-except
                self.failures.append(repr(error))
            finally:
                for fd in self.kick_fd, self.call_fd:
                    if fd is not None:
                        os.close(fd)
                if self.memory is not None:
                    self.memory.close()
                if self.channel:
                    self.channel.close()
                self.channel = None

    # --- messages ---

    def exact(self, size):
        data, fds = b'', array.array('i')
        while len(data) < size:
            piece, ancillary, _, _ = self.sock.recvmsg(size - len(data), socket.CMSG_LEN(64))
            for _, _, bytes_of in ancillary:
                fds.frombytes(bytes_of)
            if not piece:
                raise Gone
            data += piece
        return data, list(fds)

    def serve(self):
        while True:
            ready = select.select([self.sock, self.stop_fds] + ([self.kick_fd] if self.started else []), [], [])[0]
            if self.stop_fds in ready:
                return
            if self.sock in ready:
                header, fds = self.exact(12)
                request, flags, size = struct.unpack('=III', header)
                payload, more = self.exact(size)
                self.on_message(request)
                reply = self.handle(request, payload, fds + more)
                if reply is None and flags & 8:
                    reply = struct.pack('=Q', 0)
                if reply is not None:
                    self.reply(request, reply)
            elif self.started:
                os.read(self.kick_fd, 8)
                self.serve_ring()

    def reply(self, request, payload, flags=5):
        self.sock.sendall(struct.pack('=III', request, flags, len(payload)) + payload)

    def on_message(self, request):
        """Before each message."""

    def config(self):
        return struct.pack('<QIIHBBIBBHIBBHIII', self.capacity, 0, 126, 0, 0, 0, 512, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)[:60].ljust(60, b'\0')

    def handle(self, request, payload, fds):
        if request == vu.GET_FEATURES:
            return struct.pack('=Q', self.features)
        if request == vu.GET_PROTOCOL_FEATURES:
            return struct.pack('=Q', self.protocol)
        if request == vu.GET_CONFIG:
            return payload[:12] + self.config()
        if request == vu.SET_MEM_TABLE:
            self.address, size = struct.unpack_from('=8xQQ', payload)
            self.memory = mmap.mmap(fds[0], size)
            os.close(fds[0])
        elif request == vu.SET_VRING_NUM:
            self.size, = struct.unpack_from('=4xI', payload)
        elif request == vu.SET_VRING_ADDR:
            self.descriptors, self.used_at, self.avail_at = (a - self.address for a in struct.unpack_from('=8xQQQ', payload))
            self.avail_index = self.used_index = 0
        elif request == vu.SET_VRING_KICK:
            self.kick_fd = fds[0]
        elif request == vu.SET_VRING_CALL:
            self.call_fd = fds[0]
        elif request == vu.SET_BACKEND_REQ_FD:
            self.channel = socket.socket(fileno=fds[0])
        elif request == vu.SET_VRING_ENABLE:
            self.started = True
        return None

    def notify_resize(self, size):
        """A new length, and the news of it."""
        self.disk = self.disk[:size].ljust(size, b'\0')
        self.capacity = size // SECTOR
        self.channel.sendall(struct.pack('=III', 2, 1, 0))

    # --- the ring ---

    def chain(self, head):
        address, length, flags, _ = struct.unpack_from('<QIHH', self.memory, self.descriptors + 16 * head)
        assert flags == vu.INDIRECT
        table = address - self.address
        parts = []
        for at in range(table, table + length, 16):
            where, size, flags, _ = struct.unpack_from('<QIHH', self.memory, at)
            parts.append((where - self.address, size, bool(flags & vu.WRITE)))
        return parts

    def execute(self, parts):
        """Does a request; how much has been written to the buffer."""
        kind, _, sector = struct.unpack_from('<IIQ', self.memory, parts[0][0])
        at, written = sector * SECTOR, 0
        for where, size, writable in parts[1:-1]:
            if kind == vu.IN and writable:
                self.memory[where:where + size] = self.disk[at:at + size]
                written += size
            elif kind == vu.OUT:
                self.disk[at:at + size] = self.memory[where:where + size]
            at += size
        self.memory[parts[-1][0]] = self.status(kind)
        return written + 1

    def status(self, _kind):
        return vu.OK

    def used(self, head, written):
        """The id and the length to be told, and by how much the index grows."""
        return head, written, 1

    def call(self):
        os.write(self.call_fd, struct.pack('=Q', 1))

    def serve_ring(self):
        while True:
            now, = struct.unpack_from('<H', self.memory, self.avail_at + 2)
            if self.avail_index == now:
                break
            head, = struct.unpack_from('<H', self.memory, self.avail_at + 4 + 2 * (self.avail_index % self.size))
            self.avail_index = (self.avail_index + 1) & 0xffff
            written = self.execute(self.chain(head))
            self.served += 1
            number, length, step = self.used(head, written)
            struct.pack_into('<II', self.memory, self.used_at + 4 + 8 * (self.used_index % self.size), number, length)
            self.used_index = (self.used_index + step) & 0xffff
            struct.pack_into('<H', self.memory, self.used_at + 2, self.used_index)
            # The event index: wake us for the next one.
            struct.pack_into('<H', self.memory, self.used_at + 4 + 8 * self.size, self.avail_index)
            self.call()
