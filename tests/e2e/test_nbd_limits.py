# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that hold back, pipeline without end, or vanish: memory stays bounded, others are served (N1, N2, N13, N15)."""
import os
import socket
import struct
import threading

import pytest

import nbd_raw as nbd
from harness import QmpError, memory_limit_kib, raw_image, sanitized, wait_for
from nbd_raw import Closed, NbdRaw
from nbd_serving import MIB, Served, pattern, sparse_image

MEMORY_KIB = memory_limit_kib(64 << 10)


@pytest.fixture
def served(daemon, tmp_path):
    image = sparse_image(tmp_path / 'disk.img', 64 * MIB, (0, pattern(64 * MIB)))
    return Served(daemon, tmp_path, image=image)


@pytest.fixture(params=['main', 'thread0'])
def on_loops(daemon, tmp_path, request):
    """The export runs on the main loop, or on an iothread."""
    image = sparse_image(tmp_path / 'disk.img', 64 * MIB, (0, pattern(64 * MIB)))
    served = Served(daemon, tmp_path, image=image, export='writable=on' + (',iothread=thread0' if request.param != 'main' else ''),
                    first=['--object', 'iothread,id=thread0'])
    served.iothread = {} if request.param == 'main' else {'iothread': request.param}
    return served


def greeted(client):
    """Whether the server has sent its greeting; does not wait."""
    client.sock.setblocking(False)
    try:
        return len(client.sock.recv(18, socket.MSG_PEEK)) == 18
    except BlockingIOError:
        return False
    finally:
        client.sock.settimeout(60)


def test_max_connections(daemon, tmp_path):
    """N1: those beyond the limit are not greeted until a place is free."""
    served = Served(daemon, tmp_path, server=',max-connections=2')
    first, second = served.open(), served.connect()
    waiting = [served.connect(hello=False) for _ in range(3)]
    assert first.read(0, 1)
    assert second.list()
    assert not any(greeted(client) for client in waiting)
    second.close()
    wait_for(lambda: sum(greeted(client) for client in waiting) == 1, 'one more to be greeted')
    first.disconnect()
    wait_for(lambda: sum(greeted(client) for client in waiting) == 2, 'another to be greeted')
    assert greeted(waiting[0]) and greeted(waiting[1])
    waiting[0].hello()
    waiting[0].go('x')
    assert waiting[0].read(0, 1)


def test_single_connection_promises_nothing_to_others(daemon, tmp_path):
    """N15: without multi-conn when max-connections is 1."""
    served = Served(daemon, tmp_path, server=',max-connections=1')
    with served.open() as client:
        assert not client.flags & nbd.FLAG_CAN_MULTI_CONN


def test_default_limit_of_connections(served):
    clients = [served.connect(hello=False) for _ in range(101)]
    wait_for(lambda: all(greeted(client) for client in clients[:100]), 'a hundred to be greeted')
    assert not greeted(clients[100])
    clients[50].close()
    wait_for(lambda: greeted(clients[100]), 'the last to be greeted')


def test_flood_of_connections(served):
    """N1: thousands come and go, silent or half through the handshake."""
    before = served.descriptors()
    with served.open() as client:
        for round_ in range(40):
            flood = [served.connect(hello=False) for _ in range(50)]
            for number, one in enumerate(flood):
                if number % 3:
                    one.send(struct.pack('>I', 3)[:number % 5])
            assert client.read(round_, 16) == served.content()[round_:round_ + 16]
            for one in flood:
                one.close()
    wait_for(lambda: served.descriptors() <= before, 'all connections to be closed')
    assert served.daemon.memory_kib() < MEMORY_KIB
    served.check_alive()


@pytest.mark.parametrize('sent', [b'', struct.pack('>I', 3), struct.pack('>IQ', 3, nbd.IHAVEOPT)],
                         ids=['nothing', 'flags', 'half-an-option'])
def test_handshake_timeout(daemon, tmp_path, sent):
    """N1: who stops in the handshake is dropped; who has done it may be silent for ever."""
    served = Served(daemon, tmp_path, server=',handshake-max-seconds=1')
    idle = served.open()
    client = served.connect(hello=False)
    client.receive(18)
    client.send(sent)
    assert client.at_end()
    assert idle.read(0, 1)


def test_handshake_may_last(daemon, tmp_path):
    """0 means no limit."""
    served = Served(daemon, tmp_path, server=',handshake-max-seconds=0')
    with served.connect() as client:
        client.go('x')
        assert client.read(0, 1)


def send_until_stuck(client, data):
    """Sends over and over again until the server takes no more for a while; how many bytes it took."""
    client.sock.settimeout(1.5)
    sent = 0
    try:
        while sent < 400 * MIB:
            sent += client.sock.send(data)
    except (BlockingIOError, TimeoutError):
        pass
    client.sock.settimeout(60)
    return sent


