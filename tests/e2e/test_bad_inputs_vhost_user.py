# SPDX-License-Identifier: LGPL-2.1-or-later
"""Front ends and guests that keep to no rule harm nobody but themselves (V1 to V10)."""
import contextlib
import os
import socket
import struct

import pytest

import vhost_user as vu
from harness import wait_for
from test_vhost_user import BASIC, MIB, Served

GUEST = vu.GUEST_BASE


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path) as served:
        yield served
        # Whatever has happened: the next front end is served.
        for front in served.front_ends:
            front.close()
        assert served.connect().queue().call(vu.IN, 0, into=512)[0] == vu.OK


def descriptors_of(daemon):
    return len(os.listdir(f'/proc/{daemon.pid}/fd'))


@pytest.mark.parametrize('what, message', {
    'unknown request': lambda front: front.send(99),
    'request 0': lambda front: front.send(0),
    'version': lambda front: front.send(vu.GET_FEATURES, flags=2),
    'reply': lambda front: front.send(vu.GET_FEATURES, flags=5),
    'reserved flags': lambda front: front.send(vu.GET_FEATURES, flags=0x101),
    'large': lambda front: front.send(vu.SET_CONFIG, bytes(5000)),
    'huge': lambda front: front.send(vu.SET_CONFIG, size=0xffffffff),
    'short': lambda front: front.send(vu.SET_VRING_NUM, bytes(4)),
    'long': lambda front: front.send(vu.SET_VRING_NUM, bytes(12)),
    'descriptor where none belongs': lambda front: front.send(vu.GET_FEATURES, fds=[0]),
    'no descriptor': lambda front: front.send(vu.SET_VRING_KICK, bytes(8)),
    'many descriptors': lambda front: front.send(vu.SET_VRING_CALL, bytes(8), [0] * 8),
    'too many descriptors': lambda front: front.send(vu.SET_MEM_TABLE, struct.pack('=II', 8, 0) + bytes(8 * 32), [0] * 20),
    'regions without descriptors': lambda front: front.send(vu.SET_MEM_TABLE, struct.pack('=II', 2, 0) + bytes(64), [0]),
    '10,000 regions': lambda front: front.send(vu.SET_MEM_TABLE, struct.pack('=II', 10000, 0) + bytes(64), [0]),
    'region of a pipe': lambda front: front.send(vu.SET_MEM_TABLE, struct.pack('=II', 1, 0) + front.memory.region(), [0]),
    'queue 7': lambda front: front.send(vu.SET_VRING_ENABLE, struct.pack('=II', 7, 1)),
    'queue 4294967295': lambda front: front.send(vu.GET_VRING_BASE, struct.pack('=II', 0xffffffff, 1)),
    'features': lambda front: front.send(vu.SET_FEATURES, bytes([255] * 8)),
    'protocol features': lambda front: front.send(vu.SET_PROTOCOL_FEATURES, bytes([255] * 8)),
    'in flight: no queue': lambda front: front.send(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 0, 64)),
    'in flight: too small': lambda front: front.send(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', 10, 0, 1, 64), [front.memory.fd]),
    'log of no size': lambda front: front.send(vu.SET_LOG_BASE, bytes(16), [front.memory.fd]),
}.items())
def test_bad_messages(served, what, message):
    """V1: that connection ends, every descriptor is closed, the log says why."""
    with vu.FrontEnd(served.socket) as idle:
        idle.negotiate(BASIC)
        before = descriptors_of(served.daemon)
        message(idle)
        assert idle.ended()
    wait_for(lambda: 'vhost-user connection dropped: ' in served.daemon.stderr, 'the reason')
    wait_for(lambda: descriptors_of(served.daemon) < before, 'the descriptors to be closed')


@pytest.mark.parametrize('guest, size, user, offset', [
    (0, 0, 0, 0), (0, 1 << 40, 0, 0), (0, MIB, 0, 8 * MIB), (0, MIB, 0, (1 << 64) - 4096),
    ((1 << 64) - 4096, MIB, 0, 0), (0, MIB, (1 << 64) - 4096, 0), (0, (1 << 64) - 1, 0, 1)])
