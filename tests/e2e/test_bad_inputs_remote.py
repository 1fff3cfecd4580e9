# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers that vanish anywhere, have no TLS, or are ourselves, and guests that change their minds (C3, C5, C6, V8)."""
import contextlib
import socket
import subprocess
import sys
import threading

import pytest

import vhost_user as vu
from harness import QmpError, raw_image, wait_for
from nbd_serving import Served, pattern
from test_vhost_user import Served as Disk

KIB = 1 << 10


class Proxy:
    """Passes a connection on, but for what the server says after so many bytes: then both sides find it gone."""

    def __init__(self, path, server):
        self.server = str(server)
        self.limit = None
        self.passed = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.server)
                self.passed = 0
                threading.Thread(target=self.forward, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self.forward, args=(server, client, self.limit), daemon=True).start()

    def forward(self, source, sink, limit):
        with contextlib.suppress(OSError):
            while limit is None or limit > 0:
                data = source.recv(1 << 16 if limit is None else limit)
                if not data:
                    break
                sink.sendall(data)
                if source.getpeername() == self.server:
                    self.passed += len(data)
                limit = limit if limit is None else limit - len(data)
        for sock in source, sink:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def copy_all(qmp):
    """Opens the disk, copies it, and closes it again: what was wrong with the opening, and with the copy."""
    try:
        qmp.command('blockdev-add', driver='nbd', node_name='far', export='x', read_only=True,
                    server={'type': 'unix', 'path': qmp.proxy})
    except QmpError as failure:
        return failure.desc, None
    qmp.command('blockdev-backup', job_id='j', device='far', target='near', sync='full', auto_dismiss=False)
    job = wait_for(lambda: next((job for job in qmp.command('query-jobs') if job['status'] == 'concluded'), None), 'the end')
    qmp.command('job-dismiss', id='j')
    qmp.command('blockdev-del', node_name='far')
    return None, job.get('error', '')


def test_server_dies_at_each_byte(daemon, tmp_path):
    """C3: an error, once, for whoever waits; the next one is served."""
    served = Served(daemon, tmp_path, image=raw_image(tmp_path / 'small', 4 * KIB, pattern(4 * KIB)), export='')
    client = daemon()
    client.qmp.proxy = str(tmp_path / 'proxy')
    proxy = Proxy(client.qmp.proxy, served.path)
    client.qmp.command('blockdev-add', driver='null-co', node_name='near', size=4 * KIB)
    assert copy_all(client.qmp) == (None, '')
    total, outcomes = proxy.passed, []
    assert total > 4 * KIB
    # Of the data in the middle any byte is as good as another.
    for limit in [*range(total - 4 * KIB), *range(total - 64, total, 7)]:
        proxy.limit = limit
        outcomes.append(copy_all(client.qmp))
        assert outcomes[-1] != (None, '') or limit > 4 * KIB, limit
        assert [node['node-name'] for node in client.qmp.command('query-named-block-nodes')] == ['near']
    assert outcomes[0][0] and any(opened is None and copied for opened, copied in outcomes)
    proxy.limit = None
    assert copy_all(client.qmp) == (None, '')
    proxy.close()


@pytest.mark.parametrize('mode', ['safe', 'hard'])
def test_client_of_itself(daemon, tmp_path, mode):
    """C6: works, and ends without waiting for itself, whichever goes first."""
    image = raw_image(tmp_path / 'small', 64 * KIB, b'old')
    qmp = Served(daemon, tmp_path, image=image).qmp
    qmp.command('blockdev-add', driver='nbd', node_name='far', export='x',
                server={'type': 'unix', 'path': str(tmp_path / 'nbd.sock')})
    qmp.command('blockdev-add', driver='null-co', node_name='near', size=64 * KIB, read_zeroes=True)
    qmp.command('blockdev-backup', job_id='there', device='near', target='far', sync='full')
    wait_for(lambda: not qmp.command('query-jobs'), 'the copy to be made')
    assert not any(image.read_bytes())
    if mode == 'safe':
        with pytest.raises(QmpError, match='in use'):
            qmp.command('block-export-del', id='exp')
        qmp.command('blockdev-del', node_name='far')
    else:
        qmp.command('block-export-del', id='exp', mode='hard')
        qmp.event('BLOCK_EXPORT_DELETED')
        qmp.command('blockdev-backup', job_id='lost', device='near', target='far', sync='full', auto_dismiss=False)
        wait_for(lambda: qmp.command('query-jobs')[0]['status'] == 'concluded', 'the job to fail')
        assert qmp.command('query-jobs')[0]['error']


def following(queue, number):
    """The descriptor that follows the chain's first."""
    at = queue.descriptors + 16 * number
    return int.from_bytes(queue.memory.map[at + 14:at + 16], 'little')


def test_server_without_tls(daemon, tmp_path):
    """C5: a client that was told to use TLS says nothing in the clear."""
    served = Served(daemon, tmp_path)
    qmp = daemon('--object', 'tls-creds-anon,id=tls,endpoint=client').qmp
    with pytest.raises(QmpError, match='TLS'):
        qmp.command('blockdev-add', driver='nbd', node_name='far', export='x', tls_creds='tls',
                    server={'type': 'unix', 'path': str(served.path)})
    assert qmp.command('query-named-block-nodes') == []


FLIPPER = """
import mmap, random, struct, sys
fd, header, descriptor, guest = map(int, sys.argv[1:])
memory, dice = mmap.mmap(fd, 0), random.Random(1)
print('ready', flush=True)
while True:
    memory[header:header + 16] = struct.pack('<IIQ', dice.choice((1, 1, 1, 0, 2, 8, 99)), 0, dice.choice((0, 0, 8, 1 << 40, 1 << 63)))
    address, length = dice.choice(((guest + header + 16, 512),) * 4 + ((guest + header + 16, 0xffffffff), (0, 512), (guest, 0)))
    memory[descriptor:descriptor + 12] = struct.pack('<QI', address, length)
"""


def test_guest_changes_its_mind(tmp_path):
    """V8: header and descriptors change while the request is looked at. It is done as one of them says, or refused."""
    with Disk(tmp_path) as disk:
        front = disk.connect()
        queue = front.queue()
        number = queue.submit(vu.OUT, 0, [b'x' * 512])
        parts, chain = queue.pending[number], queue.chains[number]
        assert queue.wait(number)[0] == vu.OK
        chained = following(queue, number)
        with subprocess.Popen([sys.executable, '-c', FLIPPER, str(front.memory.fd), str(parts[0][0]),
                               str(queue.descriptors + 16 * chained), str(front.memory.guest)],
                              pass_fds=[front.memory.fd], stdout=subprocess.PIPE) as flipper:
            try:
                assert flipper.stdout.readline() == b'ready\n'
                statuses = set()
                for _ in range(150):
                    queue.pending[number], queue.chains[number] = parts, chain
                    front.memory.map[parts[-1][0]] = 0xff
                    queue.make_available(number)
                    queue.kick()
                    statuses.add(queue.wait(number)[0])
            finally:
                flipper.kill()
        assert statuses <= {vu.OK, vu.IOERR, vu.UNSUPP} and len(statuses) > 1
        front.close()
        assert disk.connect().queue().call(vu.IN, 0, into=512)[0] == vu.OK
        content = disk.image.read_bytes()
        assert not any(content[512:8 * 512]) and not any(content[9 * 512:])

