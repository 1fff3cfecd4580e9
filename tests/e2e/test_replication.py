# SPDX-License-Identifier: LGPL-2.1-or-later
"""replication: two daemons, a disk that follows another one from checkpoint to checkpoint, and a failover."""
import random

import nbd
import pytest
from harness import QmpError, need, raw_image, run
from job_tools import content

MIB = 1 << 20
SIZE = 4 * MIB


def connect(folder, name):
    client = nbd.NBD()
    client.set_export_name(name)
    client.connect_unix(str(folder / 'nbd'))
    return client


def serve(one, folder):
    folder.mkdir(exist_ok=True)
    one.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(folder / 'nbd')}})


def export(one, node):
    one.qmp.command('block-export-add', type='nbd', id=f'e-{node}', node_name=node, name=node, writable=True)


def secondary_nodes(folder, **replication):
    """The nodes of a secondary side: 'sec', and 'top' over 'rep' over the images."""
    images = {'driver': 'qcow2', 'node-name': 'active', 'file': {'driver': 'file', 'filename': f'{folder}/active'},
              'backing': {'driver': 'qcow2', 'node-name': 'hidden', 'backing': 'sec',
                          'file': {'driver': 'file', 'filename': f'{folder}/hidden'}}}
    return [{'driver': 'raw', 'node-name': 'sec', 'file': {'driver': 'file', 'filename': f'{folder}/sec'}},
            {'driver': 'replication', 'node-name': 'rep', 'mode': 'secondary', 'top-id': 'top', 'file': images,
             **replication},
            {'driver': 'quorum', 'node-name': 'top', 'read-pattern': 'fifo', 'vote-threshold': 1, 'children': ['rep']}]