def test_bad_regions(served, guest, size, user, offset):
    """V2: refused with an answer, and the old memory stays."""
    front = served.connect()
    region = struct.pack('=QQQQ', guest, size, user, offset)
    assert not front.do(vu.SET_MEM_TABLE, struct.pack('=II', 1, 0) + region, [front.memory.fd])
    assert not front.do(vu.ADD_MEM_REG, bytes(8) + region, [front.memory.fd])
    assert front.queue().call(vu.IN, 0, into=512)[0] == vu.OK


def test_overlapping_regions(served):
    front = served.connect()
    table = struct.pack('=II', 2, 0) + 2 * front.memory.region()
    assert not front.do(vu.SET_MEM_TABLE, table, [front.memory.fd] * 2)


def test_memory_cut(served):
    """V2: the file behind the memory shrinks under the queue: its own requests fail, the daemon lives."""
    front = served.connect()
    queue = front.queue()
    at = queue.memory.take(16, 16)
    queue.memory.map[at:at + 16] = struct.pack('<IIQ', vu.IN, 0, 0)
    queue.post([(GUEST + at, 16, 0), (GUEST + 4 * MIB, MIB, vu.WRITE), (GUEST + 6 * MIB, 1, vu.WRITE)])
    os.ftruncate(front.memory.fd, MIB)
    queue.kick()
    other = vu.FrontEnd(served.socket)
    front.close()
    other.negotiate().share_memory()
    assert other.queue().call(vu.OUT, 0, [b'a' * 512]) == vu.OK
    other.close()


def test_all_memory_cut(served):
    front = served.connect()
    queue = front.queue()
    os.ftruncate(front.memory.fd, 0)
    queue.kick()
    front.close()


@pytest.mark.parametrize('cut', [False, True])
def test_huge_pages_that_are_not_there(served, cut):
    """V2: memory in huge pages, of which the system has none left, or which were cut off: what lies there reads as zeroes."""
    front = served.connect()
    queue = front.queue()
    huge = os.memfd_create('huge', os.MFD_HUGETLB)
    front.stack.callback(os.close, huge)
    page = os.fstatvfs(huge).f_bsize
    os.ftruncate(huge, 2 * page)
    guest, user = GUEST + (1 << 32), vu.USER_BASE + (1 << 32)
    assert front.do(vu.ADD_MEM_REG, bytes(8) + struct.pack('=QQQQ', guest, 2 * page, user, 0), [huge])
    if cut:
        os.ftruncate(huge, page)
    for place in guest + page, guest + 2 * page - 16:
        at = queue.memory.take(513, 16)
        number = queue.post([(place, 16, 0), (GUEST + at, 512, vu.WRITE), (GUEST + at + 512, 1, vu.WRITE)])
        queue.kick()
        wait_for(lambda: queue.collect() or number in queue.done, 'the request with its header there')
        assert queue.memory.map[at + 512] == vu.OK


def test_region_removed_under_the_queue(served):
    """V2: a queue whose ring goes stops; the front end hears of it by name."""
    front = served.connect()
    front.queue()
    assert front.do(vu.REM_MEM_REG, bytes(8) + front.memory.region())
    wait_for(lambda: 'queue 0 stops, as its memory goes' in served.daemon.stderr, 'the reason')


@pytest.mark.parametrize('size', [0, 3, 65536, 32769])
def test_bad_ring_sizes(served, size):
    """V3"""
    front = served.connect()
    queue = front.queue(start=False)
    accepted = front.do(vu.SET_VRING_NUM, struct.pack('=II', 0, size))
    front.do(vu.SET_VRING_ADDR, queue.address())
    assert not (accepted and front.do(vu.SET_VRING_KICK, struct.pack('=Q', 0), [queue.kick_fd]) and
                front.do(vu.SET_VRING_ENABLE, struct.pack('=II', 0, 1)))


@pytest.mark.parametrize('areas', [(1 << 40, 4096, 8192), (0, (8 << 20) - 8, 8192), (0, 4096, 1 << 63), (8, 4096, 8192),
                                   (0, 4097, 8192), (0, 4096, 8193)])
