# SPDX-License-Identifier: LGPL-2.1-or-later
"""The virtio-blk-vhost-user driver against our export, the peer's, and back ends that do not keep to the rules."""
import contextlib
import json
import os
import random
import struct
import subprocess

import pytest

import vhost_user as vu
from harness import BUILD, Daemon, QmpError, background, listens, need, program, raw_image, run, storaged_fails, wait_for
from vhost_user_back_end import BackEnd, Gone

MIB = 1 << 20
SIZE = 8 * MIB


def export(image, path, options='', first=()):
    return [*first, '--blockdev', f'driver=file,node-name=disk,filename={image},discard=unmap', '--export',
            f'type=vhost-user-blk,id=e,node-name=disk,writable=on,addr.type=unix,addr.path={path}{options}']


@contextlib.contextmanager
def peer_export(image, path, options=''):
    with background(need('qemu-storage-daemon'), *export(image, path, options), stdin=subprocess.DEVNULL):
        wait_for(lambda: listens(path), 'the peer to listen')
        yield


@pytest.fixture(params=['ours', 'ours, two queues', 'peer', 'peer, two queues'])
def served(request, tmp_path):
    """A disk behind a back end: its image and its socket."""
    image, path = raw_image(tmp_path / 'image', SIZE), tmp_path / 'vhost.sock'
    options = ',num-queues=2' if 'two' in request.param else ''
    with peer_export(image, path, options) if 'peer' in request.param else Daemon(tmp_path, *export(image, path, options)):
        yield image, path


def options(path, **more):
    return 'json:' + json.dumps({'driver': 'virtio-blk-vhost-user', 'path': str(path), **more})


def io(path, *lines, check=True):
    commands = [word for line in lines for word in ('-c', line)]
    return run(program('ashlar-io'), *commands, options(path), check=check)


def test_vhost_user_driver_io(served):
    image, path = served
    done = io(path, 'length', 'write -P 3 0 4M', 'read -P 3 0 4M', 'write -P 5 1000 3000', 'read -P 5 1000 3000',
              'read -P 3 0 1000', 'write -z -u 1M 1M', 'read -P 0 1M 1M', 'flush', 'discard 2M 1M', 'writev -P 9 6M 512 1k 64k 5k',
              'read -P 9 6M 72192', 'aio_write -P 1 7M 512k', 'aio_write -P 2 7864320 512k', 'aio_flush', 'read -P 2 7864320 512k')
    assert '8 MiB' in done.stdout and 'failed' not in done.stdout, done.stdout
    data = image.read_bytes()
    assert data[:1000] == b'\3' * 1000 and data[1000:4000] == b'\5' * 3000 and data[MIB:2 * MIB] == bytes(MIB)
    assert data[6 * MIB:6 * MIB + 72192] == b'\11' * 72192


