# SPDX-License-Identifier: LGPL-2.1-or-later
"""object-add, object-del and the qom commands: outcomes and words as the reference has them."""
import json
import os

import pytest

from harness import Daemon, QmpError, need, storaged_fails, wait_for


@pytest.fixture
def storaged(daemon):
    return daemon()


def refusal(daemon, command, **arguments):
    with pytest.raises(QmpError) as caught:
        daemon.qmp.command(command, **arguments)
    return caught.value.desc


def add(daemon, kind, name, **options):
    return daemon.qmp.command('object-add', qom_type=kind, id=name, **options)


def get(daemon, path, name):
    return daemon.qmp.command('qom-get', path=path, property=name)


def test_add_and_delete(storaged):
    add(storaged, 'iothread', 'io0')
    assert refusal(storaged, 'object-add', qom_type='iothread', id='io0') == \
        "attempt to add duplicate property 'io0' to object (type 'container')"
    storaged.qmp.command('object-del', id='io0')
    assert refusal(storaged, 'object-del', id='io0') == "object 'io0' not found"
    for bad in ('', '0io', 'i o', 'io/0'):
        assert refusal(storaged, 'object-add', qom_type='iothread', id=bad) == "Parameter 'id' expects an identifier"


def test_unknown_types(storaged):
    assert refusal(storaged, 'object-add', qom_type='can-bus', id='c') == 'invalid object type: can-bus'
    assert refusal(storaged, 'object-add', qom_type='nonsense', id='c') == \
        "Parameter 'qom-type' does not accept value 'nonsense'"
    assert refusal(storaged, 'object-add', qom_type='iothread', id='i', bogus=1) == "Parameter 'bogus' is unexpected"


def test_in_use(tmp_path):
    with Daemon(tmp_path, '--object', 'iothread,id=io0', '--blockdev', 'null-co,node-name=n', '--nbd-server',
                f'addr.type=unix,addr.path={tmp_path}/nbd', '--export',
                'type=nbd,id=e,node-name=n,iothread=io0') as daemon:
        assert refusal(daemon, 'object-del', id='io0') == "object 'io0' is in use, can not be deleted"
        daemon.qmp.command('block-export-del', id='e')
        daemon.qmp.event('BLOCK_EXPORT_DELETED')
        daemon.qmp.command('object-del', id='io0')


def test_paths(storaged):
    add(storaged, 'authz-simple', 'a', identity='alice')
    expected = [('type', 'string'), ('identity', 'string')]
    for path in ('/objects/a', 'objects/a', 'a', '//objects//a/'):
        assert [(row['name'], row['type']) for row in storaged.qmp.command('qom-list', path=path)] == expected
    root = {row['name']: row['type'] for row in storaged.qmp.command('qom-list', path='/')}
    assert root == {'type': 'string', 'objects': 'child<container>', 'chardevs': 'child<container>'}
    assert {'name': 'a', 'type': 'child<authz-simple>'} in storaged.qmp.command('qom-list', path='/objects')
    assert {'name': 'harness-qmp', 'type': 'child<chardev-socket>'} in storaged.qmp.command('qom-list', path='/chardevs')
    assert get(storaged, '/', 'objects') == '/objects'
    assert get(storaged, '/objects', 'a') == '/objects/a'
    assert get(storaged, '/chardevs/harness-qmp', 'type') == 'chardev-socket'
    assert refusal(storaged, 'qom-list', path='') == "Path '' is ambiguous"
    reply = storaged.qmp.execute('qom-list', {'path': '/objects/nope'})
    assert reply['error'] == {'class': 'DeviceNotFound', 'desc': "Device '/objects/nope' not found"}


def test_ambiguous_name(tmp_path):
    with Daemon(tmp_path, '--object', 'authz-simple,id=twin,identity=x', '--chardev', 'null,id=twin') as daemon:
        assert refusal(daemon, 'qom-get', path='twin', property='type') == "Path 'twin' is ambiguous"
        assert get(daemon, '/objects/twin', 'type') == 'authz-simple'
        assert get(daemon, '/chardevs/twin', 'type') == 'chardev-null'


