# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A daemon that follows another vhost-user server, which died at any point: every request ends, once, and the front end is called.

The predecessors are the test's own. They do in the shared memory what the protocol says, in its order, and stop after any of their
stores; so no server need be killed at the right time. The driver sleeps: it looks at the ring only when it has been called.
"""
import os
import select
import struct

import pytest

import vhost_user as vu
from harness import PATIENCE_S
from test_vhost_user import BASIC, Served

QUEUE_SIZE = 8
PLACE = 4  # where a packed ring is when it begins, so that the requests go around its end
SECTORS = 1, 2


class SplitPredecessor:
    """Its steps are the pieces of generators: one store each."""

    def __init__(self, queue, table):
        self.queue, self.memory, self.table = queue, queue.memory.map, table
        self.avail = self.used = self.counter = 0
        if table:
            struct.pack_into('=QHHHH', table, 0, 0, 1, queue.size, 0, 0)

    @staticmethod
    def start(queue):
        """The driver's place in the ring."""

    def base(self):
        """As a front end finds it: where the used ring is."""
        return struct.unpack_from('<H', self.memory, self.queue.device + 2)[0]

    def entry(self, number):
        return 16 + 16 * number

    def take(self):
        head, = struct.unpack_from('<H', self.memory, self.queue.driver + 4 + 2 * (self.avail % self.queue.size))
        self.avail += 1
        if self.table:
            struct.pack_into('=Q', self.table, self.entry(head) + 8, self.counter)
            yield 'counted'
            self.counter += 1
            self.table[self.entry(head)] = 1
            yield 'in flight'
        return head

    def give_back(self, head):
        if self.table:
            self.table[self.entry(head) + 6:self.entry(head) + 8] = self.table[12:14]
            yield 'linked'
            struct.pack_into('=H', self.table, 12, head)
            yield 'head of the batch'
        struct.pack_into('<II', self.memory, self.queue.device + 4 + 8 * (self.used % self.queue.size), head, 1)
        yield 'in the used ring'
        self.used += 1
        struct.pack_into('<H', self.memory, self.queue.device + 2, self.used)
        yield 'given back'
        if self.table:
            self.table[self.entry(head)] = 0
            yield 'not in flight'
            struct.pack_into('=H', self.table, 14, self.used)
            yield 'index'


class PackedPredecessor:
    """The same with a packed ring, whose table has copies of the descriptors."""

    def __init__(self, queue, table):
        self.queue, self.memory, self.table = queue, queue.memory.map, table
        self.avail = self.used = PLACE
        self.wrap = self.used_wrap = 1
        self.counter = 0
        self.shown = PLACE | 0x8000
        if table:
            struct.pack_into('=QHHHHHHBB', table, 0, 0, 1, queue.size, 0, 0, PLACE, PLACE, 1, 1)
            for number in range(queue.size):
                self.set(number, 2, number + 1)

    @staticmethod
    def start(queue):
        queue.next = queue.used = PLACE
        for place in range(PLACE):
            queue.describe(place, 0, 0, 0, 0x8080)

    def base(self):
        """What front ends know of such a ring, where there is a table: how it began, or less. Else they must have looked."""
        place = 0x8000 if self.table else self.shown
        return place | place << 16

    def get(self, number, offset):
        return struct.unpack_from('=H', self.table, 32 + 32 * number + offset)[0]

    def set(self, number, offset, value, kind='=H'):
        struct.pack_into(kind, self.table, 32 + 32 * number + offset, value)

    def head(self, which):
        return struct.unpack_from('=H', self.table, which)[0]

    def take(self):
        first = self.head(14) if self.table else 0
        slots = last = 0
        while not last:
            address, length, number, flags = struct.unpack_from('<QIHH', self.memory, self.queue.descriptors + 16 * self.avail)
            last = not flags & vu.NEXT
            slots += 1
            self.avail = (self.avail + 1) % self.queue.size
            if not self.table:
                continue
            free = self.head(12)
            if slots == 1:
                self.set(first, 6, 0)
                yield 'no descriptor yet'
                self.set(first, 8, self.counter, '=Q')
                yield 'counted'
                self.counter += 1
                self.table[32 + 32 * first] = 1
                yield 'in flight'
            if last:
                self.set(first, 4, free)
                yield 'last'
            self.set(first, 6, self.get(first, 6) + 1)
            yield 'one more descriptor'
            struct.pack_into('=HHIQ', self.table, 32 + 32 * free + 16, number, flags, length, address)
            yield 'copied'
            struct.pack_into('=H', self.table, 12, self.get(free, 2))
            yield 'free entry taken'
        if self.table:
            self.table[14:16] = self.table[12:14]
            yield 'taken'
        return first, number, slots

    def give_back(self, request):
        first, number, slots = request
        place, flags = self.used, 0x8080 if self.used_wrap else 0
        self.used += slots
        if self.used >= self.queue.size:
            self.used -= self.queue.size
            self.used_wrap ^= 1
        if self.table:
            self.set(self.get(first, 4), 2, self.head(12))
            yield 'linked'
            struct.pack_into('=H', self.table, 12, first)
            yield 'free'
            struct.pack_into('=H', self.table, 16, self.used)
            yield 'used place'
            self.table[20] = self.used_wrap
            yield 'used wrap'
        if self.table:
            struct.pack_into('<IH', self.memory, self.queue.descriptors + 16 * place + 8, 1, number)
            yield 'in the ring'
        # Who has no table must do this in one, as nobody else knows what the descriptor was.
        struct.pack_into('<IHH', self.memory, self.queue.descriptors + 16 * place + 8, 1, number, flags | vu.WRITE)
        self.shown = self.used | self.used_wrap << 15
        yield 'given back'
        if self.table:
            self.table[32 + 32 * first] = 0
            yield 'not in flight'
            self.table[14:16] = self.table[12:14]
            yield 'old free entry'
            self.table[18:20] = self.table[16:18]
            yield 'old used place'
            self.table[21] = self.table[20]
            yield 'old used wrap'


