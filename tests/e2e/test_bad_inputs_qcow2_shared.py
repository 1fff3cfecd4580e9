# SPDX-License-Identifier: LGPL-2.1-or-later
"""Q17: clusters of a qcow2 image that have several names and counts or flags that say otherwise: no change through one
name damages what the others show."""
import pytest

from harness import need, run
from qcow2_files import COMPRESSED, COPIED, Qcow2, make
from test_bad_inputs_qcow2 import disk_options, img, io

def second_l2(file):
    return file.get(file.l1 + 8) & 0x00fffffffffffe00


def shared_in_one_table(file):
    """Guest offsets 0 and 64 KiB lie in one cluster."""
    file.put(file.l2 + 8, file.get(file.l2))


def shared_by_two_tables(file):
    """Guest offsets 0 and 512 MiB lie in one cluster."""
    file.put(second_l2(file), file.get(file.l2))


def shared_with_one_flag(file):
    file.put(file.l2 + 8, file.get(file.l2) & ~COPIED)


def shared_without_flags(file):
    file.put(file.l2, file.get(file.l2) & ~COPIED)
    file.put(file.l2 + 8, file.get(file.l2))


def shared_with_compressed(file):
    """Guest offset 64 KiB is said to lie compressed in the cluster of guest offset 0."""
    file.put(file.l2 + 8, COMPRESSED | (file.get(file.l2) & 0x00fffffffffffe00))


def shared_table(file):
    """Both L1 entries name one L2 table."""
    file.put(file.l1 + 8, file.get(file.l1))


def flagged_in_snapshot(file):
    """The cluster of guest offset 64 KiB is the snapshot's, too; but the flag says that it is not."""
    file.put(file.l2 + 8, file.get(file.l2 + 8) | COPIED)


