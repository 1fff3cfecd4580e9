# SPDX-License-Identifier: LGPL-2.1-or-later
"""Internal snapshots, made, applied and deleted by one program and seen by the other."""
import itertools
import re

import pytest

from harness import need, program, run
from qcow2_files import KIB, Qcow2, make

OPTIONS = {
    'plain': 'cluster_size=64k',
    'v2': 'compat=0.10,cluster_size=4k',
    'smallest': 'cluster_size=512',
    'largest': 'cluster_size=2M',
    'subclusters': 'cluster_size=64k,extended_l2=on',
    'wide': 'refcount_bits=64',
    'narrow': 'refcount_bits=4',
    'lazy': 'lazy_refcounts=on',
    'zstd': 'compression_type=zstd',
}
MAKERS = {'ours': lambda: (program('ashlar-img'), program('ashlar-io')),
          'theirs': lambda: (need('qemu-img'), need('qemu-io'))}


def content(image):
    """The whole disk, as both see it."""
    results = []
    for img, name in ((need('qemu-img'), 'raw-theirs'), (program('ashlar-img'), 'raw-ours')):
        raw = image.with_name(name)
        run(img, 'convert', '-f', 'qcow2', '-O', 'raw', image, raw)
        results.append(raw.read_bytes())
    assert results[0] == results[1]
    return results[0]


def assert_clean(image):
    for img in need('qemu-img'), program('ashlar-img'):
        assert run(img, 'check', image).stdout.startswith('No errors were found on the image.\n')


def listing(image):
    """Ids and names, which both must tell alike."""
    tables = [run(img, 'snapshot', '-l', image).stdout for img in (need('qemu-img'), program('ashlar-img'))]
    assert tables[0] == tables[1]
    return [tuple(line.split()[:2]) for line in tables[0].splitlines()[2:]]


def write(io, image, *commands):
    done = run(io, '-f', 'qcow2', *itertools.chain.from_iterable(('-c', command) for command in commands), image)
    assert 'failed' not in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize('maker', MAKERS)
@pytest.mark.parametrize('user', MAKERS)
@pytest.mark.parametrize('options', OPTIONS)
def test_snapshots_both_ways(tmp_path, options, maker, user):
    image = tmp_path / 'image'
    make(image, '3M', OPTIONS[options], writes=('write -P 1 0 1M', 'write -c -P 2 2M 64k' if options != 'largest' else
                                                'write -c -P 2 2M 1M', 'write -z 256k 64k'))
    make_img, make_io = MAKERS[maker]()
    use_img, use_io = MAKERS[user]()
    states = {None: content(image)}
    run(make_img, 'snapshot', '-c', 'first', image)
    assert content(image) == states[None]
    assert_clean(image)
    states['first'] = states[None]
    write(use_io, image, 'write -P 3 512k 1M', 'write -P 4 2M 4k', 'discard 0 128k')
    states['second'] = content(image)
    run(use_img, 'snapshot', '-c', 'second', image)
    assert_clean(image)
    assert listing(image) == [('1', 'first'), ('2', 'second')]
    write(make_io, image, 'write -P 5 0 3M')

    for name in 'first', 'second', 'first':
        run(use_img, 'snapshot', '-a', name, image)
        assert content(image) == states[name]
        assert_clean(image)
        # What is written now is the disk's alone.
        write(make_io, image, 'write -P 6 100k 200k')
        assert_clean(image)
    run(make_img, 'snapshot', '-d', 'first', image)
    assert_clean(image)
    run(use_img, 'snapshot', '-a', 'second', image)
    assert content(image) == states['second']
    run(use_img, 'snapshot', '-d', 'second', image)
    assert_clean(image)
    assert listing(image) == []
    assert content(image) == states['second']


def test_snapshot_of_an_empty_disk(tmp_path):
    image = tmp_path / 'image'
    for size in '0', '512', '1T':
        make(image, size, writes=())
        run(program('ashlar-img'), 'snapshot', '-c', 'a', image)
        assert_clean(image)
        run(program('ashlar-img'), 'snapshot', '-a', 'a', image)
        run(program('ashlar-img'), 'snapshot', '-d', 'a', image)
        assert_clean(image)
        image.unlink()


