# SPDX-License-Identifier: LGPL-2.1-or-later
"""NBD with several threads, and with TLS."""
import pathlib
import subprocess
import time

import images
import nbd
import servers


def spread(path, iothreads):
    """A command that serves a raw image on so many threads. The peer does it on its main loop: with an iothread it dies."""
    if 'qemu' in str(path):
        iothreads = 0
    threads = [word for number in range(iothreads) for word in ('--object', f'iothread,id=thread{number}')]
    which = ''.join(f',iothread.{number}=thread{number}' for number in range(iothreads))
    return lambda sock, image: [
        path, *threads, '--blockdev', f'driver=file,node-name=disk,filename={image}', '--nbd-server',
        f'addr.type=unix,addr.path={sock},max-connections=16', '--export',
        f'type=nbd,id=e,node-name=disk,name=,writable=on{which}']


def multi_groups(build):
    commands = {name: spread(path, 2) for name, path in servers.daemons(build).items()}
    table = {f'4 KiB {rw}, 4 connections x {depth}, 2 iothreads': nbd.Fio(rw, '4k', depth, jobs=4)
             for rw in ('randread', 'randwrite') for depth in (1, 32)}
    yield 'nbd-multi', 'full.raw', commands, table


class TlsCopy:
    """nbdcopy of the whole disk to nowhere over TLS with a shared key."""

    figure = 'MiB/s'

    def __init__(self, key, connections):
        self.key, self.connections = key, connections

    def run(self, server, _seconds):
        uri = f'nbds+unix://bench@/?socket={server.socket}&tls-psk-file={self.key}'
        cpu = server.cpu_s()
        began = time.perf_counter()
        subprocess.run(['nbdcopy', f'--connections={self.connections}', uri, 'null:'], check=True)
        took = time.perf_counter() - began
        return {'MiB/s': images.DISK_BYTES / 2**20 / took, 'cpu us': (server.cpu_s() - cpu) * 1e6 / (images.DISK_BYTES / 2**18)}


def tls_storage_daemon(path, keys):
    return lambda sock, image: [
        path, '--object', f'tls-creds-psk,id=tls,endpoint=server,dir={keys}', '--blockdev',
        f'driver=file,node-name=disk,filename={image}', '--nbd-server',
        f'addr.type=unix,addr.path={sock},tls-creds=tls,max-connections=16', '--export', 'type=nbd,id=e,node-name=disk,name=']


def tls_groups(build, directory):
    keys = pathlib.Path(directory) / 'keys'
    keys.mkdir()
    key = keys / 'keys.psk'
    subprocess.run(['psktool', '-u', 'bench', '-p', key], check=True, stdout=subprocess.DEVNULL)
    commands = {name: tls_storage_daemon(path, keys) for name, path in servers.daemons(build).items()}
    commands['nbdkit'] = lambda sock, image: ['nbdkit', '-f', '-U', sock, '--tls=require', f'--tls-psk={key}', 'file', image]
    table = {f'TLS, sequential read, {count} connection{"s" if count > 1 else ""}': TlsCopy(key, count) for count in (1, 4)}
    yield 'tls', 'full.raw', commands, table
