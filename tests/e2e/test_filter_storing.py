# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filters compress and preallocate in the daemon: what lies in the files, and what may change."""
import json
import os

import pytest
from harness import BUILD, Daemon, QmpError, need, raw_image, run
from job_tools import connect, serve

KIB = 1 << 10
MIB = 1 << 20


def qcow2(path, size, *options):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *options, str(path), str(size))


def checked(path):
    return json.loads(run(need('qemu-img'), 'check', '--output=json', str(path)).stdout)


def test_compress(daemon, tmp_path):
    """Writes of all sizes, the last one at an end that is no whole cluster; a plain reader gets it all back."""
    size = 2 * MIB + 5 * KIB
    qcow2(tmp_path / 'disk', size)
    one = daemon()
    one.qmp.command('blockdev-add', driver='compress', discard='unmap',
                    file={'driver': 'qcow2', 'node-name': 'q', 'file': {'driver': 'file', 'filename': f'{tmp_path}/disk'}},
                    **{'node-name': 'c'})
    node = [node for node in one.qmp.command('query-named-block-nodes') if node['node-name'] == 'c'][0]
    assert node['drv'] == 'compress' and node['image']['virtual-size'] == size
    one.stop()
    model = bytearray(size)
    script = []
    for at, (offset, length) in enumerate([(0, 64 * KIB), (100, 7), (65000, 70000), (MIB, 300 * KIB), (size - 700, 700),
                                           (65000, 70000)]):
        script += ['-c', f'write -P {at + 1} {offset} {length}']
        model[offset:offset + length] = bytes([at + 1]) * length
    script += ['-c', f'write -z {MIB + 10 * KIB} 100k']
    model[MIB + 10 * KIB:MIB + 110 * KIB] = bytes(100 * KIB)
    name = {'driver': 'compress', 'file': {'driver': 'qcow2', 'file': {'driver': 'file', 'filename': f'{tmp_path}/disk'}}}
    run(BUILD / 'compat' / 'qemu-io', *script, f'json:{json.dumps(name)}')
    run(need('qemu-img'), 'convert', '-O', 'raw', str(tmp_path / 'disk'), str(tmp_path / 'raw'))
    assert (tmp_path / 'raw').read_bytes() == model
    state = checked(tmp_path / 'disk')
    assert state['compressed-clusters'] == state['allocated-clusters'] > 5
    assert 'corruptions' not in state


def test_compress_refused(daemon, tmp_path):
    raw_image(tmp_path / 'raw', MIB)
    one = daemon()
    with pytest.raises(QmpError, match='Compression is not supported for underlying format: file'):
        one.qmp.command('blockdev-add', driver='compress', file={'driver': 'file', 'filename': f'{tmp_path}/raw'},
                        **{'node-name': 'c'})


def test_preallocate_below_qcow2(daemon, tmp_path):
    """The file runs ahead of the image, and is cut when the last writer goes, which need not be the end of the node."""
    qcow2(tmp_path / 'disk', 64 * MIB)
    one = daemon()
    one.qmp.command('blockdev-add', driver='qcow2', file={
        'driver': 'preallocate', 'prealloc-align': MIB, 'prealloc-size': 16 * MIB,
        'file': {'driver': 'file', 'filename': f'{tmp_path}/disk'}}, **{'node-name': 'q'})
    client = connect(serve(one.qmp, tmp_path / 'nbd', 'q'))
    client.pwrite(b'x' * MIB, 0)
    ahead = os.stat(tmp_path / 'disk').st_size
    assert ahead >= 17 * MIB and not ahead % MIB
    client.pwrite(b'y' * MIB, MIB)
    assert os.stat(tmp_path / 'disk').st_size == ahead
    client.flush()
    client.shutdown()
    one.stop()
    assert os.stat(tmp_path / 'disk').st_size < 4 * MIB
    assert 'corruptions' not in checked(tmp_path / 'disk')
    run(need('qemu-io'), '-c', 'read -P 120 0 1M', '-c', 'read -P 121 1M 1M', str(tmp_path / 'disk'))


def test_preallocate_survives_a_kill(tmp_path):
    qcow2(tmp_path / 'disk', 64 * MIB)
    one = Daemon(tmp_path)
    one.qmp.command('blockdev-add', driver='qcow2', file={
        'driver': 'preallocate', 'file': {'driver': 'file', 'filename': f'{tmp_path}/disk'}}, **{'node-name': 'q'})
    client = connect(serve(one.qmp, tmp_path / 'nbd', 'q'))
    client.pwrite(b'x' * MIB, 0)
    client.flush()
    one.kill()
    assert os.stat(tmp_path / 'disk').st_size >= 128 * MIB
    assert 'corruptions' not in checked(tmp_path / 'disk')
    run(need('qemu-io'), '-c', 'read -P 120 0 1M', str(tmp_path / 'disk'))


def test_preallocate_reopened(daemon, tmp_path):
    raw_image(tmp_path / 'raw', 0)
    one = daemon()
    options = {'driver': 'preallocate', 'node-name': 'p', 'prealloc-align': MIB,
               'file': {'driver': 'file', 'filename': f'{tmp_path}/raw'}}
    one.qmp.command('blockdev-add', **options)
    one.qmp.command('blockdev-reopen', options=[{**options, 'prealloc-align': 512, 'prealloc-size': MIB}])
    with pytest.raises(QmpError, match='prealloc-align parameter of preallocate filter is not aligned to 512'):
        one.qmp.command('blockdev-reopen', options=[{**options, 'prealloc-align': 513}])
    one.qmp.command('blockdev-reopen', options=[{**options, 'read-only': True}])
    one.qmp.command('blockdev-del', **{'node-name': 'p'})
