# SPDX-License-Identifier: LGPL-2.1-or-later
"""The protocol of a QMP session: greeting, negotiation, replies, errors, and input of any shape."""
import json
import socket
import threading

import pytest

from harness import PATIENCE_S, Qmp, QmpError

CAPABILITIES = {'execute': 'qmp_capabilities'}
VERSION = {'micro': 1, 'minor': 1, 'major': 9}


def error(desc, error_class='GenericError'):
    return {'error': {'class': error_class, 'desc': desc}}


def exchange(qmp, text):
    qmp.send_raw(text)
    return qmp.reply()


@pytest.fixture
def raw(daemon):
    """A session that has not negotiated."""
    one = daemon()
    one.qmp.close()
    qmp = Qmp.connect(one.qmp_path, negotiate=False)
    yield qmp
    qmp.close()


def test_qmp_greeting(raw):
    version = raw.greeting['QMP']['version']
    assert version['qemu'] == VERSION
    assert version['package'].startswith('ashlar ')
    assert raw.greeting['QMP']['capabilities'] == ['oob']


def test_qmp_lines_end_with_crlf(daemon):
    one = daemon()
    one.qmp.send_raw('{"execute": "query-version"}')
    text = b''
    while not text.endswith(b'\n'):
        text += one.qmp.sock.recv(1000)
    assert text.endswith(b'}\r\n')
    assert text.startswith(b'{"return": {"qemu": {')


