# SPDX-License-Identifier: LGPL-2.1-or-later
"""The vhost-user-blk export and a front end that keeps to the rules."""
import contextlib
import os
import select
import socket
import struct

import pytest

import vhost_user as vu
from harness import PATIENCE_S, Daemon, QmpError, storaged_fails, wait_for
from write_log import FLUSH, add_logged, flags_logged, lasts

MIB = 1 << 20
SIZE = 8 * MIB
RINGS = {'split': (), 'packed': (vu.F_PACKED,), 'split, event index': (vu.F_EVENT_IDX,),
         'packed, event index': (vu.F_PACKED, vu.F_EVENT_IDX), 'split, in order': (vu.F_IN_ORDER,),
         'packed, in order': (vu.F_PACKED, vu.F_IN_ORDER)}
BASIC = (vu.F_FLUSH, vu.F_CONFIG_WCE, vu.F_DISCARD, vu.F_WRITE_ZEROES, vu.F_VERSION_1, vu.F_INDIRECT)


class Served:
    """A daemon with a disk and an export of it."""

    def __init__(self, tmp_path, options='', first=(), size=SIZE, start=True):
        self.tmp_path = tmp_path
        self.image = tmp_path / 'disk.img'
        self.socket = tmp_path / 'vhost.sock'
        if not self.image.exists():
            with open(self.image, 'wb') as image:
                image.truncate(size)
        self.arguments = [*first, '--blockdev', f'driver=file,node-name=disk,filename={self.image},discard=unmap', '--export',
                          f'type=vhost-user-blk,id=vub0,node-name=disk,writable=on,addr.type=unix,addr.path={self.socket}{options}']
        self.front_ends = []
        if start:
            self.start()

    def start(self):
        self.daemon = Daemon(self.tmp_path, *self.arguments)
        self.qmp = self.daemon.qmp
        return self

    def connect(self, features=BASIC, memory=True, **kwargs):
        front = vu.FrontEnd(self.socket)
        self.front_ends.append(front)
        front.negotiate(features, **kwargs)
        return front.share_memory() if memory else front

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        for front in self.front_ends:
            front.close()
        self.daemon.__exit__(kind, value, traceback)


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path) as served:
        yield served


@pytest.mark.parametrize('ring', RINGS)
def test_requests(served, ring):
    """Every kind of request on every kind of ring, in one descriptor each, in a table, and many at once around the ring."""
    front = served.connect((*BASIC, *RINGS[ring]))
    queue = front.queue(size=32)
    data = os.urandom(64 << 10)
    assert queue.call(vu.OUT, 8, [data[:4096], data[4096:]]) == vu.OK
    assert queue.call(vu.IN, 8, into=len(data)) == (vu.OK, data)
    assert queue.call(vu.IN, 8, into=len(data), indirect=True) == (vu.OK, data)
    assert queue.call(vu.FLUSH) == vu.OK
    assert served.image.read_bytes()[4096:4096 + len(data)] == data
    assert queue.call(vu.GET_ID, into=20) == (vu.OK, b'vub0'.ljust(20, b'\0'))
    assert queue.call(vu.WRITE_ZEROES, out=[struct.pack('<QII', 8, 8, 0)]) == vu.OK
    assert queue.call(vu.DISCARD, out=[struct.pack('<QII', 16, 8, 0)]) == vu.OK
    assert queue.call(vu.IN, 8, into=4096) == (vu.OK, bytes(4096))
    for _ in range(40):
        numbers = [queue.submit(vu.IN, 8 * (n + 3), into=512, kick=False) for n in range(10)]
        queue.kick()
        for n, number in enumerate(numbers):
            assert queue.wait(number) == (vu.OK, data[8192 + n * 4096:][:512], 513)
    assert 'warning' not in served.daemon.stderr