@pytest.mark.parametrize('mode', ['simple', 'structured', 'extended'])
def test_client_that_never_reads(served, mode):
    """N13: it is no longer listened to; memory stays bounded, and the others don't notice."""
    with served.open(mode=mode) as client:
        request = client.pack(nbd.CMD_READ, 0, MIB)
        sent = send_until_stuck(client, request * 1000)
        assert sent < 100 * MIB
        # The data that one client may hold, and what the daemon needs anyway.
        assert served.daemon.memory_kib() < MEMORY_KIB
        served.check_alive()
        # When it does read, everything is there, in order of nothing but completion.
        for _ in range(100):
            chunk = client.chunk(MIB)
            assert not chunk.error
    served.check_alive()


def test_million_requests_in_flight(served):
    """Small requests, all at once, answered while they are still being sent."""
    count = 1_000_000 if not sanitized() else 50_000
    with served.open(mode='simple') as client:
        request = client.pack(nbd.CMD_READ, 4096, 1)
        sender = threading.Thread(target=lambda: [client.send(request * 10000) for _ in range(count // 10000)])
        sender.start()
        expected = client.sock
        reply = struct.pack('>IIQ', nbd.SIMPLE_REPLY_MAGIC, 0, 0) + served.content()[4096:4097]
        for _ in range(count // 10000):
            data = bytearray()
            while len(data) < len(reply) * 10000:
                more = expected.recv(len(reply) * 10000 - len(data))
                assert more
                data += more
            assert data == reply * 10000
        sender.join()
        assert served.daemon.memory_kib() < MEMORY_KIB
        client.disconnect()


def test_refused_requests_are_bounded_too(served):
    with served.open() as client:
        assert send_until_stuck(client, client.pack(99, 0, 1) * 1000) < 100 * MIB
        assert served.daemon.memory_kib() < MEMORY_KIB
    with served.open() as client:
        send_until_stuck(client, client.pack(nbd.CMD_WRITE, 1 << 62, 65536, payload=bytes(65536)))
        assert served.daemon.memory_kib() < MEMORY_KIB
    served.check_alive()


def test_stuck_clients_leave_room_for_others(daemon, tmp_path):
    """Twenty clients that have stopped reading: a newcomer has several large requests at once all the same."""
    image = sparse_image(tmp_path / 'disk.img', 64 * MIB, (0, pattern(64 * MIB)))
    served = Served(daemon, tmp_path, image=image)
    stuck = [served.open(mode='simple') for _ in range(20)]
    for client in stuck:
        client.send(client.pack(nbd.CMD_READ, 0, 4 * MIB) * 50)
    with served.open(mode='simple') as client:
        cookies = [client.submit(nbd.CMD_READ, 0, MIB) for _ in range(20)]
        content = served.content()[:MIB]
        while cookies:
            chunk = client.chunk(MIB)
            cookies.remove(chunk.cookie)
            assert chunk.payload == content
    assert served.daemon.memory_kib() < memory_limit_kib(400 << 10)


def test_half_closed(served):
    """N13: the client shuts down its sending side; what it has sent is done and answered."""
    with served.open(mode='simple') as client:
        data = pattern(65536, 9)
        for number in range(10):
            client.submit(nbd.CMD_WRITE, number * 65536, payload=data)
        client.submit(nbd.CMD_READ, 0, 65536)
        client.sock.shutdown(socket.SHUT_WR)
        cookies = set(range(1, 12))
        while cookies:
            chunk = client.chunk()
            cookies.remove(chunk.cookie)
            if chunk.cookie == 11:
                client.receive(65536)
        assert client.at_end()
    assert served.content()[:655360] == data * 10


def test_writes_before_disconnect_are_done(served):
    """DISC right behind writes: they are finished first."""
    data = pattern(MIB, 5)
    with served.open(mode='simple') as client:
        message = b''.join(client.pack(nbd.CMD_WRITE, number * MIB, MIB, cookie=number, payload=data) for number in range(8))
        client.send(message + client.pack(nbd.CMD_DISC))
        for _ in range(8):
            assert not client.chunk().error
        assert client.at_end()
    assert served.content()[:8 * MIB] == data * 8


def test_vanishing_with_replies_queued(on_loops):
    """N13: resets in the middle of everything."""
    served = on_loops
    before = served.descriptors()
    for size in (512, 65536, 4 * MIB):
        for _ in range(5):
            client = served.open()
            client.send(client.pack(nbd.CMD_READ, 0, size) * 30 + client.pack(nbd.CMD_WRITE, 0, 4096, payload=served.content()[:4096]))
            client.close()
    wait_for(lambda: served.descriptors() <= before, 'all connections to be closed')
    served.check_alive()


def test_reset_over_tcp(daemon, tmp_path):
    """N13: a hard reset (RST) while replies are on their way."""
    served = Served(daemon, tmp_path)
    served.qmp.command('nbd-server-stop')
    from nbd_serving import free_port
    port = free_port()
    served.qmp.command('nbd-server-start', addr={'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port)}})
    served.qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='x')
    for _ in range(20):
        client = NbdRaw.open(('127.0.0.1', port), 'x')
        client.send(client.pack(nbd.CMD_READ, 0, MIB) * 20)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        client.close()
    with NbdRaw.open(('127.0.0.1', port), 'x') as client:
        assert client.read(0, MIB) == served.content()


def test_removal_while_clients_do_everything(on_loops):
    """N2: in the handshake, idle, mid-request, blocked on writing to who doesn't read."""
    served = on_loops
    silent, asking, idle, stuck = (served.connect(hello=False), served.connect(), served.open(), served.open())
    halfway = served.open()
    halfway.send(halfway.pack(nbd.CMD_WRITE, 0, MIB) + bytes(1000))
    stuck.send(stuck.pack(nbd.CMD_READ, 0, 4 * MIB) * 100)
    with pytest.raises(QmpError, match="export 'exp' still in use"):
        served.qmp.command('block-export-del', id='exp')
    assert idle.read(0, 1)
    served.qmp.command('block-export-del', id='exp', mode='hard')
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'exp'}
    for client in (idle, halfway):
        assert client.at_end()
    with pytest.raises(Closed):
        while True:
            stuck.receive(1 << 20)
    assert asking.list() == {}
    silent.hello()
    with pytest.raises(nbd.OptionError):
        silent.go('x')
    served.qmp.command('blockdev-del', node_name='disk')


@pytest.mark.parametrize('stop', ['block-export-del', 'nbd-server-stop'])
def test_what_has_begun_is_answered(daemon, tmp_path, stop):
    """Also when export or server go meanwhile; and a client that does not read its replies does not hold that up."""
    served = Served(daemon, tmp_path, first=['--object', 'throttle-group,id=g,limits.iops-total=1'])
    served.qmp.command('blockdev-add', driver='throttle', node_name='slow', file='disk', throttle_group='g')
    served.qmp.command('block-export-add', type='nbd', id='e', node_name='slow', name='slow', writable=True)
    with served.open('slow', mode='simple') as client, served.open('slow', mode='simple') as deaf:
        deaf.send(deaf.pack(nbd.CMD_READ, 0, MIB) * 8)
        writes = [client.pack(nbd.CMD_WRITE, number * 512, 512, cookie=number, payload=bytes([number]) * 512) for number in range(1, 5)]
        client.send(b''.join(writes))
        answered = {client.chunk().cookie}
        served.qmp.command(stop, **({'id': 'e', 'mode': 'hard'} if stop == 'block-export-del' else {}))
        while len(answered) < 4:
            answered.add(client.chunk().cookie)
        assert answered == {1, 2, 3, 4} and client.at_end()
    assert served.content()[512:5 * 512] == b''.join(bytes([number]) * 512 for number in range(1, 5))


def test_stopping_the_server_while_clients_do_everything(on_loops):
    """N2."""
    served = on_loops
    clients = [served.connect(hello=False), served.connect(), served.open(), served.open()]
    clients[3].send(clients[3].pack(nbd.CMD_READ, 0, 4 * MIB) * 100)
    served.qmp.command('nbd-server-stop')
    assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'exp'}
    for client in clients:
        with pytest.raises(Closed):
            while True:
                client.receive(1 << 20)
    assert not os.path.exists(served.path)
    assert served.qmp.command('query-block-exports') == []
    served.qmp.command('blockdev-del', node_name='disk')


def test_quitting_while_clients_do_everything(on_loops):
    served = on_loops
    clients = [served.connect(hello=False), served.connect(), served.open(), served.open()]
    clients[3].send(clients[3].pack(nbd.CMD_READ, 0, 4 * MIB) * 100)
    served.daemon.stop()
    assert not os.path.exists(served.path)


def test_add_and_remove_under_fire(on_loops):
    """Exports come and go while clients connect, read and hang up."""
    served = on_loops
    stop = threading.Event()
    failures = []

    def knock():
        while not stop.is_set():
            try:
                with NbdRaw.connect(served.path) as client:
                    client.negotiate('structured')
                    client.go('y')
                    for at in range(0, MIB, 65536):
                        client.read(at, 65536)
            except (Closed, nbd.OptionError, ConnectionError):
                pass
            except Exception as failure:  # pylint: disable=broad-except
                failures.append(failure)
                return

    threads = [threading.Thread(target=knock) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        served.qmp.command('block-export-add', type='nbd', id=f'y{number}', node_name='disk', name='y', writable=bool(number % 2),
                           **served.iothread)
        served.qmp.command('block-export-del', id=f'y{number}', mode='hard')
        assert served.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': f'y{number}'}
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    served.check_alive()


def test_flush_covers_other_connections(daemon, tmp_path):
    """N15: multi-conn is announced, and what one wrote, the other sees and flushes."""
    served = Served(daemon, tmp_path, image=raw_image(tmp_path / 'disk.img', MIB))
    with served.open() as writer, served.open() as other:
        assert writer.flags & nbd.FLAG_CAN_MULTI_CONN
        writer.write(0, b'written here')
        assert other.read(0, 12) == b'written here'
        other.request(nbd.CMD_FLUSH)
    assert served.content()[:12] == b'written here'


def test_idle_connections_hold_little(served):
    base = served.daemon.memory_kib()
    clients = [served.open() for _ in range(90)]
    for client in clients:
        client.read(0, MIB)
        client.write(0, served.content()[:65536])

    wait_for(lambda: served.daemon.memory_kib() < memory_limit_kib(base + 90 * 16 + 2048), 'memory to be given back')
