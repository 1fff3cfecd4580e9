# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool daemon beside Debian's libvirtd, over their own sockets, with the same client and the same pool.

Needs root: each daemon gets folders of its own in the places that libvirt's programs have.
"""
import os
import pathlib
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

VOLUMES = 10000
PAIRS = 1000
STREAM_BYTES = 2 << 30
CLIENTS = 100
CLIENT_CALLS = 100
PROGRAM = 0x20008086
CHUNK = 262120
POLL_US = 150
POLLING = f'ashlar-poold, poll_max_us = {POLL_US}'

# libvirtd loads all drivers that it finds, and some of them want users and devices of their own.
DRIVERS = pathlib.Path('/usr/lib/x86_64-linux-gnu/libvirt/connection-driver')
SHELL = '''mkdir -p /etc/libvirt /run/libvirt && mount -t tmpfs t /etc/libvirt && mount -t tmpfs t /run/libvirt
[ -z "$1" ] || mount --bind "$1" "$2"
shift 2; echo set; read -r _; exec "$@" </dev/null >&2'''


def string(text):
    data = text.encode()
    return struct.pack('>I', len(data)) + data + bytes(-len(data) % 4)


class Client:
    """As little between the measurement and the daemon as Python allows."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.serial = 0
        self.call(66)
        self.call(1, struct.pack('>I', 1) + string('storage:///system') + bytes(4))

    def send(self, procedure, body=b'', kind=0, status=0, serial=None):
        if serial is None:
            self.serial += 1
            serial = self.serial
        self.sock.sendall(struct.pack('>IIIiIII', 28 + len(body), PROGRAM, 1, procedure, kind, serial, status) + body)

    def receive(self):
        size = struct.unpack('>I', self._exact(4))[0]
        data = self._exact(size - 4)
        return data

    def call(self, procedure, body=b''):
        self.send(procedure, body)
        data = self.receive()
        assert data[20:24] == bytes(4), data
        return data[24:]

    def _exact(self, size):
        data = self.sock.recv(size, socket.MSG_WAITALL)
        assert len(data) == size
        return data