def test_call_at_the_start(served):
    """A daemon before this one may have died between giving the last request back and telling so."""
    queue = served.connect().queue()
    assert select.select([queue.call_fd], [], [], PATIENCE_S)[0]


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)], ids=['split', 'packed'])
def test_reset_empties_the_table(served, ring):
    """A front end that resets the device and keeps the table: the rings begin anew, wherever they were."""
    front = served.connect((*BASIC, *ring), protocol=(vu.PF_REPLY_ACK, vu.PF_CONFIG, vu.PF_RESET_DEVICE, vu.PF_INFLIGHT))
    reply, (inflight,) = front.ask(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 1, 16) + bytes(4))
    # The largest table that 16 places need; behind it may be more.
    size, table = struct.unpack_from('=Q', reply)[0], 32 + 16 * 32
    queue = front.queue(size=16)
    for _ in range(3):
        assert queue.call(vu.IN, 0, into=512)[0] == vu.OK
    assert any(os.pread(inflight, table, 0))
    assert front.do(vu.RESET_DEVICE)
    assert not any(os.pread(inflight, table, 0))
    assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features & front.offered))
    again = front.queue(size=16)
    for _ in range(20):
        assert again.call(vu.IN, 0, into=512)[0] == vu.OK
    front.close()
    # One that has come with a table of before, and is reset before a queue begins.
    assert any(os.pread(inflight, table, 0))
    front = served.connect((*BASIC, *ring), protocol=(vu.PF_REPLY_ACK, vu.PF_RESET_DEVICE, vu.PF_INFLIGHT))
    assert front.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHHI', size, 0, 1, 16, 0), [inflight])
    assert front.do(vu.RESET_DEVICE)
    assert not any(os.pread(inflight, table, 0))
    os.close(inflight)


def test_table_before_the_features(served):
    """A front end may ask for the table before it says which kind of ring it wants: there is room for either."""
    front = served.connect(())
    _, (inflight,) = front.ask(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 1, 64) + bytes(4))
    front.features = vu.bits(vu.F_PROTOCOL, vu.F_VERSION_1, vu.F_PACKED)
    assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features))
    assert front.queue(size=64).call(vu.IN, 0, into=512)[0] == vu.OK
    os.close(inflight)


def test_config(tmp_path):
    """What the guest is told of the disk."""
    with Served(tmp_path, ',logical-block-size=4096,num-queues=3') as served:
        front = served.connect()
        config = front.config()
        assert struct.unpack_from('<Q', config)[0] == SIZE // 512
        assert struct.unpack_from('<I', config, 12)[0] == 126
        assert struct.unpack_from('<I', config, 20)[0] == 4096
        assert config[32] == 1 and struct.unpack_from('<H', config, 34)[0] == 3
        assert front.config(200)[60:] == bytes(140), 'fields of later versions'
        assert front.ask_u64(vu.GET_QUEUE_NUM) == 3
        assert front.offered & vu.bits(vu.F_MQ, vu.F_PACKED, vu.F_EVENT_IDX, vu.F_INDIRECT, vu.F_IN_ORDER, vu.F_VERSION_1)
        queue = front.queue(2)
        assert queue.call(vu.IN, 1, into=512)[0] == vu.IOERR, 'part of a block'
        assert queue.call(vu.IN, 8, into=4096)[0] == vu.OK


def test_limits_of_discard_and_zeroes(tmp_path):
    """As much as the configuration says can be asked for in one request, and no more."""
    with Served(tmp_path, size=4 << 30) as served:
        front = served.connect()
        most, ranges, alignment, zeroes_most, zeroes_ranges = struct.unpack_from('<5I', front.config(), 36)
        assert (most, ranges, zeroes_most, zeroes_ranges, front.config()[56]) == (1 << 22, 32, 1 << 22, 32, 1)
        assert alignment
        queue = front.queue()
        for kind in vu.DISCARD, vu.WRITE_ZEROES:
            assert queue.call(vu.OUT, 0, [b'x' * 65536]) == vu.OK
            assert queue.call(kind, out=[struct.pack('<QII', 0, most + alignment, 0)]) == vu.IOERR
            assert queue.call(kind, out=[33 * struct.pack('<QII', 0, alignment, 0)]) == vu.IOERR
            assert queue.call(vu.IN, 0, into=65536) == (vu.OK, b'x' * 65536)
            assert queue.call(kind, out=[b''.join(struct.pack('<QII', n * alignment, alignment, 0) for n in range(ranges))]) == vu.OK
            assert queue.call(kind, out=[struct.pack('<QII', 0, most, 0)]) == vu.OK
            assert queue.call(vu.IN, 0, into=65536) == (vu.OK, bytes(65536))


