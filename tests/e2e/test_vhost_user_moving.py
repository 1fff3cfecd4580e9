# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's memory is copied while requests run, as a machine that moves does it: what the log of dirty pages leaves out is lost."""
import ctypes
import os
import struct

import pytest
import vhost_user as vu
from test_vhost_user import BASIC, Served

PAGE, MIB = 4096, 1 << 20
ROUNDS, AT_ONCE = 20, 6
SEQUENTIAL = 5  # the order of memory accesses, as compilers number it
EXCHANGE = ctypes.CDLL('libatomic.so.1')['__atomic_exchange_8']
EXCHANGE.argtypes, EXCHANGE.restype = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int), ctypes.c_uint64


def pages(at, size):
    return set(range(at // PAGE, (at + size - 1) // PAGE + 1))


class Move:
    """The copy of a front end's memory, and who has written where since it was made."""

    def __init__(self, front):
        self.front = front
        self.copy = bytearray(front.memory.map[:])
        self.written = set()  # pages, by the front end
        self.log = None

    def start_log(self):
        """The back end marks in a log from now on, in another one than before; the pages that it has marked in the last one."""
        last = self.marked() if self.log else set()
        old, self.log = self.log, vu.Memory(1 << 18)
        self.front.ask(vu.SET_LOG_BASE, struct.pack('=QQ', self.log.size, 0), [self.log.fd])
        if old:
            last |= self.marked(old)
            old.close()
        return last

    def marked(self, log=None):
        """The pages that are marked, which they are not any more then; the back end may mark others meanwhile."""
        found = set()
        words = (ctypes.c_uint64 * ((log or self.log).size // 8)).from_buffer((log or self.log).map)
        first = vu.GUEST_BASE // PAGE
        for at in range(first // 64, (first + len(self.copy) // PAGE) // 64):
            word = EXCHANGE(ctypes.byref(words, 8 * at), 0, SEQUENTIAL) if words[at] else 0
            found |= {at * 64 + bit - first for bit in range(64) if word >> bit & 1}
        return found

    def take(self, marked):
        for page in marked | self.written:
            self.copy[page * PAGE:(page + 1) * PAGE] = self.front.memory.map[page * PAGE:(page + 1) * PAGE]
        self.written = set()

    def submit(self, queue, sector, into, indirect):
        begin = queue.memory.used
        number = queue.submit(vu.IN, sector, into=into, indirect=indirect)
        header, _, status = (at for at, _, _ in queue.pending[number])
        self.written |= pages(header, 16) | pages(status, 1) | pages(queue.descriptors, 16 * queue.size) | pages(queue.driver, 6 + 2 * queue.size)
        assert header >= begin
        if indirect:
            self.written |= pages(status + 1, queue.memory.used - status - 1)


@pytest.mark.parametrize('indirect', [False, True], ids=['direct', 'indirect'])
@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,), (vu.F_EVENT_IDX,), (vu.F_PACKED, vu.F_EVENT_IDX)],
                         ids=['split', 'packed', 'split-event-index', 'packed-event-index'])
def test_memory_moves_while_requests_run(tmp_path, ring, indirect):
    """After the last round both memories are the same, to the byte, whatever was under way when the marks were taken away."""
    (tmp_path / 'disk.img').write_bytes(os.urandom(MIB))
    served = Served(tmp_path, start=False)
    served.arguments = ['--object', 'throttle-group,id=g,limits.iops-total=10', *served.arguments[:2], '--blockdev',
                        'driver=throttle,node-name=slow,throttle-group=g,file=disk',
                        *(word.replace('node-name=disk,writable', 'node-name=slow,writable') for word in served.arguments[2:])]
    with served.start(), vu.FrontEnd(served.socket, vu.Memory(32 * MIB)) as front:
        front.negotiate((*BASIC, *ring)).share_memory()
        queue = front.queue(size=512, start=False)
        queue.set_up()
        move = Move(front)
        move.start_log()
        assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features | vu.bits(vu.F_LOG_ALL)))
        assert front.do(vu.SET_VRING_ADDR, queue.address(flags=1, log=vu.GUEST_BASE + queue.device))
        under_way = 0
        for turn in range(ROUNDS):
            # Now they wait, now they run beside us, and the last ones end when all marks but theirs have been seen.
            served.qmp.command('qom-set', path='g', property='limits', value={'iops-total': 0 if turn % 4 == 2 else 10})
            for number in range(AT_ONCE):
                move.submit(queue, sector=8 * number, into=PAGE * (3 + number), indirect=indirect)
            queue.collect()
            move.take(move.start_log() if turn == ROUNDS // 2 else move.marked())
            queue.collect()
            under_way += len(queue.pending) - len(queue.done)
        assert under_way
        served.qmp.command('qom-set', path='g', property='limits', value={'iops-total': 0})
        queue.stop()
        queue.collect()
        move.take(move.marked())
        assert len(queue.done) == ROUNDS * AT_ONCE
        assert all(queue.wait(number)[0] == vu.OK for number in list(queue.done))
        memory = front.memory.map[:]
        assert [page for page in range(len(memory) // PAGE)
                if move.copy[page * PAGE:(page + 1) * PAGE] != memory[page * PAGE:(page + 1) * PAGE]] == []
        move.log.close()
        front.memory.close()