def test_bad_ring_addresses(served, areas):
    """V3: outside of the memory, over its end, unaligned."""
    front = served.connect()
    queue = front.queue(start=False, areas=(0, 4096, 8192))
    queue.descriptors, queue.driver, queue.device = areas
    with pytest.raises(AssertionError):
        queue.set_up()


def broken_queue(served, ring=(), **kwargs):
    front = served.connect((*BASIC, *ring))
    return front.queue(size=16, **kwargs)


def expect_broken(served, queue, reason):
    """The front end is told, the log says why, and the queue stays as it is; stopping it works."""
    assert queue.broken()
    wait_for(lambda: 'queue 0 is broken: ' in served.daemon.stderr, 'the reason')
    assert reason in served.daemon.stderr
    queue.kick()
    queue.stop()


def test_available_index_jumps(served):
    """V4"""
    queue = broken_queue(served)
    struct.pack_into('<H', queue.memory.map, queue.driver + 2, 17)
    queue.kick()
    expect_broken(served, queue, 'available index is 17 beyond the last one, in a ring of 16')


def test_descriptor_number_too_large(served):
    """V4"""
    queue = broken_queue(served)
    queue.make_available(16)
    queue.kick()
    expect_broken(served, queue, 'available descriptor 16 of 16')


def test_descriptor_loop(served):
    """V4"""
    queue = broken_queue(served)
    at = queue.memory.take(16, 16)
    queue.describe(0, GUEST + at, 16, vu.NEXT, 1)
    queue.describe(1, GUEST + at, 16, vu.NEXT, 0)
    queue.make_available(0)
    queue.kick()
    expect_broken(served, queue, 'after 16 steps')


def test_next_too_large(served):
    """V4"""
    queue = broken_queue(served)
    queue.describe(0, GUEST, 16, vu.NEXT, 4711)
    queue.make_available(0)
    queue.kick()
    expect_broken(served, queue, 'number 4711 of 16')


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)])
@pytest.mark.parametrize('length, address', [(0, GUEST), (17, GUEST), (16 << 20, GUEST), (16, GUEST + (1 << 40))])
def test_bad_tables(served, ring, length, address):
    """V4: tables of indirect descriptors that are none."""
    queue = broken_queue(served, ring)
    queue.post([(address, length, vu.INDIRECT)])
    queue.kick()
    expect_broken(served, queue, 'bad table of indirect descriptors')


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)])
def test_table_in_a_table(served, ring):
    """V4"""
    queue = broken_queue(served, ring)
    table = queue.memory.take(16, 16)
    flags = struct.pack('<QIHH', GUEST, 16, 0, vu.INDIRECT) if ring else struct.pack('<QIHH', GUEST, 16, vu.INDIRECT, 0)
    queue.memory.map[table:table + 16] = flags
    queue.post([(GUEST + table, 16, vu.INDIRECT)])
    queue.kick()
    expect_broken(served, queue, 'indirect descriptor in a table of them')


def test_table_not_negotiated(served):
    front = served.connect((vu.F_FLUSH, vu.F_VERSION_1))
    queue = front.queue(size=16)
    queue.post([(GUEST, 16, vu.INDIRECT)])
    queue.kick()
    expect_broken(served, queue, 'which was not negotiated')


def test_packed_buffer_id(served):
    """V4"""
    queue = broken_queue(served, (vu.F_PACKED,))
    queue.post([(GUEST, 16, 0)], number=16)
    queue.kick()
    expect_broken(served, queue, 'buffer id 16 in a ring of 16')


def test_packed_chain_without_end(served):
    """V4"""
    queue = broken_queue(served, (vu.F_PACKED,))
    for place in range(16):
        queue.describe(place, GUEST, 16, 0, vu.NEXT | 1 << 7)
    queue.kick()
    expect_broken(served, queue, 'chain of more descriptors than the ring has places')


def post(queue, header, *parts, status=True):
    """A request of any descriptors; where it has a status byte, it is returned when it ends."""
    at = queue.memory.take(len(header) + 1 or 1, 16)
    queue.memory.map[at:at + len(header)] = header
    chain = [(GUEST + at, len(header), 0)] if header else []
    chain += parts
    place = queue.memory.take(1, 16)
    if status:
        queue.memory.map[place] = 0xff
        chain.append((GUEST + place, 1, vu.WRITE))
    number = queue.post(chain)
    queue.kick()
    if not status:
        return None
    wait_for(lambda: queue.collect() or number in queue.done, 'the request')
    del queue.done[number]
    return queue.memory.map[place]


