# SPDX-License-Identifier: LGPL-2.1-or-later
"""What clients do through the block layer: data where it belongs, sizes, events, statistics, changes under load."""
import json
import os
import pathlib
import random
import re
import subprocess

import pytest

from harness import QmpError, background, need, raw_image, run, wait_for

MIB = 1 << 20


@pytest.fixture
def serve(daemon, tmp_path):
    """Starts a daemon with an NBD server; its QMP session."""
    def start(*arguments):
        return daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock', *arguments).qmp
    return start


def uri(tmp_path, name):
    return f'nbd+unix:///{name}?socket={tmp_path}/nbd.sock'


def qemu_io(tmp_path, name, *commands):
    done = run(need('qemu-io'), '-f', 'raw', *[word for command in commands for word in ('-c', command)],
               uri(tmp_path, name))
    assert 'failed' not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def export(qmp, node, name=None):
    qmp.command('block-export-add', type='nbd', id=f'export-{name or node}', node_name=node, name=name or node,
                writable=True)


def unexport(qmp, node):
    qmp.command('block-export-del', id=f'export-{node}', mode='hard')
    qmp.event('BLOCK_EXPORT_DELETED')


def stats(qmp, node):
    return {entry['node-name']: entry for entry in qmp.command('query-blockstats', query_nodes=True)}[node]


def test_block_io_window(serve, tmp_path):
    """A window shows and changes its part of the file, and nothing beside it."""
    image = raw_image(tmp_path / 'disk', MIB, b'\xaa')
    qmp = serve()
    qmp.command('blockdev-add', driver='raw', node_name='w', offset=1536, size=8192,
                file={'driver': 'file', 'filename': str(image)})
    export(qmp, 'w')
    qemu_io(tmp_path, 'w', 'read -P 0xaa 0 8192', 'write -P 0x55 0 8192', 'write -P 0x11 100 1000', 'write -z 4096 512')
    expected = bytearray(b'\xaa' * MIB)
    expected[1536:1536 + 8192] = b'\x55' * 8192
    expected[1636:2636] = b'\x11' * 1000
    expected[1536 + 4096:1536 + 4608] = bytes(512)
    unexport(qmp, 'w')
    assert image.read_bytes() == expected


@pytest.mark.parametrize('direct', [False, True])
def test_block_io_unaligned(serve, tmp_path, direct):
    """Parts of blocks that many requests share, with and without the page cache."""
    image = raw_image(tmp_path / 'disk', MIB, bytes(range(256)))
    qmp = serve()
    qmp.command('blockdev-add', driver='file', node_name='f', filename=str(image), cache={'direct': direct})
    export(qmp, 'f')
    expected = bytearray(image.read_bytes())
    commands = []
    chance = random.Random(7)
    for number in range(200):
        # Requests at the same time do not overlap, but meet in blocks.
        offset = number * 700 + chance.randrange(300)
        length = chance.randrange(1, 400)
        commands.append(f'aio_write -q -P {number % 255} {offset} {length}')
        expected[offset:offset + length] = bytes([number % 255]) * length
    qemu_io(tmp_path, 'f', *commands, 'aio_flush')
    unexport(qmp, 'f')
    qmp.command('blockdev-del', node_name='f')
    assert image.read_bytes() == expected


def test_block_io_discard_passes_to_inline_child(serve, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB, b'x')
    qmp = serve()
    for name, discard in ('keeps', 'ignore'), ('punches', 'unmap'):
        qmp.command('blockdev-add', driver='raw', node_name=name, discard=discard,
                    file={'driver': 'file', 'filename': str(image)})
        export(qmp, name)
        qemu_io(tmp_path, name, 'discard 0 512k')
        unexport(qmp, name)
        qmp.command('blockdev-del', node_name=name)
        data = image.read_bytes()
        assert data[512 << 10:] == b'x' * (512 << 10)
        assert data[:512 << 10] == (b'x' * (512 << 10) if discard == 'ignore' else bytes(512 << 10))


