# SPDX-License-Identifier: LGPL-2.1-or-later
"""Opening files and devices: what is refused, and with which words."""
import os
import socket

import pytest

from harness import QmpError, raw_image


@pytest.fixture
def add(daemon):
    """Adds a node and returns the complaint, or None after taking it away again."""
    qmp = daemon().qmp

    def try_it(**options):
        options.setdefault('driver', 'file')
        before = open_files(options.get('filename'))
        try:
            qmp.command('blockdev-add', **{'node-name': 'n'}, **options)
        except QmpError as error:
            assert error.error_class == 'GenericError'
            # Nothing of it is left: the name is free, and no descriptor has leaked.
            assert qmp.command('query-named-block-nodes') == []
            assert open_files(options.get('filename')) == before
            return error.desc
        qmp.command('blockdev-del', node_name='n')
        return None

    def open_files(path):
        folder = f'/proc/{qmp_pid}/fd'
        return sum(os.path.realpath(os.path.join(folder, fd)) == os.path.realpath(path) for fd in os.listdir(folder))

    qmp_pid = daemon_pid(qmp)
    return try_it


def daemon_pid(qmp):
    """Of the process at the other end of the session."""
    credentials = qmp.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], 'little')


def test_good_file(add, tmp_path):
    path = str(raw_image(tmp_path / 'disk', 1 << 20))
    assert add(filename=path) is None
    for aio in ('threads', 'io_uring'):
        assert add(filename=path, aio=aio) is None
    assert add(filename=path, aio='native', cache={'direct': True}) is None
    assert add(filename=path, locking='on') is None
    assert add(filename=path, **{'aio-max-batch': 4, 'drop-cache': False, 'x-check-cache-dropped': True}) is None
    assert add(filename=path, **{'read-only': True, 'force-share': True}) is None


def test_missing_file(add, tmp_path):
    path = f'{tmp_path}/none'
    assert add(filename=path) == f"Could not open '{path}': No such file or directory"


def test_empty_name(add):
    assert add(filename='') == "The 'file' block driver requires a file name"


def test_name_with_control_characters_stays_on_one_line(add):
    complaint = add(filename='no\nsuch\tfile%s')
    assert complaint == "Could not open 'no\\x0asuch\\x09file%s': No such file or directory"


@pytest.mark.parametrize('length', [300, 5000])
def test_name_too_long(add, length):
    assert add(filename='x' * length).endswith(': File name too long')


def test_loop_of_symbolic_links(add, tmp_path):
    os.symlink(tmp_path / 'loop', tmp_path / 'loop')
    path = f'{tmp_path}/loop'
    assert add(filename=path) == f"Could not open '{path}': Too many levels of symbolic links"


def test_descriptor_sets_are_not_known(add):
    complaint = add(filename='/dev/fdset/3')
    assert complaint == "Could not open '/dev/fdset/3': sets of file descriptors are not supported"


def test_name_is_a_plain_path(add, tmp_path):
    """What looks like a URL or options is none."""
    assert add(filename='nbd://localhost') == "Could not open 'nbd://localhost': No such file or directory"
    path = str(raw_image(tmp_path / 'disk,read-only=on', 4096))
    assert add(filename=path) is None


@pytest.mark.parametrize('read_only', [False, True])
def test_directory(add, tmp_path, read_only):
    complaint = add(filename=str(tmp_path), **{'read-only': read_only})
    if read_only:
        assert complaint == f"'file' driver requires '{tmp_path}' to be a regular file"
    else:
        assert complaint == f"Could not open '{tmp_path}': Is a directory"


@pytest.mark.parametrize('read_only', [False, True])
def test_fifo_does_not_hold_us_up(add, tmp_path, read_only):
    path = f'{tmp_path}/fifo'
    os.mkfifo(path)
    complaint = add(filename=path, **{'read-only': read_only})
    assert complaint == f"'file' driver requires '{path}' to be a regular file"


def test_socket(add, tmp_path):
    path = f'{tmp_path}/socket'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert add(filename=path) == f"Could not open '{path}': No such device or address"


def test_device_is_no_file(add):
    assert add(filename='/dev/zero') == "'file' driver requires '/dev/zero' to be a regular file"


@pytest.mark.parametrize('driver', ['host_device', 'host_cdrom'])
def test_file_is_no_device(add, tmp_path, driver):
    path = str(raw_image(tmp_path / 'disk', 4096))
    complaint = add(driver=driver, filename=path)
    assert complaint == f"'{driver}' driver requires '{path}' to be either a character or block device"


def test_character_device(add):
    assert add(driver='host_device', filename='/dev/zero') is None


def test_native_aio_wants_direct_cache(add, tmp_path):
    complaint = add(filename=str(raw_image(tmp_path / 'disk', 4096)), aio='native')
    assert complaint == 'aio=native was specified, but it requires cache.direct=on, which was not specified.'


@pytest.mark.parametrize('options', [{'aio': 'fast'}, {'locking': 'maybe'}, {'aio-max-batch': 'many'}, {'foo': 1},
                                     {'cache': {'direct': 7}}])
def test_bad_values(add, tmp_path, options):
    complaint = add(filename=str(raw_image(tmp_path / 'disk', 4096)), **options)
    member, value = next(iter(options.items()))
    assert member in complaint or 'direct' in complaint


def test_batch_size_out_of_range(add, tmp_path):
    complaint = add(filename=str(raw_image(tmp_path / 'disk', 4096)), **{'aio-max-batch': -1})
    assert 'aio-max-batch' in complaint and '-1' in complaint


def test_reservation_manager_must_exist(add, tmp_path):
    complaint = add(filename=str(raw_image(tmp_path / 'disk', 4096)), **{'pr-manager': 'none'})
    assert complaint == "No persistent reservation manager with id 'none'"


def test_force_share_is_for_reading(add, tmp_path):
    complaint = add(filename=str(raw_image(tmp_path / 'disk', 4096)), **{'force-share': True})
    assert complaint == 'force-share=on can only be used with read-only images'