@pytest.mark.parametrize('user', MAKERS)
def test_snapshot_keeps_the_size_of_its_disk(tmp_path, user):
    image = tmp_path / 'image'
    img, io = MAKERS[user]()
    make(image, '2M', 'cluster_size=4k', writes=('write -P 1 0 2M',))
    before = content(image)
    run(img, 'snapshot', '-c', 'small', image)
    run(program('ashlar-img'), 'resize', image, '40M')
    write(io, image, 'write -P 2 30M 1M')
    large = content(image)
    run(program('ashlar-img'), 'snapshot', '-c', 'large', image)
    run(program('ashlar-img'), 'snapshot', '-a', 'small', image)
    assert content(image) == before
    assert_clean(image)
    run(program('ashlar-img'), 'snapshot', '-a', 'large', image)
    assert content(image) == large
    assert_clean(image)


def test_snapshot_ids_and_names(tmp_path):
    image = tmp_path / 'image'
    make(image, writes=())
    img = program('ashlar-img')
    for name in 'a', 'a', '7', 'with space', 'ü':
        run(img, 'snapshot', '-c', name, image)
    assert [id for id, name in listing(image)] == ['1', '2', '3', '4', '5']
    run(img, 'snapshot', '-d', 'a', image)
    run(img, 'snapshot', '-d', 'with space', image)
    assert [id for id, name in listing(image)] == ['2', '3', '5']
    run(need('qemu-img'), 'snapshot', '-c', 'b', image)
    assert listing(image)[-1] == ('6', 'b')
    for action in '-a', '-d':
        failed = run(img, 'snapshot', action, 'none', image, check=False)
        assert failed.returncode == 1
        assert 'none' in failed.stderr


def test_snapshot_table_keeps_what_is_not_known(tmp_path):
    # Extra data of later versions, the state of a machine, and the count of its instructions.
    image = tmp_path / 'image'
    make(image, snapshots=1)
    with Qcow2(image) as file:
        at = file.snapshots
        entry = file.read(at, 40 + 24 + 3)
        file.put(at + 32, 12345, 4)
        file.put(at + 36, 40, 4)
        file.write(at + 40, (12345).to_bytes(8, 'big') + entry[48:56] + (777).to_bytes(8, 'big') + b'unknown to all, x'[:16])
        file.write(at + 80, entry[64:])
        extra = file.read(at + 40, 40)
    assert_clean(image)
    run(program('ashlar-img'), 'snapshot', '-c', 'another', image)
    with Qcow2(image) as file:
        at = file.snapshots
        assert file.get(at + 36, 4) == 40
        assert file.get(at + 32, 4) == 12345
        assert file.read(at + 40, 40) == extra
    table = run(program('ashlar-img'), 'snapshot', '-l', image).stdout
    assert re.search(r'^1 +s0 +12\.1 KiB .* 777$', table, re.M), table
    assert table == run(need('qemu-img'), 'snapshot', '-l', image).stdout


def test_snapshot_refused(tmp_path):
    img = program('ashlar-img')
    image = tmp_path / 'image'
    make(image, options=f'data_file={tmp_path}/data')
    refused = run(img, 'snapshot', '-c', 'a', image, check=False)
    assert refused.returncode == 1
    assert 'data file' in refused.stderr
    # One bit counts to one: there is nothing to share.
    image = tmp_path / 'narrow'
    make(image, options='refcount_bits=1')
    before = content(image)
    refused = run(img, 'snapshot', '-c', 'a', image, check=False)
    assert refused.returncode == 1
    assert listing(image) == []
    assert content(image) == before
    assert_clean(image)
    # The third reference does not fit; what was counted is taken back.
    image = tmp_path / 'two-bits'
    make(image, options='refcount_bits=2')
    run(img, 'snapshot', '-c', 'a', image)
    run(img, 'snapshot', '-c', 'b', image)
    assert run(img, 'snapshot', '-c', 'c', image, check=False).returncode == 1
    assert len(listing(image)) == 2
    assert_clean(image)


