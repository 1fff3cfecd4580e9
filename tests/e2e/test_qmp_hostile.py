# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that send nonsense, too much, or go away: they cost themselves only."""
import json
import socket
import struct
import threading

import pytest

from harness import PATIENCE_S, Qmp, memory_limit_kib, wait_for

MEMORY_KIB_MAX = memory_limit_kib(64 << 10)  # while somebody floods it


def assert_one_error(qmp, desc_part=None):
    """Exactly one error comes, and what follows in the stream is understood."""
    reply = qmp.reply()
    assert reply['error']['class'] == 'GenericError'
    assert 'id' not in reply
    if desc_part:
        assert desc_part in reply['error']['desc']
    qmp.send_raw('\n{"execute": "query-version", "id": "after"}\n')
    after = qmp.reply()
    assert after.get('id') == 'after' and 'return' in after, after


NONSENSE = {
    'word': b'garbage\n',
    'sentence': b'what is all this about\n',
    'stray-bracket': b']\n',
    'stray-brace': b'}\n',
    'half-keyword': b'{"execute": tru}\n',
    'comma': b'{"execute": "query-version",}\n',
    'no-colon': b'{"execute" "query-version"}\n',
    'unpaired-surrogate': b'{"execute": "query-version", "id": "\\ud800"}\n',
    'low-surrogate': b'{"execute": "query-version", "id": "\\udc00\\ud800"}\n',
    'bad-utf8': b'{"execute": "query-version", "id": "\xff"}\n',
    'overlong-utf8': b'{"execute": "query-version", "id": "\xc0\x80"}\n',
    'control-character': b'{"execute": "query-version", "id": "\x01"}\n',
    'nul': b'{"execute": "query-version", "id": "\x00"}\n',
    'bad-escape': b'{"execute": "query-version", "id": "\\x"}\n',
    'http': b'GET / HTTP/1.1\r\n',
    'binary': bytes(range(128, 256)) + b'\n',
    'duplicate-key': b'{"execute": "query-version", "a": 1, "a": 1}\n',
    'deep-1025': b'[' * 1025 + b']' * 1025 + b'\n',
    'deep-10000': b'[' * 10000 + b']' * 10000 + b'\n',
    'deep-objects': b'{"a":' * 10000 + b'1' + b'}' * 10000 + b'\n',
    'deep-open': b'[' * 10000 + b'\n',
}


@pytest.mark.parametrize('text', NONSENSE.values(), ids=NONSENSE.keys())
def test_qmp_nonsense_gives_one_error(daemon, text):
    """M1"""
    qmp = daemon().qmp
    qmp.send_raw(text)
    if text.endswith(b'[' + b'\n'):
        qmp.send_raw(b']' * 10000 + b'\n')
    assert_one_error(qmp)


def test_qmp_newline_in_string(daemon):
    """The line end is where reading goes on, so what follows on the next line is an input of its own."""
    qmp = daemon().qmp
    qmp.send_raw('{"execute": "query-version", "id": "a\n{"execute": "query-version", "id": "b"}\n')
    assert 'error' in qmp.reply()
    assert qmp.reply()['id'] == 'b'


@pytest.mark.parametrize('number', ['1e999', '-1e999', '9223372036854775808', '-9223372036854775809',
                                    '18446744073709551616', '1' * 400])
def test_qmp_huge_numbers(daemon, number):
    """Numbers beyond all ranges are an error or an id like any other; either way the session goes on."""
    qmp = daemon().qmp
    qmp.send_raw('{"execute": "query-version", "id": ' + number + '}\n')
    assert len({'return', 'error'} & qmp.reply().keys()) == 1
    qmp.send_raw('{"execute": "query-version", "id": "after"}')
    assert qmp.reply()['id'] == 'after'


def test_qmp_nesting_1024_accepted(daemon):
    qmp = daemon().qmp
    qmp.send_raw('[' * 1024 + ']' * 1024)
    assert qmp.reply()['error']['desc'] == 'QMP input must be a JSON object'


def test_qmp_64_mib_string(daemon):
    one = daemon()
    one.qmp.send_raw(b'{"execute": "')
    for _ in range(64):
        one.qmp.send_raw(b'a' * (1 << 20))
    one.qmp.send_raw(b'"}\n')
    assert_one_error(one.qmp)
    assert one.memory_kib('VmHWM') < MEMORY_KIB_MAX


