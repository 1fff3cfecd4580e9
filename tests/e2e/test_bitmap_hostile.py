# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images whose bitmaps are broken: they open, and the bitmaps can be removed and nothing else."""
import json
import struct

import pytest

from harness import need, program, run
from nbd_serving import MIB
from qcow2_files import Qcow2, make
from test_bitmap_commands import add, bitmaps, refusal

CLUSTER = 65536


@pytest.fixture
def image(tmp_path):
    """With the bitmaps b0 and b1, both with something in them."""
    path = tmp_path / 'disk.qcow2'
    make(path, bitmaps=2)
    return path


@pytest.fixture
def start(daemon, image):
    return lambda extra='': daemon('--blockdev', f'driver=qcow2,node-name=disk,file.driver=file,'
                                                 f'file.filename={image}{extra}')


def entry_put(image, at, value, width):
    image.put(image.bitmap_directory + at, value, width)


def table_put(image, value):
    image.put(image.get(image.bitmap_directory), value)


def entries(*names, **fields):
    """A directory's bytes."""
    data = []
    for name in names:
        entry = struct.pack('>QIIBBHI', fields.get('table', 0), fields.get('table_size', 1), fields.get('flags', 0), 1,
                            16, len(name), 0) + name
        data.append(entry + bytes(-len(entry) % 8))
    return b''.join(data)


