# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-nbd beside the program that it stands in for: what it serves, how it lists, when it ends, what it refuses."""
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess

import pytest

import tls_files
from harness import BUILD, PATIENCE_S, listens, listens_tcp, need, program, raw_image, run, wait_for
from nbd_peers import nbdkit
from nbd_serving import pattern

MIB = 1 << 20
OURS = BUILD / 'compat' / 'qemu-nbd'


@contextlib.contextmanager
def serving(path, *words, tool=OURS, **popen):
    """The tool serves on the Unix socket; it must end well by itself or by a signal."""
    with subprocess.Popen([str(tool), '-k', str(path), *map(str, words)], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, **popen) as process:
        try:
            wait_for(lambda: process.poll() is not None or listens(path), 'the socket')
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, process.stderr.read()
            assert not os.path.exists(path)
        finally:
            process.kill()


def uri(path, export=''):
    return f'nbd+unix:///{export}?socket={path}'


def io(path, *lines, export='', options=('-f', 'raw'), check=True):
    return run(need('qemu-io'), *options, *(word for line in lines for word in ('-c', line)), uri(path, export),
               check=check).stdout


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('words', [
    ['-r'], ['-x', 'name', '-D', 'a text'], ['-e', '3'], ['-e', '0', '-A'], ['-o', '512'], ['--discard=unmap'],
    ['-r', '-x', 'two words', '--cache=none'], ['-o', '01000', '-e', ' 010'], ['-o', '+0x200', '-e', '+3'],
])
def test_nbd_tool_lists_like_the_other(tmp_path, words):
    """Each lists what each serves, in the same words."""
    image = raw_image(tmp_path / 'image', MIB, pattern(4096))
    answers = []
    for server in (OURS, need('qemu-nbd')):
        path = tmp_path / 'nbd.sock'
        with serving(path, '-t', '-f', 'raw', *words, image, tool=server):
            lists = [run(lister, '-L', '-k', path).stdout for lister in (OURS, need('qemu-nbd'))]
        assert lists[0] == lists[1]
        answers.append([line for line in lists[0].splitlines() if 'flags' not in line and 'block' not in line])
    assert answers[0] == answers[1]


@pytest.mark.parametrize('words', [['memory', '1M'], ['-o', 'memory', '1M'], ['--no-sr', 'memory', '1M'],
                                   ['--mask-handshake=0', 'memory', '1M'],
                                   ['--filter=exportname', 'memory', '1M', 'exportname=a', 'exportname=b',
                                    'exportname-list=explicit', 'exportdesc=fixed:text']])
def test_nbd_tool_lists_others(tmp_path, words):
    path = tmp_path / 'nbd.sock'
    with nbdkit(path, *words):
        ours, theirs = (run(lister, '-L', '-k', path, check=False) for lister in (OURS, need('qemu-nbd')))
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)


def test_nbd_tool_serves(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(MIB)), tmp_path / 'nbd.sock'
    copy = tmp_path / 'copy'
    with serving(path, '-t', '-e', '4', '-f', 'raw', '-x', 'x', image):
        run(need('nbdcopy'), uri(path, 'x'), copy)
        assert digest(copy.read_bytes()) == digest(pattern(MIB))
        assert '"is_read_only": false' in run(need('nbdinfo'), '--json', uri(path, 'x')).stdout
        io(path, 'write -P 7 4k 4k', 'flush', export='x')
        assert image.read_bytes()[4096:8192] == b'\7' * 4096
        run(need('qemu-img'), 'compare', '-f', 'raw', '-F', 'raw', image, uri(path, 'x'))
        assert run(need('qemu-io'), '-f', 'raw', '-c', 'length', uri(path), check=False).returncode == 1


def test_nbd_tool_ends_with_its_last_client(tmp_path):
    """Not with one that only looks, and not with -t."""
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    with serving(path, '-f', 'raw', image) as server:
        run(OURS, '-L', '-k', path)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
        run(OURS, '-L', '-k', path)
        assert server.poll() is None
        io(path, 'read 0 1k')
        assert server.wait(PATIENCE_S) == 0
    with serving(path, '-t', '-f', 'raw', image) as server:
        for _ in range(3):
            io(path, 'read 0 1k')
        assert server.poll() is None


