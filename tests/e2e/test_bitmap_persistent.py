# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dirty bitmaps in qcow2 images: over restarts and crashes, and between us and the peers."""
import json
import random

import pytest

from harness import QmpError, need, run
from nbd_serving import MIB
from storage_peer import PeerDaemon
from test_bitmap_commands import add, bitmaps, count, refusal, sha256


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / 'disk.qcow2')


def make_image(path, size=4 * MIB, **options):
    words = ','.join(f'{name}={value}' for name, value in options.items())
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *(['-o', words] if words else []), path, size)
    return path


def arguments(image, tmp_path, extra=''):
    return ['--blockdev', f'driver=qcow2,node-name=disk,file.driver=file,file.node-name=file,'
                          f'file.filename={image}{extra}',
            '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock',
            '--export', 'type=nbd,id=exp,node-name=disk,name=x' + ('' if 'read-only' in extra else ',writable=on')]


@pytest.fixture
def start(daemon, tmp_path, image):
    """Starts a daemon, of ours or (peer=True) of the other make, on the image."""
    def start(extra='', peer=False, path=None):
        words = arguments(path or image, tmp_path, extra)
        return PeerDaemon(tmp_path, *words) if peer else daemon(*words)
    return start


def write(tmp_path, *ranges):
    import nbd
    handle = nbd.NBD()
    handle.connect_uri(f'nbd+unix:///x?socket={tmp_path}/nbd.sock')
    for offset, size in ranges:
        handle.pwrite(b'x' * size, offset)
    handle.flush()
    handle.shutdown()


def stored(image):
    """What qemu-img sees in the image, by name: (granularity, flags)."""
    info = json.loads(run(need('qemu-img'), 'info', '-U', '--output=json', image).stdout)
    return {bitmap['name']: (bitmap['granularity'], bitmap['flags'])
            for bitmap in info['format-specific']['data'].get('bitmaps', [])}


def check(image):
    """No error and no leak, as the peer sees it."""
    result = json.loads(run(need('qemu-img'), 'check', '--output=json', image).stdout)
    assert not result.get('corruptions') and not result.get('leaks') and not result['check-errors'], result


def test_over_restarts(start, image, tmp_path):
    with start() as running:
        add(running.qmp, 'on', persistent=True)
        add(running.qmp, 'off', persistent=True, disabled=True, granularity=4096)
        add(running.qmp, 'transient')
        write(tmp_path, (0, 1), (MIB, 200000))
        before = sha256(running.qmp, 'on')
        assert stored(image) == {}
    check(image)
    assert stored(image) == {'on': (65536, ['auto']), 'off': (4096, [])}
    with start() as running:
        assert sorted(bitmaps(running.qmp)) == ['off', 'on']
        assert bitmaps(running.qmp)['on'] == {
            'name': 'on', 'count': 65536 + 262144, 'granularity': 65536, 'recording': True, 'busy': False,
            'persistent': True}
        assert not bitmaps(running.qmp)['off']['recording']
        assert sha256(running.qmp, 'on') == before
        assert stored(image) == {'on': (65536, ['in-use', 'auto']), 'off': (4096, ['in-use'])}
        write(tmp_path, (3 * MIB, 1))
        running.qmp.command('block-dirty-bitmap-enable', node='disk', name='off')
        running.qmp.command('block-dirty-bitmap-disable', node='disk', name='on')
    check(image)
    assert stored(image) == {'on': (65536, []), 'off': (4096, ['auto'])}
    with start() as running:
        assert count(running.qmp, 'on') == 65536 + 262144 + 65536
        running.qmp.command('block-dirty-bitmap-remove', node='disk', name='off')
        assert list(stored(image)) == ['on']
        running.qmp.command('block-dirty-bitmap-remove', node='disk', name='on')
        assert stored(image) == {}
    check(image)
    assert stored(image) == {}


