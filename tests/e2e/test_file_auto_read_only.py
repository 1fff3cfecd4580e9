# SPDX-License-Identifier: LGPL-2.1-or-later
"""auto-read-only: the file is open for writing only while somebody writes."""
import os
import subprocess

import nbd
import pytest

from harness import QmpError, raw_image


@pytest.fixture
def disk(tmp_path):
    return raw_image(tmp_path / 'disk', 1 << 20, b'old ')


@pytest.fixture
def storage(daemon, tmp_path):
    return daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock')


def modes(storage, disk):
    """How the daemon has the file open: 'r' and 'w' for each descriptor."""
    found = []
    folder = f'/proc/{storage.pid}'
    for fd in os.listdir(f'{folder}/fd'):
        if os.readlink(f'{folder}/fd/{fd}') == str(disk):
            flags = next(line.split()[1] for line in open(f'{folder}/fdinfo/{fd}') if line.startswith('flags:'))
            found.append('r' if int(flags, 8) & os.O_ACCMODE == os.O_RDONLY else 'w')
    return sorted(found)


def export(storage, writable):
    storage.qmp.command('block-export-add', type='nbd', id='e', node_name='n', writable=writable)


def unexport(storage):
    storage.qmp.command('block-export-del', id='e')
    storage.qmp.event('BLOCK_EXPORT_DELETED')


def add(storage, disk):
    storage.qmp.command('blockdev-add', driver='file', filename=str(disk),
                        **{'node-name': 'n', 'auto-read-only': True})


def test_opens_for_writing_when_a_writer_comes(storage, disk, tmp_path):
    add(storage, disk)
    assert modes(storage, disk) == ['r']
    export(storage, writable=False)
    assert modes(storage, disk) == ['r']
    unexport(storage)

    export(storage, writable=True)
    assert 'w' in modes(storage, disk)
    client = nbd.NBD()
    client.set_export_name('n')
    client.connect_unix(f'{tmp_path}/nbd.sock')
    client.pwrite(b'new!' * 128, 4096)
    client.flush()
    client.shutdown()
    assert disk.read_bytes()[4096:4612] == b'new!' * 128 + b'old '

    unexport(storage)
    assert modes(storage, disk) == ['r']
    # And all over again.
    export(storage, writable=True)
    assert 'w' in modes(storage, disk)


def test_node_does_not_call_itself_read_only(storage, disk):
    add(storage, disk)
    assert storage.qmp.command('query-named-block-nodes')[0]['ro'] is False


def test_file_that_cannot_be_written(storage, disk):
    """It serves readers; only a writer is told."""
    mounted = disk.parent / 'read-only'
    mounted.touch()
    subprocess.run(['mount', '--bind', '-o', 'ro', disk, mounted], check=True)
    try:
        add(storage, mounted)
        export(storage, writable=False)
        unexport(storage)
        with pytest.raises(QmpError) as refused:
            export(storage, writable=True)
        assert refused.value.desc == f"Could not open '{mounted}': Read-only file system"
        export(storage, writable=False)
        storage.stop()
    finally:
        subprocess.run(['umount', '--lazy', mounted], check=True)


def test_writes_go_to_the_file_that_was_opened(storage, disk):
    """Not to another that has got its name meanwhile."""
    add(storage, disk)
    old = disk.rename(disk.with_suffix('.old'))
    raw_image(disk, 1 << 20)
    export(storage, writable=True)
    assert 'w' in modes(storage, old)
    assert modes(storage, disk) == []