def directory_put(image, data, count):
    """Another directory at the end of the file."""
    image.file.seek(0, 2)
    offset = (image.file.tell() + CLUSTER - 1) // CLUSTER * CLUSTER
    image.write(offset, data.ljust(CLUSTER, b'\0'))
    image.set_refcount(offset // CLUSTER, 1)
    image.put(image.bitmaps, count, 4)
    image.put(image.bitmaps + 8, len(data))
    image.put(image.bitmaps + 16, offset)


# How the first bitmap is broken, and what is said of it.
BROKEN_ENTRIES = {
    'granularity 8': (lambda image: entry_put(image, 17, 8, 1), 'its granularity_bits are 8'),
    'granularity 63': (lambda image: entry_put(image, 17, 63, 1), 'its granularity_bits are 63'),
    'granularity 255': (lambda image: entry_put(image, 17, 255, 1), 'its granularity_bits are 255'),
    'other size': (lambda image: entry_put(image, 17, 9, 1) or entry_put(image, 8, 2, 4),
                   'its bitmap_table_size is 2, and should be 1'),
    'huge table': (lambda image: entry_put(image, 8, 0xffffffff, 4), 'in 4294967295 clusters'),
    'table unaligned': (lambda image: entry_put(image, 0, 0x123456, 8), 'its bitmap_table_offset 1193046 is unaligned'),
    'table past the end': (lambda image: entry_put(image, 0, 1 << 40, 8), 'is beyond the file'),
    'table past everything': (lambda image: entry_put(image, 0, (1 << 64) - CLUSTER, 8), 'is beyond the file'),
    'table is the header': (lambda image: entry_put(image, 0, 0, 8), 'where other metadata lies'),
    'table is the L1 table': (lambda image: entry_put(image, 0, image.l1, 8), 'where other metadata lies'),
    'table is an L2 table': (lambda image: entry_put(image, 0, image.l2, 8), 'where other metadata lies'),
    'table is a refcount block': (lambda image: entry_put(image, 0, image.refcount_block, 8),
                                  'where other metadata lies'),
    'table is the directory': (lambda image: entry_put(image, 0, image.bitmap_directory, 8),
                               'where other metadata lies'),
    'bits past the end': (lambda image: table_put(image, 1 << 40), 'entry 0 of its table'),
    'bits unaligned': (lambda image: table_put(image, 0x50200), 'entry 0 of its table is 0x0000000000050200'),
    'bits reserved': (lambda image: table_put(image, 1 << 63), 'entry 0 of its table is 0x8000000000000000'),
    'bits are the header': (lambda image: table_put(image, 0x2), 'entry 0 of its table is 0x0000000000000002'),
    'bits are the L2 table': (lambda image: table_put(image, image.l2), 'where other metadata lies'),
    'bits are the table': (lambda image: table_put(image, image.get(image.bitmap_directory)),
                           'where other metadata lies'),
    'unknown flag': (lambda image: entry_put(image, 12, 0x80000000, 4), 'its flags 0x80000000 are unknown'),
    'unknown type': (lambda image: entry_put(image, 16, 7, 1), 'its type 7 is unknown'),
    'in use': (lambda image: entry_put(image, 12, 3, 4), 'it was not kept up to date'),
}


@pytest.mark.parametrize('how', BROKEN_ENTRIES)
def test_one_is_broken(start, image, how):
    breaks, what = BROKEN_ENTRIES[how]
    with Qcow2(image) as broken:
        breaks(broken)
    content = image.read_bytes()
    with start(',read-only=on') as running:
        assert bitmaps(running.qmp)['b0']['inconsistent']
        assert what in running.stderr
    assert image.read_bytes() == content
    with start() as running:
        assert bitmaps(running.qmp)['b0']['inconsistent']
        assert 'inconsistent' not in bitmaps(running.qmp)['b1']
        assert refusal(running.qmp, 'block-dirty-bitmap-clear', node='disk', name='b0') == \
            "Bitmap 'b0' is inconsistent and cannot be used"
        add(running.qmp, 'new', persistent=True)
    with start() as running:
        assert bitmaps(running.qmp)['b0']['inconsistent']
        assert sorted(bitmaps(running.qmp)) == ['b0', 'b1', 'new']
        running.qmp.command('block-dirty-bitmap-remove', node='disk', name='b0')
    with start() as running:
        assert sorted(bitmaps(running.qmp)) == ['b1', 'new']
    # What the broken one had may be lost, but nobody else's.
    found = json.loads(run(need('qemu-img'), 'check', '--output=json', image, check=False).stdout)
    assert not found.get('corruptions') and not found['check-errors'], found
    assert run(need('qemu-io'), '-f', 'qcow2', '-c', 'read -P 9 0 128k', image).returncode == 0


BROKEN_DIRECTORIES = {
    'no bytes': lambda image: image.put(image.bitmaps + 8, 0),
    'too large': lambda image: image.put(image.bitmaps + 8, (64 << 20) + 8),
    'huge': lambda image: image.put(image.bitmaps + 8, (1 << 64) - 1),
    'too many': lambda image: image.put(image.bitmaps, 65536, 4),
    'none': lambda image: image.put(image.bitmaps, 0, 4),
    'one more': lambda image: image.put(image.bitmaps, 3, 4),
    'one less': lambda image: image.put(image.bitmaps, 1, 4),
    'past the end': lambda image: image.put(image.bitmaps + 16, 1 << 40),
    'past everything': lambda image: image.put(image.bitmaps + 16, (1 << 64) - CLUSTER),
    'unaligned': lambda image: image.put(image.bitmaps + 16, 0x50010),
    'is the header': lambda image: image.put(image.bitmaps + 16, 0),
    'is the L1 table': lambda image: image.put(image.bitmaps + 16, image.l1),
    'name too long for it': lambda image: entry_put(image, 18, 0xffff, 2),
    'extra data too long for it': lambda image: entry_put(image, 20, 0xffffffff, 4),
}


@pytest.mark.parametrize('how', BROKEN_DIRECTORIES)
def test_the_directory_is_broken(start, image, how):
    with Qcow2(image) as broken:
        BROKEN_DIRECTORIES[how](broken)
    content = image.read_bytes()
    with start(',read-only=on') as running:
        assert bitmaps(running.qmp) == {}
        assert "Node 'disk': the bitmaps in the image are lost: " in running.stderr
    assert image.read_bytes() == content
    # Who writes makes sure that nobody believes them.
    with start():
        pass
    with Qcow2(image) as after:
        assert after['autoclear_features'] == 0
    with start() as running:
        add(running.qmp, 'new', persistent=True)
    with start() as running:
        assert list(bitmaps(running.qmp)) == ['new']
        assert 'inconsistent' not in bitmaps(running.qmp)['new']
    found = json.loads(run(need('qemu-img'), 'check', '--output=json', image, check=False).stdout)
    assert not found.get('corruptions') and not found['check-errors'], found


def test_written_by_somebody_else(start, image):
    with Qcow2(image) as stale:
        stale['autoclear_features'] = 0
    with start() as running:
        assert bitmaps(running.qmp) == {}
        assert 'a program that does not know them has written to it' in running.stderr


@pytest.mark.parametrize('names', [(b'same', b'same', b'other'), (b'n' * 1024,), (b'\xff\xfe',), (b'a\0b',), (b'',)],
                         ids=['equal', 'long', 'no text', 'nul', 'none'])
def test_names(start, image, names):
    with Qcow2(image) as broken:
        directory_put(broken, entries(*names, table=broken.get(broken.bitmap_directory)), len(names))
    with start() as running:
        shown = bitmaps(running.qmp)
        assert len(shown) == len(set(names))
        for name, bitmap in shown.items():
            assert bitmap.get('inconsistent') or name == 'other'
            running.qmp.command('block-dirty-bitmap-remove', node='disk', name=name)
        assert bitmaps(running.qmp) == {}
    with start() as running:
        assert bitmaps(running.qmp) == {}


def test_as_many_as_there_may_be(start, image):
    # Q22
    """65535 broken ones take neither long nor much, and the log not a line each."""
    with Qcow2(image) as broken:
        offset = 16 * MIB
        data = entries(*(b'%05d' % index for index in range(65535)), flags=1)
        broken.write(offset, data)
        broken.put(broken.bitmaps, 65535, 4)
        broken.put(broken.bitmaps + 8, len(data))
        broken.put(broken.bitmaps + 16, offset)
    with start(',read-only=on') as running:
        assert len(bitmaps(running.qmp)) == 65535
        assert running.stderr.count('\n') < 10


def test_extra_data_is_kept(start, image):
    extra = b'some facts of others'
    name = b'theirs'
    flags = {'compatible': 2 + 4, 'not compatible': 2}
    for which, flag in flags.items():
        entry = struct.pack('>QIIBBHI', 0, 1, flag, 1, 16, len(name), len(extra)) + extra + name
        with Qcow2(image) as broken:
            table = 8 * MIB
            broken.write(table, bytes(CLUSTER))
            broken.set_refcount(table // CLUSTER, 1)
            directory_put(broken, struct.pack('>Q', table) + entry[8:] + bytes(-len(entry) % 8), 1)
        with start() as running:
            assert ('inconsistent' in bitmaps(running.qmp)['theirs']) == (which == 'not compatible')
        with Qcow2(image) as after:
            assert extra + name in after.read(after.bitmap_directory, 200)


def test_info_shows_what_there_is(image):
    with Qcow2(image) as broken:
        entry_put(broken, 17, 63, 1)
    info = json.loads(run(program('ashlar-img'), 'info', '--output=json', image).stdout)
    assert {bitmap['name'] for bitmap in info['format-specific']['data']['bitmaps']} == {'b0', 'b1'}
