# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nbd block driver against servers of others and our own, good, slow, failing, vanishing and hostile ones."""
import json
import os
import random
import re
import shutil
import socket
import struct
import threading

import pytest

import nbd_raw as raw
from harness import BUILD, PATIENCE_S, need, program, raw_image, run, wait_for
from nbd_peers import nbdkit, qemu_nbd, receive, scripted_server
from nbd_serving import Served, free_port, pattern
from tls_files import make_certificates

MIB = 1 << 20
OURS = BUILD / 'compat' / 'qemu-io'


def normalise(text):
    return re.sub(r'\d+\.\d+ sec \([^)]*\)', 'TIME', text)


def io(*lines, image, options=('-f', 'raw'), peer=None, check=True):
    commands = [word for line in lines for word in ('-c', line)]
    return run(peer or OURS, *options, *commands, image, check=check)


def uri(path, export=''):
    return f'nbd+unix:///{export}?socket={path}'


def nbd_options(path, **options):
    """The image as JSON options, for what a URI cannot say."""
    nbd = {'driver': 'nbd', 'server': {'type': 'unix', 'path': str(path)}, **options}
    return 'json:' + json.dumps({'driver': 'raw', 'file': nbd})


SCRIPT = ['length', 'write -P 3 0 1M', 'read -P 3 0 1M', 'write -z 1000 3000', 'read -v 990 20', 'read -P 0 1000 3000',
          'write -f 5 6', 'discard 64k 64k', 'flush', 'writev -P 9 512k 1 2 3 4000', 'readv -P 9 512k 5 2001 2000',
          'read -P 3 200k 100k', 'write -P 8 1048570 6', 'read -v 1048560 16', 'read 1M 1', 'map']


@pytest.mark.parametrize('server', ['qemu-nbd', 'nbdkit', 'simple', 'no-fixed', 'blocks', 'no-zeroes', 'no-extents',
                                    'slow', 'one-connection', 'ours'])
def test_nbd_client_io(tmp_path, daemon, server):
    """What the other's client says of the same server, or would if it did not stumble."""
    path, image = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB)
    servers = {
        'qemu-nbd': lambda: qemu_nbd(path, '-f', 'raw', image),
        'nbdkit': lambda: nbdkit(path, 'memory', '1M'),
        'simple': lambda: nbdkit(path, '--no-sr', 'memory', '1M'),
        'no-fixed': lambda: nbdkit(path, '--mask-handshake=0', 'memory', '1M'),
        'blocks': lambda: nbdkit(path, '--filter=blocksize-policy', 'memory', '1M', 'blocksize-minimum=4096',
                                 'blocksize-preferred=8192', 'blocksize-maximum=64k', 'blocksize-error-policy=error'),
        'no-zeroes': lambda: nbdkit(path, '--filter=nozero', 'memory', '1M', 'zeromode=none'),
        'no-extents': lambda: nbdkit(path, '--filter=noextents', 'memory', '1M'),
        'slow': lambda: nbdkit(path, '--filter=delay', 'memory', '1M', 'delay-read=20ms', 'delay-write=20ms'),
        'one-connection': lambda: nbdkit(path, '--filter=multi-conn', 'memory', '1M', 'multi-conn-mode=disable'),
    }
    if server == 'ours':
        served = Served(daemon, tmp_path, image=image)
        theirs = io(*SCRIPT, image=served.uri, peer=need('qemu-io'), check=False)
        ours = io(*SCRIPT, image=served.uri, check=False)
    else:
        with servers[server]():
            theirs = io(*SCRIPT, image=uri(path), peer=need('qemu-io'), check=False)
        image.unlink()
        raw_image(tmp_path / 'image', MIB)
        with servers[server]():
            ours = io(*SCRIPT, image=uri(path), check=False)
    assert 'Pattern' not in ours.stdout
    assert normalise(ours.stdout) == normalise(theirs.stdout)
    assert ours.stderr == theirs.stderr


def test_nbd_client_odd_length(tmp_path):
    """Behind the end there are zeroes up to the next sector, and only those can be written."""
    path = tmp_path / 'nbd.sock'
    with nbdkit(path, 'memory', '1000'):
        done = io('length', 'write -P 3 0 1000', 'read -P 3 0 1000', 'read -P 0 1000 24', 'read -P 3 -l 10 990 34',
                  'write -P 1 999 2', 'write -P 0 990 34', 'write -z 900 124', 'discard 0 1024', 'map',
                  image=uri(path), check=False)
        assert 'Pattern' not in done.stdout
        assert done.stdout.count('write failed: No space left on device') == 1
        assert done.stdout.startswith('1 KiB\n')


