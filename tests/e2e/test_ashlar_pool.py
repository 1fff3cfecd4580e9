# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar pool: pools and volumes shown, and volumes exported to real clients by way of a running ashlar-storaged."""
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import termios
import threading

import nbd
import pytest

from harness import PATIENCE_S, Qmp, program, run
from pool_daemon import pool_xml, volume_xml
from test_pool_luks import define_secret

MIB = 1 << 20
UTF8 = {**os.environ, 'LC_ALL': 'C.UTF-8'}
NODES = ('query-named-block-nodes', 'query-block-exports')


def backing_xml(path, kind):
    return f"<backingStore><path>{path}</path><format type='{kind}'/></backingStore>"


class Pools:
    """A pool daemon with a pool `demo`: base.raw, on it mid.qcow2, on that top.qcow2; and a pool that does not run."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.connection = daemon.connect()
        self.images = daemon.images
        self.pool = self.connection.storagePoolDefineXML(pool_xml('demo', self.images))
        self.pool.create()
        self.pool.setAutostart(1)
        self.connection.storagePoolDefineXML(pool_xml('idle', '/nonexistent/idle'))
        self.pool.createXML(volume_xml('base.raw', 4 * MIB, allocation=0))
        self.create('mid.qcow2', 'base.raw', 'raw')
        self.create('top.qcow2', 'mid.qcow2', 'qcow2')

    def create(self, name, base, kind):
        return self.pool.createXML(volume_xml(name, 4 * MIB, 'qcow2', backing_xml(self.images / base, kind)))

    def __call__(self, *words, check=True, env=None):
        return run(program('ashlar'), 'pool', *words, '--socket', self.daemon.socket, check=check, env=env or UTF8)

    def fail(self, *words):
        done = self(*words, check=False)
        assert done.returncode == 1 and done.stdout == '', done
        return done.stderr


@pytest.fixture
def pools(pool_daemon):
    return Pools(pool_daemon.start())


@pytest.fixture
def storaged(daemon, monkeypatch):
    one = daemon()
    one.qmp.close()  # a monitor serves one client at a time
    monkeypatch.setitem(UTF8, 'ASHLAR_QMP', str(one.qmp_path))
    return one


def left(storaged):
    """What the daemon still has: nodes and exports."""
    qmp = Qmp.connect(storaged.qmp_path)
    found = [qmp.command(query) for query in NODES]
    found.append([one for one in qmp.command('qom-list', path='/objects') if one['type'] == 'child<secret>'])
    qmp.close()
    return found


def on_terminal(pools, columns, *words, **more):
    """What it prints where standard output is a terminal so many columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
    process = subprocess.Popen([program('ashlar'), 'pool', *words, '--socket', str(pools.daemon.socket)],
                               stdin=subprocess.DEVNULL, stdout=theirs, env={**UTF8, 'TERM': 'xterm', **more})
    os.close(theirs)
    text = b''
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # that is how a terminal ends
            break
        if not data:
            break
        text += data
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    return text.decode().replace('\r\n', '\n')


# --- showing ---

def test_list(pools):
    lines = [line.split() for line in pools('list').stdout.splitlines()]
    assert lines[0] == ['NAME', 'STATE', 'AUTOSTART', 'CAPACITY', 'ALLOCATION', 'USE']
    assert lines[1][:3] == ['demo', 'running', 'yes'] and lines[1][-1].endswith('%')
    assert lines[2] == ['idle', 'inactive', 'no', '-', '-', '-']
    demo, idle = json.loads(pools('list', '--json').stdout)
    assert (demo['name'], demo['state'], demo['autostart'], demo['persistent']) == ('demo', 'running', True, True)
    assert demo['uuid'] == pools.pool.UUIDString()
    assert [2, demo['capacity'], demo['allocation']] == pools.pool.info()[:3]
    assert idle['state'] == 'inactive' and idle['capacity'] == 0