def test_node_deleted_and_added(start, image, tmp_path):
    with start() as running:
        add(running.qmp, 'b', persistent=True)
        write(tmp_path, (0, 1))
        running.qmp.command('block-export-del', id='exp')
        running.qmp.event('BLOCK_EXPORT_DELETED')
        running.qmp.command('blockdev-del', node_name='disk')
        check(image)
        running.qmp.command('blockdev-add', driver='qcow2', node_name='disk',
                            file={'driver': 'file', 'filename': str(image)})
        assert count(running.qmp, 'b') == 65536


def test_after_a_crash(start, image, tmp_path):
    running = start()
    add(running.qmp, 'b', persistent=True)
    running.stop()
    running = start()
    write(tmp_path, (0, 1))
    running.kill()
    assert stored(image) == {'b': (65536, ['in-use', 'auto'])}
    running.process.returncode = 0
    with start() as running:
        qmp = running.qmp
        assert bitmaps(qmp)['b'] == {
            'name': 'b', 'count': 0, 'granularity': 65536, 'recording': False, 'busy': False, 'persistent': True,
            'inconsistent': True}
        for what in ('clear', 'enable', 'disable'):
            assert refusal(qmp, f'block-dirty-bitmap-{what}', node='disk', name='b') == \
                "Bitmap 'b' is inconsistent and cannot be used"
        add(qmp, 'c')
        assert refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='c', bitmaps=['b']) == \
            "Bitmap 'b' is inconsistent and cannot be used"
        assert refusal(qmp, 'block-export-add', type='nbd', id='e', node_name='disk', name='e', bitmaps=['b']) == \
            "Bitmap 'b' is inconsistent and cannot be used"
        assert refusal(qmp, 'block_resize', node_name='disk', size=8 * MIB) == \
            "Bitmap 'b' is inconsistent and cannot be used"
        assert refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='b') == 'Bitmap already exists: b'
    assert stored(image) == {'b': (65536, ['in-use', 'auto'])}
    with start() as running:
        running.qmp.command('block-dirty-bitmap-remove', node='disk', name='b')
        add(running.qmp, 'b', persistent=True)
    run(need('qemu-img'), 'check', '-r', 'leaks', image, check=False)
    check(image)
    assert stored(image) == {'b': (65536, ['auto'])}


def test_removal_after_a_crash_leaks_nothing(start, image, tmp_path):
    with start() as running:
        add(running.qmp, 'b', persistent=True, granularity=512)
        write(tmp_path, *((offset, 1) for offset in range(0, 2 * MIB, 8192)))
    running = start()
    running.kill()
    running.process.returncode = 0
    with start() as running:
        running.qmp.command('block-dirty-bitmap-remove', node='disk', name='b')
    check(image)


def test_read_only_image(start, image, tmp_path):
    with start() as running:
        add(running.qmp, 'b', persistent=True)
        add(running.qmp, 'off', persistent=True, disabled=True)
        write(tmp_path, (0, 1))
    content = image.read_bytes()
    with start(',read-only=on') as running:
        qmp = running.qmp
        assert count(qmp, 'b') == 65536
        for what in ('clear', 'remove'):
            assert refusal(qmp, f'block-dirty-bitmap-{what}', node='disk', name='b') == \
                "Bitmap 'b' is readonly and cannot be modified"
        assert refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='b', bitmaps=['off']) == \
            "Bitmap 'b' is readonly and cannot be modified"
        assert 'reading only' in refusal(qmp, 'block-dirty-bitmap-add', node='disk', name='n', persistent=True)
        add(qmp, 'copy')
        qmp.command('block-dirty-bitmap-merge', node='disk', target='copy', bitmaps=['b'])
        assert count(qmp, 'copy') == 65536
        qmp.command('block-dirty-bitmap-disable', node='disk', name='b')
        qmp.command('block-export-add', type='nbd', id='e', node_name='disk', name='e', bitmaps=['b'])
    assert image.read_bytes() == content