READ = struct.pack('<IIQ', vu.IN, 0, 0)


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)])
def test_bad_buffers(served, ring):
    """V5: memory that is none, of no length, too long, in the wrong order: refused by the status, and the queue goes on."""
    queue = broken_queue(served, ring)
    outside = GUEST + (1 << 40)
    for parts in ([(outside, 512, vu.WRITE)], [(GUEST, 0, vu.WRITE)], [(GUEST, 0xffffffff, vu.WRITE)],
                  [(GUEST + (8 << 20) - 256, 512, vu.WRITE)], [((1 << 64) - 256, 512, vu.WRITE)],
                  [(GUEST, 512, vu.WRITE), (GUEST, 512, 0)], [(outside, 512, 0), (GUEST, 512, vu.WRITE)]):
        assert post(queue, READ, *parts) == vu.IOERR
    assert queue.call(vu.IN, 0, into=512)[0] == vu.OK


@pytest.mark.parametrize('parts', [[], [(GUEST + (1 << 40), 1, vu.WRITE)], [(GUEST, 512, 0)]])
def test_no_status_byte(served, parts):
    """V6: nothing can be said to such a request, so the queue is broken."""
    queue = broken_queue(served)
    post(queue, READ, *parts, status=False)
    expect_broken(served, queue, 'request without a status byte')


@pytest.mark.parametrize('header', [b'', READ[:15]])
def test_short_header(served, header):
    """V6"""
    assert post(broken_queue(served), header, (GUEST, 512, vu.WRITE)) == vu.IOERR


@pytest.mark.parametrize('kind', [2, 3, 5, 10, 12, 14, 255, 0x80000000, 0xffffffff])
def test_unknown_types(served, kind):
    """V6: SCSI commands and whatever else there is."""
    assert post(broken_queue(served), struct.pack('<IIQ', kind, 0, 0), (GUEST, 512, vu.WRITE)) == vu.UNSUPP


@pytest.mark.parametrize('sector', [16384, 16383 << 1, 1 << 55, (1 << 64) - 1])
def test_past_the_end(served, sector):
    """V7: nothing is written, also where the sum wraps."""
    queue = broken_queue(served)
    assert queue.call(vu.OUT, sector, [b'x' * 512]) == vu.IOERR
    assert queue.call(vu.IN, sector, into=512)[0] == vu.IOERR
    assert queue.call(vu.OUT, 16383, [b'x' * 1024]) == vu.IOERR
    assert not any(served.image.read_bytes())


def test_part_of_a_sector(served):
    """V7"""
    queue = broken_queue(served)
    assert queue.call(vu.OUT, 0, [b'x' * 511]) == vu.IOERR
    assert queue.call(vu.IN, 0, into=513)[0] == vu.IOERR
    assert not any(served.image.read_bytes())


@pytest.mark.parametrize('kind', [vu.DISCARD, vu.WRITE_ZEROES])
def test_bad_ranges(served, kind):
    """V7: discards and zero writes."""
    queue = broken_queue(served)
    assert queue.call(vu.OUT, 0, [b'x' * 512]) == vu.OK
    good = struct.pack('<QII', 0, 1, 0)
    for data, status in ((b'', vu.IOERR), (good[:15], vu.IOERR), (33 * good, vu.IOERR),
                         (good + struct.pack('<QII', 16384, 1, 0), vu.IOERR), (struct.pack('<QII', 0, 1, 2), vu.UNSUPP),
                         (struct.pack('<QII', (1 << 64) - 1, 2, 0), vu.IOERR),
                         (struct.pack('<QII', 0, 0xffffffff, 0), vu.IOERR)):
        assert queue.call(kind, out=[data] if data else []) == status
    assert served.image.read_bytes()[:512] == b'x' * 512


def test_gone_with_requests_in_flight(served):
    """V9: they are done, and the next front end finds their data."""
    for _ in range(5):
        front = served.connect()
        queue = front.queue()
        for n in range(8):
            queue.submit(vu.OUT, 128 * n, [os.urandom(64 << 10)], kick=False)
        queue.kick()
        front.close()


