# SPDX-License-Identifier: LGPL-2.1-or-later
"""Image locks: all who open an image respect each other, whoever they are."""
import os
import pathlib
import subprocess

import pytest

from harness import QmpError, background, need, raw_image, run, wait_for


@pytest.fixture
def disk(tmp_path):
    return raw_image(tmp_path / 'disk', 1 << 20)


@pytest.fixture
def storage(daemon, tmp_path):
    return daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock')


def export(storage, node, writable, name='e'):
    storage.qmp.command('block-export-add', type='nbd', id=name, node_name=node, writable=writable)


def unexport(storage, name='e'):
    storage.qmp.command('block-export-del', id=name)
    storage.qmp.event('BLOCK_EXPORT_DELETED')


def add_file(storage, disk, node='n', **options):
    storage.qmp.command('blockdev-add', driver='file', filename=str(disk), **{'node-name': node}, **options)


def locked_bytes(path):
    """The bytes of the file on which anybody holds a lock of an open file description."""
    found = set()
    inode = os.stat(path).st_ino
    for line in pathlib.Path('/proc/locks').read_text().splitlines():
        words = line.split()
        if words[1] == 'OFDLCK' and words[5].endswith(f':{inode}'):
            assert words[3] == 'READ'
            found |= set(range(int(words[6]), int(words[7]) + 1))
    return found


def wait_for_locks(disk):
    wait_for(lambda: locked_bytes(disk), 'the other program to take its locks')


def test_bytes_tell_what_we_do(storage, disk):
    add_file(storage, disk)
    assert locked_bytes(disk) == set()
    export(storage, 'n', writable=False)
    assert locked_bytes(disk) == {100, 203}
    unexport(storage)
    assert locked_bytes(disk) == set()
    export(storage, 'n', writable=True)
    assert locked_bytes(disk) == {100, 101, 203}
    unexport(storage)
    assert locked_bytes(disk) == set()


def test_locking_off_takes_none(storage, disk):
    add_file(storage, disk, locking='off')
    export(storage, 'n', writable=True)
    assert locked_bytes(disk) == set()


def test_others_cannot_resize_what_we_export(storage, disk):
    add_file(storage, disk)
    export(storage, 'n', writable=True)
    done = run(need('qemu-img'), 'resize', '-f', 'raw', disk, '2M', check=False)
    assert done.returncode == 1
    assert 'Failed to get "resize" lock' in done.stderr
    assert os.stat(disk).st_size == 1 << 20
    unexport(storage)
    run(need('qemu-img'), 'resize', '-f', 'raw', disk, '2M')


def test_others_may_read_what_we_export(storage, disk):
    add_file(storage, disk)
    export(storage, 'n', writable=True)
    run(need('qemu-io'), '-f', 'raw', '-r', '-c', 'read 0 512', disk)


def test_we_respect_who_does_not_share_writing(storage, disk, tmp_path):
    """S5: the peer's daemon with a format driver on the image lets nobody else write."""
    qcow2 = tmp_path / 'qcow2'
    run(need('qemu-img'), 'create', '-f', 'qcow2', qcow2, '1M')
    with background(need('qemu-io'), '-f', 'qcow2', qcow2, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        wait_for_locks(qcow2)
        add_file(storage, qcow2)
        with pytest.raises(QmpError) as refused:
            export(storage, 'n', writable=True)
        assert refused.value.desc.startswith('Failed to get "write" lock')
        assert f'process {holder.pid} (qemu-io)' in refused.value.desc
        assert storage.qmp.command('query-block-exports') == []
        holder.communicate(b'quit\n')
    export(storage, 'n', writable=True)


def test_failed_attempt_leaves_no_locks(storage, disk):
    with open(disk, 'rb+') as other:
        lock(other, 201)
        add_file(storage, disk)
        before = locked_bytes(disk)
        with pytest.raises(QmpError):
            export(storage, 'n', writable=True)
        assert locked_bytes(disk) == before == {201}
        # Reading is no matter.
        export(storage, 'n', writable=False)
        assert locked_bytes(disk) == {100, 201, 203}


def lock(file, byte, exclusive=False):
    """Takes a lock of the open file description, as image locks are."""
    import fcntl
    import struct
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    fcntl.fcntl(file, 37, struct.pack('hhqqi4x', kind, 0, byte, 1, 0))


@pytest.mark.parametrize('byte, complaint', [
    (200, 'Failed to get "consistent read" lock'),
    (201, 'Failed to get "write" lock'),
    (103, 'Failed to get shared "resize" lock'),
])
def test_each_byte_counts(storage, disk, byte, complaint):
    add_file(storage, disk)
    with open(disk, 'rb+') as other:
        lock(other, byte)
        with pytest.raises(QmpError) as refused:
            export(storage, 'n', writable=True)
        assert refused.value.desc == f'{complaint}: in use by process {os.getpid()} ({own_name()})'
    export(storage, 'n', writable=True)


def own_name():
    return pathlib.Path('/proc/self/comm').read_text().strip()


def test_exclusive_lock_in_the_way(storage, disk):
    add_file(storage, disk)
    with open(disk, 'rb+') as other:
        lock(other, 101, exclusive=True)
        with pytest.raises(QmpError) as refused:
            export(storage, 'n', writable=True)
        assert refused.value.desc.startswith('Failed to lock byte 101')


def test_two_nodes_of_one_process(storage, disk):
    """The second stands against the first as if it were another program's."""
    add_file(storage, disk, node='a')
    add_file(storage, disk, node='b')
    export(storage, 'a', writable=True, name='a')
    with pytest.raises(QmpError) as refused:
        storage.qmp.command('block_resize', node_name='b', size=2 << 20)
    assert refused.value.desc == 'Failed to get "resize" lock: in use by another node of this process'
    unexport(storage, 'a')
    storage.qmp.command('block_resize', node_name='b', size=2 << 20)


def test_locks_stay_with_the_file_that_was_opened(storage, disk):
    """Another file under the same name is another image."""
    add_file(storage, disk)
    export(storage, 'n', writable=True)
    os.rename(disk, f'{disk}.old')
    raw_image(disk, 1 << 20)
    assert locked_bytes(disk) == set()
    assert locked_bytes(f'{disk}.old') == {100, 101, 203}


def test_locks_go_with_the_process(storage, disk):
    add_file(storage, disk)
    export(storage, 'n', writable=True)
    storage.qmp.command('quit')
    storage.process.wait()
    assert locked_bytes(disk) == set()
