# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool daemon under test: with its own /etc/libvirt and /run where the tests run as root, else as a user's daemon."""
import os
import re
import signal
import subprocess

import libvirt

from harness import PATIENCE_S, program, wait_for

# Errors are looked at by the tests, so the library need not print them.
libvirt.registerErrorHandler(lambda *_: None, None)

# What the shell of root's daemon does before it becomes the daemon.
OWN_FOLDERS = ('/bin/mount --bind "$1/etc" /etc/libvirt && /bin/mount --bind "$1/run" /run && '
               '{ [ ! -d "$1/sys" ] || /bin/mount --bind "$1/sys" /sys; } && shift && exec "$@"')


class PoolServer:
    """Whatever has uri(): clients of its pool daemon."""

    def connect(self, driver='storage'):
        return libvirt.open(self.uri(driver))

    def virsh(self, *words, check=True):
        """What virsh prints, without empty lines; on failure its errors."""
        done = subprocess.run(['virsh', '-c', self.uri(), *map(str, words)], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=5 * PATIENCE_S)
        text = re.sub(r'\n+', '\n', done.stdout + done.stderr)
        assert not check or done.returncode == 0, f'virsh {words}:\n{text}'
        return text


class PoolDaemon(PoolServer):
    """
    `folder` holds everything; the daemon can be killed and started again in it. Root's daemon takes a folder `sys` there
    for the kernel's.
    """

    def __init__(self, folder):
        self.folder = folder
        self.privileged = os.geteuid() == 0
        self.log = folder / 'poold.log'
        self.process = None
        self.network = None  # a process in whose network it is to be
        for name in ('etc', 'run', 'images'):
            (folder / name).mkdir(exist_ok=True)
        self.images = folder / 'images'
        if self.privileged:
            self.config = folder / 'etc' / 'storage'
            self.state = folder / 'run' / 'libvirt' / 'storage'
            self.socket = folder / 'run' / 'libvirt' / 'virtstoraged-sock'
        else:
            self.config = folder / 'etc' / 'libvirt' / 'storage'
            self.state = folder / 'run' / 'libvirt' / 'storage' / 'run'
            self.socket = folder / 'run' / 'libvirt' / 'virtstoraged-sock'

    def start(self, *arguments):
        self.spawn(*arguments)
        wait_for(self._answers, 'the pool daemon')
        return self

    def spawn(self, *arguments):
        """It is not waited for."""
        command = [program('ashlar-poold'), *map(str, arguments)]
        environment = {**os.environ, **self.environment()}
        if self.privileged:
            command = [*self._enter(), 'unshare', '--mount', 'sh', '-c', OWN_FOLDERS, 'sh', str(self.folder), *command]
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def _enter(self):
        return ['nsenter', f'--net=/proc/{self.network}/ns/net'] if self.network else []

    def environment(self):
        """What a user's daemon finds its folders by."""
        if self.privileged:
            return {}
        return {'XDG_CONFIG_HOME': str(self.folder / 'etc'), 'XDG_RUNTIME_DIR': str(self.folder / 'run')}

    def _answers(self):
        assert self.process.poll() is None, f'the daemon has ended with {self.process.returncode}:\n{self.log.read_text()}'
        try:
            libvirt.open(self.uri()).close()
        except libvirt.libvirtError:
            return False
        return True

    def uri(self, driver='storage'):
        return f'{driver}:///{"system" if self.privileged else "session"}?socket={self.socket}'

    def kill(self):
        """As if the machine had stopped."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self):
        if not self.process or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert code == 0, f'the daemon ended with {code}:\n{self.log.read_text()}'


def error_of(call, *arguments):
    """(code, message) of the error that the call ends with."""
    try:
        call(*arguments)
    except libvirt.libvirtError as error:
        return error.get_error_code(), error.get_error_message()
    raise AssertionError(f'{call} has not failed')


def pool_xml(name, path):
    return f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"


def volume_xml(name, capacity, kind='raw', more='', allocation=None):
    given = '' if allocation is None else f'<allocation>{allocation}</allocation>'
    return (f"<volume><name>{name}</name><capacity>{capacity}</capacity>{given}<target><format type='{kind}'/></target>"
            f'{more}</volume>')