def test_read_only(tmp_path):
    with Served(tmp_path) as served:
        served.qmp.command('block-export-add', type='vhost-user-blk', id='ro', node_name='disk',
                           addr={'type': 'unix', 'path': str(tmp_path / 'ro.sock')})
        with vu.FrontEnd(tmp_path / 'ro.sock') as front:
            front.negotiate().share_memory()
            assert front.offered & vu.bits(vu.F_RO) and not front.offered & vu.bits(vu.F_DISCARD, vu.F_WRITE_ZEROES)
            queue = front.queue()
            assert queue.call(vu.OUT, 0, [bytes(512)]) == vu.IOERR
            assert queue.call(vu.WRITE_ZEROES, out=[struct.pack('<QII', 0, 8, 0)]) == vu.IOERR
            assert queue.call(vu.IN, 0, into=512)[0] == vu.OK


def test_queues_on_an_iothread(tmp_path):
    """Several queues at once; each has its own ring."""
    with Served(tmp_path, ',num-queues=4,iothread=t0', first=['--object', 'iothread,id=t0']) as served:
        front = served.connect((*BASIC, vu.F_MQ))
        queues = [front.queue(index) for index in range(4)]
        for round_number in range(20):
            numbers = [queue.submit(vu.OUT, queue.index * 64 + round_number, [bytes([queue.index + 1]) * 512]) for queue in queues]
            assert [queue.wait(number)[0] for queue, number in zip(queues, numbers)] == [vu.OK] * 4
        for queue in queues:
            assert queue.call(vu.IN, queue.index * 64, into=512)[1] == bytes([queue.index + 1]) * 512


def test_write_cache(tmp_path):
    """What the guest is told of the cache, and what becomes of its writes, are one: the log shows which of them are made to last."""
    with Served(tmp_path) as served:
        log = add_logged(served.qmp, tmp_path, 'disk')
        served.qmp.command('block-export-del', id='vub0')
        served.qmp.command('block-export-add', type='vhost-user-blk', id='vub0', node_name='logged', writable=True,
                           addr={'type': 'unix', 'path': str(served.socket)})

        def flags_of(call, *arguments):
            before = len(flags_logged(log))
            assert call(*arguments) == vu.OK
            return flags_logged(log)[before:]

        write = vu.OUT, 8, [b'w' * 512]
        for features, choices in ((BASIC, (None, 0, 1)), ((vu.F_VERSION_1, vu.F_FLUSH), (None,)), ((vu.F_VERSION_1,), (None,))):
            with vu.FrontEnd(served.socket) as front:
                front.negotiate(features).share_memory()
                queue = front.queue()
                for choice in choices:
                    if choice is not None:
                        flushed = flags_of(lambda: not front.do(vu.SET_CONFIG, struct.pack('=III', 32, 1, 0) + bytes([choice])))
                        assert any(one & FLUSH for one in flushed) == (choice == 0), 'what was written before is to last, too'
                        assert front.config()[32] == choice
                    assert lasts(flags_of(queue.call, *write)) == (choice == 0 or vu.F_FLUSH not in features)
                if vu.F_FLUSH in features:
                    assert any(one & FLUSH for one in flags_of(queue.call, vu.FLUSH))
                assert not front.do(vu.SET_CONFIG, struct.pack('=III', 0, 1, 0) + b'x'), 'nothing else can be set'


def test_write_cache_stays_off(tmp_path):
    """A guest that has turned the cache off does not hear of the daemon's end: its successor knows it by the table of requests in flight."""
    served = Served(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: served.daemon.stop())
        front = served.connect()
        stack.callback(front.close)
        reply, (table,) = front.ask(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 1, 64) + bytes(4))
        stack.callback(os.close, table)
        size, offset = struct.unpack_from('=QQ', reply)
        assert front.do(vu.SET_CONFIG, struct.pack('=III', 32, 1, 0) + b'\0')
        served.daemon.kill()
        served.start()
        log = add_logged(served.qmp, tmp_path, 'disk')
        served.qmp.command('block-export-del', id='vub0')
        served.qmp.command('block-export-add', type='vhost-user-blk', id='vub0', node_name='logged', writable=True,
                           addr={'type': 'unix', 'path': str(served.socket)})
        for known in True, False, True:
            with vu.FrontEnd(served.socket) as again:
                again.negotiate(BASIC).share_memory()
                if known:
                    assert again.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHHI', size, offset, 1, 64, 0), [table])
                assert again.config()[32] == (0 if known else 1)
                before = len(flags_logged(log))
                assert again.queue().call(vu.OUT, 8, [b'w' * 512]) == vu.OK
                assert lasts(flags_logged(log)[before:]) == known


