# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vhost-user front end for block devices, written for tests: it can do everything right, and anything wrong."""
import array
import contextlib
import mmap
import os
import select
import socket
import struct

from harness import PATIENCE_S, wait_for

GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE = range(1, 7)
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = range(8, 15)
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = range(15, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 21, 24, 25, 31, 32
RESET_DEVICE, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG, SET_STATUS, GET_STATUS = 34, 36, 37, 38, 39, 40

F_RO, F_FLUSH, F_CONFIG_WCE, F_MQ, F_DISCARD, F_WRITE_ZEROES = 5, 9, 11, 12, 13, 14
F_LOG_ALL, F_INDIRECT, F_EVENT_IDX, F_PROTOCOL, F_VERSION_1, F_PACKED, F_IN_ORDER = 26, 28, 29, 30, 32, 34, 35
PF_MQ, PF_LOG, PF_REPLY_ACK, PF_BACKEND_REQ, PF_CONFIG, PF_INFLIGHT, PF_RESET_DEVICE, PF_SLOTS, PF_STATUS = 0, 1, 3, 5, 9, 12, 13, 15, 16

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
NEXT, WRITE, INDIRECT = 1, 2, 4

GUEST_BASE = 0x1_0000_0000  # what the guest calls the first byte of its memory
USER_BASE = 0x7000_0000_0000  # what the front end calls it


def bits(*numbers):
    return sum(1 << number for number in numbers)


class Memory:
    """A guest's memory: a file without a name, mapped here and there."""

    def __init__(self, size=8 << 20, guest=GUEST_BASE, user=USER_BASE):
        self.fd = os.memfd_create('guest')
        os.ftruncate(self.fd, size)
        self.size, self.guest, self.user = size, guest, user
        self.map = mmap.mmap(self.fd, size)
        self.used = 0

    def take(self, size, alignment=4096):
        """The offset of a piece that nobody else uses."""
        at = -(-self.used // alignment) * alignment
        assert at + size <= self.size
        self.used = at + size
        return at

    def region(self, offset=0):
        return struct.pack('=QQQQ', self.guest, self.size, self.user, offset)

    def close(self):
        self.map.close()
        os.close(self.fd)


class Closed(Exception):
    """The back end has ended the connection."""


class FrontEnd:
    """A connection; what it sets up, it closes."""

    def __init__(self, path, memory=None):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(path))
        self.features = 0
        self.stack = contextlib.ExitStack()
        self.memory = memory or Memory()
        if not memory:
            self.stack.callback(self.memory.close)

    def close(self):
        self.sock.close()
        self.stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, request, payload=b'', fds=(), flags=1, size=None):
        header = struct.pack('=III', request, flags, len(payload) if size is None else size)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
        try:
            self.sock.sendmsg([header + payload], ancillary)
        except (BrokenPipeError, ConnectionResetError) as gone:
            raise Closed from gone

    def receive(self):
        """Request, payload and descriptors of a reply."""
        data, fds = b'', array.array('i')
        while len(data) < 12 or len(data) < 12 + struct.unpack_from('=I', data, 8)[0]:
            want = 12 - len(data) if len(data) < 12 else 12 + struct.unpack_from('=I', data, 8)[0] - len(data)
            try:
                piece, ancillary, _, _ = self.sock.recvmsg(want, socket.CMSG_LEN(64))
            except ConnectionResetError as gone:
                raise Closed from gone
            for _, _, bytes_of in ancillary:
                fds.frombytes(bytes_of)
            if not piece:
                raise Closed
            data += piece
        request, flags, _ = struct.unpack_from('=III', data)
        assert flags == 5
        return request, data[12:], list(fds)

    def ask(self, request, payload=b'', fds=()):
        self.send(request, payload, fds)
        got, reply, descriptors = self.receive()
        assert got == request
        return (reply, descriptors) if descriptors else reply

    def ask_u64(self, request, payload=b'', fds=()):
        return struct.unpack('=Q', self.ask(request, payload, fds))[0]

    def do(self, request, payload=b'', fds=()):
        """With an acknowledgement: whether it was done."""
        self.send(request, payload, fds, flags=9)
        got, reply, _ = self.receive()
        assert got == request
        return struct.unpack('=Q', reply)[0] == 0

    def ended(self):
        """Waits for the back end to hang up."""
        try:
            return not self.sock.recv(1)
        except ConnectionResetError:
            return True

    def negotiate(self, features=(F_FLUSH, F_CONFIG_WCE, F_DISCARD, F_WRITE_ZEROES, F_VERSION_1), protocol=None):
        protocol = protocol or (PF_MQ, PF_LOG, PF_REPLY_ACK, PF_BACKEND_REQ, PF_CONFIG, PF_INFLIGHT, PF_SLOTS)
        self.offered = self.ask_u64(GET_FEATURES)
        self.features = bits(F_PROTOCOL, *features)
        self.send(SET_PROTOCOL_FEATURES, struct.pack('=Q', bits(*protocol) & self.ask_u64(GET_PROTOCOL_FEATURES)))
        self.send(SET_OWNER)
        assert self.do(SET_FEATURES, struct.pack('=Q', self.features & self.offered))
        return self

    def share_memory(self):
        assert self.do(SET_MEM_TABLE, struct.pack('=II', 1, 0) + self.memory.region(), [self.memory.fd])
        return self

    def config(self, size=60):
        reply = self.ask(GET_CONFIG, struct.pack('=III', 0, size, 0) + bytes(size))
        return reply[12:]

    def queue(self, index=0, size=64, **kwargs):
        kind = PackedQueue if self.features & bits(F_PACKED) else SplitQueue
        return kind(self, index, size, **kwargs)


