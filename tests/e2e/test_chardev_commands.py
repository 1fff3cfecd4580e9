# SPDX-License-Identifier: LGPL-2.1-or-later
"""The QMP commands of character devices; texts and names as programs know them from the reference."""
import base64
import os

import pytest

from chardev_peers import chardev, filename, unix_connect, wait_connected
from harness import QmpError


def add(qmp, name, kind, **data):
    return qmp.command('chardev-add', id=name,
                       backend={'type': kind, 'data': {key.replace('_', '-'): value for key, value in data.items()}})


def add_fails(qmp, name, kind, **data):
    with pytest.raises(QmpError) as caught:
        add(qmp, name, kind, **data)
    assert caught.value.error_class == 'GenericError'
    return caught.value.desc


def fails(qmp, command, /, **arguments):
    with pytest.raises(QmpError) as caught:
        qmp.command(command, **arguments)
    assert caught.value.error_class == 'GenericError'
    return caught.value.desc


def unix(path):
    return {'type': 'unix', 'data': {'path': str(path)}}


def inet(host, port, **more):
    return {'type': 'inet', 'data': {'host': host, 'port': str(port), **more}}


def test_backends_are_listed(daemon):
    names = {entry['name'] for entry in daemon().qmp.command('query-chardev-backends')}
    assert names == {'file', 'serial', 'parallel', 'pipe', 'socket', 'udp', 'pty', 'null', 'mux', 'hub', 'stdio', 'ringbuf',
                     'memory'}


def test_monitor_is_listed(daemon):
    one = daemon()
    assert chardev(one.qmp, 'harness-qmp') == {
        'label': 'harness-qmp', 'filename': f'unix:{one.qmp_path},server=on', 'frontend-open': True}


def test_add_and_remove(daemon):
    qmp = daemon().qmp
    assert add(qmp, 'n', 'null') == {}
    assert chardev(qmp, 'n') == {'label': 'n', 'filename': 'null', 'frontend-open': False}
    assert add_fails(qmp, 'n', 'null') == "Chardev with id 'n' already exists"
    assert qmp.command('chardev-remove', id='n') == {}
    assert fails(qmp, 'chardev-remove', id='n') == "Chardev 'n' not found"
    assert fails(qmp, 'chardev-remove', id='harness-qmp') == "Chardev 'harness-qmp' is busy"
    assert 'n' not in [entry['label'] for entry in qmp.command('query-chardev')]


@pytest.mark.parametrize('kind', ['vc', 'msmouse', 'wctablet', 'testdev'])
def test_backend_that_this_build_has_not(daemon, kind):
    assert add_fails(daemon().qmp, 'x', kind) == f"Failed to add chardev 'x': '{kind}' is not a valid char driver name"


def test_arguments_are_checked(daemon):
    qmp = daemon().qmp
    assert 'backend.data' in fails(qmp, 'chardev-add', id='z', backend={'type': 'null'})
    assert 'x' in add_fails(qmp, 'z', 'null', x=1)
    assert 'zz' in fails(qmp, 'chardev-add', id='z', backend={'type': 'zz', 'data': {}})
    assert 'size' in add_fails(qmp, 'z', 'ringbuf', size='a')
    assert add_fails(qmp, '', 'null') == "Failed to add chardev '': the id is empty"


def test_failures_to_open(daemon, tmp_path):
    qmp = daemon().qmp
    gone = tmp_path / 'gone' / 'x'
    prefix = "Failed to add chardev 'x': "
    for kind, data in (('file', {'out': str(gone)}), ('pipe', {'device': str(gone)}), ('serial', {'device': str(gone)}),
                       ('parallel', {'device': str(gone)}), ('file', {'in': str(gone), 'out': '/dev/null'})):
        assert add_fails(qmp, 'x', kind, **data) == f"{prefix}Could not open '{gone}': No such file or directory"
    assert add_fails(qmp, 'x', 'null', logfile=str(gone)) == f"{prefix}Could not create '{gone}': No such file or directory"
    assert add_fails(qmp, 'x', 'parallel', device='/dev/null').startswith(f'{prefix}not a parallel port: ')
    assert add_fails(qmp, 'x', 'socket', addr=unix(gone), server=False) == \
        f"{prefix}Failed to connect to '{gone}': No such file or directory"
    assert add_fails(qmp, 'x', 'socket', addr=unix(gone), wait=False) == \
        f'{prefix}Failed to bind socket to {gone}: No such file or directory'
    assert add_fails(qmp, 'x', 'socket', addr=unix('x' * 200), wait=False).startswith(
        f"{prefix}UNIX socket path '{'x' * 200}' is too long")
    assert add_fails(qmp, 'x', 'socket', addr={'type': 'fd', 'data': {'str': 'zz'}}) == f'{prefix}Unable to parse FD number zz'
    assert add_fails(qmp, 'x', 'socket', addr=inet('localhost', 1, ipv4=False, ipv6=False)) == \
        f'{prefix}Cannot disable IPv4 and IPv6 at same time'
    assert add_fails(qmp, 'x', 'udp', remote=unix('/x')) == f'{prefix}socket type unsupported for datagram'
    assert [entry['label'] for entry in qmp.command('query-chardev')] == ['harness-qmp']