@pytest.mark.parametrize('how', ['status', 'message'])
def test_status_and_reset(served, how):
    """The status is kept; a reset stops the queues, forgets what was agreed, and lets the front end begin again."""
    front = served.connect(protocol=(vu.PF_REPLY_ACK, vu.PF_CONFIG, vu.PF_RESET_DEVICE, vu.PF_STATUS))
    assert front.ask_u64(vu.GET_STATUS) == 0
    for status in 1, 3, 11, 15:
        assert front.do(vu.SET_STATUS, struct.pack('=Q', status))
        assert front.ask_u64(vu.GET_STATUS) == status
    assert not front.do(vu.SET_STATUS, struct.pack('=Q', 256))
    queue = front.queue()
    assert queue.call(vu.OUT, 0, [b'r' * 512]) == vu.OK
    assert front.do(vu.SET_CONFIG, struct.pack('=III', 32, 1, 0) + b'\0')
    assert front.do(*((vu.SET_STATUS, bytes(8)) if how == 'status' else (vu.RESET_DEVICE,)))
    assert front.ask_u64(vu.GET_STATUS) == 0
    assert front.config()[32] == 0, 'a guest that was only stopped for a while is not asked again'
    number = queue.submit(vu.IN, 0, into=512)
    assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features & front.offered))
    assert not queue.collect() and not queue.done, 'a queue that was stopped has done something'
    queue.set_up(queue.stop())
    assert queue.wait(number)[:2] == (vu.OK, b'r' * 512)


def test_resize_is_told(served):
    front = served.connect()
    ours, theirs = socket.socketpair()
    assert front.do(vu.SET_BACKEND_REQ_FD, b'', [theirs.fileno()])
    theirs.close()
    ours.settimeout(60)
    served.qmp.command('block_resize', node_name='disk', size=2 * SIZE)
    assert struct.unpack('=III', ours.recv(12)) == (2, 1, 0)
    assert struct.unpack_from('<Q', front.config())[0] == 2 * SIZE // 512
    ours.close()


def test_resize_without_a_client(served):
    served.qmp.command('block_resize', node_name='disk', size=2 * SIZE)
    assert struct.unpack_from('<Q', served.connect().config())[0] == 2 * SIZE // 512


def test_one_after_the_other(served):
    """A second front end waits until the first has gone."""
    first = served.connect()
    queue = first.queue()
    second = vu.FrontEnd(served.socket)
    second.send(vu.GET_FEATURES)
    second.sock.setblocking(False)
    assert queue.call(vu.OUT, 0, [b'1' * 512]) == vu.OK
    with pytest.raises(BlockingIOError):
        second.sock.recv(1)
    first.close()
    second.sock.settimeout(60)
    assert second.receive()[0] == vu.GET_FEATURES
    second.negotiate().share_memory()
    assert second.queue().call(vu.IN, 0, into=512) == (vu.OK, b'1' * 512)
    second.close()


def test_passed_listener(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / 'passed.sock'))
    listener.listen()
    (tmp_path / 'disk.img').write_bytes(bytes(MIB))
    with Daemon(tmp_path, '--blockdev', f'driver=file,node-name=disk,filename={tmp_path}/disk.img', '--export',
                f'type=vhost-user-blk,id=e,node-name=disk,addr.type=fd,addr.str={listener.fileno()}',
                pass_fds=[listener.fileno()]):
        with vu.FrontEnd(tmp_path / 'passed.sock') as front:
            assert struct.unpack_from('<Q', front.negotiate().config())[0] == MIB // 512