class Queue:
    """What does not depend on the kind of ring."""

    def __init__(self, front, index, size, start=True, base=None, areas=None):
        self.front, self.index, self.size = front, index, size
        self.memory = front.memory
        self.event_index = bool(front.features & bits(F_EVENT_IDX))
        self.kick_fd, self.call_fd, self.err_fd = (os.eventfd(0) for _ in range(3))
        for fd in self.kick_fd, self.call_fd, self.err_fd:
            front.stack.callback(os.close, fd)
        self.descriptors, self.driver, self.device = areas or self.lay_out()
        self.done = {}
        self.pending = {}
        if start:
            self.set_up(base)

    def set_up(self, base=None):
        front = self.front
        assert front.do(SET_VRING_NUM, struct.pack('=II', self.index, self.size))
        assert front.do(SET_VRING_BASE, struct.pack('=II', self.index, self.first_base() if base is None else base))
        assert front.do(SET_VRING_ADDR, self.address())
        assert front.do(SET_VRING_CALL, struct.pack('=Q', self.index), [self.call_fd])
        assert front.do(SET_VRING_ERR, struct.pack('=Q', self.index), [self.err_fd])
        assert front.do(SET_VRING_KICK, struct.pack('=Q', self.index), [self.kick_fd])
        assert front.do(SET_VRING_ENABLE, struct.pack('=II', self.index, 1))

    def address(self, flags=0, log=0):
        user = self.memory.user
        return struct.pack('=IIQQQQ', self.index, flags, user + self.descriptors, user + self.device, user + self.driver, log)

    def stop(self):
        """Where another would go on."""
        return struct.unpack('=II', self.front.ask(GET_VRING_BASE, struct.pack('=II', self.index, 0)))[1]

    def kick(self):
        os.write(self.kick_fd, struct.pack('=Q', 1))

    def broken(self):
        """Waits until the back end has declared the queue broken."""
        return bool(select.select([self.err_fd], [], [], PATIENCE_S)[0])

    def segments(self, kind, sector, out, into):
        """Memory for a request: (offset, length, writable) of header, data and status."""
        data = b''.join(out)
        at = self.memory.take(16 + len(data) + into + 1, 16)
        self.memory.map[at:at + 16 + len(data)] = struct.pack('<IIQ', kind, 0, sector) + data
        self.memory.map[at + 16 + len(data) + into] = 0xff
        parts, next_at = [(at, 16, False)], at + 16
        for piece in out:
            parts.append((next_at, len(piece), False))
            next_at += len(piece)
        if into:
            parts.append((next_at, into, True))
        parts.append((next_at + into, 1, True))
        return parts

    def submit(self, kind, sector=0, out=(), into=0, kick=True, indirect=False):
        """Starts a request and returns its id."""
        parts = self.segments(kind, sector, list(out), into)
        if indirect:
            table = self.memory.take(16 * len(parts), 16)
            self.memory.map[table:table + 16 * len(parts)] = self.table(parts)
            number = self.post([(self.memory.guest + table, 16 * len(parts), INDIRECT)])
        else:
            number = self.post([(self.memory.guest + at, size, WRITE if writable else 0) for at, size, writable in parts])
        self.pending[number] = parts
        if kick:
            self.kick()
        return number

    def wait(self, number):
        """Status, data and the written length of a request that has ended."""
        wait_for(lambda: self.collect() or number in self.done, f'request {number} of queue {self.index}')
        written = self.done.pop(number)
        parts = self.pending.pop(number)
        data = b''.join(bytes(self.memory.map[at:at + size]) for at, size, writable in parts[:-1] if writable)
        return self.memory.map[parts[-1][0]], data, written

    def call(self, kind, sector=0, out=(), into=0, **kwargs):
        """Does a request: its status and data."""
        status, data, _ = self.wait(self.submit(kind, sector, out, into, **kwargs))
        return (status, data) if into else status

    def called(self):
        """Whether the back end has called since this was last asked."""
        ready = bool(select.select([self.call_fd], [], [], 0)[0])
        if ready:
            os.read(self.call_fd, 8)
        return ready


