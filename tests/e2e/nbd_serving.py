# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the NBD server start from: a daemon that exports a raw image as 'x'."""
import os
import socket

from harness import raw_image
from nbd_raw import NbdRaw

MIB = 1 << 20


def pattern(size, seed=1):
    """Bytes without runs of zeroes, the same each time."""
    block = bytes((seed * 31 + at * 7 + at // 251) % 255 + 1 for at in range(4096))
    return (block * (size // len(block) + 1))[:size]


def sparse_image(path, size, *data):
    """A raw image with a hole everywhere but in the ranges (offset, bytes)."""
    raw_image(path, size)
    with open(path, 'r+b') as image:
        for offset, content in data:
            image.seek(offset)
            image.write(content)
    return path


class Served:
    """A daemon with an NBD server at the Unix socket .path; node 'disk' on .image, exported as 'x' with id 'exp'."""

    def __init__(self, daemon, tmp_path, image=None, export='writable=on', server='', blockdev='', first=(), extra=(),
                 **popen):
        self.image = image or raw_image(tmp_path / 'disk.img', MIB, pattern(4096))
        self.path = tmp_path / 'nbd.sock'
        export = f',{export}' if export else ''
        self.daemon = daemon(*first,
                             '--blockdev', f'driver=file,node-name=disk,filename={self.image}{blockdev}',
                             '--nbd-server', f'addr.type=unix,addr.path={self.path}{server}',
                             '--export', f'type=nbd,id=exp,node-name=disk,name=x{export}', *extra, **popen)
        self.qmp = self.daemon.qmp

    @property
    def uri(self):
        return f'nbd+unix:///x?socket={self.path}'

    def open(self, name='x', mode='structured', **kwargs):
        return NbdRaw.open(self.path, name, mode, **kwargs)

    def connect(self, **kwargs):
        return NbdRaw.connect(self.path, **kwargs)

    def libnbd(self, contexts=(), **settings):
        """A connected handle of libnbd; settings are calls such as set_request_structured_replies=False."""
        import nbd
        handle = nbd.NBD()
        for context in contexts:
            handle.add_meta_context(context)
        for name, value in settings.items():
            getattr(handle, name)(value)
        handle.connect_uri(self.uri)
        return handle

    def content(self):
        with open(self.image, 'rb') as image:
            return image.read()

    def descriptors(self):
        """How many the daemon has open."""
        return len(os.listdir(f'/proc/{self.daemon.pid}/fd'))

    def check_alive(self):
        """Others are served: a new client reads what the image has."""
        with self.open() as client:
            assert client.read(0, 4096) == self.content()[:4096]
        assert self.qmp.command('query-version')


def free_port():
    """A TCP port on the loopback that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]