def make_images(folder, hidden=SIZE):
    folder.mkdir(exist_ok=True)
    raw_image(folder / 'sec', SIZE)
    with open(folder / 'sec', 'r+b') as image:
        image.write(b'old!' * (MIB // 4))
    for name, size in (('active', SIZE), ('hidden', hidden)):
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', str(folder / name), str(size))


@pytest.fixture
def secondary(daemon, tmp_path):
    """A secondary side that has not been started."""
    (tmp_path / 's').mkdir()
    make_images(tmp_path / 's')
    one = daemon()
    one.folder = tmp_path / 's'
    for options in secondary_nodes(one.folder):
        one.qmp.command('blockdev-add', **options)
    serve(one, one.folder)
    return one


def start(one, primary):
    one.qmp.command('xen-set-replication', enable=True, primary=primary)


def stop(one, **options):
    one.qmp.command('xen-set-replication', enable=False, primary=False, **options)


def status(one):
    return one.qmp.command('query-xen-replication-status')


def test_nothing_before_the_start(secondary):
    export(secondary, 'top')
    client = connect(secondary.folder, 'top')
    with pytest.raises(nbd.Error):
        client.pread(512, 0)
    for command in ('xen-colo-do-checkpoint',):
        with pytest.raises(QmpError, match="Block replication is not running: node 'rep'"):
            secondary.qmp.command(command)
    with pytest.raises(QmpError, match='Block replication is not running'):
        stop(secondary)
    with pytest.raises(QmpError, match="needs 'secondary', but got 'primary'"):
        start(secondary, True)
    with pytest.raises(QmpError, match="Parameter 'failover'"):
        secondary.qmp.command('xen-set-replication', enable=True, primary=False, failover=True)
    assert status(secondary) == {'error': False}


def test_checkpoints(secondary):
    """The user of the secondary side sees the last checkpoint and its own changes, whatever the other host writes."""
    export(secondary, 'sec')
    export(secondary, 'top')
    start(secondary, False)
    other, user = connect(secondary.folder, 'sec'), connect(secondary.folder, 'top')
    seed = random.Random(6)
    for _ in range(3):
        checkpoint = bytearray(content(secondary.folder / 'sec'))
        view = bytearray(checkpoint)
        assert user.pread(SIZE, 0) == view
        for number in range(60):
            at, length = seed.randrange(SIZE // 512 - 200) * 512, seed.randrange(1, 200) * 512
            data = seed.randbytes(length)
            if number % 10 == 9:
                other.zero(length, at)
                checkpoint[at:at + length] = bytes(length)
            elif number % 3:
                other.pwrite(data, at)
                checkpoint[at:at + length] = data
            else:
                user.pwrite(data, at)
                view[at:at + length] = data
            if number % 15 == 0:
                assert user.pread(SIZE, 0) == view
        assert user.pread(SIZE, 0) == view
        assert other.pread(SIZE, 0) == checkpoint
        secondary.qmp.command('xen-colo-do-checkpoint')
        assert user.pread(SIZE, 0) == checkpoint
        other.flush()
    assert status(secondary) == {'error': False}
    stop(secondary)
    assert user.pread(SIZE, 0) == content(secondary.folder / 'sec')
    for client in (other, user):
        client.shutdown()


def test_failover(secondary):
    """What the user sees becomes the secondary disk, and the user goes on there."""
    export(secondary, 'sec')
    export(secondary, 'top')
    start(secondary, False)
    other, user = connect(secondary.folder, 'sec'), connect(secondary.folder, 'top')
    view = bytearray(content(secondary.folder / 'sec'))
    user.pwrite(b'mine' * 1024, MIB - 2048)
    view[MIB - 2048:MIB + 2048] = b'mine' * 1024
    user.zero(8192, 65536)
    view[65536:65536 + 8192] = bytes(8192)
    other.pwrite(b'lost' * 4096, 500 * 1024)
    other.pwrite(b'lost' * 4096, 3 * MIB)
    other.shutdown()
    stop(secondary, failover=True)
    assert user.pread(SIZE, 0) == view
    assert content(secondary.folder / 'sec') == view
    user.pwrite(b'next' * 128, 0)
    user.flush()
    assert content(secondary.folder / 'sec')[:512] == b'next' * 128
    with pytest.raises(QmpError, match='Block replication is running or done'):
        start(secondary, False)
    secondary.qmp.command('block-export-del', id='e-sec')
    user.shutdown()


def test_two_hosts(secondary, daemon, tmp_path):
    """A primary side writes to its own disk and to the other host's, and goes on where that one is lost."""
    (tmp_path / 'p').mkdir()
    raw_image(tmp_path / 'p' / 'disk', SIZE)
    (tmp_path / 'p' / 'disk').write_bytes(content(secondary.folder / 'sec'))
    export(secondary, 'sec')
    start(secondary, False)
    from harness import Daemon
    with Daemon(tmp_path / 'p') as primary:
        primary.qmp.command('blockdev-add', driver='quorum', children=[
            {'driver': 'file', 'filename': f'{tmp_path}/p/disk'}],
            **{'node-name': 'disk', 'read-pattern': 'fifo', 'vote-threshold': 1})
        primary.qmp.command('blockdev-add', driver='replication', mode='primary', file={
            'driver': 'nbd', 'export': 'sec', 'server': {'type': 'unix', 'path': f'{secondary.folder}/nbd'}},
            **{'node-name': 'copy'})
        start(primary, True)
        primary.qmp.command('x-blockdev-change', parent='disk', node='copy')
        serve(primary, tmp_path / 'p')
        export(primary, 'disk')
        user = connect(tmp_path / 'p', 'disk')
        user.pwrite(b'both' * 1024, 12288)
        user.flush()
        assert content(tmp_path / 'p' / 'disk') == content(secondary.folder / 'sec')
        secondary.qmp.command('xen-colo-do-checkpoint')
        primary.qmp.command('xen-colo-do-checkpoint')
        assert status(primary) == {'error': False}
        secondary.qmp.command('block-export-del', id='e-sec', mode='hard')
        user.pwrite(b'one!' * 1024, 0)
        assert user.pread(4096, 0) == b'one!' * 1024
        state = status(primary)
        assert state['error'] and "node 'copy'" in state['desc']
        primary.qmp.command('x-blockdev-change', parent='disk', child='children.1')
        stop(primary)
        user.shutdown()
    stop(secondary)


@pytest.mark.parametrize('change, complaint', [
    ({'mode': 'primary'}, 'The primary side does not support option top-id'),
    ({'top-id': None}, 'Missing the option top-id'),
])
def test_bad_options(daemon, tmp_path, change, complaint):
    make_images(tmp_path / 's')
    one = daemon()
    sec, rep, _ = secondary_nodes(tmp_path / 's')
    one.qmp.command('blockdev-add', **sec)
    options = {key: value for key, value in {**rep, **change}.items() if value is not None}
    with pytest.raises(QmpError, match=complaint):
        one.qmp.command('blockdev-add', **options)


def test_images_that_do_not_fit(daemon, tmp_path):
    """Each refusal leaves everything as it was."""
    folder = tmp_path / 's'
    make_images(folder, hidden=2 * SIZE)
    one = daemon()
    sec, rep, top = secondary_nodes(folder)
    for options in (sec, rep):
        one.qmp.command('blockdev-add', **options)
    with pytest.raises(QmpError, match="No top_bs or it is invalid: 'top'"):
        start(one, False)
    one.qmp.command('blockdev-add', **top)
    with pytest.raises(QmpError, match="disk's length are not the same: 4194304, 8388608, 4194304 bytes"):
        start(one, False)
    for name in ('top', 'rep'):
        one.qmp.command('blockdev-del', **{'node-name': name})
    raw_image(folder / 'plain', SIZE)
    one.qmp.command('blockdev-add', **{**rep, 'file': {'driver': 'file', 'filename': f'{folder}/plain'}})
    one.qmp.command('blockdev-add', **top)
    with pytest.raises(QmpError, match="Active disk '.*' doesn't have backing file"):
        start(one, False)


def test_closed_while_it_runs(secondary):
    export(secondary, 'sec')
    start(secondary, False)
    other = connect(secondary.folder, 'sec')
    other.pwrite(b'data' * 1024, 0)
    for name in ('top', 'rep'):
        secondary.qmp.command('blockdev-del', **{'node-name': name})
    other.pwrite(b'more' * 1024, 8192)
    other.shutdown()
    names = {node['node-name'] for node in secondary.qmp.command('query-named-block-nodes')}
    assert not {'rep', 'top', 'active', 'hidden'} & names


def test_saving_fails(daemon, tmp_path):
    """The hidden disk is full: that is told, and the other host's writes go on."""
    folder = tmp_path / 's'
    make_images(folder)
    one = daemon()
    one.folder = folder
    sec, rep, top = secondary_nodes(folder)
    hidden = rep['file']['backing']
    hidden['file'] = {'driver': 'blkdebug', 'image': hidden['file'],
                      'inject-error': [{'event': 'write_aio', 'iotype': 'write', 'errno': 28}]}
    for options in (sec, rep, top):
        one.qmp.command('blockdev-add', **options)
    serve(one, folder)
    export(one, 'sec')
    start(one, False)
    other = connect(folder, 'sec')
    other.pwrite(b'data' * 1024, 0)
    assert status(one) == {'error': True, 'desc': "I/O error occurred: node 'rep': No space left on device"}
    with pytest.raises(QmpError, match='I/O error occurred'):
        one.qmp.command('xen-colo-do-checkpoint')
    other.shutdown()
