# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dirty bitmaps as NBD metadata contexts."""
import json

import pytest

from harness import QmpError, need, run
from nbd_serving import MIB, Served
from test_bitmap_commands import add, bitmaps, refusal


@pytest.fixture
def served(daemon, tmp_path):
    return Served(daemon, tmp_path, blockdev=',discard=unmap')


def export(served, id, bitmaps, **options):
    served.qmp.command('block-export-add', type='nbd', id=id, name=id, node_name='disk', bitmaps=bitmaps, **options)


def uri(served, name):
    return f'nbd+unix:///{name}?socket={served.path}'


def dirty_map(served, name, context):
    """What nbdinfo shows: (offset, length, type) of each extent."""
    done = run(need('nbdinfo'), '--json', f'--map={context}', uri(served, name))
    return [(extent['offset'], extent['length'], extent['type']) for extent in json.loads(done.stdout)]


def write_some(served):
    with served.open() as client:
        client.write(65536, b'x' * 131072)
        client.write(512 * 1024 + 5, b'x')


def test_map(served):
    add(served.qmp, 'b')
    add(served.qmp, 'fine', granularity=512)
    write_some(served)
    served.qmp.command('block-dirty-bitmap-disable', node='disk', name='b')
    export(served, 'e', ['b', 'fine'], writable=True)
    assert dirty_map(served, 'e', 'qemu:dirty-bitmap:b') == [
        (0, 65536, 0), (65536, 131072, 1), (196608, 327680, 0), (524288, 65536, 1), (589824, 458752, 0)]
    assert dirty_map(served, 'e', 'qemu:dirty-bitmap:fine') == [
        (0, 65536, 0), (65536, 131072, 1), (196608, 327680, 0), (524288, 512, 1), (524800, 523776, 0)]
    listed = run(need('nbdinfo'), '--list', uri(served, '')).stdout
    assert 'qemu:dirty-bitmap:b\n' in listed and 'qemu:dirty-bitmap:fine\n' in listed


def test_recording_goes_on_while_exported(served):
    add(served.qmp, 'b')
    export(served, 'e', ['b'], writable=True)
    assert bitmaps(served.qmp)['b']['busy']
    assert dirty_map(served, 'e', 'qemu:dirty-bitmap:b') == [(0, MIB, 0)]
    with served.open() as client:
        client.write(MIB - 1, b'x')
    assert dirty_map(served, 'e', 'qemu:dirty-bitmap:b') == [(0, MIB - 65536, 0), (MIB - 65536, 65536, 1)]


def test_several_contexts_in_one_reply(served):
    import nbd
    for index in range(5):
        add(served.qmp, f'b{index}', granularity=512 << index)
    write_some(served)
    names = [f'b{index}' for index in range(5)]
    export(served, 'e', names, writable=True, allocation_depth=True)
    handle = nbd.NBD()
    contexts = ['base:allocation', 'qemu:allocation-depth', *(f'qemu:dirty-bitmap:{name}' for name in names)]
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri(served, 'e'))
    seen = {}
    handle.block_status(MIB, 0, lambda context, offset, entries, error: seen.setdefault(context, entries) and 0)
    assert sorted(seen) == sorted(contexts)
    for index, name in enumerate(names):
        entries = seen[f'qemu:dirty-bitmap:{name}']
        assert entries[1::2] == [0, 1, 0, 1, 0]
        assert sum(entries[::2]) == MIB
        assert entries[6] == 512 << index
    # An unaligned part of it.
    seen.clear()
    handle.block_status(70000, 70001, lambda context, offset, entries, error: seen.setdefault(context, entries) and 0)
    assert seen['qemu:dirty-bitmap:b0'] == [70000, 1]
    handle.shutdown()


def test_qemu_img_reads_it(served):
    add(served.qmp, 'b')
    write_some(served)
    export(served, 'e', ['b'], writable=True)
    options = f'driver=nbd,export=e,server.type=unix,server.path={served.path},x-dirty-bitmap=qemu:dirty-bitmap:b'
    extents = json.loads(run(need('qemu-img'), 'map', '--output=json', '--image-opts', options).stdout)
    # There, dirty areas are shown as holes that are not data.
    assert [(extent['start'], extent['length']) for extent in extents if not extent['data']] == [
        (65536, 131072), (524288, 65536)]


def test_taken_while_exported(served):
    qmp = served.qmp
    add(qmp, 'b')
    add(qmp, 'c')
    export(served, 'e', ['b'], writable=True)
    taken = "Bitmap 'b' is currently in use by another operation and cannot be used"
    for what in ('remove', 'clear', 'enable', 'disable'):
        assert refusal(qmp, f'block-dirty-bitmap-{what}', node='disk', name='b') == taken
    assert refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='b', bitmaps=['c']) == taken
    assert refusal(qmp, 'block-dirty-bitmap-merge', node='disk', target='c', bitmaps=['b']) == taken
    with pytest.raises(QmpError, match=taken):
        export(served, 'f', ['c', 'b'], writable=True)
    # What failed has let go what it had taken.
    assert not bitmaps(qmp)['c']['busy']
    qmp.command('block-export-del', id='e')
    qmp.event('BLOCK_EXPORT_DELETED')
    assert not bitmaps(qmp)['b']['busy']
    qmp.command('block-dirty-bitmap-remove', node='disk', name='b')


def test_refusals(served):
    qmp = served.qmp
    add(qmp, 'b')
    for wanted, message in ((['no'], "Bitmap 'no' is not found"),
                            ([{'node': 'no', 'name': 'b'}], "Node 'no' not found"),
                            ([{'node': 'disk', 'name': 'no'}], "Dirty bitmap 'no' not found"),
                            (['b'], "Enabled bitmap 'b' incompatible with readonly export")):
        assert refusal(qmp, 'block-export-add', type='nbd', id='e', node_name='disk', name='n',
                       bitmaps=wanted) == message
    assert 'twice' in refusal(qmp, 'block-export-add', type='nbd', id='e', node_name='disk', name='n', writable=True,
                              bitmaps=['b', 'b'])
    for index in range(64):
        add(qmp, f'm{index}', disabled=True)
    assert 'Too many bitmaps' in refusal(qmp, 'block-export-add', type='nbd', id='e', node_name='disk', name='n',
                                         bitmaps=[f'm{index}' for index in range(64)])
    export(served, 'e', [f'm{index}' for index in range(63)])
    qmp.command('block-dirty-bitmap-disable', node='disk', name='b')
    export(served, 'f', ['b'])


def test_bitmap_below_a_filter(daemon, tmp_path):
    served = Served(daemon, tmp_path, extra=[
        '--object', 'throttle-group,id=g', '--blockdev', 'driver=throttle,node-name=top,throttle-group=g,file=disk'])
    add(served.qmp, 'b', disabled=True)
    served.qmp.command('block-export-add', type='nbd', id='e', name='e', node_name='top', bitmaps=['b'])
    assert dirty_map(served, 'e', 'qemu:dirty-bitmap:b') == [(0, MIB, 0)]


def test_bitmap_by_the_old_command(served):
    add(served.qmp, 'b', disabled=True)
    served.qmp.command('nbd-server-add', device='disk', name='old', bitmap='b')
    assert dirty_map(served, 'old', 'qemu:dirty-bitmap:b') == [(0, MIB, 0)]
