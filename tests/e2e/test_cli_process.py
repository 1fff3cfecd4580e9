# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-storaged as a process: pid file, background, signals, and the examples of its manual."""
import fcntl
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys

import pytest

from harness import PATIENCE_S, Qmp, background, listens, need, program, raw_image, run, storaged_fails, wait_for


def gone(pid):
    """Whether the process has ended (or waits for its parent to notice)."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] in 'ZX'
    except FileNotFoundError:
        return True


def written(path):
    return path.exists() and path.read_text().endswith('\n')


def connected(path):
    """A socket that is connected to the path; None while nobody listens there."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
        return sock
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None


def connect_soon(path):
    """A session with a daemon that is just starting."""
    return Qmp(wait_for(lambda: connected(path), f'{path} to listen'))


@pytest.fixture
def pid_daemon(tmp_path):
    """A daemon with a pid file and nothing else: (process, path of the pid file)."""
    path = tmp_path / 'pid'
    with background(program('ashlar-storaged'), '--pidfile', path) as process:
        wait_for(lambda: written(path), 'the pid file')
        yield process, path


def test_pidfile_contents(pid_daemon):
    process, path = pid_daemon
    assert path.read_text() == f'{process.pid}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_pidfile_second_daemon_refused(pid_daemon):
    process, path = pid_daemon
    complaint = storaged_fails('--pidfile', path)
    assert complaint.startswith('cannot create PID file: Cannot lock pid file')
    assert complaint.endswith('Resource temporarily unavailable')
    assert path.read_text() == f'{process.pid}\n'


def test_pidfile_locked_against_the_peer(pid_daemon):
    """The reference daemon sees our lock, and leaves the file alone."""
    process, path = pid_daemon
    done = run(need('qemu-storage-daemon'), '--pidfile', path, check=False)
    assert done.returncode == 1
    assert 'Cannot lock pid file' in done.stderr
    assert path.read_text() == f'{process.pid}\n'


def test_pidfile_stale_taken_over(tmp_path):
    path = tmp_path / 'pid'
    path.write_text('123456789012345\n' * 3)
    with background(program('ashlar-storaged'), '--pidfile', path) as process:
        wait_for(lambda: path.read_text() == f'{process.pid}\n', 'the pid file')


def test_pidfile_removed_at_the_end(pid_daemon):
    process, path = pid_daemon
    process.terminate()
    assert process.wait(timeout=PATIENCE_S) == 0
    assert not path.exists()


def test_pidfile_of_somebody_else_stays(pid_daemon):
    process, path = pid_daemon
    path.unlink()
    path.write_text('999\n')
    process.terminate()
    assert process.wait(timeout=PATIENCE_S) == 0
    assert path.read_text() == '999\n'


def test_pidfile_survives_kill_and_restart(pid_daemon):
    process, path = pid_daemon
    process.kill()
    process.wait()
    assert path.exists()
    with background(program('ashlar-storaged'), '--pidfile', path) as again:
        wait_for(lambda: path.read_text() == f'{again.pid}\n', 'the pid file')


def test_pidfile_through_a_link(tmp_path):
    (tmp_path / 'link').symlink_to('target')
    with background(program('ashlar-storaged'), '--pidfile', tmp_path / 'link') as process:
        wait_for(lambda: written(tmp_path / 'target'), 'the pid file')
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0


@pytest.mark.parametrize('kind', ['directory', 'fifo', 'socket'])
def test_pidfile_that_is_no_file(tmp_path, kind):
    path = tmp_path / 'odd'
    if kind == 'directory':
        path.mkdir()
    elif kind == 'fifo':
        os.mkfifo(path)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.close()
    assert storaged_fails('--pidfile', path).startswith('cannot create PID file: ')
    assert path.exists() and not path.is_file()


def test_pidfile_last_one_counts(tmp_path):
    with background(program('ashlar-storaged'), '--pidfile', tmp_path / 'a', '--pidfile', tmp_path / 'b'):
        wait_for(lambda: written(tmp_path / 'b'), 'the pid file')
        assert not (tmp_path / 'a').exists()


