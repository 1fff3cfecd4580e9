# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dirty bitmaps over QMP: what they record, what the commands do and refuse."""
import hashlib
import random

import pytest

from harness import QmpError, raw_image
from nbd_serving import MIB, Served
from storage_peer import PeerDaemon


@pytest.fixture
def served(daemon, tmp_path):
    return Served(daemon, tmp_path)


def refusal(qmp, command, **arguments):
    with pytest.raises(QmpError) as error:
        qmp.command(command, **arguments)
    assert error.value.error_class == 'GenericError'
    return error.value.desc


def add(qmp, name, node='disk', **options):
    qmp.command('block-dirty-bitmap-add', node=node, name=name, **options)


def bitmaps(qmp, node='disk'):
    """The bitmaps of a node by name."""
    info = next(info for info in qmp.command('query-named-block-nodes') if info['node-name'] == node)
    return {bitmap['name']: bitmap for bitmap in info.get('dirty-bitmaps', [])}


def count(qmp, name, node='disk'):
    return bitmaps(qmp, node)[name]['count']


def sha256(qmp, name, node='disk'):
    return qmp.command('x-debug-block-dirty-bitmap-sha256', node=node, name=name)['sha256']


def test_recording(served):
    add(served.qmp, 'b')
    add(served.qmp, 'fine', granularity=512)
    add(served.qmp, 'off', disabled=True)
    with served.open() as client:
        client.write(65535, b'ab')
    assert bitmaps(served.qmp) == {
        'b': {'name': 'b', 'count': 131072, 'granularity': 65536, 'recording': True, 'busy': False, 'persistent': False},
        'fine': {'name': 'fine', 'count': 1024, 'granularity': 512, 'recording': True, 'busy': False,
                 'persistent': False},
        'off': {'name': 'off', 'count': 0, 'granularity': 65536, 'recording': False, 'busy': False,
                'persistent': False}}
    info = served.qmp.command('query-named-block-nodes')[0]
    assert [bitmap['name'] for bitmap in info['dirty-bitmaps']] == ['off', 'fine', 'b']


def test_enable_disable_clear_remove(served):
    qmp = served.qmp
    add(qmp, 'b', granularity=4096)
    with served.open() as client:
        client.write(0, b'x')
        qmp.command('block-dirty-bitmap-disable', node='disk', name='b')
        qmp.command('block-dirty-bitmap-disable', node='disk', name='b')
        client.write(8192, b'x')
        assert count(qmp, 'b') == 4096
        qmp.command('block-dirty-bitmap-enable', node='disk', name='b')
        client.write(8192, b'x')
        assert count(qmp, 'b') == 8192
        qmp.command('block-dirty-bitmap-clear', node='disk', name='b')
        assert count(qmp, 'b') == 0
        client.write(4096, b'x')
        assert count(qmp, 'b') == 4096
    qmp.command('block-dirty-bitmap-remove', node='disk', name='b')
    assert bitmaps(qmp) == {}


def test_refusals(served):
    qmp = served.qmp
    add(qmp, 'b')
    assert refusal(qmp, 'block-dirty-bitmap-add', node='no', name='x') == "Cannot find device='no' nor node-name='no'"
    assert refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='') == 'Bitmap name cannot be empty'
    assert refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='b') == 'Bitmap already exists: b'
    assert refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='n' * 1024).startswith('Bitmap name too long')
    for granularity in (0, 1, 256, 1000):
        assert refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='x', granularity=granularity) == \
            'Granularity must be power of 2 and at least 512'
    assert refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='x', persistent=True) == \
        "Can't store persistent bitmaps to disk: Operation not supported"
    for what in ('remove', 'clear', 'enable', 'disable'):
        assert refusal(qmp, f'block-dirty-bitmap-{what}', node='no', name='b') == "Node 'no' not found"
        assert refusal(qmp, f'block-dirty-bitmap-{what}', node='disk', name='x') == "Dirty bitmap 'x' not found"
    assert refusal(qmp, 'x-debug-block-dirty-bitmap-sha256', node='no', name='b') == "Node 'no' not found"
    assert list(bitmaps(qmp)) == ['b']
    # The longest name and the coarsest granularity that there are.
    add(qmp, 'n' * 1023, granularity=1 << 31)
    assert count(qmp, 'n' * 1023) == 0


@pytest.fixture
def two_nodes(daemon, tmp_path):
    other = raw_image(tmp_path / 'other.img', MIB)
    return Served(daemon, tmp_path, extra=['--blockdev', f'driver=file,node-name=other,filename={other}',
                                           '--blockdev', 'driver=null-co,node-name=large,size=2097152'])


def merge(qmp, target, *sources, node='disk'):
    qmp.command('block-dirty-bitmap-merge', node=node, target=target, bitmaps=list(sources))


def test_merge(two_nodes):
    qmp = two_nodes.qmp
    add(qmp, 'a', granularity=4096)
    with two_nodes.open() as client:
        client.write(0, b'x')
        add(qmp, 'b', granularity=32768)
        client.write(MIB - 1, b'x')
    add(qmp, 'there', node='other', granularity=512)
    merge(qmp, 'there', {'node': 'disk', 'name': 'a'}, node='other')
    assert count(qmp, 'there', 'other') == 8192
    merge(qmp, 'there', {'node': 'disk', 'name': 'b'}, {'node': 'other', 'name': 'there'}, 'there', node='other')
    assert count(qmp, 'there', 'other') == 4096 + 32768
    merge(qmp, 'b', 'a', 'b')
    assert count(qmp, 'b') == 65536
    assert count(qmp, 'a') == 8192


