# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options of ashlar-img of which only the effect tells that they are heard."""
import json
import re

import pytest

from harness import need, program, run
from nbd_peers import nbdkit

IMG = program('ashlar-img')
MIB = 1 << 20


def test_info_limits(tmp_path):
    image = tmp_path / 'image'
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', image, '1M')
    limits = json.loads(run(IMG, 'info', '--limits', '--output=json', image).stdout)['limits']
    assert limits['write-zeroes-alignment'] == limits['discard-alignment'] == 65536
    assert limits['request-alignment'] == 1
    assert 'limits' not in json.loads(run(IMG, 'info', '--output=json', image).stdout)
    shown = run(IMG, 'info', '--limits', image).stdout
    assert 'Block limits:\n' in shown and '    write zeroes alignment: 65536\n' in shown
    assert 'Block limits' not in run(IMG, 'info', image).stdout


@pytest.mark.parametrize('compressed', [False, True])
def test_rebase_compresses(tmp_path, compressed):
    for name, pattern in ('old', 1), ('new', 2):
        run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', tmp_path / name, '1M')
        run(need('qemu-io'), '-f', 'qcow2', '-c', f'write -P {pattern} 0 512k', tmp_path / name)
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-b', 'old', '-F', 'qcow2', tmp_path / 'top')
    run(IMG, 'rebase', *(['-c'] if compressed else []), '-b', 'new', '-F', 'qcow2', tmp_path / 'top')
    shown = run(need('qemu-img'), 'check', tmp_path / 'top').stdout
    assert f'{100 if compressed else 0}.00% compressed clusters' in shown
    run(need('qemu-io'), '-r', '-f', 'qcow2', '-c', 'read -P 1 0 512k', '-c', 'read -P 0 512k 512k', tmp_path / 'top')


def writes(folder, *words):
    """What a server hears of a command that writes to it: FUA with its writes, and flushes."""
    socket, log = folder / 's', folder / 'log'
    with nbdkit(socket, '--filter=log', 'memory', '1M', f'logfile={log}'):
        run(IMG, *words, f'nbd+unix:///?socket={socket}')
    text = log.read_text()
    return re.findall(r' Write id=.* fua=(\d)', text), len(re.findall(r' Flush id=', text))


COMMANDS = {
    'convert': ('convert', '-n', '-f', 'raw', '-O', 'raw'),
    'bench': ('bench', '-q', '-w', '-c', '4', '-s', '4096', '-f', 'raw'),
}


@pytest.mark.parametrize('mode', ['writeback', 'writethrough', 'unsafe'])
@pytest.mark.parametrize('name', COMMANDS)
def test_target_cache_mode(tmp_path, name, mode):
    (tmp_path / 'a').write_bytes(b'x' * MIB)
    words = [*COMMANDS[name], '-t', mode, *([tmp_path / 'a'] if name == 'convert' else [])]
    fua, flushes = writes(tmp_path, *words)
    assert fua
    assert set(fua) == ({'1'} if mode == 'writethrough' else {'0'})
    if name == 'convert':
        assert bool(flushes) == (mode == 'writeback') or mode == 'writethrough'


def failing(path):
    """An image whose file fails to flush."""
    return ','.join(['driver=qcow2', 'file.driver=blkdebug', 'file.image.driver=file', f'file.image.filename={path}',
                     'file.inject-error.0.event=none', 'file.inject-error.0.iotype=flush'])


FLUSHING = {
    'amend': lambda folder, mode: ('amend', *mode, '--image-opts', '-o', 'refcount_bits=64', failing(folder / 'top')),
    'rebase': lambda folder, mode: ('rebase', *mode, '--image-opts', '-b', str(folder / 'new'), '-F', 'qcow2',
                                    failing(folder / 'top')),
    'convert': lambda folder, mode: ('convert', '-n', *mode, '--target-image-opts', folder / 'new',
                                     failing(folder / 'top')),
}


@pytest.mark.parametrize('name', FLUSHING)
def test_unsafe_does_not_flush(tmp_path, name):
    # Nothing is kept of a copy that fails, so it need not be durable meanwhile.
    default = ['-t', 'writeback'] if name == 'convert' else []
    for mode, status in (default, 1), (['-t', 'unsafe'], 0):
        for image, words in ('old', ()), ('new', ()), ('top', ('-b', 'old', '-F', 'qcow2')):
            (tmp_path / image).unlink(missing_ok=True)
            run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', *words, tmp_path / image, *(() if words else ('1M',)))
            run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 1 0 128k', tmp_path / image)
        done = run(IMG, *FLUSHING[name](tmp_path, mode), check=False)
        assert done.returncode == status, done.stderr


def test_source_cache_mode_is_looked_at(tmp_path):
    """A source that can only be read whole sectors at a time is, with -T none: by its blocks, not by its length."""
    (tmp_path / 'a').write_bytes(b'x' * (MIB + 100))
    for mode in 'none', 'directsync', 'writeback':
        run(IMG, 'convert', '-T', mode, '-f', 'raw', tmp_path / 'a', tmp_path / 'b')
        assert (tmp_path / 'b').read_bytes()[:MIB + 100] == b'x' * (MIB + 100)
        assert run(IMG, 'compare', '-T', mode, '-f', 'raw', '-F', 'raw', tmp_path / 'a', tmp_path / 'b').returncode == 0