class Scene:
    """Two requests of a driver that sleeps, and a predecessor that works on them until it dies."""

    def __init__(self, served, ring, with_table):
        self.served, self.with_table = served, with_table
        self.front = served.connect((*BASIC, *ring))
        self.queue = self.front.queue(size=QUEUE_SIZE, start=False)
        kind = PackedPredecessor if vu.F_PACKED in ring else SplitPredecessor
        kind.start(self.queue)
        self.table = vu.Memory(1 << 12) if with_table else None
        self.predecessor = kind(self.queue, self.table.map if with_table else None)
        with open(served.image, 'r+b') as image:
            image.write(bytes(4096))
        self.ask_for_calls()
        self.numbers = [self.queue.submit(vu.OUT, sector, [b's' * 512], kick=False) for sector in SECTORS]
        self.given_back = 0

    def ask_for_calls(self):
        queue = self.queue
        if isinstance(queue, vu.PackedQueue):
            struct.pack_into('<HH', queue.memory.map, queue.driver, queue.used | queue.used_wrap << 15, 2 if queue.event_index else 0)
        elif queue.event_index:
            struct.pack_into('<H', queue.memory.map, queue.driver + 4 + 2 * queue.size, queue.used_index)

    def look(self):
        """Takes what is there, and asks to be called for what comes later."""
        before = None
        while before != len(self.queue.done):
            before = len(self.queue.done)
            self.ask_for_calls()
            self.queue.collect()

    def work(self):
        """Out of order where there is a table, which is what it is for. What the predecessor writes is not what is asked for."""
        taken = []
        for _ in SECTORS:
            taken.append((yield from self.predecessor.take()))
        order = list(zip(SECTORS, self.numbers, taken))
        for sector, number, request in reversed(order) if self.with_table else order:
            with open(self.served.image, 'r+b') as image:
                image.seek(512 * sector)
                image.write(b'p' * 512)
            yield 'written'
            self.queue.memory.map[self.queue.pending[number][-1][0]] = vu.OK
            yield 'status'
            for name in self.predecessor.give_back(request):
                if name == 'given back':
                    self.given_back += 1
                yield name

    def take_over(self):
        """The daemon gets the ring, as a front end gives it that has found nobody to say where the ring is."""
        if self.with_table:
            assert self.front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHHI', self.table.size, 0, 1, QUEUE_SIZE, 0), [self.table.fd])
        self.queue.set_up(self.predecessor.base())

    def check(self, where):
        """Each is done by one of the two: what has been given back is not done again."""
        queue = self.queue
        while not set(self.numbers) <= set(queue.done):
            assert select.select([queue.call_fd], [], [], PATIENCE_S)[0], f'nobody calls: {where}'
            os.read(queue.call_fd, 8)
            self.look()
        assert [queue.wait(number)[0] for number in self.numbers] == [vu.OK] * 2, where
        first_done = reversed(SECTORS) if self.with_table else SECTORS
        expected = {sector: b'p' if place < self.given_back else b's' for place, sector in enumerate(first_done)}
        for sector in SECTORS:
            assert queue.call(vu.IN, sector, into=512) == (vu.OK, 512 * expected[sector]), where
        for _ in range(QUEUE_SIZE):
            assert queue.call(vu.IN, 0, into=512) == (vu.OK, bytes(512)), where
        assert not queue.done and not queue.pending, where

    def close(self):
        self.front.close()
        self.served.front_ends.remove(self.front)
        if self.table:
            self.table.close()


@pytest.mark.parametrize('with_table', [True, False], ids=['table', 'no table'])
@pytest.mark.parametrize('ring', [(), (vu.F_EVENT_IDX,), (vu.F_PACKED,), (vu.F_PACKED, vu.F_EVENT_IDX)],
                         ids=['split', 'split, event index', 'packed', 'packed, event index'])
def test_successor(tmp_path, ring, with_table):
    """The predecessor dies before its first step, after its first, after its second ... and after the last, before it calls."""
    with Served(tmp_path) as served:
        scene = Scene(served, ring, with_table)
        names = list(scene.work())
        scene.close()
        assert len(names) >= (20 if with_table else 6)
        for count in range(len(names) + 1):
            scene = Scene(served, ring, with_table)
            work = scene.work()
            for _ in range(count):
                next(work)
            scene.take_over()
            scene.check(f'{count} steps, the last one: {names[count - 1] if count else None}')
            scene.close()
        assert 'warning' not in served.daemon.stderr
