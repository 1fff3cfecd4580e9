# SPDX-License-Identifier: LGPL-2.1-or-later
"""What end-to-end tests share: the daemon under test, a QMP client, and waiting for things to happen.

ASHLAR_BUILD names the build folder whose programs are tested (default: build/ at the top of the tree).
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get('ASHLAR_BUILD', TOP / 'build')).resolve()

# For programs with sanitizers: which leaks are others'.
os.environ.setdefault('LSAN_OPTIONS', f'suppressions={TOP}/tests/e2e/leaks-of-others:print_suppressions=0')

# Long enough for a loaded machine with sanitizers on; a test that passes never waits for it.
PATIENCE_S = 60


def sanitized():
    """Whether the programs under test have sanitizers, which keep what was freed."""
    options = json.loads((BUILD / 'meson-info' / 'intro-buildoptions.json').read_text())
    return next(option['value'] for option in options if option['name'] == 'b_sanitize') not in ('none', [], ['none'])


def memory_limit_kib(kib):
    """The limit that a test sets to a daemon's memory; sanitizers get more."""
    return kib + (1 << 20 if sanitized() else 0)


def program(name):
    """The path of one of our programs, such as 'ashlar-storaged'."""
    path = BUILD / 'src' / 'bin' / name
    assert path.exists(), f'{path} has not been built'
    return str(path)


def wait_for(condition, what, patience_s=PATIENCE_S):
    """Polls until condition() is true and returns its value."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f'waited {patience_s} s in vain for {what}'
        time.sleep(0.005)


def listens(path):
    """Whether somebody listens on the Unix socket. Its name is there earlier, and connecting would use up a server's client."""
    accepts = '00010000'
    with open('/proc/net/unix', encoding='utf-8', errors='surrogateescape') as table:
        fields = (line.rstrip('\n').split(maxsplit=7) for line in table)
        return os.path.exists(path) and any(len(one) == 8 and one[3] == accepts and one[7] == str(path) for one in fields)


def listens_tcp(port):
    """Whether somebody listens on the TCP port, at whichever address."""
    listening, wanted = '0A', f':{int(port):04X}'
    for table in '/proc/net/tcp', '/proc/net/tcp6':
        if os.path.exists(table):
            lines = pathlib.Path(table).read_text(encoding='ascii').splitlines()[1:]
            if any(one[1].endswith(wanted) and one[3] == listening for one in map(str.split, lines)):
                return True
    return False


def run(*command, check=True, **kwargs):
    """Runs a program to its end; its output is in .stdout and .stderr as text."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=5 * PATIENCE_S, check=False, **kwargs)
    if check:
        assert done.returncode == 0, f'{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}'
    return done


class QmpError(Exception):
    def __init__(self, reply):
        super().__init__(f"{reply['class']}: {reply['desc']}")
        self.error_class = reply['class']
        self.desc = reply['desc']


class Qmp:
    """A QMP session over a connected socket. Events pile up in .events until somebody asks for them."""

    def __init__(self, sock, negotiate=True, oob=False):
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        self.buffer = b''
        self.events = []
        self.greeting = self.receive()
        assert 'QMP' in self.greeting, self.greeting
        if negotiate:
            self.command('qmp_capabilities', **({'enable': ['oob']} if oob else {}))

    @classmethod
    def connect(cls, path, **kwargs):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        return cls(sock, **kwargs)

    def receive(self):
        """The next message, whatever it is; EOFError at the end of the session."""
        while b'\n' not in self.buffer:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(f'the session ended after {self.buffer!r}')
            self.buffer += data
        line, self.buffer = self.buffer.split(b'\n', 1)
        return json.loads(line)

    def send_raw(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self):
        """The next message that is no event."""
        while True:
            message = self.receive()
            if 'event' not in message:
                return message
            self.events.append(message)

    def execute(self, name, arguments=None):
        """The whole reply to a command, errors included."""
        request = {'execute': name}
        if arguments is not None:
            request['arguments'] = arguments
        self.send_raw(json.dumps(request))
        return self.reply()

    def command(self, name, /, **arguments):
        """What the command returns; QmpError when it fails. An underscore in an argument's name means a dash."""
        reply = self.execute(name, {key.replace('_', '-'): value for key, value in arguments.items()} or None)
        if 'error' in reply:
            raise QmpError(reply['error'])
        return reply['return']

    def event(self, name):
        """Waits for the next event of that name and takes it out of .events."""
        while True:
            for index, message in enumerate(self.events):
                if message['event'] == name:
                    return self.events.pop(index)
            message = self.receive()
            assert 'event' in message, f'waiting for {name}, got {message}'
            self.events.append(message)

    def close(self):
        self.sock.close()


