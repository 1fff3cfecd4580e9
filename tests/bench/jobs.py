# SPDX-License-Identifier: LGPL-2.1-or-later
"""Background jobs, ours and the peer's: how fast they copy, what they cost, and what a guest feels meanwhile."""
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import time

import images
import servers

GUEST_SPEED = 256 << 20  # bytes a second of a job beside which a guest is measured: the same for both


class Daemon:
    """A storage daemon that is told what to do by QMP. In `events` what it has said since."""

    def __init__(self, name, path, directory):
        self.name = name
        self.directory = pathlib.Path(directory)
        self.nbd = self.directory / f'{name}-nbd.sock'
        qmp = self.directory / f'{name}-qmp.sock'
        for left in self.nbd, qmp:
            left.unlink(missing_ok=True)
        self.process = subprocess.Popen([str(path), '--chardev', f'socket,id=c,path={qmp},server=on,wait=off', '--monitor', 'chardev=c',
                                         '--nbd-server', f'addr.type=unix,addr.path={self.nbd},max-connections=16'])
        self.socket = socket.socket(socket.AF_UNIX)
        while self.socket.connect_ex(str(qmp)):
            assert self.process.poll() is None, f'{path} ended'
            time.sleep(0.001)
        self.lines = self.socket.makefile('r')
        self.events = []
        self.lines.readline()
        self.command('qmp_capabilities')

    def command(self, name, arguments=None):
        self.socket.sendall(json.dumps({'execute': name, **({'arguments': arguments} if arguments else {})}).encode())
        while True:
            message = json.loads(self.lines.readline())
            if 'return' in message:
                return message['return']
            assert 'error' not in message, f'{self.name}: {name}: {message}'
            self.events.append(message)

    def wait_for_stage(self, job, *wanted):
        while True:
            event = self.events.pop(0) if self.events else json.loads(self.lines.readline())
            data = event.get('data', {})
            assert 'error' not in data, f'{self.name}: {event}'
            if event['event'] == 'JOB_STATUS_CHANGE' and data['id'] == job and data['status'] in wanted:
                return data['status']

    def cpu_s(self):
        fields = pathlib.Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def add(self, name, path, backing=None):
        """An image as a node, by the end of its name its format."""
        if path.suffix == '.raw':
            options = {'driver': 'file', 'node-name': name, 'filename': str(path), 'discard': 'unmap'}
        else:
            options = {'driver': 'qcow2', 'node-name': name, 'backing': backing, 'discard': 'unmap',
                       'file': {'driver': 'file', 'filename': str(path), 'discard': 'unmap'}}
        self.command('blockdev-add', options)

    def export(self, node):
        self.command('block-export-add', {'type': 'nbd', 'id': 'e', 'node-name': node, 'name': 'x', 'writable': True})
        return f'nbd+unix:///x?socket={self.nbd}'

    def stop(self):
        self.process.terminate()
        self.process.wait()


# --- how fast ---