def test_options_that_contradict_each_other(daemon, tmp_path):
    qmp = daemon().qmp
    addr = unix(tmp_path / 's')
    prefix = "Failed to add chardev 'x': "
    assert add_fails(qmp, 'x', 'socket', addr=addr, server=True, reconnect_ms=5) == \
        f"{prefix}'reconnect' option is incompatible with socket in server listen mode"
    assert add_fails(qmp, 'x', 'socket', addr=addr, server=False, wait=True) == \
        f"{prefix}'wait' option is incompatible with socket in client connect mode"
    assert add_fails(qmp, 'x', 'socket', addr=addr, server=False, reconnect=1, reconnect_ms=5) == \
        f"{prefix}'reconnect' and 'reconnect-ms' are mutually exclusive"
    assert '-7' in add_fails(qmp, 'x', 'socket', addr=addr, server=False, reconnect_ms=-7)
    assert add_fails(qmp, 'x', 'socket', addr=addr, tls_authz='a') == f"{prefix}'tls_authz' option requires 'tls_creds' option"
    assert add_fails(qmp, 'x', 'socket', addr=addr, tls_creds='none') == f"{prefix}No TLS credentials with id 'none'"


def test_names(daemon, tmp_path):
    qmp = daemon().qmp
    add(qmp, 'file', 'file', out='/dev/null')
    add(qmp, 'ring', 'ringbuf')
    add(qmp, 'memory', 'memory')
    add(qmp, 'serial', 'serial', device='/dev/null')
    add(qmp, 'udp', 'udp', remote=inet('127.0.0.1', 9))
    for name in ('file', 'memory', 'serial', 'udp'):
        assert filename(qmp, name) == name
    assert filename(qmp, 'ring') == 'ringbuf'
    add(qmp, 'unix', 'socket', addr=unix(tmp_path / 's'), wait=False)
    assert filename(qmp, 'unix') == f'disconnected:unix:{tmp_path}/s,server=on'
    add(qmp, 'tight', 'socket', addr={'type': 'unix', 'data': {'path': f'{tmp_path}-t', 'abstract': True}}, wait=False)
    assert filename(qmp, 'tight') == f'disconnected:unix:{tmp_path}-t,abstract=on,tight=on,server=on'
    loose = {'type': 'unix', 'data': {'path': f'{tmp_path}-l', 'abstract': True, 'tight': False}}
    add(qmp, 'loose', 'socket', addr=loose, wait=False)
    assert filename(qmp, 'loose') == f'disconnected:unix:{tmp_path}-l,abstract=on,server=on'
    for name, options, protocol in (('tcp', {}, 'tcp'), ('telnet', {'telnet': True}, 'telnet'),
                                    ('tn3270', {'tn3270': True}, 'tcp'), ('websocket', {'websocket': True}, 'websocket')):
        add(qmp, name, 'socket', addr=inet('127.0.0.1', 0), wait=False, **options)
        assert filename(qmp, name).startswith(f'disconnected:{protocol}:127.0.0.1:')
        assert filename(qmp, name).endswith(',server=on')
    pty = add(qmp, 'pty', 'pty')['pty']
    assert os.path.exists(pty)
    assert filename(qmp, 'pty') == f'pty:{pty}'