class Daemon:
    """A running ashlar-storaged with a QMP socket of its own; use as a context manager."""

    def __init__(self, tmp_path, *arguments, monitor=True, env=None, **popen):
        self.directory = pathlib.Path(tmp_path)
        self.qmp_path = self.directory / f'qmp-{os.urandom(4).hex()}.sock'
        self.stderr_path = self.qmp_path.with_suffix('.stderr')
        self.pid_path = self.qmp_path.with_suffix('.pid')
        command = [program('ashlar-storaged'), *map(str, arguments), '--pidfile', str(self.pid_path)]
        if monitor:
            command += ['--chardev', f'socket,id=harness-qmp,path={self.qmp_path},server=on,wait=off',
                        '--monitor', 'chardev=harness-qmp']
        with open(self.stderr_path, 'wb') as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr,
                                            env={**os.environ, **(env or {})}, **popen)
        try:
            wait_for(self._settled, f'{command} to be ready')
            assert self.process.poll() is None, f'{command} ended with {self.process.returncode}: {self.stderr}'
            self.qmp = Qmp.connect(self.qmp_path) if monitor else None
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _settled(self):
        return self.process.poll() is not None or self.pid_path.exists() and self.pid_path.read_text().endswith('\n')

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors='replace')

    @property
    def pid(self):
        return self.process.pid

    def memory_kib(self, field='VmRSS'):
        """A figure of /proc/PID/status."""
        for line in pathlib.Path(f'/proc/{self.pid}/status').read_text().splitlines():
            if line.startswith(field + ':'):
                return int(line.split()[1])
        raise AssertionError(field)

    def stop(self):
        """Ends the daemon as a user would and checks that it ends well. Harmless after the end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=PATIENCE_S)
        assert status == 0, f'the daemon ended with {status}: {self.stderr}'
        assert 'Sanitizer' not in self.stderr, self.stderr

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        try:
            if kind is None:
                self.stop()
        finally:
            if self.process.poll() is None:
                self.kill()
            if kind is not None and self.stderr:
                print(f'--- stderr of the daemon ---\n{self.stderr}')


def storaged_fails(*arguments, **more):
    """Runs the daemon with options that it must refuse; its only line of complaint, without the program's name."""
    done = run(program('ashlar-storaged'), *arguments, check=False, **more)
    assert done.returncode == 1, f'status {done.returncode}: {done.stderr}'
    assert done.stderr.endswith('\n') and done.stderr.count('\n') == 1, done.stderr
    return done.stderr.rstrip('\n').split(': ', 1)[1]


def raw_image(path, size, pattern=None):
    """Makes a raw image: sparse, or filled with the repeated bytes of `pattern`."""
    with open(path, 'wb') as image:
        if pattern:
            image.write((pattern * (size // len(pattern) + 1))[:size])
        image.truncate(size)
    return path


@contextlib.contextmanager
def background(*command, **kwargs):
    """A program that runs beside the test and is ended with it."""
    process = subprocess.Popen([str(word) for word in command], **kwargs)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def need(name):
    """The path of a peer program, which `make test` installs."""
    path = shutil.which(name, path=os.environ['PATH'] + ':/usr/sbin:/sbin')
    assert path, f'{name} is missing: run `make test`, which installs it'
    return path
