# SPDX-License-Identifier: LGPL-2.1-or-later
"""Broken and hostile qcow2 images: an error that says what is wrong, the rest of the image usable, the file untouched."""
import os
import re
import signal
import subprocess
import sys
import zlib

import pytest

from harness import PATIENCE_S, QmpError, background, memory_limit_kib, need, program, run
from nbd_peers import nbdkit
from qcow2_files import COMPRESSED, COPIED, KIB, Qcow2, make

MEMORY_KIB = 160 << 10  # of a whole tool at its worst
MEASURE = """
import os, sys
tell, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(tell, False)
_, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
os.write(tell, b'%d %d' % (os.waitstatus_to_exitcode(status), usage.ru_maxrss))
"""


class Outcome:
    """Runs one of our tools and watches its memory."""

    def __init__(self, *command):
        # A process begins with the memory of the one that it was forked from, which counts: so that is a small one.
        measured, tell = os.pipe()
        with open(measured, 'rb') as facts:
            with subprocess.Popen([sys.executable, '-I', '-S', '-c', MEASURE, str(tell), *(str(word) for word in command)],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  pass_fds=(tell,)) as process:
                os.close(tell)
                self.text = process.stdout.read().decode(errors='replace')
            self.status, memory_kib = map(int, facts.read().split())
        assert self.status >= 0, f'{command} was ended by signal {-self.status}: {self.text}'
        assert 'Sanitizer' not in self.text, self.text
        assert 'Assertion' not in self.text, self.text
        assert memory_kib < memory_limit_kib(MEMORY_KIB), f'{memory_kib} KiB'


def img(*words):
    return Outcome(program('ashlar-img'), *words)


def io(image, *commands, read_only=False):
    words = [word for command in commands for word in ('-c', command)]
    return Outcome(program('ashlar-io'), *(['-r'] if read_only else []), '-f', 'qcow2', *words, image)


def change(field, value):
    def apply(image):
        image[field] = value
    return apply


def all_of(*changes):
    def apply(image):
        for one in changes:
            one(image)
    return apply


def extension_length(image):
    image.put(image['header_length'] + 4, 0x10000, 4)