def test_tree(pools):
    lines = pools('tree', 'demo').stdout.splitlines()
    assert [re.split(r'(?<=\w)  ', line)[0] for line in lines] == [
        'demo', '├─ base.raw', '├─ mid.qcow2', '│  └─ base.raw', '└─ top.qcow2', '   └─ mid.qcow2', '      └─ base.raw']
    assert lines[1].split() == ['├─', 'base.raw', 'raw', '░' * 10, '0', 'B', 'of', '4', 'MiB']
    assert 'idle' in pools('tree').stdout
    assert '`- top.qcow2' in pools('tree', env={**os.environ, 'LC_ALL': 'C'}).stdout
    demo, = json.loads(pools('tree', 'demo', '-j').stdout)
    assert [volume['name'] for volume in demo['volumes']] == ['base.raw', 'mid.qcow2', 'top.qcow2']
    assert [(link['volume'], link['format']) for link in demo['volumes'][2]['backing']] == [
        ('mid.qcow2', 'qcow2'), ('base.raw', 'raw')]


def test_tree_of_unusual_chains(pools, tmp_path):
    """Backing images in another pool, in none, and in a circle."""
    (tmp_path / 'other').mkdir()
    other = pools.connection.storagePoolCreateXML(pool_xml('other', tmp_path / 'other'))
    other.createXML(volume_xml('far.raw', MIB))
    (tmp_path / 'alone.raw').write_bytes(bytes(MIB))
    pools.create('crossing.qcow2', '../other/far.raw', 'raw')
    pools.create('leaving.qcow2', '../alone.raw', 'raw')
    for name, base in ('a', 'b'), ('b', 'a'):
        run(program('ashlar-img'), 'create', '-f', 'qcow2', '-u', '-F', 'qcow2', '-b', pools.images / base, pools.images / name, MIB)
    pools.pool.refresh()
    text = pools('tree', 'demo').stdout
    assert '└─ other/far.raw' in text
    assert f'└─ {tmp_path}/' in text and '/alone.raw' in text and text.count('(in no pool)') == 1
    assert text.count('(again: the chain has no end)') == 2


def test_terminals(pools):
    for columns in 40, 80, 200:
        text = on_terminal(pools, columns, 'list', NO_COLOR='1')
        assert '\033' not in text
        assert all(len(line) <= max(columns, 70) for line in text.splitlines()), text
    assert on_terminal(pools, 200, 'list').count('\033[3') == 1
    assert '\033' not in on_terminal(pools, 80, 'tree', TERM='dumb')
    assert max(map(len, on_terminal(pools, 60, 'tree', NO_COLOR='1').splitlines())) <= 60


def test_output_that_goes_nowhere(pools):
    for command in 'list', 'tree':
        with open('/dev/full', 'wb') as full:
            done = subprocess.run([program('ashlar'), 'pool', command, '--socket', str(pools.daemon.socket)], stdout=full,
                                  stderr=subprocess.PIPE, text=True, env=UTF8, timeout=PATIENCE_S, check=False)
        assert (done.returncode, done.stderr) == (1, 'ashlar: cannot write to the standard output: No space left on device\n')


def test_names_that_would_control_the_terminal(pools):
    (pools.images / 'red\u009b31m').write_bytes(b'')
    pools.pool.refresh()
    assert '\u009b' not in pools('tree').stdout


# --- exporting ---

def write(uri, data, offset):
    client = nbd.NBD()
    client.connect_uri(uri)
    client.pwrite(data, offset)
    client.flush()
    client.shutdown()


def test_nbd(pools, storaged):
    uri = pools('export', 'demo', 'top.qcow2', '--nbd').stdout.strip()
    assert uri == f'nbd+unix:///top.qcow2?socket={storaged.directory}/ashlar-nbd.sock'
    assert run('nbdinfo', '--size', uri).stdout.strip() == str(4 * MIB)
    write(uri, b'x' * 512, 1024)
    other = pools('export', 'demo', 'base.raw', '--nbd', '--read-only', '--name', 'a b').stdout.strip()
    assert other == f'nbd+unix:///a%20b?socket={storaged.directory}/ashlar-nbd.sock'
    assert 'is_read_only: true' in run('nbdinfo', other).stdout
    pools('unexport', 'demo', 'base.raw')
    assert run('nbdinfo', '--size', uri).stdout.strip() == str(4 * MIB)
    pools('export', 'demo', 'top.qcow2', '--stop')
    assert left(storaged) == [[], [], []]
    assert not (storaged.directory / 'ashlar-nbd.sock').exists()
    assert run(program('ashlar-io'), '-r', '-c', 'read -v 1024 2', pools.images / 'top.qcow2').stdout.startswith('00000400:  78 78')