def test_passed_listener_of_another_kind(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        fd = listener.fileno()
        complaint = storaged_fails('--blockdev', 'driver=null-co,node-name=disk', '--export',
                                   f'type=vhost-user-blk,id=e,node-name=disk,addr.type=fd,addr.str={fd}', pass_fds=[fd])
        assert complaint.endswith(f"vhost-user-blk needs a UNIX socket, which file descriptor '{fd}' is not")


def test_stop_and_go_on(served):
    """A queue that is stopped, and set up again where it was: as migration and reset do."""
    for ring in (), (vu.F_PACKED,):
        front = served.connect((*BASIC, *ring))
        queue = front.queue(size=16)
        for _ in range(21):
            assert queue.call(vu.IN, 0, into=512)[0] == vu.OK
        base = queue.stop()
        number = queue.submit(vu.OUT, 1, [b'x' * 512])
        queue.set_up(base)
        assert queue.wait(number)[0] == vu.OK
        front.close()


def test_memory_added_and_removed(served):
    """Regions come and go while the queue works; what is in none is refused."""
    front = served.connect()
    queue = front.queue()
    extra = vu.Memory(MIB, vu.GUEST_BASE + (1 << 32), vu.USER_BASE + (1 << 32))
    assert front.ask_u64(vu.GET_MAX_MEM_SLOTS) > 8
    chain = [(vu.GUEST_BASE + queue.memory.take(16, 16), 16, 0), (extra.guest, 512, vu.WRITE),
             (vu.GUEST_BASE + queue.memory.take(1, 16), 1, vu.WRITE)]

    def read_into_extra():
        number = queue.post(chain)
        queue.pending[number] = [(chain[2][0] - vu.GUEST_BASE, 1, True)]
        queue.kick()
        return queue.wait(number)[0]

    assert queue.call(vu.OUT, 0, [b'm' * 512]) == vu.OK
    assert read_into_extra() == vu.IOERR
    assert front.do(vu.ADD_MEM_REG, bytes(8) + extra.region(), [extra.fd])
    assert not front.do(vu.ADD_MEM_REG, bytes(8) + extra.region(), [extra.fd]), 'it overlaps itself'
    assert read_into_extra() == vu.OK and extra.map[:512] == b'm' * 512
    assert front.do(vu.REM_MEM_REG, bytes(8) + extra.region())
    assert not front.do(vu.REM_MEM_REG, bytes(8) + extra.region())
    assert read_into_extra() == vu.IOERR
    assert queue.call(vu.IN, 0, into=512) == (vu.OK, b'm' * 512)
    extra.close()


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)], ids=['split', 'packed'])
def test_dirty_log(served, ring):
    """Pages that the device writes to are marked while a migration runs, and only then; in a packed ring the descriptors are among them."""
    front = served.connect((*BASIC, *ring))
    queue = front.queue(start=False)
    queue.device = queue.memory.take(1024)
    queue.set_up()
    log = vu.Memory(1 << 18)
    front.ask(vu.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd])
    assert queue.call(vu.IN, 0, into=4096)[0] == vu.OK
    assert not any(log.map[:])
    assert front.do(vu.SET_FEATURES, struct.pack('=Q', front.features | vu.bits(vu.F_LOG_ALL)))
    assert front.do(vu.SET_VRING_ADDR, queue.address(flags=1, log=vu.GUEST_BASE + queue.device))
    number = queue.submit(vu.IN, 0, into=4096)
    parts = queue.pending[number]
    assert queue.wait(number)[0] == vu.OK
    marked = {at * 8 + bit for at, byte in enumerate(log.map[:]) if byte for bit in range(8) if byte >> bit & 1}
    first = vu.GUEST_BASE // 4096
    expected = {first + (at + inside) // 4096 for at, size, writable in parts if writable for inside in (0, size - 1)}
    ring_page = first + (queue.descriptors if ring else queue.device) // 4096
    # Whether kicks are wanted is written when the loop goes to sleep or wakes up, before or after.
    assert marked - {first + queue.device // 4096} == (expected | {ring_page}) - {first + queue.device // 4096}
    assert ring_page in marked
    log.map[:] = bytes(log.size)
    number = queue.submit(vu.GET_ID, into=16384)
    parts = queue.pending[number]
    assert queue.wait(number)[0] == vu.OK
    status_page = first + parts[-1][0] // 4096
    assert log.map[status_page // 8] >> status_page % 8 & 1, 'the status is far behind the 20 bytes of the answer'
    log.close()


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)])
def test_requests_survive_the_daemon(tmp_path, ring):
    """Killed with requests in flight, a new daemon does them again; what is done is not done twice or forgotten."""
    throttle = ['--object', 'throttle-group,id=g,limits.iops-total=2', '--blockdev',
                'driver=throttle,node-name=slow,throttle-group=g,file=disk']
    served = Served(tmp_path, start=False)
    served.arguments = served.arguments[:2] + throttle + [word.replace('node-name=disk,writable', 'node-name=slow,writable')
                                                          for word in served.arguments[2:]]
    served.start()
    features = (*BASIC, *ring)
    front = served.connect(features)
    reply, (inflight,) = front.ask(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 1, 64) + bytes(4))
    size, offset = struct.unpack_from('=QQ', reply)
    queue = front.queue(size=64)
    numbers = [queue.submit(vu.OUT, n, [bytes([n + 1]) * 512], kick=False) for n in range(8)]
    queue.kick()
    wait_for(lambda: queue.collect() or queue.done, 'the first to end')
    served.daemon.kill()
    queue.collect()
    assert len(queue.done) < len(numbers)
    served.start()
    served.qmp.command('qom-set', path='g', property='limits', value={'iops-total': 0})
    again = vu.FrontEnd(served.socket, front.memory)
    again.negotiate(features).share_memory()
    assert again.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHHI', size, offset, 1, 64, 0), [inflight])
    queue.front = again
    queue.set_up(queue.used_index if not ring else 0x80008000)
    assert [queue.wait(number)[0] for number in numbers] == [vu.OK] * len(numbers)
    for n in range(8):
        assert queue.call(vu.IN, n, into=512) == (vu.OK, bytes([n + 1]) * 512)
    os.close(inflight)
    again.close()
    front.close()
    served.daemon.stop()