class SplitQueue(Queue):
    def lay_out(self):
        self.free = list(range(self.size))
        self.avail_index = self.used_index = 0
        return (self.memory.take(16 * self.size, 16), self.memory.take(6 + 2 * self.size, 2),
                self.memory.take(6 + 8 * self.size, 4))

    def first_base(self):
        return 0

    def table(self, parts):
        return b''.join(struct.pack('<QIHH', self.memory.guest + at, size,
                                    (WRITE if writable else 0) | (NEXT if number + 1 < len(parts) else 0), number + 1)
                        for number, (at, size, writable) in enumerate(parts))

    def describe(self, number, address, length, flags, following=0):
        struct.pack_into('<QIHH', self.memory.map, self.descriptors + 16 * number, address, length, flags, following)

    def make_available(self, head, index=None):
        struct.pack_into('<H', self.memory.map, self.driver + 4 + 2 * (self.avail_index % self.size), head)
        self.avail_index = (self.avail_index + 1) & 0xffff
        struct.pack_into('<H', self.memory.map, self.driver + 2, self.avail_index if index is None else index)

    def post(self, chain):
        numbers = [self.free.pop(0) for _ in chain]
        for place, (address, length, flags) in enumerate(chain):
            last = place + 1 == len(chain)
            self.describe(numbers[place], address, length, flags | (0 if last else NEXT), 0 if last else numbers[place + 1])
        self.make_available(numbers[0])
        self.chains = getattr(self, 'chains', {})
        self.chains[numbers[0]] = numbers
        return numbers[0]

    def collect(self):
        now, = struct.unpack_from('<H', self.memory.map, self.device + 2)
        while self.used_index != now:
            number, written = struct.unpack_from('<II', self.memory.map, self.device + 4 + 8 * (self.used_index % self.size))
            self.used_index = (self.used_index + 1) & 0xffff
            self.free += self.chains.pop(number)
            self.done[number] = written

    def wants_kicks(self):
        return not struct.unpack_from('<H', self.memory.map, self.device)[0]


class PackedQueue(Queue):
    def lay_out(self):
        self.next, self.wrap, self.used, self.used_wrap = 0, 1, 0, 1
        self.ids = list(range(self.size))
        return self.memory.take(16 * self.size, 16), self.memory.take(4, 4), self.memory.take(4, 4)

    def first_base(self):
        return 0x80008000

    def table(self, parts):
        return b''.join(struct.pack('<QIHH', self.memory.guest + at, size, 0, WRITE if writable else 0)
                        for at, size, writable in parts)

    def describe(self, place, address, length, number, flags):
        struct.pack_into('<QIHH', self.memory.map, self.descriptors + 16 * place, address, length, number, flags)

    def post(self, chain, number=None):
        number = self.ids.pop(0) if number is None else number
        entries = []
        for place, (address, length, flags) in enumerate(chain):
            flags |= 0 if place + 1 == len(chain) else NEXT
            flags |= 1 << 7 if self.wrap else 1 << 15
            entries.append((self.next, address, length, number, flags))
            self.next = (self.next + 1) % self.size
            self.wrap ^= self.next == 0
        for entry in reversed(entries):
            self.describe(*entry)
        self.slots = getattr(self, 'slots', {})
        self.slots[number] = len(chain)
        return number

    def collect(self):
        while True:
            _, written, number, flags = struct.unpack_from('<QIHH', self.memory.map, self.descriptors + 16 * self.used)
            if bool(flags & 1 << 7) != bool(self.used_wrap) or bool(flags & 1 << 15) != bool(self.used_wrap):
                return
            self.used += self.slots.pop(number)
            if self.used >= self.size:
                self.used -= self.size
                self.used_wrap ^= 1
            self.ids.append(number)
            self.done[number] = written

    def wants_kicks(self):
        return struct.unpack_from('<H', self.memory.map, self.device + 2)[0] == 0
