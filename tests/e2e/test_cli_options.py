# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line of ashlar-storaged: what it takes, what it refuses, and in which words."""
import os
import pathlib
import re
import subprocess

import pytest

from harness import BUILD, program, raw_image, run, storaged_fails


def storaged(*arguments, check=True, **kwargs):
    return run(program('ashlar-storaged'), *arguments, check=check, **kwargs)


@pytest.mark.parametrize('option', ['-h', '--help', '--hel'])
def test_cli_help(option):
    done = storaged(option)
    assert done.stderr == ''
    assert done.stdout.startswith('Usage: ashlar-storaged [options]\n')
    for name in ('-h, --help', '-V, --version', '-T, --trace', '--blockdev', '--chardev', '--daemonize', '--export',
                 '--monitor', '--nbd-server', '--object', '--pidfile'):
        assert f'\n  {name}' in done.stdout


@pytest.mark.parametrize('option', ['-V', '--version', '-Vh'])
def test_cli_version(option):
    done = storaged(option)
    assert re.fullmatch(r'ashlar-storaged version \d+\.\d+\.\d+ \(interface version 9\.1\.1\)\n', done.stdout)


def test_cli_help_wins_over_what_fails_before_it():
    assert storaged('--blockdev', 'foo', '--help').stdout.startswith('Usage: ')
    assert 'version' in storaged('--object', 'help', '-V').stdout


def test_cli_drop_in_name():
    """Under the other program's name we speak as it does."""
    path = BUILD / 'compat' / 'qemu-storage-daemon'
    assert run(path, '--version').stdout.startswith('qemu-storage-daemon version 9.1.1 (ashlar ')
    assert run(path, '--help').stdout.startswith('Usage: qemu-storage-daemon [options]\n')
    assert run(path, '--blockdev', 'foo', check=False).stderr == \
        "qemu-storage-daemon: --blockdev foo: Parameter 'driver' does not accept value 'foo'\n"


REFUSED = [
    (['--foo'], "unrecognized option '--foo'"),
    (['--foo=bar'], "unrecognized option '--foo'"),
    (['-foo'], "invalid option -- 'f'"),
    (['foo'], 'foo: Unexpected argument'),
    (['--', '--help'], '--help: Unexpected argument'),
    (['--object', 'help', 'foo'], 'foo: Unexpected argument'),
    (['--blockdev'], "option '--blockdev' requires an argument"),
    (['--b'], "option '--blockdev' requires an argument"),
    (['-T'], "option requires an argument -- 'T'"),
    (['--daemonize=1'], "option '--daemonize' doesn't allow an argument"),
    (['--blockdev', 'driver=foo'], "--blockdev driver=foo: Parameter 'driver' does not accept value 'foo'"),
    (['--blockd=driver=foo'], "--blockd=driver=foo: Parameter 'driver' does not accept value 'foo'"),
    (['--blockdev', ''], "--blockdev : Parameter 'driver' is missing"),
    (['--blockdev', 'driver=file'], "--blockdev driver=file: Parameter 'filename' is missing"),
    (['--blockdev', 'null-co,node-name=a,x=1'], "--blockdev null-co,node-name=a,x=1: Parameter 'x' is unexpected"),
    (['--blockdev', 'null-co,node-name=a,size.x=1'],
     "--blockdev null-co,node-name=a,size.x=1: Invalid parameter type for 'size', expected: integer"),
    (['--blockdev', 'null-co,node-name=a,size=1M'],
     "--blockdev null-co,node-name=a,size=1M: Parameter 'size' expects integer, not '1M'"),
    (['--blockdev', 'null-co'], "--blockdev null-co: 'node-name' must be specified for the root node"),
    (['--blockdev', 'null-co,node-name=1'], "--blockdev null-co,node-name=1: Invalid node-name: '1'"),
    (['--blockdev', 'null-co,node-name=a', '--blockdev', 'null-co,node-name=a'],
     "--blockdev null-co,node-name=a: Duplicate nodes with node-name='a'"),
    (['--blockdev', '{"driver": "null-co", "node-name": 5}'],
     '--blockdev {"driver": "null-co", "node-name": 5}: '
     "Invalid parameter type for 'node-name', expected: string"),
    (['--blockdev', 'a=b=c'], "--blockdev a=b=c: Parameter 'driver' is missing"),
    (['--export', 'nbd,id=e,node-name=x'], "--export nbd,id=e,node-name=x: Failed to find node with node-name='x'"),
    (['--export', ''], "--export : Parameter 'type' is missing"),
    (['--nbd-server', ''], "--nbd-server : Parameter 'addr' is missing"),
    (['--nbd-server', 'addr.type=foo'], "--nbd-server addr.type=foo: Parameter 'addr.type' does not accept value 'foo'"),
    (['--object', ''], "--object : Parameter 'qom-type' is missing"),
    (['--object', 'secret'], "--object secret: Parameter 'id' is missing"),
    (['--object', 'secret,id=x'], "--object secret,id=x: Either 'file' or 'data' must be provided"),
    (['--object', 'iothread,id=a', '--object', 'iothread,id=a'],
     "--object iothread,id=a: attempt to add duplicate property 'a' to object (type 'container')"),
    (['--chardev', 'null'], '--chardev null: chardev: no id specified'),
    (['--chardev', 'foo,id=a'], "--chardev foo,id=a: 'foo' is not a valid char driver name"),
    (['--pidfile', '/nonexistent/p'],
     "cannot create PID file: Could not create '/nonexistent/p': No such file or directory"),
    (['--trace', 'bar=1'], "--trace bar=1: Invalid parameter 'bar'"),
    (['--trace', 'file=/nonexistent/log'],
     '--trace file=/nonexistent/log: Error opening logfile /nonexistent/log: No such file or directory'),
]