def test_nbd_at_an_address(pools, storaged, tmp_path):
    path = tmp_path / 'n.sock'
    for name in 'top.qcow2', 'mid.qcow2':  # the second one finds the server there
        uri = pools('export', 'demo', name, f'--nbd=unix:{path}', '-r').stdout.strip()
        assert uri == f'nbd+unix:///{name}?socket={path}'
        assert run('nbdinfo', '--size', uri).stdout.strip() == str(4 * MIB)
    assert 'the NBD server: ' in pools.fail('export', 'demo', 'base.raw', '--nbd=localhost:1')
    # A server that somebody else has started serves, too.
    text = pools('export', 'demo', 'base.raw', '--nbd', '-r').stdout
    assert text == "export 'base.raw' of the daemon's NBD server\n"
    assert run('nbdinfo', '--size', f'nbd+unix:///base.raw?socket={path}').stdout.strip() == str(4 * MIB)


def test_vhost_user(pools, storaged, tmp_path):
    path = tmp_path / 'v.sock'
    assert pools('export', 'demo', 'mid.qcow2', '--vhost-user', path).stdout == f'{path}\n'
    image = 'json:' + json.dumps({'driver': 'virtio-blk-vhost-user', 'path': str(path)})
    run(program('ashlar-io'), '-c', 'write -P 7 0 64k', '-c', 'flush', image)
    assert 'is exported in that way already' in pools.fail('export', 'demo', 'mid.qcow2', '--vhost-user', path)
    pools('unexport', 'demo', 'mid.qcow2', '--vhost-user')
    assert left(storaged) == [[], [], []]
    assert 'read 65536/65536' in run(program('ashlar-io'), '-r', '-c', 'read -P 7 0 64k', pools.images / 'mid.qcow2').stdout


def test_fuse(pools, storaged, tmp_path):
    path = tmp_path / 'shown'
    assert pools('export', 'demo', 'top.qcow2', '--fuse', path).stdout == f'{path}\n'
    assert path.stat().st_size == 4 * MIB
    with open(path, 'r+b') as file:
        file.write(b'through the file')
        os.fsync(file.fileno())
    pools('unexport', 'demo', 'top.qcow2')
    assert path.stat().st_size == 0 and left(storaged) == [[], [], []]
    assert run(program('ashlar-io'), '-r', '-c', 'read -v 0 7', pools.images / 'top.qcow2').stdout.startswith(
        '00000000:  74 68 72 6f 75 67 68')


def test_monitor_that_does_not_greet(pools, tmp_path):
    """It may be another's."""
    path = tmp_path / 'q'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        hangs_up = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        hangs_up.start()
        errors = pools.fail('export', 'demo', 'base.raw', '--nbd', '--qmp', path)
        hangs_up.join(PATIENCE_S)
    assert f'{path}: ' in errors and 'A monitor serves one client at a time' in errors


def test_two_ways_at_once(pools, storaged, tmp_path):
    """One node serves both, and stays until the last has gone."""
    uri = pools('export', 'demo', 'top.qcow2', '--nbd').stdout.strip()
    pools('export', 'demo', 'top.qcow2', '--vhost-user', tmp_path / 'v.sock')
    errors = pools.fail('export', 'demo', 'mid.qcow2', '--nbd')  # that the other one is based on
    assert "volume 'mid.qcow2': " in errors and '--read-only' in errors
    pools('export', 'demo', 'mid.qcow2', '--nbd', '--read-only')
    pools('unexport', 'demo', 'mid.qcow2')
    pools('unexport', 'demo', 'top.qcow2', '--vhost-user')
    assert run('nbdinfo', '--size', uri).stdout.strip() == str(4 * MIB)
    assert [len(found) for found in left(storaged)] == [4, 1, 0] or left(storaged)[1][0]['type'] == 'nbd'
    pools('unexport', 'demo', 'top.qcow2')
    assert 'is not exported' in pools.fail('unexport', 'demo', 'top.qcow2')