class Stock:
    """Sources, each made once; and targets, made anew."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    def source(self, kind):
        path = self.directory / f'jobs-{kind}'
        if path.exists():
            return path
        raw = path.with_suffix('.raw')
        if not raw.exists() and kind.startswith('full'):
            images.full_raw(raw)
            with open(raw, 'r+b') as image:
                image.truncate(images.CONVERTED_BYTES)
                subprocess.run(['dd', f'if={raw}', f'of={raw}', 'bs=1M', f'seek={images.DISK_BYTES >> 20}', f'count={images.DISK_BYTES >> 20}',
                                'conv=notrunc', 'status=none'], check=True)
        elif not raw.exists():
            images.half_full_raw(raw)
        if path != raw:
            images.qemu_img('convert', '-f', 'raw', '-O', 'qcow2', raw, path)
        images.sync(path)
        return path

    def target(self, name, backing=None):
        path = self.directory / name
        path.unlink(missing_ok=True)
        if path.suffix == '.raw':
            with open(path, 'wb') as image:
                image.truncate(images.CONVERTED_BYTES)
        else:
            images.qemu_img('create', '-f', 'qcow2', *(['-b', backing, '-F', 'qcow2'] if backing else []), path,
                            *([] if backing else [images.CONVERTED_BYTES]))
        return path


def run_copy(daemon, stock, command, kind):
    """What timed_job() says, and what was copied where."""
    source = stock.source(kind)
    target = stock.target(f'jobs-target{source.suffix}')
    daemon.add('source', source)
    daemon.add('target', target)
    result = timed_job(daemon, target, command, {'device': 'source', 'target': 'target', 'sync': 'full'})
    return result, (source, target)


def run_stream(daemon, stock, _command, kind):
    source = stock.source(kind)
    overlay = stock.target('jobs-overlay.qcow2', source)
    daemon.add('base', source)
    daemon.add('top', overlay, 'base')
    return timed_job(daemon, overlay, 'block-stream', {'device': 'top'}), (source, overlay)


def run_commit(daemon, stock, _command, kind):
    source = stock.source(kind)
    base = stock.target('jobs-base.qcow2')
    overlay = stock.directory / 'jobs-commit.qcow2'
    subprocess.run(['cp', '--sparse=always', source, overlay], check=True)
    images.qemu_img('rebase', '-u', '-f', 'qcow2', '-b', base, '-F', 'qcow2', overlay)
    images.sync(overlay)
    daemon.add('base', base)
    daemon.add('top', overlay, 'base')
    result = timed_job(daemon, base, 'block-commit', {'device': 'top'})
    overlay.unlink()
    return result, (source, base)


def timed_job(daemon, target, command, arguments):
    """Seconds and seconds of CPU until the job says that all is copied, and seconds until the disk has it, too."""
    cpu = daemon.cpu_s()
    began = time.perf_counter()
    daemon.command(command, {'job-id': 'j', 'auto-dismiss': False, **arguments})
    stage = daemon.wait_for_stage('j', 'ready', 'concluded')
    took = time.perf_counter() - began
    cpu = daemon.cpu_s() - cpu
    images.sync(target)
    on_disk = time.perf_counter() - began
    daemon.command('job-cancel' if stage == 'ready' else 'job-dismiss', {'id': 'j'})
    if stage == 'ready':
        daemon.wait_for_stage('j', 'concluded')
    return took, cpu, on_disk


def copy_cases():
    """Name to (how, command, source)."""
    table = {}
    for kind in 'full.raw', 'half.raw', 'full.qcow2', 'half.qcow2':
        for job in 'mirror', 'backup':
            table[f'{job}, {kind} to {kind[5:]}'] = (run_copy, f'blockdev-{job}', kind)
    for kind in 'full.qcow2', 'half.qcow2':
        table[f'stream, {kind}'] = (run_stream, None, kind)
        table[f'commit, {kind}'] = (run_commit, None, kind)
    return table


def report_copies(arguments, stock, chosen):
    print('| job, 2 GiB | ashlar s | CPU s | on disk s | qemu s | CPU s | on disk s | speed | CPU | speed to the disk |\n'
          '|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|')
    for name, (run, command, kind) in chosen.items():
        found = {'ashlar': [], 'qemu': []}
        for _ in range(arguments.rounds):
            for server, path in servers.daemons(arguments.build).items():
                daemon = Daemon(server, path, stock.directory)
                try:
                    result, (source, target) = run(daemon, stock, command, kind)
                finally:
                    daemon.stop()
                subprocess.run(['qemu-img', 'compare', source, target], check=True, stdout=subprocess.DEVNULL)
                target.unlink()
                os.sync()
                found[server].append(result)
                print(f'jobs {name}: {server}: {result}', file=sys.stderr)
        print_row(name, found)
    print()


def print_row(name, found):
    took, cpu, on_disk = ({server: statistics.median(one[figure] for one in rows) for server, rows in found.items()} for figure in range(3))
    cells = ' | '.join(f'{took[server]:.2f} | {cpu[server]:.2f} | {on_disk[server]:.2f}' for server in ('ashlar', 'qemu'))
    print(f'| {name} | {cells} | {took["qemu"] / took["ashlar"]:.2f}x | {cpu["ashlar"] / max(cpu["qemu"], 1e-9):.0%} '
          f'| {on_disk["qemu"] / on_disk["ashlar"]:.2f}x |', flush=True)


# --- what a guest feels ---


def start_job(daemon, stock, job):
    """The node that the guest writes to."""
    source = stock.directory / f'{daemon.name}-guest.raw'
    subprocess.run(['cp', '--sparse=always', stock.source('full.raw'), source], check=True)
    images.sync(source)
    daemon.add('source', source)
    daemon.add('target', stock.target(f'{daemon.name}-guest-target.raw'))
    if job == 'copy-before-write':
        daemon.command('blockdev-add', {'driver': 'copy-before-write', 'node-name': 'top', 'file': 'source', 'target': 'target'})
        return 'top'
    return 'source'


def run_guest(daemon, stock, job, depth, seconds):
    """Of random 4 KiB writes: p99 and mean in µs."""
    uri = daemon.export(start_job(daemon, stock, job))
    if job in ('mirror', 'backup'):
        daemon.command(f'blockdev-{job}', {'job-id': 'j', 'device': 'source', 'target': 'target', 'sync': 'full', 'speed': GUEST_SPEED})
    fio = ['fio', '--name=guest', '--ioengine=nbd', f'--uri={uri}', '--output-format=json', '--rw=randwrite', '--bs=4k', f'--iodepth={depth}',
           f'--size={images.CONVERTED_BYTES}', '--randrepeat=1', '--time_based', f'--runtime={seconds}']
    done = subprocess.run(fio, capture_output=True, text=True, check=True)
    write = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]['write']
    for left in 'guest.raw', 'guest-target.raw':
        (stock.directory / f'{daemon.name}-{left}').unlink()
    return write['clat_ns']['percentile']['99.000000'] / 1000, write['clat_ns']['mean'] / 1000


def report_guests(arguments, stock, chosen):
    print('| guest, 4 KiB writes | ashlar p99 µs | mean | qemu p99 µs | mean | p99 | mean |\n|---|---:|---:|---:|---:|---:|---:|')
    for name, (job, depth) in chosen.items():
        found = {'ashlar': [], 'qemu': []}
        for _ in range(arguments.rounds):
            for server, path in servers.daemons(arguments.build).items():
                daemon = Daemon(server, path, stock.directory)
                try:
                    found[server].append(run_guest(daemon, stock, job, depth, min(arguments.seconds, 6)))
                finally:
                    daemon.stop()
                print(f'jobs {name}: {server}: {found[server][-1]}', file=sys.stderr)
        p99, mean = ({server: statistics.median(one[figure] for one in rows) for server, rows in found.items()} for figure in (0, 1))
        print(f'| {name} | {p99["ashlar"]:.0f} | {mean["ashlar"]:.1f} | {p99["qemu"]:.0f} | {mean["qemu"]:.1f} '
              f'| {p99["ashlar"] / p99["qemu"]:.0%} | {mean["ashlar"] / mean["qemu"]:.0%} |', flush=True)
    print()


def guest_cases():
    return {f'guest beside {job}, depth {depth}': (job, depth) for job in ('nothing', 'mirror', 'backup', 'copy-before-write') for depth in (1, 16)}


# --- many of them ---


def timed(call):
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def run_many(daemon):
    """Milliseconds by what was done."""
    found = {}
    made = 0

    def add_nodes(until):
        nonlocal made
        while made < until:
            daemon.command('blockdev-add', {'driver': 'null-co', 'node-name': f'n{made}', 'size': 1 << 30})
            made += 1

    for count in 1000, 5000, 10000:
        add_nodes(count - 200)
        found[f'blockdev-add, {count} nodes'] = timed(lambda upto=count: add_nodes(upto)) / 200 * 1000
        found[f'query-named-block-nodes (flat), {count} nodes'] = timed(
            lambda: daemon.command('query-named-block-nodes', {'flat': True})) * 1000
    for count in 500, 1000:
        def add_bitmaps(upto=count):
            for number in range(upto - 500, upto):
                daemon.command('block-dirty-bitmap-add', {'node': 'n0', 'name': f'b{number}'})
        found[f'block-dirty-bitmap-add, {count} bitmaps'] = timed(add_bitmaps) / 500 * 1000
    return found


def report_many(arguments, stock):
    found = {}
    for server, path in servers.daemons(arguments.build).items():
        daemon = Daemon(server, path, stock.directory)
        try:
            found[server] = run_many(daemon)
        finally:
            daemon.stop()
    print('| ms a command | ashlar | qemu |\n|---|---:|---:|')
    for name in found['ashlar']:
        print(f'| {name} | {found["ashlar"][name]:.3f} | {found["qemu"][name]:.3f} |')
    print(flush=True)


def report(arguments, directory):
    stock = Stock(directory)
    for cases, reporter in (copy_cases(), report_copies), (guest_cases(), report_guests):
        chosen = {name: case for name, case in cases.items() if re.search(arguments.only, f'jobs: {name}')}
        if chosen:
            reporter(arguments, stock, chosen)
    if re.search(arguments.only, 'jobs: many'):
        report_many(arguments, stock)