@pytest.mark.parametrize('field, value, width', [(0, 512, 8), (0, 1 << 60, 8), (8, 1 << 30, 4)])
def test_snapshot_that_is_broken(tmp_path, field, value, width):
    # It is listed, and can neither be applied nor deleted; the disk can be used.
    image = tmp_path / 'image'
    make(image, snapshots=1)
    with Qcow2(image) as file:
        file.put(file.snapshots + field, value, width)
    before = image.read_bytes()
    img = program('ashlar-img')
    assert 's0' in run(img, 'snapshot', '-l', image).stdout
    for action in '-a', '-d':
        failed = run(img, 'snapshot', action, 's0', image, check=False)
        assert failed.returncode == 1
        assert str(value) in failed.stderr or hex(value) in failed.stderr
    assert image.read_bytes() == before
    run(program('ashlar-io'), '-c', 'read -P 9 0 64k', image)


def test_snapshot_shown_without_applying_it(tmp_path):
    image = tmp_path / 'image'
    make(image, snapshots=2)
    for name in 's0', 's1':
        ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
        run(program('ashlar-img'), 'convert', '-O', 'raw', '-l', name, image, ours)
        run(need('qemu-img'), 'convert', '-O', 'raw', '-l', name, image, theirs)
        assert ours.read_bytes() == theirs.read_bytes()


def test_snapshot_applied_dirties_bitmaps(daemon, tmp_path):
    # All of the disk may have changed: a backup by the bitmap must take it all.
    image = tmp_path / 'image'
    make(image, bitmaps=1)
    run(program('ashlar-img'), 'snapshot', '-c', 'a', image)
    counts = []
    for _ in range(2):
        one = daemon()
        one.qmp.command('blockdev-add', driver='qcow2', node_name='disk', file={'driver': 'file', 'filename': str(image)})
        node = next(node for node in one.qmp.command('query-named-block-nodes') if node['node-name'] == 'disk')
        counts += [bitmap['count'] for bitmap in node['dirty-bitmaps']]
        one.stop()
        run(program('ashlar-img'), 'snapshot', '-a', 'a', image)
    assert counts == [64 * KIB, 1024 * KIB]
    assert_clean(image)


def test_snapshot_deleted_gives_back_its_clusters(tmp_path):
    image = tmp_path / 'image'
    make(image, '8M', writes=('write -P 1 0 8M',))
    run(program('ashlar-img'), 'snapshot', '-c', 'a', image)
    write(program('ashlar-io'), image, 'write -P 2 0 8M')
    full = image.stat().st_blocks
    run(program('ashlar-img'), 'snapshot', '-d', 'a', image)
    assert_clean(image)
    assert full - image.stat().st_blocks >= 7 * 1024 * KIB // 512
    # Room that is free is used again: the file does not grow.
    size = image.stat().st_size
    run(program('ashlar-img'), 'snapshot', '-c', 'b', image)
    write(program('ashlar-io'), image, 'write -P 3 0 7M')
    assert image.stat().st_size <= size + 1024 * KIB


@pytest.mark.parametrize('options', ['compat=0.10,cluster_size=4k', 'cluster_size=4k'])
def test_snapshots_again_and_again_do_not_grow_the_file(tmp_path, options):
    """Each takes and gives back places for tables and counts."""
    image = tmp_path / 'image'
    make(image, '64M', options, writes=('write -P 1 0 64M',))
    sizes = []
    for _ in range(6):
        run(program('ashlar-img'), 'snapshot', '-c', 'a', image)
        run(program('ashlar-img'), 'snapshot', '-d', 'a', image)
        sizes.append((image.stat().st_size, image.stat().st_blocks))
    assert_clean(image)
    # Two sets of places take turns.
    assert max(size for size, _ in sizes[2:]) <= max(size for size, _ in sizes[:2])
    assert sizes[-1][1] <= sizes[0][1] + 512 * KIB // 512
    write(program('ashlar-io'), image, 'read -P 1 0 64M')
