# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exports on several iothreads."""
import pathlib

import pytest

from harness import BUILD, QmpError, raw_image, run, wait_for

THREADS = [word for number in range(2) for word in ('--object', f'iothread,id=t{number}')]
SIZE = 8 << 20


def switches(daemon, name):
    """How often a thread of the daemon has slept so far."""
    for task in pathlib.Path(f'/proc/{daemon.pid}/task').iterdir():
        if (task / 'comm').read_text().strip() == f'IO {name}':
            return next(int(line.split()[1]) for line in (task / 'status').read_text().splitlines()
                        if line.startswith('voluntary_ctxt_switches'))
    raise AssertionError(name)


def test_export_iothreads_share_nbd_connections(tmp_path, daemon):
    image = raw_image(tmp_path / 'image', SIZE, b'abc')
    one = daemon(*THREADS, '--blockdev', f'driver=file,node-name=n,filename={image}', '--nbd-server',
                 f'addr.type=unix,addr.path={tmp_path}/nbd.sock', '--export',
                 'type=nbd,id=e,node-name=n,writable=on,iothread.0=t0,iothread.1=t1')
    before = [switches(one, f't{number}') for number in range(2)]
    run('nbdcopy', '--connections=4', f'nbd+unix:///n?socket={tmp_path}/nbd.sock', tmp_path / 'copy')
    assert (tmp_path / 'copy').read_bytes() == image.read_bytes()
    assert all(switches(one, f't{number}') > before[number] for number in range(2))


def test_export_iothreads_share_vhost_user_queues(tmp_path, daemon):
    image = raw_image(tmp_path / 'image', SIZE)
    one = daemon(*THREADS, '--blockdev', f'driver=file,node-name=n,filename={image}', '--export',
                 'type=vhost-user-blk,id=e,node-name=n,writable=on,num-queues=2,iothread.0=t0,iothread.1=t1,'
                 f'addr.type=unix,addr.path={tmp_path}/v.sock')
    before = [switches(one, f't{number}') for number in range(2)]
    run(BUILD / 'tests' / 'vhost-bench', tmp_path / 'v.sock', 'write', 8, 2, 0.1)
    wait_for(lambda: all(switches(one, f't{number}') > before[number] for number in range(2)), 'both threads to have worked')


@pytest.mark.parametrize('threads, what', [(['t0', 't0'], 'twice'), ([], 'cannot be served by 0'), (['t0', 'none'], 'none'), ('none', 'none')])
def test_export_iothreads_refused(tmp_path, daemon, threads, what):
    one = daemon(*THREADS, '--blockdev', 'driver=null-co,node-name=n')
    one.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': f'{tmp_path}/nbd.sock'}})
    with pytest.raises(QmpError, match=what):
        one.qmp.command('block-export-add', type='nbd', id='e', node_name='n', iothread=threads)
    one.qmp.command('block-export-add', type='nbd', id='e', node_name='n', iothread=['t1', 't0'])


def test_export_fixed_iothread(tmp_path, daemon):
    one = daemon(*THREADS, '--blockdev', 'driver=null-co,node-name=n', '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock',
                 '--export', 'type=nbd,id=e,node-name=n,iothread=t0,fixed-iothread=on')
    with pytest.raises(QmpError, match='active block backend'):
        one.qmp.command('x-blockdev-set-iothread', node_name='n', iothread='t1', force=True)
    one.qmp.command('block-export-del', id='e')
    one.qmp.command('x-blockdev-set-iothread', node_name='n', iothread='t1')
