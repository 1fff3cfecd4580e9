# SPDX-License-Identifier: LGPL-2.1-or-later
"""The FUSE export: an image as a file that every program can use."""
import contextlib
import errno
import fcntl
import mmap
import os
import pathlib
import signal
import subprocess
import tempfile
import threading

import pytest

from harness import Daemon, QmpError, need, program, run, storaged_fails, wait_for
from write_log import FLUSH, add_logged, flags_logged, lasts

MIB = 1 << 20
SIZE = 32 * MIB
# What a program gets whose file's server has gone; the last one while the kernel takes back a ring.
GONE = errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED


RINGS = pathlib.Path('/sys/module/fuse/parameters/enable_uring')
# All tests share that switch: one program runs those that depend on it, one after the other, and a lock keeps other runs away.
RINGS_GROUP = pytest.mark.xdist_group('FUSE rings')


def rings_can_be_turned():
    return RINGS.exists() and os.access(RINGS, os.W_OK)


@contextlib.contextmanager
def rings_locked(how):
    """The switch turned on, where the kernel knows it and lets us; whoever leaves last puts it back as it was before the first one came."""
    with open(pathlib.Path(tempfile.gettempdir()) / 'ashlar-fuse-rings.lock', 'a+b', buffering=0) as lock:
        fcntl.flock(lock, how)
        if RINGS.read_text().strip() == 'N':
            lock.write(b'!')
            RINGS.write_text('Y')
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                RINGS.write_text('N' if os.fstat(lock.fileno()).st_size else 'Y')
                lock.truncate(0)


def rings_turned_on():
    """The kernel offers requests over io_uring."""
    return rings_locked(fcntl.LOCK_SH) if rings_can_be_turned() else contextlib.nullcontext()


def rings_for_us_alone():
    """The same, and nobody minds when they are turned off."""
    return rings_locked(fcntl.LOCK_EX) if rings_can_be_turned() else contextlib.nullcontext()


def ring_count(daemon):
    """How many rings of io_uring a process has."""
    folder = pathlib.Path(f'/proc/{daemon.pid}/fd')
    return sum(os.readlink(one) == 'anon_inode:[io_uring]' for one in folder.iterdir())


class Mounted:
    """A daemon whose disk is mounted on a file."""

    def __init__(self, tmp_path, options='writable=on', first=(), data=b'', **popen):
        self.image = tmp_path / 'disk.img'
        self.mountpoint = tmp_path / 'mounted'
        self.image.write_bytes(data)
        os.truncate(self.image, SIZE)
        self.mountpoint.write_bytes(b'below')
        self.arguments = [*first, '--blockdev', f'driver=file,node-name=disk,filename={self.image},discard=unmap', '--export',
                          f'type=fuse,id=fuse0,node-name=disk,mountpoint={self.mountpoint},{options}']
        self.daemon = Daemon(tmp_path, *self.arguments, **popen)
        self.qmp = self.daemon.qmp

    def open(self, flags=os.O_RDWR):
        return os.open(self.mountpoint, flags)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        try:
            self.daemon.__exit__(kind, value, traceback)
        finally:
            subprocess.run(['fusermount3', '-u', '-z', '--', self.mountpoint], stderr=subprocess.DEVNULL, check=False)
        assert not self.is_mounted()

    def is_mounted(self):
        return self.mountpoint.stat().st_dev != self.mountpoint.parent.stat().st_dev


THREADS = '--object', 'iothread,id=t0', '--object', 'iothread,id=t1'


@pytest.fixture(params=['', ',iothread=t0', ',iothread.0=t0,iothread.1=t1',
                        pytest.param('rings,iothread.0=t0,iothread.1=t1', marks=RINGS_GROUP)])
def mounted(tmp_path, request):
    with rings_turned_on() if 'rings' in request.param else contextlib.nullcontext():
        with Mounted(tmp_path, 'writable=on' + request.param.removeprefix('rings'), THREADS) as mounted:
            yield mounted