def unflagged_count_0(file):
    file.set_refcount((file.get(file.l2) & 0x00fffffffffffe00) // file.cluster, 0)


# What is changed in the file, and what the event tells.
SHARED = {
    'one-table': (shared_in_one_table, ['guest offsets 0 and 0x10000', 'flag']),
    'two-tables': (shared_by_two_tables, ['guest offsets 0 and 0x20000000', 'flag']),
    'one-flag': (shared_with_one_flag, ['guest offsets 0 and 0x10000', 'flag']),
    'no-flags': (shared_without_flags, ['guest offsets 0 and 0x10000', 'reference count 1']),
    'compressed': (shared_with_compressed, ['guest offsets 0 and 0x10000', 'flag']),
    'l2-table': (shared_table, ['L1 entries 0 and 1', 'flag']),
    'snapshot': (flagged_in_snapshot, ['guest offset 0x10000 ', 'flag']),
    'count-0': (unflagged_count_0, ['guest offset 0 ', 'reference count 0']),
}
CHANGES = ['write -P 5 0 64k', 'write -P 5 4k 4k', 'write -P 5 768k 64k', 'write -z 0 64k', 'write -z -u 0 64k',
           'discard 0 64k', 'write -c -P 5 0 64k']


def sharing(tmp_path, name):
    image = tmp_path / 'image'
    make(image, '1G', writes=('write -P 1 0 256k', 'write -P 2 512M 64k'), snapshots=name == 'snapshot')
    with Qcow2(image) as file:
        SHARED[name][0](file)
    return image


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('name', SHARED)
def test_no_change_through_a_shared_cluster(tmp_path, name, change):
    image = sharing(tmp_path, name)
    before = image.read_bytes()
    refused = io(image, change)
    assert refused.status == 1
    for word in SHARED[name][1]:
        assert word in refused.text
    with Qcow2(image) as file:
        assert file['incompatible_features'] & 2
    # But for the corrupt bit, all is as it was.
    assert image.read_bytes()[80:] == before[80:]
    assert io(image, 'write -P 6 128k 64k').status == 1


@pytest.mark.parametrize('name', sorted(SHARED.keys() - {'compressed'}))
def test_repair_of_a_shared_cluster(tmp_path, name):
    # Afterwards each name has its own data.
    image = sharing(tmp_path, name)
    assert img('check', image).status == 2
    assert img('check', '-r', 'all', image).status == 0
    assert run(need('qemu-img'), 'check', image).returncode == 0
    there = 1 if name in ('two-tables', 'l2-table') else 2  # at 512 MiB
    written = io(image, 'write -P 5 0 64k', 'read -P 5 0 64k', 'read -P 1 64k 192k', f'read -P {there} 512M 64k',
                 'write -P 6 64k 64k', 'discard 0 64k', 'write -P 7 1M 256k', 'read -P 1 128k 128k',
                 f'read -P {there} 512M 64k')
    assert written.status == 0, written.text
    if name == 'snapshot':
        run(need('qemu-img'), 'snapshot', '-a', 's0', image)
        assert io(image, 'read -P 1 0 256k').status == 0


def test_shared_cluster_is_told_once(daemon, tmp_path):
    # R5: the event comes once, nothing is written any more, and reading goes on.
    image = sharing(tmp_path, 'two-tables')
    one = daemon()
    one.qmp.command('blockdev-add', **disk_options(image))
    one.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
    one.qmp.command('block-export-add', type='nbd', id='e', node_name='disk', name='x', writable=True)
    url = f'nbd+unix:///x?socket={tmp_path}/nbd'
    run(need('qemu-io'), '-f', 'raw', '-r', '-c', 'read -P 1 0 256k', url)
    for command in 'write -P 5 0 64k', 'discard 0 64k', 'write -P 5 512M 64k':
        assert run(need('qemu-io'), '-f', 'raw', '-c', command, url, check=False).returncode == 1
    event = one.qmp.event('BLOCK_IMAGE_CORRUPTED')['data']
    assert 'is shared by guest offsets 0 and 0x20000000' in event['msg']
    assert event['node-name'] == 'disk'
    assert event['fatal'] is True
    run(need('qemu-io'), '-f', 'raw', '-r', '-c', 'read -P 1 0 256k', '-c', 'read -P 1 512M 64k', url)
    one.qmp.command('query-version')
    assert not [event for event in one.qmp.events if event['event'] == 'BLOCK_IMAGE_CORRUPTED']


@pytest.mark.parametrize('options', ['cluster_size=512', 'cluster_size=2M', 'extended_l2=on', 'refcount_bits=1',
                                     'refcount_bits=64', 'compat=0.10'])
def test_images_of_all_kinds_are_looked_through(tmp_path, options):
    # Two clusters one behind the other are swapped for one; and nothing is found where nothing is.
    image = tmp_path / 'image'
    make(image, '8M', options, writes=('write -P 1 0 6M',))
    assert io(image, 'write -P 1 4k 4k').status == 0
    with Qcow2(image) as file:
        width = 16 if options == 'extended_l2=on' else 8
        file.put(file.l2 + width, file.get(file.l2))
    refused = io(image, 'write -P 5 4M 4k')
    assert refused.status == 1
    assert 'is shared by guest offsets 0 and ' in refused.text


def test_a_count_that_is_too_high_is_a_leak(tmp_path):
    image = tmp_path / 'image'
    make(image)
    with Qcow2(image) as file:
        file.set_refcount((file.get(file.l2) & 0x00fffffffffffe00) // file.cluster, 2)
    assert io(image, 'write -P 5 0 64k', 'read -P 5 0 64k', 'read -P 1 64k 192k').status == 0


def test_a_snapshot_is_looked_through_when_it_is_applied(tmp_path):
    # What is applied may be wrong where the disk was not: guest offsets 128 and 192 KiB.
    image = tmp_path / 'image'
    make(image, snapshots=1)
    with Qcow2(image) as file:
        l2 = file.get(file.get(file.snapshots)) & 0x00fffffffffffe00
        file.put(l2 + 16, file.get(l2 + 24))
    assert img('snapshot', '-a', 's0', image).status == 0
    io(image, 'write -P 5 128k 64k', 'discard 128k 64k', 'write -P 6 512k 256k')
    assert io(image, 'read -P 1 192k 64k', read_only=True).status == 0
