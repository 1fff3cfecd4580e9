# SPDX-License-Identifier: LGPL-2.1-or-later
"""Data through the file driver: where it lies, holes, direct I/O, and files that fail or change."""
import ctypes
import errno
import os
import pathlib
import random
import resource

import nbd
import pytest

from harness import QmpError, raw_image, run

MIB = 1 << 20
HOLE_OR_ZERO = 3  # base:allocation: hole and reads as zeroes


@pytest.fixture
def serve(daemon, tmp_path):
    """Exports a file and returns a connected client; more options go to the file node."""
    def start(path, driver='file', writable=True, export=None, popen=None, **options):
        storage = daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock', **(popen or {}))
        storage.qmp.command('blockdev-add', driver=driver, filename=str(path), **{'node-name': 'n'}, **options)
        storage.qmp.command('block-export-add', type='nbd', id='e', node_name='n', writable=writable,
                            **(export or {}))
        client = nbd.NBD()
        client.add_meta_context('base:allocation')
        client.set_export_name('n')
        client.connect_unix(f'{tmp_path}/nbd.sock')
        client.storage = storage
        return client
    return start


def extents(client, offset=0, count=None):
    """[(length, flags)], neighbours of one kind joined."""
    end = client.get_size() if count is None else offset + count
    found = []

    def take(context, start, entries, error):
        nonlocal offset
        for length, flags in zip(entries[::2], entries[1::2]):
            if found and found[-1][1] == flags:
                found[-1][0] += length
            else:
                found.append([length, flags])
            offset += length
        return 0

    while offset < end:
        client.block_status(min(end - offset, 1 << 30), offset, take)
    return [tuple(one) for one in found]


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_holes_are_told(serve, tmp_path):
    path = raw_image(tmp_path / 'disk', 8 * MIB)
    with open(path, 'rb+') as disk:
        for position in (MIB, 3 * MIB, 5 * MIB):
            disk.seek(position)
            disk.write(b'x' * MIB)
    client = serve(path)
    expected = [(MIB, 3), (MIB, 0), (MIB, 3), (MIB, 0), (MIB, 3), (MIB, 0), (2 * MIB, 3)]
    for _ in range(3):
        assert extents(client) == expected
    # In steps that cut extents, forth and back.
    for step in (4096, 65536, 3 * MIB // 2):
        starts = list(range(0, 8 * MIB, step))
        random.Random(step).shuffle(starts)
        for start in starts:
            for length, flags in extents(client, start, 512):
                assert (start // MIB in (1, 3, 5)) == (flags == 0), (start, length, flags)


def test_writes_show_in_the_status(serve, tmp_path):
    """What was found last is remembered, and forgotten when it changes."""
    path = raw_image(tmp_path / 'disk', 4 * MIB)
    client = serve(path, discard='unmap')
    assert extents(client) == [(4 * MIB, 3)]
    client.pwrite(b'x' * 65536, MIB)
    assert extents(client) == [(MIB, 3), (65536, 0), (3 * MIB - 65536, 3)]
    client.pwrite(b'x' * 65536, MIB + 65536)
    assert extents(client) == [(MIB, 3), (131072, 0), (3 * MIB - 131072, 3)]
    client.trim(65536, MIB)
    assert extents(client) == [(MIB + 65536, 3), (65536, 0), (3 * MIB - 131072, 3)]
    client.zero(65536, MIB + 65536)
    assert extents(client) == [(4 * MIB, 3)]


def test_zeroes_without_holes_keep_the_space(serve, tmp_path):
    path = raw_image(tmp_path / 'disk', 4 * MIB)
    client = serve(path)
    client.zero(MIB, MIB, nbd.CMD_FLAG_NO_HOLE)
    assert allocated(path) >= MIB
    assert client.pread(4096, MIB) == bytes(4096)
    client.pwrite(b'y' * MIB, 2 * MIB)
    client.zero(MIB, 2 * MIB, nbd.CMD_FLAG_NO_HOLE)
    assert allocated(path) >= 2 * MIB
    assert client.pread(MIB, 2 * MIB) == bytes(MIB)


def test_zeroes_with_holes_free_the_space(serve, tmp_path):
    path = raw_image(tmp_path / 'disk', 4 * MIB, b'data')
    client = serve(path, discard='unmap')
    client.zero(4 * MIB, 0)
    assert allocated(path) == 0
    assert client.pread(4 * MIB, 0) == bytes(4 * MIB)


def test_discard_is_off_unless_asked_for(serve, tmp_path):
    path = raw_image(tmp_path / 'disk', MIB, b'data')
    client = serve(path)
    client.trim(MIB, 0)
    assert allocated(path) >= MIB


def test_trim_frees_the_space_and_is_counted(serve, tmp_path):
    path = raw_image(tmp_path / 'disk', MIB, b'data')
    client = serve(path, discard='unmap')
    client.trim(MIB // 2, 0)
    assert allocated(path) <= MIB // 2 + 4096
    stats = client.storage.qmp.command('query-blockstats', query_nodes=True)
    specific = next(one for one in stats if one['node-name'] == 'n')['driver-specific']
    assert specific == {'driver': 'file', 'discard-nb-ok': 1, 'discard-nb-failed': 0, 'discard-bytes-ok': MIB // 2}


ENGINES = [
    {},
    {'aio': 'threads'},
    {'aio': 'io_uring'},
    {'aio': 'io_uring', 'aio-max-batch': 2},
    {'aio': 'threads', 'cache': {'direct': True}},
    {'aio': 'native', 'cache': {'direct': True}},
    {'aio': 'native', 'cache': {'direct': True}, 'aio-max-batch': 1},
    {'aio': 'io_uring', 'cache': {'direct': True}},
    {'cache': {'direct': True}},
    {'cache': {'no-flush': True}},
]


@pytest.mark.parametrize('options', ENGINES)
def test_any_offset_and_size(serve, tmp_path, options):
    """Whatever the file demands of alignment, clients need not keep to it."""
    size = MIB + 777 - 777 % 512
    path = raw_image(tmp_path / 'disk', size, b'0123456789')
    client = serve(path, **options)
    client.set_strict_mode(0)
    expected = bytearray(path.read_bytes())
    rng = random.Random(7)
    requests = []
    for index in range(200):
        offset = rng.randrange(size // 512) * 512
        length = min(rng.choice([512, 1024, 4096, 9 * 512, 65536, 200 * 512]), size - offset)
        if index % 3:
            assert client.pread(length, offset) == expected[offset:offset + length]
        else:
            data = rng.randbytes(length)
            client.pwrite(data, offset, nbd.CMD_FLAG_FUA if index % 2 else 0)
            expected[offset:offset + length] = data
        requests.append((offset, length))
    # Many at once.
    buffers = [nbd.Buffer(length) for offset, length in requests]
    cookies = [client.aio_pread(buffer, offset) for buffer, (offset, length) in zip(buffers, requests)]
    while cookies:
        client.poll(-1)
        cookies = [cookie for cookie in cookies if not client.aio_command_completed(cookie)]
    for buffer, (offset, length) in zip(buffers, requests):
        assert buffer.to_bytearray() == expected[offset:offset + length]
    client.flush()
    client.shutdown()
    assert path.read_bytes() == expected


def test_direct_tail_of_an_odd_file(serve, tmp_path):
    """A file that ends inside a sector: its tail is there, and the rest of the sector is not invented."""
    path = raw_image(tmp_path / 'disk', 10000, b'0123456789')
    client = serve(path, writable=False, cache={'direct': True})
    size = client.get_size()
    assert client.pread(size, 0)[:10000] == path.read_bytes()[:size]
    assert client.pread(size - 9728, 9728)[:272] == path.read_bytes()[9728:10000][:size - 9728]


def test_direct_where_the_system_has_none(daemon):
    """A file system of the kernel's own; its files cannot be opened past the page cache."""
    qmp = daemon().qmp
    with pytest.raises(QmpError) as refused:
        qmp.command('blockdev-add', driver='file', filename='/proc/self/mounts', cache={'direct': True},
                    **{'node-name': 'n', 'read-only': True})
    assert refused.value.desc == "Could not open '/proc/self/mounts': filesystem does not support O_DIRECT"


def test_file_that_shrinks_under_us(serve, tmp_path):
    """S6: The range that is lost fails, and nothing else does."""
    path = raw_image(tmp_path / 'disk', 4 * MIB, b'data')
    client = serve(path)
    os.truncate(path, MIB)
    with pytest.raises(nbd.Error) as failed:
        client.pread(4096, 2 * MIB)
    assert failed.value.errnum == errno.EIO
    with pytest.raises(nbd.Error):
        client.pread(8192, MIB - 4096)
    assert client.pread(4096, MIB - 4096) == b'data' * 1024
    # Nobody is told that there are zeroes, or a copy of it would look whole.
    assert all(flags == 0 for _, flags in extents(client, 2 * MIB, MIB))
    os.truncate(path, 4 * MIB)
    assert client.pread(4096, 2 * MIB) == bytes(4096)


def test_file_that_grows_under_us(serve, tmp_path):
    """S6"""
    path = raw_image(tmp_path / 'disk', MIB, b'data')
    client = serve(path)
    os.truncate(path, 2 * MIB)
    assert client.get_size() == MIB
    assert client.pread(4096, MIB - 4096) == b'data' * 1024


def in_small_file_system(folder, kib):
    """For a child process: a file system of so many KiB on `folder`, which nobody else sees."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter():
        new_mounts, new_user, recursive, private = 0x20000, 0x10000000, 0x4000, 0x40000
        user, group = os.getuid(), os.getgid()
        if libc.unshare(new_mounts | (new_user if user else 0)):
            raise OSError(ctypes.get_errno(), 'unshare')
        if user:
            pathlib.Path('/proc/self/setgroups').write_text('deny')
            pathlib.Path('/proc/self/uid_map').write_text(f'0 {user} 1')
            pathlib.Path('/proc/self/gid_map').write_text(f'0 {group} 1')
        libc.mount(b'none', b'/', None, recursive | private, None)
        if libc.mount(b'none', str(folder).encode(), b'tmpfs', 0, f'size={kib}k'.encode()):
            raise OSError(ctypes.get_errno(), 'mount')
        with open(folder / 'disk', 'wb') as disk:
            disk.truncate(16 * MIB)
    return enter


def test_full_file_system(serve, tmp_path):
    """Writers are told; what fits is served as before."""
    folder = tmp_path / 'small'
    folder.mkdir()
    client = serve(folder / 'disk', popen={'preexec_fn': in_small_file_system(folder, 1024)})
    client.pwrite(b'x' * 65536, 0)
    with pytest.raises(nbd.Error) as failed:
        for position in range(0, 4 * MIB, 65536):
            client.pwrite(b'y' * 65536, position)
    assert failed.value.errnum == errno.ENOSPC
    with pytest.raises(nbd.Error) as failed:
        client.zero(8 * MIB, 8 * MIB, nbd.CMD_FLAG_NO_HOLE)
    assert failed.value.errnum == errno.ENOSPC
    assert client.pread(65536, 0) == b'y' * 65536
    assert client.pread(4096, 12 * MIB) == bytes(4096)
    client.trim(MIB, 0)
    client.flush()


@pytest.mark.parametrize('loop', ['io_uring', 'epoll'])
def test_file_size_limit(serve, tmp_path, loop):
    """A limit of the process is an error of the request, and not the end of the daemon."""
    path = raw_image(tmp_path / 'disk', 4 * MIB)
    client = serve(path, popen={'preexec_fn': lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, resource.RLIM_INFINITY)),
                                'env': {'ASHLAR_LOOP': loop}})
    client.pwrite(b'x' * 4096, MIB - 4096)
    for size, offset in (4096, MIB), (8192, MIB - 4096), (1, 2 * MIB), (MIB, 3 * MIB):
        with pytest.raises(nbd.Error) as failed:
            client.pwrite(b'y' * size, offset)
        assert failed.value.errnum in (errno.EIO, errno.EINVAL, errno.ENOSPC)
    client.flush()
    assert client.pread(4096, 0) == bytes(4096)
    assert client.pread(8192, MIB) == bytes(8192)


def test_resize(serve, tmp_path):
    path = raw_image(tmp_path / 'disk', 2 * MIB, b'data')
    client = serve(path)
    qmp = client.storage.qmp
    qmp.command('block-export-del', id='e', mode='hard')
    qmp.event('BLOCK_EXPORT_DELETED')
    qmp.command('block_resize', node_name='n', size=4 * MIB)
    assert path.read_bytes() == b'data' * (MIB // 2) + bytes(2 * MIB)
    qmp.command('block_resize', node_name='n', size=MIB + 4096)
    assert path.read_bytes() == b'data' * ((MIB + 4096) // 4)
    with pytest.raises(QmpError) as refused:
        qmp.command('block_resize', node_name='n', size=1 << 62)
    assert refused.value.desc == 'Could not resize file: File too large'
    image = qmp.command('query-named-block-nodes')[0]['image']
    assert image['virtual-size'] == MIB + 4096
    assert image['filename'] == str(path)


def loop_devices_work():
    return os.geteuid() == 0 and run('losetup', '--find', check=False).returncode == 0


if loop_devices_work():
    @pytest.fixture
    def loop_device(tmp_path):
        path = raw_image(tmp_path / 'backing', 4 * MIB)
        device = run('losetup', '--find', '--show', path).stdout.strip()
        yield pathlib.Path(device), path
        run('losetup', '--detach', device)

    @pytest.mark.parametrize('options', [{}, {'cache': {'direct': True}}])
    def test_block_device(serve, loop_device, options):
        device, backing = loop_device
        client = serve(device, driver='host_device', discard='unmap', **options)
        assert client.get_size() == 4 * MIB
        client.pwrite(b'data' * 4096, MIB)
        client.zero(MIB, 2 * MIB)
        client.flush()
        assert client.pread(16384, MIB) == b'data' * 4096
        client.trim(MIB, MIB)
        client.flush()
        assert allocated(backing) == 0
        client.pwrite(b'y' * MIB, 0)
        client.zero(MIB, 0, nbd.CMD_FLAG_NO_HOLE)
        assert client.pread(MIB, 0) == bytes(MIB)
        client.shutdown()
        qmp = client.storage.qmp
        qmp.command('block-export-del', id='e', mode='hard')
        qmp.event('BLOCK_EXPORT_DELETED')
        with pytest.raises(QmpError) as refused:
            qmp.command('block_resize', node_name='n', size=8 * MIB)
        assert refused.value.desc == 'Cannot grow device files'
        # The daemon has to be gone before the device can.
        client.storage.stop()