def test_encrypted(pools, storaged):
    secret = define_secret(pools.daemon.connect('secret'), pools.images / 'a.luks', b'open sesame')
    run(program('ashlar-img'), 'create', '-f', 'luks', '--object', 'secret,id=s,data=open sesame', '-o',
        'key-secret=s,iter-time=10', pools.images / 'a.luks', 4 * MIB)
    pools.pool.refresh()
    uri = pools('export', 'demo', 'a.luks', '--nbd').stdout.strip()
    assert run('nbdinfo', '--size', uri).stdout.strip() == str(4 * MIB)
    write(uri, b'plain text' * 51 + b'xx', 0)
    assert [len(found) for found in left(storaged)][2] == 1
    pools('unexport', 'demo', 'a.luks')
    assert left(storaged) == [[], [], []]
    assert b'plain text' not in (pools.images / 'a.luks').read_bytes()
    secret.undefine()
    pools.pool.refresh()
    assert "volume 'a.luks' is encrypted, and the pool daemon does not know with which secret" in pools.fail(
        'export', 'demo', 'a.luks', '--nbd')
    assert left(storaged) == [[], [], []]


def test_clients_are_not_cut_off_unasked(pools, storaged):
    uri = pools('export', 'demo', 'top.qcow2', '--nbd').stdout.strip()
    client = nbd.NBD()
    client.connect_uri(uri)
    assert '--force takes it away from its clients' in pools.fail('unexport', 'demo', 'top.qcow2')
    assert client.pread(2, 0) == bytes(2)
    pools('unexport', 'demo', 'top.qcow2', '--force')
    with pytest.raises(nbd.Error):
        client.pread(2, 0)
    assert left(storaged) == [[], [], []]


def test_what_fails_leaves_nothing(pools, storaged, tmp_path):
    missing = tmp_path / 'no' / 'such'
    assert 'No such file or directory' in pools.fail('export', 'demo', 'top.qcow2', '--fuse', missing)
    assert 'No such file or directory' in pools.fail('export', 'demo', 'top.qcow2', '--vhost-user', missing)
    assert 'No such file or directory' in pools.fail('export', 'demo', 'top.qcow2', f'--nbd={missing}')
    os.unlink(pools.images / 'base.raw')
    assert 'base.raw' in pools.fail('export', 'demo', 'top.qcow2', '--nbd')
    assert left(storaged) == [[], [], []]
    assert not (storaged.directory / 'ashlar-nbd.sock').exists()
    assert "no storage vol with matching name 'zork'" in pools.fail('export', 'demo', 'zork', '--nbd')
    assert "no storage pool with matching name 'zork'" in pools.fail('export', 'zork', 'zork', '--nbd')
    assert "storage pool 'idle' is not active" in pools.fail('export', 'idle', 'zork', '--nbd')


def test_wrong_words(pools, tmp_path):
    assert 'which command?' in run(program('ashlar'), 'pool', check=False).stderr
    assert "unknown command 'zork'" in run(program('ashlar'), 'pool', 'zork', check=False).stderr
    assert "unknown subject 'zork'" in run(program('ashlar'), 'zork', check=False).stderr
    assert 'Usage: ashlar pool COMMAND' in run(program('ashlar'), 'pool', '--help').stdout
    assert 'Usage: ashlar pool export POOL VOLUME' in run(program('ashlar'), 'pool', 'export', '--help').stdout
    assert run(program('ashlar'), '--version').stdout.startswith('ashlar version ')
    assert "the volume's name is missing" in pools.fail('export', 'demo', '--nbd')
    assert "'c' is one word too many" in pools.fail('export', 'a', 'b', 'c', '--nbd')
    assert 'at a time' in pools.fail('export', 'a', 'b', '--nbd', '--fuse', 'x')
    assert 'says how to export' in pools.fail('export', 'a', 'b')
    assert '--name is for --nbd' in pools.fail('export', 'a', 'b', '--fuse', 'x', '-n', 'y')
    assert '--qmp or ASHLAR_QMP says' in pools.fail('export', 'demo', 'base.raw', '--nbd')
    assert f"{tmp_path}/nobody" in pools.fail('export', 'demo', 'base.raw', '--nbd', '-q', tmp_path / 'nobody')
    nobody = run(program('ashlar'), 'pool', 'list', '-s', tmp_path / 'nobody', check=False)
    assert nobody.returncode == 1 and 'Does ashlar-poold run?' in nobody.stderr