def extensions_without_end(image):
    """Up to the end of the first cluster."""
    at = image['header_length']
    image.write(at, ((0x12345678).to_bytes(4, 'big') + bytes([0, 0, 0, 8]) + b'magic\0\0\0') *
                ((image.cluster - at) // 16))


def extension_over_the_backing_name(image):
    image['backing_file_offset'], image['backing_file_size'] = 256, 4
    image.write(256, b'name')
    image.put(image['header_length'], 0x12345678, 4)
    image.put(image['header_length'] + 4, 400, 4)


def feature(bit, name):
    """An unknown feature with a name in the table that the image has."""
    def apply(image):
        image['incompatible_features'] = 1 << bit
        table = image.extension(0x6803f857)
        image.write(table, bytes([0, bit]) + name.ljust(46, b'\0')[:46])
    return apply


def backing(offset, size):
    return all_of(change('backing_file_offset', offset), change('backing_file_size', size))


# How the image is changed, and what the error must tell: the value, and mostly the field.
REFUSED = {
    'Q2-version-0': (change('version', 0), ['0']),
    'Q2-version-1': (change('version', 1), ['1']),
    'Q2-version-4': (change('version', 4), ['4']),
    'Q2-version-max': (change('version', 0xffffffff), ['4294967295']),
    'Q3-cluster-bits-0': (change('cluster_bits', 0), ['cluster size', '2^0']),
    'Q3-cluster-bits-8': (change('cluster_bits', 8), ['cluster size', '2^8']),
    'Q3-cluster-bits-22': (change('cluster_bits', 22), ['cluster size', '2^22']),
    'Q3-cluster-bits-63': (change('cluster_bits', 63), ['cluster size', '2^63']),
    'Q3-cluster-bits-max': (change('cluster_bits', 0xffffffff), ['cluster size', '2^4294967295']),
    'Q4-header-length-0': (change('header_length', 0), ['header_length', '0']),
    'Q4-header-length-96': (change('header_length', 96), ['header_length', '96']),
    'Q4-header-length-large': (change('header_length', 65544), ['header_length', '65544']),
    'Q4-header-length-max': (change('header_length', 0xffffffff), ['header_length', '4294967295']),
    'Q4-header-length-107': (change('header_length', 107), ['header_length', '107']),
    'Q5-extension-too-long': (extension_length, ['65536']),
    'Q5-no-end': (extensions_without_end, ['xtension']),
    'Q5-over-the-backing-name': (extension_over_the_backing_name, ['xtension', '400']),
    'Q6-feature-63': (change('incompatible_features', 1 << 63), ['feature', '8000000000000000']),
    'Q6-feature-named': (feature(40, b'strange feature'), ['strange feature']),
    'Q6-feature-unterminated': (feature(41, b'x' * 46), ['x' * 46]),
    'Q6-feature-escaped': (feature(42, b'\x1b[31m\n'), []),
    'Q7-table-unaligned': (change('refcount_table_offset', 0x10200), ['0x10200']),
    'Q7-table-beyond-2^56': (change('refcount_table_offset', 1 << 60), ['0x1000000000000000']),
    'Q7-table-beyond-end': (change('refcount_table_offset', 1 << 40), ['0x10000000000']),
    'Q7-table-huge': (change('refcount_table_clusters', 0x7fffffff), ['2147483647']),
    'Q8-refcount-order-7': (change('refcount_order', 7), ['refcount_order', '7']),
    'Q8-refcount-order-max': (change('refcount_order', 0xffffffff), ['4294967295']),
    'Q9-l1-overflow': (change('l1_size', 0x20000001), ['l1_size', '536870913']),
    'Q9-l1-too-small': (change('l1_size', 0), ['l1_size', '0']),
    'Q9-l1-huge': (change('l1_size', (32 << 20) // 8 + 1), ['l1_size', '4194305']),
    'Q9-l1-unaligned': (change('l1_table_offset', 0x30200), ['0x30200']),
    'Q9-l1-beyond-end': (change('l1_table_offset', 1 << 40), ['0x10000000000']),
    'Q10-size-2^63-1': (change('size', (1 << 63) - 1), ['9223372036854775807']),
    'Q10-size-2^64-1': (change('size', (1 << 64) - 1), ['18446744073709551615']),
    'Q11-snapshots-too-many': (all_of(change('nb_snapshots', 65537), change('snapshots_offset', 65536)), ['65537']),
    'Q11-snapshots-unaligned': (all_of(change('nb_snapshots', 1), change('snapshots_offset', 65536 + 512)), ['0x10200']),
    'Q12-backing-long': (backing(4096, 1024), ['1024']),
    'Q12-backing-in-header': (backing(64, 10), ['64']),
    'Q12-backing-beyond-cluster': (backing(65530, 10), ['backing_file_size', '10']),
    'Q12-backing-far': (backing(1 << 62, 10), ['4611686018427387904']),
    'Q15-data-file-without-name': (change('incompatible_features', 4), ['data']),
    'Q21-luks-without-header': (change('crypt_method', 2), []),
    'Q21-crypt-method-7': (change('crypt_method', 7), ['7']),
}


@pytest.mark.parametrize('name', REFUSED)
def test_image_is_refused(tmp_path, name):
    apply, words = REFUSED[name]
    image = tmp_path / 'image'
    make(image)
    with Qcow2(image) as file:
        apply(file)
    before = image.read_bytes()
    for outcome in img('info', '-f', 'qcow2', image), io(image, 'read 0 64k'), io(image, 'write 0 64k'):
        if outcome.status == 0:
            # Metadata alone may be shown where data cannot be read.
            assert name.startswith('Q15') or name.startswith('Q21')
            continue
        assert outcome.status == 1
        text = outcome.text.strip()
        assert all(character.isprintable() or character == '\n' for character in text), repr(text)
        for word in words:
            assert word in text, text
    assert io(image, 'read 0 64k').status == 1
    img('check', '-f', 'qcow2', image)
    assert image.read_bytes() == before


@pytest.mark.parametrize('size', [0, 3, 71, 103])
def test_file_too_short(tmp_path, size):
    # Q1
    image = tmp_path / 'image'
    make(image)
    os.truncate(image, size)
    for outcome in img('info', '-f', 'qcow2', image), io(image, 'read 0 64k'), img('check', '-f', 'qcow2', image):
        assert outcome.status == 1, outcome.text
    assert image.stat().st_size == size


@pytest.mark.parametrize('size', [0, 1, 511, 513, 1000001])
def test_odd_sizes_open(tmp_path, size):
    # Q10
    image = tmp_path / 'image'
    make(image, writes=())
    with Qcow2(image) as file:
        file['size'] = size
    assert img('info', image).status == 0
    whole = (size + 511) // 512 * 512
    done = io(image, f'write -P 3 0 {size // 512 * 512}', f'read -P 0 {whole} 512')
    assert img('check', image).status == 0
    assert done.status == 1  # the read beyond the end


def test_unknown_extension_is_kept(tmp_path):
    # Q5
    image = tmp_path / 'image'
    make(image, writes=())
    with Qcow2(image) as file:
        at = file['header_length']
        old = file.read(at, 1024)
        file.write(at, (0x12345678).to_bytes(4, 'big') + (5).to_bytes(4, 'big') + b'magic\0\0\0' + old)
    run(program('ashlar-img'), 'rebase', '-f', 'qcow2', '-u', '-b', 'nowhere', '-F', 'raw', image)
    with Qcow2(image) as file:
        at = file.extension(0x12345678)
        assert file.read(at, 5) == b'magic'


def l1(value):
    return lambda image: image.put(image.l1, value(image))


def l2(value, index=1):
    return lambda image: image.put(image.l2 + 8 * index, value(image))


PACKED = {'writes': ('write -P 1 0 64k', 'write -c -P 2 64k 64k', 'write -P 3 128k 64k')}
EXTENDED = {'options': 'extended_l2=on'}

def deflated(size):
    """Another stream in place of the compressed cluster's."""
    def apply(image):
        packer = zlib.compressobj(9, zlib.DEFLATED, -12)
        stream = packer.compress(b'\5' * size) + packer.flush()
        image.write(image.get(image.l2 + 8) & ((1 << 54) - 1), stream)
    return apply


def compressed_subclusters(image):
    image.put(image.l2 + 16 + 8, 1)


PACKED_EXTENDED = {**PACKED, **EXTENDED}

# What the second cluster (or, through the L1 table, all of the disk) cannot be read for.
READ_FAILS = {
    'Q16-data-unaligned': ({}, l2(lambda image: image.get(image.l2) + 512)),
    'Q19-compressed-beyond-end': (PACKED, l2(lambda image: image.get(image.l2 + 8) + (1 << 40))),
    'Q19-compressed-too-short': (PACKED, l2(lambda image: (image.get(image.l2 + 8) & ((1 << 54) - 1)) + 100 |
                                            COMPRESSED)),
    'Q19-compressed-garbage': (PACKED, lambda image: image.write(image.get(image.l2 + 8) & ((1 << 54) - 1), b'\xff' * 40)),
    'Q19-inflates-to-less': (PACKED, deflated(100)),
    'Q19-inflates-to-more': (PACKED, deflated(70000)),
    'Q20-both-bits': (EXTENDED, lambda image: image.put(image.l2 + 16 + 8, 1 << 32 | 1)),
    'Q20-no-offset': (EXTENDED, lambda image: image.put(image.l2 + 16, 0)),
    'Q20-compressed-with-subclusters': (PACKED_EXTENDED, compressed_subclusters),
}


@pytest.mark.parametrize('name', READ_FAILS)
def test_read_fails_there_alone(tmp_path, name):
    how, apply = READ_FAILS[name]
    image = tmp_path / 'image'
    make(image, **how)
    with Qcow2(image) as file:
        apply(file)
    before = image.read_bytes()
    assert io(image, 'read 64k 64k', read_only=True).status == 1
    assert io(image, 'read -P 1 0 64k', read_only=True).status == 0
    third = 3 if 'writes' in how else 1
    assert io(image, f'read -P {third} 128k 64k', read_only=True).status == 0
    assert image.read_bytes() == before


@pytest.mark.parametrize('value', [lambda image: image.get(image.l1) + 512, lambda image: 1 << 55 | 512],
                         ids=['unaligned', 'outside-unaligned'])
def test_l2_table_that_cannot_be(tmp_path, value):
    # Q16
    image = tmp_path / 'image'
    make(image)
    with Qcow2(image) as file:
        l1(value)(file)
    for command in 'read 0 64k', 'write 0 64k':
        assert io(image, command).status == 1
    assert img('check', image).status == 2


# A cluster of the disk that lies where something else is: by the overlap check's names.
OVERLAPS = {
    'active L1 table': ({}, lambda image: image.l1),
    'active L2 table': ({}, lambda image: image.l2),
    'refcount table': ({}, lambda image: image.refcount_table),
    'refcount block': ({}, lambda image: image.refcount_block),
    'snapshot table': ({'snapshots': 1}, lambda image: image.snapshots),
    'inactive L1 table': ({'snapshots': 1}, lambda image: image.get(image.snapshots)),
    'inactive L2 table': ({'snapshots': 1}, lambda image: image.get(image.get(image.snapshots)) & ~COPIED),
    'bitmap directory': ({'bitmaps': 1}, lambda image: image.bitmap_directory),
}


def overlapping(tmp_path, kind):
    how, where = OVERLAPS[kind]
    image = tmp_path / 'image'
    make(image, **how)
    with Qcow2(image) as file:
        file.put(file.l2 + 8, where(file) | COPIED)
    return image


def disk_options(image, **options):
    return {'driver': 'qcow2', 'node-name': 'disk', 'file': {'driver': 'file', 'filename': str(image),
                                                             'node-name': 'file'}, **options}


@pytest.mark.parametrize('kind', OVERLAPS)
def test_write_over_metadata_is_prevented(daemon, tmp_path, kind):
    # Q16, R5: the event comes once, nothing is written any more, reading goes on, and only a repair helps.
    image = overlapping(tmp_path, kind)
    before = image.read_bytes()
    one = daemon()
    one.qmp.command('blockdev-add', **disk_options(image, **{'overlap-check': 'all'}))
    one.qmp.command('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
    one.qmp.command('block-export-add', type='nbd', id='e', node_name='disk', name='x', writable=True)
    url = f'nbd+unix:///x?socket={tmp_path}/nbd'
    for _ in range(2):
        assert run(need('qemu-io'), '-f', 'raw', '-c', 'write -P 5 64k 64k', url, check=False).returncode == 1
    event = one.qmp.event('BLOCK_IMAGE_CORRUPTED')['data']
    assert event['msg'] == f'Preventing invalid write on metadata (overlaps with {kind})'
    assert event['node-name'] == 'disk'
    assert event['fatal'] is True
    assert run(need('qemu-io'), '-f', 'raw', '-c', 'write -P 5 512k 64k', url, check=False).returncode == 1
    run(need('qemu-io'), '-f', 'raw', '-r', '-c', 'read 0 64k', url)
    one.qmp.command('query-version')
    assert not [event for event in one.qmp.events if event['event'] == 'BLOCK_IMAGE_CORRUPTED']
    one.stop()
    with Qcow2(image) as file:
        assert file['incompatible_features'] & 2
        file['incompatible_features'] &= ~3
    # Bitmaps are marked as in use, by design.
    assert kind == 'bitmap directory' or image.read_bytes()[112:] == before[112:]
    # Open for writing again only once it has been repaired.
    with Qcow2(image) as file:
        file['incompatible_features'] |= 2
    refused = io(image, 'write 0 64k')
    assert refused.status == 1
    assert 'corrupt' in refused.text
    assert img('check', '-r', 'all', image).status == 0
    assert io(image, 'write -P 7 0 64k').status == 0


MODES = {
    'none': set(),
    'constant': {'active L1 table', 'refcount table', 'snapshot table', 'bitmap directory'},
    'cached': set(OVERLAPS) - {'inactive L2 table'},
    'all': set(OVERLAPS),
}


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('kind', OVERLAPS)
def test_overlap_modes(tmp_path, mode, kind):
    image = overlapping(tmp_path, kind)
    prefix = f'driver=qcow2,file.filename={image},overlap-check'
    status = Outcome(program('ashlar-io'), '--image-opts', '-c', 'write -P 5 64k 64k', f'{prefix}={mode}').status
    assert status == (1 if kind in MODES[mode] else 0)
    # The same by template, with this kind turned the other way round.
    image.unlink()
    image = overlapping(tmp_path, kind)
    flag = kind.lower().replace(' table', '').replace(' ', '-') if kind not in ('refcount table', 'snapshot table') \
        else kind.replace(' ', '-')
    on = kind not in MODES[mode]
    status = Outcome(program('ashlar-io'), '--image-opts', '-c', 'write -P 5 64k 64k',
                     f'{prefix}.template={mode},overlap-check.{flag}={"on" if on else "off"}').status
    assert status == (1 if on else 0)


@pytest.mark.parametrize('what', ['l1', 'l2', 'refcount_table', 'refcount_block'])
def test_metadata_with_count_0_is_not_handed_out(tmp_path, what):
    # Q18: new clusters are looked for where the counts say that there is room.
    image = tmp_path / 'image'
    make(image)
    with Qcow2(image) as file:
        file.set_refcount(getattr(file, what) // file.cluster, 0)
    io(image, 'write -P 5 512k 64k', 'write -P 6 600k 64k')
    assert io(image, 'read -P 1 0 256k', read_only=True).status == 0
    assert img('check', '-r', 'all', image).status == 0
    assert io(image, 'read -P 1 0 256k').status == 0
    assert run(need('qemu-img'), 'check', image).returncode == 0


def test_truncated_everywhere(tmp_path):
    # Q23: what can be read is right, or an error.
    whole = tmp_path / 'whole'
    make(whole, '32k', 'cluster_size=512', writes=('write -P 1 0 4k', 'write -P 2 8k 1k'))
    data = whole.read_bytes()
    for size in range(512, len(data), 512):
        image = tmp_path / 'image'
        image.write_bytes(data[:size])
        outcome = io(image, 'read -P 1 0 4k', 'read -P 2 8k 1k', read_only=True)
        assert outcome.status in (0, 1)
        assert img('check', '-f', 'qcow2', image).status in (0, 1, 2, 3)
        assert image.read_bytes() == data[:size]


def test_dirty_and_corrupt_bits(tmp_path):
    # Q24
    image = tmp_path / 'image'
    make(image, options='lazy_refcounts=on')
    for bits in 1, 2, 3:
        with Qcow2(image) as file:
            file.set_refcount(6, 0)
            file['incompatible_features'] = bits
        before = image.read_bytes()
        assert io(image, 'read -P 1 0 256k', read_only=True).status == 0
        assert image.read_bytes() == before
        written = io(image, 'write -P 1 0 64k')
        if bits & 2:
            assert written.status == 1
            assert image.read_bytes() == before
            assert img('check', '-r', 'all', image).status == 0
        else:
            assert written.status == 0
        with Qcow2(image) as file:
            assert file['incompatible_features'] == 0
        assert run(need('qemu-img'), 'check', image).returncode == 0


def test_check_of_a_huge_sparse_file(tmp_path):
    # Q25: a small image at the beginning of a file of terabytes, with references all over it.
    image = tmp_path / 'image'
    make(image, '16k', 'cluster_size=512', writes=('write -P 1 0 4k',))
    with Qcow2(image) as file:
        for index in range(8, 24):
            file.put(file.l2 + 8 * index, (index << 36) | COPIED)
        file.truncate(2 << 40)
    outcome = img('check', image)
    assert outcome.status == 2
    assert len(re.findall(r'^ERROR cluster \d+ refcount=0 reference=1$', outcome.text, re.M)) == 16


def test_check_shows_progress_and_can_be_ended(tmp_path):
    # Q25: behind a server that is slow, so that it takes as long as need be.
    image = tmp_path / 'image'
    make(image, '8M', 'cluster_size=512,preallocation=metadata', writes=())
    whole = run(program('ashlar-img'), 'check', '-p', image).stdout
    shown = [float(one) for one in re.findall(r'\((\d+\.\d+)/100%\)', whole)]
    assert shown == sorted(shown) and shown[0] == 0 and shown[-1] == 100 and len(shown) > 10
    socket = tmp_path / 's'
    with nbdkit(socket, '--filter=delay', 'file', image, 'rdelay=100ms'):
        with background(program('ashlar-img'), 'check', '-p', '-f', 'qcow2', f'nbd+unix:///?socket={socket}',
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) as check:
            assert check.stdout.read(10)
            check.send_signal(signal.SIGINT)
            _, errors = check.communicate(timeout=5 * PATIENCE_S)
            assert (check.returncode, errors) == (1, b'ashlar-img: Check failed: The check was cancelled\n')


@pytest.mark.parametrize('name', ['json:{"driver":"null-co"}', 'nbd://127.0.0.1/x', 'fd:0'])
def test_data_file_name_is_nothing_but_a_name(tmp_path, name):
    # Q14
    image = tmp_path / 'image'
    make(image, options=f'data_file={tmp_path}/data', writes=())
    with Qcow2(image) as file:
        at = file.extension(0x44415441)
        length = file.get(at - 4, 4)
        text = name.encode()[:length]
        file.put(at - 4, len(text), 4)
        rest = file.read(at + (length + 7) // 8 * 8, 600)
        file.write(at, text.ljust((len(text) + 7) // 8 * 8, b'\0') + rest)
    outcome = io(image, 'read 0 64k')
    assert outcome.status == 1
    assert 'No such file' in outcome.text or 'Could not open' in outcome.text


def test_what_an_image_names_is_left_alone(tmp_path):
    # Q14: who asks for metadata opens neither data file nor chain; who says what they are opens nothing else.
    image, data, base = tmp_path / 'image', tmp_path / 'data', tmp_path / 'base'
    make(image, options=f'data_file={data}', writes=('write -P 1 0 64k',))
    run(need('qemu-img'), 'rebase', '-u', '-b', 'nbd://127.0.0.1:1/x', '-F', 'raw', image)
    elsewhere = data.rename(tmp_path / 'elsewhere')
    shown = img('info', image)
    assert shown.status == 0
    assert 'backing file: nbd://127.0.0.1:1/x' in shown.text
    assert f'data file: {data}' in shown.text
    assert io(image, 'read 0 64k', read_only=True).status == 1
    base.write_bytes(b'\7' * (1 << 20))
    named = f'driver=qcow2,file.filename={image},data-file.driver=file,data-file.filename={elsewhere}'
    for backing, pattern in ('backing=', 0), (f'backing.driver=raw,backing.file.filename={base}', 7):
        opened = Outcome(program('ashlar-io'), '-r', '--image-opts', '-c', 'read -P 1 0 64k', '-c',
                         f'read -P {pattern} 64k 64k', f'{named},{backing}')
        assert opened.status == 0, opened.text


def test_data_file_name_without_the_flag(tmp_path):
    # Q15: the name says nothing then, and is kept when the header is written again
    image = tmp_path / 'image'
    make(image, options=f'data_file={tmp_path}/data', writes=())
    with Qcow2(image) as file:
        file['incompatible_features'] &= ~4
        name = file.read(file.extension(0x44415441), len(str(tmp_path / 'data')))
    (tmp_path / 'data').unlink()
    assert io(image, 'write -P 3 0 64k', 'read -P 3 0 64k').status == 0
    run(program('ashlar-img'), 'rebase', '-f', 'qcow2', '-u', '-b', 'nowhere', '-F', 'raw', image)
    with Qcow2(image) as file:
        assert file.read(file.extension(0x44415441), len(name)) == name == str(tmp_path / 'data').encode()


def test_raw_data_file_has_no_backing_image(tmp_path):
    # Q15
    refused = img('create', '-f', 'qcow2', '-o', f'data_file={tmp_path}/data,data_file_raw=on', '-u', '-b', 'base', '-F',
                  'raw', tmp_path / 'image', '1M')
    assert refused.status == 1
    assert 'backing' in refused.text.lower()
    assert not (tmp_path / 'image').exists()


@pytest.mark.parametrize('at, value, word', [(0, 512 + 7, '519'), (0, 1 << 60, hex(1 << 60)),
                                             (8, 1 << 40, str(1 << 40)),
                                             (8, 0, 'too small: 0 bytes')])
def test_encryption_header_that_cannot_be(tmp_path, at, value, word):
    # Q21: offset and length. What needs no key is shown.
    image = tmp_path / 'image'
    run(program('ashlar-img'), 'create', '-q', '-f', 'qcow2', '--object', 'secret,id=s,data=secret', '-o',
        'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10', image, '1M')
    with Qcow2(image) as file:
        file.put(file.extension(0x0537be77) + at, value)
    before = image.read_bytes()
    opened = Outcome(program('ashlar-io'), '--object', 'secret,id=s,data=secret', '--image-opts', '-c', 'read 0 64k',
                     f'driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s')
    assert opened.status == 1
    assert word in opened.text
    shown = img('info', image)
    assert shown.status in (0, 1)
    assert shown.status == 1 or 'virtual size: 1 MiB' in shown.text
    assert image.read_bytes() == before


# Fields of the first entry: sizes of its table, its id, its name and what follows.
@pytest.mark.parametrize('at, value, width', [(8, 0xffffffff, 4), (12, 0xffff, 2), (14, 0xffff, 2), (36, 0xffffffff, 4),
                                              (36, 70000, 4)])
def test_snapshot_table_that_ends_too_early(tmp_path, at, value, width):
    # Q11: the image is refused, or its snapshot cannot be used.
    image = tmp_path / 'image'
    make(image, snapshots=1)
    with Qcow2(image) as file:
        file.put(file.snapshots + at, value, width)
        file.truncate(file.snapshots + file.cluster)
    before = image.read_bytes()
    read = io(image, 'read -P 1 64k 64k', read_only=True)
    assert read.status in (0, 1)
    for action in '-a', '-d':
        assert img('snapshot', action, 's0', image).status == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize('name', ['image', './image', 'there/../image', 'link', 'there/image'])
def test_backing_chain_that_contains_itself(tmp_path, name):
    # Q13: by its name, by a path that leads back, and by links
    image = tmp_path / 'image'
    make(image, writes=())
    (tmp_path / 'link').symlink_to('image')
    (tmp_path / 'there').symlink_to('.')
    run(need('qemu-img'), 'rebase', '-u', '-b', name, '-F', 'qcow2', image)
    outcome = io(image, 'read 0 64k')
    assert outcome.status == 1
    assert outcome.text.count('\n') <= 2


def test_backing_chain_of_10000(tmp_path):
    # Q13: each image is a copy of the same that names the one before.
    first = tmp_path / '00000'
    run(need('qemu-img'), 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', '-u', '-b', 'xxxxx', '-F', 'qcow2', first, '64k')
    data = first.read_bytes()
    for level in range(10001):
        (tmp_path / f'{level:05}').write_bytes(data.replace(b'xxxxx', f'{max(level - 1, 0):05}'.encode()))
    outcome = io(tmp_path / '10000', 'read 0 64k')
    assert outcome.status == 1
    assert outcome.text.count('Could not open backing file') == 1
    assert 'would be more than 200 nodes below' in outcome.text


def test_ranges_beyond_the_end(tmp_path):
    # Q27
    image = tmp_path / 'image'
    make(image, str(1000 * KIB + 512), writes=())
    size = 1000 * KIB + 512
    assert io(image, f'write -P 1 {size - 700} 700', f'discard {size - 512} 512', f'write -z {size - 300} 300',
              f'discard {size - 100} 100', 'discard 0 0', 'write -z 0 0').status == 0
    for command in f'write {size} 1', f'write -z {size - 1} 2', f'discard {size} 512', 'write 9223372036854775295 512', \
                   'discard 0 9223372036854775807':
        assert io(image, command).status == 1, command
    assert run(need('qemu-img'), 'check', image).returncode == 0


def test_failed_open_leaves_nothing(daemon, tmp_path):
    # R3: the node's name, the file's locks.
    image = tmp_path / 'image'
    make(image)
    one = daemon()
    with Qcow2(image) as file:
        good = file['refcount_order']
        file['refcount_order'] = 9
    with pytest.raises(QmpError) as caught:
        one.qmp.command('blockdev-add', **disk_options(image))
    assert 'refcount_order' in caught.value.desc
    assert one.qmp.command('query-named-block-nodes') == []
    run(need('qemu-io'), '-f', 'raw', '-c', 'read 0 1', image)
    with Qcow2(image) as file:
        file['refcount_order'] = good
    one.qmp.command('blockdev-add', **disk_options(image))