def test_resize(start, image, tmp_path):
    with start() as running:
        add(running.qmp, 'b', persistent=True, granularity=4096)
        write(tmp_path, (0, 1), (4 * MIB - 1, 1))
        running.qmp.command('block-export-del', id='exp')
        running.qmp.event('BLOCK_EXPORT_DELETED')
        running.qmp.command('block_resize', node_name='disk', size=20 * MIB)
        assert count(running.qmp, 'b') == 8192
    check(image)
    with start() as running:
        assert count(running.qmp, 'b') == 8192
        running.qmp.command('block-export-del', id='exp')
        running.qmp.event('BLOCK_EXPORT_DELETED')
        running.qmp.command('block_resize', node_name='disk', size=MIB)
        assert count(running.qmp, 'b') == 4096
    check(image)
    with start(peer=True) as peer:
        assert count(peer.qmp, 'b') == 4096


def test_refusals(start, image, tmp_path):
    old = make_image(tmp_path / 'old.qcow2', compat='0.10')
    large = make_image(tmp_path / 'large.qcow2', size='16T')
    with start(path=old) as running:
        assert refusal(running.qmp, 'block-dirty-bitmap-add', node='disk', name='b', persistent=True) == \
            "Can't make bitmap 'b' persistent in 'disk': Cannot store dirty bitmaps in qcow2 v2 files"
    with start(path=large) as running:
        assert refusal(running.qmp, 'block-dirty-bitmap-add', node='disk', name='b', persistent=True,
                       granularity=512) == \
            "Can't make bitmap 'b' persistent in 'disk': Too much space will be occupied by the bitmap. " \
            'Use larger granularity'
        add(running.qmp, 'b', persistent=True)
        add(running.qmp, 'n' * 1023, persistent=True, granularity=1 << 31)
    check(large)
    assert stored(large) == {'b': (65536, ['auto']), 'n' * 1023: (1 << 31, ['auto'])}


def test_transaction_that_fails(start, image, tmp_path):
    """What an action would have removed from the image is there again when it is closed."""
    with start() as running:
        add(running.qmp, 'b', persistent=True)
        write(tmp_path, (0, 1))
    with start() as running:
        actions = [{'type': 'block-dirty-bitmap-remove', 'data': {'node': 'disk', 'name': 'b'}},
                   {'type': 'block-dirty-bitmap-add', 'data': {'node': 'disk', 'name': 'c', 'persistent': True}},
                   {'type': 'abort', 'data': {}}]
        with pytest.raises(QmpError):
            running.qmp.command('transaction', actions=actions)
        assert list(bitmaps(running.qmp)) == ['b']
    check(image)
    assert stored(image) == {'b': (65536, ['auto'])}
    with start() as running:
        assert count(running.qmp, 'b') == 65536


@pytest.mark.parametrize('options', [{}, {'cluster_size': 512}, {'cluster_size': '2M'}, {'refcount_bits': 1},
                                     {'extended_l2': 'on'}, {'lazy_refcounts': 'on'}], ids=str)
def test_to_and_fro(start, tmp_path, options):
    """Written by one, read and changed by the other, in turns."""
    path = make_image(tmp_path / 'turns.qcow2', **options)
    dice = random.Random(str(options))
    expected = {}
    for turn in range(4):
        with start(path=path, peer=turn % 2) as running:
            assert {name: sha256(running.qmp, name) for name in bitmaps(running.qmp)} == expected
            assert not any('inconsistent' in bitmap for bitmap in bitmaps(running.qmp).values())
            add(running.qmp, f'b{turn}', persistent=True, granularity=512 << dice.randrange(10),
                disabled=bool(turn == 2))
            if turn == 3:
                running.qmp.command('block-dirty-bitmap-remove', node='disk', name='b0')
            write(tmp_path, *((dice.randrange(4 * MIB - 50000), dice.randrange(1, 50000)) for _ in range(20)))
            expected = {name: sha256(running.qmp, name) for name in bitmaps(running.qmp)}
        check(path)


def test_all_dirty(start, image, tmp_path):
    """Areas that are all dirty need no cluster, but for the last, of which the tail must be clean."""
    small = make_image(tmp_path / 'small.qcow2', size=3 * MIB, cluster_size=512)
    with start(path=small) as running:
        add(running.qmp, 'b', persistent=True, granularity=512)
        write(tmp_path, (0, 3 * MIB))
        before = sha256(running.qmp, 'b')
    check(small)
    with start(path=small, peer=True) as peer:
        assert count(peer.qmp, 'b') == 3 * MIB
        assert sha256(peer.qmp, 'b') == before


