# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon of another make that understands the same options and commands, to compare with."""
import os
import signal
import subprocess

from harness import PATIENCE_S, Qmp, listens, need, wait_for


class PeerDaemon:
    """A running qemu-storage-daemon with a QMP client in .qmp; use as a context manager."""

    def __init__(self, tmp_path, *arguments):
        path = tmp_path / f'peer-{os.urandom(4).hex()}.sock'
        pid_path = path.with_suffix('.pid')
        self.process = subprocess.Popen(
            [need('qemu-storage-daemon'), *map(str, arguments), '--pidfile', str(pid_path),
             '--chardev', f'socket,id=peer-qmp,path={path},server=on,wait=off', '--monitor', 'chardev=peer-qmp'],
            stdin=subprocess.DEVNULL)
        wait_for(lambda: self.process.poll() is not None or pid_path.exists() and listens(path), 'the peer to be ready')
        self.qmp = Qmp.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
