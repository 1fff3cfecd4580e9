# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-img check beside the program that it stands in for, on images that are broken in one place each."""
import json
import re
import shutil

import pytest

from harness import need, program, run
from qcow2_files import COMPRESSED, COPIED, KIB, Qcow2, make

COUNTS = ('check-errors', 'corruptions', 'leaks', 'image-end-offset', 'total-clusters', 'allocated-clusters',
          'fragmented-clusters', 'compressed-clusters')


def or_(offset_of, bits):
    """Breaks an image by setting bits of a 64-bit word."""
    def apply(image):
        offset = offset_of(image)
        image.put(offset, image.get(offset) | bits)
    return apply


def add(offset_of, delta):
    def apply(image):
        offset = offset_of(image)
        image.put(offset, image.get(offset) + delta)
    return apply


def put(offset_of, value, width=8):
    def apply(image):
        image.put(offset_of(image), value(image) if callable(value) else value, width)
    return apply


def leak(image):
    image.set_refcount(20, 1)
    image.write(20 * image.cluster, b'x')


def l1_at(image):
    return image.l1


def entry(index):
    return lambda image: image.l2 + index * 8


def snapshot(offset):
    return lambda image: image.snapshots + offset


def table_at(image):
    return image.refcount_table


def snapshot_l1(image):
    return image.get(image.snapshots)


def bitmap_table(image):
    return image.get(image.bitmap_directory)


EXTENDED = {'options': 'cluster_size=64k,extended_l2=on',
            'writes': ('write -P 1 0 256k', 'write -P 1 256k 2k', 'write -z 258k 2k', 'write -z 320k 64k')}
PACKED = {'writes': ('write -c -P 1 0 64k',)}