@pytest.mark.parametrize('arguments, complaint', REFUSED, ids=[' '.join(arguments) or '-' for arguments, _ in REFUSED])
def test_cli_refused(arguments, complaint):
    assert storaged_fails(*arguments) == complaint


@pytest.mark.parametrize('text', ['{', '{"driver": "null-co"', '{"driver": }', '{]', '{"a": 1, "a": 2}'])
def test_cli_broken_json(text):
    complaint = storaged_fails('--blockdev', text)
    assert complaint.startswith(f'--blockdev {text}: JSON parse error, ')


@pytest.mark.parametrize('option', ['--blockdev', '--chardev', '--export', '--monitor', '--nbd-server', '--object', '--trace'])
@pytest.mark.parametrize('text', ['=', '=x', ',', ',,', '%s%n%s', '\n', 'a\nb=c', '.=1', 'a.=1', 'a..b=1', '..', 'x' * 4096,
                                  ',='.join(['a'] * 1000), 'driver=' + 'f' * 100000, '\x7f\x01'])
def test_cli_odd_arguments(option, text):
    """Whatever the argument is, there is one line of complaint (trace points that do not exist: a warning, and the end at
    the next option)."""
    done = storaged(option, text, '--blockdev', 'driver=end', check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert all(line.startswith('ashlar-storaged: ') for line in lines), lines
    assert len([line for line in lines if ' warning: ' not in line]) == 1, lines
    assert done.stderr.isprintable() or set(done.stderr) - {'\n'} and done.stderr.replace('\n', '').isprintable()


def test_cli_first_failure_ends_it():
    assert storaged_fails('--blockdev', 'one', '--blockdev', 'two').startswith('--blockdev one: ')


def test_cli_order_as_given():
    assert storaged_fails('--monitor', 'c', '--chardev', 'null,id=c') == '--monitor c: chardev "c" not found'


def test_cli_refused_leaves_nothing(tmp_path):
    """What was set up before the failing option is taken down again."""
    image = raw_image(tmp_path / 'disk.img', 1 << 20)
    socket_path, pid_path = tmp_path / 'qmp.sock', tmp_path / 'pid'
    storaged_fails('--pidfile', pid_path, '--chardev', f'socket,id=c,path={socket_path},server=on,wait=off',
                   '--monitor', 'c', '--blockdev', f'file,node-name=f,filename={image}', '--blockdev', 'foo')
    assert os.listdir(tmp_path) == ['disk.img']


def test_cli_secret_not_shown():
    """The bytes of a secret do not come to logs by way of an error."""
    for text in ('secret,id=x,data=hunter2,format=foo', 'secret,data=hunter2', '{"qom-type": "secret", "data": "hunter2"}',
                 'secret,data=hunter2,,more,id=x,y=1'):
        complaint = storaged_fails('--object', text)
        assert 'hunter2' not in complaint and 'more' not in complaint


OBJECT_TYPES = ['authz-list', 'authz-listfile', 'authz-simple', 'iothread', 'main-loop', 'pr-manager-helper', 'secret',
                'secret_keyring', 'thread-context', 'throttle-group', 'tls-creds-anon', 'tls-creds-psk', 'tls-creds-x509']


@pytest.mark.parametrize('arguments, words', [
    (['--object', 'help'], OBJECT_TYPES),
    (['--object', 'secret,help'], ['data', 'file', 'format', 'iv', 'keyid']),
    (['--blockdev', 'help'], ['file', 'host_device', 'null-co', 'raw', 'throttle']),
    (['--blockdev', 'file,help'], ['filename', 'aio', 'locking', 'node-name', 'cache']),
    (['--chardev', 'help'], ['socket', 'stdio', 'file', 'pipe', 'pty', 'udp', 'null', 'ringbuf', 'mux']),
    (['--chardev', 'socket,help'], ['server', 'wait', 'path', 'host', 'port']),
    (['--export', 'help'], ['nbd']),
    (['--export', 'nbd,help'], ['name', 'node-name', 'writable']),
    (['--nbd-server', 'help'], ['addr', 'tls-creds', 'max-connections']),
    (['--monitor', 'help'], ['chardev', 'pretty', 'mode']),
], ids=' '.join)
def test_cli_help_forms(arguments, words):
    done = storaged(*arguments)
    assert done.stderr == ''
    listed = set(re.findall(r'[\w-]+', done.stdout))
    assert not set(words) - listed
    assert storaged(*arguments, '--blockdev', 'foo').stdout == done.stdout


def test_cli_keyval_and_json_are_the_same(daemon, tmp_path):
    image = raw_image(tmp_path / 'disk.img', 1 << 20)
    one = daemon('--blockdev', f'driver=file,node-name=a,filename={image},cache.no-flush=on,read-only=on,force-share=on',
                 '--blockdev', f'{{"driver": "file", "node-name": "b", "filename": "{image}", "read-only": true,'
                               ' "cache": {"no-flush": true}, "force-share": true}')
    nodes = {node['node-name']: node for node in one.qmp.command('query-named-block-nodes')}
    for node in nodes.values():
        del node['node-name']
    assert nodes['a'] == nodes['b']


def test_cli_doubled_comma(daemon, tmp_path):
    image = raw_image(tmp_path / 'a,b.img', 1 << 20)
    one = daemon('--blockdev', f'driver=file,node-name=a,filename={str(image).replace(",", ",,")}')
    assert one.qmp.command('query-named-block-nodes')[0]['file'] == str(image)


def test_cli_closed_standard_streams(tmp_path):
    """Nothing else gets the numbers of the standard streams, even if they are closed."""
    path = pathlib.Path(tmp_path) / 'pid'
    script = f'exec {program("ashlar-storaged")} --blockdev foo <&- >&- 2>&-'
    assert subprocess.run(['sh', '-c', script], check=False).returncode == 1
    assert not path.exists()
