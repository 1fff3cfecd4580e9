# SPDX-License-Identifier: LGPL-2.1-or-later
"""ashlar-img on qcow2 images, beside qemu-img."""
import json
import os
import re

import pytest

from img_pair import Pair

MIB = 1 << 20
KIB = 1 << 10


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


def on_disk(text):
    """How much is allocated on the host may differ."""
    return re.sub(r'disk size: .*', 'disk size: ', text)


def without_sizes(value):
    if isinstance(value, list):
        return [without_sizes(one) for one in value]
    return {key: member for key, member in value.items() if key != 'actual-size'}


def write(pair, name, *commands, fmt='qcow2'):
    words = [word for command in commands for word in ('-c', command)]
    pair.prepare('qemu-io', '-f', fmt, *words, name)


def chain(pair):
    """base.raw <- mid.q <- top.q, each with data of its own, the top one longer; what it shows is in want.raw."""
    pair.prepare('qemu-img', 'create', '-q', '-f', 'raw', 'base.raw', '4M')
    write(pair, 'base.raw', 'write -P 1 0 2M', fmt='raw')
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'mid.q')
    write(pair, 'mid.q', 'write -P 2 512k 1M')
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'mid.q', '-F', 'qcow2', 'top.q', '5M')
    write(pair, 'top.q', 'write -P 3 1M 1M', 'write -z 0 128k', 'write -P 4 4500k 64k')
    pair.prepare('qemu-img', 'convert', '-O', 'raw', 'top.q', 'want.raw')


def shows(pair, name, want='want.raw'):
    """Both tools find the content of `want` in our `name`, which is consistent."""
    for tool in (pair.ashlar, lambda *words: pair.run_in(pair.ours, ['qemu-img', *words])):
        done = tool('compare', '-F', 'raw', name, want)
        assert done.status == 0, done.stdout + done.stderr
        if name.endswith('.q'):
            done = tool('check', name)
            assert done.status == 0, done.stdout + done.stderr


@pytest.mark.parametrize('options', [
    (), ('compat=0.10',), ('cluster_size=4k',), ('refcount_bits=1',), ('lazy_refcounts=on',), ('extended_l2=on',),
    ('preallocation=metadata',), ('preallocation=full',), ('compression_type=zstd',), ('data_file=x.data',),
    ('data_file=x.data', 'data_file_raw=on'), ('cluster_size=2M', 'refcount_bits=64')], ids=','.join)
def test_create_and_info(pair, options):
    arguments = ('-o', ','.join(options)) if options else ()
    pair.same('create', '-f', 'qcow2', *arguments, 'x.q', '5M', status=0)
    pair.same('info', 'x.q', status=0, edit=on_disk)
    pair.same_json('info', '--output=json', 'x.q', edit=without_sizes)
    pair.same('info', '-f', 'qcow2', 'x.q', status=0, edit=on_disk)
    pair.same('check', 'x.q', status=0, edit=lambda text: re.sub('Image end offset.*', '', text))
    assert pair.run_in(pair.ours, ['qemu-img', 'check', 'x.q']).status == 0