def test_vhost_user_driver_many_at_once(served):
    """Far more in flight than the queue has places and memory."""
    image, path = served
    writes = [f'aio_write -P {number % 250 + 1} {number * 16}k 16k' for number in range(SIZE // (16 << 10))]
    done = io(path, *writes, 'aio_flush')
    assert 'failed' not in done.stdout
    data = image.read_bytes()
    assert all(data[number << 14:(number + 1) << 14] == bytes([number % 250 + 1]) * (16 << 10) for number in range(len(writes)))


def test_vhost_user_driver_copies_a_disk(tmp_path, served):
    image, path = served
    content = random.Random(1).randbytes(SIZE)
    (tmp_path / 'source').write_bytes(content)
    run(program('ashlar-img'), 'convert', '-n', '-f', 'raw', tmp_path / 'source', '--target-image-opts',
        f'driver=virtio-blk-vhost-user,path={path}')
    run(program('ashlar-img'), 'convert', '--image-opts', f'driver=virtio-blk-vhost-user,path={path}', '-O', 'raw',
        tmp_path / 'copy')
    assert image.read_bytes() == content and (tmp_path / 'copy').read_bytes() == content


def test_vhost_user_driver_read_only_disk(tmp_path, daemon):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'vhost.sock'
    daemon('--blockdev', f'driver=file,node-name=disk,filename={image}', '--export',
           f'type=vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={path}')
    with_options = f'driver=virtio-blk-vhost-user,node-name=n,path={path}'
    assert 'is read-only' in storaged_fails('--blockdev', with_options)
    front = daemon('--blockdev', with_options + ',auto-read-only=on')
    assert front.qmp.command('query-named-block-nodes')[0]['ro']


def test_vhost_user_driver_hears_of_a_new_length(tmp_path, daemon):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'vhost.sock'
    back = daemon(*export(image, path))
    front = daemon('--blockdev', f'driver=virtio-blk-vhost-user,node-name=n,path={path}')
    back.qmp.command('block_resize', node_name='disk', size=2 * MIB)
    wait_for(lambda: front.qmp.command('query-named-block-nodes')[0]['image']['virtual-size'] == 2 * MIB, 'the new length')
    with pytest.raises(QmpError, match='Cannot'):
        front.qmp.command('block_resize', node_name='n', size=4 * MIB)


def test_vhost_user_driver_over_iothreads(tmp_path, daemon):
    """Requests of several loops, more than the disk has queues, through two daemons at once."""
    image, path, nbd = raw_image(tmp_path / 'image', SIZE), tmp_path / 'vhost.sock', tmp_path / 'nbd.sock'
    daemon(*export(image, path, ',num-queues=2'))
    threads = [word for number in range(3) for word in ('--object', f'iothread,id=t{number}')]
    exports = [word for number in range(3) for word in
               ('--export', f'type=nbd,id=n{number},name={number},node-name=n,writable=on,iothread=t{number}')]
    daemon(*threads, '--blockdev', f'driver=virtio-blk-vhost-user,node-name=n,path={path}', '--nbd-server',
           f'addr.type=unix,addr.path={nbd}', *exports)
    with contextlib.ExitStack() as stack:
        for number in range(3):
            stack.enter_context(background(
                BUILD / 'compat' / 'qemu-io', '-f', 'raw', *[word for turn in range(50) for word in
                ('-c', f'write -P {number + 1} {2 * number}M 2M', '-c', f'read -P {number + 1} {2 * number}M 2M')],
                f'nbd+unix:///{number}?socket={nbd}', stdout=subprocess.DEVNULL)).wait()
    data = image.read_bytes()
    assert [data[2 * number * MIB:2 * (number + 1) * MIB] for number in range(3)] == [bytes([n + 1]) * (2 * MIB) for n in range(3)]


def test_vhost_user_driver_connects_again(tmp_path, daemon):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'vhost.sock'
    back = Daemon(tmp_path, *export(image, path))
    try:
        front = daemon('--blockdev', f'driver=virtio-blk-vhost-user,node-name=n,path={path}', '--nbd-server',
                       f'addr.type=unix,addr.path={tmp_path}/nbd.sock', '--export', 'type=nbd,id=n,node-name=n,writable=on')
        uri = f'nbd+unix:///n?socket={tmp_path}/nbd.sock'
        def nbd_io(command):
            return run(BUILD / 'compat' / 'qemu-io', '-f', 'raw', '-c', command, uri, check=False)

        assert nbd_io('write -P 1 0 64k').returncode == 0
        back.kill()
        # What is under way when the connection ends fails; what comes then, too, and the log says why.
        wait_for(lambda: 'Input/output error' in nbd_io('read 0 64k').stdout and str(path) in front.stderr, 'the loss to be noticed')
        path.unlink()
        back = Daemon(tmp_path, *export(image, path))
        wait_for(lambda: 'read 65536/65536' in nbd_io('read -P 1 0 64k').stdout, 'reads through the new back end')
    finally:
        back.kill()


def test_vhost_user_driver_nobody_there(tmp_path):
    missing = storaged_fails('--blockdev', f'driver=virtio-blk-vhost-user,node-name=n,path={tmp_path}/none.sock')
    assert 'none.sock' in missing and 'No such file' in missing


# --- back ends that go and come back ---


class Mortal(BackEnd):
    """
    Keeps count of what it does to which sector. In its first life it does `does` requests, tells of the first `tells` of them, and goes;
    its second life begins at once.
    """

    does, tells = 0, 0

    def __init__(self, *args, **kwargs):
        self.log = []
        self.mortal = True
        super().__init__(*args, **kwargs)

    def execute(self, parts):
        if not self.does:
            self.die()
        kind, _, sector = struct.unpack_from('<IIQ', self.memory, parts[0][0])
        self.log.append((self.connections, kind, sector))
        return super().execute(parts)

    def call(self):
        if not self.mortal or len(self.log) <= self.tells:
            super().call()
        if len(self.log) == self.does:
            self.die()

    def die(self):
        if self.mortal:
            self.mortal = False
            raise Gone


@pytest.mark.parametrize('does, tells', [(0, 0), (1, 0), (1, 1), (3, 0), (3, 1), (3, 3), (4, 0), (4, 4)])
@pytest.mark.parametrize('ring', ['split', 'event index'])
def test_vhost_user_driver_back_end_dies_and_comes_back(tmp_path, ring, does, tells):
    """What it has done is found in the ring, told or not; what it has not done, its successor does. Nothing fails, nothing is done twice."""
    writes = [f'aio_write -P {number + 1} {number * 4}k 4k' for number in range(4)]
    features = BackEnd.features & ~(0 if ring == 'event index' else vu.bits(vu.F_EVENT_IDX))
    with Mortal(tmp_path / 'vhost.sock', does=does, tells=tells, features=features) as back:
        done = io(tmp_path / 'vhost.sock', *writes, 'aio_flush', 'read -P 3 8k 4k')
        assert 'rror' not in done.stdout + done.stderr and 'wrote 4096/4096' in done.stdout
        written = [(life, sector) for life, kind, sector in back.log if kind == vu.OUT]
        assert sorted(sector for _, sector in written) == [0, 8, 16, 24], written
        assert sum(life == 1 for life, _ in written) == does
        assert bytes(back.disk[:16384]) == b''.join(bytes([number + 1]) * 4096 for number in range(4))


# --- back ends that do not keep to the rules ---


class Leaving(BackEnd):
    """Goes before it handles a certain message."""

    last = None

    def on_message(self, request):
        if request == self.last:
            raise Gone


@pytest.mark.parametrize('last', [vu.GET_FEATURES, vu.SET_OWNER, vu.GET_PROTOCOL_FEATURES, vu.SET_PROTOCOL_FEATURES,
                                  vu.SET_BACKEND_REQ_FD, vu.SET_FEATURES, vu.GET_CONFIG, vu.SET_MEM_TABLE, vu.SET_VRING_NUM,
                                  vu.SET_VRING_ADDR, vu.SET_VRING_BASE, vu.SET_VRING_CALL, vu.SET_VRING_KICK,
                                  vu.SET_VRING_ENABLE])
def test_vhost_user_driver_back_end_leaves_at_once(tmp_path, last):
    with Leaving(tmp_path / 'vhost.sock', last=last):
        done = io(tmp_path / 'vhost.sock', 'read 0 4k', check=False)
    assert done.returncode == 1 and 'vhost.sock' in done.stderr, done.stderr


class Replying(BackEnd):
    """Answers a certain message as it likes."""

    to, with_what, flags = None, None, 5

    def handle(self, request, payload, fds):
        if request != self.to:
            return super().handle(request, payload, fds)
        for fd in fds:
            os.close(fd)
        self.reply(request if self.flags != 99 else request + 1, self.with_what, self.flags if self.flags != 99 else 5)
        raise Gone


BAD_REPLIES = {
    'short': (vu.GET_FEATURES, b'1234', 5), 'long': (vu.GET_FEATURES, bytes(500), 5), 'no reply': (vu.GET_FEATURES, bytes(8), 1),
    'version': (vu.GET_FEATURES, bytes(8), 6), 'other message': (vu.GET_FEATURES, bytes(8), 99),
    'no features': (vu.GET_FEATURES, bytes(8), 5), 'huge': (vu.GET_FEATURES, bytes(5000), 5),
    'short configuration': (vu.GET_CONFIG, struct.pack('=III', 0, 20, 0) + bytes(20), 5),
    'no configuration': (vu.GET_CONFIG, struct.pack('=III', 0, 0, 0), 5),
    'refused memory': (vu.SET_MEM_TABLE, struct.pack('=Q', 1), 5), 'refused queue': (vu.SET_VRING_ADDR, struct.pack('=Q', 7), 5)}


@pytest.mark.parametrize('case', BAD_REPLIES)
def test_vhost_user_driver_bad_reply(tmp_path, case):
    to, what, flags = BAD_REPLIES[case]
    with Replying(tmp_path / 'vhost.sock', to=to, with_what=what, flags=flags):
        done = io(tmp_path / 'vhost.sock', 'read 0 4k', check=False)
    assert done.returncode == 1 and 'vhost.sock' in done.stderr, done.stderr


@pytest.mark.parametrize('values', [{'features': vu.bits(vu.F_PROTOCOL)}, {'protocol': vu.bits(vu.PF_REPLY_ACK)}], ids=['old', 'no config'])
def test_vhost_user_driver_back_end_can_too_little(tmp_path, values):
    with BackEnd(tmp_path / 'vhost.sock', **values):
        done = io(tmp_path / 'vhost.sock', 'read 0 4k', check=False)
    assert done.returncode == 1 and 'vhost.sock' in done.stderr, done.stderr


class BadConfig(BackEnd):
    bytes_of = b''

    def config(self):
        return self.bytes_of.ljust(60, b'\0')


@pytest.mark.parametrize('bytes_of', [b'\xff' * 60, struct.pack('<Q12xI', 2048, 0), struct.pack('<Q12xI', 2048, 513),
                                      struct.pack('<Q12xI', 1 << 63, 512), struct.pack('<Q12xI', (1 << 54) - 1, 512)],
                         ids=['ones', 'block 0', 'block 513', 'too many', 'just too many'])
def test_vhost_user_driver_bad_configuration(tmp_path, bytes_of):
    with BadConfig(tmp_path / 'vhost.sock', bytes_of=bytes_of):
        done = io(tmp_path / 'vhost.sock', 'read 0 4k', check=False)
    assert done.returncode == 1 and 'the disk has' in done.stderr, done.stderr


class Lying(BackEnd):
    """Keeps to the rules until `after` requests are done."""

    after, lie = 0, None

    def used(self, head, written):
        if self.served <= self.after:
            return head, written, 1
        if self.lie is None:
            raise Gone
        return self.lie(head, written)

    def on_message(self, request):
        if request == vu.GET_FEATURES and self.connections > 1:
            raise Gone


LIES = {'id of nothing': lambda head, written: (head + 1, written, 1), 'id too large': lambda head, written: (70000, written, 1),
        'index far ahead': lambda head, written: (head, written, 1000), 'twice': lambda head, written: (head, written, 2),
        'index back': lambda head, written: (head, written, -1), 'leaves': None}


@pytest.mark.parametrize('after', [0, 3])
@pytest.mark.parametrize('lie', LIES)
def test_vhost_user_driver_bad_ring(tmp_path, lie, after):
    with Lying(tmp_path / 'vhost.sock', after=after, lie=LIES[lie]):
        reads = ['read 0 4k'] * after
        done = io(tmp_path / 'vhost.sock', *reads, 'aio_read 0 64k', 'aio_read 64k 64k', 'aio_read 128k 64k', 'aio_flush',
                  'read 0 4k', check=False)
    output = done.stdout + done.stderr
    assert output.count('read 4096/4096') == after and 'Input/output error' in output, output


def test_vhost_user_driver_lengths_are_not_believed(tmp_path):
    """The written length says nothing that matters: data and status are where they are."""
    class Boasting(BackEnd):
        def used(self, head, written):
            return head, 0xffffffff, 1

    with Boasting(tmp_path / 'vhost.sock') as back:
        back.disk[:4096] = b'\7' * 4096
        assert 'failed' not in io(tmp_path / 'vhost.sock', 'read -P 7 0 4k', 'write -P 8 4k 4k').stdout
        assert back.disk[4096:8192] == b'\10' * 4096


@pytest.mark.parametrize('status, what', [(vu.IOERR, 'Input/output error'), (vu.UNSUPP, 'not supported'), (77, 'Input/output error')])
def test_vhost_user_driver_failing_requests(tmp_path, status, what):
    class Failing(BackEnd):
        def status(self, _kind):
            return status

    with Failing(tmp_path / 'vhost.sock'):
        done = io(tmp_path / 'vhost.sock', 'read 0 4k', check=False)
        assert what in done.stdout + done.stderr


def test_vhost_user_driver_memory_is_cut(tmp_path):
    """A back end that cuts the memory under us harms nobody else."""
    class Cutting(BackEnd):
        def handle(self, request, payload, fds):
            if request == vu.SET_MEM_TABLE:
                self.file = os.dup(fds[0])
            return super().handle(request, payload, fds)

        def serve_ring(self):
            with contextlib.suppress(OSError):
                os.ftruncate(self.file, 0)
            os.close(self.file)
            raise Gone

    with Cutting(tmp_path / 'vhost.sock'):
        done = io(tmp_path / 'vhost.sock', 'write 0 64k', 'write 0 64k', check=False)
    assert 'Input/output error' in done.stdout + done.stderr


def test_vhost_user_driver_resize_notice_of_another_back_end(tmp_path, daemon):
    with BackEnd(tmp_path / 'vhost.sock', size=MIB) as back:
        front = daemon('--blockdev', f'driver=virtio-blk-vhost-user,node-name=n,path={tmp_path}/vhost.sock')
        back.notify_resize(3 * MIB)
        wait_for(lambda: front.qmp.command('query-named-block-nodes')[0]['image']['virtual-size'] == 3 * MIB, 'the new length')
        front.stop()
