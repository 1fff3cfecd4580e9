# SPDX-License-Identifier: LGPL-2.1-or-later
"""Throttle groups: limits that are refused, limits that change, and what never waits for them."""
import nbd
import pytest

from harness import QmpError, raw_image, wait_for

MIB = 1 << 20


@pytest.fixture
def storage(daemon, tmp_path):
    return daemon('--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock')


def add_group(storage, name='t', **limits):
    storage.qmp.command('object-add', **{'qom-type': 'throttle-group', 'id': name}, limits=limits)


def set_limits(storage, **limits):
    storage.qmp.command('qom-set', path='/objects/t', property='limits', value=limits)


def connect(storage, tmp_path, name='n'):
    """A client of a throttled export of its own."""
    path = raw_image(tmp_path / name, MIB, b'data')
    storage.qmp.command('blockdev-add', driver='throttle', file={'driver': 'file', 'filename': str(path)},
                        **{'node-name': name, 'throttle-group': 't'})
    storage.qmp.command('block-export-add', type='nbd', id=name, node_name=name, writable=True)
    client = nbd.NBD()
    client.set_export_name(name)
    client.connect_unix(f'{tmp_path}/nbd.sock')
    return client


def stuck_request(client, use_up=True):
    """A request that has to wait; before it, one that uses the limit up."""
    if use_up:
        client.pread(65536, 0)
    buffer = nbd.Buffer(4096)
    cookie = client.aio_pread(buffer, 4096)
    client.poll(200)
    assert not client.aio_command_completed(cookie)
    return cookie


def finish(client, cookie):
    wait_for(lambda: client.aio_command_completed(cookie) or client.poll(100) is None, 'the request to go on')


@pytest.mark.parametrize('limits, complaint', [
    ({'bps-total': 1, 'bps-read': 1},
     'bps/iops/max total values and read/write values cannot be used at the same time'),
    ({'iops-total': -1}, 'bps/iops/max values must be within [0, 1000000000000000]'),
    ({'iops-total': 10**15 + 1}, 'bps/iops/max values must be within [0, 1000000000000000]'),
    ({'bps-total': 1000, 'bps-total-max': 500}, 'bps_max/iops_max cannot be lower than bps/iops'),
    ({'bps-total-max': 500}, 'bps_max/iops_max require corresponding bps/iops values'),
    ({'bps-total': 1000, 'bps-total-max-length': 5}, 'burst length set without burst rate'),
    ({'bps-total': 1000, 'bps-total-max': 2000, 'bps-total-max-length': 0}, 'the burst length cannot be 0'),
    ({'iops-size': 5}, 'iops size requires an iops value to be set'),
])
def test_limits_that_make_no_sense(storage, limits, complaint):
    """M9"""
    with pytest.raises(QmpError) as refused:
        add_group(storage, **limits)
    assert refused.value.desc == complaint
    add_group(storage)


def test_group_in_use_stays(storage, tmp_path):
    """M9"""
    add_group(storage)
    client = connect(storage, tmp_path)
    with pytest.raises(QmpError) as refused:
        storage.qmp.command('object-del', id='t')
    assert refused.value.desc == "object 't' is in use, can not be deleted"
    client.shutdown()
    storage.qmp.command('block-export-del', id='n', mode='hard')
    storage.qmp.event('BLOCK_EXPORT_DELETED')
    storage.qmp.command('blockdev-del', node_name='n')
    storage.qmp.command('object-del', id='t')


def test_group_must_exist(storage, tmp_path):
    with pytest.raises(QmpError) as refused:
        connect(storage, tmp_path)
    assert refused.value.desc == "Throttle group 't' does not exist"


def test_new_limits_reach_who_waits(storage, tmp_path):
    add_group(storage, **{'bps-total': 1})
    client = connect(storage, tmp_path)
    cookie = stuck_request(client)
    set_limits(storage, **{'bps-total': 0})
    finish(client, cookie)


def test_refused_limits_change_nothing(storage, tmp_path):
    add_group(storage, **{'bps-total': 1})
    client = connect(storage, tmp_path)
    with pytest.raises(QmpError):
        set_limits(storage, **{'bps-read': 5})
    cookie = stuck_request(client)
    set_limits(storage, **{'bps-total': 0})
    finish(client, cookie)


def test_members_share_the_limit(storage, tmp_path):
    """What one has used up, the other waits for."""
    add_group(storage, **{'bps-total': 1})
    first = connect(storage, tmp_path, 'a')
    second = connect(storage, tmp_path, 'b')
    cookie = stuck_request(first)
    other = stuck_request(second, use_up=False)
    set_limits(storage, **{'bps-total': 0})
    finish(first, cookie)
    finish(second, other)


def test_another_group(storage, tmp_path):
    """By blockdev-reopen; who waits in the old one goes on."""
    add_group(storage, **{'bps-total': 1})
    storage.qmp.command('object-add', **{'qom-type': 'throttle-group', 'id': 'other'})
    client = connect(storage, tmp_path)
    cookie = stuck_request(client)
    options = {'driver': 'throttle', 'node-name': 'n', 'throttle-group': 'other',
               'file': {'driver': 'file', 'filename': f'{tmp_path}/n'}}
    with pytest.raises(QmpError, match='nowhere'):
        storage.qmp.command('blockdev-reopen', options=[{**options, 'throttle-group': 'nowhere'}])
    storage.qmp.command('blockdev-reopen', options=[options])
    finish(client, cookie)
    client.pread(65536, 0)
    storage.qmp.command('object-del', id='t')
    with pytest.raises(QmpError, match="object 'other' is in use"):
        storage.qmp.command('object-del', id='other')


def test_other_direction_does_not_wait(storage, tmp_path):
    add_group(storage, **{'bps-read': 1})
    client = connect(storage, tmp_path)
    cookie = stuck_request(client)
    client.pwrite(b'new!' * 1024, 0)
    client.flush()
    set_limits(storage, **{'bps-read': 0})
    finish(client, cookie)


def test_drain_does_not_wait_for_the_limit(storage, tmp_path):
    """A change of the graph, and the end of the daemon, come at once however long the queue is."""
    add_group(storage, **{'bps-total': 1})
    client = connect(storage, tmp_path)
    cookie = stuck_request(client)
    storage.qmp.command('block_resize', node_name='n', size=2 * MIB)
    finish(client, cookie)
    stuck_request(client, use_up=False)
    storage.stop()