@pytest.mark.parametrize('arguments', [
    ('create', '-f', 'qcow2', 'x'), ('create', '-f', 'qcow2', '-b', 'none', '-F', 'raw', 'x'),
    ('create', '-f', 'qcow2', '-b', 'none', '-F', 'raw', 'x', '1M'), ('create', '-f', 'qcow2', '-b', 'x', '-F', 'qcow2', 'x'),
    ('create', '-f', 'qcow2', '-F', 'qcow2', 'x', '1M'), ('create', '-f', 'qcow2', '-o', 'none=1', 'x', '1M'),
    ('create', '-f', 'qcow2', '-o', 'cluster_size=x', 'x', '1M'), ('create', '-f', 'qcow2', '-o', 'lazy_refcounts=x', 'x', '1M'),
    ('create', '-f', 'qcow2', '-o', 'refcount_bits=x', 'x', '1M'),
    ('create', '-f', 'qcow2', '-o', 'compat=0.10,lazy_refcounts=on', 'x', '1M'),
    ('create', '-f', 'qcow2', '-o', ',a=b', 'x', '1M'), ('create', '-f', 'qcow2', '-o', '', 'x', '1M'),
    ('create', '-f', 'qcow2', '-o', 'cluster_size=4k,', 'x', '1M'), ('create', '-f', 'qcow2', '-o', 'data_file=x,,,', 'x', '1M'),
    ('create', '-f', 'qcow2', '-o', 'help,', 'x', '1M'), ('create', '-f', 'qcow2', '-o', 'size=1M', '-o', ',help', 'x'),
    ('measure', '-o', '', 'raw'), ('amend', '-o', '', 'a.q'), ('convert', '-o', ',', 'a.q', 'x'), ('measure', '-O', 'file', 'raw'),
    ('create', '-f', 'qcow2', '-o', 'cluster_size=4k', '-o', ',,', 'x', '1M'),
    ('convert', '-O', 'qcow2', '-B', 'a.q', 'a.q', 'x'), ('convert', '-W', '-l', 'none', 'a.q', 'x'),
    ('convert', '--bitmaps', '-O', 'raw', 'a.q', 'x'), ('convert', '--skip-broken-bitmaps', 'a.q', 'x'),
    ('amend', '-o', 'none=1', 'a.q'), ('amend', '-o', 'cluster_size=4k', 'a.q'),
    ('commit', 'a.q'), ('rebase', '-b', 'none', '-F', 'raw', 'a.q'), ('rebase', '-b', 'a.q', '-F', 'none', 'a.q'),
    ('snapshot', '-d', 'none', 'a.q'), ('measure', '-O', 'qcow2', '-o', 'none=1', '--size', '1M'),
    ('bitmap', '--remove', 'a.q', 'none'), ('bitmap', '--clear', 'a.q', 'none'), ('bitmap', '--merge', 'x', 'a.q', 'none'),
    ('bitmap', '--add', '-g', '100', 'a.q', 'b'), ('info', '-f', 'qcow2', 'raw'),
    ('create', '-f', 'qcow2', 'json:{"driver":"qcow2"}', '1M'), ('create', '-f', 'qcow2', '-b', '', '-F', 'qcow2', 'x'),
    ('create', '-u', '-f', 'qcow2', '-b', 'none', '-F', 'qcow2', 'x'), ('create', 'x', '8E'), ('create', 'x', '9E'),
    ('resize', '--shrink', 'a.q', '0'), ('resize', 'a.q', '8E'), ('resize', 'a.q', '+8E'),
    ('convert', '--bitmaps', '-O', 'qcow2', 'raw', 'x'), ('convert', '-l', 'one', 'a.q', 'a.q', 'x'),
    ('convert', '-c', '-O', 'qcow2', '-o', 'preallocation=metadata', 'a.q', 'x'),
    ('convert', '-c', '-O', 'qcow2', '-o', 'encrypt.format=luks,encrypt.key-secret=s', 'a.q', 'x'),
    ('convert', '-n', '-O', 'qcow2', '--target-image-opts', 'a.q', 'driver=qcow2,file.filename=a.q'),
], ids=' '.join)
def test_mistakes(pair, arguments):
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'a.q', '1M')
    pair.write('raw', size=MIB)
    assert pair.same(*arguments).status == 1


def test_create_on_others(pair):
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.q', '3M')
    pair.same('create', '-f', 'qcow2', '-b', 'base.q', '-F', 'qcow2', 'x.q', status=0)
    pair.same('info', '--backing-chain', 'x.q', status=0, edit=on_disk)
    pair.same_json('info', '--backing-chain', '--output=json', 'x.q', edit=without_sizes)
    pair.same('create', '-f', 'qcow2', '-u', '-b', 'none', '-F', 'raw', 'y.q', '1M', status=0)
    pair.same('info', 'y.q', status=0, edit=on_disk)
    assert pair.same('info', '--backing-chain', 'y.q').status == 1
    done = pair.ashlar('create', '-f', 'qcow2', '-b', 'base.q', 'z.q')
    assert done.status == 1
    assert done.stderr == ('ashlar-img: z.q: Backing file specified without backing format\n'
                           'Detected format of qcow2.\n')


def test_relative_names_start_at_the_image(pair):
    pair.prepare('mkdir', 'sub')
    pair.write('sub/base.raw', b'\x01' * MIB)
    pair.same('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'sub/x.q', status=0)
    pair.same('info', '--backing-chain', 'sub/x.q', status=0, edit=on_disk)
    pair.same('map', 'sub/x.q', status=0)
    name = 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "sub/x.q"}}'
    pair.same('info', '--backing-chain', name, status=0, edit=on_disk)


