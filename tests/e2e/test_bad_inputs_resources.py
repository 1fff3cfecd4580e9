# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors, threads and io_uring that the system does not give us (S4): a clear error or another way, and no crash."""
import errno
import socket

import pytest

import seccomp
from harness import PATIENCE_S, QmpError, need, raw_image, run
from nbd_serving import MIB, Served, pattern


def descriptor_limit(one, count):
    run(need('prlimit'), f'--nofile={count}:4096', '--pid', one.pid)


@pytest.mark.parametrize('error', [errno.ENOSYS, errno.EPERM, errno.ENOMEM], ids=errno.errorcode.get)
def test_io_uring_refused(daemon, tmp_path, error):
    # S4: as in many containers, and where the administrator has disabled it: the other back end takes over
    served = Served(daemon, tmp_path, first=['--object', 'iothread,id=io'], export='writable=on,iothread=io',
                    preexec_fn=seccomp.refuse(seccomp.IO_URING_SETUP, error))
    data = pattern(64 << 10, seed=3)
    with served.open() as client:
        client.write(MIB // 2, data)
        assert client.read(MIB // 2, len(data)) == data
    served.check_alive()


@pytest.mark.parametrize('loop', ['io_uring', 'epoll'])
def test_threads_refused(daemon, tmp_path, loop):
    # S4: an iothread that cannot have its thread is not there; what workers would do, the loop does itself
    served = Served(daemon, tmp_path, extra=['--object', 'main-loop,id=main,thread-pool-min=2'],
                    env={'ASHLAR_LOOP': loop}, preexec_fn=seccomp.refuse(seccomp.CLONE3, errno.EAGAIN))
    for _ in range(3):
        with pytest.raises(QmpError) as caught:
            served.qmp.command('object-add', qom_type='iothread', id='io')
        assert 'IO io' in caught.value.desc and 'Resource temporarily unavailable' in caught.value.desc
    assert [entry['name'] for entry in served.qmp.command('qom-list', path='/objects')] == ['type', 'main']
    data = pattern(64 << 10, seed=3)
    with served.open() as client:
        client.write(MIB // 2, data)
        assert client.read(MIB // 2, len(data)) == data
    served.check_alive()


def test_descriptors_run_out_for_nbd_clients(daemon, tmp_path):
    # S4: who is there is served, who comes waits for a place
    served = Served(daemon, tmp_path)
    with served.open() as client:
        descriptor_limit(served.daemon, served.descriptors())
        waiting = []
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(served.path))
            waiting.append(sock)
        for _ in range(50):
            assert client.read(0, 4096) == served.content()[:4096]
        served.qmp.command('query-version')
        with pytest.raises(QmpError) as caught:
            served.qmp.command('blockdev-add', driver='file', node_name='more', filename=str(served.image))
        assert caught.value.desc == f"Could not open '{served.image}': Too many open files"
        descriptor_limit(served.daemon, 1024)
        for sock in waiting:
            sock.settimeout(PATIENCE_S)
            assert sock.recv(8) == b'NBDMAGIC'
            sock.close()
    served.check_alive()
