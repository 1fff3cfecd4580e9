# SPDX-License-Identifier: LGPL-2.1-or-later
"""FUSE exports: ours with one queue and with two, the peer's, and the floor, which is the image's file itself."""
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import images
import servers

CASES = {
    '4 KiB randread, depth 1': ('iops', ['--rw=randread', '--bs=4k', '--ioengine=psync']),
    '4 KiB randread, depth 32': ('iops', ['--rw=randread', '--bs=4k', '--ioengine=libaio', '--iodepth=32', '--direct=1']),
    '4 KiB randwrite, depth 1': ('iops', ['--rw=randwrite', '--bs=4k', '--ioengine=psync']),
    '4 KiB randwrite, depth 32': ('iops', ['--rw=randwrite', '--bs=4k', '--ioengine=libaio', '--iodepth=32', '--direct=1']),
    '1 MiB read': ('MiB/s', ['--rw=read', '--bs=1m', '--ioengine=psync']),
    '1 MiB read, depth 8': ('MiB/s', ['--rw=read', '--bs=1m', '--ioengine=libaio', '--iodepth=8', '--direct=1']),
    '1 MiB write': ('MiB/s', ['--rw=write', '--bs=1m', '--ioengine=psync']),
}
KINDS = 'full.raw', 'full.qcow2'


def table(build):
    """Name to (path of the daemon, options of the export); None: no daemon."""
    paths = servers.daemons(build)
    return {'ashlar': (paths['ashlar'], ',iothread=t0'),
            'ashlar, 2 queues': (paths['ashlar'], ',iothread.0=t0,iothread.1=t1'),
            'qemu': (paths['qemu'], ',iothread=t0'), 'file': None}


class Mounted:
    """The file that programs see, and the CPU of who serves it."""

    def __init__(self, served, directory, image):
        self.process = None
        self.path = image
        if not served:
            return
        self.path = pathlib.Path(directory) / 'mounted'
        self.path.write_bytes(b'')
        device = self.path.stat().st_dev
        layers = ['--blockdev', 'driver=qcow2,node-name=disk,file=file'] if image.name.endswith('.qcow2') else []
        self.process = subprocess.Popen([
            served[0], '--object', 'iothread,id=t0', '--object', 'iothread,id=t1', '--blockdev',
            f'driver=file,node-name={"file" if layers else "disk"},filename={image}', *layers, '--export',
            f'type=fuse,id=e,node-name=disk,mountpoint={self.path},writable=on{served[1]}'], stdin=subprocess.DEVNULL)
        began = time.perf_counter()
        while self.path.stat().st_dev == device:
            assert self.process.poll() is None and time.perf_counter() - began < 20, f'{served[0]} has mounted nothing'
            time.sleep(0.01)

    def cpu_s(self):
        if not self.process:
            return 0
        fields = pathlib.Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=20)


def fio(mounted, words, seconds):
    command = ['fio', '--name=bench', f'--filename={mounted.path}', f'--size={images.DISK_BYTES}', '--norandommap', '--randrepeat=0',
               '--output-format=json', '--time_based', f'--runtime={seconds}', *words]
    cpu = mounted.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    cpu = mounted.cpu_s() - cpu
    assert done.returncode == 0, f'{command}: {done.stdout}{done.stderr}'
    job = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]
    side = job['read'] if job['read']['total_ios'] else job['write']
    return {'iops': side['iops'], 'MiB/s': side['bw_bytes'] / 2**20, 'cpu us': cpu / max(side['total_ios'], 1) * 1e6}


def measure(arguments, stock, kind, chosen):
    served = {name: one for name, one in table(arguments.build).items()
              if name != 'file' or kind.endswith('.raw')}
    found = {case: {name: [] for name in served} for case in chosen}
    for number in range(arguments.rounds):
        for name, one in served.items():
            image = stock.fresh(kind, 'fuse')
            mounted = Mounted(one, stock.directory, image)
            try:
                for case in chosen:
                    found[case][name].append(fio(mounted, CASES[case][1], arguments.seconds))
                    print(f'round {number + 1} {name}: {case}: {found[case][name][-1]}', file=sys.stderr)
            finally:
                mounted.stop()
                image.unlink()
    return found


def report(arguments, directory):
    for kind in KINDS:
        chosen = [case for case in CASES if re.search(arguments.only, f'fuse {kind}: {case}')]
        if not chosen:
            continue
        found = measure(arguments, images.Images(directory), kind, chosen)
        names = list(found[chosen[0]])
        print(f'FUSE, {kind}:\n\n| case | ' + ' | '.join(f'{name} | µs CPU' for name in names) + ' | speed vs qemu | CPU vs qemu |')
        print('|---|' + '---:|' * (2 * len(names) + 2))
        for case in chosen:
            def median(name, figure):
                return statistics.median(one[figure] for one in found[case][name])
            figure = CASES[case][0]
            cells = [f'{median(name, figure):,.0f} | {median(name, "cpu us"):.1f}' for name in names]
            print(f'| {case} | ' + ' | '.join(cells) + f' | {median("ashlar", figure) / median("qemu", figure):.2f}x '
                  f'| {median("ashlar", "cpu us") / max(median("qemu", "cpu us"), 1e-9):.0%} |')
        print(flush=True)