# How to make it, how to break it. Both must find the same, say the same, and leave the same to the other's check.
CASES = {
    'clean': ({}, lambda image: None),
    'clean-snapshots': ({'snapshots': 2}, lambda image: None),
    'clean-zeroes': ({'writes': ('write -P 1 0 256k', 'write -z 64k 64k', 'discard 128k 64k')}, lambda image: None),
    'clean-compressed': ({'writes': ('write -c -P 1 0 64k', 'write -c -P 2 64k 64k', 'write -P 3 128k 64k',
                                     'write -c -P 2 192k 64k')}, lambda image: None),
    'clean-bitmaps': ({'bitmaps': 2}, lambda image: None),
    'clean-subclusters': (EXTENDED, lambda image: None),
    'clean-v2-snapshot': ({'options': 'compat=0.10', 'snapshots': 1}, lambda image: None),
    'leak': ({}, leak),
    'leak-2': ({}, lambda image: image.set_refcount(5, 2)),
    'refcount-0': ({}, lambda image: image.set_refcount(5, 0)),
    'flag-off-l2': ({}, add(entry(0), -COPIED)),
    'flag-off-l1': ({}, add(l1_at, -COPIED)),
    'flag-off-zero': ({}, put(entry(0), lambda image: image.get(image.l2) & ~COPIED | 1)),
    'outside': ({}, put(entry(1), 0x10000000 | COPIED)),
    'unaligned': ({}, add(entry(1), 512)),
    'reserved': ({}, or_(entry(1), 2 | 1 << 58)),
    'l1-reserved': ({}, or_(l1_at, 2 | 1 << 58)),
    'l1-unaligned': ({}, add(l1_at, 512)),
    'l1-outside': ({}, put(l1_at, 0x10000000 | COPIED)),
    'zero-unaligned': ({}, put(entry(1), lambda image: image.get(image.l2 + 8) + 512 | 1)),
    'shared': ({}, put(entry(1), lambda image: image.get(image.l2))),
    'data-is-l1': ({}, put(entry(1), lambda image: image.l1 | COPIED)),
    'l1-is-l2': ({}, lambda image: image.__setitem__('l1_table_offset', image.l2)),
    'block-none': ({}, put(table_at, 0)),
    'block-twice': ({}, put(lambda image: image.refcount_table + 8, lambda image: image.get(image.refcount_table))),
    'block-count-0': ({}, lambda image: image.set_refcount(image.refcount_block // image.cluster, 0)),
    'block-is-l1': ({}, put(table_at, lambda image: image.l1)),
    'compressed-flag': (PACKED, or_(entry(0), COPIED)),
    'compressed-outside': (PACKED, add(entry(0), 0x10000000)),
    'compressed-long': (PACKED, or_(entry(0), 255 << 54 & ~COPIED & ~COMPRESSED)),
    'dirty': ({'options': 'lazy_refcounts=on'}, lambda image: image.__setitem__('incompatible_features', 1)),
    'corrupt': ({}, lambda image: image.__setitem__('incompatible_features', 2)),
    'overflow': ({'options': 'refcount_bits=1'}, put(entry(1), lambda image: image.get(image.l2))),
    'snapshot-l1-reserved': ({'snapshots': 1}, or_(snapshot_l1, 1 << 58 | 2)),
    'snapshot-l1-unaligned': ({'snapshots': 1}, add(snapshot(0), 512)),
    'snapshot-l1-outside': ({'snapshots': 1}, put(snapshot(0), 1 << 32)),
    'snapshot-extra-0': ({'snapshots': 1}, put(snapshot(36), 0, 4)),
    'snapshot-extra-8': ({'snapshots': 1}, put(snapshot(36), 8, 4)),
    'snapshot-extra-32': ({'snapshots': 1}, put(snapshot(36), 32, 4)),
    'snapshot-count-5': ({'snapshots': 1}, lambda image: image.__setitem__('nb_snapshots', 5)),
    'snapshot-table-outside': ({'snapshots': 1}, lambda image: image.__setitem__('snapshots_offset', 1 << 40)),
    'subcluster-both': (EXTENDED, put(lambda image: image.l2 + 8, 1 << 32 | 1)),
    'subcluster-no-offset': (EXTENDED, put(lambda image: image.l2 + 16 * 9 + 8, 3)),
    'subcluster-none': (EXTENDED, put(lambda image: image.l2 + 8, 0)),
    'subcluster-compressed': ({'options': 'extended_l2=on', **PACKED}, put(lambda image: image.l2 + 8, 1)),
    'tail-cut': ({}, lambda image: image.truncate(8 * 64 * KIB + 5)),
    'cluster-cut': ({}, lambda image: image.truncate(7 * 64 * KIB + 5)),
    'much-cut': ({}, lambda image: image.truncate(4 * 64 * KIB + 5)),
}
for bits in 1, 2, 4, 8:
    CASES[f'width-{bits}'] = ({'options': f'cluster_size=4k,refcount_bits={bits}'},
                              lambda image: image.write(image.refcount_block, bytes(3)))

# Repairs end better here than there.
BETTER = {
    'block-unaligned': ({}, add(table_at, 512)),
    'block-reserved': ({}, add(table_at, 2)),
    'block-outside': ({}, put(table_at, 0x10000000)),
    'table-outside': ({}, lambda image: image.__setitem__('refcount_table_offset', 1 << 33)),
    'table-no-clusters': ({}, lambda image: image.__setitem__('refcount_table_clusters', 0)),
    'snapshot-extra-huge': ({'snapshots': 1}, put(snapshot(36), 1 << 20, 4)),
    'snapshot-count-huge': ({'snapshots': 1}, lambda image: image.__setitem__('nb_snapshots', 65537)),
    'bitmaps-stale': ({'bitmaps': 2}, lambda image: image.__setitem__('autoclear_features', 0)),
}


def check(tool, image, *arguments):
    """The counts, or None; the lines that were said, without those of the tool itself; the status."""
    done = run(tool, 'check', '-f', 'qcow2', '--output=json', *arguments, image, check=False)
    assert 'Sanitizer' not in done.stderr, done.stderr
    found = json.loads(done.stdout) if done.stdout.strip() else None
    lines = [line for line in done.stderr.splitlines()
             if not re.match(r'(qemu-img|ashlar-img|qcow2|Use qemu-img|Some clusters)', line)]
    return found and tuple(found.get(count, 0) for count in COUNTS), lines, done.returncode


def broken(tmp_path, case):
    how, apply = case
    image = tmp_path / 'image'
    make(image, **how)
    with Qcow2(image) as file:
        apply(file)
    return image


@pytest.mark.parametrize('name', CASES)
def test_check_finds_the_same(tmp_path, name):
    image = broken(tmp_path, CASES[name])
    before = image.read_bytes()
    assert check(program('ashlar-img'), image) == check(need('qemu-img'), image)
    assert image.read_bytes() == before


@pytest.mark.parametrize('repair', ['leaks', 'all'])
@pytest.mark.parametrize('name', CASES)
def test_check_repairs_the_same(tmp_path, name, repair):
    image = broken(tmp_path, CASES[name])
    theirs = shutil.copy(image, tmp_path / 'theirs')
    ours_status = check(program('ashlar-img'), image, '-r', repair)[2]
    theirs_status = check(need('qemu-img'), theirs, '-r', repair)[2]
    assert ours_status == theirs_status
    # Each by the other's eyes; where new structures went is each one's own affair.
    ours, theirs = check(need('qemu-img'), image), check(program('ashlar-img'), theirs)
    assert ours[0][:3] == theirs[0][:3]
    assert ours[2] == theirs[2]
    for tool in program('ashlar-img'), need('qemu-img'):
        assert check(tool, image) == ours


@pytest.mark.parametrize('name', BETTER)
def test_check_repairs_all(tmp_path, name):
    image = broken(tmp_path, BETTER[name])
    assert check(program('ashlar-img'), image)[2] in (1, 2, 3)
    assert check(program('ashlar-img'), image, '-r', 'all')[2] == 0
    for tool in program('ashlar-img'), need('qemu-img'):
        assert check(tool, image)[2] == 0
    # And the data is still there.
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'read -P 1 128k 64k', image)


def test_check_clears_the_bits(tmp_path):
    for bits in 1, 2, 3:
        image = broken(tmp_path, ({}, lambda image, bits=bits: image.__setitem__('incompatible_features', bits)))
        run(program('ashlar-img'), 'check', '-r', 'leaks', image)
        with Qcow2(image) as file:
            assert file['incompatible_features'] == 0


def test_check_keeps_the_corrupt_bit_of_what_it_cannot_repair(tmp_path):
    image = broken(tmp_path, CASES['reserved'])
    with Qcow2(image) as file:
        file['incompatible_features'] = 2
    assert run(program('ashlar-img'), 'check', '-r', 'all', image, check=False).returncode == 2
    with Qcow2(image) as file:
        assert file['incompatible_features'] == 2


@pytest.mark.parametrize('name', ['data-file', 'data-file-raw', 'data-file-packed'])
def test_check_with_a_data_file(tmp_path, name):
    options = f'data_file={tmp_path}/data' + (',data_file_raw=on' if name == 'data-file-raw' else '')
    image = broken(tmp_path, ({'options': options, 'writes': ('write -P 1 0 256k', 'write -z 64k 64k')},
                              put(entry(0), COMPRESSED | 0x50000) if name == 'data-file-packed' else lambda image: None))
    assert check(program('ashlar-img'), image) == check(need('qemu-img'), image)


def test_check_counts_the_encryption_header(tmp_path):
    # A header by hand: where the key is, a check need not know.
    image = broken(tmp_path, CASES['leak'])
    with Qcow2(image) as file:
        at = file['header_length']
        file['crypt_method'] = 2
        file.write(at, (0x0537be77).to_bytes(4, 'big') + (16).to_bytes(4, 'big') + (20 * file.cluster).to_bytes(8, 'big') +
                   (1000).to_bytes(8, 'big') + bytes(8))
    assert check(program('ashlar-img'), image)[1:] == ([], 0)
    with Qcow2(image) as file:
        file.set_refcount(20, 0)
    assert check(program('ashlar-img'), image)[1:] == (['ERROR cluster 20 refcount=0 reference=1'], 2)