HOSTILE = ['json:{"driver":1}', 'json:{"driver":{}}', 'json:{"driver":null}', 'json:{"file":null}', 'json:{"file":[]}',
           'json:{"file":{"driver":[]}}', 'json:{"driver":"qcow2","backing":{"driver":5},"file":{"driver":"file","filename":"q"}}']


@pytest.mark.parametrize('name', HOSTILE)
def test_names_of_the_wrong_type(tmp_path, name):
    """As names of images, of new ones, and of what an image is on."""
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', 'raw', 'q', '1M', cwd=tmp_path)
    for words in ('info', name), ('check', name), ('create', '-f', 'qcow2', name, '1M'), ('map', 'q'), ('convert', 'q', name):
        done = run(IMG, *words, check=False, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith('ashlar-img: ')


@pytest.mark.parametrize('selector', ['snapshot.id.x=1', 'snapshot.0=x', 'snapshot.foo=1', 'snapshot.id', 'snapshot.'])
def test_snapshot_selectors_of_no_sense(tmp_path, selector):
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', tmp_path / 'q', '1M')
    for words in ('convert', '-l', selector, tmp_path / 'q', tmp_path / 'x'), ('measure', '-l', selector, tmp_path / 'q'):
        assert run(IMG, *words, check=False).returncode == 1


KINDS = {
    'hole': ('raw', 'truncate 1M'), 'zeroes': ('raw', 'write -P 0 0 1M'), 'nothing': ('qcow2', 'length'),
    'marked': ('qcow2', 'write -z 0 1M'), 'data': ('qcow2', 'write -P 0 0 1M'), 'compressed': ('qcow2', 'write -c -P 0 0 1M'),
}


def test_compare_strictly(tmp_path):
    """What is zeroes, what is allocated and what has a place in its file are told apart as by the other program."""
    for name, (kind, command) in KINDS.items():
        run(need('qemu-img'), 'create', '-q', '-f', kind, tmp_path / name, '1M')
        run(need('qemu-io'), '-f', kind, '-c', command, tmp_path / name)
    for a in KINDS:
        for b in KINDS:
            words = ('compare', '-s', '-f', KINDS[a][0], '-F', KINDS[b][0], a, b)
            ours, theirs = (run(img, *words, check=False, cwd=tmp_path) for img in (IMG, need('qemu-img')))
            assert ours.returncode == theirs.returncode == (a != b and not {a, b} <= {'zeroes', 'data'}), (a, b)
            assert ours.stdout.split(' Offset ')[0] == theirs.stdout.split(' Offset ')[0]


def test_trace_points_are_listed_without_a_command():
    assert 'block_request\n' in run(IMG, '-T', 'help').stdout
    assert run(IMG, '-T', 'block_request', check=False).returncode == 1


def test_two_images_of_one_name(tmp_path):
    images = [f'driver=raw,node-name=a,file.filename={tmp_path / name}' for name in 'xy']
    for name in 'xy':
        (tmp_path / name).write_bytes(bytes(MIB))
    for words in ('convert', '-n', '--image-opts', '--target-image-opts'), ('compare', '--image-opts'):
        ours, theirs = (run(tool, *words, *images, check=False) for tool in (IMG, need('qemu-img')))
        assert ours.stderr.replace('ashlar-img', 'qemu-img') == theirs.stderr
        assert "Duplicate nodes with node-name='a'" in ours.stderr
        assert ours.returncode == theirs.returncode


@pytest.mark.parametrize('line', ['convert -s a b', 'convert -pZ a b', 'info --foo', 'create -f', 'dd -f', '-Z', '--foo=1',
                                  'convert --object', 'map --image-opts=x a', 'resize a -Z 1M'])
def test_options_that_there_are_not(line):
    """The words that scripts know; which command has help is ours."""
    ours, theirs = (run(tool, *line.split(), check=False) for tool in (IMG, need('qemu-img')))
    assert ours.stderr.splitlines()[0].replace('ashlar-img', 'qemu-img') == theirs.stderr.splitlines()[0]
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


@pytest.mark.parametrize('options, asks', [
    ('help', True), ('?', True), ('cluster_size=4k,help', True), ('backing_file=a,,,help', True),
    ('backing_file=a,,help,backing_fmt=raw', False), ('backing_file=?,,a,,?,backing_fmt=raw', False),
])
def test_help_among_options(tmp_path, options, asks):
    """A doubled comma belongs to the value, whatever stands behind it."""
    for tool in IMG, need('qemu-img'):
        done = run(tool, 'create', '-q', '-u', '-f', 'qcow2', '-o', options, tmp_path / 'new', '1M')
        assert done.stdout.startswith('Supported options:\n' if asks else '') and bool(done.stdout) == asks
        assert (tmp_path / 'new').exists() != asks
        (tmp_path / 'new').unlink(missing_ok=True)