def test_get_and_set(storaged):
    add(storaged, 'authz-simple', 'a', identity='alice')
    storaged.qmp.command('qom-set', path='/objects/a', property='identity', value='bob')
    assert get(storaged, '/objects/a', 'identity') == 'bob'
    assert refusal(storaged, 'qom-get', path='a', property='nope') == "Property 'authz-simple.nope' not found"
    assert refusal(storaged, 'qom-set', path='a', property='nope', value=1) == "Property 'authz-simple.nope' not found"
    assert refusal(storaged, 'qom-set', path='a', property='type', value='x') == \
        "Property 'authz-simple.type' is not writable"
    assert refusal(storaged, 'qom-set', path='/objects', property='a', value='x') == \
        "Property 'container.a' is not writable"
    assert refusal(storaged, 'qom-set', path='a', property='identity', value=5) == \
        "Invalid parameter type for 'identity', expected: string"


def test_rules_as_property(storaged):
    rules = [{'match': 'a*', 'policy': 'deny', 'format': 'glob'}, {'match': 'b', 'policy': 'allow'}]
    add(storaged, 'authz-list', 'l', rules=rules)
    assert get(storaged, 'l', 'rules') == rules
    assert get(storaged, 'l', 'policy') == 'deny'
    storaged.qmp.command('qom-set', path='l', property='rules', value=[])
    assert get(storaged, 'l', 'rules') == []
    assert refusal(storaged, 'qom-set', path='l', property='rules', value=[{'match': 'x'}]) == \
        "Parameter 'rules[0].policy' is missing"


def test_list_get(storaged):
    add(storaged, 'authz-simple', 'a', identity='alice')
    values = storaged.qmp.command('qom-list-get', paths=['/objects/a'])
    assert values == [{'properties': [{'name': 'type', 'type': 'string', 'value': 'authz-simple'},
                                      {'name': 'identity', 'type': 'string', 'value': 'alice'}]}]
    assert refusal(storaged, 'qom-list-get', paths=['/objects/a', '/objects/b']) == "Device '/objects/b' not found"


def test_types(storaged):
    def names(**arguments):
        return {row['name'] for row in storaged.qmp.command('qom-list-types', **arguments)}

    assert names(implements='authz') == {'authz-list', 'authz-listfile', 'authz-pam', 'authz-simple'}
    assert names(implements='authz', abstract=True) == names(implements='authz') | {'authz'}
    assert names(implements='event-loop-base') == {'iothread', 'main-loop'}
    assert names(implements='tls-creds') == {'tls-creds-anon', 'tls-creds-psk', 'tls-creds-x509', 'tls-cipher-suites'}
    assert names(implements='nope') == set()
    assert {'iothread', 'container', 'chardev-socket'} <= names()
    assert 'iothread' in names(implements='user-creatable') and 'container' not in names(implements='user-creatable')
    rows = {row['name']: row for row in storaged.qmp.command('qom-list-types', abstract=True)}
    assert rows['secret_common'] == {'name': 'secret_common', 'abstract': True, 'parent': 'object'}
    assert rows['secret'] == {'name': 'secret', 'parent': 'secret_common'}


def test_properties(storaged):
    def names(kind):
        return {row['name'] for row in storaged.qmp.command('qom-list-properties', typename=kind)}

    assert names('tls-creds-psk') == {'type', 'endpoint', 'dir', 'verify-peer', 'priority', 'username', 'loaded'}
    assert names('tls-creds') == {'type', 'endpoint', 'dir', 'verify-peer', 'priority'}
    assert names('secret_common') == {'type', 'iv', 'keyid', 'loaded', 'format'}
    assert names('event-loop-base') == {'type', 'aio-max-batch', 'thread-pool-min', 'thread-pool-max'}
    assert names('object') == names('container') == {'type'}
    reply = storaged.qmp.execute('qom-list-properties', {'typename': 'nope'})
    assert reply['error'] == {'class': 'DeviceNotFound', 'desc': "Class 'nope' not found"}
    assert refusal(storaged, 'qom-list-properties', typename='user-creatable') == \
        "Parameter 'typename' expects a QOM type"