def test_bitmap_in_a_backing_image(daemon, start, image, tmp_path):
    with start() as running:
        add(running.qmp, 'b', persistent=True, disabled=True)
        add(running.qmp, 'on', persistent=True)
        write(tmp_path, (MIB, 1))
    overlay = tmp_path / 'overlay.qcow2'
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-b', image, '-F', 'qcow2', overlay)
    running = daemon('--blockdev', f'driver=qcow2,node-name=top,file.driver=file,file.filename={overlay},'
                     f'backing.driver=qcow2,backing.node-name=base,backing.file.driver=file,'
                     f'backing.file.filename={image}',
                     '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock')
    export = {'type': 'nbd', 'node-name': 'top'}
    running.qmp.command('block-export-add', id='a', name='a', bitmaps=['on', 'b'], allocation_depth=True, **export)
    assert refusal(running.qmp, 'block-export-add', id='c', name='c', bitmaps=[{'node': 'base', 'name': 'b'}],
                   **export) == "Bitmap 'b' is currently in use by another operation and cannot be used"
    shown = json.loads(run(need('nbdinfo'), '--json', '--map=qemu:dirty-bitmap:on',
                           f'nbd+unix:///a?socket={tmp_path}/nbd.sock').stdout)
    assert [(extent['offset'], extent['length']) for extent in shown if extent['type']] == [(MIB, 65536)]


def test_many(start, image, tmp_path):
    with start() as running:
        for index in range(200):
            add(running.qmp, f'bitmap-{index}', persistent=True, granularity=512 << index % 8)
        write(tmp_path, (12345, 1))
    check(image)
    assert len(stored(image)) == 200
    with start(peer=True) as peer:
        assert len(bitmaps(peer.qmp)) == 200
        assert all(bitmap['count'] == bitmap['granularity'] for bitmap in bitmaps(peer.qmp).values())


def test_reopened_read_only_and_back(daemon, image, tmp_path):
    running = daemon('--blockdev', f'driver=file,node-name=file,filename={image}',
                     '--blockdev', 'driver=qcow2,node-name=disk,file=file',
                     '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock')

    def reopen(read_only):
        running.qmp.command('blockdev-reopen', options=[
            {'driver': 'qcow2', 'node-name': 'disk', 'file': 'file', 'read-only': read_only}])

    def write_one(offset):
        running.qmp.command('block-export-add', type='nbd', id='exp', node_name='disk', name='x', writable=True)
        write(tmp_path, (offset, 1))
        running.qmp.command('block-export-del', id='exp', mode='hard')
        running.qmp.event('BLOCK_EXPORT_DELETED')

    add(running.qmp, 'b', persistent=True)
    write_one(0)
    reopen(True)
    assert stored(image) == {'b': (65536, ['auto'])}
    assert refusal(running.qmp, 'block-dirty-bitmap-clear', node='disk', name='b') == \
        "Bitmap 'b' is readonly and cannot be modified"
    reopen(False)
    assert stored(image) == {'b': (65536, ['in-use', 'auto'])}
    write_one(MIB)
    assert count(running.qmp, 'b') == 131072
    running.stop()
    check(image)
    assert stored(image) == {'b': (65536, ['auto'])}


def test_a_bitmap_stays_with_its_node(daemon, image, tmp_path):
    """With an overlay on top, what is written goes there, and the bitmap below does not see it."""
    overlay = make_image(tmp_path / 'overlay.qcow2')
    running = daemon(*arguments(image, tmp_path))
    add(running.qmp, 'b', persistent=True)
    write(tmp_path, (0, 1))
    running.qmp.command('blockdev-add', driver='qcow2', node_name='top', backing=None,
                        file={'driver': 'file', 'filename': str(overlay)})
    running.qmp.command('blockdev-snapshot', node='disk', overlay='top')
    write(tmp_path, (MIB, 1))
    assert count(running.qmp, 'b') == 65536
    assert bitmaps(running.qmp, 'top') == {}
    running.stop()
    assert stored(image) == {'b': (65536, ['auto'])}
    check(image)