def test_nbd_tool_shares_as_far_as_it_is_told(tmp_path):
    import nbd
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    with serving(path, '-e', '2', '-f', 'raw', image) as server:
        handles = [nbd.NBD(), nbd.NBD()]
        for handle in handles:
            handle.connect_uri(uri(path))
        with socket.socket(socket.AF_UNIX) as third:
            third.settimeout(PATIENCE_S)
            third.connect(str(path))
            third.setblocking(False)
            with pytest.raises(BlockingIOError):
                third.recv(1)
            handles[0].shutdown()
            third.settimeout(PATIENCE_S)
            assert third.recv(8) == b'NBDMAGIC'
        assert server.poll() is None
        handles[1].shutdown()


def test_nbd_tool_read_only_and_offset(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(MIB)), tmp_path / 'nbd.sock'
    with serving(path, '-t', '-r', '-f', 'raw', image):
        assert run(need('qemu-io'), '-f', 'raw', '-c', 'length', uri(path), check=False).returncode == 1
        assert io(path, 'length', options=('-r', '-f', 'raw')) == '1 MiB\n'
    with serving(path, '-t', '-o', str(MIB // 2), '-f', 'raw', image):
        assert io(path, 'length', 'write -q -P 9 0 512') == '512 KiB\n'
    assert image.read_bytes()[:MIB // 2 + 512] == pattern(MIB)[:MIB // 2] + b'\t' * 512


def test_nbd_tool_temporary_image(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(MIB)), tmp_path / 'nbd.sock'
    with serving(path, '-s', '-t', '-f', 'raw', image, env={**os.environ, 'TMPDIR': str(tmp_path)}):
        out = io(path, 'write -q -P 9 0 64k', 'read -P 9 0 64k', 'read -v 64k 16')
        assert 'Pattern' not in out
        assert pattern(MIB)[65536:65552].hex(' ') in out
    assert image.read_bytes() == pattern(MIB)
    assert sorted(os.listdir(tmp_path)) == ['image']


def test_nbd_tool_temporary_image_for_reading(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(4096)), tmp_path / 'nbd.sock'
    for tool in OURS, need('qemu-nbd'):
        with serving(path, '-s', '-r', '-t', '-f', 'raw', image, tool=tool):
            assert '( readonly' in run(OURS, '-L', '-k', path).stdout


def test_nbd_tool_port_of_a_service(tmp_path):
    image = raw_image(tmp_path / 'image', MIB)
    done = run(program('ashlar-nbd'), '-b', '127.0.0.1', '-p', 'nosuchservice', '-f', 'raw', image, check=False)
    assert done.returncode == 1 and '127.0.0.1:nosuchservice' in done.stderr
    # Nobody looks for it where it is not needed.
    with serving(tmp_path / 'nbd.sock', '-p', 'nosuchservice', '-f', 'raw', image):
        pass


def test_nbd_tool_qcow2(tmp_path):
    """Contexts of a real image, and an internal snapshot."""
    image, path, img = tmp_path / 'image.qcow2', tmp_path / 'nbd.sock', need('qemu-img')
    run(img, 'create', '-q', '-f', 'qcow2', image, '10M')
    run(img, 'bitmap', '--add', image, 'b')
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 1 1M 64k', image)
    run(img, 'snapshot', '-c', 's', image)
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 2 1M 64k', image)
    with serving(path, '-t', '-r', '-A', '-B', 'b', '-f', 'qcow2', image):
        listed = run(need('qemu-nbd'), '-L', '-k', path).stdout
        for name in ('base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:b'):
            assert f'   {name}\n' in listed
        dirty = run(need('nbdinfo'), '--map=qemu:dirty-bitmap:b', uri(path)).stdout
        assert [line.split()[:3] for line in dirty.splitlines()] == [
            ['0', '1048576', '0'], ['1048576', '65536', '1'], ['1114112', '9371648', '0']]
        assert 'Pattern' not in io(path, 'read -P 2 1M 64k', options=('-r', '-f', 'raw'))
    for selector in ('s', '1', 'snapshot.name=s'):
        with serving(path, '-t', '-l', selector, '-f', 'qcow2', image):
            assert 'Pattern' not in io(path, 'read -P 1 1M 64k', options=('-r', '-f', 'raw'))


@pytest.mark.parametrize('discard', [False, True])
def test_nbd_tool_discard(tmp_path, discard):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(MIB)), tmp_path / 'nbd.sock'
    before = os.stat(image).st_blocks
    with serving(path, '-t', '-f', 'raw', *(['--discard=unmap'] if discard else []), image):
        io(path, 'discard 0 512k')
    assert (os.stat(image).st_blocks < before) == discard


def test_nbd_tool_detect_zeroes(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(MIB)), tmp_path / 'nbd.sock'
    before = os.stat(image).st_blocks
    with serving(path, '-t', '-f', 'raw', '--detect-zeroes=unmap', '--discard=unmap', image):
        io(path, 'write -P 0 0 512k')
    assert image.read_bytes() == bytes(MIB // 2) + pattern(MIB)[MIB // 2:]
    assert os.stat(image).st_blocks < before


def test_nbd_tool_fork_and_pid_file(tmp_path):
    image, path, pid_path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock', tmp_path / 'pid'
    run(OURS, '-k', path, '-f', 'raw', '--fork', '--pid-file', pid_path, image)
    pid = int(pid_path.read_text())
    os.kill(pid, 0)
    io(path, 'write 0 1k')
    wait_for(lambda: not os.path.exists(f'/proc/{pid}') or b'Z' in open(f'/proc/{pid}/stat', 'rb').read().split()[2:3],
             'the end of the server')
    assert not path.exists()


def test_nbd_tool_tcp(tmp_path):
    image = raw_image(tmp_path / 'image', MIB)
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    with subprocess.Popen([str(OURS), '-t', '-b', '127.0.0.1', '-p', str(port), '-f', 'raw', str(image)]) as server:
        def lists():
            return run(OURS, '-L', '-b', '127.0.0.1', '-p', port, check=False).stdout
        wait_for(lambda: server.poll() is not None or listens_tcp(port), 'the server')
        assert lists().startswith("exports available: 1\n export: ''\n  size:  1048576\n")
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0


def test_nbd_tool_tls(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    (tmp_path / 'keys.psk').write_text('me:0123456789abcdef0123456789abcdef\n')
    client = ['--object', f'tls-creds-psk,id=t,endpoint=client,dir={tmp_path},username=me', '--tls-creds', 't']
    with serving(path, '-t', '-f', 'raw', '--object', f'tls-creds-psk,id=t,endpoint=server,dir={tmp_path}',
                 '--tls-creds', 't', image):
        assert run(OURS, '-L', '-k', path, check=False).returncode == 1
        ours = run(OURS, '-L', '-k', path, *client).stdout
        assert ours.startswith('exports available: 1\n')
        assert ours == run(need('qemu-nbd'), '-L', '-k', path, *client).stdout


def flags_of(process, image):
    """The open flags of the descriptors that a process has for an image."""
    found = []
    for name in os.listdir(f'/proc/{process.pid}/fd'):
        if os.path.realpath(f'/proc/{process.pid}/fd/{name}') == str(image):
            text = open(f'/proc/{process.pid}/fdinfo/{name}').read()
            found.append(int(re.search(r'^flags:\s+(\d+)$', text, re.M)[1], 8))
    assert found
    return found


def failing_flushes(image):
    return ['--image-opts', f'driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename={image},'
                            'file.inject-error.0.event=none,file.inject-error.0.iotype=flush']


CACHE_MODES = {
    '--cache=writeback': (False, True), '--cache=writethrough': (False, True), '--cache=none': (True, True),
    '-n': (True, True), '--nocache': (True, True), '--cache=directsync': (True, True), '--cache=unsafe': (False, False),
}


@pytest.mark.parametrize('word', CACHE_MODES)
def test_nbd_tool_cache_modes(tmp_path, word):
    """Whether the page cache is gone round, and whether flushes get to the disk, where they fail."""
    import nbd

    direct, flushes = CACHE_MODES[word]
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    with serving(path, '-t', word, *failing_flushes(image)) as server:
        assert all(bool(flags & os.O_DIRECT) == direct for flags in flags_of(server, image))
        client = nbd.NBD()
        client.connect_uri(uri(path))
        client.pwrite(b'x' * 4096, 0)
        if flushes:
            with pytest.raises(nbd.Error):
                client.flush()
        else:
            client.flush()
        client.shutdown()


@pytest.mark.parametrize('mode', ['writeback', 'none', 'unsafe', 'writethrough', 'directsync'])
def test_nbd_tool_writes_through(tmp_path, mode):
    """Each write is durable before the client hears of it, as the server behind ours sees."""
    import nbd
    log, behind, path = tmp_path / 'log', tmp_path / 'behind.sock', tmp_path / 'nbd.sock'
    with nbdkit(behind, '--filter=log', 'memory', '1M', f'logfile={log}'):
        with serving(path, '-t', f'--cache={mode}', '--image-opts',
                     f'driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={behind}'):
            client = nbd.NBD()
            client.connect_uri(uri(path))
            client.pwrite(b'x' * 4096, 4096)
            client.shutdown()
    written = [line for line in log.read_text().splitlines() if ' Write ' in line and ' offset=0x1000 ' in line]
    assert len(written) == 1
    assert ('fua=1' in written[0]) == (mode in ('writethrough', 'directsync'))


@pytest.mark.parametrize('aio, cache', [('threads', 'writeback'), ('native', 'none'), ('io_uring', 'writeback')])
def test_nbd_tool_aio(tmp_path, aio, cache):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    with serving(path, '-t', '-f', 'raw', f'--aio={aio}', f'--cache={cache}', image):
        io(path, 'write -q -P 7 4k 8k', 'read -q -P 7 4k 8k')
    assert image.read_bytes()[4096:12288] == b'\7' * 8192


def test_nbd_tool_native_aio_goes_round_the_cache(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    ours, theirs = (run(tool, '-k', path, '-f', 'raw', '--aio=native', image, check=False)
                    for tool in (OURS, need('qemu-nbd')))
    assert ours.stderr == theirs.stderr.replace(need('qemu-nbd'), 'qemu-nbd')
    assert ours.returncode == theirs.returncode == 1


@pytest.mark.parametrize('limit', [1, 0])
def test_nbd_tool_handshake_limit(tmp_path, limit):
    """Who says nothing has to go; without a limit it may stay, and another is served meanwhile."""
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    with serving(path, '-t', '-e', '2', '-f', 'raw', '--handshake-limit', limit, image):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.settimeout(PATIENCE_S)
            silent.connect(str(path))
            assert silent.recv(18, socket.MSG_WAITALL).startswith(b'NBDMAGIC')
            if limit:
                assert silent.recv(1) == b''
            else:
                io(path, 'read 0 1k')
                silent.setblocking(False)
                with pytest.raises(BlockingIOError):
                    silent.recv(1)


def test_nbd_tool_format_by_content(tmp_path):
    """Without -f the content says it, with a warning where that is nothing; with it, it is as it is told."""
    path = tmp_path / 'nbd.sock'
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', tmp_path / 'image.qcow2', '3M')
    raw_image(tmp_path / 'image.raw', 2 * MIB)
    for words, length in (['image.qcow2'], '3 MiB'), (['-f', 'raw', 'image.qcow2'], None), (['image.raw'], '2 MiB'):
        said = []
        for tool in OURS, need('qemu-nbd'):
            with serving(path, '-t', *words, tool=tool, cwd=tmp_path) as server:
                shown = io(path, 'length').strip()
                assert length in (None, shown)
                assert shown != '3 MiB' or length
                server.send_signal(signal.SIGTERM)
                assert server.wait(PATIENCE_S) == 0
                said.append(server.stderr.read())
        assert said[0] == said[1]


def test_nbd_tool_image_by_options(tmp_path):
    image, path = raw_image(tmp_path / 'image', MIB, pattern(MIB)), tmp_path / 'nbd.sock'
    with serving(path, '-t', '--image-opts', f'driver=raw,offset=4096,size=8192,file.driver=file,file.filename={image}'):
        assert io(path, 'length').strip() == '8 KiB'


def test_nbd_tool_tls_of_certificates(tmp_path):
    """--tls-hostname says whose certificate the server must have; --tls-authz whom the server lets in."""
    folder = tls_files.make_certificates(tmp_path / 'tls')
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    creds = ['--object', f'tls-creds-x509,id=t,endpoint=server,dir={folder}', '--tls-creds', 't']
    client = ['--object', f'tls-creds-x509,id=t,endpoint=client,dir={folder}', '--tls-creds', 't']
    name = tls_files.CLIENT_NAME.replace(',', ',,')
    for identity, admitted in (name, True), ('CN=somebody', False):
        with serving(path, '-t', '-f', 'raw', *creds, '--object', f'authz-simple,id=a,identity={identity}',
                     '--tls-authz', 'a', image):
            for host, named in ('localhost', True), ('elsewhere', False):
                listed = [run(tool, '-L', '-k', path, *client, '--tls-hostname', host, check=False)
                          for tool in (OURS, need('qemu-nbd'))]
                assert [one.returncode for one in listed] == [0 if admitted and named else 1] * 2
                assert listed[0].stdout == listed[1].stdout
            assert 'elsewhere' in listed[0].stderr


def test_nbd_tool_socket_activation(tmp_path):
    """A service manager listens, and hands the socket over."""
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        child = os.fork()
        if not child:
            os.dup2(listener.fileno(), 3, inheritable=True)
            environment = {**os.environ, 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}
            os.execve(program('ashlar-nbd'), ['ashlar-nbd', '-f', 'raw', str(image)], environment)
    assert io(path, 'length') == '1 MiB\n'
    assert os.waitpid(child, 0)[1] == 0


REFUSED = [
    '-k {path} -f raw -e x {image}', '-k {path} -f raw -e -1 {image}', '-L -k {path}.none',
    '-k {path} -f raw --cache=foo {image}', '-k {path} -f raw --discard=foo {image}',
    '-k {path} -f raw --detect-zeroes=foo {image}', '-k {path} -f raw --detect-zeroes=unmap {image}',
    '-k {path} -f raw -o x {image}', '-k {path} -f raw -o 1M {image}', '-k {path} -f raw -o 2097152 {image}',
    '-k relative -f raw {image}', '-L {image}', '-L -x name', '-L -o 5', '-L -c /dev/nbd0',
    '-k {path} -f raw --aio=foo {image}', '-k {path} -f raw --tls-creds x {image}',
    '-k {path} -f raw --tls-authz x {image}', '-k {path} -f raw --pid-file /nonexistent/x {image}',
    '-k {path} -Z', '{image} {image}', '-d', '', '-k {path} -f raw -B b {image}', '-k {path} -f raw --image-opts {image}',
    '-k {path} -f raw -n --cache=none {image}', '-k /nonexistent/x -f raw {image}', '-k {path} -f raw {image}.none',
    '-k {path} -f raw --fork {image}.none', '-k', '-L -f raw', '-L -A', '-k {path} -f raw -o -1k {image}',
    '-k {path} -f raw -o 08 {image}', '-k {path} -f raw -e 3x {image}', '-k {path} -f raw -o 512k {image}',
]


@pytest.mark.parametrize('line', REFUSED)
def test_nbd_tool_refused(tmp_path, line):
    image, path = raw_image(tmp_path / 'image', MIB), tmp_path / 'nbd.sock'
    words = line.format(path=path, image=image).split()
    ours, theirs = (run(tool, *words, check=False) for tool in (OURS, need('qemu-nbd')))
    assert ours.stderr == theirs.stderr.replace(need('qemu-nbd'), 'qemu-nbd')
    assert (ours.returncode, ours.stdout) == (1, '')


def test_nbd_tool_kernel_device_that_is_not_there(tmp_path):
    image = raw_image(tmp_path / 'image', MIB)
    for words in (['-c', '/dev/nbd999', '-f', 'raw', '-k', tmp_path / 's', image], ['-d', '/dev/nbd999']):
        done = run(OURS, *words, check=False)
        assert done.returncode == 1
        assert 'pen /dev/nbd999: No such file or directory' in done.stderr
        assert 'modprobe nbd' in done.stderr


def test_nbd_tool_help_and_version():
    tool = program('ashlar-nbd')
    assert re.fullmatch(r'ashlar-nbd version \d+\.\d+\.\d+ \(interface version 9\.1\.1\)\n', run(tool, '-V').stdout)
    text = run(tool, '--help').stdout
    assert text.startswith('Usage: ashlar-nbd [options] IMAGE\n')
    theirs = set(re.findall(r'--[a-z][a-z-]+', run(need('qemu-nbd'), '--help').stdout))
    assert theirs <= set(re.findall(r'--[a-z][a-z-]+', text))
    assert 'SELinux' in run(tool, '--selinux-label', 'x', 'image', check=False).stderr