def test_pidfile_comes_last(tmp_path):
    """When it is there, everything else is."""
    path = tmp_path / 'pid'
    with background(program('ashlar-storaged'), '--pidfile', path,
                    '--chardev', f'socket,id=c,path={tmp_path}/qmp.sock,server=on,wait=off', '--monitor', 'c',
                    '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock'):
        wait_for(lambda: written(path), 'the pid file')
        Qmp.connect(tmp_path / 'qmp.sock').close()
        socket.socket(socket.AF_UNIX).connect(str(tmp_path / 'nbd.sock'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_it_in_order(tmp_path, number):
    """Exports stop, sockets and the pid file go, the status is 0, and nothing is said."""
    image = raw_image(tmp_path / 'disk.img', 1 << 20)
    with background(program('ashlar-storaged'), '--pidfile', tmp_path / 'pid',
                    '--chardev', f'socket,id=c,path={tmp_path}/qmp.sock,server=on,wait=off', '--monitor', 'c',
                    '--blockdev', f'file,node-name=f,filename={image}',
                    '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock',
                    '--export', 'nbd,id=e,node-name=f,writable=on', stderr=subprocess.PIPE) as process:
        wait_for(lambda: written(tmp_path / 'pid'), 'the pid file')
        qmp = Qmp.connect(tmp_path / 'qmp.sock')
        process.send_signal(number)
        assert qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'e'}
        with pytest.raises((EOFError, ConnectionResetError)):
            qmp.receive()
        assert process.wait(timeout=PATIENCE_S) == 0
        assert process.stderr.read() == b''
    assert os.listdir(tmp_path) == ['disk.img']


def test_signal_while_start_up_waits(tmp_path):
    """A start-up that waits for a client is ended too, and leaves nothing."""
    path = tmp_path / 'qmp.sock'
    with background(program('ashlar-storaged'), '--pidfile', tmp_path / 'pid',
                    '--chardev', f'socket,id=c,path={path},server=on', stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: listens(path), 'the socket')
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0
    assert os.listdir(tmp_path) == []


def test_commands_wait_for_start_up(tmp_path):
    """A client that comes while options are still being processed is greeted, and its commands find all that they ask for."""
    with background(program('ashlar-storaged'), '--chardev', f'socket,id=a,path={tmp_path}/a,server=on,wait=off', '--monitor', 'a',
                    '--chardev', f'socket,id=b,path={tmp_path}/b,server=on,wait=on',
                    '--chardev', 'null,id=last', stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: listens(tmp_path / 'b'), 'start-up to wait')
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / 'a'))
        qmp = Qmp(sock, negotiate=False)
        qmp.send_raw('{"execute": "qmp_capabilities"} {"execute": "query-chardev"}')
        client = wait_for(lambda: connected(tmp_path / 'b'), 'the second socket to listen')
        assert qmp.reply() == {'return': {}}
        assert 'last' in [entry['label'] for entry in qmp.reply()['return']]
        client.close()
        qmp.close()
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0


def test_broken_pipe_is_no_signal(tmp_path):
    """A client that goes while we write to it ends nothing."""
    path = tmp_path / 'qmp.sock'
    with background(program('ashlar-storaged'), '--chardev', f'socket,id=c,path={path},server=on,wait=off',
                    '--monitor', 'c') as process:
        connect_soon(path).close()
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            sock.sendall(b'{"execute": "qmp_capabilities"}' + b'{"execute": "query-qmp-schema"}' * 20)
            sock.close()
        Qmp.connect(path).close()
        assert process.poll() is None


