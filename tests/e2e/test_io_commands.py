# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-io beside the program that it stands in for: the same commands on the same image, line by line."""
import re
import shutil
import subprocess

import pytest

from harness import BUILD, PATIENCE_S, need, program, run
from nbd_peers import nbdkit

OURS = BUILD / 'compat' / 'qemu-io'


def normalise(text):
    """Without times, and without the words of summaries, which are each program's own."""
    text = re.sub(r'(00\.\d\d sec|\d+:\d\d:\d\d\.\d\d) \([^)]*\)', 'TIME', text)
    text = re.sub(r',\d+:\d\d:\d\d\.\d\d,\d+\.\d+,\d+\.\d+$', ',TIME', text, flags=re.M)
    text = re.sub(r'^(\w+)( [^\n]*)?( )-- [a-z][^\n]*$', r'\1 USAGE', text, flags=re.M)
    return text


def outcome(io, folder, words, text=None):
    """Output, errors, status, and the image afterwards, of the program run in the folder with a fresh image."""
    folder.mkdir(parents=True)
    image = folder / 'image'
    with open(image, 'wb') as file:
        file.write(bytes(range(256)) * 16 + b'azAZ09 .~\x7f\t')
        file.truncate(10 << 20)
    (folder / 'odd').write_bytes(b'x' * 1000)
    (folder / 'pattern').write_bytes(b'abc')
    (folder / 'nothing').write_bytes(b'')
    done = subprocess.run([str(io), *words], cwd=folder, input=text or '', capture_output=True, text=True,
                          timeout=5 * PATIENCE_S, check=False)
    return normalise(done.stdout), normalise(done.stderr), done.returncode, image.read_bytes()


def assert_same(tmp_path, words, text=None):
    theirs = outcome(need('qemu-io'), tmp_path / 'theirs', words, text)
    ours = outcome(OURS, tmp_path / 'ours', words, text)
    assert ours[:3] == theirs[:3]
    assert ours[3] == theirs[3]


def commands(*lines):
    return [word for line in lines for word in ('-c', line)]