def test_a_chain_without_an_end(pair):
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b', 'b.q', '-F', 'qcow2', 'a.q', '1M')
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b', 'a.q', '-F', 'qcow2', 'b.q', '1M')
    done = pair.ashlar('info', '--backing-chain', 'a.q')
    assert done.status == 1
    assert 'infinite loop' in done.stderr
    assert pair.ashlar('convert', 'a.q', 'x').status == 1


def test_map_and_measure(pair):
    chain(pair)
    for name in ('top.q', 'mid.q'):
        pair.same('map', name, status=0)
        pair.same('map', '--output=json', name, status=0)
        pair.same('map', '--output=json', '--start-offset=100k', '--max-length=1000k', name, status=0)
        pair.same('measure', '-O', 'qcow2', name, status=0)
        pair.same_json('measure', '--output=json', '-O', 'qcow2', '-o', 'cluster_size=4k', name)
        pair.same('measure', '-O', 'raw', name, status=0)
    write(pair, 'top.q', 'write -c -P 9 3M 64k')
    assert pair.same('map', 'top.q', stderr=True).status == 1
    pair.same('map', '--output=json', 'top.q', status=0)


@pytest.mark.parametrize('options', [
    (), ('-S', '0'), ('-W',), ('-m', '1'), ('-m', '16'), ('-C',), ('-c',), ('-c', '-o', 'compression_type=zstd'),
    ('-o', 'cluster_size=4k'), ('-o', 'extended_l2=on'), ('-o', 'compat=0.10'), ('-o', 'preallocation=metadata'),
    ('-o', 'preallocation=full'), ('-o', 'data_file=x.data'), ('-t', 'none'), ('-c', '-o', 'cluster_size=2M'),
    ('-S', '1M'), ('-p', '-T', 'none')], ids=' '.join)
def test_convert(pair, options):
    chain(pair)
    assert pair.ashlar('convert', '-O', 'qcow2', *options, 'top.q', 'x.q').status == 0
    shows(pair, 'x.q')
    assert pair.ashlar('convert', '-O', 'raw', 'x.q', 'x.raw').status == 0
    shows(pair, 'x.raw')
    if options == ():
        assert pair.qemu('convert', '-O', 'qcow2', 'top.q', 'x.q').status == 0
        pair.same('map', '--output=json', 'x.q', status=0)


