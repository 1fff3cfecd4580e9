# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exports on several iothreads."""
import pathlib

import pytest

from harness import BUILD, QmpError, raw_image, run, storaged_fails, wait_for

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


def options_of(kind, tmp_path):
    """What each type of export needs besides."""
    (tmp_path / 'file').touch()
    return {'nbd': {}, 'vhost-user-blk': {'addr': {'type': 'unix', 'path': f'{tmp_path}/v.sock'}},
            'fuse': {'mountpoint': f'{tmp_path}/file'}, 'vduse-blk': {'name': 'iothreads'}}[kind]


def in_words(kind, tmp_path, threads):
    """The same on a command line."""
    more = {'nbd': '', 'vhost-user-blk': f',addr.type=unix,addr.path={tmp_path}/v.sock', 'fuse': f',mountpoint={tmp_path}/file',
            'vduse-blk': ',name=iothreads'}[kind]
    listed = ''.join(f',iothread.{index}={name}' for index, name in enumerate(threads)) if isinstance(threads, list) else f',iothread={threads}'
    return '--export', f'type={kind},id=e,node-name=n{more}{listed}'


KINDS = 'nbd', 'vhost-user-blk', 'fuse', 'vduse-blk'
NODE_AND_SERVER = '--blockdev', 'driver=null-co,node-name=n', '--nbd-server', 'addr.type=unix,addr.path={}/nbd.sock'


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('threads, what', [(['t0', 't0'], "iothread 't0' is named twice"), ([], 'An export cannot be served by 0 iothreads'),
                                           (['t0', 'none'], 'iothread "none" not found'), ('none', 'iothread "none" not found'),
                                           ('', 'iothread "" not found'), ([''], 'iothread "" not found')])
def test_export_iothreads_refused(tmp_path, daemon, kind, threads, what):
    """In the same words for each type, over QMP and on the command line; nothing of it stays, and no iothread is held."""
    node_and_server = [word.format(tmp_path) for word in NODE_AND_SERVER]
    one = daemon(*THREADS, *node_and_server)
    with pytest.raises(QmpError) as error:
        one.qmp.command('block-export-add', type=kind, id='e', node_name='n', iothread=threads, **options_of(kind, tmp_path))
    assert error.value.desc == what
    assert one.qmp.command('query-block-exports') == []
    one.qmp.command('object-del', id='t0')
    one.stop()
    if threads:
        assert storaged_fails(*THREADS, *node_and_server, *in_words(kind, tmp_path, threads)).endswith(': ' + what)


@pytest.mark.parametrize('kind', KINDS[:3])
@pytest.mark.parametrize('threads', ['t0', ['t0'], ['t1', 't0']])
def test_export_iothreads_accepted(tmp_path, daemon, kind, threads):
    """One or a list, by either way; they are held as long as the export is there. (vduse-blk: in the guest of test_kernel_guest.)"""
    node_and_server = [word.format(tmp_path) for word in NODE_AND_SERVER]
    options_of(kind, tmp_path)
    one = daemon(*THREADS, *node_and_server, *in_words(kind, tmp_path, threads))
    for again in False, True:
        if again:
            one.qmp.command('block-export-add', type=kind, id='e', node_name='n', iothread=threads, fixed_iothread=True,
                            **options_of(kind, tmp_path))
        assert [export['type'] for export in one.qmp.command('query-block-exports')] == [kind]
        with pytest.raises(QmpError, match='in use'):
            one.qmp.command('object-del', id='t0')
        one.qmp.command('block-export-del', id='e')
        one.qmp.event('BLOCK_EXPORT_DELETED')
    one.qmp.command('object-del', id='t0')


def test_export_fixed_iothread(tmp_path, daemon):
    one = daemon(*THREADS, '--blockdev', 'driver=null-co,node-name=n', '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock',
                 '--export', 'type=nbd,id=e,node-name=n,iothread=t0,fixed-iothread=on')
    with pytest.raises(QmpError, match='active block backend'):
        one.qmp.command('x-blockdev-set-iothread', node_name='n', iothread='t1', force=True)
    one.qmp.command('block-export-del', id='e')
    one.qmp.command('x-blockdev-set-iothread', node_name='n', iothread='t1')