def test_merge_refusals_change_nothing(two_nodes):
    qmp = two_nodes.qmp
    add(qmp, 'a')
    with two_nodes.open() as client:
        client.write(0, b'x')
    add(qmp, 'b')
    add(qmp, 'l', node='large')
    for sources, message in (
            (['a', 'no'], "Dirty bitmap 'no' not found"),
            (['a', {'node': 'no', 'name': 'b'}], "Node 'no' not found"),
            (['a', {'node': 'large', 'name': 'b'}], "Dirty bitmap 'b' not found"),
            (['a', {'node': 'large', 'name': 'l'}], 'Bitmaps are of different sizes (destination size is 1048576, '
                                                    "source size is 2097152) and can't be merged")):
        assert refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='b', bitmaps=sources) == message
        assert count(qmp, 'b') == 0
    assert 'at least one' in refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='b', bitmaps=[])
    assert refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='no', bitmaps=['a']) == \
        "Dirty bitmap 'no' not found"


def test_resize(served):
    """What is added is clean, what is cut off is gone for good."""
    qmp = served.qmp
    qmp.command('block-export-del', id='exp', mode='hard')
    qmp.event('BLOCK_EXPORT_DELETED')
    add(qmp, 'b', granularity=65536)
    qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='x', writable=True)
    with served.open() as client:
        client.write(0, b'x')
        client.write(MIB - 1, b'x')
    qmp.command('block-export-del', id='exp', mode='hard')
    qmp.event('BLOCK_EXPORT_DELETED')
    for size, dirty in ((2 * MIB, 131072), (MIB // 2, 65536), (4 * MIB, 65536), (512, 65536), (0, 0), (MIB, 0)):
        qmp.command('block_resize', node_name='disk', size=size)
        assert count(qmp, 'b') == dirty


def test_hash_of_known_bits(served):
    add(served.qmp, 'b', granularity=4096)
    with served.open() as client:
        client.write(4096, b'x')
        client.write(MIB - 1, b'x')
    assert sha256(served.qmp, 'b') == hashlib.sha256(bytes([2] + 30 * [0] + [128])).hexdigest()
    # Few bits are hashed as eight bytes.
    add(served.qmp, 'c', granularity=MIB)
    assert sha256(served.qmp, 'c') == hashlib.sha256(bytes(8)).hexdigest()


def play(qmp, path, seed):
    """Writes, bitmaps that come and go, merges and resizes: the same for each daemon. What all have in the end."""
    import nbd
    dice = random.Random(seed)
    handle = nbd.NBD()
    handle.connect_uri(f'nbd+unix:///x?socket={path}')
    for step in range(120):
        offset = dice.randrange(0, MIB - 70000, 512)
        size = dice.randrange(512, 70000, 512)
        action = dice.choice(['write', 'zero', 'trim', 'write', 'bitmap', 'switch'])
        name = f'b{dice.randrange(4)}'
        if action == 'write':
            handle.pwrite(b'x' * size, offset)
        elif action == 'zero':
            handle.zero(size, offset)
        elif action == 'trim':
            handle.trim(size, offset)
        elif action == 'bitmap':
            if step % 3 and name in bitmaps(qmp):
                qmp.command('block-dirty-bitmap-remove', node='disk', name=name)
            elif name not in bitmaps(qmp):
                add(qmp, name, granularity=512 << dice.randrange(8))
        elif name in bitmaps(qmp):
            qmp.command(f'block-dirty-bitmap-{"enable" if dice.randrange(2) else "disable"}', node='disk', name=name)
    handle.shutdown()
    add(qmp, 'sum', granularity=2048)
    merge(qmp, 'sum', *sorted(set(bitmaps(qmp)) - {'sum'}))
    return {name: (bitmap, sha256(qmp, name)) for name, bitmap in bitmaps(qmp).items()}


@pytest.mark.parametrize('discard', ['unmap', 'ignore'])
def test_same_as_the_peer(daemon, tmp_path, discard):
    results = []
    for make in (lambda *arguments: daemon(*arguments), lambda *arguments: PeerDaemon(tmp_path, *arguments)):
        path = tmp_path / f'{len(results)}.sock'
        image = raw_image(tmp_path / f'{len(results)}.img', MIB)
        with make('--blockdev', f'driver=file,node-name=disk,filename={image},discard={discard}',
                  '--nbd-server', f'addr.type=unix,addr.path={path}',
                  '--export', 'type=nbd,id=exp,node-name=disk,name=x,writable=on') as running:
            results.append(play(running.qmp, path, 7))
    assert results[0] == results[1]


def test_many_bitmaps(served):
    """A thousand on one node: each has what was written since it came."""
    qmp = served.qmp
    with served.open() as client:
        for index in range(1000):
            add(qmp, f'b{index}', granularity=512)
            if index % 10 == 0:
                client.write(512 * index // 10, b'x')
    for name, bitmap in bitmaps(qmp).items():
        assert bitmap['count'] == 512 * (100 - (int(name[1:]) + 9) // 10)
    for index in range(1000):
        qmp.command('block-dirty-bitmap-remove', node='disk', name=f'b{index}')
    assert bitmaps(qmp) == {}


def test_large_disk(daemon):
    """A bitmap of 8 EiB costs next to nothing, clean or with something in it."""
    running = daemon('--blockdev', f'driver=null-co,node-name=disk,size={2**63 - 2**30}',
                     '--blockdev', f'driver=null-co,node-name=large,size={2**44}')
    before = running.memory_kib()
    for index in range(20):
        add(running.qmp, f'b{index}', granularity=512)
        add(running.qmp, f'b{index}', node='large')
    assert running.memory_kib() < before + 2048
    assert sha256(running.qmp, 'b0', 'large') == hashlib.sha256(bytes(2**44 // 65536 // 8)).hexdigest()
