# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool daemon's log: every output, filters, levels, in libvirt's syntax; and the units that are installed."""
import os
import re
import shutil
import socket

import pytest

import pool_daemon as pools
from harness import BUILD, PATIENCE_S, TOP, run, wait_for
from pool_raw import Raw
from test_pool_rpc_daemon import config_path

# Root's daemon gets a /dev with the system's log in it as well.
OWN_DEV = '''for one in null zero random urandom; do : > "$1/dev/$one"; mount --bind "/dev/$one" "$1/dev/$one" || exit; done
mount --rbind "$1/dev" /dev || exit; '''
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='puts sockets of its own in the place of the system\'s')


def listener(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.settimeout(PATIENCE_S)
    one.bind(str(path))
    return one


def start(pool, *lines):
    config_path(pool).write_text('\n'.join(lines) + '\n')
    pool.start()
    Raw(pool.socket).call(9999)
    return pool


@needs_root
def test_journal(pool_daemon):
    with listener(pool_daemon.folder / 'run' / 'systemd' / 'journal' / 'socket') as journal:
        start(pool_daemon, 'log_outputs = "1:journald"', 'log_filters = "1:rpc.call 4:*"')
        text = journal.recv(65536).decode()
    fields = dict(line.split('=', 1) for line in text.splitlines())
    assert 'unknown procedure: 9999' in fields['MESSAGE']
    assert fields['PRIORITY'] == '7' and re.fullmatch(r'\w+', fields['CODE_FUNC']) and int(fields['CODE_LINE']) > 0


@needs_root
def test_syslog(pool_daemon, monkeypatch):
    monkeypatch.setattr(pools, 'OWN_FOLDERS', OWN_DEV + pools.OWN_FOLDERS)
    with listener(pool_daemon.folder / 'dev' / 'log') as log:
        start(pool_daemon, 'log_outputs = "1:syslog:zork"', 'log_filters = "1:rpc.call 4:*"')
        text = log.recv(65536).decode()
    assert re.match(r'<\d+>.*\bzork\[\d+\]: .*unknown procedure: 9999', text), text


def test_several_outputs_by_level(pool_daemon):
    folder = pool_daemon.folder
    start(pool_daemon, f'log_outputs = "1:file:{folder}/all 3:file:{folder}/some 2:stderr"', 'log_level = 1')
    line = r'^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\+0000: \d+: debug : \w+:\d+ : .*unknown procedure: 9999'
    assert re.search(line, (folder / 'all').read_text(), re.M)
    assert 'unknown procedure' not in (folder / 'some').read_text()
    assert 'unknown procedure' not in pool_daemon.log.read_text()


def test_filters(pool_daemon):
    log = pool_daemon.folder / 'all'
    start(pool_daemon, f'log_outputs = "1:file:{log}"', 'log_level = 4', 'log_filters = "1:rpc.client 4:rpc.call"')
    text = log.read_text()
    assert 'rpc_client_start' in text and 'unknown procedure' not in text


@pytest.mark.parametrize('line,message', [
    ('log_outputs = "1:zork"', 'zork'), ('log_outputs = "5:stderr"', '5:stderr'), ('log_outputs = "1:file"', '1:file'),
    ('log_outputs = "1:syslog"', '1:syslog'), ('log_filters = "9:x"', '9:x'),
    ('log_filters = "1"', '1'), ('log_level = 5', 'log_level')])
def test_wrong_settings_end_the_start(pool_daemon, line, message):
    config_path(pool_daemon).write_text(line + '\n')
    with pytest.raises(AssertionError, match='has ended with'):
        pool_daemon.start()
    assert message in pool_daemon.log.read_text()


def test_reload_keeps_clients_and_log(pool_daemon):
    """SIGHUP reads definitions again, and is noted."""
    start(pool_daemon, f'log_outputs = "2:file:{pool_daemon.folder}/all"', 'log_level = 2')
    connection = pool_daemon.connect()
    pool_daemon.process.send_signal(1)
    wait_for(lambda: 'reloading' in (pool_daemon.folder / 'all').read_text(), 'the log to say it')
    assert connection.listAllStoragePools() == [] and connection.isAlive()


def test_units(tmp_path):
    """What is installed for systemd is right in its eyes."""
    analyze = shutil.which('systemd-analyze')
    assert analyze
    for unit in (TOP / 'dist' / 'systemd').glob('*.socket'):
        shutil.copy(unit, tmp_path)
    service = (TOP / 'dist' / 'systemd' / 'ashlar-poold.service.in').read_text().replace('@sbindir@', str(BUILD / 'src' / 'bin'))
    (tmp_path / 'ashlar-poold.service').write_text(service)
    done = run(analyze, 'verify', '--man=no', *sorted(tmp_path.iterdir()), check=False, env={**os.environ, 'SYSTEMD_LOG_LEVEL': 'warning'})
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if 'ashlar' in line]
    assert complaints == []
