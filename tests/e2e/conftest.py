# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture
def tmp_path():
    """A folder for the test; its path is short, because the paths of Unix sockets have at most 107 bytes."""
    path = tempfile.mkdtemp(prefix='ashlar-')
    yield pathlib.Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def daemon(tmp_path):
    """Starts daemons: daemon('--blockdev', ...). They are stopped, and looked at, when the test ends."""
    from harness import Daemon
    running = []

    def start(*arguments, **kwargs):
        running.append(Daemon(tmp_path, *arguments, **kwargs))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def pool_daemon(tmp_path):
    """A pool daemon that is still to be started; it is stopped when the test ends."""
    from pool_daemon import PoolDaemon
    one = PoolDaemon(tmp_path)
    yield one
    one.stop()


@pytest.fixture(scope='session')
def pool_machine():
    """The machine of all tests in the group "pool guest"."""
    from pool_guest import PoolGuest
    folder = pathlib.Path(tempfile.mkdtemp(prefix='ashlar-'))
    with PoolGuest(folder) as machine:
        yield machine
    shutil.rmtree(folder)


@pytest.fixture
def pool_guest(pool_machine):
    """A pool daemon in a machine with a whole kernel; it has no pools yet, and those that a test makes are taken away."""
    yield pool_machine
    pool_machine.clean_up()