def test_table_in_flight_of_another_size(served):
    """V9: a table for smaller queues, and one that is smaller than it says."""
    front = served.connect()
    _, (inflight,) = front.ask(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 1, 32))
    queue = front.queue(size=64, start=False)
    with pytest.raises(AssertionError):
        queue.set_up()
    assert not front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', 1 << 20, 0, 1, 1024), [inflight])
    assert not front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', 64, 0, 1, 32), [inflight])
    os.close(inflight)


def test_table_in_flight_scribbled_over(served):
    """V9: what stands there is not believed."""
    front = served.connect()
    memory = vu.Memory(1 << 16)
    for fill in (b'\xff', b'\x01'):
        memory.map[:] = fill * memory.size
        assert front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', memory.size, 0, 1, 64), [memory.fd])
        with pytest.raises(AssertionError):
            front.queue(size=64)
    memory.close()


@pytest.mark.parametrize('offset', [1, 4, (1 << 64) - 8, 1 << 63, 1 << 16])
def test_table_in_flight_at_odd_offsets(served, offset):
    """V9: where no counter can be, or beyond the file."""
    front = served.connect()
    memory = vu.Memory(1 << 16)
    assert not front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', 1 << 14, offset, 1, 64), [memory.fd])
    assert front.queue().call(vu.IN, 0, into=512)[0] == vu.OK
    memory.close()


def test_table_in_flight_for_the_other_ring(served):
    """V9: a table that is large enough for a split ring, and then the ring is a packed one, whose table is twice as large."""
    front = served.connect()
    memory = vu.Memory(4096)
    assert front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', memory.size, 0, 1, 128), [memory.fd])
    front.features |= vu.bits(vu.F_PACKED)
    assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features & front.offered))
    with pytest.raises(AssertionError):
        front.queue(size=128)
    assert 'the table of requests in flight has 4096 bytes, and needs 4160' in served.daemon.stderr
    memory.close()


@pytest.mark.parametrize('after', [(vu.SET_VRING_BASE, struct.pack('=II', 0, 0)), (vu.SET_VRING_NUM, struct.pack('=II', 0, 8))],
                         ids=['base', 'size'])
def test_ring_moved_while_it_runs(served, after):
    """V10: refused, and it goes on where it is."""
    front = served.connect()
    queue = front.queue()
    assert not front.do(*after)
    for moved in range(3):
        areas = [queue.descriptors, queue.driver, queue.device]
        areas[moved] += 4096
        user = front.memory.user
        address = struct.pack('=IIQQQQ', 0, 0, user + areas[0], user + areas[2], user + areas[1], 0)
        assert not front.do(vu.SET_VRING_ADDR, address)
    assert not front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHH', 1 << 20, 0, 1, 64), [front.memory.fd])
    assert queue.call(vu.IN, 0, into=512)[0] == vu.OK


def test_log_replaced_while_it_is_not_kept(served):
    """A queue that started when there was a log nobody wanted yet does not write to it when another has taken its place."""
    front = served.connect()
    logs = [vu.Memory(1 << 18) for _ in range(3)]
    front.ask(vu.SET_LOG_BASE, struct.pack('=QQ', logs[0].size, 0), [logs[0].fd])
    queue = front.queue()
    for log in logs[1:]:
        front.ask(vu.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd])
        assert queue.call(vu.IN, 0, into=512)[0] == vu.OK
    for log in logs:
        assert not any(log.map[:])
        log.close()


@pytest.mark.parametrize('size, offset', [(1 << 62, 0), (4096, (1 << 64) - 4096), (4096, 1 << 18), ((1 << 64) - 1, 1), (1 << 18, 4096)])
def test_bad_logs(served, size, offset):
    """A log that is not in its file ends the connection, as the message has no other answer; the memory of others is safe."""
    front = served.connect()
    log = vu.Memory(1 << 18)
    front.send(vu.SET_LOG_BASE, struct.pack('=QQ', size, offset), [log.fd])
    assert front.ended()
    log.close()