EXPECTING = error("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound')

BEFORE_NEGOTIATION = [
    ('{"execute": "query-version"}', EXPECTING),
    ('{"execute": "foo"}', EXPECTING),
    ('{"execute": "foo", "id": 1}', {'id': 1, **EXPECTING}),
    ('{"execute": ""}', EXPECTING),
    ('[]', error('QMP input must be a JSON object')),
    ('1 ', error('QMP input must be a JSON object')),
    ('"x"', error('QMP input must be a JSON object')),
    ('null\n', error('QMP input must be a JSON object')),
    ('{}', error("QMP input lacks member 'execute'")),
    ('{"execute": 1}', error("QMP input member 'execute' must be a string")),
    ('{"execute": "qmp_capabilities", "x": 1}', error("QMP input member 'x' is unexpected")),
    ('{"execute": "qmp_capabilities", "arguments": 1}', error("QMP input member 'arguments' must be an object")),
    ('{"execute": "qmp_capabilities", "arguments": {"x": 1}}', error("Parameter 'x' is unexpected")),
    ('{"exec-oob": "qmp_capabilities"}', error("QMP input member 'exec-oob' is unexpected")),
    ('{"exec-oob": "qmp_capabilities", "execute": "x"}', error("QMP input member 'exec-oob' is unexpected")),
]


@pytest.mark.parametrize('text, reply', BEFORE_NEGOTIATION, ids=[text for text, _ in BEFORE_NEGOTIATION])
def test_qmp_before_negotiation(raw, text, reply):
    """M3"""
    assert exchange(raw, text) == reply
    assert exchange(raw, '{"execute": "qmp_capabilities", "id": {"a": [1, 2.5, null]}}') == \
        {'return': {}, 'id': {'a': [1, 2.5, None]}}


def test_qmp_unknown_capability(raw):
    reply = exchange(raw, '{"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}}')
    assert reply['error']['class'] == 'GenericError'
    assert reply['error']['desc'].endswith("does not accept value 'foo'")
    assert exchange(raw, '{"execute": "query-version"}') == EXPECTING
    assert exchange(raw, '{"execute": "qmp_capabilities", "arguments": {"enable": []}}') == {'return': {}}


IN_COMMAND_MODE = [
    ('{"execute": "qmp_capabilities"}',
     error('Capabilities negotiation is already complete, command ignored', 'CommandNotFound')),
    ('{"execute": "foo"}', error('The command foo has not been found', 'CommandNotFound')),
    ('{"execute": "", "id": null}', {'id': None, **error('The command  has not been found', 'CommandNotFound')}),
    ('{"execute": "query-version", "arguments": {"x": 1}, "id": "a"}',
     {'id': 'a', **error("Parameter 'x' is unexpected")}),
    ('{"execute": "query-version", "arguments": []}', error("QMP input member 'arguments' must be an object")),
    ('{"execute": "query-version", "arguments": null}', error("QMP input member 'arguments' must be an object")),
    ('{"exec-oob": "query-version"}', error("QMP input member 'exec-oob' is unexpected")),
    ('{"control": 1, "execute": "query-version"}', error("QMP input member 'control' is unexpected")),
    ('{"return": {}}', error("QMP input member 'return' is unexpected")),
    ('{"arguments": {}, "id": 9}', {'id': 9, **error("QMP input lacks member 'execute'")}),
    ('{"execute": "query-version", "id": 1, "id": 2}', error('JSON parse error, duplicate key')),
]


@pytest.mark.parametrize('text, reply', IN_COMMAND_MODE, ids=[text for text, _ in IN_COMMAND_MODE])
def test_qmp_in_command_mode(daemon, text, reply):
    """M3"""
    qmp = daemon().qmp
    got = exchange(qmp, text)
    if 'duplicate' in reply['error']['desc']:
        assert got['error']['desc'].startswith(reply['error']['desc'])
        assert 'id' not in got
    else:
        assert got == reply
    assert qmp.command('query-version')['qemu'] == VERSION


def test_qmp_oob_enabled(daemon):
    one = daemon()
    one.qmp.close()
    qmp = Qmp.connect(one.qmp_path, oob=True)
    assert exchange(qmp, '{"exec-oob": "query-version", "id": 1}') == \
        {'id': 1, **error('The command query-version does not support OOB')}
    assert exchange(qmp, '{"exec-oob": "foo"}') == error('The command foo has not been found', 'CommandNotFound')
    assert exchange(qmp, '{"exec-oob": "query-version", "execute": "x"}') == \
        error("QMP input member 'execute' clashes with 'exec-oob'")
    assert exchange(qmp, '{"exec-oob": 1}') == error("QMP input member 'exec-oob' must be a string")
    qmp.close()


def test_qmp_oob_known_as_soon_as_enabled(raw):
    """A request behind qmp_capabilities in the same packet is seen after it."""
    raw.send_raw('{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}{"exec-oob": "query-version"}')
    assert raw.reply() == {'return': {}}
    assert raw.reply() == error('The command query-version does not support OOB')


@pytest.mark.parametrize('identity', [0, -1, 2.5, '', 'x', 'é\n"\\', [], {}, [1, {'a': None}], None, True, 2**63, -2**63])
def test_qmp_id_echoed(daemon, identity):
    qmp = daemon().qmp
    reply = exchange(qmp, json.dumps({'execute': 'query-version', 'id': identity}))
    assert 'return' in reply
    assert reply['id'] == identity
    assert exchange(qmp, json.dumps({'id': identity, 'execute': 'foo'}))['id'] == identity


def test_qmp_each_session_negotiates(daemon):
    one = daemon()
    one.qmp.close()
    qmp = Qmp.connect(one.qmp_path, negotiate=False)
    assert exchange(qmp, '{"execute": "query-version"}') == EXPECTING
    qmp.close()


MIXED = '''{"execute":"query-version","id":1}
{ 'execute' : 'query-version', 'id': 'it\\'s "2"' } {"execute":"foo","id":[3]}\r
\t{"execute": "query-version", "arguments": {}, "id": "\\u00e9"}'''
MIXED_IDS = [1, 'it\'s "2"', [3], 'é']


def test_qmp_input_split_at_every_byte(daemon):
    qmp = daemon().qmp
    data = MIXED.encode()
    for split in range(1, len(data)):
        qmp.send_raw(data[:split])
        qmp.send_raw(data[split:])
        assert [qmp.reply()['id'] for _ in MIXED_IDS] == MIXED_IDS, f'split at {split}'


def test_qmp_input_byte_by_byte(daemon):
    qmp = daemon().qmp
    for byte in MIXED.encode():
        qmp.send_raw(bytes([byte]))
    assert [qmp.reply()['id'] for _ in MIXED_IDS] == MIXED_IDS


def test_qmp_single_quotes(daemon):
    qmp = daemon().qmp
    assert exchange(qmp, "{'execute': 'query-version', 'id': 'a\"b'}")['id'] == 'a"b'
    assert exchange(qmp, '{\'execute\': "query-version", "id": "it\'s"}')['id'] == "it's"


def test_qmp_pipelined_in_order(daemon):
    qmp = daemon().qmp
    count = 20000
    text = ''.join(f'{{"execute":"query-version","id":{number}}}' for number in range(count))
    sender = threading.Thread(target=qmp.send_raw, args=(text,))
    sender.start()
    for number in range(count):
        assert qmp.reply()['id'] == number
    sender.join()


def test_qmp_replies_after_half_close(daemon):
    """A client that has said everything still hears the answers; then the session ends."""
    one = daemon()
    one.qmp.send_raw('{"execute":"query-version","id":1}{"execute":"query-commands","id":2}')
    one.qmp.sock.shutdown(socket.SHUT_WR)
    assert one.qmp.reply()['id'] == 1
    assert one.qmp.reply()['id'] == 2
    with pytest.raises(EOFError):
        one.qmp.reply()
    again = Qmp.connect(one.qmp_path)
    again.close()


def test_qmp_quit(daemon):
    one = daemon()
    one.qmp.send_raw('{"execute": "quit", "id": 7}{"execute": "query-version"}')
    assert one.qmp.reply() == {'return': {}, 'id': 7}
    with pytest.raises((EOFError, ConnectionResetError)):
        one.qmp.receive()
    assert one.process.wait(timeout=PATIENCE_S) == 0
    assert one.stderr == ''
    assert not one.qmp_path.exists()
    assert not one.pid_path.exists()


def test_qmp_query_commands_matches_introspection(daemon):
    qmp = daemon().qmp
    listed = {entry['name'] for entry in qmp.command('query-commands')}
    described = {entry['name'] for entry in qmp.command('query-qmp-schema') if entry['meta-type'] == 'command'}
    assert listed == described
    assert {'quit', 'qmp_capabilities', 'query-version', 'query-commands', 'query-qmp-schema'} <= listed


def test_qmp_pretty(daemon, tmp_path):
    path = tmp_path / 'pretty.sock'
    daemon('--chardev', f'socket,id=p,path={path},server=on,wait=off', '--monitor', 'p,pretty=on')
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(path))
    with sock, sock.makefile('rw', newline='') as stream:
        def message():
            lines = []
            while not lines or lines[-1] != '}\r\n':
                lines.append(stream.readline())
            return lines
        greeting = message()
        assert greeting[:3] == ['{\n', '    "QMP": {\n', '        "version": {\n']
        stream.write('{"execute": "qmp_capabilities", "id": [1]}')
        stream.flush()
        reply = message()
        assert json.loads(''.join(reply)) == {'return': {}, 'id': [1]}
        assert '    "id": [\n' in reply


def test_qmp_error_in_command_keeps_session(daemon):
    qmp = daemon().qmp
    with pytest.raises(QmpError) as caught:
        qmp.command('quit', when='now')
    assert caught.value.desc == "Parameter 'when' is unexpected"
    assert qmp.command('query-version')['qemu'] == VERSION