@pytest.mark.parametrize('text, message', [
    ('nbd+unix:///nope?socket={path}', "Requested export not available\nserver reported: export 'nope' not present"),
    ('nbd+unix:///?socket={path}.none', "Failed to connect to '{path}.none': No such file or directory"),
    ('nbd://localhost:{port}/x', "Failed to connect to 'localhost:{port}': Connection refused"),
])
def test_nbd_client_refused(tmp_path, text, message):
    path, port = tmp_path / 'nbd.sock', free_port()
    raw_image(tmp_path / 'image', MIB)
    with qemu_nbd(path, '-f', 'raw', '-x', 'x', tmp_path / 'image'):
        name = text.format(path=path, port=port)
        done = io('length', image=name, check=False)
        assert done.stderr == f"qemu-io: can't open device {name}: {message.format(path=path, port=port)}\n"
        assert done.stderr == io('length', image=name, peer=need('qemu-io'), check=False).stderr


def test_nbd_client_by_descriptor(tmp_path, daemon):
    """Of a connected socket that was handed over: nobody can connect it again, so there is nothing to wait for when it breaks."""
    path, image, front = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB, pattern(4096)), tmp_path / 'front.sock'
    with qemu_nbd(path, '-f', 'raw', image), socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
        os.set_inheritable(connected.fileno(), True)
        daemon('--blockdev', f'driver=nbd,node-name=n,server.type=fd,server.str={connected.fileno()},reconnect-delay=600', '--nbd-server',
               f'addr.type=unix,addr.path={front}', '--export', 'type=nbd,id=e,node-name=n,name=x,writable=on',
               pass_fds=(connected.fileno(),))
        with raw.NbdRaw.open(front, 'x') as client:
            client.write(4096, b'through')
            assert client.read(0, 4103) == pattern(4096) + b'through'
    with raw.NbdRaw.open(front, 'x') as client:
        for _ in range(2):
            with pytest.raises(raw.RequestError) as error:
                client.read(0, 4096)
            assert error.value.code == raw.EIO
    assert image.read_bytes()[4096:4103] == b'through'


def test_nbd_client_read_only_export(tmp_path):
    path, image = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB, pattern(4096))
    with qemu_nbd(path, '-r', '-f', 'raw', image):
        done = io('length', image=uri(path), check=False)
        assert done.returncode == 1
        assert 'read-only: Permission denied' in done.stderr
        assert io('read 0 1M', image=uri(path), options=('-r', '-f', 'raw')).stdout.startswith('read 1048576')
        automatic = nbd_options(path, **{'auto-read-only': True})
        assert io('read 0 1M', image=automatic, options=('-r',)).stdout.startswith('read 1048576')


def test_nbd_client_status(tmp_path):
    """Holes, zeroes and data, as the other's client sees them; and metadata contexts of another kind."""
    path, image = tmp_path / 'nbd.sock', tmp_path / 'image.qcow2'
    img = need('qemu-img')
    run(img, 'create', '-q', '-f', 'qcow2', image, '10M')
    run(img, 'bitmap', '--add', image, 'b')
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write 1M 128k', '-c', 'write -z 3M 64k', image)
    names = [uri(path), *(nbd_options(path, **{'x-dirty-bitmap': name})
                          for name in ('qemu:dirty-bitmap:b', 'qemu:allocation-depth'))]
    with qemu_nbd(path, '-f', 'qcow2', '-r', '-A', '-B', 'b', image):
        for name in names:
            ours, theirs = ([(extent['start'], extent['length'], extent['data'], extent['zero'])
                             for extent in json.loads(run(tool, 'map', '--output=json', name).stdout)]
                            for tool in (BUILD / 'compat' / 'qemu-img', img))
            assert ours == theirs
            assert len(ours) > 2
        missing = nbd_options(path, **{'x-dirty-bitmap': 'qemu:dirty-bitmap:c'})
        done = io('length', image=missing, options=('-r',), check=False)
        assert 'requested x-dirty-bitmap qemu:dirty-bitmap:c not found' in done.stderr


def test_nbd_client_passes_errors_on(tmp_path):
    path = tmp_path / 'nbd.sock'
    for code, text in (('EPERM', 'Operation not permitted'), ('EIO', 'Input/output error'),
                       ('ENOSPC', 'No space left on device'), ('ENOMEM', 'Cannot allocate memory')):
        with nbdkit(path, '--filter=error', 'memory', '1M', f'error-pread={code}', 'error-pread-rate=100%'):
            done = io('write 0 4k', 'read 0 4k', 'aio_read 0 4k', 'aio_read 4k 4k', 'aio_flush', 'write 0 4k',
                      image=uri(path), check=False)
            assert done.stdout.count(f'read failed: {text}') == 1
            assert done.stdout.count(f'readv failed: {text}') == 2
            assert done.stdout.count('wrote') == 2