SCRIPTS = {
    'read': ['read 0 64k', 'read -C 512 1k', 'read -q 0 1', 'read -v 0 300', 'read -v 4090 40', 'read -vC 4096 5',
             'read -vq 0 5', 'read -p 0 1', 'r 0 0'],
    'read-pattern': ['read -P 0 1M 1k', 'read -P 0xff 1M 1k', 'read -P 0 4100 10', 'read -P 1 -s 1 -l 1 0 16',
                     'read -P 1 -l 1 0 16', 'read -P 0 -s 20 1M 64', 'read -P 1 -s 20 1M 64', 'read -P 0 -s 60 -l 5 1M 64',
                     'read -P 0 -s 65 1M 64', 'readv -P 0 1M 10 20 30', 'readv -P 1 1M 10 20 30'],
    'read-refused': ['read 9M 2M', 'read 11M 2M', 'read 0', 'read', 'read x 5', 'read 0 y', 'read 0 5 6', 'read -1 5',
                     'read -P zz 0 5', 'read -P 256 0 5', 'read -P -1 0 5', 'read -P', 'read -s 1 0 5', 'read -l 1 0 5',
                     'read -P 0 -s x 0 1', 'read -P 0 -l x 0 1', 'read -b 1 512', 'read -b 0 1', 'read 0 2G',
                     'read 99999999999G 1', 'read 16E 1', 'read 7E 1', 'read 1e1 1', 'read 0 1s', 'read "0" 1'],
    'write': ['write 0 64k', 'write -P 0x11 512 1k', 'write -P 7 1.5k 1b', 'write -C 0 4k', 'write -q 0 4k',
              'write -f 4k 4k', 'write 3 5', 'w 1M 0', 'write 2M 1536', 'write 2M 1023'],
    'write-zeroes': ['write -z 0 1M', 'write -z -u 1M 64k', 'write -zn 2M 64k', 'write -zf 0 512', 'write -z 100 1000',
                     'write -cz 0 512'],
    'write-file': ['write -s pattern 1 16', 'write -s nothing 0 16', 'write -s absent 0 16',
                   'write -s pattern -P 1 0 1', 'write -zs pattern 0 1'],
    'write-refused': ['write -u 0 64k', 'write -n 0 64k', 'write -zP 1 0 64k', 'write -c 0 64k', 'write -c 1 512',
                      'write -c 512 1', 'write -b 1 512', 'write -bz 0 512', 'write -fb 0 512', 'write -fc 0 512',
                      'write 0 3G', 'write -z 0 3G', 'write -zn 0 3G', 'write 9M 2M', 'write -Z 0 1', 'write 0'],
    'vector': ['writev 0 1k 2k 3k', 'writev -P 5 1 1 2 3', 'readv 0 1k 2k 3k', 'readv -v 0 3 5 16', 'readv 0',
               'writev 0', 'writev -f 0 1k', 'writev -C 0 1k', 'readv 0 1k x', 'readv x 1k', 'readv 0 3G',
               'readv 0 1G 1G 1G', 'readv -Z 0 1', 'writev -z 0 1', 'writev 10M 1'],
    'async': ['aio_write 0 64k', 'aio_flush', 'aio_read -v 0 16 3', 'aio_flush', 'aio_read -P 4 0 64k', 'aio_flush',
              'aio_write -C 0 1k', 'aio_flush', 'aio_write -q 0 1k', 'aio_write -f 1M 1k', 'aio_flush',
              'aio_read 20M 1k', 'aio_flush', 'aio_write 20M 1k', 'aio_flush', 'aio_write -z 20M 1', 'aio_flush'],
    'async-refused': ['aio_read', 'aio_read 0', 'aio_read x 1', 'aio_read 0 x', 'aio_read -Z 0 1',
                      'aio_read -P x 0 1', 'aio_write -P x 0 1', 'aio_write x 1', 'aio_write 0 x', 'aio_write -z x 1',
                      'aio_write -z 0 x', 'aio_write -z 0 1 2', 'aio_write -u 0 1', 'aio_write -zn 0 1',
                      'aio_write -i 0 1', 'aio_read -i 0 1', 'aio_flush x'],
    'unflushed-async': ['aio_write -P 9 0 64k'],
    'discard': ['discard 0 64k', 'discard -q 64k 64k', 'discard -C 0 64k', 'discard 20M 64k', 'discard 0',
                'discard x 1', 'discard 0 x', 'discard 0 4G', 'discard -z 0 1', 'flush'],
    'length': ['length', 'l', 'truncate 5M', 'length', 'truncate 1536', 'length', 'truncate -m full 1M', 'length',
               'truncate -m falloc 2M', 'truncate -m off 3M', 'truncate -m foo 6M', 'truncate', 'truncate x',
               'truncate -5', 'truncate -m', 'length x', 'read 2M 1M'],
    'allocation': ['map', 'alloc 0', 'alloc 0 1M', 'alloc 4M 10M', 'alloc 1', 'alloc 1 2', 'alloc 20M', 'alloc 0 x',
                   'alloc x', 'alloc', 'alloc 1 2 3'],
    'info': ['info', 'i', 'info x'],
    'close': ['close', 'read 0 5', 'read', 'length', 'open -o driver=raw image', 'length', 'open image', 'close',
              'open -o driver=raw,file.filename=odd', 'length', 'read 0 1024', 'close', 'open absent',
              'open -o driver=foo image', 'open -Z', 'open', 'open a b', 'open -t foo image', 'open -d foo image',
              'open -i foo image', 'open -U image', 'open -r -o driver=raw image', 'write 0 1', 'close',
              'open -n -o driver=raw image', 'write 0 512', 'read -P 0xcd 0 512'],
    'reopen': ['reopen -r', 'write 0 1k', 'aio_write 0 1', 'discard 0 1', 'writev 0 1', 'truncate 1M', 'flush',
               'reopen -w', 'write 0 1k', 'reopen -c none', 'read 512 512', 'reopen -c foo', 'reopen -rw',
               'reopen x', 'reopen -o cache.direct=off', 'length'],
    'others': ['foo', '', '   ', 'sleep 1', 'sleep 0x1', 'sleep x', 'sleep -1', 'sleep 1k', 'sleep', 'sleep 1 2',
               'sigraise', 'sigraise 0', 'sigraise x', 'sigraise -1', 'break a b', 'break', 'resume x',
               'remove_break x', 'flush x', 'map 1', 'close 1', 'help 1 2', 'help nonesuch', 'q', 'length'],
    'quit': ['length', 'quit now', 'length'],
    'numbers': ['read +1 512', 'read +1k 1', 'read 0 +1k', 'alloc +1', 'read 0 -1k', 'read 0 ++1', 'read 0x1k 512', 'read 0x10 0X10',
                'read 0 0xg', 'read 0x 1', 'read 0 1.5', 'read 0 1.9k', 'read 0 0.5', 'read 1.k 1', 'read .5k 1', 'read 0 1.5b',
                'read 010 08', 'readv 0 1M 512', 'read 0 10485759', 'alloc 10485759', 'alloc 10485761', 'alloc 2147483647',
                'alloc 4294967295', 'read 0 2147483136', 'read 0 2147483137', 'read 9223372036854775807 1',
                'read 9223372036854775808 1', 'read 18446744073709551616 1', 'read 0 7.9E', 'read 0 16E', 'read 15.9E 1',
                'read 0 nan', 'read 0 1e3', 'read 0 1KiB', 'read 0 1,000', 'discard 0 +64k', 'truncate +5M', 'length'],
    'signals-and-abort': ['sigraise 100', 'sigraise 1k', 'sigraise 999999999999', 'abort x', 'length'],
    'truncate-with-preallocation': ['truncate -m full 1M', 'truncate -m falloc 11M', 'length', 'truncate 11M -m off', 'length'],
}