def test_log_is_short_or_cut(served):
    """Pages beyond the log are not marked; one that shrinks harms nobody."""
    front = served.connect()
    queue = front.queue()
    log = vu.Memory(4096)
    front.ask(vu.SET_LOG_BASE, struct.pack('=QQ', 16, 0), [log.fd])
    assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features & front.offered | vu.bits(vu.F_LOG_ALL)))
    for used in 0, 8 * 4096 * 15, (1 << 64) - 4, 1 << 63:
        assert front.do(vu.SET_VRING_ADDR, queue.address(flags=1, log=used))
        assert queue.call(vu.IN, 0, into=4096)[0] == vu.OK
    assert any(log.map[:16]) and not any(log.map[16:])
    os.ftruncate(log.fd, 0)
    assert queue.call(vu.IN, 0, into=4096)[0] == vu.OK
    os.close(log.fd)


@pytest.mark.parametrize('flags', [9, 1], ids=['answer wanted', 'no answer wanted'])
def test_answers_are_counted(served, flags):
    """One answer to each message that has one, or for which one is wanted; and none besides."""
    front = vu.FrontEnd(served.socket)
    served.front_ends.append(front)
    front.negotiate(protocol=(vu.PF_MQ, vu.PF_REPLY_ACK, vu.PF_CONFIG, vu.PF_INFLIGHT, vu.PF_SLOTS)).share_memory()
    log = vu.Memory(1 << 12)
    asked = [(vu.GET_FEATURES,), (vu.GET_QUEUE_NUM,), (vu.GET_MAX_MEM_SLOTS,), (vu.GET_VRING_BASE, bytes(8)),
             (vu.GET_CONFIG, struct.pack('=III', 0, 8, 0) + bytes(8))]
    told = [(vu.SET_OWNER,), (vu.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd]), (vu.SET_VRING_NUM, struct.pack('=II', 0, 8))]
    for message in asked + told:
        front.send(*message, flags=flags)
    for message in asked + (told if flags == 9 else []):
        request, _, fds = front.receive()
        assert request == message[0] and not fds
    assert front.ask_u64(vu.GET_QUEUE_NUM) == 1
    log.close()


def test_flood_of_descriptors(served):
    """V1: descriptors with every byte of messages, more than any message takes: all are closed."""
    with vu.FrontEnd(served.socket) as front:
        front.negotiate(BASIC)
        before = descriptors_of(served.daemon)
        message = struct.pack('=III', vu.SET_VRING_CALL, 1, 8) + bytes(8)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for at in range(len(message)):
                socket.send_fds(front.sock, [message[at:at + 1]], [0] * 8)
        assert front.ended()
    wait_for(lambda: descriptors_of(served.daemon) < before, 'the descriptors to be closed')


def test_channel_that_nobody_reads(tmp_path):
    """A front end that leaves its channel full and goes keeps neither the next one waiting nor the export's end."""
    with Served(tmp_path) as served:
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        front = served.connect()
        assert front.do(vu.SET_BACKEND_REQ_FD, b'', [theirs.fileno()])
        for size in range(1, 101):
            served.qmp.command('block_resize', node_name='disk', size=8 * MIB + size * 512)
        front.close()
        assert served.connect().queue().call(vu.IN, 0, into=512)[0] == vu.OK
        served.qmp.command('block-export-del', id='vub0', mode='hard')
        wait_for(lambda: not served.qmp.command('query-block-exports'), 'the export to go')
        assert ours.recv(12) == struct.pack('=III', 2, 1, 0)
        ours.close()
        theirs.close()