def test_nbd_client_open_timeout(tmp_path):
    """The server comes late."""
    path, image = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB)
    results = []
    name = nbd_options(path, **{'open-timeout': 2 * PATIENCE_S})
    thread = threading.Thread(target=lambda: results.append(io('length', image=name, options=())))
    thread.start()
    with qemu_nbd(path, '-f', 'raw', image):
        thread.join(5 * PATIENCE_S)
        assert results and results[0].stdout == '1 MiB\n'


class Load:
    """Writes each block of an export again and again with a number that grows, through our daemon."""
    BLOCK = 4096
    BLOCKS = 32

    def __init__(self, path):
        self.path = path
        self.round = 0
        self.stop = False
        self.failure = None
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def content(self, number):
        return b''.join(struct.pack('>QQ', number, block) * (self.BLOCK // 16) for block in range(self.BLOCKS))

    def work(self):
        try:
            with raw.NbdRaw.open(self.path, 'x') as client:
                while not self.stop:
                    content = self.content(self.round + 1)
                    for block in range(self.BLOCKS):
                        at = block * self.BLOCK
                        client.write(at, content[at:at + self.BLOCK])
                    client.request(raw.CMD_FLUSH)
                    assert client.read(0, len(content)) == content
                    self.round += 1
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def advance(self):
        """Waits until everything has been written once more."""
        start = self.round
        wait_for(lambda: self.failure or self.round > start + 1, 'the load to go on')
        assert not self.failure, self.failure

    def end(self):
        self.stop = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        assert not self.failure, self.failure


def reexport(daemon, tmp_path, path, *more, **options):
    """A daemon with an nbd node on `path`, exported as 'x'; the path of its socket."""
    front = tmp_path / 'front.sock'
    node = {'driver': 'nbd', 'node-name': 'disk', 'server': {'type': 'unix', 'path': str(path)}, **options}
    served = daemon('--blockdev', json.dumps(node), '--nbd-server', f'addr.type=unix,addr.path={front}',
                    *(more or ('--export', 'type=nbd,id=exp,node-name=disk,name=x,writable=on')))
    return served, front


@pytest.mark.parametrize('where', ['main', 'iothread'])
def test_nbd_client_reconnects_under_load(tmp_path, daemon, where):
    """The server is killed and started again; nobody notices, and nothing is lost."""
    path, image = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB)
    more = ()
    if where == 'iothread':
        more = ('--object', 'iothread,id=t', '--export',
                'type=nbd,id=exp,node-name=disk,name=x,writable=on,iothread=t')
    with qemu_nbd(path, '-f', 'raw', image):
        served, front = reexport(daemon, tmp_path, path, *more, **{'reconnect-delay': 3 * PATIENCE_S})
        load = Load(front)
        load.advance()
    for _ in range(4):
        with qemu_nbd(path, '-f', 'raw', image):
            load.advance()
    with qemu_nbd(path, '-f', 'raw', image):
        load.end()
        assert image.read_bytes()[:load.BLOCK * load.BLOCKS] == load.content(load.round)
        served.stop()


class Journal:
    """A disk whose server breaks off now and then; each block has a number in front that may not fall."""
    BLOCK = 4096

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.disk = bytearray(MIB)
        self.breaks = {'before': 0, 'after': 0, 'inside': 0}
        self.flushes = 0

    def number(self, at):
        return struct.unpack_from('>Q', self.disk, at)[0]

    def apply(self, kind, offset, length, data):
        if kind == raw.CMD_WRITE:
            with self.lock:
                assert struct.unpack_from('>Q', data)[0] >= self.number(offset), 'an older write came after a newer one'
                self.disk[offset:offset + length] = data
        if kind == raw.CMD_FLUSH:
            with self.lock:
                self.flushes += 1

    def reply(self, sock, kind, cookie, offset, length):
        if kind == raw.CMD_READ:
            chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', offset) + self.disk[offset:offset + length])
        else:
            chunk(sock, cookie, raw.REPLY_NONE, b'')

    def converse(self, sock):
        """More requests than there are callers, so that each call gets through; then one of the ways to end."""
        greet(sock, flags=0x1ed)
        with self.lock:
            left, how = self.random.randrange(8, 60), self.random.choice(list(self.breaks))
        while True:
            magic, _, kind, cookie, offset, length = struct.unpack('>IHHQQI', receive(sock, 28))
            assert magic == raw.REQUEST_MAGIC
            data = receive(sock, length) if kind == raw.CMD_WRITE else b''
            if kind == raw.CMD_DISC:
                return
            left -= 1
            if not left and how == 'before':
                break
            self.apply(kind, offset, length, data)
            if not left:
                break
            self.reply(sock, kind, cookie, offset, length)
        with self.lock:
            self.breaks[how] += 1
        if how == 'inside':
            sock.sendall(struct.pack('>IHHQ', raw.STRUCTURED_REPLY_MAGIC, 1, raw.REPLY_NONE, cookie)[:11])


@pytest.mark.parametrize('iothreads', [[], ['t0'], ['t0', 't1', 't2']])
def test_nbd_client_replays_in_order(tmp_path, daemon, iothreads):
    """
    The server breaks off before it has done a request, after that, and inside of the answer. Whoever has heard of a flush finds his writes
    done, and nothing that was written before a flush is written again after what came later; also over several connections, of which each
    breaks off by itself.
    """
    path, journal, failures = tmp_path / 'nbd.sock', Journal(seed=5), []
    more = [word for name in iothreads for word in ('--object', f'iothread,id={name}')]
    if iothreads:
        listed = ''.join(f',iothread.{index}={name}' for index, name in enumerate(iothreads))
        more += ['--export', f'type=nbd,id=exp,node-name=disk,name=x,writable=on{listed}']

    def work(first, front):
        try:
            with raw.NbdRaw.open(front, 'x') as client:
                for number in range(1, 26):
                    data = struct.pack('>QQ', number, first) * (journal.BLOCK // 16)
                    places = range(first, MIB // journal.BLOCK, 16)
                    for place in places[:4]:
                        client.write(place * journal.BLOCK, data)
                    client.request(raw.CMD_FLUSH)
                    for place in places[:4]:
                        at = place * journal.BLOCK
                        assert journal.disk[at:at + journal.BLOCK] == data == client.read(at, journal.BLOCK)
        except BaseException as failure:  # pylint: disable=broad-except
            failures.append(failure)

    with scripted_server(path, journal.converse, at_once=True):
        served, front = reexport(daemon, tmp_path, path, *more, **{'reconnect-delay': 3 * PATIENCE_S})
        threads = [threading.Thread(target=work, args=(first, front)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * PATIENCE_S)
        assert not failures and not any(thread.is_alive() for thread in threads)
        served.stop()
    assert sum(journal.breaks.values()) >= 5 and journal.flushes >= 25


def test_nbd_client_fails_without_reconnect_delay(tmp_path, daemon):
    """Requests fail at once when the server goes, and work again when it has come back."""
    path, image = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB, pattern(4096))

    def reads(front):
        with raw.NbdRaw.open(front, 'x') as client:
            try:
                return client.read(0, 4096) == pattern(4096)
            except raw.RequestError as error:
                assert error.code == raw.EIO
                return False

    with qemu_nbd(path, '-f', 'raw', image):
        _, front = reexport(daemon, tmp_path, path)
        assert reads(front)
    assert not reads(front)
    assert not reads(front)
    with qemu_nbd(path, '-f', 'raw', image):
        wait_for(lambda: reads(front), 'the connection to come back')


def test_nbd_client_delay_passes(tmp_path, daemon):
    """Requests wait for as long as was said, then fail; the daemon ends well without its server."""
    path, image = tmp_path / 'nbd.sock', raw_image(tmp_path / 'image', MIB)
    with qemu_nbd(path, '-f', 'raw', image):
        _, front = reexport(daemon, tmp_path, path, **{'reconnect-delay': 1})
    with raw.NbdRaw.open(front, 'x') as client:
        with pytest.raises(raw.RequestError):
            client.read(0, 4096)


def test_nbd_client_refuses_another_export(tmp_path, daemon):
    """C1: What comes back with another size is not the same image."""
    path = tmp_path / 'nbd.sock'
    with nbdkit(path, 'memory', '1M'):
        _, front = reexport(daemon, tmp_path, path, **{'reconnect-delay': 1})
    with nbdkit(path, 'memory', '2M'):
        with raw.NbdRaw.open(front, 'x') as client:
            with pytest.raises(raw.RequestError):
                client.read(0, 4096)


def test_nbd_client_connection_for_each_iothread(tmp_path, daemon):
    """A server that allows several connections gets one from each loop that makes requests."""
    image = raw_image(tmp_path / 'image', MIB, pattern(4096))
    served = Served(daemon, tmp_path, image=image)
    front = tmp_path / 'front.sock'
    client = daemon('--object', 'iothread,id=t0', '--object', 'iothread,id=t1',
                    '--blockdev', f'driver=nbd,node-name=disk,export=x,server.type=unix,server.path={served.path}',
                    '--nbd-server', f'addr.type=unix,addr.path={front}',
                    *(word for t in range(2) for word in
                      ('--export', f'type=nbd,id=e{t},node-name=disk,name=x{t},writable=on,iothread=t{t}')))
    before = served.descriptors()
    for name in ('x0', 'x1'):
        with raw.NbdRaw.open(front, name) as one:
            def reads_and_has_more(client=one, least=before + 1 + (name == 'x1')):
                assert client.read(0, 4096) == pattern(4096)
                return served.descriptors() >= least
            wait_for(reads_and_has_more, 'a connection of its own')
            one.write(8192, b'y' * 512)
            one.request(raw.CMD_FLUSH)
    assert client.qmp.command('query-version')


def test_nbd_client_tcp_and_tls(tmp_path, daemon):
    port = free_port()
    with open(tmp_path / 'keys.psk', 'w', encoding='ascii') as keys:
        keys.write('qemu:0123456789abcdef0123456789abcdef\n')
    raw_image(tmp_path / 'image', MIB, pattern(4096))
    daemon('--object', f'tls-creds-psk,id=tls,endpoint=server,dir={tmp_path}',
           '--blockdev', f'driver=file,node-name=disk,filename={tmp_path}/image',
           '--nbd-server', f'addr.type=inet,addr.host=127.0.0.1,addr.port={port},tls-creds=tls',
           '--export', 'type=nbd,id=exp,node-name=disk,name=x,writable=on')
    for io_program in (OURS, need('qemu-io')):
        refused = run(io_program, '-f', 'raw', '-c', 'length', f'nbd://127.0.0.1:{port}/x', check=False)
        assert refused.returncode == 1 and 'TLS' in refused.stderr
    (tmp_path / 'keys').mkdir()
    options = (f'driver=raw,file.driver=nbd,file.export=x,file.server.type=inet,file.server.host=127.0.0.1,'
               f'file.server.port={port},file.tls-creds=c')
    shutil.copyfile(tmp_path / 'keys.psk', tmp_path / 'keys' / 'keys.psk')
    done = run(program('ashlar-io'), '--object', f'tls-creds-psk,id=c,endpoint=client,dir={tmp_path}/keys,username=qemu',
               '--image-opts', '-c', 'read -v 0 16', '-c', 'write -P 5 4k 4k', '-c', 'read -P 5 4k 4k', options)
    assert done.stdout.startswith('00000000:  ' + pattern(16).hex(' '))
    assert done.stdout.count('TIME') == 0 and 'Pattern' not in done.stdout


def test_nbd_client_uris(tmp_path, daemon):
    """Each kind of URI, to a server on each kind of socket; TLS by the credentials that the URI names, and the name to be found."""
    raw_image(tmp_path / 'image', MIB)
    make_certificates(tmp_path / 'keys')
    credentials = f'tls-creds-x509,dir={tmp_path}/keys,endpoint='
    port = free_port()
    one = daemon('--object', f'{credentials}server,id=tls', '--blockdev', f'driver=file,node-name=disk,filename={tmp_path}/image')
    export = {'type': 'nbd', 'id': 'exp', 'node-name': 'disk', 'name': 'a/b c', 'writable': True}
    unix, inet = {'type': 'unix', 'data': {'path': f'{tmp_path}/s'}}, {'type': 'inet', 'data': {'host': '127.0.0.1', 'port': str(port)}}
    name = 'a/b%20c'
    for address, tls, names in (
            (unix, {}, [f'nbd+unix:///{name}?socket={tmp_path}/s', f'nbd:unix:{tmp_path}/s:exportname=a/b c']),
            (inet, {}, [f'nbd://127.0.0.1:{port}/{name}', f'nbd+tcp://127.0.0.1:{port}/{name}', f'nbd:127.0.0.1:{port}:exportname=a/b c']),
            (unix, {'tls-creds': 'tls'}, [f'nbds+unix:///{name}?socket={tmp_path}/s&tls-creds=c&tls-hostname=localhost']),
            (inet, {'tls-creds': 'tls'}, [f'nbds://127.0.0.1:{port}/{name}?tls-creds=c&tls-hostname=localhost',
                                          f'nbds+tcp://127.0.0.1:{port}/{name}?tls-creds=c&tls-hostname=localhost'])):
        one.qmp.command('nbd-server-start', addr=address, **tls)
        assert 'return' in one.qmp.execute('block-export-add', export)
        for number, text in enumerate(names, 1):
            done = run(program('ashlar-io'), '--object', f'{credentials}client,id=c', '-f', 'raw', '-c', f'write -P {number} 0 4k',
                       '-c', f'read -P {number} 0 4k', text)
            assert 'Pattern' not in done.stdout and done.stdout.count('4096/4096') == 2
        if tls:
            wrong = names[0].replace('hostname=localhost', 'hostname=elsewhere')
            assert 'elsewhere' in io('length', image=wrong, options=('--object', f'{credentials}client,id=c', '-f', 'raw'), check=False).stderr
        one.qmp.command('nbd-server-stop')


# --- servers that go, or have limits ---

@pytest.mark.parametrize('delay', [0, PATIENCE_S])
def test_nbd_client_leaves_a_server_that_shuts_down(tmp_path, delay):
    """It says goodbye, as the protocol demands, and repeats what was refused at the next server, if it may wait for one."""
    path, conversations = tmp_path / 'nbd.sock', []

    def converse(sock):
        mine = []
        conversations.append(mine)
        greet(sock)
        while True:
            kind, cookie, _, length = request(sock)
            mine.append(kind)
            if kind == raw.CMD_DISC:
                assert sock.recv(1) == b''
                return
            if len(conversations) == 1:
                chunk(sock, cookie, raw.REPLY_ERROR, struct.pack('>IH', raw.ESHUTDOWN, 0))
            elif kind == raw.CMD_READ:
                chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 0) + b'n' * length)
            else:
                chunk(sock, cookie, raw.REPLY_NONE, b'')

    with scripted_server(path, converse):
        done = io('read -P 110 0 4k', image=nbd_options(path, **{'reconnect-delay': delay}), options=('-r',), check=False)
    # The server's thread has ended with the last conversation.
    assert conversations[0] == [raw.CMD_READ, raw.CMD_DISC]
    if delay:
        assert '4096/4096' in done.stdout and 'Pattern' not in done.stdout
        assert conversations[1][0] == raw.CMD_READ
    else:
        assert done.stdout.startswith('read failed: Input/output error\n')


def test_nbd_client_keeps_to_the_largest_block(tmp_path):
    """Reads, writes, zeroes and prefetching come in pieces of what the server takes; discards need not."""
    path, lengths = tmp_path / 'nbd.sock', {}

    def converse(sock):
        greet(sock, flags=0x4ed, blocks=(512, 4096, 65536))
        while True:
            kind, cookie, offset, length = request(sock)
            lengths.setdefault(kind, []).append(length)
            if kind == raw.CMD_DISC:
                return
            if kind == raw.CMD_READ:
                chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', offset, length))
            else:
                chunk(sock, cookie, raw.REPLY_NONE, b'')

    with scripted_server(path, converse):
        io('read 0 300k', 'write 0 300k', 'write -z -u 0 300k', 'discard 0 300k', image=nbd_options(path, discard='unmap'), options=())
    for kind in raw.CMD_READ, raw.CMD_WRITE, raw.CMD_WRITE_ZEROES:
        assert sum(lengths[kind]) == 300 << 10 and max(lengths[kind]) == 65536
    assert lengths[raw.CMD_TRIM] == [300 << 10]


# --- hostile servers ---

def greet(sock, size=MIB, flags=0xed, structured=True, blocks=None):
    """A whole handshake; then requests may come."""
    sock.sendall(struct.pack('>QQH', raw.NBDMAGIC, raw.IHAVEOPT, 3))
    receive(sock, 4)
    while True:
        _, option, length = struct.unpack('>QII', receive(sock, 16))
        receive(sock, length)

        def reply(kind, data=b'', option=option):
            sock.sendall(struct.pack('>QIII', raw.REPLY_MAGIC, option, kind, len(data)) + data)

        if option == raw.OPT_STRUCTURED_REPLY and structured:
            reply(raw.REP_ACK)
        elif option == raw.OPT_SET_META_CONTEXT:
            reply(raw.REP_META_CONTEXT, struct.pack('>I', 7) + b'base:allocation')
            reply(raw.REP_ACK)
        elif option == raw.OPT_GO:
            reply(raw.REP_INFO, struct.pack('>HQH', 0, size, flags))
            if blocks:
                reply(raw.REP_INFO, struct.pack('>HIII', raw.INFO_BLOCK_SIZE, *blocks))
            reply(raw.REP_ACK)
            return
        else:
            reply(raw.REP_ERR_UNSUP)


def request(sock):
    """The next request: its type, cookie, offset and length; the payload of a write has been taken."""
    magic, _, kind, cookie, offset, length = struct.unpack('>IHHQQI', receive(sock, 28))
    assert magic == raw.REQUEST_MAGIC
    if kind == raw.CMD_WRITE:
        receive(sock, length)
    return kind, cookie, offset, length


def chunk(sock, cookie, kind, payload, flags=1):
    sock.sendall(struct.pack('>IHHQI', raw.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(payload)) + payload)


BAD_REPLIES = {
    'magic': lambda sock, cookie: sock.sendall(b'\x12' * 64),
    'cookie': lambda sock, cookie: chunk(sock, cookie ^ 1 << 40, raw.REPLY_NONE, b''),
    'simple-read': lambda sock, cookie: sock.sendall(struct.pack('>IIQ', raw.SIMPLE_REPLY_MAGIC, 0, cookie) +
                                                     bytes(4096)),
    'no-data': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_NONE, b''),
    'too-little': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 0) + bytes(4095)),
    'too-much': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 0) + bytes(4097)),
    'elsewhere': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 4096) + bytes(4096)),
    'wraps': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 2**64 - 1, 4096)),
    'empty-hole': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 0, 0)),
    'twice': lambda sock, cookie: (
        chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 0, 4096), flags=0),
        chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 0, 4096))),
    'overlap': lambda sock, cookie: (
        chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 1024, 3072), flags=0),
        chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 0, 1025))),
    'status': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_BLOCK_STATUS, struct.pack('>III', 7, 4096, 0)),
    'none-with-data': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_NONE, b'abc'),
    'none-not-done': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_NONE, b'', flags=0),
    'unknown': lambda sock, cookie: chunk(sock, cookie, 77, b'abc'),
    'huge': lambda sock, cookie: sock.sendall(
        struct.pack('>IHHQI', raw.STRUCTURED_REPLY_MAGIC, 1, raw.REPLY_ERROR, cookie, 2**32 - 1)),
    'error-0': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_ERROR, struct.pack('>IH', 0, 0)),
    'error-text': lambda sock, cookie: chunk(sock, cookie, raw.REPLY_ERROR, struct.pack('>IH', 5, 99)),
    'half-a-header': lambda sock, cookie: sock.sendall(b'\x66\x8e\x33'),
    'nothing': lambda sock, cookie: None,
}