def start_daemonized(tmp_path, *arguments, **kwargs):
    """The result of the command that went into the background, and the pid of what stayed (None: nothing)."""
    pid_path = tmp_path / 'pid'
    done = subprocess.run([program('ashlar-storaged'), '--daemonize', '--pidfile', str(pid_path), *map(str, arguments)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE_S, check=False, **kwargs)
    return done, int(pid_path.read_text()) if pid_path.exists() else None


def test_daemonize(tmp_path):
    """The status comes when everything is there; what stays has let go of the terminal and the folder."""
    done, pid = start_daemonized(tmp_path, '--chardev', f'socket,id=c,path={tmp_path}/qmp.sock,server=on,wait=off',
                                 '--monitor', 'c')
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        assert os.readlink(f'/proc/{pid}/cwd') == '/'
        for stream in range(3):
            assert os.readlink(f'/proc/{pid}/fd/{stream}') == '/dev/null'
        assert os.getsid(pid) != os.getsid(0)
        qmp = Qmp.connect(tmp_path / 'qmp.sock')
        qmp.command('quit')
        qmp.close()
        wait_for(lambda: gone(pid), 'the daemon to end')
        assert os.listdir(tmp_path) == []
    finally:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_daemonize_relative_paths(tmp_path):
    """Paths mean what they meant on the command line, to the end."""
    raw_image(tmp_path / 'disk.img', 1 << 20)
    done = subprocess.run([program('ashlar-storaged'), '--daemonize', '--pidfile', 'pid',
                           '--chardev', 'socket,id=c,path=qmp.sock,server=on,wait=off', '--monitor', 'c',
                           '--blockdev', 'file,node-name=f,filename=disk.img',
                           '--nbd-server', 'addr.type=unix,addr.path=nbd.sock', '--export', 'nbd,id=e,node-name=f'],
                          cwd=tmp_path, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0
    pid = int((tmp_path / 'pid').read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: gone(pid), 'the daemon to end')
    assert os.listdir(tmp_path) == ['disk.img']


@pytest.mark.parametrize('arguments, complaint', [
    (['--blockdev', 'foo'], "--blockdev foo: Parameter 'driver' does not accept value 'foo'"),
    (['--chardev', 'stdio,id=c'], '--chardev stdio,id=c: cannot use stdio with -daemonize'),
    (['--monitor', 'c'], '--monitor c: chardev "c" not found'),
])
def test_daemonize_failure_is_told(tmp_path, arguments, complaint):
    done, pid = start_daemonized(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr == f'ashlar-storaged: {complaint}\n'
    assert pid is None
    assert os.listdir(tmp_path) == []


def test_daemonize_second_with_the_same_pidfile(pid_daemon, tmp_path):
    done, _ = start_daemonized(tmp_path)
    assert done.returncode == 1
    assert 'Cannot lock pid file' in done.stderr


def test_daemonize_help_ends_well(tmp_path):
    done, pid = start_daemonized(tmp_path, '--object', 'help')
    assert 'secret' in done.stdout
    assert pid is None


def test_no_descriptor_is_inherited(tmp_path):
    """Everything the daemon opens is close-on-exec."""
    image = raw_image(tmp_path / 'disk.img', 1 << 20)
    with background(program('ashlar-storaged'), '--pidfile', tmp_path / 'pid',
                    '--chardev', f'socket,id=c,path={tmp_path}/qmp.sock,server=on,wait=off', '--monitor', 'c',
                    '--blockdev', f'file,node-name=f,filename={image}', stdin=subprocess.DEVNULL) as process:
        wait_for(lambda: written(tmp_path / 'pid'), 'the pid file')
        qmp = Qmp.connect(tmp_path / 'qmp.sock')
        for entry in os.listdir(f'/proc/{process.pid}/fdinfo'):
            info = pathlib.Path(f'/proc/{process.pid}/fdinfo/{entry}').read_text()
            flags = int(next(line for line in info.splitlines() if line.startswith('flags:')).split()[1], 8)
            assert int(entry) <= 2 or flags & os.O_CLOEXEC, os.readlink(f'/proc/{process.pid}/fd/{entry}')
        qmp.close()


PASSED_SOCKET = '''
import subprocess
import socket

sock_path = 'qmp.sock'

with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listen_sock:
    listen_sock.bind(sock_path)
    listen_sock.listen()

    fd = listen_sock.fileno()

    subprocess.Popen(
        ['qemu-storage-daemon',
         '--chardev', f'socket,fd={fd},server=on,id=char1',
         '--monitor', 'chardev=char1'],
        pass_fds=[fd],
    )

# listen_sock was automatically closed when leaving the 'with' statement
# body. If the daemon process terminated early then the following connect()
# will fail with "Connection refused" because no process has the listen
# socket open anymore. Launch errors can be detected this way.

qmp_sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
qmp_sock.connect(sock_path)
'''

INTERACTION = '''
stream = qmp_sock.makefile('rw')
print(stream.readline())
for command in ('qmp_capabilities', 'query-version', 'quit'):
    stream.write('{"execute": "%s"}' % command)
    stream.flush()
    print(stream.readline())
'''


def compat_environment():
    return {**os.environ, 'PATH': str(pathlib.Path(program('ashlar-storaged')).parents[2] / 'compat') + ':' + os.environ['PATH']}


def test_example_passed_socket(tmp_path):
    """The manual's Python example, word for word, under the drop-in name."""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', PASSED_SOCKET + INTERACTION], cwd=tmp_path, text=True,
                          env=compat_environment(), stdout=subprocess.PIPE, timeout=PATIENCE_S, check=True)
    greeting, capabilities, version, end = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    assert greeting['QMP']['capabilities'] == ['oob']
    assert capabilities == end == {'return': {}}
    assert version['return']['qemu'] == {'major': 9, 'minor': 1, 'micro': 1}


def test_example_qmp_socket(tmp_path):
    with background('qemu-storage-daemon', '--chardev', 'socket,path=qmp.sock,server=on,wait=off,id=char1',
                    '--monitor', 'chardev=char1', cwd=tmp_path, env=compat_environment()) as process:
        qmp = connect_soon(tmp_path / 'qmp.sock')
        qmp.command('quit')
        assert process.wait(timeout=PATIENCE_S) == 0


def test_example_raw_over_nbd(tmp_path):
    raw_image(tmp_path / 'disk.img', 1 << 20, b'ashlar')
    with background('qemu-storage-daemon', '--blockdev', 'driver=file,node-name=disk,filename=disk.img',
                    '--nbd-server', 'addr.type=unix,addr.path=nbd.sock',
                    '--export', 'type=nbd,id=export,node-name=disk,writable=on',
                    '--pidfile', 'pid', cwd=tmp_path, env=compat_environment()) as process:
        wait_for(lambda: written(tmp_path / 'pid'), 'the pid file')
        done = run(need('nbdinfo'), '--json', f'nbd+unix:///disk?socket={tmp_path}/nbd.sock')
        export, = json.loads(done.stdout)['exports']
        assert export['export-size'] == 1 << 20
        assert not export['is_read_only']
        run(need('nbdcopy'), f'nbd+unix:///disk?socket={tmp_path}/nbd.sock', tmp_path / 'copy.img')
        assert (tmp_path / 'copy.img').read_bytes() == (tmp_path / 'disk.img').read_bytes()
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0


def test_example_passed_nbd_socket(tmp_path):
    """The same way of passing a listening socket, for the NBD server."""
    image = raw_image(tmp_path / 'disk.img', 1 << 20)
    path = str(tmp_path / 'nbd.sock')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = subprocess.Popen(['qemu-storage-daemon', '--blockdev', f'driver=file,node-name=disk,filename={image}',
                                    '--nbd-server', f'addr.type=fd,addr.str={listener.fileno()}',
                                    '--export', 'type=nbd,id=export,node-name=disk'], pass_fds=[listener.fileno()],
                                   env=compat_environment())
    try:
        done = run(need('nbdinfo'), '--json', f'nbd+unix:///disk?socket={path}')
        export, = json.loads(done.stdout)['exports']
        assert export['export-size'] == 1 << 20
        assert export['is_read_only']
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_example_stop_by_pid_file(pid_daemon):
    """kill -SIGTERM $(<path/to/qsd.pid)"""
    process, path = pid_daemon
    subprocess.run(['bash', '-c', f'kill -SIGTERM $(<{path})'], check=True)
    assert process.wait(timeout=PATIENCE_S) == 0


def test_example_typed_session(daemon):
    """A session typed with socat, line by line."""
    one = daemon()
    one.qmp.close()
    with background(need('socat'), '-', f'UNIX-CONNECT:{one.qmp_path}', stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    text=True) as socat:
        def ask(line):
            socat.stdin.write(line + '\n')
            socat.stdin.flush()
            return json.loads(socat.stdout.readline())
        assert 'QMP' in json.loads(socat.stdout.readline())
        assert ask("{ 'execute': 'qmp_capabilities' }") == {'return': {}}
        assert ask("{ 'execute': 'query-version' }")['return']['qemu']['major'] == 9
        assert ask('help')['error']['class'] == 'GenericError'
        assert ask("{ 'execute': 'query-version', 'id': 'still here' }")['id'] == 'still here'
        assert ask("{ 'execute': 'quit' }") == {'return': {}}
        assert socat.wait(timeout=PATIENCE_S) == 0
    assert one.process.wait(timeout=PATIENCE_S) == 0


def test_piped_session(daemon):
    """All at once through a pipe: the replies come although the input has ended."""
    one = daemon()
    one.qmp.close()
    done = subprocess.run([need('socat'), '-t', str(PATIENCE_S), '-', f'UNIX-CONNECT:{one.qmp_path}'], text=True,
                          input='{"execute":"qmp_capabilities"}\n{"execute":"query-commands"}\n', stdout=subprocess.PIPE,
                          timeout=PATIENCE_S, check=True)
    greeting, capabilities, commands = [json.loads(line) for line in done.stdout.splitlines()]
    assert 'QMP' in greeting and capabilities == {'return': {}} and commands['return']


def test_lock_is_on_the_pid_file(pid_daemon):
    _, path = pid_daemon
    with open(path, 'r+', encoding='ascii') as file, pytest.raises(OSError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