@pytest.mark.parametrize('name', SCRIPTS)
def test_io_script(tmp_path, name):
    assert_same(tmp_path, ['-f', 'raw', *commands(*SCRIPTS[name]), 'image'])


@pytest.mark.parametrize('name', ['read', 'write', 'vector', 'write-zeroes'])
@pytest.mark.parametrize('options', [['-m'], ['-n'], ['-mn'], ['-s'], ['-i', 'threads'],
                                     ['-t', 'writethrough'],
                                     ['-t', 'directsync', '-k'], ['-d', 'ignore']])
def test_io_script_however_the_image_is_opened(tmp_path, name, options):
    assert_same(tmp_path, ['-f', 'raw', *options, *commands(*SCRIPTS[name]), 'image'])


@pytest.mark.parametrize('options', [
    ['-r', '-f', 'raw', 'image'], ['-U', '-f', 'raw', 'image'], ['-rU', '-f', 'raw', 'image'], ['image'], ['-r', 'image'],
    ['--image-opts', 'driver=raw,file.driver=file,file.filename=image'], ['--image-opts', 'driver=foo'],
    ['--image-opts', '-f', 'raw', 'driver=raw'], ['-f', 'foo', 'image'], ['-t', 'foo', 'image'], ['-d', 'foo', 'image'],
    ['-i', 'foo', 'image'], ['-k', '-f', 'raw', 'image'], ['absent'], ['foo:bar'], ['json:{}'], [],
    ['-rs', '-f', 'raw', 'image'], ['-sU', '-f', 'raw', 'image'], ['file:image'], ['--image-opts', 'file.filename=image'],
    ['-r', '-C', '-f', 'raw', 'image'],
    *(['--image-opts', f'driver=raw,node-name={name},file.node-name=b,file.filename=image']
      for name in ('a', 'b', '', '1a', 'a/b', 'a' * 32)),
    ['--image-opts', 'node-name=a,file.node-name=b,file.filename=image'],
    ['-f', 'raw', 'odd'], ['--object', 'secret,id=s,data=x', '-f', 'raw', 'image'],
    ['--object', 'foo,id=s', '-f', 'raw', 'image'],
])
def test_io_image(tmp_path, options):
    assert_same(tmp_path, [*commands('length', 'write 0 512', 'read 990 10', 'map'), *options])


