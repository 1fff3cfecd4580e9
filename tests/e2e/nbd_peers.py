# SPDX-License-Identifier: LGPL-2.1-or-later
"""NBD servers of others, for tests of the client."""
import contextlib
import os
import socket
import subprocess
import threading

from harness import PATIENCE_S, listens, need, wait_for


@contextlib.contextmanager
def server(path, *command):
    """The server runs, and listens on the Unix socket `path`, as long as the context lasts."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as peer:
        try:
            wait_for(lambda: peer.poll() is not None or listens(path), f'{command} to listen')
            assert peer.poll() is None, f'{command} ended with {peer.returncode}'
            yield peer
        finally:
            peer.kill()
            peer.wait(timeout=PATIENCE_S)


def nbdkit(path, *words):
    return server(path, need('nbdkit'), '-f', '-U', path, *words)


def qemu_nbd(path, *words):
    return server(path, need('qemu-nbd'), '-t', '-k', path, '-e', '0', *words)


@contextlib.contextmanager
def scripted_server(path, converse, at_once=False):
    """
    A server that does to each connection what converse(sock) does, one after the other or all at once; its failures other than a hangup
    are raised.
    """
    failures, talks = [], []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def talk(sock):
        with sock:
            sock.settimeout(PATIENCE_S)
            try:
                converse(sock)
            except (EOFError, OSError):
                pass
            except Exception as failure:  # pylint: disable=broad-except
                failures.append(failure)

    def serve():
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return
            if at_once:
                talks.append(threading.Thread(target=talk, args=(sock,), daemon=True))
                talks[-1].start()
            else:
                talk(sock)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for one in thread, *talks:
            one.join(PATIENCE_S)
        assert not failures, failures


def receive(sock, size):
    data = b''
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