@pytest.mark.parametrize('ring', [(), (vu.F_PACKED,)])
def test_requests_survive_the_front_end(tmp_path, ring):
    """A front end dies with requests in flight; the next one, which has its memory and the table, finds all of them done, once each."""
    with Served(tmp_path, first=['--object', 'throttle-group,id=g,limits.iops-total=4']) as served:
        served.qmp.command('block-export-del', id='vub0')
        served.qmp.command('blockdev-add', driver='throttle', node_name='slow', throttle_group='g', file='disk')
        served.qmp.command('block-export-add', type='vhost-user-blk', id='vub0', node_name='slow', writable=True,
                           addr={'type': 'unix', 'path': str(served.socket)})
        features = (*BASIC, *ring)
        front = served.connect(features)
        reply, (inflight,) = front.ask(vu.GET_INFLIGHT_FD, struct.pack('=QQHH', 0, 0, 1, 64) + bytes(4))
        size, offset = struct.unpack_from('=QQ', reply)
        queue = front.queue(size=64)
        numbers = [queue.submit(vu.OUT, n, [bytes([n + 1]) * 512], kick=False) for n in range(8)]
        queue.kick()
        wait_for(lambda: queue.collect() or queue.done, 'the first to end')
        front.sock.close()
        served.qmp.command('qom-set', path='g', property='limits', value={'iops-total': 0})
        again = vu.FrontEnd(served.socket, front.memory)
        served.front_ends.append(again)
        again.negotiate(features).share_memory()
        assert again.do(vu.SET_INFLIGHT_FD, struct.pack('=QQHHI', size, offset, 1, 64, 0), [inflight])
        queue.collect()
        queue.front = again
        queue.set_up(queue.used_index if not ring else 0x80008000)
        assert [queue.wait(number)[0] for number in numbers] == [vu.OK] * len(numbers)
        assert not queue.pending and not queue.done
        for n in range(8):
            assert queue.call(vu.IN, n, into=512) == (vu.OK, bytes([n + 1]) * 512)
        os.close(inflight)


def test_removal(served):
    front = served.connect()
    queue = front.queue()
    with pytest.raises(QmpError, match="export 'vub0' still in use"):
        served.qmp.command('block-export-del', id='vub0')
    served.qmp.command('block-export-del', id='vub0', mode='hard')
    assert front.ended()
    served.qmp.event('BLOCK_EXPORT_DELETED')
    assert not served.socket.exists()
    del queue


@pytest.mark.parametrize('options, complaint', [
    ('num-queues=0', 'num-queues must be greater than 0'),
    ('num-queues=257', 'num-queues must be at most 256: it is 257'),
    ('logical-block-size=513', 'logical-block-size must be a power of two from 512 to 2097152: it is 513'),
    ('logical-block-size=4194304', 'logical-block-size must be a power of two'),
])
def test_options_refused(served, options, complaint):
    name, value = options.split('=')
    with pytest.raises(QmpError, match=complaint):
        served.qmp.command('block-export-add', type='vhost-user-blk', id='e', node_name='disk',
                           addr={'type': 'unix', 'path': str(served.tmp_path / 'x.sock')}, **{name: int(value)})
    with pytest.raises(QmpError, match="needs a socket of type 'unix' or 'fd', not 'inet'"):
        served.qmp.command('block-export-add', type='vhost-user-blk', id='e', node_name='disk',
                           addr={'type': 'inet', 'host': '127.0.0.1', 'port': '0'})
