# SPDX-License-Identifier: LGPL-2.1-or-later
"""Converting images: ours and the peer's tool, with the same words, and both results compared with the source."""
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

import images


def cases():
    """Name to (format of the source, words for convert)."""
    table = {'raw to qcow2': ('raw', ['-O', 'qcow2']), 'qcow2 to raw': ('qcow2', ['-O', 'raw']),
             'qcow2 to qcow2': ('qcow2', ['-O', 'qcow2'])}
    for kind in 'zlib', 'zstd':
        table[f'raw to qcow2, -c {kind}'] = ('raw', ['-c', '-O', 'qcow2', '-o', f'compression_type={kind}'])
    return table


def timed(command):
    """Seconds, and seconds of CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_case(tool, source, words, target):
    kind = 'qcow2' if source.suffix == '.qcow2' else 'raw'
    if target.exists():
        target.unlink()
    result = timed([tool, 'convert', '-f', kind, *words, source, target])
    subprocess.run(['qemu-img', 'compare', source, target], check=True, stdout=subprocess.DEVNULL)
    os.sync()
    return result


def report(arguments, directory):
    chosen = {name: case for name, case in cases().items() if re.search(arguments.only, f'convert: {name}')}
    ours = pathlib.Path(arguments.build) / 'src' / 'bin' / 'ashlar-img'
    if not chosen:
        return
    raw = pathlib.Path(directory) / 'source.raw'
    images.half_full_raw(raw)
    qcow2 = raw.with_suffix('.qcow2')
    images.qemu_img('convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2)
    images.sync(qcow2)
    print('| convert 2 GiB, half data | ashlar s | CPU s | qemu s | CPU s | speed | CPU |\n|---|---:|---:|---:|---:|---:|---:|')
    for name, (kind, words) in chosen.items():
        source = raw if kind == 'raw' else qcow2
        found = {'ashlar': [], 'qemu': []}
        for _ in range(arguments.rounds):
            for tool, path in (('ashlar', ours), ('qemu', 'qemu-img')):
                found[tool].append(run_case(path, source, words, pathlib.Path(directory) / f'target-{tool}'))
                print(f'convert {name}: {tool}: {found[tool][-1]}', file=sys.stderr)
        took = {tool: statistics.median(one[0] for one in rows) for tool, rows in found.items()}
        cpu = {tool: statistics.median(one[1] for one in rows) for tool, rows in found.items()}
        print(f'| {name} | {took["ashlar"]:.2f} | {cpu["ashlar"]:.2f} | {took["qemu"]:.2f} | {cpu["qemu"]:.2f} '
              f'| {took["qemu"] / took["ashlar"]:.2f}x | {cpu["ashlar"] / cpu["qemu"]:.0%} |', flush=True)
    print()
