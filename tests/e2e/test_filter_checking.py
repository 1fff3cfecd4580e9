# SPDX-License-Identifier: LGPL-2.1-or-later
"""blkverify and blklogwrites: what they find, and what they write down."""
import json
import random
import struct

import pytest
from harness import BUILD, QmpError, need, raw_image, run
from job_tools import connect, content, serve

MIB = 1 << 20
IO = BUILD / 'compat' / 'qemu-io'
FLUSH, FUA, DISCARD = 1, 2, 4


# --- blklogwrites: a reader of the log as the kernel's documentation of dm-log-writes describes it ---

class Entry:
    def __init__(self, sector, count, flags, data):
        self.sector, self.count, self.flags, self.data = sector, count, flags, data


def read_log(path):
    """The sector size, and all entries that the header counts."""
    log = content(path)
    magic, version, entries, sector_size = struct.unpack_from('<QQQI', log)
    assert (magic, version) == (0x6a736677736872, 1)
    result, at = [], sector_size
    for _ in range(entries):
        sector, count, flags, data_length = struct.unpack_from('<QQQQ', log, at)
        assert not any(log[at + 32:at + sector_size]) and not data_length
        at += sector_size
        length = 0 if flags & DISCARD else count * sector_size
        assert at + length <= len(log)
        result.append(Entry(sector, count, flags, log[at:at + length]))
        at += length
    return sector_size, result


def play(image, sector_size, entries):
    for entry in entries:
        at = entry.sector * sector_size
        image[at:at + len(entry.data)] = entry.data


def logging(folder, **options):
    return {'driver': 'blklogwrites', 'node-name': 'l', 'discard': 'unmap', **options,
            'file': {'driver': 'file', 'filename': f'{folder}/disk', 'discard': 'unmap'},
            'log': {'driver': 'file', 'filename': f'{folder}/log'}}


@pytest.mark.parametrize('sector_size', [512, 4096])
def test_log_is_played_back(daemon, tmp_path, sector_size):
    """At each flush the entries before it make the state that the client knew, and in the end the whole image."""
    raw_image(tmp_path / 'disk', 2 * MIB, b'old!')
    raw_image(tmp_path / 'log', 0)
    played, model, states = bytearray(content(tmp_path / 'disk')), bytearray(content(tmp_path / 'disk')), []
    one = daemon()
    one.qmp.command('blockdev-add', **logging(tmp_path, **{'log-sector-size': sector_size}))
    client = connect(serve(one.qmp, tmp_path / 'nbd', 'l'))
    seed = random.Random(sector_size)
    for number in range(60):
        at, length = seed.randrange(400) * 4096, seed.randrange(1, 9) * 4096
        if number % 5 == 4:
            client.zero(length, at)
            model[at:at + length] = bytes(length)
        else:
            data = seed.randbytes(length)
            client.pwrite(data, at)
            model[at:at + length] = data
        if number % 7 == 6:
            client.flush()
            states.append(bytes(model))
    client.flush()
    states.append(bytes(model))
    client.shutdown()
    one.stop()
    size, entries = read_log(tmp_path / 'log')
    assert size == sector_size
    rest = iter(states)
    for entry in entries:
        play(played, size, [entry])
        if entry.flags & FLUSH:
            assert not entry.data
            assert played == next(rest, states[-1])
    assert next(rest, None) is None
    assert played == content(tmp_path / 'disk')


def test_kinds_of_entries(daemon, tmp_path):
    raw_image(tmp_path / 'disk', MIB)
    raw_image(tmp_path / 'log', 0)
    one = daemon()
    one.qmp.command('blockdev-add', **logging(tmp_path))
    import nbd
    client = connect(serve(one.qmp, tmp_path / 'nbd', 'l'))
    client.pwrite(b'a' * 512, 1024, nbd.CMD_FLAG_FUA)
    client.trim(65536, 65536)
    client.zero(4096, 8192)
    client.flush()
    _, entries = read_log(tmp_path / 'log')
    assert [(entry.sector, entry.count, entry.flags) for entry in entries] == [
        (2, 1, FUA), (128, 128, DISCARD), (16, 8, 0), (0, 0, FLUSH)]
    assert entries[0].data == b'a' * 512 and entries[2].data == bytes(4096)
    client.shutdown()


