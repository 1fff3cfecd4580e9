# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-img on raw images, beside qemu-img: what is printed, how it ends, what is written."""
import os
import re
import signal
import subprocess

import pytest

from harness import PATIENCE_S, TOP, program, wait_for
from img_pair import Pair

MIB = 1 << 20


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


def on_disk(text):
    return re.sub(r'disk size: .*', 'disk size: ', text)


@pytest.mark.parametrize('arguments', [
    (), ('nonsense',), ('info',), ('info', 'none'), ('info', '--output', 'xml', 'a'), ('info', '-f', 'none', 'a'),
    ('create',), ('create', 'x'), ('create', 'x', '1Q'), ('create', '-f', 'none', 'x', '1M'),
    ('create', '-o', 'none=1', 'x', '1M'), ('create', 'none/x', '1M'), ('create', 'x', '1M', 'y'),
    ('create', '-b', 'a', '-F', 'raw', 'x'), ('create', '-o', 'size=1M', 'x', '2M'),
    ('convert',), ('convert', 'a'), ('convert', '-O', 'none', 'a', 'x'), ('convert', '-f', 'none', 'a', 'x'),
    ('convert', '-n', 'a', 'none'), ('convert', '-n', 'a', 'short'), ('convert', '-c', 'a', 'x'),
    ('convert', '-S', '100', 'a', 'x'), ('convert', '-S', 'x', 'a', 'x'), ('convert', '-m', '0', 'a', 'x'),
    ('convert', '-m', '17', 'a', 'x'), ('convert', '--target-is-zero', 'a', 'x'),
    ('convert', '--target-image-opts', 'a', 'x'), ('convert', '-C', '-S', '4k', 'a', 'x'),
    ('convert', '-n', '-o', 'size=1M', 'a', 'short'), ('convert', '-t', 'none-such', 'a', 'x'),
    ('convert', '-T', 'none-such', 'a', 'x'), ('convert', '--salvage', '-C', 'a', 'x'),
    ('convert', '-r', 'x', 'a', 'x'), ('convert', '-B', 'a', '-F', 'raw', 'a', 'x'),
    ('compare',), ('compare', 'a'), ('compare', 'a', 'none'), ('compare', '-f', 'none', 'a', 'a'),
    ('compare', '-T', 'none-such', 'a', 'a'),
    ('map',), ('map', 'none'), ('map', '--start-offset=x', 'a'), ('map', '--max-length=x', 'a'),
    ('check',), ('check', 'none'), ('check', '-f', 'raw', 'a'), ('check', '-r', 'none', 'a'), ('check', '-T', 'x', 'a'),
    ('measure',), ('measure', '--size', '1M', 'a'), ('measure', '--size', 'x'), ('measure', '-O', 'none', 'a'),
    ('measure', 'a', 'a'), ('measure', '--image-opts', '--size', '1M'),
    ('snapshot',), ('snapshot', '-c', 's', 'a'), ('snapshot', '-l', '-d', 's', 'a'), ('snapshot', '-d', 's', 'a'),
    ('snapshot', '-U', '-c', 's', 'a'),
    ('resize',), ('resize', 'a'), ('resize', '-f', 'raw', 'a', 'x'), ('resize', '-f', 'raw', 'a', '-1'),
    ('resize', '-f', 'raw', 'a', '+1M', 'x'), ('resize', '-f', 'raw', '--preallocation=none', 'a', '+1M'),
    ('resize', '-f', 'raw', '--preallocation=full', '--shrink', 'a', '-1M'),
    ('resize', '-f', 'raw', '--shrink', 'a', '-100M'), ('resize', 'none', '1M'),
    ('amend',), ('amend', 'a'), ('amend', '-f', 'raw', '-o', 'help'), ('amend', '-f', 'raw', '-o', 'x=1', 'a'),
    ('commit',), ('commit', '-f', 'raw', '-r', 'x', 'a'), ('commit', '-t', 'x', 'a'),
    ('amend', '-t', 'x', '-o', 'x=1', 'a'), ('rebase', '-t', 'x', '-b', '', 'a'),
    ('rebase', '-T', 'x', '-b', '', 'a'), ('rebase',), ('rebase', 'a'), ('rebase', '-b', '', '-f', 'raw', 'a'),
    ('rebase', '-b', 'none', '-F', 'raw', '-f', 'raw', 'a'),
    ('bitmap',), ('bitmap', 'a', 'b'), ('bitmap', '-b', 'a', '--add', 'a', 'b'), ('bitmap', '-F', 'raw', '--add', 'a', 'b'),
    ('bitmap', '-g', '64k', '--remove', 'a', 'b'),
    ('dd',), ('dd', 'if=a'), ('dd', 'if=a', 'of=x', 'bs=x'), ('dd', 'if=a', 'of=x', 'bs=0'), ('dd', 'if=none', 'of=x'),
    ('dd', 'if=a', 'of=x', 'y=1'), ('dd', 'if=a', 'of=x', 'y'),
    ('bench',), ('bench', '-c', 'x', 'a'), ('bench', '-d', 'x', 'a'), ('bench', '-i', 'x', 'a'), ('bench', '-o', 'x', 'a'),
    ('bench', '-f', 'raw', '--flush-interval=2', 'a'), ('bench', '-w', '-f', 'raw', '-d', '4', '--flush-interval=2', 'a'),
], ids=' '.join)
def test_mistakes(pair, arguments):
    pair.write('a', b'data', size=3 * MIB)
    pair.write('short', size=MIB)
    assert pair.same(*arguments).status != 0