@pytest.mark.parametrize('how', ['removed', 'replaced'])
def test_region_gone_with_requests_in_flight(tmp_path, how):
    """V2: requests keep the memory with which they began; it is let go when they are done."""
    with Served(tmp_path, first=['--object', 'throttle-group,id=g,limits.iops-total=1']) as served:
        served.qmp.command('block-export-del', id='vub0')
        served.qmp.command('blockdev-add', driver='throttle', node_name='slow', throttle_group='g', file='disk')
        served.qmp.command('block-export-add', type='vhost-user-blk', id='vub0', node_name='slow', writable=True,
                           addr={'type': 'unix', 'path': str(served.socket)})
        served.image.write_bytes(b'd' * MIB + bytes(7 * MIB))
        front = served.connect()
        queue = front.queue()
        extra = vu.Memory(MIB, GUEST + (1 << 32), vu.USER_BASE + (1 << 32))
        assert front.do(vu.ADD_MEM_REG, bytes(8) + extra.region(), [extra.fd])
        headers = []
        for number in range(8):
            at = queue.memory.take(17, 16)
            queue.memory.map[at:at + 17] = READ + b'\xff'
            queue.post([(GUEST + at, 16, 0), (extra.guest + 4096 * number, 512, vu.WRITE), (GUEST + at + 16, 1, vu.WRITE)])
            headers.append(at)
        queue.kick()
        wait_for(lambda: queue.collect() or queue.done, 'the first to end')
        assert len(queue.done) < len(headers)
        if how == 'removed':
            assert front.do(vu.REM_MEM_REG, bytes(8) + extra.region())
        else:
            front.share_memory()
        served.qmp.command('qom-set', path='g', property='limits', value={'iops-total': 0})
        wait_for(lambda: queue.collect() or len(queue.done) == len(headers), 'the others to end')
        assert [queue.memory.map[at + 16] for at in headers] == [vu.OK] * len(headers)
        assert all(extra.map[4096 * number:4096 * number + 512] == b'd' * 512 for number in range(len(headers)))
        assert post(queue, READ, (extra.guest, 512, vu.WRITE)) == vu.IOERR
        mapped = f'/memfd:guest (deleted)'
        maps = f'/proc/{served.daemon.pid}/maps'
        wait_for(lambda: open(maps, encoding='utf-8').read().count(mapped) == 1, 'the memory to be let go')
        extra.close()


def test_odd_orders(served):
    """V10: kicks before the start, twice started, stopped twice, features changed while it runs."""
    front = served.connect()
    queue = front.queue(start=False)
    queue.kick()
    assert front.do(vu.SET_VRING_ENABLE, struct.pack('=II', 0, 1)), 'it starts with the descriptor for kicks'
    queue.set_up()
    assert front.do(vu.SET_VRING_KICK, struct.pack('=Q', 0), [queue.kick_fd])
    assert not front.do(vu.SET_VRING_NUM, struct.pack('=II', 0, 8))
    assert not front.do(vu.SET_FEATURES, struct.pack('=Q', vu.bits(vu.F_PROTOCOL)))
    assert queue.call(vu.IN, 0, into=512)[0] == vu.OK
    base = queue.stop()
    assert queue.stop() == base
    assert front.ask(vu.GET_CONFIG, struct.pack('=III', 250, 8, 0) + bytes(8)) == struct.pack('=III', 250, 0, 0)
    assert not front.do(vu.SET_CONFIG, struct.pack('=III', 0, 8, 0) + bytes(8))


@pytest.mark.parametrize('flags', [0, os.EFD_NONBLOCK], ids=['blocking', 'non-blocking'])
def test_v10_call_descriptor_is_full(tmp_path, flags):
    """Nobody waits for a front end that cannot be called any more: its requests are done, and the export goes when told to."""
    with Served(tmp_path) as served:
        front = served.connect()
        queue = front.queue(start=False)
        queue.call_fd = os.eventfd(2 ** 32 - 1, flags)
        front.stack.callback(os.close, queue.call_fd)
        os.eventfd_write(queue.call_fd, 2 ** 64 - 1 - 2 ** 32)
        queue.set_up()
        for _ in range(3):
            assert queue.call(vu.OUT, 0, [b'x' * 512]) == vu.OK
        served.qmp.command('block-export-del', id='vub0', mode='hard')
        assert front.ended()
        wait_for(lambda: not served.qmp.command('query-block-exports'), 'the export to go')


def test_v10_kick_descriptor_is_a_file(served, tmp_path):
    front = served.connect()
    queue = front.queue(start=False)
    with open(tmp_path / 'file', 'w+b') as file:
        queue.kick_fd = os.dup(file.fileno())
        front.stack.callback(os.close, queue.kick_fd)
        queue.set_up()
    assert queue.broken()
    assert 'no event descriptor' in served.daemon.stderr
