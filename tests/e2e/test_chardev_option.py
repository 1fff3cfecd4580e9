# SPDX-License-Identifier: LGPL-2.1-or-later
"""--chardev on the command line: what is refused, with which words, and what help says."""
import pytest

from harness import program, run, storaged_fails

REFUSED = {
    'null': 'chardev: no id specified',
    'id=x': 'chardev: "x" missing backend',
    'null,id=1x': "Parameter 'id' expects an identifier",
    'null,id=x,foo=bar': "Invalid parameter 'foo'",
    'nosuch,id=x': "'nosuch' is not a valid char driver name",
    'spicevmc,id=x': "'spicevmc' is not a valid char driver name",
    'vc,id=x': "'vc' is not a valid char driver name",
    'socket,id=x,path=/a,server=maybe': "Parameter 'server' expects 'on' or 'off'",
    'socket,id=x,path=/a,reconnect=x': "Parameter 'reconnect' expects a number",
    'socket,id=x,host=a': 'chardev: socket: no port given',
    'socket,id=x,host=a,path=/a': "None or one of 'path', 'fd' or 'host' option required.",
    'file,id=x': 'chardev: file: no filename given',
    'pipe,id=x': 'chardev: pipe: no device path given',
    'serial,id=x': 'chardev: serial/tty: no device path given',
    'udp,id=x': 'chardev: udp: remote port not specified',
    'ringbuf,id=x,size=1000': 'size of ringbuf chardev must be power of two',
    'mux,id=x': 'chardev: mux: no chardev given',
    'mux,id=x,chardev=z': 'mux: base chardev z not found',
    'hub,id=x,chardevs.0=z': "hub: chardev can't be found by id 'z'",
    'null,id=x,logfile=/gone/x': "Could not create '/gone/x': No such file or directory",
    '{"id": "x", "backend": {"type": "null"}}': "Parameter 'backend.data' is missing",
    '{"id": "x"': 'JSON parse error',
}


@pytest.mark.parametrize('option', REFUSED)
def test_refused(option):
    assert storaged_fails('--chardev', option).startswith(f'--chardev {option}: {REFUSED[option]}')


def test_same_id_twice():
    assert storaged_fails('--chardev', 'null,id=x', '--chardev', 'null,id=x') == \
        "--chardev null,id=x: Chardev with id 'x' already exists"


def test_stdio_twice():
    assert storaged_fails('--chardev', 'stdio,id=x', '--chardev', 'stdio,id=y') == \
        '--chardev stdio,id=y: cannot use stdio by multiple character devices'


def test_json(daemon):
    labels = [entry['label'] for entry in
              daemon('--chardev', '{"id": "x", "backend": {"type": "null", "data": {}}}').qmp.command('query-chardev')]
    assert 'x' in labels


def test_old_words(daemon, tmp_path):
    """server,nowait without values; tty for serial."""
    qmp = daemon('--chardev', f'socket,id=s,path={tmp_path}/s,server,nowait', '--chardev', 'tty,id=t,path=/dev/null').qmp
    names = {entry['label']: entry['filename'] for entry in qmp.command('query-chardev')}
    assert names['s'] == f'disconnected:unix:{tmp_path}/s,server=on'
    assert names['t'] == 'serial'


def test_help_lists_backends():
    for word in ('help', '?'):
        lines = run(program('ashlar-storaged'), '--chardev', word).stdout.splitlines()
        assert lines[0] == 'Available chardev backend types:'
        assert {line.split()[0] for line in lines[1:]} >= {'socket', 'stdio', 'file', 'pipe', 'pty', 'udp', 'null', 'ringbuf',
                                                           'mux', 'hub', 'serial', 'parallel'}


def test_help_explains_a_backend():
    text = run(program('ashlar-storaged'), '--chardev', 'socket,help').stdout
    assert 'reconnect=<num>' in text and 'input-path' not in text
    assert storaged_fails('--chardev', 'nosuch,help').endswith("'nosuch' is not a valid char driver name")
