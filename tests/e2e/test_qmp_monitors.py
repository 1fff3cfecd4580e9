# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several monitors at once, and events."""
import time

import pytest

from harness import Qmp, QmpError, storaged_fails


def monitors(tmp_path, count):
    paths = [tmp_path / f'm{number}.sock' for number in range(count)]
    options = []
    for number, path in enumerate(paths):
        options += ['--chardev', f'socket,id=m{number},path={path},server=on,wait=off',
                    '--monitor', f'chardev=m{number},id=monitor{number}']
    return paths, options


def export_one(qmp, tmp_path):
    qmp.command('blockdev-add', driver='null-co', node_name='n', size=1 << 20)
    qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd.sock')}})
    qmp.command('block-export-add', type='nbd', id='e', node_name='n')


def test_qmp_many_monitors(daemon, tmp_path):
    paths, options = monitors(tmp_path, 20)
    daemon(*options)
    clients = [Qmp.connect(path) for path in paths]
    for client in clients:
        client.send_raw('{"execute": "query-version", "id": 1}' * 100)
    for client in clients:
        for _ in range(100):
            assert client.reply()['id'] == 1
        client.close()


def test_qmp_monitors_negotiate_apart(daemon, tmp_path):
    paths, options = monitors(tmp_path, 2)
    daemon(*options)
    first = Qmp.connect(paths[0])
    second = Qmp.connect(paths[1], negotiate=False)
    assert first.command('query-version')
    with pytest.raises(QmpError) as caught:
        second.command('query-version')
    assert caught.value.error_class == 'CommandNotFound'
    first.close()
    second.close()


def test_qmp_event_to_all_who_negotiated(daemon, tmp_path):
    paths, options = monitors(tmp_path, 2)
    one = daemon(*options)
    negotiated = Qmp.connect(paths[0])
    silent = Qmp.connect(paths[1], negotiate=False)
    export_one(one.qmp, tmp_path)
    started = time.time()
    one.qmp.command('block-export-del', id='e')
    for client in (one.qmp, negotiated):
        event = client.event('BLOCK_EXPORT_DELETED')
        assert event['data'] == {'id': 'e'}
        stamp = event['timestamp']
        assert stamp.keys() == {'seconds', 'microseconds'}
        assert 0 <= stamp['microseconds'] < 1000000
        assert started - 1 <= stamp['seconds'] <= time.time()
    assert silent.execute('qmp_capabilities') == {'return': {}}
    assert not silent.events
    negotiated.close()
    silent.close()


def test_qmp_events_of_the_end_come_after_the_reply(daemon, tmp_path):
    one = daemon()
    export_one(one.qmp, tmp_path)
    one.qmp.command('quit')
    assert not one.qmp.events
    assert one.qmp.event('BLOCK_EXPORT_DELETED')['data'] == {'id': 'e'}


def test_qmp_monitor_options_as_json(daemon, tmp_path):
    path = tmp_path / 'json.sock'
    daemon('--chardev', f'socket,id=j,path={path},server=on,wait=off',
           '--monitor', '{"chardev": "j", "mode": "control", "pretty": false, "id": "mon"}')
    qmp = Qmp.connect(path)
    assert qmp.command('query-version')
    qmp.close()


@pytest.mark.parametrize('options, complaint', [
    (['--monitor', 'chardev=c'], '--monitor chardev=c: chardev "c" not found'),
    (['--monitor', 'c'], '--monitor c: chardev "c" not found'),
    (['--monitor', ''], "--monitor : Parameter 'chardev' is missing"),
    (['--chardev', 'null,id=c', '--monitor', 'c,mode=readline'], '--monitor c,mode=readline: Only QMP is supported'),
    (['--chardev', 'null,id=c', '--monitor', 'c', '--monitor', 'c'], "--monitor c: Device 'c' is in use"),
    (['--chardev', 'null,id=c', '--monitor', 'c,pretty=foo'],
     "--monitor c,pretty=foo: Parameter 'pretty' expects 'on' or 'off', not 'foo'"),
    (['--chardev', 'null,id=c', '--monitor', 'c,x=1'], "--monitor c,x=1: Parameter 'x' is unexpected"),
    (['--chardev', 'null,id=c', '--chardev', 'null,id=d', '--monitor', 'c,id=m', '--monitor', 'd,id=m'],
     "--monitor d,id=m: Duplicate ID 'm' for monitor"),
])
def test_qmp_monitor_refused(options, complaint):
    assert storaged_fails(*options) == complaint