def test_qmp_64_mib_without_newline(daemon):
    one = daemon()
    for _ in range(64):
        one.qmp.send_raw(b'a' * (1 << 20))
    one.qmp.send_raw(b'\n')
    assert_one_error(one.qmp)
    assert one.memory_kib('VmHWM') < MEMORY_KIB_MAX


def test_qmp_million_members(daemon):
    one = daemon()
    one.qmp.send_raw('{' + ','.join(f'"{number}":1' for number in range(1000000)) + '}\n')
    assert_one_error(one.qmp)
    assert one.memory_kib('VmHWM') < MEMORY_KIB_MAX


def test_qmp_garbage_then_command(daemon):
    """M2"""
    qmp = daemon().qmp
    qmp.send_raw('{"execute":"query-version","id":"a"} garbage\n{"execute":"query-version","id":2}\n')
    assert qmp.reply()['id'] == 'a'
    assert 'error' in qmp.reply()
    assert qmp.reply()['id'] == 2


def second_monitor(tmp_path):
    path = tmp_path / 'second.sock'
    return path, ['--chardev', f'socket,id=second,path={path},server=on,wait=off', '--monitor', 'second']


def test_qmp_client_that_never_reads(daemon, tmp_path):
    """M2: Ten thousand big replies for a client that does not read: others are served, memory stays bounded, and the
    client gets all of them in order once it reads."""
    path, options = second_monitor(tmp_path)
    one = daemon(*options)
    flood = Qmp.connect(path)
    count = 10000
    text = ''.join(f'{{"execute":"query-commands","id":{number}}}' for number in range(count))
    sender = threading.Thread(target=flood.send_raw, args=(text,))
    sender.start()
    for _ in range(200):
        one.qmp.command('query-version')
    assert one.memory_kib('VmHWM') < MEMORY_KIB_MAX
    for number in range(count):
        assert flood.reply()['id'] == number
    sender.join()
    flood.close()


def test_qmp_client_that_never_reads_at_quit(daemon, tmp_path):
    """A client which does not read cannot hold up the end."""
    path, options = second_monitor(tmp_path)
    one = daemon(*options)
    flood = Qmp.connect(path)
    flood.sock.setblocking(False)
    text = b'{"execute":"query-qmp-schema"}' * 100
    with pytest.raises(BlockingIOError):
        while True:
            flood.sock.send(text)
    one.qmp.command('quit')
    assert one.process.wait(timeout=PATIENCE_S) == 0
    flood.close()


@pytest.mark.parametrize('text', ['', '{"execute": "query-ver', '{"execute": "query-qmp-schema"}' * 50, '[' * 500])
@pytest.mark.parametrize('reset', [False, True])
def test_qmp_client_vanishes(daemon, text, reset):
    """The next client is greeted, and nothing of the former one's is left."""
    one = daemon()
    one.qmp.send_raw(text)
    if reset:
        one.qmp.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    one.qmp.close()
    again = Qmp.connect(one.qmp_path)
    assert again.command('query-version')['qemu']['major'] == 9
    again.close()


def test_qmp_command_of_vanished_client_is_carried_out(daemon):
    one = daemon()
    one.qmp.send_raw('{"execute": "chardev-add", "arguments": {"id": "left", "backend": {"type": "null", "data": {}}}}')
    one.qmp.close()
    again = Qmp.connect(one.qmp_path)
    wait_for(lambda: 'left' in [entry['label'] for entry in again.command('query-chardev')], 'the chardev to be there')
    again.close()


def test_qmp_many_sessions_one_after_the_other(daemon):
    one = daemon()
    one.qmp.close()
    for _ in range(50):
        Qmp.connect(one.qmp_path).close()
    before = one.memory_kib()
    for _ in range(500):
        Qmp.connect(one.qmp_path).close()
    assert one.memory_kib() - before < 16 * 1024


def test_qmp_second_client_waits_for_first(daemon):
    one = daemon()
    second = socket.socket(socket.AF_UNIX)
    second.settimeout(PATIENCE_S)
    second.connect(str(one.qmp_path))
    assert one.qmp.command('query-version')
    one.qmp.close()
    qmp = Qmp(second)
    assert qmp.command('query-version')
    qmp.close()
