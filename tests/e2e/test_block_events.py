# SPDX-License-Identifier: LGPL-2.1-or-later
"""BLOCK_IO_ERROR: a request of an export that fails is told of, at most once a second for each node."""
import nbd
import pytest
from harness import raw_image
from job_tools import MIB, connect, serve


@pytest.fixture
def disk(daemon, tmp_path):
    """A served node, of which each kind of request fails in a way of its own."""
    one = daemon()
    errors = {'read': 5, 'write': 28}
    one.qmp.command('blockdev-add', driver='raw', node_name='disk', file={
        'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': str(raw_image(tmp_path / 'disk', MIB, b'data'))},
        'inject-error': [{'event': 'none', 'iotype': kind, 'errno': errno, 'sector': 8}
                         for kind, errno in errors.items()]})
    one.guest = connect(serve(one.qmp, tmp_path / 'nbd', 'disk'))
    return one


def event(one):
    return one.qmp.event('BLOCK_IO_ERROR')['data']


def told(operation, nospace, reason):
    return {'device': '', 'qom-path': '', 'node-name': 'disk', 'operation': operation, 'action': 'report',
            'nospace': nospace, 'reason': reason}


def fail(request, *arguments):
    with pytest.raises(nbd.Error):
        request(*arguments)


def test_io_error(disk):
    """Of many that follow the first the last is told."""
    fail(disk.guest.pread, 4096, 4096)
    assert event(disk) == told('read', False, 'Input/output error')
    for _ in range(20):
        fail(disk.guest.pread, 4096, 4096)
    fail(disk.guest.pwrite, bytes([1]) * 4096, 4096)
    while (last := event(disk))['operation'] == 'read':
        pass
    assert last == told('write', True, 'No space left on device')


def test_what_is_no_error(disk):
    """A request beyond the end is refused; what succeeds is not told of."""
    disk.guest.set_strict_mode(0)
    fail(disk.guest.pread, 4096, MIB)
    disk.guest.pread(4096, 0)
    fail(disk.guest.pread, 4096, 4096)
    assert event(disk) == told('read', False, 'Input/output error')
    assert 'BLOCK_IO_ERROR' not in [one['event'] for one in disk.qmp.events]