@RINGS_GROUP
@pytest.mark.parametrize('threads, queues', [('', 1), (',iothread.0=t0,iothread.1=t1', 2)])
def test_over_io_uring(tmp_path, threads, queues):
    """Each loop has a ring for its queue where the kernel can do it, besides its own; elsewhere the device serves as well."""
    plain = Daemon(tmp_path, *THREADS)
    before = ring_count(plain)
    plain.stop()
    with rings_turned_on():
        expected = min(queues, os.cpu_count()) if RINGS.exists() and RINGS.read_text().strip() == 'Y' and before else 0
        with Mounted(tmp_path, 'writable=on' + threads, THREADS) as mounted:
            fd = mounted.open()
            assert ring_count(mounted.daemon) == before + expected
            data = os.urandom(3 * MIB)
            assert os.pwrite(fd, data, 12345) == len(data)
            assert os.pread(fd, len(data), 12345) == data
            os.close(fd)
            mounted.qmp.command('block-export-del', id='fuse0', mode='hard')
            mounted.qmp.event('BLOCK_EXPORT_DELETED')
            assert ring_count(mounted.daemon) == before
            assert mounted.image.read_bytes()[12345:12345 + len(data)] == data


@RINGS_GROUP
@pytest.mark.parametrize('threads', ['', ',iothread.0=t0,iothread.1=t1'])
def test_rings_turned_off_meanwhile(tmp_path, monkeypatch, threads):
    """After the kernel has offered them and before they are registered, which it then refuses: the device serves, the export stays."""
    library = tmp_path / 'switch_at_mount.so'
    run(need('cc'), '-O1', '-shared', '-fPIC', '-o', library, pathlib.Path(__file__).with_name('switch_at_mount.c'), '-ldl')
    monkeypatch.setenv('ASAN_OPTIONS', os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0')
    with rings_for_us_alone():
        with Mounted(tmp_path, 'writable=on' + threads, THREADS, env={'LD_PRELOAD': str(library)}) as mounted:
            if rings_can_be_turned():
                assert RINGS.read_text().strip() == 'N'
            data = os.urandom(3 * MIB)
            fd = mounted.open()
            assert os.pwrite(fd, data, 12345) == len(data) and os.pread(fd, len(data), 12345) == data
            os.close(fd)
            assert [export['id'] for export in mounted.qmp.command('query-block-exports')] == ['fuse0']
            # The kernel tells of closing later on.
            mounted.qmp.command('block-export-del', id='fuse0', mode='hard')
            mounted.qmp.event('BLOCK_EXPORT_DELETED')
            assert mounted.daemon.stderr == ''


def test_reading_and_writing(mounted):
    """As dd and cmp do it, with requests of every size, and through other eyes."""
    data = os.urandom(4 * MIB + 511)
    fd = mounted.open()
    assert os.pwrite(fd, data, 1000) == len(data)
    assert os.pread(fd, len(data), 1000) == data
    os.fsync(fd)
    os.close(fd)
    assert mounted.image.read_bytes()[1000:1000 + len(data)] == data
    run('cmp', mounted.mountpoint, mounted.image)
    run('dd', f'if={mounted.mountpoint}', f'of={mounted.mountpoint}', 'bs=1000', 'count=100', 'seek=10000', 'conv=notrunc')
    run('cmp', mounted.mountpoint, mounted.image)
    run('dd', f'if={mounted.mountpoint}', 'of=/dev/null', 'bs=64k', 'iflag=direct')


def test_fio_verifies(mounted):
    run('fio', '--name=f', f'--filename={mounted.mountpoint}', '--rw=randrw', '--bs=512-256k', '--iodepth=16', '--ioengine=libaio',
        '--direct=1', f'--size={SIZE}', '--io_size=64m', '--verify=crc32c', '--verify_fatal=1', '--numjobs=1', cwd=mounted.mountpoint.parent)


def test_two_processes_at_once(mounted):
    """Each writes its own half, both see both."""
    script = 'import os, sys; fd = os.open(sys.argv[1], os.O_RDWR)\n' \
             'for n in range(400): os.pwrite(fd, bytes([int(sys.argv[3])]) * 4096, int(sys.argv[2]) + n * 4096)'
    running = [subprocess.Popen(['python3', '-c', script, mounted.mountpoint, str(start), str(byte)])
               for start, byte in ((0, 1), (16 * MIB, 2))]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    seen = mounted.mountpoint.read_bytes()
    assert seen[:400 * 4096] == b'\1' * 400 * 4096 and seen[16 * MIB:][:400 * 4096] == b'\2' * 400 * 4096


def test_holes(mounted):
    """U2: fallocate(1) and lseek(2); what is punched is given back."""
    fd = mounted.open()
    os.pwrite(fd, b'x' * 4 * MIB, 0)
    os.fsync(fd)
    run('fallocate', '--punch-hole', '--offset', MIB, '--length', MIB, mounted.mountpoint)
    run('fallocate', '--zero-range', '--offset', 3 * MIB, '--length', 4096, mounted.mountpoint)
    assert os.pread(fd, MIB, MIB) == bytes(MIB) and os.pread(fd, 4097, 3 * MIB) == bytes(4096) + b'x'
    assert os.lseek(fd, 0, os.SEEK_HOLE) == MIB
    assert os.lseek(fd, MIB, os.SEEK_DATA) == 2 * MIB
    hole = os.lseek(fd, 3 * MIB + 4096, os.SEEK_HOLE)
    assert hole == 4 * MIB
    for whence in os.SEEK_DATA, os.SEEK_HOLE:
        with pytest.raises(OSError) as error:
            os.lseek(fd, SIZE, whence)
        assert error.value.errno == errno.ENXIO
    with pytest.raises(OSError) as error:
        os.lseek(fd, 4 * MIB, os.SEEK_DATA)
    assert error.value.errno == errno.ENXIO
    assert os.fstat(fd).st_blocks == mounted.image.stat().st_blocks
    assert 'not supported' in run('fallocate', '--length', MIB, mounted.mountpoint, check=False).stderr
    os.close(fd)


def test_the_end(mounted):
    """U2: As on a device of that size."""
    fd = mounted.open()
    assert os.pread(fd, 100, SIZE - 10) == bytes(10)
    assert os.pread(fd, 100, SIZE) == b'' and os.pread(fd, 100, 1 << 50) == b''
    assert os.pwrite(fd, b'y' * 100, SIZE - 10) == 10
    for offset in SIZE, 1 << 40:
        with pytest.raises(OSError) as error:
            os.pwrite(fd, b'z', offset)
        assert error.value.errno == errno.ENOSPC
    assert mounted.image.stat().st_size == SIZE
    os.ftruncate(fd, SIZE + MIB)
    assert os.fstat(fd).st_size == mounted.image.stat().st_size == SIZE + MIB
    os.ftruncate(fd, MIB)
    assert mounted.image.stat().st_size == MIB
    run('fallocate', '--offset', 2 * MIB, '--length', MIB, mounted.mountpoint)
    run('fallocate', '--zero-range', '--offset', 3 * MIB, '--length', 100, mounted.mountpoint)
    assert mounted.image.stat().st_size == 3 * MIB + 512
    os.close(fd)


@pytest.mark.parametrize('options', ['', ',writethrough=on'])
def test_what_lasts(mounted, tmp_path, options):
    """By the log of what was done to the disk: a write for those who want each one safe, others when they are synchronised or closed."""
    log = add_logged(mounted.qmp, tmp_path, 'disk')
    path = tmp_path / 'logged'
    path.touch()
    mounted.qmp.command('block-export-add', type='fuse', id='e', node_name='logged', mountpoint=str(path), writable=True,
                        writethrough=bool(options))
    for flags in 0, os.O_DSYNC, os.O_SYNC:
        fd = os.open(path, os.O_RDWR | flags)
        before = len(flags_logged(log))
        os.pwrite(fd, b'w' * 4096, 8192)
        assert lasts(flags_logged(log)[before:]) == bool(flags or options)
        before = len(flags_logged(log))
        os.pwritev(fd, [b'w' * 4096], 8192, os.RWF_DSYNC)
        assert lasts(flags_logged(log)[before:])
        run('fallocate', '--zero-range', '--offset', 4096, '--length', 4096, path)  # which closes it
        assert lasts(flags_logged(log)[before:])
        os.pwrite(fd, b'w' * 4096, 8192)
        before = len(flags_logged(log))
        os.fsync(fd)
        assert flags_logged(log)[before] & FLUSH
        os.close(fd)


def test_opening_does_not_truncate(mounted):
    """What shells and dd say to a file, is nothing to a disk: it keeps its size and what is not written."""
    fd = mounted.open()
    os.pwrite(fd, b'kept' * 1024, MIB)
    os.close(fd)
    with open(mounted.mountpoint, 'wb') as file:
        file.write(b'newnew')
    run('dd', 'if=/dev/zero', f'of={mounted.mountpoint}', 'bs=3', 'count=1')
    assert mounted.image.stat().st_size == SIZE
    content = mounted.image.read_bytes()
    assert content[:6] == bytes(3) + b'new' and content[MIB:MIB + 4096] == b'kept' * 1024


@pytest.mark.parametrize('growable', ['on', 'off'])
def test_growing_qcow2(tmp_path, growable):
    """To the next sector."""
    image, mountpoint = tmp_path / 'disk.qcow2', tmp_path / 'mounted'
    run('qemu-img', 'create', '-f', 'qcow2', image, '1M')
    mountpoint.touch()
    with Daemon(tmp_path, '--blockdev', f'driver=file,node-name=file,filename={image}', '--blockdev',
                'driver=qcow2,node-name=disk,file=file', '--export',
                f'type=fuse,id=e,node-name=disk,mountpoint={mountpoint},writable=on,growable={growable}'):
        fd = os.open(mountpoint, os.O_RDWR)
        written = os.pwrite(fd, b'w' * 100, MIB - 10)
        assert (written, os.fstat(fd).st_size) == ((100, MIB + 512) if growable == 'on' else (10, MIB))
        run('fallocate', '--offset', MIB + 1024, '--length', 100, mountpoint)
        assert os.fstat(fd).st_size == MIB + 1536
        os.truncate(mountpoint, 2 * MIB - 1)
        assert os.fstat(fd).st_size == 2 * MIB
        assert os.pread(fd, 200, MIB - 10) == b'w' * written + bytes(200 - written)
        os.close(fd)
    run('qemu-img', 'check', image)


def test_end_moves_while_it_is_read(mounted):
    """Whoever reads behind the new end gets nothing; that is no error."""
    fd, ended, wrong = mounted.open(), threading.Event(), []

    def read_on():
        try:
            while not ended.is_set():
                if len(os.pread(fd, 4096, SIZE - 4096)) not in (0, 4096):
                    wrong.append('a part')
        except OSError as error:
            wrong.append(error)

    readers = [threading.Thread(target=read_on) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(50):
            mounted.qmp.command('block_resize', node_name='disk', size=SIZE // 2)
            mounted.qmp.command('block_resize', node_name='disk', size=SIZE)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
        os.close(fd)
    assert not wrong


def test_growable(tmp_path):
    with Mounted(tmp_path, 'writable=on,growable=on') as mounted:
        fd = mounted.open()
        assert os.pwrite(fd, b'end', SIZE + 1000) == 3
        assert os.fstat(fd).st_size == SIZE + 1024
        assert os.pread(fd, 5, SIZE + 999) == b'\0end\0'
        run('fallocate', '--offset', 2 * SIZE, '--length', MIB, mounted.mountpoint)
        assert mounted.image.stat().st_size == 2 * SIZE + MIB
        os.close(fd)


def test_attributes(mounted):
    """Owner and times as of a file of the daemon; changes of the mode hold; a writer moves the time."""
    status = mounted.mountpoint.stat()
    assert (status.st_mode, status.st_uid, status.st_size, status.st_nlink) == (0o100600, os.getuid(), SIZE, 1)
    mounted.mountpoint.chmod(0o640)
    assert mounted.mountpoint.stat().st_mode == 0o100640
    os.utime(mounted.mountpoint, (1000, 2000))
    assert (mounted.mountpoint.stat().st_atime, mounted.mountpoint.stat().st_mtime) == (1000, 2000)
    fd = mounted.open()
    os.pwrite(fd, b'a', 0)
    os.close(fd)
    assert mounted.mountpoint.stat().st_mtime > 1e9
    mounted.qmp.command('block_resize', node_name='disk', size=SIZE // 2)
    assert mounted.mountpoint.stat().st_size == SIZE // 2


@pytest.mark.parametrize('choice', ['on', 'off', 'auto'])
def test_allow_other(tmp_path, choice):
    """Other users see the file where that was wanted, or may be; then its mode decides, and its owner can be changed."""
    may = os.geteuid() == 0 or 'user_allow_other' in pathlib.Path('/etc/fuse.conf').read_text().split()
    options = f'writable=on,allow-other={choice}'
    if choice == 'on' and not may:
        with pytest.raises(AssertionError, match='Failed to mount FUSE session to export'):
            Mounted(tmp_path, options)
        return
    tmp_path.chmod(0o755)
    with Mounted(tmp_path, options, data=b'data') as mounted:
        seen = choice == 'on' or choice == 'auto' and may

        def others_read():
            done = subprocess.run(['head', '-c', '4', mounted.mountpoint], user=65534 if os.geteuid() == 0 else None,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
            return done.stdout == b'data'

        if os.geteuid() == 0:
            assert not others_read()
            mounted.mountpoint.chmod(0o644)
            assert others_read() == seen
        if seen:
            os.chown(mounted.mountpoint, os.getuid(), os.getgid())
        else:
            with pytest.raises(PermissionError):
                os.chown(mounted.mountpoint, os.getuid(), os.getgid())


def test_read_only(tmp_path):
    with Mounted(tmp_path, 'writable=off', data=b'data') as mounted:
        assert mounted.mountpoint.stat().st_mode == 0o100400
        fd = mounted.open(os.O_RDONLY)
        assert os.pread(fd, 4, 0) == b'data'
        with pytest.raises(OSError):
            os.pwrite(fd, b'x', 0)
        os.close(fd)
        for attempt in (lambda: mounted.open(os.O_RDWR), lambda: os.truncate(mounted.mountpoint, 0)):
            with pytest.raises(OSError) as error:
                attempt()
            assert error.value.errno == errno.EACCES
        with pytest.raises(OSError) as error:
            mounted.mountpoint.chmod(0o600)
        assert error.value.errno == errno.EROFS


def test_qemu_img_on_it(mounted):
    """It looks for data, checks lengths, and writes."""
    fd = mounted.open()
    os.pwrite(fd, b'q' * MIB, 2 * MIB)
    os.close(fd)
    copy = mounted.image.with_suffix('.copy')
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', mounted.mountpoint, copy)
    run('cmp', copy, mounted.image)
    assert copy.stat().st_blocks < 2 * MIB // 512
    run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', copy, mounted.mountpoint)
    run('cmp', copy, mounted.image)


def test_mounted_on_the_image_itself(tmp_path):
    image = tmp_path / 'disk.img'
    image.write_bytes(b'i' * MIB)
    with Daemon(tmp_path, '--blockdev', f'driver=file,node-name=file,filename={image}', '--blockdev',
                'driver=raw,node-name=disk,file=file,offset=4096', '--export',
                f'type=fuse,id=e,node-name=disk,mountpoint={image},writable=on'):
        assert image.stat().st_size == MIB - 4096
        with open(image, 'r+b') as mounted:
            mounted.write(b'mounted')
    assert image.read_bytes() == b'i' * 4096 + b'mounted' + b'i' * (MIB - 4096 - 7)


def test_removal(mounted):
    """U3: Refused while a program has the file open; forced, that program gets errors and nobody else notices."""
    fd = mounted.open()
    with pytest.raises(QmpError, match="export 'fuse0' still in use"):
        mounted.qmp.command('block-export-del', id='fuse0')
    mounted.qmp.command('block-export-del', id='fuse0', mode='hard')
    mounted.qmp.event('BLOCK_EXPORT_DELETED')
    assert mounted.mountpoint.read_bytes() == b'below'
    with pytest.raises(OSError) as error:
        os.pread(fd, 1, 0)
    assert error.value.errno in GONE
    with contextlib.suppress(OSError):
        os.close(fd)
    mounted.qmp.command('block-export-add', type='fuse', id='fuse0', node_name='disk', mountpoint=str(mounted.mountpoint))
    assert len(mounted.mountpoint.read_bytes()) == SIZE


def test_removal_under_load(mounted):
    """U3"""
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            try:
                fd = mounted.open()
                os.pwrite(fd, os.urandom(1 << 18), 0)
                os.close(fd)
            except OSError:
                continue
    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        mounted.qmp.command('block-export-del', id='fuse0', mode='hard')
        mounted.qmp.event('BLOCK_EXPORT_DELETED')
        mounted.qmp.command('block-export-add', type='fuse', id='fuse0', node_name='disk', writable=True,
                            mountpoint=str(mounted.mountpoint))
    stop.set()
    for thread in threads:
        thread.join()


def test_unmounted_by_somebody(mounted):
    """The export goes, with its event, and says why."""
    run('fusermount3', '-u', '--', mounted.mountpoint)
    mounted.qmp.event('BLOCK_EXPORT_DELETED')
    assert mounted.qmp.command('query-block-exports') == []
    assert "export 'fuse0': somebody has unmounted it" in mounted.daemon.stderr


@pytest.mark.parametrize('rings', [False, pytest.param(True, marks=RINGS_GROUP)])
def test_killed_and_started_again(tmp_path, rings):
    """U3: What a killed daemon has left mounted is recognised and taken away."""
    with rings_turned_on() if rings else contextlib.nullcontext(), Mounted(tmp_path) as mounted:
        fd = mounted.open()
        os.pwrite(fd, b'kept', 0)
        mounted.daemon.kill()
        with pytest.raises(OSError) as error:
            mounted.mountpoint.stat()
        assert error.value.errno in GONE
        with contextlib.suppress(OSError):
            os.close(fd)
        mounted.daemon = Daemon(tmp_path, *mounted.arguments)
        assert mounted.mountpoint.read_bytes()[:4] == b'kept'
        assert 'was still mounted by a process that has ended' in mounted.daemon.stderr


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_way_out_unmounts(tmp_path, end):
    with Mounted(tmp_path) as mounted:
        mounted.daemon.process.send_signal(end)
        assert mounted.daemon.process.wait(timeout=60) == 0
        assert not mounted.is_mounted()


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGKILL])
def test_ends_while_programs_write(mounted, end):
    """U3: Whoever has it open gets errors soon, in each of several requests at a time, and nobody hangs."""
    started, failures = threading.Barrier(5), []

    def write():
        fd = mounted.open()
        with contextlib.suppress(threading.BrokenBarrierError):
            started.wait()
        try:
            while True:
                os.pwrite(fd, bytes(MIB), 0)
        except OSError as error:
            failures.append(error.errno)
        with contextlib.suppress(OSError):
            os.close(fd)
    threads = [threading.Thread(target=write, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    mounted.daemon.process.send_signal(end)
    assert mounted.daemon.process.wait(timeout=60) == (0 if end == signal.SIGTERM else -end)
    for thread in threads:
        thread.join(60)
    assert len(failures) == 4 and set(failures) <= {*GONE, errno.EIO}
    if end == signal.SIGTERM:
        assert mounted.mountpoint.read_bytes() == b'below'
    else:
        mounted.daemon = Daemon(mounted.mountpoint.parent, *mounted.arguments)
        assert mounted.mountpoint.stat().st_size == SIZE


def test_quit_unmounts(tmp_path):
    with Mounted(tmp_path) as mounted:
        mounted.qmp.command('quit')
        assert mounted.daemon.process.wait(timeout=60) == 0
        assert not mounted.is_mounted()


def test_unmounts_where_it_has_been_moved(tmp_path):
    """The folder has another name, and something else stands in its place."""
    folder, moved = tmp_path / 'folder with a space', tmp_path / 'moved'
    folder.mkdir()
    (folder / 'mounted').touch()
    with Daemon(tmp_path, '--blockdev', 'driver=null-co,node-name=n,size=1048576', '--export',
                f'type=fuse,id=e,node-name=n,mountpoint={folder}/mounted') as daemon:
        folder.rename(moved)
        folder.mkdir()
        assert (moved / 'mounted').stat().st_size == MIB
    assert (moved / 'mounted').stat().st_size == 0
    assert daemon.stderr == ''


def test_daemon_in_the_background_unmounts(tmp_path):
    """Its working directory is another one by then."""
    (tmp_path / 'mounted').touch()
    run(program('ashlar-storaged'), '--daemonize', '--pidfile', tmp_path / 'pid', '--blockdev', 'driver=null-co,node-name=n,size=1048576',
        '--export', 'type=fuse,id=e,node-name=n,mountpoint=mounted', cwd=tmp_path)
    assert (tmp_path / 'mounted').stat().st_size == MIB
    os.kill(int((tmp_path / 'pid').read_text()), signal.SIGTERM)
    wait_for(lambda: not (tmp_path / 'pid').exists(), 'the daemon to end')
    assert (tmp_path / 'mounted').stat().st_size == 0


def test_mounted_by_another_daemon(tmp_path):
    """U1: One above it would hide it, and its end would take away the wrong one."""
    (tmp_path / 'mounted').touch()
    (tmp_path / 'link').symlink_to('mounted')
    arguments = '--blockdev', 'driver=null-co,node-name=n,size=1048576', '--export', 'type=fuse,id=e,node-name=n,mountpoint='
    with Daemon(tmp_path, *arguments[:-1], f'{arguments[-1]}{tmp_path}/mounted') as daemon:
        for path in tmp_path / 'mounted', tmp_path / 'link':
            complaint = f"There already is a FUSE export on '{path}'"
            assert complaint in storaged_fails(*arguments[:-1], f'{arguments[-1]}{path}')
            with pytest.raises(QmpError, match=complaint):
                daemon.qmp.command('block-export-add', type='fuse', id='f', node_name='n', mountpoint=str(path))
        assert (tmp_path / 'mounted').stat().st_size == MIB
    assert (tmp_path / 'mounted').stat().st_size == 0


def test_start_that_fails_later_unmounts(tmp_path):
    (tmp_path / 'mounted').touch()
    assert 'NBD server not running' in storaged_fails('--blockdev', 'driver=null-co,node-name=n,size=1048576', '--export',
                                                      f'type=fuse,id=e,node-name=n,mountpoint={tmp_path}/mounted', '--export',
                                                      'type=nbd,id=f,node-name=n')
    assert (tmp_path / 'mounted').stat().st_size == 0


@pytest.mark.parametrize('make, complaint', {
    'missing': (lambda path: None, "Failed to stat '{}': No such file or directory"),
    'folder': (lambda path: path.mkdir(), "'{}' is not a regular file"),
    'device': (lambda path: os.mkfifo(path), "'{}' is not a regular file"),
}.values())
def test_bad_mountpoints(mounted, tmp_path, make, complaint):
    """U1"""
    path = tmp_path / 'bad'
    make(path)
    with pytest.raises(QmpError) as error:
        mounted.qmp.command('block-export-add', type='fuse', id='e', node_name='disk', mountpoint=str(path))
    assert error.value.desc == complaint.format(path)


@pytest.mark.parametrize('iothreads, complaint', [
    ([], 'cannot be served by 0 iothreads'),
    (['t0', 't0'], "iothread 't0' is named twice"),
    (['t0', 'none'], 'iothread "none" not found'),
])
def test_bad_iothreads(mounted, tmp_path, iothreads, complaint):
    (tmp_path / 'other').write_bytes(b'')
    with pytest.raises(QmpError, match=complaint):
        mounted.qmp.command('block-export-add', type='fuse', id='other', node_name='disk', mountpoint=str(tmp_path / 'other'),
                            iothread=iothreads)
    mounted.qmp.command('object-add', qom_type='iothread', id='t9')
    mounted.qmp.command('object-del', id='t9')


def test_mounted_twice(mounted):
    """U1"""
    with pytest.raises(QmpError, match=f"There already is a FUSE export on '{mounted.mountpoint}'"):
        mounted.qmp.command('block-export-add', type='fuse', id='e', node_name='disk', mountpoint=str(mounted.mountpoint))


def test_writing_and_mapping(mounted):
    """Programs map files into memory to read them."""
    fd = mounted.open()
    os.pwrite(fd, b'mapped', 4096)
    with mmap.mmap(fd, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
        assert memory[4096:4102] == b'mapped'
    fcntl.fcntl(fd, fcntl.F_GETFL)
    os.close(fd)


def test_shared_mapping(mounted):
    """Kernels from 6.6 on let programs write through memory that they share; what is written beside it is seen there."""
    fd = mounted.open()
    os.pwrite(fd, b'before', 4096)
    release = tuple(map(int, os.uname().release.split('.')[:2]))
    if release < (6, 6):
        with pytest.raises(OSError):
            mmap.mmap(fd, 8192)
    else:
        with mmap.mmap(fd, 8192) as memory:
            assert memory[4096:4102] == b'before'
            memory[:6] = b'shared'
            memory.flush()
            assert mounted.image.read_bytes()[:6] == os.pread(fd, 6, 0) == b'shared'
            os.pwrite(fd, b'beside', 4096)
            assert memory[4096:4102] == b'beside'
    os.close(fd)


def test_file_system_in_qcow2(tmp_path):
    """A file system on a loop device on the mounted image."""
    image, mountpoint, folder = tmp_path / 'disk.qcow2', tmp_path / 'mounted', tmp_path / 'folder'
    run('qemu-img', 'create', '-f', 'qcow2', image, '64M')
    mountpoint.touch()
    folder.mkdir()
    content = os.urandom(5 * MIB)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Daemon(tmp_path, '--blockdev', f'driver=file,node-name=file,filename={image}', '--blockdev',
                                   'driver=qcow2,node-name=disk,file=file,discard=unmap', '--export',
                                   f'type=fuse,id=e,node-name=disk,mountpoint={mountpoint},writable=on'))
        run('mkfs.ext4', '-q', mountpoint)
        for keep in True, False:
            run('mount', '-o', 'loop', mountpoint, folder)
            stack.callback(subprocess.run, ['umount', '-l', folder], stderr=subprocess.DEVNULL, check=False)
            if keep:
                (folder / 'file').write_bytes(content)
            assert (folder / 'file').read_bytes() == content
            run('umount', folder)
        run('e2fsck', '-fn', mountpoint)
    run('qemu-img', 'check', image)