@pytest.mark.parametrize('size', [0, 1, 511, 512, 1000, 1536, 102400, MIB - 1, 1500000, 123456789, 5 << 40])
def test_info(pair, size):
    pair.write('a', size=size)
    pair.same('info', '-f', 'raw', 'a', status=0, edit=on_disk)
    pair.same_json('info', '--output=json', 'a')


def test_info_names(pair):
    pair.write('a', b'x', size=MIB)
    for name in ('file:a', 'json:{"driver": "raw", "file": {"driver": "file", "filename": "a"}}',
                 'json:{"file.filename": "a"}'):
        pair.same('info', name, status=0, edit=on_disk)
    window = 'json:{"driver": "raw", "offset": 512, "file.filename": "a"}'
    pair.same('info', window, status=0, edit=lambda text: re.sub('image: .*', '', on_disk(text)))
    pair.same('info', '--image-opts', 'driver=raw,file.filename=a', status=0, edit=on_disk)
    pair.same('info', '--image-opts', 'file.filename=a', status=0, edit=on_disk)
    pair.same('info', '-U', 'a', status=0, edit=on_disk)
    assert pair.same('info', 'xyz:a').status == 1
    assert pair.same('info', 'json:[]').status == 1
    assert pair.same('info', '--image-opts', 'driver=none,file.filename=a').status == 1


def test_create(pair):
    for arguments in (('a', '1M'), ('a', '1.5G'), ('-f', 'raw', '-o', 'size=2M', 'a'), ('a,b', '513'),
                      ('-f', 'raw', '-o', 'preallocation=full', 'a', '1M'),
                      ('-f', 'raw', '-o', 'preallocation=falloc', 'a', '64k'), ('-q', 'a', '1k')):
        pair.same('create', *arguments, status=0)
        name = 'a,b' if 'a,b' in arguments else 'a'
        ours, theirs = ((folder / name).stat() for folder in pair.folders())
        assert ours.st_size == theirs.st_size
        if 'preallocation=' in str(arguments):
            assert ours.st_blocks == theirs.st_blocks
    pair.same('create', '-o', 'help', status=0)
    pair.same('create', '-o', 'help', 'a', status=0)


