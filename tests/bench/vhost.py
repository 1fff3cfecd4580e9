# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is asked of vhost-user-blk exports: our own front end, tests/bench/vhost-bench.c, as the client of both daemons."""
import json
import pathlib
import subprocess

import servers


class VhostBench:
    """A run of the front end: requests, latency, and the server's CPU."""

    figure = 'iops'

    def __init__(self, build, rw, depth, queues=1, options=()):
        self.command = [str(pathlib.Path(build) / 'tests' / 'vhost-bench')]
        self.words = [rw, str(depth), str(queues)]
        self.options = list(options)

    def run(self, server, seconds):
        command = [*self.command, server.socket, *self.words, str(seconds), *self.options]
        cpu = server.cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cpu = server.cpu_s() - cpu
        assert done.returncode == 0, f'{server.name}: {command}: {done.stderr}'
        found = json.loads(done.stdout)
        return {**found, 'cpu us': cpu / max(found['requests'], 1) * 1e6}


class Floor:
    """fio straight on the image with io_uring: what there is to be had. Its CPU is the client's and all."""

    figure = 'iops'

    def __init__(self, rw, depth, jobs=1):
        self.options = [f'--rw=rand{rw}', '--bs=4k', f'--iodepth={depth}', f'--numjobs={jobs}']

    def run(self, image, seconds):
        command = ['fio', '--name=floor', '--ioengine=io_uring', f'--filename={image}', '--output-format=json',
                   '--group_reporting', '--norandommap', '--randrepeat=0', '--time_based', f'--runtime={seconds}',
                   *self.options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        job = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]
        side = job['read'] if job['read']['total_ios'] else job['write']
        cpu = (job['usr_cpu'] + job['sys_cpu']) / 100 * job['job_runtime'] / 1000
        return {'iops': side['iops'], 'cpu us': cpu / max(side['total_ios'], 1) * 1e6}


class KickFloor:
    """A server that does nothing but sleep, make one call on the image, and call back: what waking costs. Its CPU alone."""

    def __init__(self, build, rw):
        self.program, self.rw = pathlib.Path(build) / 'tests' / 'kick-floor', rw

    def run(self, image, seconds):
        done = subprocess.run([self.program, image, self.rw, str(seconds)], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


def export(path, kind, queues, iothreads, properties=''):
    """A command that serves the image; `iothreads` 0: on the main loop."""
    layers = ['--blockdev', 'driver=qcow2,node-name=disk,file=file'] if kind.endswith('.qcow2') else []
    name = 'file' if layers else 'disk'
    threads = [word for number in range(iothreads) for word in ('--object', f'iothread,id=thread{number}{properties}')]
    # The peer takes one name; the list is ours alone.
    if not iothreads:
        which = ''
    elif iothreads == 1 or 'qemu' in str(path):
        which = ',iothread=thread0'
    else:
        which = ''.join(f',iothread.{number}=thread{number}' for number in range(iothreads))
    return lambda sock, image: [
        path, *threads, '--blockdev', f'driver=file,node-name={name},filename={image}', *layers, '--export',
        f'type=vhost-user-blk,id=e,node-name=disk,writable=on,addr.type=unix,addr.path={sock},num-queues={queues}{which}']


def cases(build, queues):
    return {f'4 KiB rand{rw}, depth {depth}, {queues} queue{"s" if queues > 1 else ""}': VhostBench(build, rw, depth, queues)
            for rw in ('read', 'write') for depth in (1, 32)}


def floors(build, queues):
    kicked = {f'4 KiB {rw}, kicked and called, depth 1': KickFloor(build, rw) for rw in ('read', 'write')}
    return {**kicked, **{f'4 KiB rand{rw}, depth {depth}, {queues} queue{"s" if queues > 1 else ""}': Floor(rw, depth, queues)
                        for rw in ('read', 'write') for depth in (1, 32)}}


def groups(build):
    """(title, image kind, server commands by name, cases): each is a table."""
    for kind in 'full.raw', 'full.qcow2':
        for queues in 1, 2:
            commands = {name: export(path, kind, queues, queues) for name, path in servers.daemons(build).items()}
            yield f'vhost, {kind}, iothreads', kind, commands, cases(build, queues)
        commands = {name: export(path, kind, 1, 0) for name, path in servers.daemons(build).items()}
        yield f'vhost, {kind}, main loop', kind, commands, cases(build, 1)


def polling_groups(build):
    """What polling gains and costs: one request at a time, with none, the default and ten times that."""
    for ns in 0, 32768, 327680:
        commands = {name: export(path, 'full.raw', 1, 1, f',poll-max-ns={ns}') for name, path in servers.daemons(build).items()}
        table = {f'4 KiB rand{rw}, depth 1, poll-max-ns={ns}': VhostBench(build, rw, 1) for rw in ('read', 'write')}
        yield f'polling, poll-max-ns={ns}', 'full.raw', commands, table
