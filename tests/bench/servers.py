# SPDX-License-Identifier: LGPL-2.1-or-later
"""The servers that the benchmarks compare: ours, the peers, and the floor. Each serves one image on a Unix socket."""
import os
import pathlib
import socket
import subprocess
import time


class Server:
    """A running server process. `command` gets the paths of the socket and the image."""

    def __init__(self, name, command, directory, image):
        self.name = name
        self.socket = str(pathlib.Path(directory) / f'{name}.sock')
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        began = time.perf_counter()
        self.process = subprocess.Popen([str(word) for word in command(self.socket, image)], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE)
        self.ready_ms = None
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.socket)
                self.ready_ms = (time.perf_counter() - began) * 1000
                break
            except OSError:
                assert self.process.poll() is None, f'{name} ended: {self.process.stderr.read().decode()}'
                assert time.perf_counter() - began < 20, f'{name} does not listen'
                time.sleep(0.0002)

    def cpu_s(self):
        """User and system time so far, of all its threads."""
        fields = pathlib.Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def memory_mib(self):
        for line in pathlib.Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()


def qmp_rate(build, path, directory, round_trips=20000):
    """Round trips a second of query-version with a storage daemon, one client that waits for each reply."""
    sock = str(pathlib.Path(directory) / 'qmp.sock')
    process = subprocess.Popen([str(path), '--chardev', f'socket,id=c,path={sock},server=on,wait=off', '--monitor', 'chardev=c'])
    try:
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if not probe.connect_ex(sock):
                    break
            assert process.poll() is None, f'{path} ended'
            time.sleep(0.001)
        client = [str(pathlib.Path(build) / 'tests' / 'qmp-rate'), sock, str(round_trips), '1']
        return float(subprocess.run(client, check=True, capture_output=True, text=True).stdout)
    finally:
        process.terminate()
        process.wait()
        if os.path.exists(sock):
            os.unlink(sock)


def storage_daemon(path, kind):
    """By the name's end: the format."""
    layers = ['--blockdev', 'driver=qcow2,node-name=disk,file=file'] if kind.endswith('.qcow2') else []
    name = 'file' if layers else 'disk'
    return lambda sock, image: [
        path, '--blockdev', f'driver=file,node-name={name},filename={image}', *layers, '--nbd-server',
        f'addr.type=unix,addr.path={sock},max-connections=16', '--export', 'type=nbd,id=e,node-name=disk,name=,writable=on']


def daemons(build):
    """The programs that have QMP."""
    return {'ashlar': pathlib.Path(build) / 'src' / 'bin' / 'ashlar-storaged', 'qemu': '/usr/bin/qemu-storage-daemon'}


def known(build, kind):
    """Name to command, in the order of the table's columns: the servers that know such an image."""
    table = {name: storage_daemon(path, kind) for name, path in daemons(build).items()}
    if kind.endswith('.raw'):
        table['nbdkit'] = lambda sock, image: ['nbdkit', '-f', '-U', sock, 'file', image]
        table['floor'] = lambda sock, image: [pathlib.Path(build) / 'tests' / 'nbd-floor', sock, image]
    return table


def start_cost(name, command, directory, image):
    """Milliseconds until it listens, and MiB then."""
    running = Server(name, command, directory, image)
    try:
        time.sleep(0.2)
        return running.ready_ms, running.memory_mib()
    finally:
        running.stop()