def test_change(daemon, tmp_path):
    qmp = daemon().qmp
    null = {'type': 'null', 'data': {}}
    add(qmp, 'c', 'ringbuf')
    assert fails(qmp, 'chardev-change', id='none', backend=null) == "Chardev 'none' does not exist"
    assert fails(qmp, 'chardev-change', id='harness-qmp', backend=null) == 'Chardev user does not support chardev hotswap'
    assert fails(qmp, 'chardev-change', id='c', backend={'type': 'file', 'data': {'out': '/gone/x'}}) == \
        "Failed to add chardev 'c': Could not open '/gone/x': No such file or directory"
    # What could not be changed is what it was.
    assert filename(qmp, 'c') == 'ringbuf'
    assert qmp.command('chardev-change', id='c', backend=null) == {}
    assert filename(qmp, 'c') == 'null'
    assert qmp.command('chardev-change', id='c', backend={'type': 'pty', 'data': {}})['pty'].startswith('/dev/')
    # Even into another socket with the same path.
    backend = {'type': 'socket', 'data': {'addr': unix(tmp_path / 's'), 'wait': False}}
    for _ in range(2):
        qmp.command('chardev-change', id='c', backend=backend)
        with unix_connect(tmp_path / 's'):
            wait_connected(qmp, 'c')
    add(qmp, 'm', 'mux', chardev='c')
    assert fails(qmp, 'chardev-change', id='m', backend=null) == 'Mux device hotswap not supported yet'
    assert fails(qmp, 'chardev-change', id='c', backend=null) == 'Chardev user does not support chardev hotswap'


def test_mux_holds_its_base(daemon):
    qmp = daemon().qmp
    add(qmp, 'n', 'null')
    assert add_fails(qmp, 'm', 'mux', chardev='none') == "Failed to add chardev 'm': mux: base chardev none not found"
    add(qmp, 'm', 'mux', chardev='n')
    assert add_fails(qmp, 'm2', 'mux', chardev='n') == "Failed to add chardev 'm2': Device 'n' is in use"
    assert fails(qmp, 'chardev-remove', id='n') == "Chardev 'n' is busy"
    qmp.command('chardev-remove', id='m')
    qmp.command('chardev-remove', id='n')


def test_send_break(daemon):
    qmp = daemon().qmp
    add(qmp, 'n', 'null')
    assert qmp.command('chardev-send-break', id='n') == {}
    assert fails(qmp, 'chardev-send-break', id='none') == "Chardev 'none' not found"


def test_ringbuf(daemon):
    qmp = daemon().qmp
    assert add_fails(qmp, 'r', 'ringbuf', size=1000) == "Failed to add chardev 'r': size of ringbuf chardev must be power of two"
    assert 'at most' in add_fails(qmp, 'r', 'ringbuf', size=1 << 50)
    add(qmp, 'n', 'null')
    add(qmp, 'r', 'ringbuf', size=16)
    assert fails(qmp, 'ringbuf-write', device='none', data='x') == "Device 'none' not found"
    assert fails(qmp, 'ringbuf-write', device='n', data='x') == 'n is not a ringbuf device'
    assert fails(qmp, 'ringbuf-read', device='n', size=1) == 'n is not a ringbuf device'
    for size in (0, -1):
        assert fails(qmp, 'ringbuf-read', device='r', size=size) == 'size must be greater than zero'
    assert fails(qmp, 'ringbuf-write', device='r', data='aGV#b8=', format='base64') == \
        'Base64 data contains invalid characters'
    assert qmp.command('ringbuf-read', device='r', size=1 << 50) == ''
    qmp.command('ringbuf-write', device='r', data='héllo', format='utf8')
    assert qmp.command('ringbuf-read', device='r', size=1) == 'h'
    assert base64.b64decode(qmp.command('ringbuf-read', device='r', size=100, format='base64')) == 'éllo'.encode()
    qmp.command('ringbuf-write', device='r', data=base64.b64encode(b'\x00\xffa').decode(), format='base64')
    assert qmp.command('ringbuf-read', device='r', size=100) == '��a'
    qmp.command('ringbuf-write', device='r', data='0123456789abcdefghijklmnop')
    assert qmp.command('ringbuf-read', device='r', size=100) == 'abcdefghijklmnop'


def test_monitor_into_a_ringbuf(daemon):
    """What a front end writes can be read; the memory that it takes is the option's."""
    one = daemon('--chardev', 'ringbuf,id=r,size=1k', '--monitor', 'chardev=r')
    assert '"QMP"' in one.qmp.command('ringbuf-read', device='r', size=1024)