def test_log_goes_on(tmp_path):
    """Appended to, by the unit that it began with; a header that counts too little is brought up to date."""
    raw_image(tmp_path / 'disk', MIB)
    raw_image(tmp_path / 'log', 0)
    for number in range(3):
        options = {'log-append': True} if number else {'log-sector-size': 1024, 'log-super-update-interval': 2}
        options = {key: value for key, value in logging(tmp_path, **options).items() if key != 'node-name'}
        script = [f'write -P {number + 1} {number * 4096 + at * 1024} 1k' for at in range(3)]
        run(IO, *[word for line in script for word in ('-c', line)], f'json:{json.dumps(options)}')
    size, entries = read_log(tmp_path / 'log')
    assert size == 1024
    writes = [entry for entry in entries if entry.data]
    assert [(entry.sector, entry.data[0]) for entry in writes] == [
        (number * 4 + at, number + 1) for number in range(3) for at in range(3)]


def test_small_writes_are_padded(tmp_path):
    raw_image(tmp_path / 'disk', MIB + 512, b'old!')
    raw_image(tmp_path / 'log', 0)
    options = {key: value for key, value in logging(tmp_path, **{'log-sector-size': 4096}).items() if key != 'node-name'}
    before = bytearray(content(tmp_path / 'disk'))
    run(IO, '-c', 'write -P 1 100 10', '-c', f'write -P 2 {MIB + 500} 12', f'json:{json.dumps(options)}')
    size, entries = read_log(tmp_path / 'log')
    assert [entry.sector for entry in entries if entry.data] == [0, MIB // 4096]
    play(before, size, entries)
    assert before[:MIB + 512] == content(tmp_path / 'disk')


@pytest.mark.parametrize('options, complaint', [
    ({'log-sector-size': 100}, 'Invalid log sector size 100'),
    ({'log-sector-size': 1 << 30}, 'Invalid log sector size 1073741824'),
    ({'log-super-update-interval': 0}, 'Invalid log superblock update interval 0'),
    ({'log-append': True, 'log-sector-size': 512}, 'log-append and log-sector-size are mutually exclusive'),
    ({'log-append': True, 'at': 0, 'byte': 88}, 'Invalid log superblock magic'),
    ({'log-append': True, 'at': 8, 'byte': 2}, 'Unsupported log version 2'),
    ({'log-append': True, 'at': 25, 'byte': 255}, 'Invalid log sector size 65280'),
    ({'log-append': True, 'at': 16, 'byte': 9}, 'Could not read log entry 2 of 9 at sector'),
    ({'log-append': True, 'at': 520, 'byte': 200}, 'Log entry 0 of 2 says that 200 sectors of data follow'),
    ({'log-append': True, 'at': 527, 'byte': 255}, 'Log entry 0 of 2 says that'),
])
def test_log_refused(daemon, tmp_path, options, complaint):
    raw_image(tmp_path / 'disk', MIB)
    log = bytearray(512 * 4)
    struct.pack_into('<QQQI', log, 0, 0x6a736677736872, 1, 2, 512)
    struct.pack_into('<QQQQ', log, 512, 0, 1, 0, 0)
    struct.pack_into('<QQQQ', log, 1536, 0, 0, FLUSH, 0)
    if 'at' in options:
        log[options.pop('at')] = options.pop('byte')
    (tmp_path / 'log').write_bytes(log)
    one = daemon()
    with pytest.raises(QmpError, match=complaint):
        one.qmp.command('blockdev-add', **logging(tmp_path, **options))
    assert (tmp_path / 'log').read_bytes() == log


def test_log_is_nobody_elses(daemon, tmp_path):
    raw_image(tmp_path / 'disk', MIB)
    raw_image(tmp_path / 'log', 0)
    one = daemon()
    one.qmp.command('blockdev-add', driver='file', filename=f'{tmp_path}/log', **{'node-name': 'log'})
    one.qmp.command('blockdev-add', **{**logging(tmp_path), 'log': 'log'})
    with pytest.raises(QmpError, match='Permission conflict'):
        serve(one.qmp, tmp_path / 'nbd', 'log')


def test_full_log_fails_the_request(daemon, tmp_path):
    """What cannot be recorded is an error, and from then on nothing is: the record has no gap."""
    raw_image(tmp_path / 'disk', MIB)
    raw_image(tmp_path / 'log', 0)
    one = daemon()
    options = logging(tmp_path)
    options['log'] = {'driver': 'blkdebug', 'image': options['log'],
                      'inject-error': [{'event': 'none', 'iotype': 'write', 'errno': 28, 'sector': 3, 'once': True}]}
    one.qmp.command('blockdev-add', **options)
    client = connect(serve(one.qmp, tmp_path / 'nbd', 'l'))
    client.pwrite(b'a' * 512, 0)
    with pytest.raises(Exception, match='No space left on device'):
        client.pwrite(b'b' * 512, 512)
    with pytest.raises(Exception, match='Input/output error'):
        client.pwrite(b'c' * 512, 1024)
    client.shutdown()
    one.stop()
    _, entries = read_log(tmp_path / 'log')
    assert [entry.data[:1] for entry in entries] == [b'a']


# --- blkverify ---

def pair(folder, test_format='raw'):
    raw_image(folder / 'raw', MIB, b'data')
    if test_format == 'qcow2':
        run(need('qemu-img'), 'convert', '-f', 'raw', '-O', 'qcow2', str(folder / 'raw'), str(folder / 'test'))
    else:
        raw_image(folder / 'test', MIB, b'data')


def test_equal_by_name(tmp_path):
    pair(tmp_path, 'qcow2')
    done = run(IO, '-f', 'raw', '-c', 'read 0 1M', '-c', 'write -P 7 100 5000', '-c', 'write -z 64k 64k',
               '-c', 'discard 128k 64k', '-c', 'read -P 7 100 5000', '-c', 'flush', 'blkverify:raw:test', cwd=tmp_path)
    assert 'mismatch' not in done.stderr
    run(need('qemu-img'), 'compare', '-f', 'raw', '-F', 'qcow2', str(tmp_path / 'raw'), str(tmp_path / 'test'))
    info = run(BUILD / 'compat' / 'qemu-img', 'info', '--output=json', '-f', 'raw', 'blkverify:raw:test', cwd=tmp_path)
    assert json.loads(info.stdout)['filename'] == 'blkverify:raw:test'


def test_difference(tmp_path):
    """It is told with its place, and then nothing works any more."""
    pair(tmp_path)
    with open(tmp_path / 'test', 'r+b') as image:
        image.seek(1000)
        image.write(b'X')
    done = run(IO, '-f', 'raw', '-c', 'read 64k 64k', '-c', 'read 512 4k', '-c', 'read 64k 64k', 'blkverify:raw:test',
               cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert 'blkverify: read offset=512 bytes=4096 contents mismatch at offset 1000' in done.stderr
    assert done.stdout.count('read failed: Input/output error') == 2


@pytest.mark.parametrize('side, kind, line', [
    ('raw', 'write', 'blkverify: write offset=0 bytes=4096 return value mismatch 0 != -5'),
    ('test', 'write', 'blkverify: write offset=0 bytes=4096 return value mismatch -5 != 0'),
    ('test', 'read', 'blkverify: read offset=0 bytes=4096 return value mismatch -5 != 0'),
])
def test_one_fails(daemon, tmp_path, side, kind, line):
    pair(tmp_path)
    nodes = {name: {'driver': 'file', 'filename': f'{tmp_path}/{name}'} for name in ('raw', 'test')}
    nodes[side] = {'driver': 'blkdebug', 'image': nodes[side], 'inject-error': [{'event': 'none', 'iotype': kind}]}
    one = daemon()
    one.qmp.command('blockdev-add', driver='blkverify', **{'node-name': 'v'}, **nodes)
    client = connect(serve(one.qmp, tmp_path / 'nbd', 'v'))
    with pytest.raises(Exception, match='Input/output error'):
        client.pwrite(b'x' * 4096, 0) if kind == 'write' else client.pread(4096, 0)
    assert line in one.stderr
    with pytest.raises(Exception, match='Input/output error'):
        client.pread(4096, 8192)


def test_verify_refused(daemon, tmp_path):
    pair(tmp_path)
    raw_image(tmp_path / 'raw', 65536)
    one = daemon()
    nodes = {name: {'driver': 'file', 'filename': f'{tmp_path}/{name}'} for name in ('raw', 'test')}
    with pytest.raises(QmpError, match='the raw node .* of 65536 bytes is shorter than the node .* of 1048576 bytes'):
        one.qmp.command('blockdev-add', driver='blkverify', **{'node-name': 'v'}, **nodes)
    done = run(IO, '-c', 'read 0 1', 'blkverify:raw', cwd=tmp_path, check=False)
    assert 'blkverify requires raw copy and original image path' in done.stderr