@pytest.mark.parametrize('name', BAD_REPLIES)
def test_nbd_client_bad_reply(tmp_path, name):
    """C2"""
    path = tmp_path / 'nbd.sock'

    def converse(sock):
        greet(sock)
        kind, cookie, _, _ = request(sock)
        while kind != raw.CMD_READ:
            kind, cookie, _, _ = request(sock)
        BAD_REPLIES[name](sock, cookie)
        if name in ('half-a-header', 'nothing'):
            return
        while receive(sock, 1):
            pass

    with scripted_server(path, converse):
        done = io('read 0 4k', 'read 0 4k', image=nbd_options(path), options=('-r',), check=False)
        assert done.returncode == 1
        assert done.stdout.startswith('read failed: Input/output error\n')


def test_nbd_client_good_parts_in_any_order(tmp_path):
    path = tmp_path / 'nbd.sock'

    def converse(sock):
        greet(sock)
        while True:
            kind, cookie, offset, length = request(sock)
            if kind == raw.CMD_READ:
                assert (offset, length) == (0, 4096)
                chunk(sock, cookie, raw.REPLY_OFFSET_HOLE, struct.pack('>QI', 3000, 1096), flags=0)
                chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 1000) + b'b' * 500, flags=0)
                chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 0) + b'a' * 1000, flags=0)
                chunk(sock, cookie, raw.REPLY_OFFSET_DATA, struct.pack('>Q', 1500) + b'c' * 1500, flags=0)
                chunk(sock, cookie, raw.REPLY_NONE, b'')
            elif kind == raw.CMD_DISC:
                return
            else:
                chunk(sock, cookie, raw.REPLY_NONE, b'')

    with scripted_server(path, converse):
        done = io('read -P 97 -l 1000 0 4k', 'read -P 98 -s 1000 -l 500 0 4k', 'read -P 99 -s 1500 -l 1500 0 4k',
                  'read -P 0 -s 3000 0 4k', image=nbd_options(path), options=('-r',))
        assert 'Pattern' not in done.stdout


