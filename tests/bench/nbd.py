# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is asked of NBD servers: fio's nbd engine, and nbdcopy."""
import json
import subprocess
import time

import images


class Fio:
    """A run of fio's nbd engine: requests and the server's CPU."""

    def __init__(self, rw, block, depth, jobs=1, size=images.DISK_BYTES, once=False):
        self.figure = 'iops' if block == '4k' else 'MiB/s'
        self.once = once
        self.options = [f'--rw={rw}', f'--bs={block}', f'--iodepth={depth}', f'--numjobs={jobs}', f'--size={size}']

    def run(self, server, seconds):
        command = ['fio', '--name=bench', '--ioengine=nbd', f'--uri=nbd+unix:///?socket={server.socket}',
                   '--output-format=json', '--group_reporting', '--norandommap', '--randrepeat=0', *self.options]
        if not self.once:
            command += ['--time_based', f'--runtime={seconds}']
        cpu = server.cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cpu = server.cpu_s() - cpu
        assert done.returncode == 0, f'{server.name}: {command}: {done.stdout}{done.stderr}'
        job = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]
        side = job['read'] if job['read']['total_ios'] else job['write']
        return {'iops': side['iops'], 'MiB/s': side['bw_bytes'] / 2**20, 'cpu us': cpu / max(side['total_ios'], 1) * 1e6,
                'p99 us': side['clat_ns'].get('percentile', {}).get('99.000000', 0) / 1000}


class NbdCopy:
    """nbdcopy of the whole disk to nowhere, in requests of 256 KiB."""

    figure = 'MiB/s'

    def run(self, server, _seconds):
        cpu = server.cpu_s()
        began = time.perf_counter()
        subprocess.run(['nbdcopy', f'nbd+unix:///?socket={server.socket}', 'null:'], check=True)
        took = time.perf_counter() - began
        return {'MiB/s': images.DISK_BYTES / 2**20 / took, 'cpu us': (server.cpu_s() - cpu) * 1e6 / (images.DISK_BYTES / 2**18)}


def full_cases(depths):
    table = {}
    for rw in 'randread', 'randwrite':
        for depth in depths:
            table[f'4 KiB {rw}, depth {depth}'] = Fio(rw, '4k', depth)
        table[f'4 KiB {rw}, 4 connections x 32'] = Fio(rw, '4k', 32, jobs=4)
    for rw in 'read', 'write':
        table[f'1 MiB {rw}, depth 8'] = Fio(rw, '1m', 8)
    table['nbdcopy to null:'] = NbdCopy()
    return table


def cases():
    """Image kind to name to case. What allocates comes first on its image."""
    return {
        'full.raw': full_cases((1, 32, 128)),
        'full.qcow2': full_cases((1, 32)),
        'empty.qcow2': {'1 MiB write, depth 8, allocating': Fio('write', '1m', 8, size=2 << 30, once=True),
                        '4 KiB randwrite, depth 32, allocating': Fio('randwrite', '4k', 32, size=images.EMPTY_BYTES)},
        'sparse.qcow2': {'4 KiB randread over 1 TiB, depth 1': Fio('randread', '4k', 1, size=images.SPARSE_BYTES),
                         '4 KiB randread over 1 TiB, depth 32': Fio('randread', '4k', 32, size=images.SPARSE_BYTES)},
    }