def test_convert_much(pair):
    """Pieces on two threads, in order."""
    pair.write('a.raw', size=64 * MIB)
    for index in range(0, 64, 3):
        pair.write('a.raw', os.urandom(MIB + 4096 * index), at=index * MIB // 2 * 2)
    assert pair.ashlar('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'x.q').status == 0
    shows(pair, 'x.q', 'a.raw')
    offsets = [one['offset'] for one in json.loads(pair.ashlar('map', '--output=json', 'x.q').stdout) if one['data']]
    assert len(offsets) > 0
    assert pair.ashlar('convert', '-c', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'y.q').status == 0
    shows(pair, 'y.q', 'a.raw')
    assert pair.ashlar('convert', '-O', 'raw', 'y.q', 'y.raw').status == 0
    assert (pair.ours / 'y.raw').read_bytes() == (pair.ours / 'a.raw').read_bytes()


def test_convert_to_the_differences(pair):
    chain(pair)
    pair.same('convert', '-O', 'qcow2', '-B', 'mid.q', '-F', 'qcow2', 'top.q', 'x.q', status=0)
    shows(pair, 'x.q')
    pair.same('map', '--output=json', 'x.q', status=0)


def test_convert_onto_what_is_there(pair):
    chain(pair)
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'x.q', '6M')
    write(pair, 'x.q', 'write -P 9 0 5M')
    pair.same('convert', '-n', '-O', 'qcow2', 'top.q', 'x.q', status=0)
    pair.prepare('truncate', '-s', '6M', 'want.raw')
    shows(pair, 'x.q')


def test_convert_snapshots_and_bitmaps(pair):
    chain(pair)
    pair.prepare('qemu-img', 'snapshot', '-c', 'one', 'top.q')
    pair.prepare('qemu-img', 'bitmap', '--add', 'top.q', 'b0')
    pair.prepare('qemu-img', 'bitmap', '--add', '--disable', '-g', '4k', 'top.q', 'b1')
    write(pair, 'top.q', 'write -P 8 0 5M')
    for selector in ('one', '1', 'snapshot.name=one', 'snapshot.id=1,snapshot.name=one'):
        pair.same('convert', '-l', selector, '-O', 'raw', 'top.q', 'x.raw', status=0)
        shows(pair, 'x.raw')
    pair.same('convert', '-l', 'two', '-O', 'raw', 'top.q', 'x.raw', status=1)
    pair.same('convert', '--bitmaps', '-O', 'qcow2', 'top.q', 'x.q', status=0)
    pair.same('info', 'x.q', status=0, edit=on_disk)
    done = pair.run_in(pair.ours, ['qemu-img', 'check', 'x.q'])
    assert done.status == 0, done.stdout


def test_commit(pair):
    chain(pair)
    pair.same('commit', 'top.q', status=0)
    shows(pair, 'mid.q')
    shows(pair, 'top.q')
    assert all(one['depth'] > 0 for one in pair.ashlar('map', '--output=json', 'top.q').json())


def own_ranges(pair):
    """What the top layer has itself."""
    return [one for one in pair.ashlar('map', '--output=json', 'top.q').json()
            if one['present'] and one['depth'] == 0]


def test_commit_and_keep(pair):
    chain(pair)
    before = own_ranges(pair)
    pair.same('commit', '-d', '-q', 'top.q', status=0)
    shows(pair, 'mid.q')
    assert own_ranges(pair) == before


def test_commit_further_down(pair):
    chain(pair)
    pair.same('commit', '-b', 'none', 'top.q', status=1)
    pair.same('commit', '-b', 'base.raw', 'top.q', status=0)
    pair.same_content('base.raw')
    assert (pair.ours / 'base.raw').read_bytes() == (pair.ours / 'want.raw').read_bytes()


@pytest.mark.parametrize('options', [(), ('-c',)], ids=' '.join)
def test_rebase(pair, options):
    chain(pair)
    assert pair.ashlar('rebase', *options, '-b', 'base.raw', '-F', 'raw', 'top.q').status == 0
    shows(pair, 'top.q')
    assert pair.ashlar('info', '--output=json', 'top.q').json()['backing-filename'] == 'base.raw'
    assert pair.ashlar('rebase', *options, '-b', '', 'top.q').status == 0
    (pair.ours / 'base.raw').unlink()
    shows(pair, 'top.q')
    assert 'backing-filename' not in pair.ashlar('info', '--output=json', 'top.q').json()


def test_rebase_names_only(pair):
    chain(pair)
    pair.same('rebase', '-u', '-b', 'moved.q', '-F', 'qcow2', 'top.q', status=0)
    pair.same('info', 'top.q', status=0, edit=on_disk)
    pair.prepare('mv', 'mid.q', 'moved.q')
    shows(pair, 'top.q')
    pair.same('rebase', '-u', '-b', '', 'top.q', status=0)
    pair.same('map', '--output=json', 'top.q', status=0)
    pair.same('rebase', '-b', 'base.raw', 'top.q', status=1)


def test_snapshots(pair):
    def dateless(text):
        return re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)

    chain(pair)
    for name in ('one', 'two', 'a name that is longer than its column'):
        pair.same('snapshot', '-c', name, 'top.q', status=0)
    pair.same('snapshot', '-l', 'top.q', status=0, edit=dateless)
    pair.same('info', 'top.q', status=0, edit=lambda text: dateless(on_disk(text)))
    write(pair, 'top.q', 'write -P 8 0 5M')
    pair.same('snapshot', '-a', 'one', 'top.q', status=0)
    shows(pair, 'top.q')
    pair.same('snapshot', '-d', 'two', 'top.q', status=0)
    pair.same('snapshot', '-d', 'two', 'top.q', status=1)
    pair.same('snapshot', '-l', 'top.q', status=0, edit=dateless)
    shows(pair, 'top.q')


def test_odd_lengths(pair):
    """A qcow2 image has whole sectors; a raw one need not."""
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'a.q', '1M')
    ours, theirs = pair.ashlar('resize', 'a.q', MIB + 1), pair.qemu('resize', 'a.q', MIB + 1)
    assert (ours.status, theirs.status) == (1, 1)
    assert 'The new size must be a multiple of 512' in ours.stderr
    pair.write('a.raw', size=MIB)
    pair.same('resize', '-f', 'raw', 'a.raw', MIB + 1, status=0)
    pair.same_content('a.raw')