class Daemon:
    def __init__(self, name, build, folder):
        self.folder = pathlib.Path(folder)
        self.name = name
        self.pool = self.folder / 'pool'
        config = self.folder / 'conf'
        text = f'unix_sock_dir = "{folder}/s"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
        config.write_text(text + (f'poll_max_us = {POLL_US}\n' if name == POLLING else ''))
        if name == 'libvirtd':
            drivers = self.folder / 'drivers'
            drivers.mkdir()
            shutil.copy(DRIVERS / 'libvirt_driver_storage.so', drivers)
            bind, program, self.path = [str(drivers), str(DRIVERS)], '/usr/sbin/libvirtd', self.folder / 's' / 'libvirt-sock'
        else:
            bind, program = ['', ''], os.path.join(build, 'src', 'bin', 'ashlar-poold')
            self.path = self.folder / 's' / 'virtstoraged-sock'
        (self.folder / 's').mkdir(exist_ok=True)
        self.log = open(self.folder / 'log', 'wb')
        self.process = subprocess.Popen(
            ['unshare', '--mount', 'sh', '-c', SHELL, 'sh', *bind, program, '-f', str(config), '-p', str(self.folder / 'pid')],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        # The folders are in place; from here on it is the daemon's own time, from exec to a client's first answer.
        self.process.stdout.readline()
        began = time.monotonic()
        self.process.stdin.write(b'\n')
        self.process.stdin.flush()
        while True:
            try:
                Client(self.path)
                break
            except OSError:
                assert self.process.poll() is None, (self.folder / 'log').read_text()
                time.sleep(0.0002)
        self.ready_ms = (time.monotonic() - began) * 1000
        self.idle_mib = self.rss_mib()

    def rss_mib(self, field='VmRSS'):
        text = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
        return int(text.split(f'{field}:')[1].split()[0]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def volume(name):
    return string('bench') + string(name) + string('')


def copy_sparse(data, path):
    with open(path, 'wb', buffering=0) as file:
        for at in range(0, len(data), 4096):
            if any(data[at:at + 4096]):
                file.seek(at)
                file.write(data[at:at + 4096])
        file.truncate(len(data))


def timed(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def create_and_delete(client, pool, kind):
    xml = f"<volume><name>%s</name><capacity>1048576</capacity><target><format type='{kind}'/></target></volume>"
    for number in range(PAIRS):
        client.call(93, pool + string(xml % f'new{number}') + bytes(4))
        client.call(94, volume(f'new{number}') + bytes(4))


def upload(client):
    client.call(208, volume('stream') + struct.pack('>QQI', 0, 0, 0))
    serial = client.serial
    packet = struct.pack('>IIIiIII', 28 + CHUNK, PROGRAM, 1, 208, 3, serial, 2) + bytes(CHUNK)
    for _ in range(STREAM_BYTES // CHUNK):
        client.sock.sendall(packet)
    client.send(208, kind=3, serial=serial)
    assert client.receive()[20:24] == bytes(4)


def upload_and_sync(client, path):
    """Until the bytes are on the disk, whoever brings them there."""
    upload(client)
    with open(path, 'rb') as file:
        os.fsync(file.fileno())


def download(client):
    client.call(209, volume('stream') + struct.pack('>QQI', 0, 0, 0))
    serial, total = client.serial, 0
    while True:
        size = len(client.receive()) - 24
        if not size:
            break
        total += size
    assert total == STREAM_BYTES // CHUNK * CHUNK, total
    client.send(209, kind=3, serial=serial)
    client.receive()


def make_stream_volume(client, pool):
    client.call(93, pool + string('<volume><name>stream</name><capacity>1048576</capacity></volume>') + bytes(4))


def ask_one_by_one(client):
    """The calls of vol-list --details, without the time that virsh takes for each."""
    for number in range(VOLUMES):
        for procedure in (98, 100):
            client.call(procedure, volume(f'v{number:05}.qcow2'))


def hundred(path):
    clients = [Client(path) for _ in range(CLIENTS)]
    for number in range(CLIENT_CALLS):
        for client in clients:
            client.send(98, volume(f'v{number:05}.qcow2'))
        for client in clients:
            client.receive()


def measure(name, build, directory):
    """Seconds by case, and memory."""
    with tempfile.TemporaryDirectory(dir=directory, prefix='p') as folder:
        pool_path = pathlib.Path(folder) / 'pool'
        pool_path.mkdir()
        first = pool_path / 'v00000.qcow2'
        subprocess.run([os.path.join(build, 'src', 'bin', 'ashlar-img'), 'create', '-q', '-f', 'qcow2', first, '1G'], check=True)
        for number in range(1, VOLUMES):
            copy_sparse(first.read_bytes(), pool_path / f'v{number:05}.qcow2')
        os.sync()
        daemon = Daemon(name, build, folder)
        found = {'ready (ms)': daemon.ready_ms, 'memory, idle (MiB)': daemon.idle_mib}
        client = Client(daemon.path)
        pool = client.call(76, string(f"<pool type='dir'><name>bench</name><target><path>{pool_path}</path></target></pool>")
                           + bytes(4))
        found[f'refresh of {VOLUMES} qcow2 volumes (s)'] = timed(lambda: client.call(83, pool + bytes(4)))
        uri = f'storage:///system?socket={daemon.path}'
        found[f'virsh vol-list --details of {VOLUMES} (s)'] = timed(lambda: subprocess.run(
            ['virsh', '-c', uri, 'vol-list', 'bench', '--details'], stdout=subprocess.DEVNULL, check=True))
        found[f'information and path of {VOLUMES}, one by one (s)'] = timed(lambda: ask_one_by_one(client))
        found[f'{CLIENTS} clients, {CLIENT_CALLS} calls each (s)'] = timed(lambda: hundred(daemon.path))
        found[f'memory with {VOLUMES} volumes, {CLIENTS} clients served (MiB)'] = daemon.rss_mib()
        for kind in ('raw', 'qcow2'):
            found[f'{PAIRS} times create and delete, {kind} (s)'] = timed(lambda k=kind: create_and_delete(client, pool, k))
        os.sync()
        make_stream_volume(client, pool)
        found[f'upload of {STREAM_BYTES >> 30} GiB (s)'] = timed(lambda: upload(client))
        client.call(94, volume('stream') + bytes(4))
        os.sync()
        make_stream_volume(client, pool)
        found['the same, until it is on the disk (s)'] = timed(lambda: upload_and_sync(client, pool_path / 'stream'))
        found[f'download of {STREAM_BYTES >> 30} GiB (s)'] = timed(lambda: download(client))
        found['memory at its highest (MiB)'] = daemon.rss_mib('VmHWM')
        daemon.stop()
        return found


def report(build, directory, rounds):
    if os.geteuid() != 0 or not os.path.exists('/usr/sbin/libvirtd') or not (DRIVERS / 'libvirt_driver_storage.so').exists():
        print('the pool daemon is measured by root, where libvirtd and its storage driver are installed\n')
        return
    found = {name: [] for name in ('ashlar-poold', POLLING, 'libvirtd')}
    for number in range(rounds):
        for name, results in found.items():
            results.append(measure(name, build, directory))
            print(f'round {number + 1} {name}: {results[-1]}', file=sys.stderr)
    print(f'| case | ashlar-poold | {POLLING} | libvirtd | libvirtd / ashlar-poold | / polling |\n|---|---:|---:|---:|---:|---:|')
    for case in found['libvirtd'][0]:
        ours, polling, theirs = (statistics.median(one[case] for one in found[name]) for name in found)
        print(f'| {case} | {ours:,.2f} | {polling:,.2f} | {theirs:,.2f} | {theirs / ours:.1f} | {theirs / polling:.1f} |')
    print(flush=True)