def scattered(pair, name, size=64 * MIB):
    pair.write(name, size=size)
    for index in range(0, size, 5 * MIB):
        pair.write(name, os.urandom(1) * (100000 + index // 512), at=index + 12345)
    pair.write(name, bytes(MIB), at=2 * MIB)


@pytest.mark.parametrize('options', [
    (), ('-S', '0'), ('-S', '64k'), ('-W',), ('-m', '1'), ('-m', '16', '-W'), ('-C',), ('-T', 'none'), ('-t', 'none'),
    ('-t', 'writethrough', '-m', '1'), ('-p',), ('--salvage',), ('-U',)], ids=' '.join)
def test_convert(pair, options):
    scattered(pair, 'a')
    assert pair.ashlar('convert', '-f', 'raw', '-O', 'raw', *options, 'a', 'b').status == 0
    assert (pair.ours / 'b').read_bytes() == (pair.ours / 'a').read_bytes()
    assert pair.qemu('convert', '-f', 'raw', '-O', 'raw', *options, 'a', 'b').status == 0
    ours, theirs = ((folder / 'b').stat().st_blocks for folder in pair.folders())
    if '-S' not in options and '-C' not in options:
        assert ours <= theirs * 1.05 + 64
    if options == ('-S', '0'):
        assert ours * 512 >= 64 * MIB


def test_convert_onto_what_is_there(pair):
    scattered(pair, 'a', 16 * MIB)
    pair.write('b', b'\xff' * (17 * MIB))
    pair.same('convert', '-n', '-f', 'raw', '-O', 'raw', 'a', 'b', status=0)
    pair.same_content('b')
    pair.write('c', size=16 * MIB)
    pair.same('convert', '-n', '--target-is-zero', '-f', 'raw', '-O', 'raw', 'a', 'c', status=0)
    pair.same('compare', '-f', 'raw', '-F', 'raw', 'a', 'c', status=0)
    pair.same('convert', '-n', '-f', 'raw', '--target-image-opts', 'a', 'driver=raw,file.filename=c', status=0)
    pair.same_content('c')


def test_convert_several(pair):
    scattered(pair, 'a', 3 * MIB)
    pair.write('b', b'b' * 700000)
    pair.write('c', b'c' * 512)
    pair.same('convert', '-f', 'raw', 'a', 'b', 'c', 'b', 'all', status=0)
    pair.same_content('all')


def test_convert_at_a_rate(pair):
    pair.write('a', b'x' * MIB)
    assert pair.ashlar('convert', '-r', '100M', '-f', 'raw', 'a', 'b').status == 0
    assert (pair.ours / 'b').read_bytes() == b'x' * MIB


def test_convert_progress(pair):
    pair.write('a', b'x' * MIB)
    done = pair.ashlar('convert', '-p', '-f', 'raw', 'a', 'b')
    assert re.fullmatch(r'(    \(\d+\.\d\d/100%\)\r)+\n', done.stdout)
    assert done.stdout.startswith('    (0.00/100%)\r') and done.stdout.endswith('    (100.00/100%)\r\n')
    assert pair.ashlar('convert', '-p', '-q', '-f', 'raw', 'a', 'b').stdout == ''


def test_convert_tells_by_signal(pair):
    pair.write('a', b'x' * (4 * MIB))
    with subprocess.Popen([program('ashlar-img'), 'convert', '-r', '64k', '-m', '1', '-f', 'raw', 'a', 'b'],
                          cwd=pair.ours, stderr=subprocess.PIPE, text=True) as running:
        try:
            # The target is there once the program blocks the signal.
            wait_for(lambda: (pair.ours / 'b').exists() and (pair.ours / 'b').stat().st_size, 'the target')
            running.send_signal(signal.SIGUSR1)
            assert re.fullmatch(r'    \(\d+\.\d\d/100%\)\n', running.stderr.readline())
        finally:
            running.kill()
            running.wait(PATIENCE_S)


def test_compare(pair):
    scattered(pair, 'a', 8 * MIB)
    pair.prepare('cp', 'a', 'b')
    pair.write('longer', (pair.ours / 'a').read_bytes(), size=9 * MIB)
    pair.write('changed', (pair.ours / 'a').read_bytes())
    pair.write('changed', b'!', at=7 * MIB + 1000)
    pair.write('tail', (pair.ours / 'longer').read_bytes())
    pair.write('tail', b'!', at=9 * MIB - 1)
    formats = ('-f', 'raw', '-F', 'raw')
    pair.same('compare', *formats, 'a', 'b', status=0)
    pair.same('compare', *formats, '-q', 'a', 'b', status=0)
    pair.same('compare', *formats, 'a', 'longer', status=0)
    pair.same('compare', *formats, 'longer', 'a', status=0)
    pair.same('compare', *formats, '-s', 'a', 'longer', status=1)
    pair.same('compare', *formats, 'a', 'changed', status=1)
    pair.same('compare', *formats, 'a', 'tail', status=1)
    pair.same('compare', *formats, 'tail', 'a', status=1)
    pair.same('compare', *formats, '-q', 'tail', 'a', status=1)
    pair.same('compare', '-U', '--image-opts', 'driver=raw,file.filename=a', 'driver=raw,file.filename=b', status=0)


def test_map(pair):
    scattered(pair, 'a')
    pair.write('empty')
    for arguments in ((), ('--start-offset=1M',), ('--max-length=5M',), ('-s', '3M', '-l', '7M'),
                      ('--start-offset=1000M',)):
        pair.same('map', '-f', 'raw', *arguments, 'a', status=0)
        pair.same('map', '--output=json', '-f', 'raw', *arguments, 'a', status=0)
    pair.same('map', '-f', 'raw', 'empty', status=0)
    pair.same('map', '-f', 'raw', '--output=json', 'empty', status=0)


def test_measure(pair):
    pair.write('a', b'x', size=1000)
    pair.same('measure', '--size', '1G', status=0)
    pair.same('measure', '-f', 'raw', 'a', status=0)
    pair.same_json('measure', '--output=json', '-O', 'raw', '--size', '12345')


def test_resize(pair):
    pair.write('a', b'x' * 5000)
    for arguments in (('2M',), ('+1M',), ('--shrink', '-512k'), ('--shrink', '1000'), ('--preallocation=full', '3M'),
                      ('--preallocation=falloc', '+64k'), ('-q', '4M'), ('+0',)):
        pair.same('resize', '-f', 'raw', *arguments[:-1], 'a', arguments[-1], status=0)
        pair.same_content('a')
        ours, theirs = ((folder / 'a').stat().st_blocks for folder in pair.folders())
        assert ours == theirs


def test_guessed_raw_is_guarded(pair):
    pair.write('a', b'x' * MIB)
    pair.write('header', b'QFI\xfb\0\0\0\3' + bytes(504))
    assert 'probing guessed raw' in pair.same('resize', 'a', '2M', status=0).stderr
    pair.prepare('cp', 'header', 'b')
    assert pair.same('convert', '-f', 'raw', '-O', 'raw', 'header', 'b', status=0).stderr == ''
    done = pair.ashlar('convert', '-n', '-f', 'raw', '--target-image-opts', 'header', 'file.filename=a')
    assert done.status == 1
    assert 'Operation not permitted' in done.stderr
    assert (pair.ours / 'a').read_bytes()[:4] == b'xxxx'


def test_dd(pair):
    scattered(pair, 'a', 2 * MIB)
    for arguments in (('count=1',), ('bs=1M', 'count=1'), ('bs=64k', 'skip=3'), ('bs=1000',), ('bs=1M', 'skip=5')):
        pair.same('dd', '-f', 'raw', *arguments, 'if=a', 'of=b', status=0)
        pair.same_content('b')


def test_dd_counts_behind_what_it_skips(pair):
    pair.write('a', bytes(range(256)) * 4096)
    assert pair.ashlar('dd', '-f', 'raw', 'bs=4k', 'skip=2', 'count=4', 'if=a', 'of=b').status == 0
    assert (pair.ours / 'b').read_bytes() == (pair.ours / 'a').read_bytes()[8192:8192 + 16384]


def test_bench(pair):
    pair.write('a', b'x' * MIB)

    def timeless(text):
        return re.sub(r'in [\d.]+ seconds', 'in T seconds', text)

    for arguments in ((), ('-w', '--pattern=65'), ('-w', '-c', '256'), ('-d', '2', '-s', '512', '-S', '1k', '-o', '4k'),
                      ('-w', '-d', '2', '--flush-interval=5'), ('-w', '-d', '4', '--no-drain', '--flush-interval=5')):
        pair.same('bench', '-f', 'raw', '-c', '200', *arguments, 'a', status=0, edit=timeless)
    assert pair.ashlar('bench', '-f', 'raw', '-c', '100', '-w', '--pattern=65', 'a').status == 0
    assert (pair.ours / 'a').read_bytes() == b'A' * 409600 + bytes(MIB - 409600)


def test_locks(pair):
    pair.write('a', b'x' * MIB)
    done = pair.ashlar('convert', '-f', 'raw', '-O', 'raw', 'a', 'a')
    assert done.status == 1
    assert 'lock' in done.stderr
    assert (pair.ours / 'a').read_bytes() == b'x' * MIB


def test_help():
    text = subprocess.run([program('ashlar-img'), '--help'], capture_output=True, text=True, check=True).stdout
    for command in ('amend', 'bench', 'bitmap', 'check', 'commit', 'compare', 'convert', 'create', 'dd', 'info', 'map',
                    'measure', 'rebase', 'resize', 'snapshot'):
        assert re.search(rf'^  {command} ', text, re.MULTILINE)
        help_text = subprocess.run([program('ashlar-img'), command, '--help'], capture_output=True, text=True,
                                   check=True).stdout
        assert help_text.startswith(f'usage: ashlar-img {command} ')
        manual = (TOP / 'docs' / 'ashlar-img.1').read_text().replace('\\-', '-')
        section = manual.split(f'.SS {command}\n')[1].split('.SS ')[0]
        for option in re.findall(r'^  (-\S+)', help_text, re.MULTILINE):
            assert f'.B {option}' in section, f'{command} {option} is not in the manual'
    assert subprocess.run([program('ashlar-img'), '-V'], capture_output=True, text=True,
                          check=True).stdout.startswith('ashlar-img version ')
