# SPDX-License-Identifier: LGPL-2.1-or-later
"""blkdebug by its file names, in ashlar-io beside the peer's program, and in the daemon."""
import json
import re
import subprocess

import pytest
from harness import BUILD, PATIENCE_S, QmpError, need, raw_image, run

OURS = BUILD / 'compat' / 'qemu-io'
MIB = 1 << 20


def normalise(text):
    return re.sub(r'\d+\.\d+ sec \([^)]*\)', 'TIME', text)


def outcome(io, folder, image, script, config=''):
    folder.mkdir()
    (folder / 'rules').write_text(config)
    raw_image(folder / 'raw', MIB, b'data')
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', str(folder / 'qcow2'), '4M')
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 1 0 64k', str(folder / 'qcow2'))
    words = [word for line in script for word in ('-c', line)]
    done = subprocess.run([str(io), *words, image], cwd=folder, capture_output=True, text=True,
                          timeout=5 * PATIENCE_S, check=False)
    return normalise(done.stdout), done.returncode


def assert_same(tmp_path, image, script, config=''):
    theirs = outcome(need('qemu-io'), tmp_path / 'theirs', image, script, config)
    ours = outcome(OURS, tmp_path / 'ours', image, script, config)
    assert ours == theirs


def rule(kind, **values):
    return f'[{kind}]\n' + ''.join(f'{key} = "{value}"\n' for key, value in values.items())


@pytest.mark.parametrize('image, script, config', [
    ('blkdebug:rules:raw', ['read 0 4k', 'write 0 4k', 'read 0 4k', 'write 0 4k'],
     rule('inject-error', event='write_aio', errno=28)),
    ('blkdebug:rules:raw', ['write 0 4k', 'write 0 4k', 'read 0 4k'],
     rule('inject-error', event='write_aio', once='on')),
    ('blkdebug:rules:raw', ['write 0 4k', 'write 0 4k', 'write 8k 4k', 'read 0 4k'],
     rule('inject-error', event='write_aio', sector=17, errno=28)),
    ('blkdebug:rules:raw', ['write 0 4k', 'write 0 4k', 'write 0 4k'],
     rule('set-state', event='write_aio', state=1, new_state=2)
     + rule('inject-error', event='write_aio', state=2, errno=5, once='on', immediately='on')),
    ('blkdebug::qcow2', ['read -P 1 0 64k', 'write -P 2 64k 64k', 'read -P 2 64k 64k'], ''),
    ('blkdebug:rules:qcow2', ['read -P 1 0 64k', 'read -P 0 1M 64k'], rule('inject-error', event='read_aio')),
    ('blkdebug:rules:qcow2', ['write -P 2 0 64k', 'read -P 1 0 64k', 'write -P 2 0 64k', 'read -P 2 0 64k'],
     rule('inject-error', event='write_aio', once='on')),
    ('blkdebug:rules:qcow2', ['write -P 2 1M 64k', 'read -P 0 1M 64k', 'write -P 2 1M 64k', 'read -P 2 1M 64k'],
     rule('inject-error', event='write_aio', errno=28, once='on')),
    ('blkdebug:rules:qcow2', ['read -P 1 0 64k', 'read -P 1 0 64k'],
     rule('inject-error', event='l2_load', once='on')),
    ('blkdebug::raw', ['break write_aio A', 'aio_write -P 7 0 4k', 'wait_break A', 'write -P 8 0 4k', 'resume A',
                       'aio_flush', 'read -P 7 0 4k'], ''),
    ('blkdebug::qcow2', ['break write_aio A', 'aio_write -P 7 1M 4k', 'wait_break A', 'remove_break A', 'aio_flush',
                         'read -P 7 1M 4k', 'break no_such_event B', 'resume B', 'remove_break B'], ''),
    ('raw', ['break write_aio A', 'remove_break A', 'resume A'], ''),
])
def test_like_the_peer(tmp_path, image, script, config):
    assert_same(tmp_path, image, script, config)


def test_holding_a_request_at_the_end(tmp_path):
    """Nobody resumes it: closing does."""
    raw_image(tmp_path / 'raw', MIB)
    done = run(OURS, '-c', 'break write_aio A', '-c', 'aio_write -P 7 0 4k', '-c', 'wait_break A', '-c', 'quit',
               f'blkdebug::{tmp_path}/raw')
    assert 'wrote 4096/4096 bytes' in done.stdout
    assert (tmp_path / 'raw').read_bytes()[:4096] == b'\7' * 4096


@pytest.mark.parametrize('name, complaint', [
    ('blkdebug:raw', 'blkdebug requires both config file and image path'),
    ('blkdebug:nowhere:raw', "Could not read blkdebug config file 'nowhere': No such file or directory"),
    ('blkdebug::nowhere', "No such file or directory"),
])
def test_bad_names(tmp_path, name, complaint):
    raw_image(tmp_path / 'raw', MIB)
    done = run(OURS, '-c', 'read 0 1', name, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_image_info(tmp_path):
    raw_image(tmp_path / 'raw', MIB)
    (tmp_path / 'rules').write_text(rule('inject-error', event='write_aio'))
    for name in ('blkdebug::raw', 'blkdebug:rules:raw'):
        done = run(BUILD / 'compat' / 'qemu-img', 'info', '--output=json', name, cwd=tmp_path)
        assert json.loads(done.stdout)['filename'] == name


def test_nodes_of_the_daemon(daemon, tmp_path):
    """Every option is taken, shown in the node's name, and may not change later."""
    one = daemon()
    raw_image(tmp_path / 'raw', MIB)
    options = {
        'driver': 'blkdebug', 'node-name': 'd', 'image': {'driver': 'file', 'filename': f'{tmp_path}/raw'},
        'align': 512, 'max-transfer': 65536, 'opt-write-zero': 3072, 'max-write-zero': 6144, 'opt-discard': 512,
        'max-discard': 1024, 'inject-error': [{'event': 'read_aio', 'sector': 3, 'once': True, 'immediately': True}],
        'set-state': [{'event': 'none', 'new_state': 2}], 'take-child-perms': ['consistent-read'],
        'unshare-child-perms': ['resize'],
    }
    one.qmp.command('blockdev-add', **options)
    node, = [node for node in one.qmp.command('query-named-block-nodes') if node['node-name'] == 'd']
    assert node['drv'] == 'blkdebug'
    shown = json.loads(node['file'].removeprefix('json:'))
    assert {**options, 'image': 0, 'node-name': 0} == {**shown, 'image': 0, 'node-name': 0}
    with pytest.raises(QmpError, match="Cannot change the option 'align'"):
        one.qmp.command('blockdev-reopen', options=[{**options, 'align': 1024}])
    one.qmp.command('blockdev-reopen', options=[{**options, 'read-only': True}])
    one.qmp.command('blockdev-del', **{'node-name': 'd'})