BAD_HANDSHAKES = {
    'greeting': b'\x00' * 18,
    'text': b'HTTP/1.1 400 Bad Request\r\n\r\n',
    'short': struct.pack('>Q', raw.NBDMAGIC),
    'option-magic': struct.pack('>QQH', raw.NBDMAGIC, raw.IHAVEOPT, 3) + b'\x55' * 20,
    'option-other': struct.pack('>QQHQIII', raw.NBDMAGIC, raw.IHAVEOPT, 3, raw.REPLY_MAGIC, 99, raw.REP_ACK, 0),
    'option-huge': struct.pack('>QQHQIII', raw.NBDMAGIC, raw.IHAVEOPT, 3, raw.REPLY_MAGIC, raw.OPT_EXTENDED_HEADERS,
                               raw.REP_ERR_UNSUP, 2**32 - 1),
    'option-data': struct.pack('>QQHQIII', raw.NBDMAGIC, raw.IHAVEOPT, 3, raw.REPLY_MAGIC, raw.OPT_EXTENDED_HEADERS,
                               raw.REP_ACK, 4) + b'abcd',
    'size': struct.pack('>QQQI', raw.NBDMAGIC, 0x00420281861253, 2**63, 1) + bytes(124),
}


@pytest.mark.parametrize('name', BAD_HANDSHAKES)
def test_nbd_client_bad_handshake(tmp_path, name):
    """C2"""
    path = tmp_path / 'nbd.sock'

    def converse(sock):
        sock.sendall(BAD_HANDSHAKES[name])
        if name != 'short':
            while receive(sock, 1):
                pass

    with scripted_server(path, converse):
        done = io('length', image=uri(path), check=False)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('info', [
    struct.pack('>HIII', 3, 0, 4096, 65536), struct.pack('>HIII', 3, 3, 4096, 65536),
    struct.pack('>HIII', 3, 1 << 17, 1 << 18, 1 << 20), struct.pack('>HIII', 3, 4096, 512, 65536),
    struct.pack('>HIII', 3, 4096, 4096, 5000), struct.pack('>HIII', 3, 4096, 4096, 0), struct.pack('>HI', 3, 4096),
    struct.pack('>H', 0), b'', b'\0', struct.pack('>HQH', 0, 2**63, 1), struct.pack('>HQH', 0, 2**63 - 1, 1),
])
def test_nbd_client_bad_information(tmp_path, info):
    """C1"""
    path = tmp_path / 'nbd.sock'

    def converse(sock):
        sock.sendall(struct.pack('>QQH', raw.NBDMAGIC, raw.IHAVEOPT, 3))
        receive(sock, 4)
        while True:
            _, option, length = struct.unpack('>QII', receive(sock, 16))
            receive(sock, length)
            kinds = [(raw.REP_INFO, info), (raw.REP_ACK, b'')] if option == raw.OPT_GO else [(raw.REP_ERR_UNSUP, b'')]
            for kind, data in kinds:
                sock.sendall(struct.pack('>QIII', raw.REPLY_MAGIC, option, kind, len(data)) + data)

    with scripted_server(path, converse):
        done = io('length', image=uri(path), check=False)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