def test_every_property_answers(storaged):
    """What qom-list names, qom-get knows, or says that it cannot be read."""
    objects = {'iothread': {}, 'main-loop': {}, 'thread-context': {}, 'throttle-group': {}, 'secret': {'data': 'x'},
               'authz-list': {}, 'authz-simple': {'identity': 'x'}, 'authz-pam': {'service': 'other'},
               'tls-creds-anon': {}, 'tls-cipher-suites': {'priority': 'NORMAL'}}
    for kind, options in objects.items():
        add(storaged, kind, f'the-{kind}', **options)
        for row in storaged.qmp.command('qom-list', path=f'/objects/the-{kind}'):
            reply = storaged.qmp.execute('qom-get', {'path': f'/objects/the-{kind}', 'property': row['name']})
            if (kind, row['name']) == ('thread-context', 'node-affinity'):
                assert reply['error']['desc'] == "Property 'thread-context.node-affinity' is not readable"
            else:
                assert 'return' in reply, reply
    assert refusal(storaged, 'object-del', id='the-main-loop') == "object 'the-main-loop' is in use, can not be deleted"


def test_command_line_json_and_keys(tmp_path):
    rules = {'qom-type': 'authz-list', 'id': 'json', 'rules': [{'match': 'a,b', 'policy': 'allow'}]}
    with Daemon(tmp_path, '--object', json.dumps(rules), '--object',
                'authz-list,id=keys,rules.0.match=a,,b,rules.0.policy=allow') as daemon:
        assert get(daemon, 'json', 'rules') == get(daemon, 'keys', 'rules') == rules['rules']


def test_command_line_errors():
    assert 'invalid object type: can-bus' in storaged_fails('--object', 'can-bus,id=c')
    assert "Parameter 'bogus' is unexpected" in storaged_fails('--object', 'iothread,id=i,bogus=1')
    assert "Parameter 'id' is missing" in storaged_fails('--object', 'iothread')


def test_iothread_settings_act(storaged):
    """The thread is there, under its name, and goes with the object."""
    def names():
        tasks = f'/proc/{storaged.pid}/task'
        return [open(f'{tasks}/{task}/comm').read().strip() for task in os.listdir(tasks)]

    add(storaged, 'iothread', 'io7')
    assert 'IO io7' in names()
    storaged.qmp.command('qom-set', path='io7', property='poll-max-ns', value=0)
    assert get(storaged, 'io7', 'poll-max-ns') == 0
    assert refusal(storaged, 'qom-set', path='io7', property='poll-max-ns', value=-1) == \
        'poll-max-ns value must be in range [0, 9223372036854775807]'
    storaged.qmp.command('object-del', id='io7')
    wait_for(lambda: 'IO io7' not in names(), 'the thread to go')


def test_thread_context_pins_its_thread(storaged):
    cpu = min(os.sched_getaffinity(0))
    add(storaged, 'thread-context', 't', cpu_affinity=[cpu])
    assert os.sched_getaffinity(get(storaged, 't', 'thread-id')) == {cpu}
    assert get(storaged, 't', 'cpu-affinity') == [cpu]


def test_reservation_helper(daemon, tmp_path):
    """The real helper: connected to at creation, or the reason why not."""
    from harness import background, listens
    path = tmp_path / 'helper.sock'
    storaged = daemon()
    assert refusal(storaged, 'object-add', qom_type='pr-manager-helper', id='p', path=str(path)) == \
        f"Failed to connect to '{path}': No such file or directory"
    with background(need('qemu-pr-helper'), '-k', path):
        wait_for(lambda: listens(path), 'the helper')
        storaged.qmp.command('object-add', qom_type='pr-manager-helper', id='p', path=str(path))
        assert get(storaged, 'p', 'path') == str(path)
        storaged.qmp.command('object-del', id='p')