def test_formats_count_more_than_json(pair):
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', 'a.q', '1M')
    name = 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "a.q"}}'
    pair.same('info', '-f', 'raw', name, status=0, edit=on_disk)
    pair.same('create', '-f', 'qcow2', '-b', name, '-F', 'qcow2', 'x.q', status=0)
    pair.same('map', '--output=json', 'x.q', status=0)
    pair.same('info', '--backing-chain', 'x.q', status=0, edit=on_disk)


def test_data_files_are_named_as_they_are(pair):
    pair.prepare('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=d', 'a.q', '1M')
    write(pair, 'a.q', 'write 0 128k')
    pair.same('map', 'a.q', status=0)


def test_resize(pair):
    chain(pair)
    for arguments in (('7M',), ('+1M',), ('--shrink', '-3M'), ('--preallocation=metadata', '+1M'), ('-q', '6M'),
                      ('--shrink', '5M')):
        pair.same('resize', *arguments[:-1], 'top.q', arguments[-1], status=0)
        pair.same('info', 'top.q', status=0, edit=on_disk)
    shows(pair, 'top.q')


def test_amend(pair):
    chain(pair)
    pair.same('amend', '-o', 'help', 'top.q', status=0)
    pair.same('amend', '-o', 'lazy_refcounts=on', 'top.q', status=0)
    pair.same('info', 'top.q', status=0, edit=on_disk)
    pair.same('amend', '-o', 'compat=0.10', 'top.q', status=0)
    pair.same('info', 'top.q', status=0, edit=on_disk)
    done = pair.ashlar('amend', '-p', '-o', 'compat=1.1', 'top.q')
    assert done.status == 0
    assert done.stdout.endswith('    (100.00/100%)\r\n')
    shows(pair, 'top.q')


def test_bitmaps(pair):
    chain(pair)
    for arguments in (('--add',), ('--disable',), ('--enable',), ('--clear',)):
        pair.same('bitmap', *arguments, 'top.q', 'b0', status=0)
        pair.same('info', 'top.q', status=0, edit=on_disk)
    write(pair, 'top.q', 'write 1M 128k')
    pair.same('bitmap', '--add', '-g', '32k', '--disable', 'top.q', 'b1', status=0)
    pair.same('bitmap', '--merge', 'b0', 'top.q', 'b1', status=0)
    pair.same('bitmap', '--add', 'top.q', 'b1', status=1)
    pair.same('bitmap', '--add', '--merge', 'b0', '-b', 'top.q', '-F', 'qcow2', 'mid.q', 'b2')
    pair.same('bitmap', '--remove', 'top.q', 'b0', status=0)
    pair.same('info', 'top.q', status=0, edit=on_disk)
    pair.same('bitmap', '--remove', 'top.q', 'b0', status=1)
    shows_check = pair.run_in(pair.ours, ['qemu-img', 'check', 'top.q'])
    assert shows_check.status == 0, shows_check.stdout


def test_dd(pair):
    chain(pair)
    pair.same('dd', '-O', 'qcow2', 'bs=64k', 'count=10', 'if=top.q', 'of=x.q', status=0)
    pair.same('info', 'x.q', status=0, edit=on_disk)
    assert pair.ashlar('convert', '-O', 'raw', 'x.q', 'x.raw').status == 0
    assert (pair.ours / 'x.raw').read_bytes() == (pair.ours / 'want.raw').read_bytes()[:640 * KIB]


def test_check_tells_by_its_status(pair):
    chain(pair)
    pair.same('check', 'top.q', status=0)
    pair.same_json('check', '--output=json', 'top.q')
    size = (pair.ours / 'top.q').stat().st_size
    for folder in pair.folders():
        with open(folder / 'top.q', 'r+b') as file:
            file.truncate(size + 65536)
            # One more reference to the header than there is; its count is the first of the first refcount block.
            file.seek(48)
            table = int.from_bytes(file.read(8), 'big')
            file.seek(table)
            block = int.from_bytes(file.read(8), 'big')
            file.seek(block)
            file.write(b'\0\2')
    assert pair.same('check', 'top.q').status == 3
    pair.same('check', '-q', 'top.q', status=3)
    pair.same('check', '-r', 'leaks', 'top.q', status=0)
    pair.same('check', 'top.q', status=0)
    for folder in pair.folders():
        with open(folder / 'top.q', 'r+b') as file:
            file.seek(block)
            file.write(b'\0\0')
    assert pair.same('check', 'top.q').status == 2
    assert pair.ashlar('check', '-r', 'all', 'top.q').status == 0
    shows(pair, 'top.q')