def test_nbd_client_reconnect_delay_by_reopening(tmp_path, daemon):
    """Requests fail at once, then wait, then fail at once again, as the node is reopened."""
    path, image = tmp_path / 'far.sock', raw_image(tmp_path / 'image', MIB, b'x')
    near = daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/near.sock')
    qmp = near.qmp
    options = {'driver': 'nbd', 'node-name': 'n', 'server': {'type': 'unix', 'path': str(path)}}

    def reopen(delay):
        reply = qmp.execute('blockdev-reopen', {'options': [{**options, 'reconnect-delay': delay}]})
        assert 'return' in reply, reply

    def read():
        done = run(OURS, '-r', '-f', 'raw', '-c', 'read -P 120 0 4k', uri(f'{tmp_path}/near.sock', 'n'), check=False)
        return done.stdout + done.stderr

    with qemu_nbd(path, '-f', 'raw', image):
        assert 'return' in qmp.execute('blockdev-add', options)
        qmp.command('block-export-add', type='nbd', id='e', node_name='n')
        assert 'read 4096' in read()
    wait_for(lambda: 'error' in read(), 'the loss to be noticed')
    reopen(600)
    results = []
    reader = threading.Thread(target=lambda: results.append(read()))
    reader.start()
    with qemu_nbd(path, '-f', 'raw', image):
        reader.join(PATIENCE_S)
        assert results and 'read 4096' in results[0]
        reopen(0)
    wait_for(lambda: 'error' in read(), 'the loss to be noticed again')
    reply = qmp.execute('blockdev-reopen', {'options': [{**options, 'export': 'other'}]})
    assert 'export' in reply['error']['desc']