def test_block_io_write_threshold(serve, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = serve('--blockdev', f'driver=file,node-name=f,filename={image}', '--blockdev',
                'driver=raw,node-name=r,file=f')
    export(qmp, 'r')
    qmp.command('block-set-write-threshold', node_name='f', write_threshold=65536)
    qemu_io(tmp_path, 'r', 'write 0 64k')
    assert {node['node-name']: node['write_threshold'] for node in qmp.command('query-named-block-nodes')} == \
        {'f': 65536, 'r': 0}
    qemu_io(tmp_path, 'r', 'write 60k 8k', 'write 70k 8k')
    event = qmp.event('BLOCK_WRITE_THRESHOLD')
    assert event['data'] == {'node-name': 'f', 'amount-exceeded': 4096, 'write-threshold': 65536}
    assert all(node['write_threshold'] == 0 for node in qmp.command('query-named-block-nodes'))
    assert not [event for event in qmp.events if event['event'] == 'BLOCK_WRITE_THRESHOLD']
    with pytest.raises(QmpError, match="Device 'nobody' not found"):
        qmp.command('block-set-write-threshold', node_name='nobody', write_threshold=1)


def test_block_io_resize(serve, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = serve('--blockdev', f'driver=file,node-name=f,filename={image}', '--blockdev',
                'driver=raw,node-name=r,file=f')
    qmp.command('block_resize', node_name='r', size=3 * MIB)
    assert image.stat().st_size == 3 * MIB
    sizes = {node['node-name']: node['image']['virtual-size'] for node in qmp.command('query-named-block-nodes')}
    assert sizes == {'f': 3 * MIB, 'r': 3 * MIB}
    export(qmp, 'r')
    qemu_io(tmp_path, 'r', 'write 2M 1M')
    unexport(qmp, 'r')
    for size, message in (-1, "Parameter 'size' expects a >0 size"), \
            ((1 << 63) - 1, 'offset(9223372036854775807) exceeds maximum(9223372035781033984)'):
        with pytest.raises(QmpError) as caught:
            qmp.command('block_resize', node_name='r', size=size)
        assert caught.value.desc == message
    for arguments in {'node-name': 'nobody', 'size': 1}, {'device': 'nobody', 'size': 1}, {'size': 1}:
        device, name = arguments.get('device', ''), arguments.get('node-name', '')
        assert qmp.execute('block_resize', arguments)['error']['desc'] == \
            f"Cannot find device='{device}' nor node-name='{name}'"
    qmp.command('block_resize', node_name='r', size=0)
    assert image.stat().st_size == 0


def test_block_io_statistics(serve, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = serve('--blockdev', f'driver=file,node-name=f,filename={image},discard=unmap', '--blockdev',
                'driver=raw,node-name=r,file=f,discard=unmap')
    assert 'idle_time_ns' not in stats(qmp, 'r')['stats']
    export(qmp, 'r')
    qemu_io(tmp_path, 'r', 'write 64k 64k', 'read 0 128k', 'discard 0 4k', 'flush')
    for name in 'r', 'f':
        seen = stats(qmp, name)['stats']
        assert seen['wr_bytes'] == 65536 and seen['wr_operations'] >= 1
        assert seen['rd_bytes'] >= 131072 and seen['rd_operations'] >= 1
        assert seen['unmap_bytes'] == 4096 and seen['unmap_operations'] == 1
        assert seen['flush_operations'] >= 1
        assert seen['wr_highest_offset'] == 131072
        assert seen['failed_wr_operations'] == seen['failed_rd_operations'] == 0
    seen = stats(qmp, 'r')
    assert seen['stats']['wr_total_time_ns'] > 0 and seen['stats']['idle_time_ns'] >= 0
    assert seen['parent']['node-name'] == 'f'
    assert seen['parent']['driver-specific'] == {
        'driver': 'file', 'discard-nb-ok': 1, 'discard-nb-failed': 0, 'discard-bytes-ok': 4096}


def modes(pid, image):
    """How the process has the file open: a set of 'r' and 'w'."""
    found = set()
    for link in pathlib.Path(f'/proc/{pid}/fd').iterdir():
        if os.path.realpath(link) == str(image):
            flags = re.search(r'flags:\s*(\d+)', pathlib.Path(f'/proc/{pid}/fdinfo/{link.name}').read_text())
            found.add('w' if int(flags.group(1), 8) & os.O_ACCMODE == os.O_RDWR else 'r')
    return found


def test_block_io_auto_read_only(daemon, tmp_path):
    """The file is open for writing only while somebody may write."""
    image = raw_image(tmp_path / 'disk', MIB)
    one = daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock', '--blockdev',
                 f'driver=raw,node-name=r,auto-read-only=on,file.driver=file,file.filename={image}')
    assert modes(one.pid, image) == {'r'}
    export(one.qmp, 'r')
    assert 'w' in modes(one.pid, image)
    qemu_io(tmp_path, 'r', 'write -P 3 0 4k')
    unexport(one.qmp, 'r')
    assert modes(one.pid, image) == {'r'}
    assert image.read_bytes()[:4096] == bytes([3]) * 4096


def test_block_io_read_only(serve, tmp_path):
    image = raw_image(tmp_path / 'disk', MIB)
    qmp = serve('--blockdev', f'driver=file,node-name=f,filename={image},read-only=on', '--blockdev',
                'driver=raw,node-name=r,file=f')
    with pytest.raises(QmpError, match='Cannot export read-only node as writable'):
        export(qmp, 'f')
    with pytest.raises(QmpError, match='Block node is read-only'):
        export(qmp, 'r')
    with pytest.raises(QmpError, match='Image is read-only'):
        qmp.command('block_resize', node_name='f', size=1)


def test_block_io_throttle_group_is_held(serve, tmp_path):
    qmp = serve('--object', 'throttle-group,id=group,x-iops-total=1000', '--blockdev',
                'driver=throttle,node-name=t,throttle-group=group,file.driver=null-co,file.read-zeroes=on')
    export(qmp, 't')
    qemu_io(tmp_path, 't', 'read -P 0 0 1M', 'write 0 1M', 'discard 0 1M', 'flush')
    with pytest.raises(QmpError, match="object 'group' is in use, can not be deleted"):
        qmp.command('object-del', id='group')
    with pytest.raises(QmpError, match="Throttle group 'nobody' does not exist"):
        qmp.command('blockdev-add', driver='throttle', node_name='x', throttle_group='nobody', file='t')
    unexport(qmp, 't')
    qmp.command('blockdev-del', node_name='t')
    qmp.command('object-del', id='group')


def test_block_io_iothread_is_accepted(serve, tmp_path):
    qmp = serve('--object', 'iothread,id=io', '--object', 'secret,id=s,data=x', '--blockdev',
                'driver=null-co,node-name=n')
    qmp.command('x-blockdev-set-iothread', node_name='n', iothread='io')
    qmp.command('x-blockdev-set-iothread', node_name='n', iothread=None)
    for name, iothread, message in ('n', 's', 'Cannot find iothread s'), ('n', 'x', 'Cannot find iothread x'), \
            ('x', 'io', "Failed to find node with node-name='x'"):
        with pytest.raises(QmpError) as caught:
            qmp.command('x-blockdev-set-iothread', node_name=name, iothread=iothread)
        assert caught.value.desc == message
    export(qmp, 'n')
    with pytest.raises(QmpError, match='could be in use'):
        qmp.command('x-blockdev-set-iothread', node_name='n', iothread='io')
    qmp.command('x-blockdev-set-iothread', node_name='n', iothread='io', force=True)


def random_step(qmp, chance, images):
    """One change of the graph: it works or fails with a message, and the session goes on."""
    names = [f'n{i}' for i in range(12)]
    name = chance.choice(names)
    kind = chance.randrange(8)
    if kind < 3:
        options = {'driver': 'raw', 'node-name': name, 'file': chance.choice(
            [chance.choice(names), 'base', {'driver': 'file', 'filename': chance.choice(images)}])}
        if chance.random() < 0.3:
            options['offset'] = chance.choice([0, 512, 4096, 1 << 40])
        if chance.random() < 0.2:
            options['read-only'] = True
        reply = qmp.execute('blockdev-add', options)
    elif kind < 5:
        reply = qmp.execute('blockdev-del', {'node-name': name})
    elif kind == 5:
        reply = qmp.execute('block_resize', {'node-name': chance.choice([*names, 'base']),
                                             'size': chance.choice([MIB, MIB + 4096, 2 * MIB])})
    elif kind == 6:
        reply = qmp.execute('block-export-add', {'type': 'nbd', 'id': f'e-{name}', 'node-name': name, 'name': name,
                                                 'writable': chance.random() < 0.5})
    else:
        reply = qmp.execute('block-export-del', {'id': f'e-{name}', 'mode': 'hard'})
    assert 'return' in reply or reply['error']['desc'], reply


@pytest.mark.parametrize('seed', range(3))
def test_block_io_random_changes_under_load(serve, tmp_path, seed):
    """M5: Nodes and exports come and go at random beside an export that is read and written all the time."""
    images = [str(raw_image(tmp_path / f'disk{i}', MIB)) for i in range(3)]
    base = raw_image(tmp_path / 'base', MIB)
    qmp = serve('--object', 'iothread,id=io', '--blockdev', f'driver=file,node-name=base,filename={base}')
    qmp.command('block-export-add', type='nbd', id='load', node_name='base', writable=True, iothread='io')
    chance = random.Random(seed)
    load = [need('fio'), '--name=load', '--ioengine=nbd', f'--uri={uri(tmp_path, "base")}', '--rw=randrw', '--bs=4k',
            '--iodepth=16', '--size=512k', '--time_based', '--runtime=3600', '--output-format=json']
    with background(*load, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_for(lambda: stats(qmp, 'base')['stats']['wr_operations'] > 100, 'the load to start')
        for _ in range(250):
            random_step(qmp, chance, images)
        before = stats(qmp, 'base')['stats']
        wait_for(lambda: stats(qmp, 'base')['stats']['wr_operations'] > before['wr_operations'] + 100,
                 'the load to go on')
        assert process.poll() is None, process.stderr.read()
    after = stats(qmp, 'base')['stats']
    assert after['failed_rd_operations'] == after['failed_wr_operations'] == 0
    json.dumps(qmp.command('x-debug-query-block-graph'))


def test_block_io_latencies(serve, tmp_path):
    """Histograms and intervals: set up, counted from every loop and below a job's filter, begun anew, taken away."""
    qmp = serve('--object', 'iothread,id=t')
    delay = 20 * 10**6
    qmp.command('blockdev-add', driver='null-co', node_name='slow', size=MIB, latency_ns=delay)
    qmp.command('blockdev-add', driver='null-co', node_name='copy', size=MIB)
    qmp.command('block-export-add', type='nbd', id='e', node_name='slow', name='slow', writable=True, iothread='t')
    assert stats(qmp, 'slow')['stats']['timed_stats'] == []
    assert 'rd_latency_histogram' not in stats(qmp, 'slow')['stats']
    limits = [1000, delay // 2, 10**12]
    qmp.command('block-latency-histogram-set', id='slow', boundaries=limits, boundaries_flush=[10**12])
    qmp.command('x-block-latency-intervals-set', id='slow', intervals=[100000, 3600])
    qmp.command('blockdev-backup', job_id='j', device='slow', target='copy', sync='none')
    qemu_io(tmp_path, 'slow', 'read 0 4k', 'read 4k 4k', 'write 0 4k', 'flush')
    qmp.command('job-cancel', id='j')
    shown = stats(qmp, 'slow')['stats']
    reads = shown['rd_latency_histogram']
    assert reads == {'boundaries': limits, 'bins': [0, 0, sum(reads['bins']), 0]} and sum(reads['bins']) >= 2
    assert sum(shown['wr_latency_histogram']['bins']) == 1 and shown['wr_latency_histogram']['bins'][2] == 1
    assert shown['flush_latency_histogram']['boundaries'] == [10**12]
    assert len(shown['flush_latency_histogram']['bins']) == 2
    assert [timed['interval_length'] for timed in shown['timed_stats']] == [100000, 3600]
    for timed in shown['timed_stats']:
        assert delay <= timed['min_rd_latency_ns'] <= timed['avg_rd_latency_ns'] <= timed['max_rd_latency_ns']
        assert delay <= timed['min_wr_latency_ns'] == timed['avg_wr_latency_ns'] == timed['max_wr_latency_ns']
        assert timed['avg_rd_queue_depth'] > 0 and timed['avg_wr_queue_depth'] > 0
    assert 'rd_latency_histogram' not in stats(qmp, 'copy')['stats']
    qmp.command('block-latency-histogram-set', id='slow', boundaries_read=[5])
    shown = stats(qmp, 'slow')['stats']
    assert shown['rd_latency_histogram'] == {'boundaries': [5], 'bins': [0, 0]}
    assert sum(shown['wr_latency_histogram']['bins']) == 1
    qmp.command('block-latency-histogram-set', id='slow')
    qmp.command('x-block-latency-intervals-set', id='slow', intervals=[])
    shown = stats(qmp, 'slow')['stats']
    assert shown['timed_stats'] == [] and not [name for name in shown if 'histogram' in name]


@pytest.mark.parametrize('command, arguments, message', [
    ('block-latency-histogram-set', {'id': 'no', 'boundaries': [1]}, "Failed to find node with node-name='no'"),
    ('block-latency-histogram-set', {'boundaries': []}, "Parameter 'boundaries' expects 1 to 1024 limits: it has 0"),
    ('block-latency-histogram-set', {'boundaries_read': list(range(1, 1026))},
     "Parameter 'boundaries-read' expects 1 to 1024 limits: it has 1025"),
    ('block-latency-histogram-set', {'boundaries_write': [0]},
     "Parameter 'boundaries-write' expects ascending limits above zero: 0 comes after 0"),
    ('block-latency-histogram-set', {'boundaries_flush': [7, 7]},
     "Parameter 'boundaries-flush' expects ascending limits above zero: 7 comes after 7"),
    ('block-latency-histogram-set', {'boundaries_zap': [7, 3]},
     "Parameter 'boundaries-zap' expects ascending limits above zero: 3 comes after 7"),
    ('x-block-latency-intervals-set', {'id': 'no', 'intervals': []}, "Failed to find node with node-name='no'"),
    ('x-block-latency-intervals-set', {'intervals': [1, 0]}, "Parameter 'intervals' expects lengths above zero"),
    ('x-block-latency-intervals-set', {'intervals': [1] * 17},
     "Parameter 'intervals' expects at most 16 lengths: it has 17"),
])
def test_block_io_latencies_refused(serve, command, arguments, message):
    qmp = serve()
    qmp.command('blockdev-add', driver='null-co', node_name='n', size=MIB)
    with pytest.raises(QmpError) as failure:
        qmp.command(command, **{'id': 'n', **arguments})
    assert failure.value.desc == message
    assert stats(qmp, 'n')['stats']['timed_stats'] == [] and 'wr_latency_histogram' not in stats(qmp, 'n')['stats']