@pytest.mark.parametrize('text', [
    '', '\n \n', 'length\n', 'length', 'length\nquit\nlength\n', 'foo\nlength\n', 'read 100G 1\nlength\nq\n',
    'write 0 4k\nread -v 0 32\n', 'close\nlength\nopen absent\nlength\n',
])
def test_io_standard_input(tmp_path, text):
    assert_same(tmp_path, ['-f', 'raw', 'image'], text)


def test_io_ends_by_signal_and_by_abort(tmp_path):
    assert_same(tmp_path / 'a', ['-f', 'raw', *commands('write 0 1k', 'sigraise 15'), 'image'])
    theirs, ours = (outcome(io, tmp_path / name, ['-f', 'raw', *commands('write 0 1k', 'abort'), 'image'])
                    for io, name in ((need('qemu-io'), 'theirs'), (OURS, 'ours')))
    assert ours[2] == theirs[2] < 0


@pytest.mark.parametrize('first, second', [(OURS, 'qemu-io'), ('qemu-io', OURS), (OURS, OURS)])
def test_io_shares_the_image_as_the_other_does(tmp_path, first, second):
    """A raw image bears a second writer; a resize does not go with that."""
    image = tmp_path / 'image'
    image.write_bytes(bytes(4096))
    first, second = (need(io) if io == 'qemu-io' else io for io in (first, second))
    with subprocess.Popen([str(first), '-f', 'raw', image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as holder:
        assert holder.stdout.read(len('qemu-io> ')) == 'qemu-io> '
        assert run(second, '-f', 'raw', '-c', 'write -q -P 3 0 1k', image).stdout == ''
        assert 'TIME' in normalise(holder.communicate('read -P 3 0 1k\nquit\n', timeout=PATIENCE_S)[0])
        assert holder.returncode == 0


def test_io_help_and_version(tmp_path):
    io = program('ashlar-io')
    assert re.fullmatch(r'ashlar-io version \d+\.\d+\.\d+ \(interface version 9\.1\.1\)\n', run(io, '-V').stdout)
    assert run(io, '--help').stdout.startswith('Usage: ashlar-io [options] [IMAGE]\n')
    listed = run(io, '-c', 'help').stdout
    theirs = run(need('qemu-io'), '-c', 'help').stdout
    names = [line.split()[0] for line in listed.splitlines() if ' -- ' in line]
    assert names == [line.split()[0] for line in theirs.splitlines() if ' -- ' in line]
    for name in names:
        assert run(io, '-c', f'help {name}').stdout.startswith(name)
    assert run(io, '-Z', check=False).returncode == 1
    assert run(io, '-c', check=False).returncode == 1
    assert run(io, 'a', 'b', check=False).returncode == 1


def test_io_shows_long_times_with_hours(tmp_path):
    path = tmp_path / 's'
    with nbdkit(path, '--filter=delay', 'memory', '1M', 'wdelay=1'):
        shown = run(OURS, '-f', 'raw', '-c', 'write 0 4k', '-c', 'read 0 4k', f'nbd+unix:///?socket={path}').stdout.splitlines()
    assert re.fullmatch(r'4 KiB, 1 ops; \d+:\d\d:\d\d\.\d\d \(.* KiB/sec and 0\.\d{4} ops/sec\)', shown[1])


def test_io_prompts_with_its_own_name(tmp_path):
    shutil.copyfile('/dev/null', tmp_path / 'image')
    done = subprocess.run([program('ashlar-io'), '-f', 'raw', tmp_path / 'image'], input='length\n', text=True,
                          capture_output=True, timeout=PATIENCE_S, check=True)
    assert done.stdout == 'ashlar-io> 0 bytes\nashlar-io> '


def test_io_copies_on_read(tmp_path):
    """-C: what is read from the backing image is in the image afterwards."""
    img = need('qemu-img')
    outputs = []
    for io in (need('qemu-io'), OURS):
        folder = tmp_path / str(len(outputs))
        folder.mkdir()
        run(img, 'create', '-q', '-f', 'raw', 'base', '1M', cwd=folder)
        run(need('qemu-io'), '-f', 'raw', '-c', 'write -q -P 5 0 1M', 'base', cwd=folder)
        run(img, 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'top', cwd=folder)
        done = run(io, '-C', '-f', 'qcow2', '-c', 'read -P 5 64k 64k', 'top', cwd=folder)
        mapped = run(need('qemu-io'), '-f', 'qcow2', '-c', 'map', 'top', cwd=folder)
        outputs.append(normalise(done.stdout) + mapped.stdout)
    assert outputs[0] == outputs[1]


def qcow2_outcome(io, folder, scripts):
    """What the program prints on a qcow2 image over another, a run for each of the lists of commands."""
    folder.mkdir(parents=True)
    img = need('qemu-img')
    run(img, 'create', '-q', '-f', 'qcow2', folder / 'base', '4M')
    run(need('qemu-io'), '-f', 'qcow2', '-c', 'write -P 1 0 4M', folder / 'base')
    run(img, 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', folder / 'image')
    printed = []
    for script in scripts:
        done = subprocess.run([str(io), *commands(*script), 'image'], cwd=folder, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=5 * PATIENCE_S, check=False)
        printed.append((normalise(done.stdout), normalise(done.stderr), done.returncode))
    run(img, 'check', folder / 'image')
    return printed


QCOW2_SCRIPTS = {
    'reopen': [['write -P 2 0 64k', 'aio_write -P 3 64k 64k', 'reopen -r', 'read -P 2 0 64k', 'read -P 3 64k 64k', 'write 0 1',
                'reopen -w', 'write -P 4 0 1k', 'reopen -r', 'reopen', 'write 0 1'],
               ['read -P 4 0 1k', 'reopen -c none', 'read -P 4 0 512', 'reopen -c writethrough', 'write 0 512',
                'reopen -o lazy-refcounts=on', 'reopen -o cache-size=1M', 'reopen -o overlap-check=none', 'reopen -c foo',
                'reopen -o driver=raw', 'reopen -o file.driver=null-co', 'reopen -o file.filename=x', 'reopen -r -o read-only=on',
                'reopen -c none -o cache.direct=on', 'reopen -o backing.cache.direct=on', 'read -P 1 1M 64k']],
    'vm-state': [['info', 'read -bP 0 0 64k', 'write -bP 5 0 1k', 'write -bP 6 100k 128k', 'read -bP 5 0 1k',
                  'read -bP 0 1k 99k', 'read -bP 6 100k 128k', 'read -bP 0 228k 1M', 'read -P 1 0 4M', 'length',
                  'write -bP 7 700M 64k'],
                 ['read -bP 6 100k 128k', 'read -bP 7 700M 64k', 'reopen -r', 'write -b 0 512', 'read -bP 5 0 1k']],
}


@pytest.mark.parametrize('name', QCOW2_SCRIPTS)
def test_on_qcow2(tmp_path, name):
    ours = qcow2_outcome(OURS, tmp_path / 'ours', QCOW2_SCRIPTS[name])
    assert ours == qcow2_outcome(need('qemu-io'), tmp_path / 'theirs', QCOW2_SCRIPTS[name])


def test_vm_state_goes_with_snapshots_and_makes_way(tmp_path):
    """A snapshot brings back the state of its time; none of it shows where a disk grows over its place."""
    image, img = tmp_path / 'image', BUILD / 'compat' / 'qemu-img'
    run(img, 'create', '-q', '-f', 'qcow2', image, '4M')
    run(OURS, *commands('write -b -P 3 0 64k'), image)
    run(img, 'snapshot', '-c', 's', image)
    run(OURS, *commands('write -b -P 4 0 64k'), image)
    for io in OURS, need('qemu-io'):
        run(io, *commands('read -b -P 4 0 64k'), image)
    run(img, 'resize', image, '600M')
    run(OURS, *commands('read -P 0 512M 64k', 'read -b -P 0 0 64k'), image)
    run(need('qemu-img'), 'check', image)
    run(img, 'snapshot', '-a', 's', image)
    for io in OURS, need('qemu-io'):
        run(io, *commands('read -b -P 3 0 64k', 'length'), image)
    run(need('qemu-img'), 'check', image)
    raw = run(OURS, '-f', 'raw', *commands('write -b 0 512', 'read -b 0 512'), image, check=False)
    assert raw.stdout.splitlines() == [f'{what} failed: Operation not supported' for what in ('write', 'read')]
